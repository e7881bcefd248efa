"""What a model file would run when it is opened: its config or graph goes in, a ModelError comes out for code in it.

The Keras loaders have safe modes, but these know of Lambda alone, and SavedModels have none. Here a config is read
before any loader sees it, and whatever is not a plain layer of Keras or of the user's own file needs `--trust`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeopt import frameworks
from edgeopt.errors import ModelError

# Modules of TensorFlow whose functions only compute, for the symbols that tf_keras's TFOpLambda calls by name.
_COMPUTING = ("__operators__", "bitwise", "dtypes", "image", "linalg", "math", "nn", "random", "signal", "sparse")
_NOT_COMPUTING = (
    "Assert",
    "function",
    "import_graph_def",
    "load_library",
    "load_op_library",
    "matching_files",
    "numpy_function",
    "print",
    "py_func",
    "py_function",
    "read_file",
    "write_file",
)

# Operations in a SavedModel's graph that run Python, or touch files beside the model's own variables.
_REACHING_OUT = frozenset(
    {
        "DebugIdentityV2",
        "EagerPyFunc",
        "MatchingFiles",
        "PrintV2",
        "PyFunc",
        "PyFuncStateless",
        "ReadFile",
        "WholeFileReaderV2",
        "WriteFile",
        "WriteSummary",
    }
)


def check_config(config: Mapping[str, Any], path: Path, known: Collection[str] = ()) -> None:
    """Raises ModelError where a model's config holds Python code, or operations that do more than compute.

    Args:
        config: of the model, as it stands in the file.
        path: of the file, for the message.
        known: names of the user's own functions, which a Lambda layer may call by name.
    """
    for part in _objects(config):
        name, settings = str(part.get("class_name")), part.get("config")
        own = name if not isinstance(settings, Mapping) else settings.get("name", name)
        called = _called(settings) if name == "Lambda" else ""
        if called and called.rpartition(">")[2] not in known:
            raise ModelError(
                f"{path} contains a Lambda layer {own!r} that calls the function {called}, of which it holds no code. "
                "Try --custom-objects FILE.py with the Python file that defines it."
            )
        if name in ("Lambda", "__lambda__") and not called:
            raise ModelError(
                f"{path} contains a Lambda layer {own!r}: Python code of the file's author, which opening it would "
                "run. Try --trust if you trust its author, or replace it by a layer (keras.ops work in a model as "
                "they are)."
            )
        if name in ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod"):
            _check_symbol(str((settings or {}).get("function", (settings or {}).get("cls_symbol", ""))), own, path)
        if name == "TensorFlowOpLayer":
            _check_operation(settings, own, path)


def check_known(config: Mapping[str, Any], path: Path, known: Collection[str]) -> None:
    """Raises ModelError where a model's config names a class or function that is neither Keras's nor the user's own.

    Args:
        config: of the model, as it stands in the file; none of the modules it names is imported.
        path: of the file, for the message.
        known: names of the user's own classes and functions.
    """
    for part in _objects(config):
        foreign = _foreign(part, known)
        if foreign is not None:
            raise ModelError(
                f"{path} needs the custom {foreign}, which is not Keras's. "
                "Try --custom-objects FILE.py with the Python file that defines it."
            )


def check_saved_model(path: Path) -> None:
    """Raises ModelError where a SavedModel's layers or operations would run Python or touch other files."""
    model = frameworks.load("tf_saved_model_proto").SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    # protobuf's DecodeError is another class in each of its implementations.
    except Exception as error:
        raise ModelError(f"{path}/saved_model.pb is damaged ({error}). Try copying the folder again.") from error
    graphs = [meta.graph_def for meta in model.meta_graphs]
    nodes = (node for graph in graphs for part in (graph, *graph.library.function) for node in _nodes(part))
    reaching = sorted({node.op for node in nodes if node.op in _REACHING_OUT})
    if reaching:
        raise ModelError(
            f"{path} contains operations that run Python or touch files ({', '.join(reaching)}). "
            "Try --trust if you trust its author."
        )
    for metadata in keras_metadata(path):
        check_config(metadata, path)


def keras_metadata(path: Path) -> list[dict[str, Any]]:
    """Returns the configs of a Keras 2 SavedModel's layers, the model's first; none where Keras did not write it."""
    file = path / "keras_metadata.pb"
    if not file.is_file():
        return []
    metadata = frameworks.load("tf_keras_metadata_proto").SavedMetadata()
    try:
        metadata.ParseFromString(file.read_bytes())
        return [json.loads(node.metadata) for node in metadata.nodes if node.metadata]
    except Exception as error:
        raise ModelError(f"{file} is damaged ({error}). Try copying the folder again.") from error


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yields every object of a config at any depth but what compiling needs, which is never read here."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            yield value
        for key, item in value.items():
            if key not in ("compile_config", "training_config"):
                yield from _objects(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _objects(item)


def _called(settings: Any) -> str:
    """Returns the name of the function that a Lambda layer calls; "" where it holds code, as all of Keras 2 do."""
    settings = settings if isinstance(settings, Mapping) else {}
    function = settings.get("function")
    # A shape or mask may be code too.
    others = any(isinstance(settings.get(key), Mapping) for key in ("output_shape", "mask"))
    if others or not isinstance(function, Mapping):
        return ""
    named = function.get("class_name") == "function" and function.get("module") == "builtins"
    return str(function.get("config") or "") if named else ""


def _foreign(part: Mapping[str, Any], known: Collection[str]) -> str | None:
    """Returns what an object of a config is and where from, if neither Keras nor the user's own file defines it."""
    module, name = part.get("module"), str(part.get("class_name"))
    if module is None or name.startswith("__"):
        return None
    called = part.get("config") if name == "function" else name
    registered = str(part.get("registered_name", ""))
    if {called, registered, registered.rpartition(">")[2]} & set(known) or registered.startswith("edgeopt>"):
        return None
    package, *rest = str(module).split(".")
    plain = package in ("keras", "tf_keras") and not {"utils", "saving"} & set(rest)
    plain = plain or module == "tensorflow.python.ops.init_ops_v2"  # where EfficientNetV2 takes an initializer from
    if plain or (module == "builtins" and name == "function"):
        return None
    return f"{'function' if name == 'function' else 'class'} {called!r} of {module}"


def _check_symbol(symbol: str, layer: Any, path: Path) -> None:
    parts = symbol.removeprefix("compat.v1.").split(".")
    computing = parts[0] not in _NOT_COMPUTING if len(parts) == 1 else parts[0] in (*_COMPUTING, "RaggedTensor")
    if not computing:
        raise ModelError(
            f"{path} contains a layer {layer!r} that calls tf.{symbol}, which does more than compute. "
            "Try --trust if you trust its author."
        )


def _check_operation(settings: Any, layer: Any, path: Path) -> None:
    tf = frameworks.load("tensorflow")
    op_def_registry = frameworks.load("tf_op_registry")

    node = settings.get("node_def", "") if isinstance(settings, Mapping) else ""
    if isinstance(node, str):
        try:
            node = {"op": tf.compat.v1.NodeDef.FromString(node.encode()).op}
        except Exception as error:
            raise ModelError(f"{path}: the operation in layer {layer!r} is damaged. Try saving it anew.") from error
    operation = str(node.get("op", ""))
    definition = op_def_registry.get(operation)
    if definition is None or definition.is_stateful:
        raise ModelError(
            f"{path} contains a layer {layer!r} with the TensorFlow operation {operation!r}, which may do more than "
            "compute. Try --trust if you trust its author."
        )


def _nodes(part: Any) -> Any:
    return part.node_def if hasattr(part, "node_def") else part.node
