"""What a model loses by one layer alone: the numbers are those of files and models that were changed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import edgeopt
from edgeopt import data as datasets
from edgeopt import graph
from edgeopt.carry_out import carry_out
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.frameworks import load
from edgeopt.loading import load_model
from edgeopt.recipe import Recipe, steps_from
from edgeopt.repairing import closeness
from edgeopt.repairing.holding_out import divided
from edgeopt.report.heat import page
from edgeopt.rounding.losses import SAMPLES
from edgeopt.sensitivities import chosen, decibel, measure
from edgeopt.vocabulary import LayerLosses, Sensitivity, Variant
from edgeopt.workspace import Workspace

CHOICES = ("int8", "int4", "int16", "float", "90% zeros", "50% width")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sensitivities")


@pytest.fixture(scope="module")
def found(digits_model: Path, folder: Path) -> Sensitivity:
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        return measure(workspace, chosen(sparsities=(0.9,)), exact=1)


def _of(found: Sensitivity, layer: str) -> LayerLosses:
    return next(one for one in found.layers if one.layer == layer)


def test_every_layer_is_there_with_what_means_something_for_it(found: Sensitivity, digits_model: Path) -> None:
    assert found.choices == CHOICES
    model = graph.flatten(load_model(digits_model).keras)
    with_kernels = [layer.name for layer in model.layers if hasattr(layer, "kernel") or "depthwise" in layer.name]
    assert {one.layer for one in found.layers if one.weights} == set(with_kernels)
    order = [layer.name for layer in model.layers]
    named = [one.layer for one in found.layers if one.layer in order]
    assert named == sorted(named, key=order.index)
    for one in found.layers:
        assert set(one.losses) >= {"int8", "int4", "int16", "float"}
        assert ("90% zeros" in one.losses) == (one.weights > 0)
    # Nobody narrows what decides between the classes.
    assert "50% width" not in _of(found, "kind").losses
    assert "50% width" in _of(found, "conv2d").losses


def test_all_layers_in_int8_lose_what_the_int8_file_loses(found: Sensitivity, digits_model: Path, folder: Path) -> None:
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        files = [_file(folder, workspace.converted(workspace.original, name)) for name in ("float32", "int8")]
        part = workspace.data.calibration.take(SAMPLES, seed=0)
    _, held = divided(part, "this test")
    errors = closeness.errors(closeness.reference(files[0], held), files[1], held)
    assert found.together["int8"].sqnr_db == pytest.approx(decibel(float(errors.mean())), abs=1.5)
    assert found.together["int8"] == found.together["float"]


def _file(folder: Path, variant: Variant) -> Path:
    return folder / str(variant.file)


def test_more_is_lost_by_fewer_bits_and_less_by_wide_activations(found: Sensitivity) -> None:
    for one in found.layers:
        losses = {choice: loss.sqnr_db for choice, loss in one.losses.items()}
        # Of a few layers the integers that are fitted lose less with four bits than the nearest with eight.
        assert losses["int4"] < losses["int8"] + 6
        if not one.weights:
            # Nothing but what it writes is rounded, to 256 times as many steps: 48 dB.
            assert losses["int4"] == losses["int8"]
            assert losses["int16"] > losses["int8"] + 30
        assert losses["float"] > found.together["int8"].sqnr_db - 3
    assert found.together["int4"].sqnr_db < found.together["int8"].sqnr_db < found.together["int16"].sqnr_db


def test_zeros_cost_what_they_cost_by_hand(found: Sensitivity, digits_model: Path) -> None:
    data = datasets.load("digits")
    model = load_model(digits_model).keras
    (calibration,) = divided(data.calibration.take(SAMPLES, seed=0), "this test")[1].arrays().inputs.values()
    (x,) = data.validation.arrays().inputs.values()
    labels = data.validation.arrays().labels
    before = [np.asarray(model(values, training=False)) for values in (calibration, x)]
    # No BatchNormalization is folded into it: the file holds the weights of the model.
    kernel = model.get_layer("kind").kernel
    values = kernel.numpy()
    smallest = np.sort(np.abs(values).ravel())[round(0.9 * values.size) - 1]
    kernel.assign(np.where(np.abs(values) <= smallest, 0, values))
    after = [np.asarray(model(values, training=False)) for values in (calibration, x)]
    kernel.assign(values)
    loss = _of(found, "kind").losses["90% zeros"]
    spread = np.square(before[0] - before[0].mean(0)).mean()
    assert loss.sqnr_db == pytest.approx(10 * np.log10(spread / np.square(before[0] - after[0]).mean()), abs=0.05)
    assert found.metric is not None
    assert found.metric.value == pytest.approx((before[1].argmax(1) == labels).mean())


def test_scores_are_measured_where_it_matters_and_it_is_said_where(found: Sensitivity) -> None:
    for choice in found.choices:
        exact = [one for one in found.layers if choice in one.losses and one.losses[choice].exact is not None]
        (layer,) = exact
        assert layer is found.worst(choice)
    drop = _of(found, found.worst("90% zeros").layer).losses["90% zeros"].exact  # type: ignore[union-attr]
    assert drop is not None
    assert drop.low is not None
    assert drop.low > 10


def test_mixed_goes_by_what_was_measured(found: Sensitivity, digits_model: Path, folder: Path) -> None:
    before = set((folder / ".edgeopt").glob("losses-*"))
    assert len(before) == len(found.choices)
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        outcome = carry_out(Recipe(steps=steps_from([{"mixed": {"size": "90%"}}]), schemes=("int8",)), workspace)
    assert set((folder / ".edgeopt").glob("losses-*")) == before
    (record,) = outcome.records
    errors = {bits: 10 ** (-_of(found, "kind").losses[f"int{bits}"].sqnr_db / 10) for bits in (4, 8)}
    (told,) = [one for one in record.layers if one.layer == _of(found, "kind").tensor]
    assert f"{errors[4]:.3%} with 4 bits, {errors[8]:.3%} with 8 bits" in told.done


def test_a_layer_that_int8_cannot_hold_is_the_worst_one(tmp_path: Path) -> None:
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
    (x,) = datasets.load("digits").training.arrays().inputs.values()
    flat = {"x": x.reshape(len(x), -1)}
    result = edgeopt.sensitivity(tmp_path / "model.h5", flat, choices=("int8", "float"), folder=tmp_path / "out")
    for choice in ("int8", "float"):
        worst = result.worst(choice)
        assert worst is not None
        assert worst.layer == "bad"
    # Before training ten probabilities are much alike: what rounds them is coarse beside that.
    lost = {one.layer: one.losses["int8"].sqnr_db for one in result.layers if one.kind != "SOFTMAX"}
    assert lost["bad"] < 10
    assert {name for name, left in lost.items() if left < 20} == {"bad"}, lost
    assert result.worst("77% zeros") is None
    # There were no labels: nothing is scored, and all else is there.
    assert result.metric is None
    assert all(loss.exact is None for one in result.layers for loss in one.losses.values())
    html = (tmp_path / "out" / "sensitivity.html").read_text()
    assert html == page(result, "Which layers of model.h5 to spare")
    assert "bad, int8: " in html
    assert (tmp_path / "out" / "sensitivity.json").is_file()


def _two_outputs(file: Path) -> dict[str, np.ndarray]:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    # Half of what it writes is the same for all: it costs nothing that it goes.
    wide = keras.layers.Dense(8, "relu", name="wide")
    joined = keras.layers.Concatenate()([wide(left), right])
    outputs = [keras.layers.Dense(2, name=name)(joined) for name in ("sum", "difference")]
    wide.set_weights([wide.kernel.numpy() * (np.arange(8) < 4), np.ones(8)])
    keras.Model([left, right], outputs).save(file)
    rng = np.random.default_rng(0)
    values = {
        f"x_{part}_{name}": rng.random((40, size), np.float32)
        for part in ("train", "test")
        for name, size in (("left", 4), ("right", 3))
    }
    return {**values, **{f"y_{part}": rng.random((40, 2), np.float32) for part in ("train", "test")}}


def test_several_inputs_and_outputs_one_of_which_is_scored(tmp_path: Path) -> None:
    values = _two_outputs(tmp_path / "model.h5")
    edgeopt.convert(tmp_path / "model.h5", tmp_path / "float.tflite", scheme="float32")
    asked = {"choices": ("int8", "width"), "folder": tmp_path / "out"}
    plain = edgeopt.sensitivity(tmp_path / "model.h5", values, **asked)
    assert {one.layer for one in plain.layers} >= {"left", "right", "wide", "sum", "difference"}
    assert plain.metric is None
    assert "--output-name" in plain.notes[0]
    assert _of(plain, "wide").losses["50% width"].sqnr_db > 100
    named = edgeopt.sensitivity(tmp_path / "model.h5", values, metric="mse", output_name="sum", **asked)
    assert named.metric is not None
    assert any(one.losses["int8"].exact is not None for one in named.layers)
    with pytest.raises(ConfigError, match=r"outputs as --output-name, got 'none'\. Known: difference, sum"):
        edgeopt.sensitivity(tmp_path / "model.h5", values, output_name="none", **asked)
    # Any float file will do: layers need not be Keras's.
    file = edgeopt.sensitivity(tmp_path / "float.tflite", values, choices=("int8",))
    assert math.isclose(file.together["int8"].sqnr_db, plain.together["int8"].sqnr_db, abs_tol=0.5)


def test_what_cannot_be_measured_is_refused_in_words(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a sparsity between 0 and 1, got 1\. Try --sparsity 0\.5"):
        chosen(sparsities=(1.0,))
    with pytest.raises(ConfigError, match=r"Expected some of int8, .* as choices, got 'int9'\. Did you mean 'int8'"):
        chosen(("int9",))
    with pytest.raises(ConfigError, match=r"Expected at least one choice, got none\. Try --choices int8,"):
        chosen(())
    few = datasets.load("digits")
    (x,) = few.calibration.head(5).arrays().inputs.values()
    with pytest.raises(DataError, match=r"Expected at least \d+ calibration samples for sensitivities, got 4"):
        edgeopt.sensitivity(digits_model, {"x": x}, choices=("int8",), exact=0)
    edgeopt.convert(digits_model, tmp_path / "int8.tflite", scheme="int8", data="digits")
    with pytest.raises(ModelError, match="float"):
        edgeopt.sensitivity(tmp_path / "int8.tflite", "digits", choices=("int8",))
