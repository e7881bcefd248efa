"""A float `.tflite` that anybody wrote goes in; the same network as today's quantizers understand it comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.tflite.model import Subgraph, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, drop_unused_buffers, forget_unused_codes, inlined
from edgeopt.vocabulary import Shape, TensorSpec


def understood(content: bytes, inputs: Sequence[TensorSpec]) -> bytes:
    """Returns a float file with every operator named, every buffer inside and every weight in float32, all its numbers.

    Converters before TensorFlow 2.4 wrote operators into the old one-byte field alone: quantizers then see a file of
    additions, and leave it as it is without a word. A file of today comes out as it is, byte for byte.

    Args:
        inputs: what the main graph's inputs shall be; sizes that the file leaves free and these fix are fixed.
    """
    touched: list[bool] = []
    parsed = read(content)
    made = changed(content, lambda model, schema: touched.append(_modernize(model, schema, parsed)))
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


def _modernize(model: Any, schema: Any, parsed: TFLiteModel) -> bool:
    """Mends a file, unpacked and `parsed`; says whether there was anything to mend."""
    old = [code for code in model.operatorCodes if code.builtinCode < code.deprecatedBuiltinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    plain = [_plain(graph, facts, parsed) for graph, facts in zip(model.subgraphs, parsed.subgraphs)]
    for graph, values in zip(model.subgraphs, plain):
        read = {index for operator in graph.operators for index in operator.inputs} | set(graph.outputs)
        for index, array in values.items():
            tensor = graph.tensors[index]
            tensor.sparsity, tensor.buffer = None, add_buffer(model, schema, array) if index in read else 0
    forget_unused_codes(model)
    drop_unused_buffers(model)
    return bool(old) or any(plain)


def _plain(graph: Any, facts: Subgraph, parsed: TFLiteModel) -> dict[int, np.ndarray]:
    """Takes DENSIFY and DEQUANTIZE of stored floats out of a graph; returns all numbers that it then has to store.

    By tensor: those that the two made, those that they read, and those that were stored sparse.
    """
    sparse = [t for t in facts.tensors if t.is_constant and t.is_float and t.sparsity is not None]
    found = {tensor.index: parsed.values(tensor) for tensor in sparse}
    kept = []
    for operator, unpacked in zip(facts.operators, graph.operators):
        stored = facts.operand(operator, 0) if operator.name in ("DENSIFY", "DEQUANTIZE") else None
        if stored is not None and stored.is_constant and stored.dtype == "float16":
            found.setdefault(stored.index, parsed.values(stored))
        if stored is not None and stored.index in found:
            result = facts.tensors[operator.outputs[0]]
            found[result.index] = found[stored.index].astype(result.dtype)
        else:
            kept.append(unpacked)
    graph.operators = kept
    return found
