"""Recurrent layers of every kind go through every technique that trains, and into int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compressed_models import facts_of

from edgeopt import data as datasets
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.loading import load_model
from edgeopt.plan import PlannedStep, plan
from edgeopt.recipe import read_recipe
from edgeopt.techniques import TECHNIQUES
from edgeopt.workshop import Done, Job, work

X = np.random.default_rng(0).standard_normal((48, 2, 4, 2)).astype("float32")
DATA = {"x_train": X, "y_train": np.arange(48) % 3, "x_test": X[:16], "y_test": np.arange(16) % 3}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return datasets.load(DATA)


def _network(units: int, path: Path, *, film: bool = True) -> Path:
    """ConvLSTM, if wanted, TimeDistributed, Bidirectional LSTM and GRU in a row, over two steps."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = steps = layers.Input((2, 4, 2), name="steps")
    if film:
        x = layers.ConvLSTM1D(units, 3, padding="same", return_sequences=True, name="film")(x)
    x = layers.Reshape((2, 4 * x.shape[-1]))(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="each")(x)
    x = layers.Bidirectional(layers.LSTM(units, return_sequences=True), name="ways")(x)
    x = layers.GRU(units, name="memory")(x)
    keras.Model(steps, layers.Dense(3, activation="softmax", name="word")(x)).save(path)
    return path


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _network(4, tmp_path_factory.mktemp("recurrent") / "model.keras")


def _worked(step: str, model: Path, dataset: Dataset, folder: Path) -> tuple[PlannedStep, Done]:
    recipe = read_recipe(f"training: {{epochs: 1, learning_rate: 0.001, batch_size: 16}}\nsteps: [{{{step}}}]")
    facts = KerasCount(load_model(model).keras).facts("")
    (planned,) = plan(recipe, facts=facts, has_training=True, has_labels=True).steps
    job = Job(
        step=planned.step,
        model=model,
        original=model,
        data=dataset,
        output=folder / "model",
        folder=folder / "work",
        properties=planned.properties_before,
        training=recipe.training,
    )
    return planned, work(job)


@pytest.mark.parametrize(
    ("step", "scheme"),
    [
        pytest.param(
            "prune: {sparsity: 0.5, layers: [film, each, ways, memory]}", "float32", marks=pytest.mark.slow, id="prune"
        ),
        pytest.param("cluster: {clusters: 4}", "int8", id="cluster"),
        pytest.param("distill: {student: STUDENT}", "float32", marks=pytest.mark.slow, id="distill"),
        pytest.param("qat: {}", "int8", id="qat"),
    ],
)
def test_recurrent_layers_are_trained_and_converted(
    step: str, scheme: str, recurrent: Path, dataset: Dataset, tmp_path: Path
) -> None:
    if "STUDENT" in step:
        step = step.replace("STUDENT", str(_network(2, tmp_path / "student.keras")))
    # Training for int8 refuses the loop of a ConvLSTM.
    model = _network(4, tmp_path / "model.keras", film=False) if step.startswith("qat") else recurrent
    planned, done = _worked(step, model, dataset, tmp_path)
    options = ConvertOptions(calibration=dataset.calibration)
    file = facts_of(Converter(load_model(done.model), options).to_bytes(scheme))
    found = TECHNIQUES[planned.technique].check(planned.step, done.record, file)
    assert found
    # Of a loop the file does not tell how often it runs.
    uncounted = [promise.kind for promise in found if promise.kept is None]
    assert uncounted == ["multiply-accumulates"] * step.startswith("distill")
    assert all(promise.kept for promise in found if promise.kept is not None), found
    if step.startswith("qat"):  # unrolled, both directions would be twenty times as large
        assert [one.name for one in file.operators].count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 2


def test_what_cannot_be_narrowed_is_said(dataset: Dataset, tmp_path: Path) -> None:
    keras = load("tf_keras")
    steps = keras.layers.Input((2, 4, 2), name="steps")
    x = keras.layers.ConvLSTM1D(2, 3, padding="same", return_sequences=True, name="film")(steps)
    x = keras.layers.Bidirectional(keras.layers.GRU(2), name="ways")(keras.layers.Reshape((2, 8))(x))
    keras.Model(steps, keras.layers.Dense(3, name="word")(x)).save(tmp_path / "tied.keras")
    words = r"a model without \(film: its units are tied .*ways: its units are tied .*\)\. Try .*student"
    with pytest.raises(ConfigError, match=words):
        _worked("distill: {width: 0.5}", tmp_path / "tied.keras", dataset, tmp_path)
    words = r"channels to leave out, got none \(left whole: film, ways: its units are tied .*\)\. Try to distill"
    with pytest.raises(ConfigError, match=words):
        _worked("shrink: {macs: 0.5}", tmp_path / "tied.keras", dataset, tmp_path)


def test_the_loop_of_a_convlstm_is_not_trained_for_int8(recurrent: Path, dataset: Dataset, tmp_path: Path) -> None:
    words = "Expected layers whose steps can be unrolled, got ConvLSTM1D 'film'.*--scheme int8 calls its cell step by"
    with pytest.raises(ConversionError, match=words):
        _worked("qat: {}", recurrent, dataset, tmp_path)


@pytest.mark.parametrize("sequences", [True, False])
def test_what_a_convlstm_computes(sequences: bool) -> None:
    layers = load("tf_keras").layers
    x = layers.Input((5, 6, 7, 2))
    layer = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=sequences)
    count = KerasCount(load("tf_keras").Model(x, layer(x)))
    assert sum(row.macs or 0 for row in count.rows) == 5 * 6 * 7 * 3 * 3 * (2 + 4) * 4 * 4
