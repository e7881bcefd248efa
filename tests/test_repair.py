"""`edgeopt repair`: what it writes, what it says, what it drops, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_clean, contents, edgeopt

import edgeopt as toolkit
from edgeopt import formats
from edgeopt.api.repair import Repaired, repair
from edgeopt.errors import ConfigError, DataError
from edgeopt.evaluation import evaluate
from edgeopt.recipe import load_recipe
from edgeopt.report import Report
from edgeopt.techniques import TECHNIQUES

FILE_STEPS = ["calibrate", "correct-bias"]


@pytest.fixture(scope="module")
def float_file(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("float") / "float.tflite"
    toolkit.convert(digits_model, output, scheme="float32")
    return output


@pytest.fixture(scope="module")
def repaired(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    output = tmp_path_factory.mktemp("repaired") / "made.tflite"
    return repair(digits_model, "digits", output, scheme="int8-per-tensor", steps=FILE_STEPS)


def test_every_step_is_measured_and_what_was_best_is_written(repaired: Repaired) -> None:
    names = [variant.name for variant in repaired.variants]
    assert names[:3] == ["float32", "int8-per-tensor", "calibrate.int8-per-tensor"]
    assert [record.technique for record in repaired.steps] == FILE_STEPS
    assert all(variant.metric is not None for variant in repaired.variants)
    assert repaired.errors.keys() == set(names[1:])
    # What is kept is nearer than what was before it, and what is written is the last of it.
    assert repaired.errors[repaired.best] == min(repaired.errors.values())
    for record in repaired.steps:
        nearer = repaired.errors[record.after] < repaired.errors[record.before]
        assert nearer or record.rolled_back
    made = evaluate(repaired.output, toolkit.load_data("digits").validation)
    best = next(variant for variant in repaired.variants if variant.name == repaired.best)
    assert best.metric is not None
    assert made.metric.value == best.metric.value
    assert best.sha256 is not None
    assert any(row.matches_reference for row in best.runtimes)
    assert list(repaired.output.parent.iterdir()) == [repaired.output]


def test_a_float_file_without_labels(float_file: Path, tmp_path: Path) -> None:
    x = toolkit.load_data("digits").training.head(120).arrays().inputs["x"]
    np.savez(tmp_path / "data.npz", x=x)
    done = edgeopt(
        *("repair", float_file, "--data", "data.npz", "-o", "made.tflite", "--steps", "correct-bias", "--json"),
        *("--scheme", "int4", "--keep-8bit", "none"),
        folder=tmp_path,
    )
    assert_clean(done)
    made = json.loads(done.stdout)
    assert [variant["name"] for variant in made["variants"]][:2] == ["float32", "int4"]
    assert all(variant["metric"] is None for variant in made["variants"])
    assert made["errors"]["int4"] > 0
    facts = formats.facts(tmp_path / "made.tflite")
    assert facts.inputs[0].dtype == "int8"
    assert {weight.bits for weight in facts.weights if len(weight.shape) > 1} == {4}, "the ends, too"


def test_the_table_of_a_run(digits_model: Path, tmp_path: Path) -> None:
    done = edgeopt("repair", digits_model, "--data", "digits", "-o", "made.tflite", folder=tmp_path)
    assert_clean(done)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("made.tflite: int8, after ")
    assert lines[1].split() == ["measured", "in", "the", ".tflite", "top1", "output", "error", "bytes", "seconds"]
    assert lines[2].startswith("float32")
    assert lines[3].startswith("int8 as converted")
    tried = [line.split()[1] for line in lines if line.startswith("+ ")]
    left_out = [line.split(": ")[1] for line in lines if "not tried: " in line]
    assert {*tried, *left_out} == {name for name, row in TECHNIQUES.items() if row.repairs}
    verdicts = {line.split()[1]: line.split()[-1] for line in lines if line.startswith("+ ")}
    assert set(verdicts.values()) <= {"kept", "dropped"}
    reasons = {line.split()[0] for line in lines if " dropped: " in line}
    assert reasons == {name for name, verdict in verdicts.items() if verdict == "dropped"}
    assert "litert" in done.stdout
    assert contents(tmp_path).keys() == {"made.tflite"}
    again = edgeopt("repair", digits_model, "--data", "digits", "-o", "made.tflite", folder=tmp_path)
    assert again.returncode == 2
    assert "made.tflite" in again.stderr


def test_the_packaged_recipe_is_carried_out_by_optimize(digits_model: Path, tmp_path: Path) -> None:
    report: Report = toolkit.optimize(
        digits_model, "digits", tmp_path / "out", recipe=load_recipe("repair"), schemes=["int8"]
    )
    assert [step.technique for step in report.steps] == [step.technique for step in load_recipe("repair").steps]
    for step in report.steps:
        assert step.rolled_back or any("output error" in note for note in step.notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"steps": "prune"},
            r"Expected repairs, .*calibrate.*, got prune, which does more than mend\. Try",
        ),
        ({"steps": []}, r"Expected repairs, .*, got none\. Try --steps auto"),
        ({"steps": ["calibrat"]}, r"Expected a technique.*calibrate"),
        ({"scheme": "float16"}, r"Expected a scheme with something to mend, .*int8.*, got float16\. Try --scheme int8"),
        ({"output": "m.keras"}, r"Expected an output file ending in \.tflite, got .*m\.keras\. Try -o m\.tflite"),
    ],
)
def test_what_cannot_be_is_said_at_once(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    output = tmp_path / settings.pop("output", "m.tflite")
    with pytest.raises(ConfigError, match=words):
        repair(tmp_path / "none.keras", "digits", output, **settings)


def test_too_few_samples_are_refused(float_file: Path, tmp_path: Path) -> None:
    x = toolkit.load_data("digits").training.head(12).arrays().inputs["x"]
    with pytest.raises(DataError, match=r"Expected at least 14 calibration samples for correct-bias, got \d+"):
        repair(float_file, x, tmp_path / "m.tflite", steps=["correct-bias"])
