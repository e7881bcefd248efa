"""A model goes in; a flat copy that can be scaled comes out: normalizations with all their weights, ReLU for ReLU6."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.equalizing.clipping import clipping, unclipped
from edgeopt.shrinking.rules import kind_of


def prepared(model: Any, harmless: Collection[str] = ()) -> Any:
    """Returns a flat copy of a model.

    Args:
        model: stays as it is.
        harmless: the clipping activations that become ReLUs, by the names they have in the flat model.
    """
    layers = clipping(graph.flat_calls(model))
    names = {id(layers[name]): name for name in harmless}

    def replaced(layer: Any) -> graph.Replacement | None:
        if id(layer) in names:
            return unclipped(layer, names[id(layer)])
        if kind_of(layer) in ("BatchNormalization", "SyncBatchNormalization") and not (layer.scale and layer.center):
            return _whole(layer)
        return None

    return graph.rebuild(model, replaced)


def _whole(layer: Any) -> graph.Replacement:
    """Returns a normalization with the gamma and beta that it computes with unsaid."""
    config = {**layer.get_config(), "scale": True, "center": True}
    size = np.asarray(layer.moving_mean)
    weights = [
        np.ones_like(size) if layer.gamma is None else np.asarray(layer.gamma),
        np.zeros_like(size) if layer.beta is None else np.asarray(layer.beta),
        size,
        np.asarray(layer.moving_variance),
    ]
    return graph.Replacement(type(layer).from_config(config), weights)
