"""A float `.tflite` that anybody wrote goes in; the same network as today's quantizers understand it comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt.tflite.rewrite import changed
from edgeopt.tflite.trained_ranges import forget_unused_codes


def understood(content: bytes) -> bytes:
    """Returns a float file with every operator named, every buffer inside and every weight in float32.

    Converters before TensorFlow 2.4 wrote operators into the old one-byte field alone: quantizers then see a file of
    additions, and leave it as it is without a word.
    """
    return changed(content, _modernize)


def _modernize(model: Any, schema: Any) -> None:
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for graph in model.subgraphs:
        widened = [o for o in graph.operators if _widened(model, graph, o, schema)]
        graph.operators = [o for o in graph.operators if o not in widened]
        for operator in widened:
            graph.tensors[operator.inputs[0]].buffer = 0  # the empty one
    forget_unused_codes(model)


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
