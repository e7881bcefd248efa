"""Operators of TensorFlow Lite that tf2onnx has no translation of: a node of its graph goes in, ONNX's nodes come out.

tf2onnx has put a DequantizeLinear behind each quantized tensor and a QuantizeLinear before it, so that what is
translated here takes and gives floats; trained numbers stay the integers that the file holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.tflite.model import Operator
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, without_sparsity

_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# Of the 24 operands of an LSTM those that one without peepholes, projection and normalization leaves out, and how many
# stay: the input, four matrices for it, four for the state and four biases, without the states.
_LSTM_WITHOUT = (9, 10, 11, 16, 17, 20, 21, 22, 23)
_LSTM_OPERANDS = 13
_LSTM_STATES = (18, 19)
# Activations that tf2onnx does not take apart from the operator before them.
_NOT_FUSED = ("RELU_N1_TO_1", "SIGN_BIT")
# Where ONNX's order of gates (input, output, forget, cell) is in TensorFlow Lite's (input, forget, cell, output).
_GATES = (0, 3, 1, 2)


def add_to(tf2onnx_handler: Any) -> None:
    """Makes tf2onnx translate OPERATORS too."""
    for name, translate in OPERATORS.items():
        tf2onnx_handler.tf_op.register_handler(_handler(translate), 1, [f"TFL_{name}"], "", {})


def prepared(content: bytes) -> bytes:
    """Returns a `.tflite` without what tf2onnx trips over: zeros left out, and states, which start at 0 in both."""
    content = without_sparsity(content)
    model = read(content)
    found = [(graph.index, o.index) for graph in model.subgraphs for o in graph.operators if o.name == _LSTM]

    def change(parsed: Any, schema: Any) -> None:
        for graph, operator in found:
            inputs = parsed.subgraphs[graph].operators[operator].inputs
            parsed.subgraphs[graph].operators[operator].inputs = [
                -1 if place in _LSTM_STATES else int(index) for place, index in enumerate(inputs)
            ]

    return changed(content, change) if found else content


def strange(operator: Operator) -> str:
    """Says what of an operator has no counterpart in ONNX though the operator has one; "" where all has."""
    activation = operator.options.get("fused_activation_function")
    if operator.name == _LSTM:
        given = operator.inputs
        if any(place < len(given) and given[place] >= 0 for place in _LSTM_WITHOUT) or any(i < 0 for i in given[:9]):
            return "with peepholes, a projection, normalized or coupled gates"
        return "" if activation == "TANH" else "with another activation than tanh"
    return f"with {activation} in it" if activation in _NOT_FUSED else ""


def _handler(translate: Callable[[Any, Any], None]) -> Callable[..., None]:
    def handle(graph: Any, node: Any, **kwargs: Any) -> None:
        translate(graph, node)

    return handle


def _gelu(graph: Any, node: Any) -> None:
    """x / 2 (1 + erf(x / √2)), or the form with tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    (x,), build = node.input, _Builder(graph, node)
    if node.get_attr_value("approximate"):
        cubed = build("Mul", build("Mul", x, x), build("Mul", x, build.number(0.044715)))
        curve = build("Tanh", build("Mul", build("Add", x, cubed), build.number(math.sqrt(2 / math.pi))))
    else:
        curve = build("Erf", build("Mul", x, build.number(math.sqrt(1 / 2))))
    raised = build("Add", curve, build.number(1.0))
    build.last("Mul", build("Mul", x, build.number(0.5)), raised)


def _embedding(graph: Any, node: Any) -> None:
    indices, table = node.input
    _Builder(graph, node).last("Gather", table, indices, axis=0)


def _clipped(low: float, high: float) -> Callable[[Any, Any], None]:
    def translate(graph: Any, node: Any) -> None:
        build = _Builder(graph, node)
        build.last("Clip", node.input[0], build.number(low), build.number(high))

    return translate


