"""Small models, digits and conversions for the tests of prune and cluster."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import data, formats, graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Dataset, Part
from edgeopt.formats.contract import FileFacts
from edgeopt.frameworks import load
from edgeopt.loading import LoadedModel
from edgeopt.schemes import SCHEMES
from edgeopt.vocabulary import TensorSpec


def digits(samples: int = 320) -> Dataset:
    """scikit-learn's digits [8, 8, 1], so many of them to train on."""
    found = data.load("digits")
    return replace(found, training=found.training.head(samples), calibration=found.calibration.head(50))


def cnn() -> Any:
    """A small untrained CNN: convolution and normalization, a depthwise and a 1x1 convolution, two Dense layers."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 16)(x)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="depth")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="point")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="scores")(x), name="small")


def loaded_of(model: Any) -> LoadedModel:
    """The tf_keras model at hand as one that was loaded."""
    inputs, outputs = (
        tuple(TensorSpec(name, tuple(tensor.shape), graph.dtype_name(tensor)) for name, tensor in named)
        for named in (graph.input_names(model), graph.output_names(model))
    )
    return LoadedModel(Path("model.keras"), "keras2", inputs, outputs, model)


def converted(model: Any, scheme: str, dataset: Dataset) -> FileFacts:
    """What the model holds as a `.tflite` in `scheme`."""
    content = Converter(loaded_of(model), ConvertOptions(calibration=dataset.calibration)).to_bytes(SCHEMES[scheme])
    return facts_of(content)


def facts_of(content: bytes) -> FileFacts:
    """What a `.tflite` at hand holds; its file stays as long as the tests run."""
    file = _folder() / f"{hashlib.sha256(content).hexdigest()}.tflite"
    file.write_bytes(content)
    return formats.facts(file)


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-facts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def accuracy(model: Any, part: Part) -> float:
    """The share of samples whose largest output is that of their class, as Keras computes it."""
    samples = part.arrays()
    (x,) = samples.inputs.values()
    return float((np.asarray(model.predict_on_batch(x)).argmax(axis=1) == samples.labels).mean())


def sparsity(kernel: Any) -> float:
    """Share of zeros of a variable."""
    values = np.asarray(kernel)
    return 1 - np.count_nonzero(values) / values.size
