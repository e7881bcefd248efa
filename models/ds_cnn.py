"""A spectrogram goes in (49×10×1 or wider), keyword probabilities come out: DS-CNN as in MLPerf Tiny.

A convolution over time and frequency, then four depthwise-separable blocks of 64 channels. More than 10 bands are
read in wider steps, so that the maps stay near the published size. After Zhang et al.,
"Hello Edge: Keyword Spotting on Microcontrollers" (arXiv 1711.07128), in the form of mlcommons/tiny,
benchmark/training/keyword_spotting/keras_model.py.
"""

from __future__ import annotations

from typing import Any

import training

from edgeopt.frameworks import load


def build(
    shape: tuple[int, ...] = (49, 10, 1),
    classes: int = 12,
    *,
    width: float = 1.0,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` multiplies the 64 channels of every layer.

    Raises:
        ConfigError: `shape` is not that of a spectrogram (frames, bands, channels).
    """
    layers = load("keras").layers
    training.require_image(shape)
    filters = training.channels(64, width)
    step = max(2, shape[1] // 10)

    def activated(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    inputs = layers.Input(shape)
    x = training.rescaled(inputs, scale, offset)
    x = activated(layers.Conv2D(filters, (10, 2 * step), strides=(2, step), padding="same", use_bias=False)(x))
    x = layers.Dropout(0.2)(x)
    for _ in range(4):
        x = activated(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        x = activated(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.4)(x))
    outputs = layers.Dense(classes, activation="softmax")(x)
    return load("keras").Model(inputs, outputs, name="ds_cnn")


main = training.command(build, training.Training(epochs=30, learning_rate=4e-3, augment="spectrogram"))

if __name__ == "__main__":
    main()
