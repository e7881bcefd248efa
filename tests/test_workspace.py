"""Recipes carried out side by side: what they share is made once, and what a result depends on is what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import added_techniques
import numpy as np
import pytest

import edgeopt
from edgeopt import data as datasets
from edgeopt import frameworks, measuring, workers, workshop
from edgeopt.carry_out import Outcome, carry_out
from edgeopt.errors import ConfigError, ModelError
from edgeopt.loading import LoadedModel
from edgeopt.recipe import Recipe, steps_from
from edgeopt.steps import Training
from edgeopt.techniques import TECHNIQUES
from edgeopt.techniques.shrink import Shrink
from edgeopt.vocabulary import TensorSpec, Variant
from edgeopt.workshop import Job
from edgeopt.workspace import Conditions, Workspace

SHORT = Training(epochs=1)
PRUNE = {"prune": {"sparsity": 0.5}}


def recipe(*steps: Any, **more: Any) -> Recipe:
    return Recipe(steps=steps_from(steps), schemes=("int8",), training=SHORT, **more)


def trainings(folder: Path) -> int:
    """Returns how many steps were ever trained in a folder."""
    return len(list((folder / ".edgeopt").glob("step-*")))


@pytest.fixture(scope="module")
def shared_work(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """Three recipes in one folder, two of which begin alike."""
    folder = tmp_path_factory.mktemp("workspace")
    data = datasets.load("digits")
    with Workspace(digits_model, data, folder) as workspace:
        outcomes = {
            "pruned": carry_out(recipe(PRUNE), workspace),
            "pruned and clustered": carry_out(recipe(PRUNE, {"cluster": {"clusters": 16}}), workspace),
            "more": carry_out(recipe({"prune": {"sparsity": 0.75}}), workspace),
        }
    return folder, outcomes


def variant(outcome: Outcome, name: str) -> Variant:
    return next(v for v in outcome.variants if v.name == name)


def test_recipes_that_begin_alike_share_their_beginning(shared_work: tuple[Path, dict[str, Outcome]]) -> None:
    folder, outcomes = shared_work
    assert trainings(folder) == 3  # prune 50 %, cluster after it, prune 75 %
    pruned, both = outcomes["pruned"], outcomes["pruned and clustered"]
    assert variant(pruned, "prune.int8") == variant(both, "prune.int8")
    assert pruned.records[0] == both.records[0]
    assert variant(pruned, "prune.int8").sha256 != variant(outcomes["more"], "prune.int8").sha256


def test_files_of_one_name_do_not_overwrite_one_another(shared_work: tuple[Path, dict[str, Outcome]]) -> None:
    folder, outcomes = shared_work
    files = {v.file: v.sha256 for outcome in outcomes.values() for v in outcome.variants if v.file is not None}
    assert len(files) == len(set(files.values())) == 2 + 3
    for name, digest in files.items():
        assert edgeopt.files.sha256(folder / name) == digest


def test_carrying_out_again_does_nothing(
    shared_work: tuple[Path, dict[str, Outcome]], digits_model: Path, tmp_path: Path
) -> None:
    folder, outcomes = shared_work
    before = {file: file.stat().st_mtime_ns for file in (folder / ".edgeopt").rglob("*")}
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        again = carry_out(recipe(PRUNE), workspace)
    assert again == outcomes["pruned"]
    assert {file: file.stat().st_mtime_ns for file in (folder / ".edgeopt").rglob("*")} == before


def test_a_technique_may_be_tried_again_after_it_was_rolled_back(digits_model: Path, tmp_path: Path) -> None:
    steps = [{"prune": {"sparsity": 0.99, "max_drop": 0.5}}, PRUNE]
    report = edgeopt.optimize(digits_model, "digits", tmp_path, recipe=recipe(*steps))
    first, second = report.steps
    assert first.rolled_back
    assert not second.rolled_back
    assert (first.after, second.after) == ("prune.int8", "prune-2.int8")
    assert {v.name for v in report.variants} == {"float32", "int8", "prune.int8", "prune-2.int8"}
    assert (tmp_path / "report.html").exists()


METRIC = """
import numpy as np

