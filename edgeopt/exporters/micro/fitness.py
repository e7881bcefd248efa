"""A `.tflite` file goes in; a refusal in words, or notes on its numbers, come out, before any project is made of it."""

from __future__ import annotations

import glob
from pathlib import Path

from edgeopt import targets
from edgeopt.errors import ConfigError, ModelError
from edgeopt.exporters.contract import Project, Source
from edgeopt.tflite import lifetimes
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.weights import trained_operands

# What C and TFLM's tensors have at the edge of a model, by NumPy's names.
C_TYPES: dict[str, str] = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "bool",
    "float32": "float",
}
_INT8 = "edgeopt convert MODEL -o model.int8.tflite --scheme int8 --data DATA"
_NARROW = ("int2", "int4", "int8")
# These look single rows up, and only the rows.
_LOOKUPS = ("DEQUANTIZE", "EMBEDDING_LOOKUP", "GATHER")


def require_fit(source: Source, runtime: str) -> None:
    """Raises ModelError where no microcontroller runtime computes the file, or computes it wrongly.

    Args:
        source: what is exported.
        runtime: "tflm" or "c99".
    """
    name = source.file.name
    for why, found in (
        ("holds float16 weights, and no microcontroller kernel reads them", _float16(source.model)),
        (
            "quantizes at run time (dynamic range), and microcontroller kernels want int8 or float32 throughout",
            _dynamic(source.model),
        ),
        ("holds int8 weights for float kernels, which TFLM computes wrongly", _weight_only(source.model)),
        ("holds the uint8 weights of older files, and microcontroller kernels take int8", _uint8(source.model)),
    ):
        if found:
            raise ModelError(
                f"{name} {why}: {found!r}. Expected an int8 or float32 model. Try {_beside(source.file) or _INT8}."
            )
    for spec in (*source.model.inputs, *source.model.outputs):
        if spec.dtype not in C_TYPES:
            raise ModelError(
                f"Expected inputs and outputs of {', '.join(C_TYPES)}, got {spec.dtype} for {spec.name!r} of {name}. "
                f"Try {_INT8}."
            )
        if any(size is None for size in spec.shape[1:]):
            shape = ", ".join("?" if size is None else str(size) for size in spec.shape)
            raise ModelError(
                f"Expected fixed shapes, got [{shape}] for {spec.name!r} of {name}: memory is planned before it runs. "
                "Try a model whose Input gives every size."
            )
    for spec in source.model.inputs:
        if len(spec.shape) > 1 and spec.shape[0] not in (None, 1):
            raise ModelError(
                f"Expected one sample at a time, a first dimension of 1, got one that is fixed at {spec.shape[0]} for "
                f"the input {spec.name!r} of {name}; the file does not say whether it counts samples or steps in time. "
                "Try a model whose first dimension is the samples, exported for 1 of them."
            )
    if runtime == "c99" and any(tensor.dtype == "int16" for tensor in _tensors(source.model)):
        raise ModelError(f"Expected int8 or float32 activations for c99, got int16 in {name}. Try --runtime tflm.")


def _beside(file: Path) -> str:
    """Names the int8 files that `edgeopt optimize` put beside a file, or beside its variant; "" where there is none."""
    model = glob.escape(file.name.partition(".")[0])
    found = [*file.parent.glob(f"{model}.*int8.tflite"), *(file.parent / "variants").glob("*.int8.tflite")]
    return f"{' or '.join(map(str, sorted(found)[:3]))}, which lies beside it" if found else ""


def require_room(source: Source, project: Project, target: str) -> None:
    """Raises where a project has no room on a target: ModelError with the bytes that are over.

    Args:
        source: what is exported.
        project: made of it; its facts hold the bytes of the model (or of code and weights) and of the arena.
        target: name of a microcontroller in `targets.TARGETS`; ConfigError where it is none.
    """
    device = targets.target(target)
    if device.kind != "microcontroller":
        small = ", ".join(name for name, row in targets.TARGETS.items() if row.kind == "microcontroller")
        raise ConfigError(f"Expected a microcontroller as target, got {target!r}, a {device.kind}. Try {small}.")
    flash = sum(int(project.facts[name]) for name in ("model_bytes", "weights_bytes") if name in project.facts)
    peak = lifetimes.peak(source.model).describe()
    targets.require_fit(device, flash_bytes=flash, ram_bytes=int(project.facts["arena_bytes"]), peak=peak)


def notes(source: Source) -> tuple[str, ...]:
    """Returns what should be known of the file's numbers before it ships."""
    model = source.model
    integer = any(t.dtype in _NARROW and not t.is_constant and t.quantization for t in model.main.tensors)
    edges = [spec for spec in (*model.inputs, *model.outputs) if spec.dtype == "float32"]
    if not integer and edges:
        return (f"a float32 model: about four times the flash and RAM of int8, and slow without an FPU; try {_INT8}",)
    if edges:
        names = ", ".join(repr(spec.name) for spec in edges)
        return (f"float32 at the edge of an int8 model ({names}): the file converts by itself; int8 ends save that",)
    return ()


def _tensors(model: TFLiteModel) -> list[Tensor]:
    return [tensor for graph in model.subgraphs for tensor in graph.tensors]


def _float16(model: TFLiteModel) -> str:
    return next((t.name for t in _tensors(model) if t.dtype in ("float16", "bfloat16")), "")


def _dynamic(model: TFLiteModel) -> str:
    """Returns the narrow weights of the first kernel that takes floats beside them."""

    def weights(graph: Subgraph, operator: Operator) -> str:
        operands = [graph.tensors[i] for i in operator.inputs if i >= 0]
        result = graph.result(operator)
        if operator.name in _LOOKUPS or result is None or result.dtype != "float32":
            return ""
        return next((t.name for t in operands if t.is_constant and t.dtype in _NARROW), "")

    found = (weights(graph, operator) for graph in model.subgraphs for operator in graph.operators)
    return next((name for name in found if name), "")


def _weight_only(model: TFLiteModel) -> str:
    for graph in model.subgraphs:
        for operator in graph.operators:
            operand = graph.operand(operator, 0)
            if operator.name == "DEQUANTIZE" and operand is not None and operand.is_constant:
                return operand.name
    return ""


def _uint8(model: TFLiteModel) -> str:
    """Returns the first stored weight of a kernel that computes in uint8."""
    for graph in model.subgraphs:
        for operator in graph.operators:
            for position in trained_operands(operator)[0]:
                operand = graph.operand(operator, position)
                if operand is not None and operand.is_constant and operand.dtype == "uint8" and operand.quantization:
                    return operand.name
    return ""
