"""Small Keras files for the tests of the command line and of the main job, built once in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeopt import data, frameworks

LAYERS = """
import keras


@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@keras.saving.register_keras_serializable("mine")
class Subclassed(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.flat = keras.layers.Flatten()
        self.kind = keras.layers.Dense(10, activation="softmax")

    def call(self, x):
        return self.kind(self.flat(x))
"""


def build(folder: Path) -> None:
    """Writes the models into `folder`; runs in a worker.

    digits.keras: trained on scikit-learn's digits, with a Dense layer large enough to be quantized per channel; as
    float.tflite too, which opens without TensorFlow.
    lambda.keras, gru.keras; twice.keras and subclassed.keras, whose code is layers.py; keras2.h5.
    """
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)

    picture = layers.Input((8, 8, 1), name="picture")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(picture)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    digits = keras.Model(picture, layers.Dense(10, activation="softmax", name="kind")(layers.Flatten()(x)))
    digits.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    samples = data.load("digits").training.arrays()
    digits.fit(samples.inputs["x"], samples.labels, epochs=3, batch_size=64, verbose=0)
    digits.save(folder / "digits.keras")
    converter = frameworks.load("tensorflow").lite.TFLiteConverter.from_keras_model(digits)
    (folder / "float.tflite").write_bytes(converter.convert())

    def classifier(inputs: object, x: object) -> object:
        return keras.Model(inputs, layers.Dense(10)(x))

    doubled = layers.Lambda(lambda t: 2 * t, name="doubled")(picture)
    classifier(picture, layers.Flatten()(doubled)).save(folder / "lambda.keras")
    steps = layers.Input((8, 8), name="steps")
    classifier(steps, layers.GRU(4)(steps)).save(folder / "gru.keras")

    (folder / "layers.py").write_text(LAYERS)
    own: dict[str, object] = {}
    exec(LAYERS, own)
    classifier(picture, layers.Flatten()(own["Twice"]()(picture))).save(folder / "twice.keras")  # type: ignore[operator]
    subclassed = own["Subclassed"]()  # type: ignore[operator]
    subclassed(np.zeros((1, 8, 8, 1), np.float32))
    subclassed.save(folder / "subclassed.keras")

    old = tf_keras.layers
    tf_keras.Sequential([old.Input((8, 8, 1)), old.Flatten(), old.Dense(10)]).save(folder / "keras2.h5")