def half(y_true, y_pred):
    return {value} * float(np.mean(y_pred.argmax(-1) == y_true))
"""


def test_an_edited_metric_scores_anew(digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)  # where the workers look too
    workers.close_all()
    module = tmp_path / "metric_that_is_edited.py"
    values = []
    for value in (1.0, 0.5):
        module.write_text(METRIC.format(value=value))
        with Workspace(
            digits_model, datasets.load("digits"), tmp_path / "out", Conditions(metric=f"{module.stem}:half")
        ) as workspace:
            (baseline, _) = carry_out(recipe(), workspace).variants
            score = workspace.score(baseline, workspace.data.validation)
        values.append(score.metric.value)  # type: ignore[union-attr]
    assert values[1] == pytest.approx(values[0] / 2)


def test_a_model_of_several_outputs_is_scored_by_the_one_that_labels_are_for(tmp_path: Path) -> None:
    keras = frameworks.load("tf_keras")
    x = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(x)
    heads = {"ink": keras.layers.Dense(1, name="ink")(flat), "digit": keras.layers.Dense(10, name="digit")(flat)}
    keras.Model(x, heads).save(tmp_path / "heads.h5")
    with Workspace(
        tmp_path / "heads.h5", datasets.load("digits"), tmp_path / "out", Conditions(output_name="digit")
    ) as workspace:
        baseline, int8 = carry_out(recipe(), workspace).variants
        score = workspace.score(int8, workspace.data.validation)
        faithful = workspace.fidelity(int8, baseline)
    assert score.metric.name == faithful.metric.name == "top1"  # type: ignore[union-attr]


def test_only_what_a_stage_uses_is_in_its_key(
    shared_work: tuple[Path, dict[str, Outcome]], digits_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outcomes = shared_work
    installed = frameworks.installed_version
    monkeypatch.setattr(frameworks, "installed_version", lambda name: "99" if name == "netron" else installed(name))
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        assert carry_out(recipe(PRUNE), workspace) == outcomes["pruned"]
    assert trainings(folder) == 3
    monkeypatch.setattr(frameworks, "installed_version", lambda name: "99" if name == "tfmot" else installed(name))
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        carry_out(recipe(PRUNE), workspace)
    assert trainings(folder) == 3 + 1


def test_another_seed_is_another_training(shared_work: tuple[Path, dict[str, Outcome]], digits_model: Path) -> None:
    folder, outcomes = shared_work
    done = trainings(folder)
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        other = carry_out(replace(recipe(PRUNE), seed=1), workspace)
    assert trainings(folder) == done + 1
    assert variant(other, "prune.int8").sha256 != variant(outcomes["pruned"], "prune.int8").sha256


def test_a_step_trains_on_as_many_samples_as_it_is_told_to_evenly_of_each_class(tmp_path: Path) -> None:
    data = datasets.load("digits")
    inputs = (TensorSpec("x", (None, 8, 8, 1), "float32"),)
    loaded = LoadedModel(tmp_path, "keras3", inputs, ())

    def given(**said: Any) -> Any:
        job = Job(Shrink(macs=0.5, **said), tmp_path, tmp_path, data, tmp_path, tmp_path, frozenset(), Training())
        return workshop._given(job, loaded)

    few = given(train_samples=100)
    assert np.bincount(few.training.ids()).tolist() == [100 // 10] * 10
    assert few.validation.digest() == given().validation.digest()
    assert len(given().training) == len(given(train_samples=10**6).training) == len(data.training)


def test_a_technique_on_files_is_carried_out_like_any_other(
    shared_work: tuple[Path, dict[str, Outcome]], digits_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = shared_work
    monkeypatch.setitem(TECHNIQUES, "sign", added_techniques.SIGN)
    signed = Recipe(steps=steps_from([{"sign": {"name": "Ada"}}]), schemes=("int8", "int8-float-io"))
    done = trainings(folder)
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        workspace.trainer.call("added_techniques:install")
        outcome = carry_out(signed, workspace)
        again = carry_out(signed, workspace)
    assert again == outcome
    assert trainings(folder) == done
    assert [v.name for v in outcome.variants[3:]] == ["sign.int8", "sign.int8-float-io"]
    (record,) = outcome.records
    assert (record.before, record.after) == ("int8", "sign.int8")
    assert all(promise.kept for promise in record.promises)
    for one in outcome.variants[3:]:
        assert b"Ada, " + one.scheme.encode() + b", 200 samples" in (folder / str(one.file)).read_bytes()
        assert one.artifacts[0].made_by == "sign"
        assert one.steps == ("sign",)


def test_a_float_file_goes_through_techniques_on_files(
    digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.load("digits")
    edgeopt.convert(digits_model, tmp_path / "given.tflite", scheme="float32")
    monkeypatch.setitem(TECHNIQUES, "sign", added_techniques.SIGN)
    with Workspace(tmp_path / "given.tflite", data, tmp_path / "out") as workspace:
        workspace.trainer.call("added_techniques:install")
        outcome = carry_out(recipe("sign"), workspace)
        assert [v.name for v in outcome.variants] == ["float32", "int8", "sign.int8"]
        assert not outcome.records[0].rolled_back
        with pytest.raises(ModelError, match=r"Expected a model of layers that can be trained here, got .*given"):
            carry_out(recipe(PRUNE, "sign"), workspace)


def test_a_technique_on_files_writes_no_keras_model(
    digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TECHNIQUES, "sign", added_techniques.SIGN)
    with pytest.raises(ConfigError, match=r"ending in \.tflite after sign, got .*: what it did is in the converted"):
        edgeopt.compress(digits_model, "digits", tmp_path / "m.keras", ["sign"])


@pytest.fixture(scope="module")
def split_digits() -> dict[str, np.ndarray]:
    """Digits with a val split whose labels say nothing: no model does better than chance there, before or after."""
    data = datasets.load("digits")
    train, test = data.training.arrays(), data.validation.arrays()
    assert test.labels is not None
    wrong = (test.labels + np.arange(len(test))) % 10
    return {
        "x_train": train.inputs["x"], "y_train": train.labels, "x_test": test.inputs["x"], "y_test": test.labels,
        "x_val": test.inputs["x"] * 0.99, "y_val": wrong,
    }  # fmt: skip


def test_a_step_is_judged_on_the_tuning_part_and_validation_is_scored_once(
    split_digits: dict[str, np.ndarray], digits_model: Path, tmp_path: Path
) -> None:
    ruinous = recipe({"prune": {"sparsity": 0.99, "max_drop": 20.0}})
    with Workspace(digits_model, datasets.load(split_digits), tmp_path) as workspace:
        outcome = carry_out(ruinous, workspace)
        assert not outcome.records[0].rolled_back
        assert len(list((tmp_path / ".edgeopt").glob("score-*"))) == 2  # before the step and after it
        variants = measuring.scored(workspace, outcome.variants)
        assert len(list((tmp_path / ".edgeopt").glob("score-*"))) == 2 * len(variants)
    pruned = next(v for v in variants if v.name == "prune.int8")
    assert pruned.drop is not None
    assert pruned.tuning_drop is not None
    assert pruned.drop.value > 20.0 > pruned.tuning_drop.value


def test_a_step_never_sees_a_validation_sample_and_does_not_depend_on_one(
    split_digits: dict[str, np.ndarray], digits_model: Path, tmp_path: Path
) -> None:
    for test in (
        split_digits,
        {**split_digits, "x_test": split_digits["x_test"][:100], "y_test": split_digits["y_test"][:100]},
    ):
        with Workspace(digits_model, datasets.load(test), tmp_path) as workspace:
            carry_out(recipe(PRUNE), workspace)
    assert trainings(tmp_path) == 1
