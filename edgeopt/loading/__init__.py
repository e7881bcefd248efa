"""Any model file goes in; a proven tf_keras model (or, for what cannot be bridged, the model itself) comes out.

Keras 3 and Keras 2 archives and HDF5 files, SavedModels and float `.tflite` files, told apart by content. Code inside
a file runs only when its user says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import files, frameworks, graph, keras_bridge
from edgeopt.errors import EdgeoptError, ModelError
from edgeopt.loading import formats, proof, safety
from edgeopt.loading.compiled import compile_with, compiled
from edgeopt.tasks.losses import Compiled
from edgeopt.tflite import reader
from edgeopt.vocabulary import TensorSpec

__all__ = ["LoadedModel", "load_model", "save_keras3"]


@dataclass(frozen=True)
class LoadedModel:
    """A model that was read and proven.

    Attributes:
        path: where it was read from.
        source_format: key of `formats.FORMATS`.
        inputs, outputs: names (the model's own), shapes with None for free dimensions, dtypes.
        keras: a flat functional float32 tf_keras model, not compiled; None for what cannot be bridged.
        original: what can be called and converted where `keras` is None: a Keras model or a SavedModel; None for a
            `.tflite`, whose bytes conversion starts from.
        notes: what loading did.
        unbridged: layer and reason, for each that stood in the way of `keras`.
        compiled: the losses that the file says the model was compiled with; None where it says nothing.
    """

    path: Path
    source_format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    keras: Any = field(default=None, repr=False)
    original: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    unbridged: tuple[tuple[str, str], ...] = ()
    compiled: Compiled | None = None

    @property
    def why_closed(self) -> str:
        """Why nobody can get at the model's layers, for a message; "" where `keras` is there."""
        if self.keras is not None:
            return ""
        reasons = (f"{layer}: {reason}" for layer, reason in self.unbridged)
        return "; ".join(reasons) or f"a {self.source_format} holds no layers"

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The classes of the model's layers, those of nested models too; of a SavedModel its operations."""
        model = self.keras if self.keras is not None else self.original
        if graph.functional(model) is not None:
            layers = [call.layer for call in graph.flat_calls(model)]
        elif graph.is_model(model):
            layers = list(model.layers)
        else:
            return () if model is None else _operations(_signature(model, self.path))
        return tuple(sorted({type(layer).__name__ for layer in layers}))

    def inference_function(self, batch_size: int | None = 1) -> Any:
        """Returns the model in inference as a concrete TensorFlow function of its named inputs.

        Args:
            batch_size: fixes the first dimension of every input that leaves it free; None leaves it so.

        Returns:
            A concrete function: positional tensors named as `inputs`, a dict of outputs named as `outputs`.

        Raises:
            ModelError: a `.tflite` has no function, or the model's batch is fixed at another size.
        """
        if self.source_format == "tflite":
            raise ModelError(f"{self.path} is a .tflite file: conversion starts from its bytes, not from a function.")
        fixed = next((s.shape[0] for s in self.inputs if s.shape and s.shape[0] not in (None, batch_size)), None)
        if fixed is not None and batch_size is not None:
            raise ModelError(
                f"Expected a model that takes batches of {batch_size}, got one whose batch is fixed at {fixed}. "
                f"Try --batch-size {fixed}, or build it without a batch size."
            )
        shapes = [spec.shape and ((spec.shape[0] or batch_size), *spec.shape[1:]) for spec in self.inputs]
        names = [spec.name for spec in self.outputs]
        call = _caller(self.keras if self.keras is not None else self.original, [spec.name for spec in self.inputs])
        specs = [(spec.name, shape, spec.dtype) for spec, shape in zip(self.inputs, shapes)]
        return _traced(lambda *tensors: dict(zip(names, call(*tensors))), specs)


def load_model(
    path: Path | str,
    *,
    custom_objects: Path | str | None = None,
    trust: bool = False,
    probe: Mapping[str, np.ndarray] | None = None,
) -> LoadedModel:
    """Reads a model file of any supported format and brings it to tf_keras where that can be.

    Args:
        path: of a Keras model, a SavedModel folder or a float `.tflite`.
        custom_objects: a Python file that defines the model's own layers and functions, or imports the package that
            does. It is executed, and what it defines stays known to Keras for the rest of the process.
        trust: whether code inside the model file (Lambda layers …) may run.
        probe: real inputs by name to prove the model on, instead of generated ones.

    Returns:
        The model; its outputs were compared, before and after, within 1e-5 of their range.

    Raises:
        ModelError: the file is missing, damaged, unsafe, or no model, or the proof failed.
    """
    path = Path(path)
    source = formats.identify(path)
    notes = formats.extension_note(source)
    if source.format == "tflite":
        return _tflite(path, notes)
    known = _define(Path(custom_objects)) if custom_objects is not None else ()
    keras_bridge.register()
    if source.format == "savedmodel":
        return _saved_model(path, trust, probe)
    if not trust:
        safety.check_config(source.config, path, known)
        safety.check_known(source.config, path, known)
    keras_version = 3 if source.format.startswith("keras3") else 2
    model = _read(source, keras_version, trust)
    written = f"Keras {source.version}" if source.version else f"Keras {keras_version}"
    notes += ((f"read from {written}"),)
    losses = compiled(source.compile_config)
    if source.compiled:
        notes += ("optimizer dropped, losses kept" if losses is not None else "optimizer and loss dropped",)
    return replace(_brought_in(source.path, source.format, model, keras_version, notes, probe), compiled=losses)


def save_keras3(model: Any, path: Path | str, *, like: LoadedModel | None = None) -> None:
    """Writes a tf_keras model as a `.keras` archive that opens in plain Keras 3 and gives the same outputs.

    Args:
        model: a tf_keras model.
        path: of the file.
        like: the model that it was made of, whose losses of Keras' own it is compiled with.

    Raises:
        Unbridgeable: layers that Keras 3 cannot express, by name.
        ModelError: the path ends in something else, or the outputs differ.
        ConfigError: the path cannot be written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ModelError(f"Expected a file name that ends in .keras, got {path.name}. Try {path.stem}.keras.")
    twin = keras_bridge.to_keras3(model)
    proof.prove(model, twin)
    if like is not None and like.compiled is not None:
        compile_with(twin, like.compiled, [spec.name for spec in like.outputs])
    with files.atomic_path(path) as temporary:
        twin.save(temporary)


def _brought_in(
    path: Path,
    source_format: str,
    model: Any,
    keras_version: int,
    notes: tuple[str, ...],
    probe: Mapping[str, np.ndarray] | None,
) -> LoadedModel:
    """Bridges or flattens a Keras model, proves the result, and keeps the model itself where that cannot be."""
    model = _with_inputs(model, path, keras_version)
    policies = graph.policies(model)
    if any("_from_" in policy for policy in policies):
        raise ModelError(
            f"Expected a float model, got {path} with the policy {', '.join(sorted(policies))}: Keras quantized it "
            "already. Try the model before model.quantize()."
        )
    try:
        keras, more = _in_tf_keras(model, keras_version, policies, probe)
    except keras_bridge.Unbridgeable as error:
        unbridged = tuple((problem.layer, problem.reason) for problem in error.problems)
        inputs, outputs = _specs_of_original(model, path)
        return LoadedModel(path, source_format, inputs, outputs, None, model, notes, unbridged)
    inputs = _specs(graph.input_names(keras), [name for name, _ in graph.input_names(model)])
    outputs = _specs(graph.output_names(keras), [name for name, _ in graph.output_names(model)])
    return LoadedModel(path, source_format, inputs, outputs, keras, None, notes + more)


def _in_tf_keras(
    model: Any, keras_version: int, policies: set[str], probe: Mapping[str, np.ndarray] | None
) -> tuple[Any, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    core = graph.functional(model)
    nested = [c.layer.name for c in graph.own_calls(core) if graph.functional(c.layer)] if core is not None else []
    if keras_version == 3:
        keras, notes = keras_bridge.to_keras2(model)
        notes = (f"bridged from Keras 3 to tf_keras {frameworks.installed_version('tf_keras')}", *notes)
    elif core is None:
        reason = f"{type(model).__name__} is a subclassed model: its graph is in its code"
        raise keras_bridge.Unbridgeable(model, "a flat graph", [keras_bridge.Problem(model.name, reason)])
    else:
        keras = _flat(model)
    notes += tuple(f"flattened nested model {name!r}" for name in dict.fromkeys(nested))
    reduced = bool(policies)
    difference = proof.prove(
        model, keras, tolerance=proof.REDUCED_TOLERANCE if reduced else proof.TOLERANCE, probe=probe
    )
    if reduced:
        said = ", ".join(sorted(policies))
        notes += (f"{said} policy made float32 (outputs move by {difference:.2g} of their range)",)
        if keras_version == 3:
            proof.prove(_float32_twin(model), keras, probe=probe)
    return keras, notes


def _flat(model: Any) -> Any:
    """Returns the flat float32 form of a tf_keras model."""
    problems = {}
    for layer in {id(call.layer): call.layer for call in graph.flat_calls(model)}.values():
        reason = _why_not_cloned(layer)
        if reason:
            problems[layer.name] = keras_bridge.Problem(layer.name, reason)
    if problems:
        raise keras_bridge.Unbridgeable(model, "a flat tf_keras model", list(problems.values()))
    return graph.rebuild(model, keras_bridge.standard_form, as_float32=True)


def _why_not_cloned(layer: Any) -> str:
    """Returns why a layer cannot be made anew from its config; "" where it can."""
    modules = [base.__module__ for base in type(layer).__mro__]
    if modules[0].startswith("tf_keras.src.layers."):
        # A copy of a table has lost its entries.
        return keras_bridge.REFUSED.get(type(layer).__name__, "")
    if any(module.startswith("tf_keras.src.saving.legacy.saved_model") for module in modules):
        return f"the code of its class {type(layer).__name__} is not at hand; try --custom-objects FILE.py"
    try:
        graph.clone(layer)
    # A constructor or get_config of the user's may raise anything.
    except Exception as error:
        return f"it cannot be made anew from its config: {_first_line(error)}"
    return ""


def _float32_twin(model: Any) -> Any:
    """Returns a Keras 3 model that computes in float32 with the weights of one that does not."""
    twin = type(model).from_config(graph.float32_config(model.get_config()))
    twin.set_weights(model.get_weights())
    return twin


def _with_inputs(model: Any, path: Path, keras_version: int) -> Any:
    """Returns a Sequential model with its input, and its batch free where only its first call fixed it."""
    library = frameworks.load("keras" if keras_version == 3 else "tf_keras")
    if not isinstance(model, library.Sequential):
        return model
    built = graph.functional(model) is not None
    shape = tuple(model.input_shape) if built else tuple(getattr(model, "_build_input_shape", None) or ())
    if not shape:
        raise ModelError(
            f"Expected a model that knows its input shape, got {path}, a Sequential model saved before it had one. "
            "Try model.build((None, …)) or one model.predict() before model.save()."
        )
    if built and (shape[0] is None or any(getattr(layer, "stateful", False) for layer in model.layers)):
        return model
    dtype = model.inputs[0].dtype if built else None
    return library.Sequential([library.Input(shape[1:], dtype=dtype), *model.layers], name=model.name)


def _read(source: formats.Source, keras_version: int, trust: bool) -> Any:
    """Opens a Keras file with the Keras that wrote it."""
    frameworks.load("tensorflow")
    library = frameworks.load("keras" if keras_version == 3 else "tf_keras")
    options: dict[str, Any] = {"compile": False, "safe_mode": not trust}
    if keras_version == 2:
        options["custom_objects"] = _applications_own()
    with _under_suffix(source) as path, _reading(source.path):
        return library.models.load_model(path, **options)


def _saved_model(path: Path, trust: bool, probe: Mapping[str, np.ndarray] | None) -> LoadedModel:
    tf = frameworks.load("tensorflow")
    if not trust:
        safety.check_saved_model(path)
    metadata = safety.keras_metadata(path)
    notes: tuple[str, ...] = ("read from a SavedModel",)
    unbridged: tuple[tuple[str, str], ...] = (
        (
            path.name,
            "a SavedModel holds a graph of operations, not layers; saved by Keras 2's model.save() it has both",
        ),
    )
    if metadata and metadata[0].get("class_name") in ("Functional", "Sequential", "Model"):
        tf_keras = frameworks.load("tf_keras")
        with _reading(path):
            model = tf_keras.models.load_model(str(path), compile=False, custom_objects=_applications_own())
        if graph.functional(model) is not None or isinstance(model, tf_keras.Sequential):
            loaded = _brought_in(path, "savedmodel", model, 2, notes, probe)
            if loaded.keras is not None:
                return replace(loaded, compiled=compiled(metadata[0].get("training_config")))
            unbridged = loaded.unbridged
    with _reading(path):
        original = tf.saved_model.load(str(path))
    inputs, outputs = _signature_specs(_signature(original, path))
    return LoadedModel(path, "savedmodel", inputs, outputs, None, original, notes, unbridged)


def _tflite(path: Path, notes: tuple[str, ...]) -> LoadedModel:
    model = reader.read(path)
    quantized = [t.name for graph_of in model.subgraphs for t in graph_of.tensors if t.is_quantized]
    if quantized:
        raise ModelError(
            f"Expected a float .tflite, got {path}, in which {len(quantized)} tensors are quantized already "
            f"({quantized[0]!r} …). Try the Keras model it was made from."
        )
    reason = "a .tflite holds operators, not layers that can be trained"
    return LoadedModel(
        path, "tflite", model.inputs, model.outputs, None, None, ("read from a .tflite", *notes), ((path.name, reason),)
    )


def _define(path: Path) -> tuple[str, ...]:
    """Runs a Python file and makes the classes and functions it defines known to both Keras; returns their names.

    Those that the packages it imports have registered with Keras are the user's, too.
    """
    if not path.is_file():
        raise ModelError(f"Expected a Python file for --custom-objects, got {path}, which does not exist.")
    name = f"edgeopt_custom_objects_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"Expected a Python file for --custom-objects, got {path}. Try a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    for library in ("tensorflow", "keras", "tf_keras"):
        frameworks.load(library)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    # The file is the user's: whatever it raises is for them to mend.
    except Exception as error:
        raise ModelError(
            f"{path} raised {type(error).__name__}: {_first_line(error)} Try running it with Python alone."
        ) from error
    defined = {
        key: value
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == name and not key.startswith("__")
    }
    objects = frameworks.load("keras").saving.get_custom_objects()
    packages = {_package(value) for value in vars(module).values()}
    imported = [key for key, value in objects.items() if _package(value) in packages]
    if not defined and not imported:
        raise ModelError(
            f"Expected layers in {path}, got a file that defines no class or function. Try defining them there, or "
            "importing the package that registers them with Keras."
        )
    objects.update(defined)
    frameworks.load("tf_keras").saving.get_custom_objects().update(defined)
    return (*defined, *imported)


def _package(value: Any) -> str | None:
    """Returns the package that a module, class or function is of; None of anything else."""
    name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
    return name.partition(".")[0] if isinstance(name, str) else None


def _applications_own() -> dict[str, Any]:
    """Returns the layer classes that tf_keras.applications define and forget to register."""
    convnext = frameworks.load("tf_keras_convnext")
    return {"LayerScale": convnext.LayerScale, "StochasticDepth": convnext.StochasticDepth}


@contextlib.contextmanager
def _under_suffix(source: formats.Source) -> Iterator[str]:
    """Yields a path to the file under an extension that its Keras goes by."""
    extensions = formats.FORMATS[source.format][1]
    if source.path.suffix in extensions:
        yield str(source.path)
        return
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        link = Path(folder) / f"model{extensions[0]}"
        link.symlink_to(source.path.resolve())
        yield str(link)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever a loader of either Keras raises into a ModelError with its first line and a way round."""
    try:
        yield
    except EdgeoptError:
        raise
    # A damaged or foreign file can make a loader raise anything.
    except Exception as error:
        text = str(error)
        lost = ("Unknown layer", "Could not locate class", "Unknown object", "custom object")
        if "Only input tensors may be passed as positional" in text or _names_an_operation(text):
            hint = "Keras 3 cannot read operations (x * 2, keras.ops, masks) back from HDF5. Try saving it as .keras."
        elif any(sign in text for sign in lost):
            hint = "It holds a layer or function of its author's. Try --custom-objects FILE.py that defines it."
        else:
            hint = "Try opening it in the Keras that wrote it, and saving it anew."
        raise ModelError(f"{path} could not be read: {_first_line(error)} {hint}") from error


def _names_an_operation(complaint: str) -> bool:
    """Whether what a loader does not know is one of Keras 3's own operations, which HDF5 cannot hold."""
    unknown = re.search(r"Unknown layer: '?(\w+)", complaint)
    modules = vars(frameworks.load("keras").src.ops).values()
    return unknown is not None and any(
        str(getattr(getattr(module, unknown[1], None), "__module__", "")).startswith("keras.src.ops.")
        for module in modules
        if inspect.ismodule(module)
    )


def _first_line(error: BaseException) -> str:
    cause = str(error).rpartition("Exception encountered: ")[2]  # Keras puts each layer's words around the next one's
    lines = [line.strip() for line in cause.splitlines() if line.strip()] or [type(error).__name__]
    line = lines[0] if len(lines[0]) < 300 else f"{lines[0][:299]}…"
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _specs(tensors: list[tuple[str, Any]], names: list[str]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(graph.legal_name(name), tuple(tensor.shape), graph.dtype_name(tensor))
        for name, (_, tensor) in zip(names, tensors)
    )


def _specs_of_original(model: Any, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Returns the inputs and outputs of a Keras model that is kept as it is, the outputs by tracing it."""
    if graph.functional(model) is not None:
        inputs, outputs = graph.input_names(model), graph.output_names(model)
        return _specs(inputs, [name for name, _ in inputs]), _specs(outputs, [name for name, _ in outputs])
    inputs_of = tuple(TensorSpec(name, (None, *shape[1:])) for name, shape in _built_shapes(model, path))
    call = _caller(model, [spec.name for spec in inputs_of])
    with _reading(path):
        function = _traced(call, [(spec.name, spec.shape, spec.dtype) for spec in inputs_of])
    outputs_of = tuple(
        TensorSpec(f"output_{i}" if len(function.outputs) > 1 else "output", tuple(t.shape), t.dtype.name)
        for i, t in enumerate(function.outputs)
    )
    return inputs_of, outputs_of


def _built_shapes(model: Any, path: Path) -> list[tuple[str, tuple[int | None, ...]]]:
    """Returns name and shape of each argument that a subclassed model was built for."""
    config = model.get_build_config() or {}
    shapes = config.get("shapes_dict") or {"inputs_shape": config.get("input_shape")}
    named = [(name.removesuffix("_shape"), shape) for name, shape in shapes.items()]
    if any(not shape or not all(size is None or isinstance(size, int) for size in shape) for _, shape in named):
        raise ModelError(
            f"Expected a model that knows its input shapes, got {path}, a subclassed {type(model).__name__} that does "
            "not. Try model.build((None, …)) before model.save(), or model.export('folder') and that SavedModel."
        )
    return [(name, tuple(shape)) for name, shape in named]


def _signature(original: Any, path: Path) -> Any:
    """Returns the function that a SavedModel serves."""
    signatures = getattr(original, "signatures", {})
    if signatures:
        return signatures.get("serving_default") or signatures[min(signatures)]
    concrete = list(getattr(original.__call__, "concrete_functions", ())) if callable(original) else []
    if concrete:
        return min(concrete, key=lambda f: len(f.structured_input_signature[0]))
    raise ModelError(
        f"Expected a SavedModel with a signature, got {path}, which has none. "
        "Try tf.saved_model.save(module, folder, signatures=module.f.get_concrete_function(…))."
    )


def _operations(function: Any) -> tuple[str, ...]:
    """Returns the kinds of operations in a concrete function and all that it calls."""
    definition = function.graph.as_graph_def()
    nodes = (node for part in (definition.node, *(f.node_def for f in definition.library.function)) for node in part)
    return tuple(sorted({node.op for node in nodes}))


def _signature_specs(function: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    tf = frameworks.load("tensorflow")
    outputs = function.structured_outputs
    if not isinstance(outputs, Mapping):
        flat = tf.nest.flatten(outputs)
        outputs = {f"output_{i}" if len(flat) > 1 else "output": tensor for i, tensor in enumerate(flat)}
    return tuple(
        tuple(
            TensorSpec(name, tuple(spec.shape) if spec.shape.rank is not None else (), spec.dtype.name)
            for name, spec in sorted(specs.items())
        )
        for specs in (_arguments(function), outputs)
    )  # type: ignore[return-value]


def _arguments(function: Any) -> dict[str, Any]:
    """Returns the tensors that a restored function takes, by name."""
    tf = frameworks.load("tensorflow")
    args, kwargs = function.structured_input_signature
    flat = [spec for spec in tf.nest.flatten(args) if isinstance(spec, tf.TensorSpec)]
    return {**{spec.name or f"input_{i}": spec for i, spec in enumerate(flat)}, **kwargs}


def _caller(model: Any, names: list[str]) -> Callable[..., list[Any]]:
    """Returns what computes a model's outputs, in the order of its specs, from its inputs in theirs."""
    if graph.functional(model) is not None:
        return lambda *tensors: graph.leaves(model(graph.structured_inputs(model, tensors), training=False))
    if graph.is_model(model):
        rest = names[1:]
        return lambda first, *more: graph.leaves(model(first, **dict(zip(rest, more)), training=False))
    function = _signature(model, Path())
    tf = frameworks.load("tensorflow")
    positional = not function.structured_input_signature[1]
    order = list(_arguments(function))

    def call(*tensors: Any) -> list[Any]:
        given = dict(zip(names, tensors))
        outputs = function(*(given[name] for name in order)) if positional else function(**given)
        return [outputs[key] for key in sorted(outputs)] if isinstance(outputs, Mapping) else tf.nest.flatten(outputs)

    return call


def _traced(function: Callable[..., Any], specs: list[tuple[str, tuple[int | None, ...], str]]) -> Any:
    tf = frameworks.load("tensorflow")
    return tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec(shape, dtype, name=name) for name, shape, dtype in specs)
    )
