"""The weights of a `.tflite` file's layers: bytes and new integers go in, the file that computes with them comes out.

A layer is an operator of the main graph that computes with one stored tensor of weights. Weights of four bits stand two
in a byte and of two bits four, the first in the lowest bits (`UnpackPackedIntToInt8` of LiteRT's
`kernels/internal/tensor_utils.cc`); what has one scale for each output channel has them along the layer's axis. A
scale for each block of a row, as FULLY_CONNECTED may have, stands in a tensor of its own, in float16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.tflite.model import BITS, Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, drop_unused_buffers, store_floats, with_truthful_versions
from edgeopt.tflite.weights import activations_position, stored_operand, trained_operands

# Axis of the output channels in the weights of an operator.
LAYER_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
STORED_BITS = (2, 4, 8)
_BIASES = ("float32", "int32", "int64")


@dataclass(frozen=True)
class StoredWeights:
    """Integers of a weight tensor and what they stand for, symmetric: real = scale * q.

    Attributes:
        values: int8, in the tensor's shape; they may use fewer values than the bits allow, as three bits do in four.
        scales: float32 [1], or one for each slice along `axis`; of blocks [rows, blocks], numbers that float16 holds.
        bits: in the file: 2, 4 or 8.
        axis: None with one scale.
        block: numbers in a row that share a scale; 0 where all of them do.
    """

    values: np.ndarray
    scales: np.ndarray
    bits: int
    axis: int | None = None
    block: int = 0

    def __post_init__(self) -> None:
        if self.bits not in STORED_BITS:
            raise ModelError(f"Expected weights of 2, 4 or 8 bits, got {self.bits}. Try 4 bits for fewer values.")
        highest = 2 ** (self.bits - 1) - 1
        if self.values.size and not -highest - 1 <= int(self.values.min()) <= int(self.values.max()) <= highest:
            raise ModelError(
                f"Expected weights of {self.bits} bits from {-highest - 1} to {highest}, got some from "
                f"{self.values.min()} to {self.values.max()}. Try more bits, or larger scales."
            )
        wanted: tuple[int, ...] = (1 if self.axis is None else self.values.shape[self.axis],)
        if self.block:
            wanted = (*wanted, -(-self.values.shape[-1] // self.block))
        if self.scales.shape != wanted or not (np.isfinite(self.scales).all() and (self.scales > 0).all()):
            raise ModelError(
                f"Expected {math.prod(wanted)} scales above 0 for weights of shape {self.values.shape}, got "
                f"{self.scales.reshape(-1).tolist()[:8]}. Try one for all, or one for each channel."
            )

    @property
    def dequantized(self) -> np.ndarray:
        """What they stand for: float32, in the tensor's shape."""
        return (self.values * self.along(self.values.ndim)).astype(np.float32)

    @property
    def packed(self) -> np.ndarray:
        """Their bytes in the file: uint8 [bytes]."""
        raw = self.values.astype(np.int8).reshape(-1).view(np.uint8)
        if self.bits == 8:
            return raw
        each = 8 // self.bits
        fields = np.zeros((-(-raw.size // each), each), np.uint8)
        fields.reshape(-1)[: raw.size] = raw & (2**self.bits - 1)
        return np.bitwise_or.reduce(fields << np.arange(0, 8, self.bits, dtype=np.uint8), axis=1)

    def along(self, rank: int) -> np.ndarray:
        """Returns the scales so that they multiply an array of this rank: float32."""
        if self.block:
            return np.repeat(self.scales, self.block, axis=1)[:, : self.values.shape[1]].astype(np.float32)
        return self.scales.reshape([-1 if axis == self.axis else 1 for axis in range(rank)]).astype(np.float32)


@dataclass(frozen=True)
class Layer:
    """An operator of the main graph and what it computes with.

    Attributes:
        operator: which.
        name: of the tensor that it writes.
        activations: what the weights are multiplied with.
        weight: as stored, perhaps behind a DEQUANTIZE.
        bias: None where it has none.
        axis: of the weights' output channels.
    """

    operator: Operator
    name: str
    activations: Tensor
    weight: Tensor
    bias: Tensor | None
    axis: int


def layers(model: TFLiteModel) -> tuple[Layer, ...]:
    """Returns a model's layers in the order in which they compute."""
    graph = model.main
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    return tuple(layer for operator in graph.operators if (layer := _layer(graph, operator, makers)) is not None)


def stored_weights(model: TFLiteModel, layer: Layer) -> StoredWeights | None:
    """Returns the integers that a layer computes with; None for floats, zero points and other integers."""
    return stored_tensor(model, layer.weight)


def stored_tensor(model: TFLiteModel, tensor: Tensor) -> StoredWeights | None:
    """Returns the integers of a tensor; None for floats, zero points and other integers."""
    quantization = tensor.quantization
    if tensor.block_size and tensor.dtype in ("int2", "int4", "int8"):
        return _in_blocks(model, tensor)
    if tensor.dtype not in ("int2", "int4", "int8") or quantization is None or any(quantization.zero_points):
        return None
    scales = np.array(quantization.scales, np.float32)
    return StoredWeights(model.values(tensor), scales, BITS[tensor.dtype], quantization.axis)


def _in_blocks(model: TFLiteModel, tensor: Tensor) -> StoredWeights | None:
    """Returns integers with a scale for each block of a row; None where the file does not hold the scales."""
    tensors = model.main.tensors
    held = tensors[tensor.block_scales] if 0 <= tensor.block_scales < len(tensors) else None
    if held is None or not held.is_constant or not held.is_float or len(tensor.shape) != 2:
        return None
    rows, columns = tensor.shape
    if columns % tensor.block_size or held.elements != rows * (columns // tensor.block_size):
        return None
    scales = model.values(held).astype(np.float32).reshape(rows, -1)
    return StoredWeights(model.values(tensor), scales, BITS[tensor.dtype], 0, tensor.block_size)


def stored_bias(model: TFLiteModel, layer: Layer) -> np.ndarray | None:
    """Returns the bias of a layer as the numbers that it stands for: float64 [channels]; None where it has none."""
    if layer.bias is None:
        return None
    values = model.values(layer.bias).astype(np.float64)
    if layer.bias.is_float:
        return values
    quantization = layer.bias.quantization
    if quantization is not None:
        return values * np.array(quantization.scales)
    # Some writers leave out what the kernels do not read.
    return values * _bias_scales(layer, layer.weight.quantization.scales if layer.weight.quantization else (1.0,))


def other_readers(model: TFLiteModel, layer: Layer) -> tuple[Operator, ...]:
    """Returns the operators that read a layer's weights and are no layers: their weights cannot be replaced."""
    index = layer.weight.index
    sharing = [each for each in layers(model) if each.weight.index == index]
    as_weight = {each.operator.index for each in sharing}
    handed_on = {operand for each in sharing for operand in each.operator.inputs}
    return tuple(
        operator
        for operator in model.main.operators
        if index in operator.inputs
        and operator.index not in as_weight
        # A DEQUANTIZE may stand between.
        and not (operator.name == "DEQUANTIZE" and handed_on.issuperset(operator.outputs))
    )


def with_weights(
    content: bytes, weights: Mapping[int, StoredWeights], biases: Mapping[int, np.ndarray] | None = None
) -> bytes:
    """Returns a file whose layers compute with other weights and biases, all else as it was.

    Biases in integers are written anew wherever the scale of the weights is another. Operator versions are raised to
    what the new types demand.

    Args:
        content: the file.
        weights: index of a weight tensor in the main graph → what it shall hold. Every layer that reads it then
            computes with it.
        biases: index of an operator in the main graph → real numbers [channels] to take in place of its bias, or as
            one where it had none.

    Raises:
        ModelError: a tensor or operator is none of a layer, is of another shape, is read by more than layers, or a bias
            does not fit into its integers.
    """
    model = read(content)
    wanted = dict(biases or {})
    found = layers(model)
    _require(model, found, weights, wanted)
    changes = [
        (layer, _new_bias(model, layer, weights.get(layer.weight.index), wanted.get(layer.operator.index)))
        for layer in found
        if layer.weight.index in weights or layer.operator.index in wanted
    ]
    readers = [index for operator in model.main.operators for index in operator.inputs]

    def change(parsed: Any, schema: Any) -> None:
        graph = parsed.subgraphs[0]
        for index, new in weights.items():
            _store(parsed, schema, graph, index, new)
        for layer, bias in changes:
            if bias is not None:
                _write_bias(parsed, schema, layer, bias, alone=bool(layer.bias and readers.count(layer.bias.index) < 2))
        drop_unused_buffers(parsed)

    return with_truthful_versions(changed(content, change))


def with_tables(content: bytes, tables: Mapping[int, StoredWeights]) -> bytes:
    """Returns a file with other integers in tables that are looked up into.

    Args:
        content: the file.
        tables: index of a tensor in the main graph → what it shall hold, in its shape and of as many bits.
    """

    def change(parsed: Any, schema: Any) -> None:
        for index, new in tables.items():
            _store(parsed, schema, parsed.subgraphs[0], index, new)
        drop_unused_buffers(parsed)

    return changed(content, change)


def without_dynamic_range(content: bytes) -> bytes:
    """Returns a file whose layers compute in floats, with the numbers that their integers stand for, where they read
    floats already: what it computes where no kernel quantizes activations. Unchanged where there are no such layers.

    Raises:
        ModelError: see `rewrite.changed`.
    """
    model = read(content)
    real = {
        layer.weight.index: stored.dequantized
        for layer in layers(model)
        if layer.activations.is_float and layer.weight.index in layer.operator.inputs
        if (stored := stored_weights(model, layer)) is not None
    }

    def change(parsed: Any, schema: Any) -> None:
        for index, values in real.items():
            store_floats(parsed, schema, parsed.subgraphs[0].tensors[index], values)
        drop_unused_buffers(parsed)

    return changed(content, change) if real else content


def _layer(graph: Subgraph, operator: Operator, makers: Mapping[int, Operator]) -> Layer | None:
    if operator.name not in LAYER_AXES:
        return None
    ((weights,), (biases,)) = trained_operands(operator)
    operand, activations = graph.operand(operator, weights), graph.operand(operator, activations_position(operator))
    weight = stored_operand(graph, operator, weights, makers)
    bias, result = graph.operand(operator, biases), graph.result(operator)
    if operand is None or weight is None or activations is None or result is None:
        return None
    # What a RESHAPE or a TRANSPOSE hands on has other channels than are stored, and a computed bias cannot be written.
    if weight.shape != operand.shape or len(weight.shape) <= LAYER_AXES[operator.name]:
        return None
    fits = bias is None or (bias.dtype in _BIASES and bias.shape == (weight.shape[LAYER_AXES[operator.name]],))
    if not fits or (bias is not None and not bias.is_constant):
        return None
    return Layer(operator, result.name, activations, weight, bias, LAYER_AXES[operator.name])


def _store(parsed: Any, schema: Any, graph: Any, index: int, new: StoredWeights) -> None:
    """Puts integers and scales into a tensor."""
    tensor = graph.tensors[index]
    tensor.type = getattr(schema.TensorType, f"INT{new.bits}")
    tensor.sparsity = None
    tensor.buffer = add_buffer(parsed, schema, new.packed)
    if new.block:
        tensor.quantization = _blocks(parsed, schema, graph, index, new)
    else:
        tensor.quantization = _quantization(schema, new.scales, new.axis or 0)


def _require(
    model: TFLiteModel,
    found: tuple[Layer, ...],
    weights: Mapping[int, StoredWeights],
    biases: Mapping[int, np.ndarray],
) -> None:
    """Raises ModelError where what is wanted does not fit the file."""
    tensors = {layer.weight.index: layer.weight for layer in found}
    if strangers := sorted(set(weights) - set(tensors)):
        raise ModelError(
            f"Expected tensors that {', '.join(LAYER_AXES)} compute with, got {strangers}. Try those of `layers`."
        )
    for index, new in weights.items():
        if new.values.shape != tensors[index].shape:
            raise ModelError(
                f"Expected weights of shape {tensors[index].shape} for {tensors[index].name!r}, got "
                f"{new.values.shape}. Try the file that they were made for."
            )
        readers = (other_readers(model, layer) for layer in found if layer.weight.index == index)
        if others := sorted({operator.name for each in readers for operator in each}):
            raise ModelError(
                f"Expected weights that layers alone read, got {tensors[index].name!r}, which {', '.join(others)} "
                "reads, too. Try leaving it as it is."
            )
    for index, bias in biases.items():
        of = next((layer for layer in found if layer.operator.index == index), None)
        if of is None or bias.shape != (of.weight.shape[of.axis],):
            wanted = "an operator with weights" if of is None else f"{of.weight.shape[of.axis]} biases for {of.name!r}"
            raise ModelError(f"Expected {wanted}, got {bias.shape} for operator {index}. Try those of `layers`.")


def _new_bias(
    model: TFLiteModel, layer: Layer, weights: StoredWeights | None, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Returns the stored values of a layer's bias and their scales, None for floats; None where it stays as it is."""
    if layer.activations.is_float:
        return None if bias is None else (bias.astype(np.float32), None)
    real = stored_bias(model, layer) if bias is None else bias.astype(np.float64)
    if real is None:
        return None
    new = weights or stored_weights(model, layer)
    if new is None:
        raise ModelError(f"Expected symmetric integers in {layer.weight.name!r}, got others. Try another layer.")
    scales = _bias_scales(layer, new.scales)
    dtype = np.dtype(layer.bias.dtype if layer.bias else "int64" if layer.activations.dtype == "int16" else "int32")
    with np.errstate(all="ignore"):
        values = np.rint(real / scales)
    if not np.abs(values).max(initial=0) <= np.iinfo(dtype).max:
        raise ModelError(
            f"Expected biases of {layer.name!r} that fit into {dtype}, got {np.abs(values).max():.3g} steps. "
            "Try larger scales of its weights."
        )
    return values.astype(dtype), scales.astype(np.float32)


def _bias_scales(layer: Layer, scales: Any) -> np.ndarray:
    """Returns what one step of a layer's bias stands for: float64 [1] or [channels]."""
    quantization = layer.activations.quantization
    if quantization is None:
        raise ModelError(f"Expected a scale of what {layer.name!r} reads, got none. Try converting it again.")
    return (np.float32(quantization.scales[0]) * np.array(scales, np.float32)).astype(np.float64)


def _write_bias(
    parsed: Any, schema: Any, layer: Layer, bias: tuple[np.ndarray, np.ndarray | None], *, alone: bool
) -> None:
    """Puts a bias into the tensor of its layer, or into one of its own where it has none or shares it."""
    values, scales = bias
    graph = parsed.subgraphs[0]
    operator = graph.operators[layer.operator.index]
    (position,) = trained_operands(layer.operator)[1]
    inputs = [*operator.inputs, *[-1] * (position + 1 - len(operator.inputs))]
    if alone:
        tensor = graph.tensors[inputs[position]]
    else:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"{layer.name}/bias", np.array(values.shape, np.int32)
        inputs[position] = len(graph.tensors)
        graph.tensors.append(tensor)
        operator.inputs = np.array(inputs, np.int32)
    tensor.type = getattr(schema.TensorType, values.dtype.name.upper())
    tensor.quantization = None if scales is None else _quantization(schema, scales, 0)
    tensor.buffer = add_buffer(parsed, schema, values)


def _quantization(schema: Any, scales: np.ndarray, axis: int) -> Any:
    table = schema.QuantizationParametersT()
    table.scale = scales.astype(np.float32)
    table.zeroPoint = np.zeros(len(scales), np.int64)
    table.quantizedDimension = axis if len(scales) > 1 else 0
    return table


def _blocks(parsed: Any, schema: Any, graph: Any, index: int, new: StoredWeights) -> Any:
    """Writes the scales of blocks into a tensor named after that of the weights, and returns what refers to it."""
    name = graph.tensors[index].name + b"_scales"
    place = next((i for i, tensor in enumerate(graph.tensors) if tensor.name == name), len(graph.tensors))
    if place == len(graph.tensors):
        graph.tensors.append(schema.TensorT())
    held = graph.tensors[place]
    held.name, held.shape = name, np.array(new.scales.shape, np.int32)
    held.type, held.buffer = schema.TensorType.FLOAT16, add_buffer(parsed, schema, new.scales.astype("<f2"))
    details = schema.BlockwiseQuantizationT()
    details.scales, details.zeroPoints, details.blockSize = place, -1, new.block
    table = schema.QuantizationParametersT()
    table.detailsType, table.details = schema.QuantizationDetails.BlockwiseQuantization, details
    return table
