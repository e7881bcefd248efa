"""Models with constructed weights whose int8 files lose something, and some that lose nothing; converted once."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import data, frameworks, workers
from edgeopt.data import Part

SAMPLES = 400
INT8 = ("float32", "int8")
# What the three targets are multiplied with, and added to, in the models of the same names.
TARGETS = {
    "standard": ((1, 1, 1), (0, 0, 0)),
    "targets": ((1000, 1, 0.01), (0, 0, 0)),
    "offset": ((1, 1, 1), (250, 0, 0)),
    "overflowing": ((1, 1, 1), (0, 1e5, 0)),
    "constant": ((1, 0, 1), (0, 7, 0)),
}
# Mean and deviation of each column; what the model makes of the columns is the same.
COLUMNS = {
    "columns": ((5000, 0.02, -40), (300, 0.004, 8)),
    "mild": ((500, 3, -40), (300, 2, 8)),
    "normalized": ((0, 0, 0), (1, 1, 1)),
}
SCHEMES = {
    "heads": ("float32", "int8", "int8-float-io", "int16x8", "dynamic", "float16"),
    "unseen": ("float32", "int8"),
    "columns": ("float32", "int8", "int8-float-io", "dynamic"),
    "mild": ("float32", "int8", "int16x8"),
    "normalized": ("float32", "int8"),
    "picture": ("float32", "int8"),
}


@functools.cache
def models() -> Path:
    """Returns the folder of NAME.SCHEME.tflite; see `build`."""
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-fidelity-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with workers.Worker() as worker:
        worker.call("fidelity_models:build", folder, timeout_s=300)
    return folder


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Returns seeded numbers of deviation 1."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def part(x: np.ndarray, y: np.ndarray | None = None) -> Part:
    """Returns samples to validate with."""
    return data.load((x,) if y is None else (x, y), validation_share=1).validation


def columns(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and classes of a model of COLUMNS: the second column decides nearly alone."""
    z, (mean, deviation) = normal(SAMPLES, 3), COLUMNS[name]
    return (z * deviation + mean).astype(np.float32), (z @ np.array([0.3, 1, -0.3]) > 0).astype(np.int64)