def _lstm(graph: Any, node: Any) -> None:
    """TensorFlow Lite keeps the state of cells between -10 and 10, Keras and ONNX do not: rarely does it go so far."""
    assert len(node.input) == _LSTM_OPERANDS, node.input
    build = _Builder(graph, node)
    time_major = bool(node.get_attr_value("time_major"))
    x = node.input[0] if time_major else build("Transpose", node.input[0], perm=[1, 0, 2])
    kernels, recurrent, biases = node.input[1:5], node.input[5:9], node.input[9:13]
    units = graph.get_shape(recurrent[0])[1]
    bias = np.concatenate([build.values(biases[gate]) for gate in _GATES])
    made = graph.make_node(
        "LSTM",
        [
            x,
            build.stacked([kernels[gate] for gate in _GATES]),
            build.stacked([recurrent[gate] for gate in _GATES]),
            build.constant(np.concatenate([bias, np.zeros_like(bias)])[np.newaxis].astype(np.float32)),
        ],
        attr={"hidden_size": units},
        output_count=3,
        name=build.name("lstm"),
    )
    axis = build.constant(np.array([1], np.int64))
    if time_major:
        build.last("Squeeze", made.output[0], axis)
    else:
        build.last("Transpose", build("Squeeze", made.output[0], axis), perm=[1, 0, 2])


OPERATORS: dict[str, Callable[[Any, Any], None]] = {
    "EMBEDDING_LOOKUP": _embedding,
    "GELU": _gelu,
    "RELU_0_TO_1": _clipped(0.0, 1.0),
    "RELU_N1_TO_1": _clipped(-1.0, 1.0),
    _LSTM: _lstm,
}


class _Builder:
    """Nodes of a tf2onnx graph that stand for one of its nodes."""

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph, self._node = graph, node

    def __call__(self, kind: str, *given: str, **attributes: Any) -> str:
        """Adds a node, and returns the name of its result."""
        return str(self._graph.make_node(kind, list(given), attr=attributes, name=self.name(kind)).output[0])

    def last(self, kind: str, *given: str, **attributes: Any) -> None:
        """Adds the node whose result is that of the one translated, which goes."""
        graph, node = self._graph, self._node
        shapes, dtypes, output = node.output_shapes[:1], node.output_dtypes[:1], node.output[0]
        graph.remove_node(node.name)
        graph.make_node(
            kind, list(given), attr=attributes, name=self.name(kind), outputs=[output], shapes=shapes, dtypes=dtypes
        )

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def constant(self, values: np.ndarray) -> str:
        return str(self._graph.make_const(self.name("constant"), values).output[0])

    def name(self, kind: str) -> str:
        return str(frameworks.load("tf2onnx").utils.make_name(f"{self._node.name}_{kind.lower()}"))

    def values(self, name: str) -> np.ndarray:
        """Returns a stored operand as real numbers."""
        stored, scales = self._stored(name)
        return np.asarray(stored * scales, np.float32)

    def stacked(self, names: Sequence[str]) -> str:
        """Returns stored matrices one below the other, [1, rows of all, columns]: integers stay integers."""
        parts = [self._stored(name) for name in names]
        values = np.concatenate([stored for stored, _ in parts])[np.newaxis]
        kept = self.constant(values)
        if values.dtype == np.float32:
            return kept
        # One matrix has one scale: each of its rows gets that.
        scales = np.concatenate([np.broadcast_to(scale, len(stored)) for stored, scale in parts]).astype(np.float32)
        zeros = np.zeros(len(scales), values.dtype)
        return self("DequantizeLinear", kept, self.constant(scales), self.constant(zeros), axis=1)

    def _stored(self, name: str) -> tuple[np.ndarray, Any]:
        """Returns the numbers behind an operand as the file holds them, and their scale."""
        node = self._graph.get_node_by_output(name)
        if node.type != "DequantizeLinear":
            return node.get_tensor_value(as_list=False), np.float32(1)
        stored, scale = (given.get_tensor_value(as_list=False) for given in node.inputs[:2])
        return stored, scale
