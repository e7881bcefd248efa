"""A quantized `.tflite` goes in; the tensors that share a scale, and the file with other scales, come out.

A scale of activations stands in the file once for each tensor, and kernels read it when they are prepared. What follows
from it is written anew: biases, whose step is that of what comes in times that of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.repairing.ranges import Range
from edgeopt.tflite.activations import computed
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed
from edgeopt.tflite.stored_weights import LAYER_AXES, Layer, layers, stored_bias, stored_weights, with_weights

# Kernels that take any scales on either side.
_FREE = frozenset(
    {
        *LAYER_AXES,
        *("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "QUANTIZE", "DEQUANTIZE", "MEAN", "SUM", "BATCH_MATMUL"),
        *("LEAKY_RELU", "PRELU", "HARD_SWISH", "ELU", "GELU", "RELU", "RELU6", "RELU_N1_TO_1", "RSQRT"),
    }
)
# Kernels whose results have a scale that is written into the kernel, or none.
_FREE_INPUTS = frozenset({"SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "ARG_MAX", "ARG_MIN"})
# Kernels that move numbers, and know one scale for what they read and write.
_SAME = frozenset(
    {
        *("AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS"),
        *("GATHER", "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "REDUCE_MAX"),
        *("REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE"),
        *("SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE"),
        *("UNPACK",),
    }
)
_LIMITS = {"int8": (-128, 127), "int16": (-32767, 32767)}


@dataclass(frozen=True)
class Group:
    """Activations of the main graph that have one scale, in the order in which they are computed.

    Attributes:
        tensors: their indices.
        name: of the first.
        dtype: "int8" or "int16".
        held: the range of real numbers that they hold now.
    """

    tensors: tuple[int, ...]
    name: str
    dtype: str
    held: Range

    @property
    def levels(self) -> int:
        """How many numbers they tell apart."""
        low, high = _LIMITS[self.dtype]
        return high - low + 1

    @property
    def symmetric(self) -> bool:
        """Whether kernels want 0 in the middle."""
        return self.dtype == "int16"


def groups(model: TFLiteModel) -> tuple[tuple[Group, ...], dict[str, str]]:
    """Returns the activations whose scale may be another, and the name of the first of all others → why not."""
    graph = model.main
    found = [
        tensor
        for tensor in (*(graph.tensors[i] for i in graph.inputs), *computed(model))
        if tensor.dtype in _LIMITS and tensor.quantization and not tensor.is_per_channel and not tensor.is_variable
    ]
    parent = {t.index: t.index for t in found}
    fixed: dict[int, str] = {}

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    movable = {layer.operator.index for layer in layers(model) if not _stuck(model, layer)}
    for operator in graph.operators:
        inputs, outputs = ([i for i in side if i in parent] for side in (operator.inputs, operator.outputs))
        if operator.name in _SAME:
            # Not all that could share a scale do: some kernels rescale.
            for a in (*inputs, *outputs):
                for b in (*inputs, *outputs):
                    if _alike(graph, a, b) and root(a) != root(b):
                        parent[max(root(a), root(b))] = min(root(a), root(b))
            if any(_alike(graph, i, j) for i in _constants(graph, operator) for j in inputs):
                fixed.update(dict.fromkeys(inputs, f"{operator.name} shares its scale with a constant"))
        elif operator.name in _FREE_INPUTS:
            fixed.update(dict.fromkeys(outputs, f"{operator.name} has a scale of its own"))
        elif operator.name not in _FREE or (operator.name in LAYER_AXES and operator.index not in movable):
            why = f"{operator.name} may need the scale that it has"
            fixed.update(dict.fromkeys((*inputs, *outputs), why))
    joined: dict[int, list[int]] = {}
    for tensor in found:
        joined.setdefault(root(tensor.index), []).append(tensor.index)
    free, left = [], {}
    for members in joined.values():
        first = graph.tensors[members[0]]
        reasons = [fixed[i] for i in members if i in fixed]
        if reasons:
            left[first.name] = reasons[0]
        else:
            free.append(Group(tuple(members), first.name, first.dtype, range_of(first)))
    return tuple(free), left


def with_ranges(content: bytes, wanted: Mapping[Group, Range]) -> bytes:
    """Returns the file with other ranges of activations, and biases in the steps that follow from them.

    Raises:
        ModelError: a bias does not fit into its integers then.
    """
    if not wanted:
        return content
    model = read(content)
    moved = {index for group in wanted for index in group.tensors}
    biases = {
        layer.operator.index: bias
        for layer in layers(model)
        if layer.activations.index in moved and (bias := stored_bias(model, layer)) is not None
    }

    def change(parsed: Any, schema: Any) -> None:
        for group, held in wanted.items():
            scale, zero_point = parameters(held, group.dtype)
            for index in group.tensors:
                table = parsed.subgraphs[0].tensors[index].quantization
                table.scale, table.zeroPoint = np.array([scale], np.float32), np.array([zero_point], np.int64)
                table.min = table.max = None

    return with_weights(changed(content, change), {}, biases)


def parameters(held: Range, dtype: str) -> tuple[float, int]:
    """Returns scale and zero point of integers that hold a range, with a real 0 among them.

    As TensorFlow Lite chooses them (`optimize/quantization_utils.cc`, GetAsymmetricQuantizationParams).
    """
    lowest, highest = _LIMITS[dtype]
    low, high = min(held[0], 0.0), max(held[1], 0.0)
    if dtype == "int16":
        return max(-low, high, 1e-30) / highest, 0
    scale = max(high - low, 1e-30) / (highest - lowest)
    return scale, int(np.clip(round(lowest - low / scale), lowest, highest))


def _constants(graph: Subgraph, operator: Operator) -> list[int]:
    return [i for i in operator.inputs if i >= 0 and graph.tensors[i].is_constant and graph.tensors[i].quantization]


def _alike(graph: Subgraph, one: int, other: int) -> bool:
    return graph.tensors[one].quantization == graph.tensors[other].quantization


def _stuck(model: TFLiteModel, layer: Layer) -> bool:
    """Whether a layer's bias cannot be written in other steps."""
    return layer.bias is not None and not layer.activations.is_float and stored_weights(model, layer) is None


def range_of(tensor: Tensor) -> Range:
    """Returns the real numbers that integer activations hold."""
    assert tensor.quantization is not None
    (scale,), (zero_point,) = tensor.quantization.scales, tensor.quantization.zero_points
    low, high = _LIMITS[tensor.dtype]
    return (low - zero_point) * scale, (high - zero_point) * scale
