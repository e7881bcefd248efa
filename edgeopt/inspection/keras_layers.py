"""Counts a Keras model's layers: a model of either Keras goes in, rows, totals and facts come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.equalizing import factors, folded, spread
from edgeopt.inspection.rows import Row
from edgeopt.keras_bridge.layers import original
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.vocabulary import Shape

_RECURRENT = ("LSTM", "GRU", "SimpleRNN")
# Layers whose wrapped layer's weights and kind count.
_WRAPPERS = ("Bidirectional", "TimeDistributed")


class KerasCount:
    """What a walk over the layers found.

    Attributes:
        rows: one for each call of a layer.
        bytes_by_kind: "weights", "biases" and "constants" (statistics and scales, which mostly fold into weights).
    """

    def __init__(self, model: Any) -> None:
        self.rows: list[Row] = []
        self.bytes_by_kind = {"weights": 0, "biases": 0, "constants": 0}
        self._weights: list[WeightFacts] = []
        self._layers: Counter[str] = Counter()
        self._loops: list[str] = []
        self._fused_lstm = False
        self._kinds: dict[str, bool] = {}
        self._zeros = 0
        self._tensors = 0
        self._folded = _folded(model)
        counted: set[int] = set()
        for layer, name, inputs, outputs in _calls(model):
            again = id(layer) in counted
            counted.add(id(layer))
            self._add(layer, name, inputs, outputs, again)
        if not self.rows:
            # A SavedModel has variables and no layers.
            for variable in _variables(model, "variables"):
                self._add_variable(variable)

    def facts(self, untrainable: str) -> ModelFacts:
        """Returns what the verdicts on techniques rest on; `untrainable` says why there is nothing to train, if so."""
        elements = sum(w.elements for w in self._weights)
        return ModelFacts(
            untrainable=untrainable,
            quantized="",
            float_bytes=sum(self.bytes_by_kind.values()),
            parameters=sum(self.bytes_by_kind.values()) // 4,
            tensors=self._tensors,
            zeros=self._zeros / elements if elements else 0.0,
            weights=tuple(self._weights),
            layers=self._layers,
            loops=tuple(self._loops),
            fused_lstm=self._fused_lstm,
            kinds=tuple(sorted(self._kinds)),
            foreign=tuple(sorted(kind for kind, own in self._kinds.items() if not own)),
        )

    def _add(self, layer: Any, name: str, inputs: list[Shape], outputs: list[Shape], again: bool) -> None:
        known = original(layer)
        kind = type(known).__name__
        self._kinds[kind] = type(known).__module__.partition(".")[0] in ("keras", "tf_keras")
        variables = _variables(layer)
        weights = [np.asarray(variable) for variable in variables]
        kinds = [_weight_kind(variable) for variable in variables]
        kernels = [w for w, kind in zip(weights, kinds) if kind == "weights"]
        macs = _macs(known, inputs, outputs)
        elements, zeros = sum(k.size for k in kernels), sum(int(k.size - np.count_nonzero(k)) for k in kernels)
        self.rows.append(
            Row(
                index=len(self.rows),
                name=name,
                kind=kind,
                version=None,
                output_shape=outputs[0] if outputs else (),
                parameters=sum(w.size for w in weights),
                macs=macs,
                weight_dtype=str(kernels[0].dtype) if kernels else "",
                sparsity=zeros / elements if elements else None,
                unique_weights=max(np.unique(k).size for k in kernels) if kernels else None,
                note="shares the weights of an earlier call" if again and weights else "",
            )
        )
        if again:
            return
        self._zeros += zeros
        # Weights and biases; what a BatchNormalization has goes into them.
        self._tensors += len(weights) if kind != "BatchNormalization" else 0
        for value, weight_kind in zip(weights, kinds):
            # Counted as the float32 that converts, also where a policy stores less.
            self.bytes_by_kind[weight_kind] += 4 * value.size
        if weights:
            self._layers[kind] += 1
        self._remember(layer, kernels, macs)

    def _add_variable(self, variable: Any) -> None:
        value, kind = np.asarray(variable), _weight_kind(variable)
        self.bytes_by_kind[kind] += 4 * value.size
        self._tensors += 1
        if kind == "weights":
            self._zeros += int(value.size - np.count_nonzero(value))
            self._weights.append(WeightFacts("other", value.size, 0, value.size, int(value.shape[-1])))

    def _remember(self, layer: Any, kernels: list[np.ndarray], macs: int) -> None:
        elements = sum(k.size for k in kernels) or 1
        for inner in _unwrapped(layer):
            kind = type(inner).__name__
            if kind in _RECURRENT and not getattr(inner, "unroll", False):
                # tf_keras's LSTM becomes one fused operator, all others a loop.
                if kind == "LSTM" and type(inner).__module__.startswith("tf_keras"):
                    self._fused_lstm = True
                else:
                    self._loops.append(inner.name)
        kind = type(_unwrapped(layer)[0]).__name__
        for kernel in kernels:
            # A fused LSTM has a kernel for each of its 4 gates, and is quantized whole or not at all.
            fused = kind == "LSTM" and self._fused_lstm
            part = min(k.size for k in kernels) // 4 if fused else kernel.size
            group = _kind(kind, kernel)
            macs_of_kernel = macs * kernel.size // elements
            uneven = _unevenness(group, kernel, self._folded.get(id(layer))) if self._folded is not None else None
            channels = _channels(group, kernel)
            self._weights.append(WeightFacts(group, kernel.size, macs_of_kernel, part, channels, uneven))


def _folded(model: Any) -> dict[int, np.ndarray] | None:
    """Returns what conversion multiplies into a layer's channels, by its id; None where the graph is not tf_keras's."""
    if graph.functional(model) is None or not type(model).__module__.startswith("tf_keras."):
        return None
    return {key: factors(layers[0]) for key, layers in folded(graph.flat_calls(model)).items()}


def _unevenness(group: str, kernel: np.ndarray, factors: np.ndarray | None) -> float | None:
    """Returns how many times the largest weight is that of a typical output channel."""
    if not (channels := _channels(group, kernel)) or group == "attention" or not kernel.size:
        return None
    if group == "transposed":
        kernel = np.moveaxis(kernel, -2, -1)
    ranges = np.abs(kernel).reshape(-1, channels).max(axis=0)
    return spread(ranges if factors is None or len(factors) != channels else ranges * np.abs(factors))


def _variables(layer: Any, which: str = "weights") -> list[Any]:
    """Returns the weights that hold numbers; Keras counts vocabularies among them."""
    return [v for v in getattr(layer, which, ()) if hasattr(v, "name") and hasattr(v, "shape")]


def _path(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name)).split(":")[0]


def _weight_kind(variable: Any) -> str:
    """Returns "weights", "biases" (of any rank: a GRU's and attention's are matrices) or "constants"."""
    if _path(variable).endswith("bias"):
        return "biases"
    return "weights" if len(variable.shape) >= 2 else "constants"


def _channels(group: str, kernel: np.ndarray) -> int:
    """Returns how many scales the converter gives a kernel in Keras' layout."""
    if group in ("recurrent", "embedding", "other"):
        return 0
    if group == "depthwise":
        return int(prod(kernel.shape[-2:]))
    return int(kernel.shape[-2 if group == "transposed" else -1])


