"""The calls of a model go in; the batch normalizations that conversion multiplies into other layers come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeopt.equalizing.rules import activation_of
from edgeopt.graph import Call, leaves
from edgeopt.shrinking.rules import kind_of

_FOLDING = ("Conv", "DepthwiseConv", "SeparableConv", "Dense")
_NORMALIZING = ("BatchNormalization", "SyncBatchNormalization")


def folded(calls: Sequence[Call]) -> dict[int, tuple[Any, ...]]:
    """Returns for each layer, by its id, the normalizations that alone read what it makes.

    A convolution that something else reads, too, is computed as it is, and its normalization stays an operator.
    """
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for leaf in leaves((call.args, dict(call.kwargs))):
            if hasattr(leaf, "_keras_history"):
                readers.setdefault(id(leaf), []).append(call)
    found: dict[int, tuple[Any, ...]] = {}
    refused: set[int] = set()
    for call in calls:
        if not kind_of(call.layer).startswith(_FOLDING) or activation_of(call.layer) != "linear":
            continue
        reading = [reader for tensor in call.outputs for reader in readers.get(id(tensor), ())]
        if reading and all(_normalizes(reader.layer) for reader in reading):
            found[id(call.layer)] = (*found.get(id(call.layer), ()), *(reader.layer for reader in reading))
        else:
            refused.add(id(call.layer))
    return {key: tuple(dict.fromkeys(layers)) for key, layers in found.items() if key not in refused}


def _normalizes(layer: Any) -> bool:
    return kind_of(layer) in _NORMALIZING and len(layer.axis) == 1


def factors(normalization: Any) -> np.ndarray:
    """Returns what a batch normalization multiplies each channel with."""
    spread = np.sqrt(np.asarray(normalization.moving_variance) + normalization.epsilon)
    return np.asarray(normalization.gamma) / spread if normalization.scale else 1 / spread
