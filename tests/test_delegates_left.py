"""What Android's delegates leave on the CPU: each rule has its source, and names what a file has that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import tflite_models

import edgeopt
from edgeopt import delegates
from edgeopt.delegates import DELEGATES
from edgeopt.errors import ConfigError
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("left") / "cnn.tflite"
    path.write_bytes(tflite_models.convert(tflite_models.cnn, "float32"))
    return path


@pytest.mark.parametrize("name", DELEGATES)
def test_every_rule_has_a_source(name: str) -> None:
    known = delegates.rules(name)
    assert known.source.startswith("https://")
    assert bool(known.operators) != bool(known.unknown)
    assert all(rule.source for rule in known.operators.values())


def test_a_plain_network_is_taken_whole_and_npus_are_not_known(file: Path) -> None:
    for name in ("gpu", "nnapi"):
        assert edgeopt.inspect(file, delegate=name).verdicts[f"{name} delegate"] == ()
    found = edgeopt.inspect(file, delegate="npu")
    assert "npu delegate" not in found.verdicts
    assert found.notes[-1].startswith(
        "which operators stay on the CPU with an NPU through LiteRT's compiled models (Qual"
    )
    assert "is not known here: its maker's compiler decides, chip by chip" in found.notes[-1]


def test_what_is_refused_is_named_with_reason_and_source(file: Path) -> None:
    def newer(model: object, schema: object) -> None:
        for code in model.operatorCodes:  # type: ignore[attr-defined]
            code.version = 9

    changed = read(rewrite.changed(file.read_bytes(), newer))
    rows = {row.operator: row for row in delegates.left(changed, "gpu")}
    assert rows["CONV_2D"].count == 2
    assert rows["CONV_2D"].reason == "version 9 of it, the delegate knows 6 at most"
    assert rows["CONV_2D"].source.endswith("tflite/delegates/gpu/common/model_builder.cc#L616")
    assert "FULLY_CONNECTED" not in rows
    summed = read(tflite_models.convert(tflite_models.with_a_float_operator, "float32"))
    (row,) = delegates.left(summed, "nnapi")
    assert (row.operator, row.reason) == ("CUMSUM", "the delegate has no such operator")
    words = delegates.verdict(summed, "nnapi")
    assert words[0].startswith("1 x CUMSUM stays on the CPU: the delegate has no such operator (https://")


def test_other_files_and_delegates_are_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a \.tflite with --delegate gpu, got m\.keras"):
        edgeopt.inspect("m.keras", delegate="gpu")
    with pytest.raises(ConfigError, match="gpu"):
        edgeopt.inspect(file, delegate="gpuu")
