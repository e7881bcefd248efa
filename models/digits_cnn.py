"""Handwritten digits go in (8×8×1), ten probabilities come out: a small residual network with something to compress.

It holds what compression meets in the field: plain, depthwise and pointwise convolutions, BatchNorm, residual adds
with and without a convolution on the way past, global pooling and a dense head. `python models/digits_cnn.py
-o models/digits.keras` trains it on scikit-learn's digits in some seconds.
"""

from __future__ import annotations

from typing import Any

import training

from edgeopt.frameworks import load


def build(
    shape: tuple[int, ...] = (8, 8, 1),
    classes: int = 10,
    *,
    width: float = 1.0,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` multiplies every layer's channels.

    Raises:
        ConfigError: `shape` is not that of an image (height, width, channels).
    """
    layers = load("keras").layers
    training.require_image(shape)
    narrow, wide = training.channels(32, width), training.channels(48, width)

    def convolution(x: Any, filters: int, size: int, *, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = layers.Input(shape)
    x = layers.ReLU()(convolution(training.rescaled(inputs, scale, offset), narrow, 3))

    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = convolution(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y)), narrow, 1)
    x = layers.ReLU()(layers.Add()([x, y]))

    y = convolution(layers.ReLU()(convolution(x, wide, 3, strides=2)), wide, 3)
    x = layers.ReLU()(layers.Add()([convolution(x, wide, 1, strides=2), y]))

    outputs = layers.Dense(classes, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return load("keras").Model(inputs, outputs, name="digits_cnn")


main = training.command(build, training.Training(epochs=10, learning_rate=8e-3, augment="shift"), data="digits")

if __name__ == "__main__":
    main()
