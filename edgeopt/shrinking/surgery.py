"""Channels and a cut go in; a new, smaller model comes out: narrower layers with what is left of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.shrinking.channels import Channels, Cut
from edgeopt.shrinking.tracing import Use


def shrink(channels: Channels, cut: Cut) -> Any:
    """Returns a model without the channels and heads that `cut` leaves out; the other weights are the same.

    Its outputs are those of `masks.masked(channels, cut)`.

    Raises:
        ConfigError: see `Channels.kept`.
    """
    kept = channels.kept(cut)

    def smaller(layer: Any) -> graph.Replacement | None:
        use = channels.uses.get(id(layer))
        if use is None:
            return None
        config = {**layer.get_config(), **{key: _count(counted, kept) for key, counted in use.config.items()}}
        return graph.Replacement(type(layer).from_config(config), sliced(use, kept))

    return graph.rebuild(channels.model, smaller)


def sliced(use: Use, kept: np.ndarray) -> list[np.ndarray]:
    """Returns what is left of a layer's weights."""
    found = []
    for weight, axes in zip(use.layer.weights, use.weights):
        value = np.asarray(weight)
        for axis, ids in enumerate(axes):
            if ids is not None:
                value = value.compress(kept[ids], axis=axis)
        found.append(value)
    return found


def _count(counted: Any, kept: np.ndarray) -> Any:
    if isinstance(counted, np.ndarray):
        return int(kept[counted].sum())
    if isinstance(counted, tuple):
        return tuple(_count(part, kept) for part in counted)
    return counted
