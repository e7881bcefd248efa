"""A technique is one file and one line: what is added to the table is a recipe key, a step, a command and a doc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import added_techniques
import click
import numpy as np
import pytest
from added_techniques import COARSEN, SIGN
from compressed_models import digits, facts_of, loaded_of

from edgeopt import data as datasets
from edgeopt import formats
from edgeopt.advice import of_technique
from edgeopt.cli.techniques import technique_command
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.plan import plan
from edgeopt.prospects import WeightFacts
from edgeopt.recipe import read_recipe
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import TECHNIQUES, Carried, Need, Technique
from edgeopt.workshop import Job, work


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in (COARSEN, SIGN):
        monkeypatch.setitem(TECHNIQUES, row.name, row)  # the one line


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits(64)


@pytest.fixture(scope="module")
def model() -> Any:
    keras = load("tf_keras")
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 1), name="image")
    return keras.Model(image, keras.layers.Dense(10, name="head")(keras.layers.Flatten()(image)))


def test_a_technique_on_the_model(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    recipe = read_recipe("steps: [{coarsen: {grid: 0.125}}]")
    facts = KerasCount(model).facts("")
    (planned,) = plan(recipe, facts=facts, has_training=False, has_labels=False).steps
    assert planned.prediction == "fewer distinct weights; multiples of 0.125, of 650 numbers"
    assert of_technique("coarsen", facts).reason == "multiples of 0.25, of 650 numbers"

    model.save(tmp_path / "model.h5")
    job = Job(
        step=planned.step,
        model=tmp_path / "model.h5",
        original=tmp_path / "model.h5",
        data=dataset,
        output=tmp_path / "1-coarsen",
        folder=tmp_path / "work",
        properties=planned.properties_before,
        training=recipe.training,
    )
    done = work(job)
    assert done.model.name == "1-coarsen.keras"
    content = Converter(loaded_of(model), ConvertOptions()).to_bytes(SCHEMES["float32"])
    (broken,) = COARSEN.check(planned.step, done.record, facts_of(content))
    assert broken.kept is False
    coarse, _ = added_techniques.coarsen(planned.step, model, dataset, Carried(tmp_path))  # type: ignore[arg-type]
    content = Converter(loaded_of(coarse), ConvertOptions()).to_bytes(SCHEMES["float32"])
    (kept,) = COARSEN.check(planned.step, done.record, facts_of(content))
    assert kept.kept
    assert kept.measured == len(np.unique(coarse.get_layer("head").kernel))


def test_a_technique_on_the_file(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    (planned,) = plan(read_recipe("steps: [{sign: {name: Ada}}]"), has_calibration=True).steps
    assert planned.needs == (Need.CALIBRATION, Need.SCHEME)
    loaded = loaded_of(model)
    converter = Converter(loaded, ConvertOptions(calibration=dataset.calibration))
    for name in ("float32", "int8"):
        (tmp_path / f"{name}.tflite").write_bytes(converter.to_bytes(SCHEMES[name]))
    signed, record = SIGN.apply(
        planned.step,
        tmp_path / "float32.tflite",
        SCHEMES["int8"],
        datasets.bind(dataset.calibration, loaded.inputs),
        Carried(tmp_path, converted=tmp_path / "int8.tflite"),
    )
    assert f"Ada, int8, {len(dataset.calibration)} samples".encode() in signed.read_bytes()
    (promise,) = SIGN.check(planned.step, record, formats.facts(signed))
    assert promise.measured is not None
    assert promise.kept is not None


def test_a_step_on_the_file_comes_after_all_on_the_model() -> None:
    message = (
        r"Expected coarsen before sign, got coarsen \(steps\[1\]\) after sign \(steps\[0\]\): coarsen changes the "
        r"model, and sign the file that is converted from it\. Try the order: coarsen, sign\."
    )
    with pytest.raises(ConfigError, match=message):
        plan(read_recipe("steps: [sign, coarsen]"))
    assert [step.technique for step in plan(read_recipe("steps: [coarsen, sign]")).steps] == ["coarsen", "sign"]


def test_what_a_step_needs_is_there_or_it_is_refused() -> None:
    recipe = read_recipe("steps: [sign]")
    with pytest.raises(DataError, match=r"Expected calibration samples for sign, got none\. Try --calib"):
        plan(recipe, has_calibration=False)
    with pytest.raises(ConfigError, match=r"Expected a scheme of integers for sign, got float32, float16\."):
        plan(read_recipe("{schemes: [float32, float16], steps: [sign]}"))


def test_its_remarks_are_notes_of_the_plan() -> None:
    assert plan(read_recipe("steps: [sign, sign]")).notes == ("steps[1].sign: it is signed already",)


def test_its_keys_are_options_of_a_command() -> None:
    command = technique_command("coarsen", "Round weights.")
    assert isinstance(command, click.Command)
    assert {"--grid", "--max-drop"} <= {name for option in command.params for name in option.opts}


@pytest.mark.parametrize("row", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_row_is_whole(row: Technique) -> None:
    assert type(row.typical) is row.step
    assert row.step.technique == row.name
    assert any(row.fits(row.typical, scheme) for scheme in SCHEMES.values())


def test_a_model_without_weights_has_no_prospects() -> None:
    from collections import Counter

    from edgeopt.prospects import ModelFacts

    nothing = of_technique("prune", ModelFacts("", "", 0, 0, 0, 0.0, (), Counter()))
    assert (nothing.possible, nothing.reason) == (False, "there are no weights to work on")
    depthwise = (WeightFacts("depthwise", 72, 72, 72, 8),)
    alone = of_technique("prune", ModelFacts("", "", 288, 72, 1, 0.0, depthwise, Counter(DepthwiseConv2D=1)))
    assert alone.possible is False
