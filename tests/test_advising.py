"""Advice follows from facts: of real models, and of made-up ones in which one fact is another."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgeopt
from edgeopt import advising, formats, targets
from edgeopt import data as datasets
from edgeopt.advising import Fact, Guide, Known
from edgeopt.advising.probes import redundancy
from edgeopt.advising.rules import RULES, SOURCES, rule_for, steps
from edgeopt.cli import cli
from edgeopt.errors import ConfigError, DataError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import TECHNIQUES
from edgeopt.vocabulary import StoredWeight
from edgeopt.workspace import Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("advice")


@pytest.fixture(scope="module")
def known(digits_model: Path, folder: Path) -> Known:
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        return advising.gather(workspace, None)


@pytest.fixture(scope="module")
def guide(known: Known, digits_model: Path, folder: Path) -> Guide:
    return edgeopt.advise(digits_model, "digits", target="cortex-m4", folder=folder)


def _with(known: Known, target: str | None = None, **facts: float | bool | None) -> Known:
    """What is known, with other facts."""
    changed = {name: Fact(name, f"{name} is {value}", "made up", value) for name, value in facts.items()}
    device = known.target if target is None else targets.target(target)
    return replace(known, facts={**known.facts, **changed}, target=device)


def _verdict(known: Known, step: str) -> str:
    return rule_for(step, known).verdict


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_sentence_rests_on_facts_or_documents(known: Known) -> None:
    for rule in RULES:
        names = advising.named(rule.why)
        assert set(names) | set(rule.also) <= set(known.facts), rule.why
        assert set(rule.cites) <= set(SOURCES), rule.cites
        assert names or rule.cites, rule.why
    assert {name for rule in RULES for name in rule.cites} == set(SOURCES)
    used = {name for rule in RULES for name in (*advising.named(rule.why), *rule.also)}
    asked = set(re.findall(r'"(\w+)"', Path(advising.rules.__file__).read_text(encoding="utf-8")))
    # The command asks for labels.
    assert set(known.facts) - used - asked == {"labels"}


def test_every_technique_has_rules_that_always_end(known: Known) -> None:
    assert set(TECHNIQUES) <= set(steps())
    assert set(steps()) <= set(TECHNIQUES) | set(SCHEMES)
    for step in steps():
        last = [rule for rule in RULES if rule.step == step][-1]
        assert last.when(_with(known, **dict.fromkeys(known.facts)))


# --- facts that are otherwise ----------------------------------------------------------------------------------------


def test_what_int8_loses_decides_what_mends_it(known: Known) -> None:
    loses = _with(known, int8_loses=True, training=True)
    for step in ("calibrate", "correct-bias"):
        assert _verdict(known, step) == "skip"
        assert _verdict(loses, step) == "do"
        assert _verdict(_with(known, int8_loses=None), step) == "unknown"
        assert _verdict(_with(loses, samples=0), step) == "skip"
    assert [_verdict(one, "qat") for one in (known, loses, _with(loses, training=False))] == ["skip", "try", "skip"]
    assert _verdict(_with(known, int8_loses=None), "qat") == "unknown"
    assert [_verdict(one, "int16x8") for one in (known, loses)] == ["skip", "try"]


def test_four_bits_by_what_they_leave(known: Known) -> None:
    for left, expected in ((30.0, "try"), (20.0, "try"), (10.0, "skip"), (None, "unknown")):
        assert _verdict(_with(known, int4_error=left, graph=0.2, training=True), "int4") == expected
    assert _verdict(_with(known, int4_error=20.0, graph=0.2, training=False), "int4") == "skip"
    assert _verdict(_with(known, int4_error=30.0, graph=0.9), "int4") == "skip"
    assert _verdict(_with(known, int4_error=10.0, graph=0.2), "mixed") == "try"
    assert _verdict(_with(known, int4_error=30.0, graph=0.2), "mixed") == "skip"
    assert _verdict(_with(known, takes_int4=False), "int4") == "skip"


def test_a_device_without_room_asks_for_fewer_channels(known: Known) -> None:
    tight = _with(known, fits=False, training=True)
    assert [_verdict(tight, step) for step in ("shrink", "distill")] == ["do", "try"]
    assert _verdict(_with(tight, training=False), "shrink") == "try"
    assert _verdict(_with(known, training=False, fits=None), "shrink") == "skip"
    assert _verdict(_with(known, samples=0), "shrink") == "skip"
    assert _verdict(_with(known, training=True, duplicates=0.5), "shrink") == "try"


def test_zeros_and_few_values_only_where_a_device_gains(known: Known) -> None:
    for step, fact in (("prune", "sparsity"), ("cluster", "clusters")):
        assert _verdict(known, step) == "skip"
        assert _verdict(_with(known, **{fact: True}), step) == "try"


def test_uneven_channels(known: Known) -> None:
    assert _verdict(_with(known, unevenness=2.0), "equalize") == "skip"
    assert _verdict(_with(known, unevenness=1000.0), "equalize") == "try"


def test_redundancy_is_told_by_the_weights() -> None:
    random = np.random.default_rng(0)
    whole = random.normal(size=(32, 64))
    flat = random.normal(size=(32, 4)) @ random.normal(size=(4, 64))
    twins = np.concatenate([whole[:16], 2 * whole[:16]])
    gone = whole * (np.arange(32) >= 8)[:, None]
    plain, low, twin, dead = (_redundancy(kernel) for kernel in (whole, flat, twins, gone))
    assert plain.rank > 0.7
    assert (plain.duplicates, plain.dead) == (0, 0)
    assert low.rank <= 4 / 32
    assert twin.duplicates == 16 / 32
    assert dead.dead == 8 / 32
    assert redundancy(_file(())) is None


def _redundancy(kernel: np.ndarray) -> advising.probes.Redundancy:
    found = redundancy(_file((kernel.astype(np.float32),)))
    assert found is not None
    return found


def _file(kernels: tuple[np.ndarray, ...]) -> FileFacts:
    values = {f"kernel{n}": kernel for n, kernel in enumerate(kernels)}
    stored = {name: _stored(name, kernel) for name, kernel in values.items()}
    operators = tuple(
        OperatorFacts("FULLY_CONNECTED", name, (1, 1), True, 1, (one,), kind="dense") for name, one in stored.items()
    )
    weights = tuple(stored.values())
    return FileFacts("tflite", (), (), operators, weights, 0, {}, 0, False, lambda weight: values[weight.name])


def _stored(name: str, kernel: np.ndarray) -> StoredWeight:
    size = kernel.size
    return StoredWeight(
        name, kernel.shape, "float32", 32, "weights", "FULLY_CONNECTED", size, 4 * size, 0, size, size, 0, ""
    )


# --- models ----------------------------------------------------------------------------------------------------------


def test_what_is_foretold_comes_out(guide: Guide, folder: Path, digits_model: Path) -> None:
    items = {item.step: item for item in guide.items}
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        made = {name: workspace.converted(workspace.original, name).size_bytes for name in ("int8", "dynamic")}
    for name, size in made.items():
        foretold = items[name].size_bytes
        assert foretold is not None
        assert size is not None
        assert abs(foretold - size) < 0.1 * size
    assert (items["int8"].most_lost, items["shrink"].most_lost) == (0.5, None)
    assert items["int8"].verdict == "do"
    assert f"its int8 file has {made['int8']:,} bytes" in items["int8"].why
    assert "on cortex-m4" in items["int8"].why
    assert items["dynamic"].verdict == "skip"
    assert all(item.facts or item.sources for item in guide.items)
    assert guide.command[:3] == ("edgeopt", "optimize", str(digits_model))
    command = cli.get_command(None, "optimize")  # type: ignore[arg-type]
    assert command is not None
    command.make_context("optimize", list(guide.command[2:]))


def test_without_samples_the_command_converts_and_runs(digits_model: Path, tmp_path: Path) -> None:
    found = edgeopt.advise(digits_model)
    verdicts = {item.step: item.verdict for item in found.items}
    assert (verdicts["dynamic"], verdicts["int8"], verdicts["int4"]) == ("do", "unknown", "unknown")
    assert {item.step for item in found.of("skip")} >= {"qat", "shrink", "calibrate", "round", "mixed"}
    told = next(item for item in found.items if item.step == "qat")
    assert "there is nothing to train on" in told.why
    _type(found.command, tmp_path)
    (made,) = tmp_path.glob("*.tflite")
    assert formats.facts(made).is_quantized


def test_without_labels_the_command_repairs_and_runs(digits_model: Path, tmp_path: Path) -> None:
    (x,) = datasets.load("digits").calibration.arrays().inputs.values()
    data = tmp_path / "some.npz"
    np.savez(data, x=x)
    result = CliRunner().invoke(cli, ["advise", str(digits_model), "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    facts = {fact["name"]: fact for fact in found["facts"]}
    assert facts["int8_drop"]["origin"] == "not known"
    assert facts["int8_error"]["value"] > 20
    assert facts["int8_loses"]["value"] is False
    assert found["command"][:3] == ["edgeopt", "repair", str(digits_model)]
    assert found["command"][-2:] == ["--data", str(data)]
    _type(found["command"], tmp_path)
    assert formats.facts(tmp_path / found["command"][4]).is_quantized


def _type(command: Sequence[str], folder: Path) -> None:
    """Types the command that a guide ends with, its output in a folder: workers may have begun elsewhere."""
    words = [str(folder / word) if command[place] == "-o" else word for place, word in enumerate(command[1:])]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_with_labels_the_command_optimizes_and_runs(guide: Guide, tmp_path: Path) -> None:
    _type(guide.command, tmp_path)
    assert (tmp_path / "digits-optimized" / "best.tflite").is_file()


def test_people_read_the_guide_and_its_reasons(digits_model: Path, folder: Path) -> None:
    words = ["advise", str(digits_model), "--data", "digits", "-o", str(folder), "--quiet"]
    plain = CliRunner().invoke(cli, words).output
    alike = "- calibrate, correct-bias: no loss by int8 is shown"
    assert alike in plain
    heads = ("Do, in this order\n1. int8: ", "Worth trying", "Do not bother with", "Type: edgeopt optimize ")
    assert all(fragment in plain for fragment in heads), plain
    why = CliRunner().invoke(cli, [*words, "--why", "prune"]).output
    for fragment in ("prune: skip, because nothing is known to gain by zeros", "(not known)", "tensorflow/model-opt"):
        assert fragment in why, why


# --- what is odd -----------------------------------------------------------------------------------------------------


def test_a_quantized_file_is_told_what_it_came_from(digits_model: Path, folder: Path, guide: Guide) -> None:
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        file = folder / str(workspace.converted(workspace.original, "int8").file)
    found = edgeopt.advise(file)
    assert {item.verdict for item in found.items} == {"skip"}
    assert all("start from the float model that it was made of" in item.why for item in found.items)
    assert found.command[:2] == ("edgeopt", "inspect")
    _type(found.command, Path())


def test_a_subclassed_model_is_quantized_and_not_trained(keras_files: Path) -> None:
    found = edgeopt.advise(
        keras_files / "subclassed.keras", "digits", custom_objects=keras_files / "layers.py", given=("--data", "digits")
    )
    verdicts = {item.step: item for item in found.items}
    for step in ("shrink", "qat", "distill"):
        assert verdicts[step].verdict == "skip"
        assert "cannot be trained here" in verdicts[step].why
    assert verdicts["int8"].verdict in ("do", "unknown")


def test_what_does_not_fit_is_refused_in_words(digits_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a target, or FILE\.yaml of one's own, got 'cortex-m5'\."):
        edgeopt.advise(digits_model, target="cortex-m5")
    with pytest.raises(DataError, match="Expected"):
        edgeopt.advise(digits_model, {"x": np.zeros((40, 5, 5, 1), np.float32)})
    result = CliRunner().invoke(cli, ["advise", str(digits_model), "--why", "prun"])
    assert isinstance(result.exception, ConfigError)
    assert "Expected a step of the guide as --why, got 'prun'. Did you mean 'prune'" in str(result.exception)
