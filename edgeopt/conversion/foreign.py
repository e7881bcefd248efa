"""A float `.tflite` that anybody wrote goes in; the same network as today's quantizers understand it comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, inlined
from edgeopt.tflite.trained_ranges import forget_unused_codes
from edgeopt.vocabulary import Shape, TensorSpec


def understood(content: bytes, inputs: Sequence[TensorSpec]) -> bytes:
    """Returns a float file with every operator named, every buffer inside and every weight in float32.

    Converters before TensorFlow 2.4 wrote operators into the old one-byte field alone: quantizers then see a file of
    additions, and leave it as it is without a word. A file of today comes out as it is, byte for byte.

    Args:
        inputs: what the main graph's inputs shall be; sizes that the file leaves free and these fix are fixed.
    """
    touched: list[bool] = []
    made = changed(content, lambda model, schema: touched.append(_modernize(model, schema)))
    modern = made if any(touched) else inlined(content)
    fixed = [spec.shape for spec in inputs]
    return modern if [spec.shape for spec in read(modern).inputs] == fixed else _resized(modern, fixed)


def _resized(content: bytes, shapes: Sequence[Shape]) -> bytes:
    """Returns the file with its inputs in these shapes, and every tensor of its main graph as that makes it."""
    litert = frameworks.load("litert")
    kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    for detail, shape in zip(interpreter.get_input_details(), shapes):
        interpreter.resize_tensor_input(detail["index"], [size or 1 for size in shape])
    interpreter.allocate_tensors()
    interpreter.invoke()  # sizes that the graph computes itself are known afterwards
    found = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    free_batch = any(shape and shape[0] is None for shape in shapes)

    def change(model: Any, schema: Any) -> None:
        for index, tensor in enumerate(model.subgraphs[0].tensors):
            if index in found and model.buffers[tensor.buffer].data is None:
                tensor.shape = np.asarray(found[index], np.int32)
            if tensor.shapeSignature is not None:
                batch = tensor.shapeSignature[:1] if free_batch else tensor.shape[:1]
                tensor.shapeSignature = np.asarray([*batch, *tensor.shape[1:]], np.int32)

    return changed(content, change)


def _modernize(model: Any, schema: Any) -> bool:
    """Mends a parsed file; says whether there was anything to mend."""
    old = [code for code in model.operatorCodes if code.builtinCode < code.deprecatedBuiltinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    touched = bool(old)
    for graph in model.subgraphs:
        widened = [o for o in graph.operators if _widened(model, graph, o, schema)]
        graph.operators = [o for o in graph.operators if o not in widened]
        for operator in widened:
            graph.tensors[operator.inputs[0]].buffer = 0  # the empty one
            touched = True
    forget_unused_codes(model)
    return touched


def _widened(model: Any, graph: Any, operator: Any, schema: Any) -> bool:
    """Makes a stored float16 weight that `operator` widens a float32 weight; says whether it was one."""
    if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.DEQUANTIZE:
        return False
    stored, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    data = model.buffers[stored.buffer].data
    if stored.type != schema.TensorType.FLOAT16 or data is None or not len(data):
        return False
    buffer = type(model.buffers[0])()
    buffer.data = np.frombuffer(np.frombuffer(bytes(data), "<f2").astype("<f4").tobytes(), np.uint8)
    result.buffer = len(model.buffers)
    model.buffers.append(buffer)
    return True
