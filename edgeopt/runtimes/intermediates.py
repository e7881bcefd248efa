"""An ONNX model goes in; the same with every activation as an output comes out, and what these outputs are called.

A tensor that is rounded to integers is told as the numbers that these stand for, and one that only an activation
function reads as what that makes of it: so does the `.tflite` that a file was made of, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import UnavailableError

# Activation functions that TensorFlow Lite has inside the operator before them.
_INSIDE = ("Relu", "Clip", "Tanh")


class Intermediates:
    """The activations of a model's main graph.

    Attributes:
        content: of the file that gives them.
        names: of its outputs to ask for.
    """

    def __init__(self, model: Any, file: Path) -> None:
        onnx = frameworks.load("onnx")
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise UnavailableError(
                f"Expected a file with its weights in it to see its activations, got {file.name}, whose weights lie "
                "beside it. Try onnx.save_model without external data."
            )
        nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        readers: dict[str, list[Any]] = {}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer if one.dims in ([], [1])}
        self._sources: dict[str, str] = {}
        self._scales: dict[str, tuple[float, float]] = {}
        final = {value.name for value in model.graph.output}
        for node in nodes:
            for name in filter(None, node.output):
                after = readers.get(name, [])
                inside = len(after) == 1 and after[0].op_type in _INSIDE and name not in final
                self._sources[name] = after[0].output[0] if inside else name
            if node.op_type == "QuantizeLinear" and len(node.input) > 2 and set(node.input[1:3]) <= set(stored):
                scale, zero = (stored[one].reshape(-1)[0] for one in node.input[1:3])
                self._scales[node.output[0]] = float(scale), float(zero)
        self.names = tuple(dict.fromkeys(self._sources.values()))
        added = [onnx.ValueInfoProto(name=name) for name in self.names if name not in final]
        model.graph.output.extend(added)
        self.content = model.SerializeToString()

    def told(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns real numbers by tensor name; what holds integers without a scale is left out.

        Args:
            values: of the outputs `names`.
        """
        found = {}
        for name, source in self._sources.items():
            array = np.asarray(values[source])
            if name in self._scales:
                scale, zero = self._scales[name]
                array = ((array.astype(np.float32) - zero) * scale).astype(np.float32)
            if array.dtype.kind == "f":
                found[name] = array
        return found
