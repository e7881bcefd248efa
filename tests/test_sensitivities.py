"""What a model loses by one layer alone: the numbers are those of models that were changed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeopt
from edgeopt import data, graph
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.fake_quantization import Switched, prepare
from edgeopt.frameworks import load
from edgeopt.loading import load_model
from edgeopt.sensitivities import INT8, measure

CHANGES = (INT8, "50%", "90%")


@pytest.fixture(scope="module")
def found(digits_model: Path) -> Any:
    return measure(digits_model, data.load("digits"), sparsities=(0.5, 0.9))


@pytest.fixture(scope="module")
def model(digits_model: Path) -> Any:
    return graph.flatten(load_model(digits_model).keras)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    (values,) = data.load("digits").validation.arrays().inputs.values()
    return values


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


def sqnr_db(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(before.var() / np.square(before - after).mean()))


def alike(a: Any, b: np.ndarray) -> float:
    """Returns the share of values that are alike: the last bit decides which way some are rounded."""
    return float(np.isclose(a, b, atol=1e-5).mean())


def test_every_layer_with_kernels_is_there_and_what_hands_on_in_int8(found: Any, model: Any) -> None:
    assert found.changes == CHANGES
    with_kernels = {layer.layer for layer in found.layers if "90%" in layer.losses}
    assert with_kernels == {one.name for one in model.layers if any("kernel" in w.name for w in one.weights)}
    for layer in found.layers:
        assert set(layer.losses) in ({*CHANGES}, {INT8})
        assert (layer.weights > 0) == ("90%" in layer.losses)
    order = [call.layer.name for call in graph.own_calls(model)]
    assert [layer.layer for layer in found.layers] == sorted((one.layer for one in found.layers), key=order.index)


def test_zeros_cost_what_they_cost_by_hand(found: Any, model: Any, x: np.ndarray) -> None:
    layer = max(found.layers, key=lambda one: one.weights)
    before = answers(model, x)
    kernel = model.get_layer(layer.layer).kernel
    values = kernel.numpy()
    smallest = np.sort(np.abs(values).ravel())[round(0.9 * values.size) - 1]
    kernel.assign(np.where(np.abs(values) <= smallest, 0, values))
    after = answers(model, x)
    kernel.assign(values)
    labels = data.load("digits").validation.arrays().labels
    scores = [100 * (outputs.argmax(1) == labels).mean() for outputs in (before, after)]
    assert found.samples == len(x)
    assert found.metric.value == pytest.approx(scores[0] / 100)
    # Samples are asked in another order, which changes the last bits.
    assert layer.losses["90%"].sqnr_db == pytest.approx(sqnr_db(before, after), abs=0.01)
    assert layer.losses["90%"].drop == pytest.approx(scores[0] - scores[1])
    assert layer.losses["90%"].sqnr_db < layer.losses["50%"].sqnr_db


def test_switches_turn_the_rounding_of_weights_and_of_what_is_handed_on(model: Any, x: np.ndarray) -> None:
    tf = load("tensorflow")
    prepared = prepare(model, [[x[:100]]]).model
    switched = Switched(prepared)
    run = tf.function(switched)
    last = model.layers[-1].name
    assert last in switched.switches
    np.testing.assert_allclose(run(x)[0], answers(model, x), atol=1e-5)
    for switch in switched.switches.values():
        switch.assign(1.0)
    assert alike(answers(model, x), answers(prepared, x)) < 0.75
    assert alike(run(x)[0], answers(prepared, x)) > 0.85
    for switch in switched.switches.values():
        switch.assign(0.0)
    switched.switches[last].assign(1.0)
    spared = {layer.name for layer in model.layers} - {last}
    alone = prepare(model, [[x[:100]]], spared=spared).model
    assert alike(run(x)[0], answers(alone, x)) > 0.85


def test_a_layer_that_int8_cannot_hold_is_the_worst_one(tmp_path: Path, x: np.ndarray) -> None:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    y = keras.layers.Dense(32, "relu", name="good")(inputs)
    y = keras.layers.Dense(32, "relu", name="bad")(y)
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax", name="last")(y))
    # A row that meets nothing but zeros takes the whole range of each channel.
    first, second = model.get_layer("good"), model.get_layer("bad")
    first.set_weights([np.where(np.arange(32) == 0, 0, first.kernel.numpy()), np.zeros(32)])
    rows = second.kernel.numpy()
    rows[0] = 1000 * np.abs(rows).max()
    second.set_weights([rows, np.zeros(32)])
    model.save(tmp_path / "model.h5")
    flat = {"x": x.reshape(len(x), -1), "y": data.load("digits").validation.arrays().labels}
    found = edgeopt.sensitivity(tmp_path / "model.h5", flat, sparsities=(0.5,))
    worst = found.worst(INT8)
    assert worst is not None
    assert worst.layer == "bad"
    assert worst.losses[INT8].sqnr_db < 10
    assert all(layer.losses[INT8].sqnr_db > 25 for layer in found.layers if layer.layer != "bad")
    assert found.worst("77%") is None


def test_without_labels_there_is_no_drop(digits_model: Path, x: np.ndarray) -> None:
    found = measure(digits_model, data.load({"x_train": x, "x_test": x}), sparsities=(0.5,), samples=64)
    assert (found.metric, found.samples) == (None, 64)
    assert all(loss.drop is None for layer in found.layers for loss in layer.losses.values())
    assert all(math.isfinite(loss.sqnr_db) for layer in found.layers for loss in layer.losses.values())


def test_several_inputs_and_outputs_are_asked_together(tmp_path: Path) -> None:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(8, "relu", name="wide")(left), right])
    outputs = [keras.layers.Dense(2, name=name)(joined) for name in ("sum", "difference")]
    keras.Model([left, right], outputs).save(tmp_path / "model.h5")
    rng = np.random.default_rng(0)
    values = {
        f"x_{part}_{name}": rng.random((40, size), np.float32)
        for part in ("train", "test")
        for name, size in (("left", 4), ("right", 3))
    }
    found = measure(tmp_path / "model.h5", data.load(values))
    assert {layer.layer for layer in found.layers} >= {"wide", "sum", "difference"}
    assert found.metric is None


def test_what_cannot_be_measured_is_refused_in_words(digits_model: Path, tmp_path: Path) -> None:
    digits = data.load("digits")
    with pytest.raises(ConfigError, match=r"Expected sparsities between 0 and 1, got 1\. Try --sparsity 0\.5"):
        measure(digits_model, digits, sparsities=(1.0,))
    edgeopt.convert(digits_model, tmp_path / "float.tflite", scheme="float32")
    with pytest.raises(
        ModelError, match=r"whose layers can be changed one by one, got .*float\.tflite \(.*holds operators.*\)\. Try"
    ):
        measure(tmp_path / "float.tflite", digits)
    nobody = replace(digits, validation=digits.validation.head(0))
    with pytest.raises(DataError, match=r"Expected samples to ask the model about, got none\. Try data with a test"):
        measure(digits_model, nobody)
