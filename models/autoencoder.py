"""A vector or image goes in and its reconstruction comes out: the dense autoencoder of MLPerf Tiny.

Trained on what is normal, it reconstructs the abnormal badly: anomaly detection. 640 → 128 ×4 → 8 → 128 ×4 → 640 with
BatchNorm, after DCASE 2020 task 2's baseline in the form of mlcommons/tiny,
benchmark/training/anomaly_detection/keras_model.py. Labels are not used: the target is the input.
"""

from __future__ import annotations

import math
from typing import Any

import training

from edgeopt.frameworks import load


def build(
    shape: tuple[int, ...] = (640,),
    classes: None = None,
    *,
    width: float = 1.0,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` multiplies the hidden layers' 128 units, the bottleneck keeps 8.

    The reconstruction is in the units of the input: what `scale` and `offset` do at the entry is undone at the exit.
    """
    layers = load("keras").layers
    hidden = training.channels(128, width)
    inputs = layers.Input(shape)
    x = training.rescaled(inputs, scale, offset)
    if len(shape) > 1:
        x = layers.Flatten()(x)
    for units in (hidden, hidden, hidden, hidden, 8, hidden, hidden, hidden, hidden):
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Dense(units)(x)))
    x = layers.Dense(math.prod(shape))(x)
    if len(shape) > 1:
        x = layers.Reshape(shape)(x)
    return load("keras").Model(inputs, training.rescaled(x, 1 / scale, -offset / scale), name="autoencoder")


main = training.command(build, training.Training(epochs=40), data="digits", aim=training.INPUT)

if __name__ == "__main__":
    main()
