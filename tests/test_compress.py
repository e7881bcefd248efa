"""Techniques as a user applies them, alone and by a recipe: what is written, proven, gone on with and undone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from command_line import COMMAND, assert_clean, edgeopt, surroundings

import edgeopt as toolkit
from edgeopt import formats, frameworks
from edgeopt.api.optimize import data_of
from edgeopt.errors import BudgetError, ConfigError, DataError, ModelError
from edgeopt.recipe import Recipe, read_recipe, steps_from
from edgeopt.report import Report, schema
from edgeopt.steps import Training
from edgeopt.techniques import TECHNIQUES, Need
from edgeopt.tflite.reader import read

SHORT = Training(epochs=2)
# One way to apply each technique to the small digits model.
ALONE: dict[str, dict[str, Any]] = {
    "prune": {"sparsity": 0.5},
    "cluster": {"clusters": 8},
    "shrink": {"width": 0.5, "multiple_of": 1},
    # Two epochs may leave it a sample behind int8 after training.
    "qat": {"max_drop": 5.0},
    "distill": {"width": 0.5},
    "mixed": {"size": "90%"},
}
# What they make is in the converted file alone.
IN_FILES = {name for name, row in TECHNIQUES.items() if row.acts_on == "file" or name == "qat"}


def test_every_technique_is_tried_alone() -> None:
    # Repairs write one file of a scheme, and are tried in test_repair.
    assert set(ALONE) == {name for name, row in TECHNIQUES.items() if not row.repairs}


@pytest.fixture(scope="module", params=sorted(ALONE))
def alone(request: pytest.FixtureRequest, digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One technique, alone, as a Keras file where it can be."""
    name = request.param
    in_file = name in IN_FILES
    output = tmp_path_factory.mktemp(name) / ("made.tflite" if in_file else "made.keras")
    more: dict[str, Any] = {"training": SHORT, "logs": output.with_name("logs"), "scheme": "int8" if in_file else None}
    return name, toolkit.compress(digits_model, "digits", output, [{name: ALONE[name]}], **more)


def test_promises_are_measured_in_the_file_and_kept(alone: Any) -> None:
    name, made = alone
    (record,) = made.steps
    trained = [note for note in record.notes if "the file decides as the trained model does for" in note]
    assert len(trained) == (name == "qat")
    assert record.promises
    assert all(promise.kept for promise in record.promises), record.promises
    assert all(promise.measured is not None for promise in record.promises)
    assert made.broken == ()


def test_before_and_after_are_scored_on_the_same_samples(alone: Any) -> None:
    _, made = alone
    assert made.before.metric.samples == made.after.metric.samples == 359
    assert made.before.metric.value > 0.85
    assert made.after.metric.value > made.before.metric.value - 0.1
    assert made.before.scheme == made.after.scheme
    (record,) = made.steps
    assert record.drop is not None
    assert record.drop.value == pytest.approx(100 * (made.before.metric.value - made.after.metric.value))


def test_a_row_of_history_for_each_epoch_and_logs_for_tensorboard(alone: Any) -> None:
    name, made = alone
    if Need.TRAINING not in TECHNIQUES[name].needs:
        pytest.skip("it trains nothing")
    (record,) = made.steps
    assert len(record.history) == SHORT.epochs
    assert all(np.isfinite(row["loss"]) for row in record.history)
    assert list(made.output.with_name("logs").rglob("events.out.tfevents.*"))


def test_only_the_output_and_the_logs_are_left(alone: Any) -> None:
    name, made = alone
    trained = {"logs"} if Need.TRAINING in TECHNIQUES[name].needs else set()
    assert {path.name for path in made.output.parent.iterdir()} == {made.output.name} | trained


def test_the_keras_file_opens_in_plain_keras(alone: Any) -> None:
    name, made = alone
    if name in IN_FILES:
        pytest.skip("what it makes is in the converted file alone")
    keras = frameworks.load("keras")
    model = keras.models.load_model(made.output)
    samples = toolkit.load_data("digits").validation.arrays()
    answers = np.asarray(model(samples.inputs["x"])).argmax(-1)
    assert (answers == samples.labels).mean() == pytest.approx(made.after.metric.value, abs=0.01)


