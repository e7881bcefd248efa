"""The technique: it trains from calibrated ranges, keeps what earlier steps gave, and measures it in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import accuracy, facts_of

from edgeopt import data, formats, frameworks, graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.errors import ConfigError
from edgeopt.evaluation import evaluate
from edgeopt.fake_quantization import save_fake_quantized
from edgeopt.loading import load_model
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.schemes import scheme
from edgeopt.techniques import qat
from edgeopt.techniques.contract import Carried
from edgeopt.vocabulary import Promise, Property, StepRecord

tf_keras = frameworks.load("tf_keras")
L = tf_keras.layers
STEP = qat.QAT(epochs=1, learning_rate=1e-4)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def model(digits: data.Dataset) -> Any:
    tf_keras.utils.set_random_seed(1)
    image = tf_keras.Input((8, 8, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(12, 3, use_bias=False, name="conv")(image)))
    x = L.Conv2D(16, 1, activation="relu", name="pointwise")(x)
    net = tf_keras.Model(image, L.Dense(10, activation="softmax", name="head")(L.Flatten()(x)))
    batch = digits.training.arrays()
    net.compile(tf_keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    net.fit(batch.inputs["x"], batch.labels, batch_size=32, epochs=2, verbose=0)
    return net


def _file(quantized: Any, digits: data.Dataset, folder: Path, name: str = "int8") -> Path:
    save_fake_quantized(quantized, folder / "model")
    converter = Converter(load_model(folder / "model"), ConvertOptions(calibration=digits.calibration))
    (folder / f"{name}.tflite").write_bytes(converter.to_bytes(scheme(name)))
    return folder / f"{name}.tflite"


def test_the_file_scores_what_the_trained_model_scores(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    before = [w.copy() for w in model.get_weights()]
    quantized, record = qat.apply(STEP, model, digits, Carried(tmp_path))
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert record.technique == "qat"
    assert len(record.history) == 1
    file = _file(quantized, digits, tmp_path)
    values = [accuracy(one, digits.validation) for one in (model, quantized)]
    values.append(evaluate(file, digits.validation).metric.value)
    # Digits are easy, the file may differ from its simulation in two of 359 samples.
    assert min(values) > 0.85
    assert values[1] >= values[0] - 0.02
    assert abs(values[2] - values[1]) <= 2 / 359
    (promise,) = qat.check(STEP, record, formats.facts(file))
    assert promise.kept


def _coarse(model: Any) -> Any:
    """The model with half of its weights zero and few values in the rest."""
    coarse = graph.flatten(model)
    for layer in coarse.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            step = np.quantile(np.abs(kernel), 0.5) * 2
            layer.kernel.assign(np.clip(np.round(kernel / step), -4, 4) * step)
    return coarse


@pytest.mark.parametrize(
    "properties",
    [{Property.SPARSE}, {Property.CLUSTERED}, {Property.SPARSE, Property.CLUSTERED}],
)
def test_zeros_and_clusters_are_kept_in_the_file(
    properties: set[Property], model: Any, digits: data.Dataset, tmp_path: Path
) -> None:
    carried = Carried(tmp_path, frozenset(properties), original=model)
    quantized, record = qat.apply(STEP, _coarse(model), digits, carried)
    measured = qat.check(STEP, record, formats.facts(_file(quantized, digits, tmp_path)))
    # One for integers, and one for each property of three kernels.
    assert len(measured) == 1 + 3 * len(properties)
    assert all(promise.kept for promise in measured), measured


def test_an_unknown_layer_is_refused_with_a_suggestion(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'pointwize', which no layer of the model has.*pointwise"):
        qat.apply(qat.QAT(spare=("pointwize",)), model, digits, Carried(tmp_path))


def test_a_broken_promise_is_seen(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    converter = Converter(_loaded(model, tmp_path), ConvertOptions(calibration=digits.calibration))
    file = facts_of(converter.to_bytes(scheme("int8")))
    record = StepRecord(
        "qat",
        promises=(
            Promise("kinds of operators that compute in floats", limit=0),
            Promise("zeros", "head/kernel", limit=5700, bound="least", of=5760),
            Promise("distinct weights in a channel", "head/kernel", limit=2, of=5760),
        ),
    )
    assert [promise.kept for promise in qat.check(STEP, record, file)] == [True, False, False]
    in_float = qat.check(STEP, record, facts_of(converter.to_bytes(scheme("float32"))))
    assert in_float[0].kept is None
    assert in_float[0].note == "a float file"


def _loaded(model: Any, folder: Path) -> Any:
    model.save(folder / "plain.h5")
    return load_model(folder / "plain.h5")


def test_the_prediction_promises_no_more_than_int8() -> None:
    from collections import Counter

    weights = (WeightFacts("dense", 100, 100, 100, 10),)
    told = qat.predict(STEP, ModelFacts("", "", 400, 110, 2, 0.0, weights, Counter({"Dense": 1, "LSTM": 1})))
    assert told.gain.startswith("size and speed of int8, with less loss of accuracy")
    assert "LSTM (1 layer)" in told.reason
