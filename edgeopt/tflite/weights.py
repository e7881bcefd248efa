"""Where a `.tflite` file's bytes are and what its weights hold: a TFLiteModel goes in, counts and sizes come out.

A buffer that several tensors or subgraphs share is counted once, for the first that uses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgeopt.tflite.model import BITS, Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.vocabulary import StoredWeight

# Distinct values up to which a tensor may be clustered; nobody clusters finer.
CLUSTERED = 4096
KINDS = ("weights", "biases", "constants", "metadata", "graph")

# Operand positions of trained numbers. What is missing here (shapes, axes, look-up tables …) counts as a constant.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "CONV_2D": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "TRANSPOSE_CONV": (1,),
    "FULLY_CONNECTED": (1,),
    "BATCH_MATMUL": (0, 1),
    "EMBEDDING_LOOKUP": (1,),
    "GATHER": (0,),
    "PRELU": (1,),
    "SVDF": (1, 2),
    "RNN": (1, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
    # Input and recurrent kernels, peepholes, projection; the basic kernel of LSTM has one joint kernel at 2.
    "LSTM": (*range(1, 12), 16),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 12), 16),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 12), 16, *range(18, 29), 33),
    "BIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 4, 5),
}
_BIASES: dict[str, tuple[int, ...]] = {
    "CONV_2D": (2,),
    "CONV_3D": (2,),
    "CONV_3D_TRANSPOSE": (3,),
    "DEPTHWISE_CONV_2D": (2,),
    "TRANSPOSE_CONV": (3,),
    "FULLY_CONNECTED": (2,),
    "ADD": (0, 1),
    "SUB": (0, 1),
    "SVDF": (3,),
    "RNN": (3,),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (3,),
    "LSTM": (*range(12, 16), 17),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (*range(12, 16), 17),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*range(12, 16), 17, *range(29, 33), 34),
    "BIDIRECTIONAL_SEQUENCE_RNN": (3, 6),
}
# Position of what the weights are multiplied with, where it is not the first.
_ACTIVATIONS = {"TRANSPOSE_CONV": 2}
# They hand a stored weight on in another form, so that its role is its reader's.
_CARRIERS = {"DEQUANTIZE", "DENSIFY", "CAST", "RESHAPE", "TRANSPOSE"}
# Carriers between a stored weight and its reader; more than a few is no model that a converter writes.
_DEEPEST = 8
_OUTPUT_AXIS = {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4}


@dataclass(frozen=True)
class WeightTensor(StoredWeight):
    """A stored tensor that operators read; its name, shape and dtype are those of the first tensor that uses it.

    Attributes:
        kind: one of KINDS: "weights", "biases" or "constants".
        unique_per_channel: None also where the tensor has more than CLUSTERED values, too many for clusters.
        buffer: where its bytes are; what else it serves shares them.
    """

    buffer: int


@dataclass(frozen=True)
class Weights:
    """All stored tensors of a model.

    Attributes:
        bytes_by_kind: kind (KINDS) → bytes; they add up to the file.
    """

    tensors: tuple[WeightTensor, ...]
    bytes_by_kind: dict[str, int]


def weigh(model: TFLiteModel) -> Weights:
    """Counts a model's stored tensors: bytes by kind, parameters, zeros, distinct values."""
    tensors: list[WeightTensor] = []
    seen = {0} | set(model.metadata.values())
    readers = [_readers(graph) for graph in model.subgraphs]
    for graph in model.subgraphs:
        for tensor, kind, reader in _roles(model, graph, readers):
            if tensor.buffer not in seen:
                seen.add(tensor.buffer)
                tensors.append(_weigh(model, tensor, kind, reader))
        for tensor in graph.tensors:
            if tensor.is_constant and tensor.buffer not in seen:
                seen.add(tensor.buffer)
                tensors.append(_weigh(model, tensor, "constants", None))
    sizes = dict.fromkeys(KINDS, 0)
    for stored in tensors:
        sizes[stored.kind] += stored.size_bytes
    sizes["metadata"] = sum(model.buffers[i].size for i in set(model.metadata.values()))
    sizes["graph"] = max(0, model.size_bytes - sum(sizes.values()))
    return Weights(tuple(tensors), sizes)


def stored_operand(graph: Subgraph, operator: Operator, position: int, makers: Mapping[int, Operator]) -> Tensor | None:
    """Returns the constant behind an operand, through the operators that widen or expand it; None for what is computed.

    Args:
        makers: tensor index → the operator that computes it.
    """
    tensor = graph.operand(operator, position)
    for _ in range(_DEEPEST):
        if tensor is None or tensor.is_constant:
            return tensor
        maker = makers.get(tensor.index)
        if maker is None or maker.name not in _CARRIERS:
            return None
        tensor = graph.operand(maker, 0)
    return None


