"""The technique equalize: what it promises, what the file shows of it, and a network that int8-per-tensor ruins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import accuracy, cnn, converted, digits, sparsity

from bench.uneven import undo
from edgeopt import graph
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.plan import plan
from edgeopt.recipe import read_recipe
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, technique
from edgeopt.techniques.equalize import SAME, Equalize, apply, check, predict, suits


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits(1000)


@pytest.fixture(scope="module")
def uneven(depthwise: Any) -> Any:
    """A trained depthwise network whose channels then differ a thousandfold: it computes what it did."""
    model = graph.flatten(depthwise)
    # Float32 weights of these sizes compute the same; no integers of one scale do.
    undo(model, 1000.0)
    return model


def applied(model: Any, dataset: Dataset, tmp_path: Path, **settings: Any) -> Any:
    return apply(Equalize(**settings), model, dataset, Carried(tmp_path))


def test_a_network_that_one_scale_ruins_is_repaired(uneven: Any, dataset: Dataset, tmp_path: Path) -> None:
    import edgeopt

    uneven.save(tmp_path / "uneven.h5")
    done = edgeopt.compress(
        tmp_path / "uneven.h5", dataset, tmp_path / "even.tflite", ["equalize"], scheme="int8-per-tensor"
    )
    floats = accuracy(uneven, dataset.validation)
    assert floats > 0.9
    assert done.before.metric is not None
    assert done.after.metric is not None
    assert done.before.metric.value < 0.5
    assert done.after.metric.value > floats - 0.01
    assert not done.broken
    (record,) = done.steps
    # The integers of a file with one scale a layer show how even its channels are.
    measured = [promise for promise in record.promises if promise.kind.startswith("largest weight")]
    assert len(measured) == 8
    assert all(promise.kept for promise in measured)
    assert all(promise.of is not None and promise.limit is not None for promise in measured)


def test_the_model_stays_the_same_function_and_the_float_file_shows_it(
    uneven: Any, dataset: Dataset, tmp_path: Path
) -> None:
    weights = [np.array(value) for value in uneven.get_weights()]
    even, record = applied(uneven, dataset, tmp_path)
    assert all(map(np.array_equal, weights, uneven.get_weights()))
    outputs, *ranges = check(Equalize(), record, converted(even, "float32", dataset))
    assert outputs.limit == SAME
    assert outputs.measured is not None
    assert outputs.measured < SAME
    assert outputs.note == "50 calibration samples"
    assert len(ranges) == 8
    assert all(promise.kept for promise in ranges)
    before = check(Equalize(), record, converted(uneven, "float32", dataset))
    assert not any(promise.kept for promise in before[1:])
    # With a scale for each channel all of them reach 127.
    unknown = check(Equalize(), record, converted(even, "int8", dataset))
    assert [promise.kept for promise in unknown] == [True] + [None] * 8
    assert {change.layer for change in record.layers if change.done} >= {"conv", "depthwise_1", "scores"}


def test_zeros_stay_and_pairs_that_share_no_scale_are_said(dataset: Dataset, tmp_path: Path) -> None:
    model = cnn()
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[np.random.default_rng(0).random(kernel.shape) < 0.7] = 0
    model.get_layer("hidden").set_weights([kernel, bias])
    even, record = applied(model, dataset, tmp_path)
    assert sparsity(even.get_layer("hidden").kernel) == sparsity(model.get_layer("hidden").kernel)
    assert record.promises[0].kept
    layers = load("tf_keras").layers
    image = layers.Input((8, 8, 1))
    x = layers.Activation("swish", name="act")(layers.Dense(4, name="first")(layers.Flatten()(image)))
    left, record = applied(load("tf_keras").Model(image, layers.Dense(10, name="last")(x)), dataset, tmp_path)
    assert graph.is_flat(left)
    (change,) = record.layers
    assert (change.layer, change.kind, change.done) == ("first and last", "Dense and Dense", "")
    assert change.reason == "the activation swish of act does not keep a scale"
    assert record.notes == ("nothing was scaled: no two layers share channels that keep a scale",)


def test_clipping_is_told_and_promised(dataset: Dataset, tmp_path: Path) -> None:
    layers = load("tf_keras").layers
    load("tf_keras").utils.set_random_seed(0)
    image = layers.Input((8, 8, 1), name="image")
    x = layers.ReLU(6.0, name="free")(layers.Conv2D(4, 3, name="a")(layers.Rescaling(1 / 16)(image)))
    x = layers.ReLU(6.0, name="needed")(layers.Conv2D(4, 3, name="b", bias_initializer="ones")(x))
    model = load("tf_keras").Model(image, layers.Dense(10, name="c")(layers.Flatten()(x)))
    kernel, bias = model.get_layer("b").get_weights()
    model.get_layer("b").set_weights([kernel * 400, bias])
    even, record = applied(model, dataset, tmp_path)
    clipped = record.promises[1]
    assert (clipped.kind, clipped.limit, clipped.note) == (
        "change of the outputs by ReLU in place of clipping",
        0.02,
        "1 of 2 became ReLU",
    )
    assert clipped.kept
    (note,) = record.notes
    assert note.startswith("needed clips what matters and stays: without it the outputs move by ")
    assert even.get_layer("needed").max_value == 6.0
    assert even.get_layer("free").max_value is None


def test_high_biases_are_told_or_left(dataset: Dataset, tmp_path: Path) -> None:
    layers = load("tf_keras").layers
    load("tf_keras").utils.set_random_seed(0)
    image = layers.Input((8, 8, 1), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 16)(image))
    x = layers.Dense(4, activation="relu", name="a", bias_initializer=load("tf_keras").initializers.Constant(9.0))(x)
    model = load("tf_keras").Model(image, layers.Dense(10, name="b")(x))
    _, record = applied(model, dataset, tmp_path)
    (note,) = record.notes
    assert note.startswith("a: 4 high biases moved on, of up to ")
    assert record.promises[0].kept
    assert applied(model, dataset, tmp_path, absorb=False)[1].notes == ()


def test_what_it_will_bring(uneven: Any) -> None:
    facts = KerasCount(uneven).facts("")
    assert all(weight.unevenness is not None for weight in facts.weights)
    prospect = predict(Equalize(), facts)
    assert prospect.gain.startswith("up to ")
    assert prospect.gain.endswith("a weight in int8-per-tensor, and of the values between layers in any int8")
    some = replace(facts, weights=tuple(replace(w, unevenness=4.0) for w in facts.weights))
    assert predict(Equalize(), some).gain == (
        "up to 2.0 bits a weight in int8-per-tensor; little where each channel has a scale of its own"
    )
    assert "depthwise layers (" in prospect.reason
    alike = replace(facts, weights=tuple(replace(w, unevenness=1.2) for w in facts.weights))
    assert predict(Equalize(), alike).gain == "little: channels are alike in range"
    assert predict(Equalize(), replace(facts, weights=facts.weights[:1])).possible is False
    assert suits(SCHEMES["int8-per-tensor"], facts) == ""
    assert suits(SCHEMES["int8"], facts) == ""
    assert suits(SCHEMES["int8"], some) == "each channel's weights have a scale of their own already"
    assert suits(SCHEMES["int8-per-tensor"], some) == ""
    assert suits(SCHEMES["float16"], facts) == "nothing is quantized"


def test_its_place_among_the_others() -> None:
    assert "clustered" not in technique("equalize").keeps
    with pytest.raises(ConfigError, match=r"Expected equalize before cluster, got equalize \(steps\[1\]\)"):
        plan(read_recipe("steps: [cluster, equalize]"))
    assert plan(read_recipe("{schemes: [int8-per-tensor], steps: [prune, equalize, cluster]}")).steps
    with pytest.raises(DataError, match=r"Expected calibration samples for equalize, got none"):
        plan(read_recipe("steps: [equalize]"), has_calibration=False)
    (note,) = plan(read_recipe("{schemes: [int8], steps: [equalize]}")).notes
    assert note.startswith("steps[0].equalize: weights of int8 have a scale for each channel")
    (note,) = plan(read_recipe("{schemes: [float32], steps: [equalize]}")).notes
    assert note == "steps[0].equalize: nothing is quantized: the model stays the same function"
    assert plan(read_recipe("{schemes: [int8-per-tensor], steps: [equalize]}")).notes == ()
