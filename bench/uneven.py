"""Depthwise networks that one scale for a layer's weights ruins: a trained one goes in, the same function comes out.

    python -m bench.uneven ds_cnn.keras uneven.keras

What equalization brings is then known: all that int8 lost, since the network before was the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

# The largest factor over the smallest.
SPREAD = 1000.0


def main() -> None:
    """Writes a trained chain of convolutions, normalizations and ReLU with uneven channels."""
    from edgeopt import graph
    from edgeopt.loading import load_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    said = parser.parse_args()
    model = graph.flatten(load_model(said.model).keras)
    undo(model, SPREAD)
    model.save(said.output)


def mobilenet_v1(shape: tuple[int, int, int], classes: int, *, width: int = 16, blocks: int = 3) -> Any:
    """Returns an untrained tf_keras network like MobileNetV1: a convolution, then depthwise and 1x1 ones in turn."""
    from edgeopt.frameworks import load

    layers = load("tf_keras").layers

    def positive(x: Any, name: str) -> Any:
        """Normalizes x and cuts it off below zero."""
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x))

    x = inputs = layers.Input(shape, name="image")
    x = positive(layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(x), "conv")
    for block in range(1, blocks + 1):
        stride = 2 if block % 2 == 0 else 1
        depthwise = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"depthwise_{block}")
        width *= stride
        x = positive(depthwise(x), f"depthwise_{block}")
        x = positive(layers.Conv2D(width, 1, use_bias=False, name=f"point_{block}")(x), f"point_{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", name="scores")(x)
    return load("tf_keras").Model(inputs, outputs, name="mobilenet_v1")


def undo(model: Any, spread: float, seed: int = 0) -> None:
    """Multiplies each channel of a `mobilenet_v1` by a factor of its own, and divides the next layer's weights by it.

    Args:
        model: changed in place; it computes what it did.
        spread: the largest factor over the smallest.
        seed: of the factors, whose logarithms are spread evenly.
    """
    rng = np.random.default_rng(seed)
    last = None
    for layer in model.layers:
        kind = type(layer).__name__
        if last is not None and kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            factors = spread ** rng.uniform(-0.5, 0.5, last.gamma.shape[0])
            last.gamma.assign(last.gamma * factors)
            last.beta.assign(last.beta * factors)
            kernel = layer.get_weights()[0]
            axis = 0 if kind == "Dense" else 2
            shape = [-1 if a == axis else 1 for a in range(kernel.ndim)]
            layer.set_weights([kernel / factors.reshape(shape), *layer.get_weights()[1:]])
        if kind == "BatchNormalization":
            last = layer


if __name__ == "__main__":
    main()