def trained_operands(operator: Operator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the positions of an operator's weights and of its biases."""
    return _WEIGHTS.get(operator.name, ()), _BIASES.get(operator.name, ())


def activations_position(operator: Operator) -> int:
    """Returns the position of the operand that an operator's weights are multiplied with."""
    return _ACTIVATIONS.get(operator.name, 0)


def output_axis(operator: str, tensor: Tensor) -> int:
    """Returns the axis of a weight along which its output channels lie."""
    if tensor.quantization is not None and tensor.quantization.axis is not None:
        return tensor.quantization.axis
    return min(_OUTPUT_AXIS.get(operator, 0), len(tensor.shape) - 1)


Readers = dict[int, list[tuple[Operator, int]]]


def _readers(graph: Subgraph) -> Readers:
    """Returns tensor index → the operators that read it and at which position."""
    readers: Readers = {}
    for operator in graph.operators:
        for position, index in enumerate(operator.inputs):
            readers.setdefault(index, []).append((operator, position))
    return readers


def _roles(model: TFLiteModel, graph: Subgraph, readers: list[Readers]) -> Iterator[tuple[Tensor, str, Operator]]:
    """Yields each constant that operators of `graph` read, with its kind and the operator that computes with it."""
    for tensor in graph.tensors:
        if not tensor.is_constant or tensor.index not in readers[graph.index]:
            continue
        roles = [_role(model, graph, readers, reader, place) for reader, place in readers[graph.index][tensor.index]]
        kind, reader = min(roles, key=lambda role: KINDS.index(role[0]))
        # Integer operands of an addition are index arithmetic unless they are quantized.
        if kind == "biases" and reader.name in ("ADD", "SUB") and not (tensor.is_float or tensor.quantization):
            kind = "constants"
        yield tensor, kind, reader


def _role(
    model: TFLiteModel, graph: Subgraph, readers: list[Readers], operator: Operator, position: int, depth: int = 0
) -> tuple[str, Operator]:
    """Returns the kind of the operand at `position` of `operator`, following it through carriers and into loops."""
    if position in _WEIGHTS.get(operator.name, ()):
        return "weights", operator
    if position in _BIASES.get(operator.name, ()):
        return "biases", operator
    onward: tuple[Subgraph, int] | None = None
    if operator.name in _CARRIERS and position == 0 and operator.outputs:
        onward = graph, operator.outputs[0]
    elif operator.name == "WHILE" and len(operator.subgraphs) == 2:
        body = model.subgraphs[operator.subgraphs[1]]
        onward = (body, body.inputs[position]) if position < len(body.inputs) else None
    if onward is not None and depth < _DEEPEST:
        for reader, place in readers[onward[0].index].get(onward[1], ())[:1]:
            return _role(model, onward[0], readers, reader, place, depth + 1)
    return "constants", operator


def _weigh(model: TFLiteModel, tensor: Tensor, kind: str, operator: Operator | None) -> WeightTensor:
    zeros, unique, unique_per_channel = _count(model, tensor, kind, operator.name if operator else "")
    quantization = tensor.quantization
    return WeightTensor(
        buffer=tensor.buffer,
        name=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        bits=BITS.get(tensor.dtype, 0),
        kind=kind,
        operator=operator.name if operator else "",
        elements=tensor.elements if tensor.dtype in BITS else 0,
        size_bytes=tensor.size_bytes + (tensor.sparsity.index_bytes if tensor.sparsity else 0),
        zeros=zeros,
        unique=unique,
        unique_per_channel=unique_per_channel,
        scales=math.prod(tensor.shape) // tensor.block_size
        if tensor.block_size
        else len(quantization.scales)
        if quantization
        else 0,
        encoding=str(tensor.sparsity) if tensor.sparsity else "",
    )


def _count(model: TFLiteModel, tensor: Tensor, kind: str, operator: str) -> tuple[int | None, int | None, int | None]:
    """Returns the zeros, the distinct values and the most distinct values per channel of a stored tensor."""
    if tensor.dtype not in BITS or kind == "constants":
        return None, None, None
    values = model.stored_values(tensor)
    zero_points = tensor.quantization.zero_points if tensor.quantization else (0,)
    if tensor.sparsity is not None:
        # What is not stored is zero; a block that is stored may hold zeros too.
        nonzero = int(np.count_nonzero(values != zero_points[0]))
        unique = _distinct(values[None])
        return tensor.elements - nonzero, unique + int(nonzero == values.size < tensor.elements), None
    if not values.size:
        return 0, 0, None
    if not any(zero_points):
        zeros = values.size - int(np.count_nonzero(values))
    elif len(zero_points) == 1 or tensor.quantization is None or tensor.quantization.axis is None:
        zeros = int(np.count_nonzero(values == zero_points[0]))
    else:
        along = [1] * len(tensor.shape)
        along[tensor.quantization.axis] = -1
        zeros = int(np.count_nonzero(values.reshape(tensor.shape) == np.reshape(zero_points, along)))
    unique = _distinct(values[None])
    if kind == "biases" or len(tensor.shape) < 2 or unique > CLUSTERED:
        return zeros, unique, None
    channels = np.moveaxis(values.reshape(tensor.shape), output_axis(operator, tensor), 0)
    return zeros, unique, _distinct(channels.reshape(len(channels), -1))


def _distinct(rows: np.ndarray) -> int:
    """Returns the most distinct values in any row of [rows, values]."""
    if not rows.size:
        return 0
    # For one and two bytes NumPy's stable sort is a radix sort: much faster.
    ordered = np.sort(rows, axis=1, kind="stable" if rows.dtype.itemsize < 4 else "quicksort")
    return int(np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1).max()) + 1
