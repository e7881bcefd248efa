"""How a `.tflite` file computes: a TFLiteModel goes in, words such as "full int8, float32 inputs" come out."""

from __future__ import annotations

from collections import Counter

from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.weights import activations_position, stored_operand, trained_operands

# They convert or carry numbers; what they carry says nothing of the arithmetic.
_NEUTRAL = frozenset(
    (
        *("QUANTIZE", "DEQUANTIZE", "DENSIFY", "CAST", "FILL"),
        *("RESHAPE", "SHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION", "PACK", "UNPACK"),
        *("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER", "GATHER_ND"),
        *("WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"),
    )
)
_WORDS = {
    "float32": "float32",
    "float16 weights": "float16 weights, float32 arithmetic",
    "weight-only int8": "weight-only int8: widened to float32 at each inference",
    "weight-only int4": "weight-only int4: widened to float32 at each inference",
    "dynamic int8": "dynamic range: int8 weights, activations quantized at each inference",
    "dynamic int4": "dynamic range: int4 weights, activations quantized at each inference",
    "int8": "full int8",
    "int8 with int4 weights": "full int8 with int4 weights",
    "int16x8": "int16x8: int16 activations, int8 weights",
    "uint8": "full uint8",
}


def in_words(model: TFLiteModel) -> str:
    """Names a model by what its operators compute with, exceptions included, then its inputs and outputs."""
    by_arithmetic: dict[str, Counter[str]] = {}
    for graph in model.subgraphs:
        makers = {index: operator for operator in graph.operators for index in operator.outputs}
        for operator in graph.operators:
            if (arithmetic := _arithmetic(graph, operator, makers)) is not None:
                by_arithmetic.setdefault(arithmetic, Counter())[operator.name] += 1
    return f"{_state(by_arithmetic)}{_interface(model)}"


def _state(by_arithmetic: dict[str, Counter[str]]) -> str:
    if not by_arithmetic:
        return "no arithmetic"
    quantized = {name: ops for name, ops in by_arithmetic.items() if name not in ("float32", "float, no weights")}
    floats = by_arithmetic.get("float32", Counter()) + by_arithmetic.get("float, no weights", Counter())
    if not quantized:
        return "float32"
    if len(quantized) > 1:
        parts = [f"{name} {_listed(ops)}" for name, ops in quantized.items()]
        return "mixed: " + "; ".join(parts + ([f"float32 {_listed(floats)}"] if floats else []))
    (name,) = quantized
    words = _WORDS.get(name, name)
    # In these every operator without weights computes in float anyway; only weights left in float tell something.
    if name.startswith(("float16", "weight-only", "dynamic")):
        left = by_arithmetic.get("float32", Counter())
        return words + (f"; weights left in float: {_listed(left)}" if left else "")
    if floats:
        return f"mixed: {name}, but {_listed(floats)} in float32"
    return words


def _arithmetic(graph: Subgraph, operator: Operator, makers: dict[int, Operator]) -> str | None:
    if operator.name in _NEUTRAL:
        return None
    activations = graph.operand(operator, activations_position(operator))
    result = graph.result(operator)
    weights = _weights(graph, operator, makers)
    if activations is None or result is None:
        return None
    if weights is None:
        return _without_weights(activations, result)
    direct = graph.operand(operator, _position(graph, operator, makers))
    if activations.is_float:
        if weights.is_float:
            return "float32" if weights.dtype == "float32" else f"{weights.dtype} weights"
        return f"{'dynamic' if direct is weights else 'weight-only'} {weights.dtype}"
    if activations.dtype == "int16":
        return "int16x8"
    return (
        activations.dtype if weights.dtype == activations.dtype else f"{activations.dtype} with {weights.dtype} weights"
    )


def _without_weights(activations: Tensor, result: Tensor) -> str | None:
    if activations.is_float or result.is_float:
        return "float, no weights"
    if activations.quantization is None:
        return None  # index arithmetic
    return "int16x8" if activations.dtype == "int16" else activations.dtype


def _position(graph: Subgraph, operator: Operator, makers: dict[int, Operator]) -> int:
    """Returns the position of the operator's first stored weight, -1 without one."""
    positions = trained_operands(operator)[0]
    return next((p for p in positions if stored_operand(graph, operator, p, makers) is not None), -1)


def _weights(graph: Subgraph, operator: Operator, makers: dict[int, Operator]) -> Tensor | None:
    position = _position(graph, operator, makers)
    return None if position < 0 else stored_operand(graph, operator, position, makers)


def _interface(model: TFLiteModel) -> str:
    inputs, outputs = ({spec.dtype for spec in specs} for specs in (model.inputs, model.outputs))
    into, out = ("/".join(sorted(dtypes)) for dtypes in (inputs, outputs))
    if not into or not out:
        return ""
    return f", {into} inputs and outputs" if into == out else f", {into} inputs, {out} outputs"


def _listed(operators: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in operators.most_common())
