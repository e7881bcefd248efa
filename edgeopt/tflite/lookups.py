"""A float file goes in; the same, its tables read by EMBEDDING_LOOKUP instead of GATHER, comes out.

Converters write GATHER, whose quantized form knows one scale for a whole table; the other takes one a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt.tflite.model import Operator, Subgraph
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, operator_code


def with_lookups(content: bytes) -> bytes:
    """Returns the file with each GATHER of rows of a stored float matrix by int32 numbers as an EMBEDDING_LOOKUP.

    The numbers go in flat and what is found gets their shape again, as the operator takes a vector of them. Unchanged
    where there is none, or where a size is only known while it runs.
    """
    model = read(content)
    found = {
        (graph.index, operator.index)
        for graph in model.subgraphs
        for operator in graph.operators
        if _is_look_up(graph, operator)
    }
    if not found:
        return content

    def change(parsed: Any, schema: Any) -> None:
        for place, graph in enumerate(parsed.subgraphs):
            operators = []
            for index, operator in enumerate(graph.operators):
                taken = (place, index) in found
                operators += _look_up(parsed, schema, graph, operator) if taken else [operator]
            graph.operators = operators

    return changed(content, change)


def _look_up(parsed: Any, schema: Any, graph: Any, gather: Any) -> list[Any]:
    """Returns what computes as a GATHER of rows does."""
    look_up, reshape = (operator_code(parsed, schema, name) for name in ("EMBEDDING_LOOKUP", "RESHAPE"))
    table, numbers = (int(each) for each in gather.inputs[:2])
    result = int(gather.outputs[0])
    count, width = int(np.prod(graph.tensors[numbers].shape)), int(graph.tensors[table].shape[1])
    flat = _tensor(graph, schema, graph.tensors[numbers], (count,), b"_flat")
    rows = _tensor(graph, schema, graph.tensors[result], (count, width), b"_rows")
    return [
        _reshape(parsed, schema, graph, reshape, numbers, flat),
        _operator(schema, look_up, (flat, table), rows),
        _reshape(parsed, schema, graph, reshape, rows, result),
    ]


def _is_look_up(graph: Subgraph, operator: Operator) -> bool:
    if operator.name != "GATHER" or any(operator.options.get(key) for key in ("axis", "batch_dims")):
        return False
    table, numbers, result = graph.operand(operator, 0), graph.operand(operator, 1), graph.result(operator)
    if table is None or numbers is None or result is None:
        return False
    is_known = None not in (*numbers.signature, *result.signature)
    is_matrix = table.is_constant and table.dtype == "float32" and len(table.shape) == 2
    return is_matrix and numbers.dtype == "int32" and is_known


def _tensor(graph: Any, schema: Any, like: Any, shape: tuple[int, ...], suffix: bytes) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = like.name + suffix, like.type, np.array(shape, np.int32), 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(schema: Any, code: int, inputs: tuple[int, ...], output: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    return operator


def _reshape(parsed: Any, schema: Any, graph: Any, code: int, source: int, result: int) -> Any:
    shape = np.array(graph.tensors[result].shape, np.int32)
    held = schema.TensorT()
    held.name, held.type, held.shape = graph.tensors[result].name + b"_shape", schema.TensorType.INT32, [len(shape)]
    held.buffer = add_buffer(parsed, schema, shape)
    graph.tensors.append(held)
    operator = _operator(schema, code, (source, len(graph.tensors) - 1), result)
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    operator.builtinOptions = options
    return operator
