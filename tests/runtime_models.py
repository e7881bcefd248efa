"""Small real models for the tests of runtimes: trained by nobody, converted by TensorFlow in one process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from edgeopt import frameworks, workers


@functools.cache
def models() -> dict[str, Path]:
    """Returns name to file: one net as float32, float16, dynamic, int8, int8-float-io; and lstm, mixing, two."""
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-runtime-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with workers.fresh() as worker:
        worker.call("runtime_models:build", folder, timeout_s=300)
    return {file.stem: file for file in folder.glob("*.tflite")}


def build(folder: Path) -> None:
    """Writes the models into `folder`; runs in a worker."""
    import numpy as np

    tf, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)
    samples = np.random.default_rng(0).standard_normal((32, 1, 8, 8, 1)).astype(np.float32)

    def write(name: str, model: object, **settings: object) -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        for key, value in settings.items():
            target = converter.target_spec if key.startswith("supported") else converter
            setattr(target, key, value)
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    picture = layers.Input((8, 8, 1), name="picture")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(picture)
    x = layers.DepthwiseConv2D(3, strides=2, activation="relu")(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    net = keras.Model(picture, layers.Dense(10, activation="softmax", name="kind")(x))
    optimize = [tf.lite.Optimize.DEFAULT]
    write("float32", net)
    write("float16", net, optimizations=optimize, supported_types=[tf.float16])
    write("dynamic", net, optimizations=optimize)
    calibrated = {
        "optimizations": optimize,
        "representative_dataset": lambda: ([sample] for sample in samples),
        "supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
    }
    write("int8-float-io", net, **calibrated)
    write("int8", net, **calibrated, inference_input_type=tf.int8, inference_output_type=tf.int8)

    steps = layers.Input((6, 4), batch_size=1, name="steps")
    write("lstm", keras.Model(steps, layers.Dense(3, name="sum")(layers.LSTM(5)(steps))))

    # The mean over the batch: a larger batch keeps every shape right, and no sample's result.
    rows = layers.Input((4,), name="rows")
    mean = layers.Lambda(lambda t: t - tf.reduce_mean(t, axis=0, keepdims=True))(rows)
    write("mixing", keras.Model(rows, mean))

    a, b = layers.Input((8,), name="a"), layers.Input((8,), name="b")
    write("two", keras.Model([a, b], [layers.Add(name="plus")([a, b]), layers.Subtract(name="minus")([a, b])]))
