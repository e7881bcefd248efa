"""A float `.tflite` that simulates int8 goes in; the plain float file and its trained activation ranges come out.

The converter writes fake quantization as a QUANTIZE with a DEQUANTIZE after it. Taken out, they leave a file that
calibration and quantization treat like any other; the ranges are put back over those of the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.tflite.rewrite import changed, forget_unused_codes

# Their integer kernels know one scale for what they read and write.
SAME_SCALE = frozenset(
    {
        *("AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER"),
        *("MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
        *("REVERSE_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE"),
        *("STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK"),
    }
)
_TRAINED = "FakeQuant"

Ranges = dict[str, tuple[float, float]]


def separated(content: bytes) -> tuple[bytes, Ranges]:
    """Returns the file without its rounding, and the trained range of each tensor that was rounded, by name."""
    ranges: Ranges = {}

    def change(model: Any, schema: Any) -> None:
        for number, graph in enumerate(model.subgraphs):
            stand_in = _take_out(model, graph, schema, ranges)
            for signature in model.signatureDefs or []:
                if signature.subgraphIndex == number:
                    for entry in signature.outputs:
                        entry.tensorIndex = stand_in.get(entry.tensorIndex, entry.tensorIndex)
            _spread(model, graph, schema, ranges)
        forget_unused_codes(model)

    return changed(content, change), ranges


def simulation(content: bytes) -> bytes:
    """Returns the file with the names of rounded tensors given to what they are rounded to.

    These are what an integer file's tensors of the same names hold.
    """

    def change(model: Any, schema: Any) -> None:
        code = schema.BuiltinOperator
        opcodes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
        for graph in model.subgraphs:
            down, up = (
                [o for o in graph.operators if opcodes[o.opcodeIndex] == c] for c in (code.QUANTIZE, code.DEQUANTIZE)
            )
            exact = {o.outputs[0]: graph.tensors[o.inputs[0]] for o in down}
            for operator in up:
                tensor, result = exact.pop(operator.inputs[0], None), graph.tensors[operator.outputs[0]]
                if tensor is not None and operator.outputs[0] not in list(graph.outputs):
                    tensor.name, result.name = b"exact;" + result.name, tensor.name

    return changed(content, change)


def with_ranges(calibrated: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Returns a calibrated file with `ranges` in place of those that calibration found."""

    def change(model: Any, schema: Any) -> None:
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                found = ranges.get(tensor.name.decode())
                if found is not None:
                    tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
                    tensor.quantization.min, tensor.quantization.max = ([np.float32(edge)] for edge in found)

    return changed(calibrated, change)


def _take_out(model: Any, graph: Any, schema: Any, ranges: Ranges) -> dict[int, int]:
    """Removes the rounding from a subgraph; returns which tensor stands in for which."""
    code = schema.BuiltinOperator
    opcodes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    quantized_from = {
        o.outputs[0]: o.inputs[0]
        for o in graph.operators
        if opcodes[o.opcodeIndex] == code.QUANTIZE and graph.tensors[o.inputs[0]].type == schema.TensorType.FLOAT32
    }
    stand_in: dict[int, int] = {}
    kept = []
    for operator in graph.operators:
        operator.inputs = [stand_in.get(i, i) for i in operator.inputs]
        if operator.outputs[0] in quantized_from:
            quantized_from[operator.outputs[0]] = operator.inputs[0]
            continue
        source = operator.inputs[0] if len(operator.inputs) else -1
        if opcodes[operator.opcodeIndex] != code.DEQUANTIZE:
            kept.append(operator)
        elif source in quantized_from:
            origin = quantized_from[source]
            stand_in[operator.outputs[0]] = origin
            rounded, result = graph.tensors[source], graph.tensors[operator.outputs[0]]
            is_output = operator.outputs[0] in list(graph.outputs)
            if is_output or _TRAINED in rounded.name.decode() + result.name.decode():
                ranges.setdefault(graph.tensors[origin].name.decode(), _range(rounded))
        elif not _make_float(model, graph, operator):
            kept.append(operator)
    graph.operators = kept
    graph.outputs = [stand_in.get(i, i) for i in graph.outputs]
    return stand_in


def _range(tensor: Any) -> tuple[float, float]:
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    least = 0 if tensor.type == frameworks.load("litert_schema").TensorType.UINT8 else -128
    return scale * (least - zero_point), scale * (least + 255 - zero_point)


def _make_float(model: Any, graph: Any, operator: Any) -> bool:
    """Makes a stored weight that is dequantized a float weight; says whether it was one."""
    stored, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    data = model.buffers[stored.buffer].data
    schema = frameworks.load("litert_schema")
    kinds = {schema.TensorType.INT8: np.int8, schema.TensorType.UINT8: np.uint8}
    if data is None or stored.type not in kinds:
        return False
    quantization = stored.quantization
    along = [1] * len(stored.shape)
    if len(quantization.scale) > 1:
        along[quantization.quantizedDimension] = -1
    values = np.frombuffer(bytes(data), kinds[stored.type]).reshape(stored.shape).astype(np.float32)
    offset = np.asarray(quantization.zeroPoint, np.float32).reshape(along)
    values = (values - offset) * np.asarray(quantization.scale, np.float32).reshape(along)
    buffer = type(model.buffers[0])()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    result.buffer = len(model.buffers)
    result.quantization = None
    model.buffers.append(buffer)
    return True


def _spread(model: Any, graph: Any, schema: Any, ranges: Ranges) -> None:
    """Gives the neighbours of a trained tensor its range where an operator has one scale for both."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    opcodes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    shared = [o for o in graph.operators if opcodes[o.opcodeIndex] in SAME_SCALE]

    def key(index: int) -> str | None:
        if index < 0:
            return None
        tensor = graph.tensors[index]
        computed = tensor.type == schema.TensorType.FLOAT32 and not _stored(model, tensor)
        return tensor.name.decode() if computed else None

    for operators, backward in ((shared[::-1], True), (shared, False)):
        for operator in operators:
            inputs, outputs = ([k for i in side if (k := key(i))] for side in (operator.inputs, operator.outputs))
            given, taken = (outputs, inputs) if backward else (inputs, outputs)
            known = [ranges[k] for k in given if k in ranges]
            for k in taken if known else ():
                ranges.setdefault(k, known[0])


def _stored(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0
