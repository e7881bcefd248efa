"""A small photograph goes in (32×32×3), class probabilities come out: ResNet-8 as in MLPerf Tiny.

Three residual stacks of 16, 32 and 64 channels. After He et al., "Deep Residual Learning" (arXiv 1512.03385), in the
form of mlcommons/tiny, benchmark/training/image_classification/keras_model.py.
"""

from __future__ import annotations

from typing import Any

import training

from edgeopt.frameworks import load


def build(
    shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    *,
    width: float = 1.0,
    scale: float = 1 / 255,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` multiplies every layer's channels.

    Raises:
        ConfigError: `shape` is not that of an image (height, width, channels).
    """
    layers = load("keras").layers
    training.require_image(shape)

    def convolution(x: Any, filters: int, *, size: int = 3, strides: int = 1) -> Any:
        return layers.Conv2D(filters, size, strides=strides, padding="same", kernel_initializer="he_normal")(x)

    inputs = layers.Input(shape)
    x = convolution(training.rescaled(inputs, scale, offset), training.channels(16, width))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for base, strides in ((16, 1), (32, 2), (64, 2)):
        filters = training.channels(base, width)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(convolution(x, filters, strides=strides)))
        y = layers.BatchNormalization(momentum=0.9)(convolution(y, filters))
        shortcut = x if strides == 1 else convolution(x, filters, size=1, strides=strides)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    outputs = layers.Dense(classes, activation="softmax", kernel_initializer="he_normal")(
        layers.GlobalAveragePooling2D()(x)
    )
    return load("keras").Model(inputs, outputs, name="resnet8")


main = training.command(
    build,
    training.Training(epochs=40, learning_rate=4e-3, augment="image"),
    data="cifar10",
)

if __name__ == "__main__":
    main()
