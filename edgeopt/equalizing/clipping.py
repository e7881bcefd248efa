"""Activations that clip, ReLU6 for one: a model and samples go in; those that clip nothing that matters come out.

A clipped activation keeps no scale, and a ReLU does. Nagel et al. (arXiv 1906.04721, section 5.1.1) take every ReLU6
of a MobileNetV2 for a ReLU; here the samples say which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, graph
from edgeopt.equalizing.rules import activation_of
from edgeopt.shrinking.rules import kind_of, operation_of

_BATCH = 64
# TensorFlow symbols and Keras 3 operations that clip at 6.
_CLIPPING = ("nn.relu6", "Relu6")


@dataclass(frozen=True)
class Clips:
    """What was found of a model's clipping activations, by the names of their layers.

    Attributes:
        harmless: those that may all be ReLUs at once.
        needed: of each of the others, how far the outputs move without it alone.
        moved: how far the outputs move without all of the harmless ones.
    """

    harmless: frozenset[str]
    needed: Mapping[str, float]
    moved: float


def clipping(calls: Sequence[graph.Call]) -> dict[str, Any]:
    """Returns the layers that clip what a ReLU lets pass, by name."""
    return {call.name: call.layer for call in calls if _clips(call)}


def judged(model: Any, inputs: Sequence[np.ndarray], limit: float) -> Clips:
    """Returns which clipping activations of a flat model may become ReLUs.

    Each is left out alone, then more and more of them together, from the one that matters least on: as many as move
    the outputs by no more than `limit`.

    Args:
        model: flat.
        inputs: samples, one array for each input.
        limit: root of the mean square by which outputs may move, as a share of their standard deviation.
    """
    layers = clipping(graph.flat_calls(model))
    if not layers:
        return Clips(frozenset(), {}, 0.0)
    before = answers(model, inputs)
    alone = {name: moved(before, answers(model, inputs, {name: layer})) for name, layer in layers.items()}
    order = sorted(alone, key=lambda name: alone[name])
    order = [name for name in order if alone[name] <= limit]

    def together(count: int) -> float:
        return moved(before, answers(model, inputs, {name: layers[name] for name in order[:count]}))

    fits, too_many, found = 0, len(order) + 1, 0.0
    count = len(order)
    while too_many - fits > 1:
        change = together(count)
        fits, too_many, found = (count, too_many, change) if change <= limit else (fits, count, found)
        count = (fits + too_many) // 2
    harmless = frozenset(order[:fits])
    return Clips(harmless, {name: alone[name] for name in alone if name not in harmless}, found)


def answers(model: Any, inputs: Sequence[np.ndarray], unclipped: Mapping[str, Any] | None = None) -> list[np.ndarray]:
    """Returns the outputs of a flat model for samples, with ReLUs in the place of these layers."""
    tf = frameworks.load("tensorflow")
    without = unclipped or {}

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if graph.takes_training(call.layer):
            kwargs["training"] = False
        if call.name not in without:
            return call.layer(*args, **kwargs)
        if operation_of(call)[0] in _CLIPPING:
            return tf.nn.relu(*(leaf for leaf in graph.leaves((args, kwargs)) if tf.is_tensor(leaf)))
        with _unclipped(call.layer):
            return call.layer(*args, **kwargs)

    found: list[list[np.ndarray]] = []
    for start in range(0, len(inputs[0]), _BATCH):
        batch = [tf.convert_to_tensor(values[start : start + _BATCH]) for values in inputs]
        found.append([np.asarray(output) for output in graph.walk(model, batch, step)])
    return [np.concatenate(parts) for parts in zip(*found)]


def moved(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    """Returns by how much outputs moved, as a share of their standard deviation: that of the worst of several."""
    return max(_moved(one, other) for one, other in zip(before, after))


def unclipped(layer: Any, name: str) -> graph.Replacement:
    """Returns what stands in the place of a clipping layer and clips nothing."""
    if kind_of(layer) not in ("TFOpLambda", "KerasOperation"):
        config = layer.get_config()
        config |= {"max_value": None} if kind_of(layer) == "ReLU" else {"activation": "relu"}
        return graph.Replacement(type(layer).from_config(config), layer.get_weights())
    relu = frameworks.load("tf_keras").layers.ReLU(name=name)

    def called(*args: Any, **kwargs: Any) -> Any:
        (tensor,) = (leaf for leaf in graph.leaves((args, kwargs)) if hasattr(leaf, "_keras_history"))
        return relu(tensor)

    return graph.Replacement(called)


def _clips(call: graph.Call) -> bool:
    if kind_of(call.layer) == "ReLU":
        return call.layer.max_value is not None and not call.layer.threshold
    return activation_of(call.layer) == "relu6" or operation_of(call)[0] in _CLIPPING


@contextlib.contextmanager
def _unclipped(layer: Any) -> Iterator[None]:
    """Lets a layer pass what it would clip, as long as the block runs."""
    attribute = "max_value" if kind_of(layer) == "ReLU" else "activation"
    kept = getattr(layer, attribute)
    setattr(layer, attribute, None if attribute == "max_value" else frameworks.load("tensorflow").nn.relu)
    try:
        yield
    finally:
        setattr(layer, attribute, kept)


def _moved(before: np.ndarray, after: np.ndarray) -> float:
    difference = float(np.sqrt(np.mean(np.square(after.astype(np.float64) - before))))
    if not np.isfinite(difference):
        return float("inf")
    return difference / float(np.std(before) or 1.0)