def regression(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets of a model of TARGETS, the targets with a noise of a tenth."""
    x, (factors, offsets) = normal(SAMPLES, 8), TARGETS[name]
    noisy = _three(x) + 0.1 * normal(SAMPLES, 3, seed=3)
    return x, (noisy * factors + offsets).astype(np.float32)


def _three(x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ _HIDDEN, 0) @ _LAST


_HIDDEN = normal(8, 32, seed=1) / np.sqrt(8).astype(np.float32)
_LAST = normal(32, 3, seed=2) / np.sqrt(32 / 3).astype(np.float32)


def build(folder: Path) -> None:
    """Converts every model of SCHEMES; runs in a worker.

    heads: an output for each row of TARGETS; "small", the last of "targets" by itself; "unit", "pixels" and
    "pixels_first", 16 boxes of 4 beside 3 scores, with boxes from 0 to 1 or 300; "boxes" and "scores" by themselves;
    "rare", sigmoids that hardly ever rise; "logits". unseen: the same, calibrated on samples of a sixth of the spread.
    picture: an autoencoder, some of whose pixels hardly change. The others are those of COLUMNS. layouts, in float32
    alone: see `_layouts`. targets.h5: that output by itself.
    """
    from edgeopt.conversion.converter import ConvertOptions, open_converter

    keras = frameworks.load("tf_keras")
    layers = keras.layers
    x, row, picture = layers.Input((8,), name="x"), layers.Input((3,), name="row"), layers.Input((64,), name="picture")

    def dense(before: Any, kernel: Any, bias: Any = 0.0, **options: Any) -> Any:
        layer = layers.Dense(kernel.shape[1], **options)
        after = layer(before)
        layer.set_weights([kernel, np.broadcast_to(np.asarray(bias, np.float32), kernel.shape[1:])])
        return after

    hidden = dense(x, _HIDDEN, activation="relu")
    heads = {name: dense(hidden, _LAST * by, plus, name=name) for name, (by, plus) in TARGETS.items()}
    heads["small"] = dense(hidden, _LAST[:, 2:] * TARGETS["targets"][0][2], name="small")

    # A layer that is there twice would be made one, and what one output does to its scale the other would have.
    def boxes(size: float) -> Any:
        return layers.Reshape((16, 4))(dense(hidden, normal(32, 64, seed=6) * size / 60, size / 2))

    def scores(bias: float) -> Any:
        return layers.Reshape((16, 3))(dense(hidden, normal(32, 48, seed=5), bias, activation="sigmoid"))

    joined = layers.Concatenate(name="pixels")
    heads["unit"] = layers.Concatenate(name="unit")([boxes(1), scores(-2.1)])
    heads["pixels"] = joined([boxes(300), scores(-1.9)])
    heads["pixels_first"] = layers.Permute((2, 1), name="pixels_first")(heads["pixels"])
    heads["boxes"] = layers.Activation("linear", name="boxes")(boxes(320))
    heads["scores"] = layers.Activation("linear", name="scores")(scores(-2))
    heads["rare"] = dense(
        hidden, normal(32, 14, seed=7) / 6, np.linspace(0, -12, 14), activation="sigmoid", name="rare"
    )
    heads["logits"] = dense(hidden, normal(32, 10, seed=4), name="logits")
    made = {"heads": keras.Model(x, heads), "unseen": keras.Model(x, heads)}
    for name, (mean, deviation) in COLUMNS.items():
        scaled = layers.Normalization(mean=mean, variance=np.square(deviation))(row)
        kernel = 4 * np.array([[-0.3, 0.3], [-1, 1], [0.3, -0.3]])
        made[name] = keras.Model(row, dense(scaled, kernel, activation="softmax", name="kind"))
    still = np.where(np.arange(64) % 8 < 6, 1, 1e-4)
    made["picture"] = keras.Model(picture, dense(picture, normal(64, 64, seed=8) / 8 * still, name="again"))

    keras.Model(x, heads["targets"]).save(folder / "targets.h5")
    for name, schemes in SCHEMES.items():
        samples = columns(name)[0] if name in COLUMNS else normal(SAMPLES, *made[name].input_shape[1:])
        calibration = part((samples / 6 if name == "unseen" else samples)[:200])
        made[name].save(folder / f"{name}.h5")
        converter = open_converter(folder / f"{name}.h5", ConvertOptions(calibration=calibration))
        for scheme in schemes:
            converter.convert(scheme, folder / f"{name}.{scheme}.tflite")
    (folder / "layouts.float32.tflite").write_bytes(_layouts())


def _layouts() -> bytes:
    """Returns a file that takes [1, 32, 7] and joins boxes and scores as detectors do.

    anchors: sigmoids, of which the boxes are scaled, for two sizes of anchors one after the other. channels: boxes and
    scores joined along the first axis. stacked: two numbers, the second a sigmoid. nested: scores joined first.
    whole: sigmoids alone. flat: joined along an axis that is none of the output.
    """
    tf = frameworks.load("tensorflow")

    def detected(some: Any) -> Any:
        centres, sizes, scores = tf.split(tf.sigmoid(some), (2, 2, 3), axis=-1)
        return tf.concat([centres * 320, tf.square(sizes) * 80, scores], -1)

    def joined(raw: Any) -> dict[str, Any]:
        turned = tf.transpose(raw, (0, 2, 1))
        scores = tf.concat([tf.sigmoid(raw[..., :2]), tf.nn.softmax(raw[..., 2:])], -1)
        return {
            "anchors": tf.concat([tf.reshape(detected(raw[:, :16]), (1, 16, 7)), detected(2 * raw[:, 16:])], 1),
            "channels": tf.concat([turned[:, :4] * 320, tf.sigmoid(turned[:, 4:])], 1),
            "stacked": tf.stack([raw[..., 0] * 3, tf.sigmoid(raw[..., 1])], -1),
            "nested": tf.reshape(tf.concat([raw * 9, scores], -1), (1, 4, 8, 14)),
            "whole": tf.reshape(tf.sigmoid(raw * 2), (1, 4, 56)),
            "flat": tf.reshape(tf.concat([raw * 7, tf.sigmoid(raw)], -1), (1, 448)),
        }

    function = tf.function(joined, input_signature=[tf.TensorSpec((1, 32, 7), name="raw")])
    module = tf.Module()
    module.joined = function
    module_folder = tempfile.mkdtemp()
    tf.saved_model.save(module, module_folder, signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(module_folder)
    return bytes(converter.convert())
