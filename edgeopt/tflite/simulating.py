"""A float `.tflite` and what to compute with in some places go in; the float file that computes so comes out.

What a quantized file would compute is computed in floats: weights become what their integers stand for, and what an
operator writes goes through integers and back. So one place alone can be quantized, on any runtime.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, drop_unused_buffers, store_floats, with_truthful_versions
from edgeopt.tflite.stored_weights import layers, with_weights
from edgeopt.vocabulary import Quantization


@dataclass(frozen=True)
class Rounding:
    """Integers that a tensor goes through: "int8" or "int16", and what they stand for."""

    dtype: str
    quantization: Quantization


def simulated(
    content: bytes,
    *,
    weights: Mapping[int, np.ndarray] | None = None,
    biases: Mapping[int, np.ndarray] | None = None,
    rounded: Mapping[int, Rounding] | None = None,
) -> bytes:
    """Returns a float file that computes with other numbers in its main graph; its inputs and outputs stay.

    Args:
        content: the file.
        weights: index of a float32 weight tensor → what it shall hold, in its shape.
        biases: index of a layer's operator → its bias [channels].
        rounded: index of a tensor that is computed, or of an input → the integers that it goes through.

    Raises:
        ModelError: it is no `.tflite` file, or an operator is none of a layer.
    """

    def change(parsed: Any, schema: Any) -> None:
        graph = parsed.subgraphs[0]
        for index, values in (weights or {}).items():
            graph.tensors[index].buffer = add_buffer(parsed, schema, values.astype(np.float32))
        for index, rounding in (rounded or {}).items():
            _insert(parsed, schema, index, rounding)
        drop_unused_buffers(parsed)

    made = with_weights(content, {}, biases) if biases else content
    return with_truthful_versions(changed(made, change))


def in_floats(content: bytes, kinds: Collection[str]) -> bytes:
    """Returns a file in which operators of these names take floats made of their integers, and round what they give.

    Unchanged where it has none that compute with integers.

    Raises:
        ModelError: it is no `.tflite` file.
    """
    graph = read(content).main
    found = [
        (operator.index, given, made)
        for operator in graph.operators
        if operator.name in kinds and (given := graph.operand(operator, 0)) and (made := graph.result(operator))
        if given.quantization is not None and made.quantization is not None
    ]

    def change(parsed: Any, schema: Any) -> None:
        for place, given, made in reversed(found):
            operator = parsed.subgraphs[0].operators[place]
            taken, result = _between_integers(parsed, schema, place, given.index, made.index)
            operator.inputs, operator.outputs = np.array([taken], np.int32), np.array([result], np.int32)

    return changed(content, change) if found else content


def with_float_layers(content: bytes, floats: Mapping[int, tuple[np.ndarray, np.ndarray | None]]) -> bytes:
    """Returns a file in which layers take floats made of their integers, and round what they give.

    From one such layer to the next the floats go as they are.

    Args:
        content: the file.
        floats: index of a layer's operator in the main graph → its weights, in their shape, and its bias [channels].

    Raises:
        ModelError: it is no `.tflite` file.
    """
    there = {layer.operator.index: layer for layer in layers(read(content)) if layer.operator.index in floats}

    def change(parsed: Any, schema: Any) -> None:
        graph = parsed.subgraphs[0]
        for place in sorted(floats, reverse=True):
            layer, operator = there[place], graph.operators[place]
            (made,) = layer.operator.outputs
            taken, result = _between_integers(parsed, schema, place, layer.activations.index, made)
            numbers = [values for values in floats[place] if values is not None]
            held = [_floats(parsed, schema, layer.weight.index, values) for values in numbers]
            operator.inputs, operator.outputs = np.array([taken, *held], np.int32), np.array([result], np.int32)
        _join(parsed, schema)
        read_still = {index for operator in graph.operators for index in operator.inputs}
        for place in floats:
            for tensor in (there[place].weight, there[place].bias):
                if tensor is not None and tensor.index not in read_still:
                    graph.tensors[tensor.index].buffer = 0
        drop_unused_buffers(parsed)

    return with_truthful_versions(changed(content, change)) if floats else content


def _join(parsed: Any, schema: Any) -> None:
    """Lets floats that are rounded only to be made floats again pass as they are."""
    graph = parsed.subgraphs[0]

    def named(name: str) -> list[Any]:
        code = getattr(schema.BuiltinOperator, name)
        return [one for one in graph.operators if parsed.operatorCodes[one.opcodeIndex].builtinCode == code]

    ends = set(graph.outputs)
    rounding = [one for one in named("QUANTIZE") if graph.tensors[one.inputs[0]].type == schema.TensorType.FLOAT32]
    rounded = {one.outputs[0]: one.inputs[0] for one in rounding}
    undone = [one for one in named("DEQUANTIZE") if one.inputs[0] in rounded and one.outputs[0] not in ends]
    instead = {one.outputs[0]: rounded[one.inputs[0]] for one in undone}
    gone = {id(one) for one in undone}
    for operator in graph.operators:
        operator.inputs = np.array([instead.get(index, index) for index in operator.inputs], np.int32)
    read_still = {index for one in graph.operators if id(one) not in gone for index in one.inputs} | ends
    gone |= {id(one) for one in rounding if one.outputs[0] not in read_still}
    graph.operators = [one for one in graph.operators if id(one) not in gone]


def _floats(parsed: Any, schema: Any, like: int, values: np.ndarray) -> int:
    """Adds a tensor of these numbers; returns its index."""
    graph = parsed.subgraphs[0]
    index = _tensor(graph, schema, like, "FLOAT32", None)
    graph.tensors[index].shape, graph.tensors[index].shapeSignature = np.array(values.shape, np.int32), None
    store_floats(parsed, schema, graph.tensors[index], values)
    return index


def _between_integers(parsed: Any, schema: Any, place: int, given: int, made: int) -> tuple[int, int]:
    """Puts DEQUANTIZE before and QUANTIZE behind an operator; returns the float tensors between them and it."""
    graph = parsed.subgraphs[0]
    taken, result = (_tensor(graph, schema, index, "FLOAT32", None) for index in (given, made))
    graph.operators[place : place + 1] = [
        _operator(parsed, schema, "DEQUANTIZE", given, taken),
        graph.operators[place],
        _operator(parsed, schema, "QUANTIZE", result, made),
    ]
    return taken, result


def _insert(parsed: Any, schema: Any, index: int, rounding: Rounding) -> None:
    """Puts QUANTIZE and DEQUANTIZE behind what makes a tensor: all that read it read what comes out of them."""
    graph = parsed.subgraphs[0]
    before, after = index, index
    if index in list(graph.inputs):
        after = _tensor(graph, schema, index, "FLOAT32", None)
        for operator in graph.operators:
            operator.inputs = np.where(np.array(operator.inputs) == index, after, operator.inputs).astype(np.int32)
        place = 0
    else:
        place = next(i for i, operator in enumerate(graph.operators) if index in list(operator.outputs))
        maker = graph.operators[place]
        before = _tensor(graph, schema, index, "FLOAT32", None)
        maker.outputs = np.where(np.array(maker.outputs) == index, before, maker.outputs).astype(np.int32)
        place += 1
    stored = _tensor(graph, schema, index, rounding.dtype.upper(), rounding.quantization)
    graph.operators[place:place] = [
        _operator(parsed, schema, "QUANTIZE", before, stored),
        _operator(parsed, schema, "DEQUANTIZE", stored, after),
    ]


def _tensor(graph: Any, schema: Any, like: int, dtype: str, quantization: Quantization | None) -> int:
    tensor = copy.copy(graph.tensors[like])
    tensor.name = tensor.name + f"/{len(graph.tensors)}".encode()
    tensor.type, tensor.buffer, tensor.quantization = getattr(schema.TensorType, dtype), 0, None
    if quantization is not None:
        table = schema.QuantizationParametersT()
        table.scale = np.array(quantization.scales, np.float32)
        table.zeroPoint = np.array(quantization.zero_points, np.int64)
        tensor.quantization = table
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(parsed: Any, schema: Any, name: str, given: int, made: int) -> Any:
    code = getattr(schema.BuiltinOperator, name)
    known = [c.builtinCode or c.deprecatedBuiltinCode for c in parsed.operatorCodes]
    if code not in known:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        parsed.operatorCodes.append(entry)
        known.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = known.index(code)
    operator.inputs, operator.outputs = np.array([given], np.int32), np.array([made], np.int32)
    return operator