def _kind(layer: str, kernel: np.ndarray) -> str:
    if layer.startswith(("Depthwise", "Separable")):
        is_pointwise = layer.startswith("Separable") and set(kernel.shape[:-2]) == {1}
        return "pointwise" if is_pointwise else "depthwise"
    if layer.startswith("Conv"):
        if "Transpose" in layer:
            return "transposed"
        return "pointwise" if set(kernel.shape[:-2]) == {1} else "convolution"
    if layer in _RECURRENT:
        return "recurrent"
    if layer in ("MultiHeadAttention", "GroupQueryAttention"):
        return "attention"
    return {"Dense": "dense", "EinsumDense": "dense", "Embedding": "embedding"}.get(layer, "other")


def _calls(model: Any) -> Iterator[tuple[Any, str, list[Shape], list[Shape]]]:
    """Yields layer, name, input and output shapes; without a graph only layers."""
    if graph.functional(model) is None:
        for layer in getattr(model, "layers", []):
            yield layer, layer.name, [], []
        return
    for call in graph.flat_calls(model):
        given = [t for t in graph.leaves((call.args, dict(call.kwargs))) if hasattr(t, "shape") and hasattr(t, "dtype")]
        yield call.layer, call.name, [tuple(t.shape) for t in given], [tuple(t.shape) for t in call.outputs]


def _unwrapped(layer: Any) -> list[Any]:
    if type(layer).__name__ == "Bidirectional":
        return [layer.forward_layer, layer.backward_layer]
    return [layer.layer] if type(layer).__name__ in _WRAPPERS else [layer]


def _elements(shape: Shape) -> int:
    """Returns the elements of one sample: free dimensions count as 1, the batch not at all."""
    return prod(d or 1 for d in shape[1:])


def _macs(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """Returns the multiply-accumulates of one call for one sample; 0 where the shapes or the layer are not known."""
    if not inputs or not outputs:
        return 0
    given, made = _elements(inputs[0]), _elements(outputs[0])
    total = 0
    for inner in _unwrapped(layer):
        kind = type(inner).__name__
        variables = [w for w in _variables(inner) if _weight_kind(w) == "weights"]
        kernels = [tuple(w.shape) for w in variables]
        if kind.startswith("Separable"):
            depthwise, pointwise = kernels
            total += made // pointwise[-1] * prod(depthwise) + made * pointwise[-2]
        elif kind.startswith("Depthwise"):
            total += made * prod(kernels[0][:-2])
        elif kind.startswith("Conv") and "Transpose" in kind:
            total += given * prod(kernels[0][:-1])
        elif kind.startswith("ConvLSTM"):
            steps, units = inputs[0][1] or 1, kernels[0][-1] // 4  # four gates
            places = made // units // (steps if inner.return_sequences else 1)
            total += steps * places * sum(prod(kernel) for kernel in kernels)
        elif kind.startswith("Conv") or kind == "Dense":
            total += made * prod(kernels[0][:-1])
        elif kind in _RECURRENT:
            total += (inputs[0][1] or 1) * sum(prod(k) for k in kernels if len(k) == 2)
        elif kind == "MultiHeadAttention":
            queries, keys = (inputs[0][1] or 1), (inputs[min(1, len(inputs) - 1)][1] or 1)
            for variable in variables:
                reads_keys = _path(variable).split("/")[-2] in ("key", "value")
                total += prod(variable.shape) * (keys if reads_keys else queries)
            heads = next(w.shape[1:] for w in variables if _path(w).split("/")[-2] == "query")
            total += 2 * queries * keys * prod(heads)
    return total
