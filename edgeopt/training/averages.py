"""A model and samples go in; its batch normalizations know the averages of what now reaches them, all else stays.

The averages that training leaves lag behind weights that jump from one integer to the next, as they do with few bits:
Nagel et al., "Overcoming Oscillations in Quantization-Aware Training" (arXiv 2203.11086), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeopt.frameworks import load


def normalizations(model: Any) -> list[Any]:
    """Returns the layers of a tf_keras model that keep averages of what they get, those in wrappers among them."""
    found = (layer for layer in model.submodules if hasattr(layer, "moving_variance") and hasattr(layer, "momentum"))
    return [layer for layer in found if layer.trainable]


def average_anew(model: Any, batches: Iterable[Sequence[np.ndarray]]) -> None:
    """Sets the averages of all batch normalizations to the mean over `batches`, each of which counts alike.

    Args:
        model: of tf_keras; its other variables stay as they are, those among them that training moves.
        batches: an array for each input; of one size, or the last one counts too much.
    """
    tf = load("tensorflow")
    layers = normalizations(model)
    momenta = [layer.momentum for layer in layers]
    theirs = {id(variable) for layer in layers for variable in (layer.moving_mean, layer.moving_variance)}
    others = [(variable, variable.numpy()) for variable in model.variables if id(variable) not in theirs]
    try:
        for done, batch in enumerate(batches):
            for layer in layers:
                layer.momentum = done / (done + 1)
            arrays = [tf.constant(array) for array in batch]
            model(arrays if len(arrays) > 1 else arrays[0], training=True)
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        for variable, value in others:
            variable.assign(value)
