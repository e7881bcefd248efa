"""Small real models for the tests of runtimes: trained by nobody, converted by TensorFlow in one process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from edgeopt import frameworks, workers


@functools.cache
def models() -> dict[str, Path]:
    """Returns name to file: one net in float32, float16, dynamic, int8, int8-float-io; any-size, lstm …; `_ring`s."""
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-runtime-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with workers.Worker() as worker:
        worker.call("runtime_models:build", folder, timeout_s=300)
    return {file.stem: file for file in folder.glob("*.tflite")}


def build(folder: Path) -> None:
    """Writes the models into `folder`; runs in a worker."""
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

    for name, guarded in (("ring", False), ("ring-in-a-branch", True)):
        module = _ring(guarded=guarded)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.step.get_concrete_function()], module)
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    steps = layers.Input((6, 4), batch_size=1, name="steps")
    write("lstm", keras.Model(steps, layers.Dense(3, name="sum")(layers.LSTM(5)(steps))))

    # The mean over the batch: a larger batch keeps every shape right, and no sample's result.
    rows = layers.Input((4,), name="rows")
    mean = layers.Lambda(lambda t: t - tf.reduce_mean(t, axis=0, keepdims=True))(rows)
    write("mixing", keras.Model(rows, mean))

    # Steps come first, and there is one sample: [time, 1, features].
    frames = layers.Input((1, 4), batch_size=5, name="frames")
    write("time-major", keras.Model(frames, layers.Lambda(lambda t: tf.cumsum(t, axis=0))(frames)))

    # Any height and width, as of super-resolution.
    any_size = layers.Input((None, None, 3), name="photo")
    sharper = layers.Conv2D(3, 3, name="sharper")(any_size)
    write("any-size", keras.Model(any_size, layers.UpSampling2D(name="larger")(sharper)))

    a, b = layers.Input((8,), name="a"), layers.Input((8,), name="b")
    write("two", keras.Model([a, b], [layers.Add(name="plus")([a, b]), layers.Subtract(name="minus")([a, b])]))


RING_START, RING_FACTORS = 5.0, [1, 2, 4, 8, 16, 32]


def _ring(*, guarded: bool) -> object:
    """Returns a streaming model's ring buffer: the last three frames of two values are its state.

    Its output from a fresh state is `ring_output`; a guarded one writes its state in a branch, a graph of its own.
    """
    tf = frameworks.load("tensorflow")

    class Ring(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.buffer = tf.Variable(tf.fill((1, 3, 2), RING_START))

        @tf.function(input_signature=[tf.TensorSpec((1, 1, 2), tf.float32, name="frame")])
        def step(self, frame: object) -> object:
            window = tf.concat([self.buffer[:, 1:], frame], axis=1)
            if not guarded or tf.reduce_sum(frame) > 0:
                self.buffer.assign(window)
            return {"scaled": tf.reshape(window, (1, 6)) * tf.constant(RING_FACTORS, tf.float32)}

    return Ring()


def ring_output(frames: np.ndarray) -> np.ndarray:
    """Returns what `ring` computes of frames [N, 1, 2], each in a fresh state: [N, 6], exactly."""
    before = np.full((len(frames), 2, 2), RING_START, np.float32)
    return np.concatenate([before, frames], axis=1).reshape(-1, 6) * np.array(RING_FACTORS, np.float32)
