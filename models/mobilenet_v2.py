"""A picture of 32 to 96 pixels or more goes in, class probabilities come out: MobileNetV2 with a width.

After Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv 1801.04381), table 2. The
published network divides height and width by 32, which leaves nothing of a small picture: here the first strides
fall away until the last feature map holds at least 3×3.
"""

from __future__ import annotations

from typing import Any

import training

from edgeopt.frameworks import load

# Expansion, channels, repeats, stride of the first repeat: the rows of the paper's table 2.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SMALLEST_MAP = 3


def strides_for(size: int) -> list[int]:
    """Returns the strides of the stem and of each stage for a picture of `size` pixels."""
    strides = [2, *(stage[3] for stage in STAGES)]
    for index, stride in enumerate(strides):
        if size >= SMALLEST_MAP * 2 ** strides.count(2):
            break
        strides[index] = 1 if stride == 2 else stride
    return strides


def build(
    shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    *,
    width: float = 0.35,
    scale: float = 1 / 255,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` is the paper's multiplier (its head stays at 1280 channels).

    Raises:
        ConfigError: `shape` is not that of an image (height, width, channels).
    """
    layers = load("keras").layers
    training.require_image(shape)

    def normalized(x: Any, layer: Any, *, activated: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=0.9)(layer(x))
        return layers.ReLU(6.0)(x) if activated else x

    def pointwise(filters: int) -> Any:
        return layers.Conv2D(filters, 1, use_bias=False)

    stem, *stage_strides = strides_for(min(shape[:2]))
    inputs = layers.Input(shape)
    x = training.rescaled(inputs, scale, offset)
    x = normalized(x, layers.Conv2D(training.channels(32, width), 3, strides=stem, padding="same", use_bias=False))
    for (expansion, base, repeats, _), first_stride in zip(STAGES, stage_strides):
        filters = training.channels(base, width)
        for strides in (first_stride, *[1] * (repeats - 1)):
            y = x if expansion == 1 else normalized(x, pointwise(expansion * x.shape[-1]))
            y = normalized(y, layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False))
            y = normalized(y, pointwise(filters), activated=False)
            x = layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
    x = normalized(x, pointwise(training.channels(1280, max(1.0, width))))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    outputs = layers.Dense(classes, activation="softmax")(x)
    return load("keras").Model(inputs, outputs, name="mobilenet_v2")


main = training.command(
    build,
    training.Training(epochs=40, learning_rate=4e-3, augment="image"),
    data="cifar10",
    width=0.35,
)

if __name__ == "__main__":
    main()
