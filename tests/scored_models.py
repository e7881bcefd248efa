"""Small real models with something to score, trained and converted once in a process of their own."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from edgeopt import data, frameworks, workers
from edgeopt.data import Dataset


@functools.cache
def models() -> dict[str, Path]:
    """Returns name to file: see `build`."""
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-scored-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with workers.Worker() as worker:
        worker.call("scored_models:build", folder, timeout_s=300)
    return {file.stem: file for file in folder.iterdir()}


@functools.cache
def digits() -> Dataset:
    """Scikit-learn's digits; 359 validate."""
    return data.load("digits")


@functools.cache
def even_digits() -> Dataset:
    """The same with 1 for the even ones."""
    part = digits().validation.arrays()
    return data.load((part.inputs["x"], (part.labels % 2 == 0).astype(np.int64)), validation_share=1)


def build(folder: Path) -> None:
    """Writes into `folder`; runs in a worker.

    net: digits, in float32, int8 and int8 with float I/O, and as keras2.h5. bad: the same function with weights that
    leave nothing of it in int8. even: one sigmoid; logit: the same without it. autoencoder. heads: two outputs.
    stuck: a graph for batch 1 alone.
    """
    tf, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)
    training = digits().training.arrays()
    x, y = training.inputs["x"], training.labels

    def write(name: str, model: object, *, float_io: bool = False, integer: bool = True) -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if integer:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([sample[None]] for sample in x[:64])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            if not float_io:
                converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def trained(outputs: object, loss: str, targets: object, *, epochs: int = 1) -> object:
        model = keras.Model(picture, outputs)
        model.compile("adam", loss)
        model.fit(x, targets, epochs=epochs, batch_size=16, verbose=0)
        return model

    picture = layers.Input((8, 8, 1), name="picture")

    def body() -> object:
        deep = layers.Conv2D(8, 3, padding="same", activation="relu", name="early")(picture)
        deep = layers.Conv2D(8, 3, strides=2, activation="relu", name="middle")(deep)
        return layers.Dense(16, activation="relu", name="late")(layers.Flatten()(deep))

    net = trained(
        layers.Dense(10, activation="softmax", name="kind")(body()), "sparse_categorical_crossentropy", y, epochs=3
    )
    write("net-float32", net, integer=False)
    write("net-int8", net)
    write("net-int8-float-io", net, float_io=True)
    net.save(folder / "keras2.h5")

    # One channel of "middle" dwarfs the others, and the weights of "late" make up for it: the same outputs in float,
    # and nothing left of the other channels in int8.
    kernel, bias = net.get_layer("middle").get_weights()
    after, after_bias = net.get_layer("late").get_weights()
    after = after.reshape(9, 8, 16)
    net.get_layer("middle").set_weights([kernel * np.array([1000] + [1] * 7), bias * np.array([1000] + [1] * 7)])
    after = after * np.array([0.001] + [1] * 7)[:, None]
    net.get_layer("late").set_weights([after.reshape(72, 16), after_bias])
    write("bad-float32", net, integer=False)
    write("bad-int8", net)

    even = (y % 2 == 0).astype(np.float32)
    sigmoid = trained(layers.Dense(1, activation="sigmoid", name="even")(body()), "binary_crossentropy", even)
    write("even-float32", sigmoid, integer=False)
    write("even-int8", sigmoid)
    logit = keras.Model(sigmoid.input, layers.Dense(1, name="logit")(sigmoid.layers[-2].output))
    logit.get_layer("logit").set_weights(sigmoid.get_layer("even").get_weights())
    write("logit-float32", logit, integer=False)

    flat = layers.Dense(12, activation="relu")(layers.Flatten()(picture))
    back = layers.Reshape((8, 8, 1), name="back")(layers.Dense(64)(flat))
    write("autoencoder-float32", trained(back, "mse", x), integer=False)

    heads = keras.Model(net.input, {"kind": net.output, "feature": net.get_layer("late").output})
    write("heads-float32", heads, integer=False)

    one = layers.Input((8, 8, 1), batch_size=1, name="picture")
    stuck = keras.Model(one, layers.Lambda(lambda t: tf.reshape(t, (1, 64))[:, :10], name="cut")(one))
    write("stuck-float32", stuck, integer=False)
