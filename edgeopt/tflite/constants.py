"""A file goes in; the same, its large float constants that are added or multiplied in fewer bytes, comes out.

Converters compute what depends on no input, as the positions of a decoder and the mask of what it may not see, and
store the result in float32. Here it stands behind a DEQUANTIZE: in int8 where that is exact, else in float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeopt.tflite.model import Subgraph, Tensor
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, drop_unused_buffers, operator_code

_TAKEN = ("ADD", "SUB", "MUL")


def with_small_constants(content: bytes, *, least: int) -> bytes:
    """Returns the file with each float32 constant that is only added, subtracted or multiplied behind a DEQUANTIZE.

    Unchanged where there is none of `least` elements and more that float16 can hold.
    """
    model = read(content)
    found = [
        (graph.index, tensor.index, kept)
        for graph in model.subgraphs
        for tensor in _constants(graph, least)
        if (kept := _kept(model.values(tensor))) is not None
    ]
    if not found:
        return content

    def change(parsed: Any, schema: Any) -> None:
        code = operator_code(parsed, schema, "DEQUANTIZE")
        for place, index, (values, scale) in reversed(found):
            _put(parsed, schema, parsed.subgraphs[place], index, values, scale, code)
        drop_unused_buffers(parsed)

    return changed(content, change)


def _constants(graph: Subgraph, least: int) -> Sequence[Tensor]:
    readers: dict[int, set[str]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers.setdefault(index, set()).add(operator.name)
    return [
        tensor
        for tensor in graph.tensors
        if tensor.is_constant
        and tensor.dtype == "float32"
        and tensor.elements >= least
        and readers.get(tensor.index, {""}).issubset(_TAKEN)
        and tensor.index not in graph.outputs
    ]


def _kept(values: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Returns int8 and their scale, or float16 and 0; None where neither holds the numbers."""
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        return None
    # Whole steps of the largest, as in a mask of 0 and one number.
    steps = values / np.float32(largest or 1.0)
    if np.array_equal(steps, np.rint(steps)):
        return steps.astype(np.int8), largest or 1.0
    return (values.astype(np.float16), 0.0) if largest <= np.finfo(np.float16).max else None


def _put(parsed: Any, schema: Any, graph: Any, index: int, values: np.ndarray, scale: float, code: int) -> None:
    """Stores a constant in a tensor of its own; the old one is what a DEQUANTIZE makes of it."""
    old, held = graph.tensors[index], schema.TensorT()
    held.name, held.shape, held.buffer = old.name + b"_held", old.shape, add_buffer(parsed, schema, values)
    held.type = schema.TensorType.INT8 if scale else schema.TensorType.FLOAT16
    if scale:
        held.quantization = schema.QuantizationParametersT()
        held.quantization.scale = np.array([scale], np.float32)
        held.quantization.zeroPoint = np.array([0], np.int64)
    old.buffer = 0
    graph.tensors.append(held)
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs = np.array([len(graph.tensors) - 1], np.int32)
    operator.outputs = np.array([index], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    graph.operators.insert(0, operator)