def test_a_converted_output_is_of_the_scheme_asked_for(digits_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned.tflite"
    made = toolkit.compress(
        digits_model, "digits", output, [{"prune": {"sparsity": 0.75}}], scheme="int8", training=Training(epochs=1)
    )
    assert {spec.dtype for spec in read(output).inputs} == {"int8"}
    assert formats.facts(output).sparsity == pytest.approx(made.after.sparsity)
    assert made.after.size_bytes == output.stat().st_size


# --- a recipe --------------------------------------------------------------------------------------------------------

CHAIN = Recipe(
    steps=steps_from([{"prune": {"sparsity": 0.5}}, {"cluster": {"clusters": 16}}, {"qat": {"max_drop": 5.0}}]),
    schemes=("int8", "int8-float-io"),
    training=SHORT,
)


@pytest.fixture(scope="module")
def chain(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Pruned, clustered and trained for int8."""
    folder = tmp_path_factory.mktemp("chain") / "out"
    return toolkit.optimize(digits_model, "digits", folder, recipe=CHAIN), folder


def test_each_step_is_measured_before_and_after(chain: tuple[Report, Path]) -> None:
    report, folder = chain
    assert [step.technique for step in report.steps] == ["prune", "cluster", "qat"]
    assert [step.variant for step in report.steps] == ["", "sparsity-preserving", "PCQAT"]
    names = [variant.name for variant in report.variants]
    assert names[:3] == ["float32", "int8", "int8-float-io"]
    assert names[3:] == [
        "prune.int8",
        "prune+cluster.int8",
        "prune+cluster+qat.int8",
        "prune+cluster+qat.int8-float-io",
    ]
    for before, after in zip(["int8", *names[3:5]], report.steps):
        assert after.before == before
    for step in report.steps:
        assert step.rolled_back == "", step
        variant = report.variant(step.after)
        assert variant is not None
        assert variant.metric is not None
        assert variant.gzip_bytes is not None
        assert (folder / step.model).exists()


def test_zeros_and_clusters_survive_to_the_last_file(chain: tuple[Report, Path]) -> None:
    report, _ = chain
    pruned, last = report.variant("prune.int8"), report.variant("prune+cluster+qat.int8")
    assert pruned is not None
    assert last is not None
    assert pruned.sparsity is not None
    assert last.sparsity is not None
    # Weights that were not pruned may round to zero in one file and not in the other.
    assert last.sparsity == pytest.approx(pruned.sparsity, abs=0.005)
    assert last.sparsity > 0.45
    assert last.gzip_bytes is not None
    baseline = report.variant("int8")
    assert baseline is not None
    assert last.gzip_bytes < 0.8 * (baseline.gzip_bytes or 0)


def test_the_report_tells_the_steps_and_reproduces_itself(chain: tuple[Report, Path]) -> None:
    _, folder = chain
    plain = json.loads((folder / "report.json").read_text())
    jsonschema.validate(plain, schema.load_schema())
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for words in ("Step by step", "sparsity-preserving", "PCQAT", "prune+cluster+qat.int8"):
        assert words in page
        assert words in text
    again = read_recipe((folder / "recipe.yaml").read_text())
    assert again.steps == CHAIN.steps
    assert again.schemes == CHAIN.schemes
    assert again.training == CHAIN.training


def test_the_same_command_trains_nothing_anew(chain: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = chain
    start = time.monotonic()
    again = toolkit.optimize(digits_model, "digits", folder, recipe=CHAIN)
    assert [step.seconds for step in again.steps] == [step.seconds for step in report.steps]
    assert [v.sha256 for v in again.variants] == [v.sha256 for v in report.variants]
    assert time.monotonic() - start < sum(step.seconds for step in report.steps) + 60


def test_a_folder_that_was_copied_is_gone_on_with_under_any_path(
    chain: tuple[Report, Path], digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, folder = chain
    shutil.copytree(folder, tmp_path / "copied")
    monkeypatch.chdir(tmp_path)
    again = toolkit.optimize(digits_model, "digits", Path("copied"), recipe=CHAIN)
    assert [step.seconds for step in again.steps] == [step.seconds for step in report.steps]
    assert [step.model for step in again.steps] == [step.model for step in report.steps]


def test_a_step_that_loses_too_much_is_rolled_back(digits_model: Path, tmp_path: Path) -> None:
    # The one after it is of the same technique: each has files of its own.
    steps = [{"prune": {"sparsity": 0.99, "epochs": 1, "max_drop": 0.5}}, {"prune": {"sparsity": 0.3, "epochs": 1}}]
    report = toolkit.optimize(
        digits_model, "digits", tmp_path / "out", recipe=Recipe(steps=steps_from(steps), schemes=("int8",))
    )
    pruned, again = report.steps
    assert "points, more than 0.5" in pruned.rolled_back
    assert (again.before, again.after, again.rolled_back) == ("int8", "prune-2.int8", "")
    assert {"prune.int8", "prune-2.int8"} <= {variant.name for variant in report.variants}
    assert report.best != pruned.after
    assert "rolled back" in (tmp_path / "out" / "report.md").read_text()


def test_int8_training_that_loses_is_rolled_back_to_int8_after_training(digits_model: Path, tmp_path: Path) -> None:
    wild = [{"qat": {"epochs": 1, "learning_rate": 3.0, "optimizer": "sgd", "teacher": "none"}}]
    report = toolkit.optimize(
        digits_model, "digits", tmp_path / "out", recipe=Recipe(steps=steps_from(wild), schemes=("int8",))
    )
    assert "points, more than 0" in report.steps[0].rolled_back
    assert report.best != report.steps[0].after


# --- bad input and trouble -------------------------------------------------------------------------------------------


def test_an_impossible_order_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="order"):
        toolkit.compress(tmp_path / "none.keras", "digits", tmp_path / "m.tflite", ["qat", "prune"])


@pytest.mark.parametrize(
    ("output", "steps", "words"),
    [
        ("m.keras", ["qat"], "ending in .tflite after qat"),
        ("m.onnx", ["prune"], "ending in .keras or .tflite"),
        ("m.keras", [], "at least one technique"),
        ("m.keras", [{"prune": {"sparsity": 1.0}}], "less than 1"),
        ("m.keras", ["distil"], "distill"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, output: str, steps: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        toolkit.compress(tmp_path / "none.keras", "digits", tmp_path / output, steps)
    assert list(tmp_path.iterdir()) == []


def test_schemes_beside_a_recipe_are_planned_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected schemes that qat is for, int8 or int8-float-io, got float16"):
        toolkit.optimize(
            tmp_path / "m.keras",
            "digits",
            tmp_path / "out",
            recipe=Recipe(steps=steps_from(["qat"])),
            schemes=("float16",),
        )


def test_data_and_seed_of_a_recipe_are_used_where_the_command_says_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{data: gone.npz, seed: 5, steps: [prune]}")
    done = edgeopt("optimize", "m.keras", "-o", "out", "--recipe", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "gone.npz" in done.stderr
    done = edgeopt("optimize", "m.keras", "-o", "out", "--recipe", "pqat", folder=tmp_path)
    assert "Expected --data, or a recipe that names data, got neither" in done.stderr
    recipe = read_recipe("{data: digits, seed: 5}")
    parts = [toolkit.load_data("digits", seed=seed).calibration.digest() for seed in (0, 5)]
    assert data_of(recipe, None).calibration.digest() == data_of(recipe, "digits").calibration.digest() == parts[1]
    assert parts[0] != parts[1]


def test_a_layer_that_is_not_there_is_suggested(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'conv2d'"):
        toolkit.compress(
            digits_model, "digits", tmp_path / "m.keras", [{"prune": {"layers": ["Conv2d"]}}], training=SHORT
        )


def test_labels_are_asked_for(digits_model: Path, tmp_path: Path) -> None:
    x = toolkit.load_data("digits").training.arrays().inputs["x"]
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:100])
    with pytest.raises(DataError, match="alpha: 1"):
        toolkit.compress(digits_model, tmp_path / "x.npz", tmp_path / "m.keras", ["prune"], training=SHORT)


def test_a_model_that_cannot_be_trained_is_refused_by_layer(keras_files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trained here.*float\.tflite"):
        toolkit.compress(keras_files / "float.tflite", "digits", tmp_path / "m.keras", ["prune"], training=SHORT)


def test_a_broken_promise_ends_with_three_and_writes_the_file(digits_model: Path, tmp_path: Path) -> None:
    words = ["prune", digits_model, "--data", "digits", "-o", "m.keras", "--sparsity", "0.99", "--epochs", "1"]
    done = edgeopt(*words, "--max-drop", "0.5", folder=tmp_path)
    assert done.returncode == BudgetError.exit_code, done.stderr
    assert_clean(done)
    assert "more than 0.5. m.keras was written all the same" in done.stderr
    assert (tmp_path / "m.keras").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on(digits_model: Path, tmp_path: Path) -> None:
    words = ["prune", str(digits_model), "--data", "digits", "-o", "m.keras", "--epochs", "400", "--quiet"]
    words += ["--learning-rate", "0.002"]  # without trials of several, which take longer than what is waited for
    process = subprocess.Popen([*COMMAND, *words], cwd=tmp_path, env=surroundings(tmp_path), stderr=subprocess.PIPE)
    work = tmp_path / ".m.keras.edgeopt"
    deadline = time.monotonic() + 180
    while not list(work.rglob("training.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "m.keras").exists()
    (state,) = work.rglob("training.json")
    behind = len(json.loads(state.read_text())["history"])
    assert 0 < behind < 400
    done = edgeopt(*words, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    history = json.loads(done.stdout)["steps"][0]["history"]
    assert len(history) == 400
    assert not work.exists()
