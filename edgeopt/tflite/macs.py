"""Multiply-accumulates of a `.tflite` file's operators: a TFLiteModel goes in, a count for each operator comes out.

Counted with the shapes in the file, where a free dimension (the batch) is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from edgeopt.errors import ModelError
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel

_DEEPEST = 64


def operator_macs(graph: Subgraph, operator: Operator) -> int:
    """Returns the multiply-accumulates of one operator; 0 for those that only move, add or look up."""
    rule = MACS.get(operator.name)
    return rule(graph, operator) if rule else 0


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one inference.

    Attributes:
        total: of all operators; the bodies of loops counted once.
        loops: how many loops there are whose number of rounds the file does not tell.
    """

    total: int
    loops: int


def count_macs(model: TFLiteModel) -> Macs:
    """Counts the multiply-accumulates of one inference.

    Raises:
        ModelError: its graphs call one another in a circle, or nest deeper than any converter writes them.
    """
    return Macs(_graph_macs(model, 0, {}, 0), sum(o.name == "WHILE" for g in model.subgraphs for o in g.operators))


def _graph_macs(model: TFLiteModel, index: int, known: dict[int, int], depth: int) -> int:
    if depth > _DEEPEST:
        raise ModelError(
            f"Expected graphs that call one another at most {_DEEPEST} deep, got more. Try converting it again."
        )
    if index not in known:
        graph = model.subgraphs[index]
        known[index] = sum(
            operator_macs(graph, operator)
            + sum(_graph_macs(model, called, known, depth + 1) for called in set(operator.subgraphs))
            for operator in graph.operators
        )
    return known[index]


def _convolution(graph: Subgraph, operator: Operator) -> int:
    # Weights [out channels, height, width, in channels / groups].
    return prod(_result(graph, operator)) * prod(_shape(graph, operator, 1)[1:])


def _convolution_3d(graph: Subgraph, operator: Operator) -> int:
    # Weights [depth, height, width, in channels, out channels].
    return prod(_result(graph, operator)) * prod(_shape(graph, operator, 1)[:-1])


def _depthwise(graph: Subgraph, operator: Operator) -> int:
    # Weights [1, height, width, out channels].
    return prod(_result(graph, operator)) * prod(_shape(graph, operator, 1)[:-1])


def _dense(graph: Subgraph, operator: Operator) -> int:
    # Weights [out, in].
    return prod(_result(graph, operator)) * prod(_shape(graph, operator, 1)[1:])


def _transposed(graph: Subgraph, operator: Operator) -> int:
    # Operands: output shape, weights [out channels, height, width, in channels], input.
    return prod(_shape(graph, operator, 2)) * prod(_shape(graph, operator, 1)[:-1])


def _matrix_product(graph: Subgraph, operator: Operator) -> int:
    left = _shape(graph, operator, 0)
    inner = left[-2 if operator.adjoint else -1] if len(left) > 1 else 0
    return prod(_result(graph, operator)) * inner


def _recurrent(graph: Subgraph, operator: Operator) -> int:
    # Every matrix is multiplied once for each time step and sample: all dimensions of the input but the last.
    # State tensors are matrices too, but variables, not constants; in dynamic range their kernels stay constants.
    steps = prod(_shape(graph, operator, 0)[:-1])
    matrices = (graph.operand(operator, position) for position in range(1, len(operator.inputs)))
    return steps * sum(m.elements for m in matrices if m is not None and not m.is_variable and len(m.shape) == 2)


MACS: dict[str, Callable[[Subgraph, Operator], int]] = {
    "CONV_2D": _convolution,
    "CONV_3D": _convolution_3d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matrix_product,
    "LSTM": _recurrent,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
    "RNN": _recurrent,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "BIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "SVDF": _recurrent,
}


def _shape(graph: Subgraph, operator: Operator, position: int) -> tuple[int, ...]:
    tensor = graph.operand(operator, position)
    return tensor.shape if tensor is not None else (0,)


def _result(graph: Subgraph, operator: Operator) -> tuple[int, ...]:
    tensor = graph.result(operator)
    return tensor.shape if tensor is not None else (0,)
