"""A runtime is one file and one line: with both, everything that runs files runs them on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runtime_models

from edgeopt import data, doctor, parity, runtimes
from edgeopt.benchmarking import benchmark
from edgeopt.comparison import compare
from edgeopt.errors import UnavailableError
from edgeopt.evaluation import evaluate
from edgeopt.runtimes import RUNTIMES, Runtime, parse
from edgeopt.runtimes.probe import model

ROW = Runtime("tiny", "tiny_runtime", "tiny", "reference", "NumPy", frozenset({"time", "resize"}))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "tiny", ROW)


@pytest.fixture
def add(tmp_path: Path) -> Path:
    """A file that gives back twice its input, of four numbers."""
    (tmp_path / "add.tflite").write_bytes(model())
    return tmp_path / "add.tflite"


@pytest.fixture
def doubled() -> data.Part:
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return data.load((x, 2 * x), validation_share=1).validation


@pytest.mark.usefixtures("tiny")
def test_it_is_evaluated_timed_and_compared(add: Path, doubled: data.Part) -> None:
    assert runtimes.available(ROW).available
    assert evaluate(add, doubled, runtime="tiny").metric.value == 0
    done = benchmark([add], runtimes=["litert", "tiny"], runs=10, profile=True)
    assert [(row.result.name, row.result.status) for row in done.rows] == [("litert", "ok"), ("tiny", "ok")]
    assert any("tiny gives no times of single operators. Try --runtime litert" in note for note in done.rows[1].notes)
    rows = parity.check(add, runtimes.to_try([], form="tflite"), doubled)
    assert (rows[-1].name, rows[-1].version, rows[-1].matches_reference) == ("tiny", "1.0", True)
    found = compare(add, add, doubled, runtime_b="tiny")
    assert [output.equal for output in found.outputs] == [True]
    assert any("intermediate tensors were not compared: tiny keeps no activations" in note for note in found.notes)


@pytest.mark.usefixtures("tiny")
def test_what_it_cannot_is_said(add: Path) -> None:
    (row,) = parity.check(runtime_models.models()["float32"], [parse("tiny")])
    assert (row.status, row.reason.split("; ")[0]) == ("failed", "CONV_2D is no ADD")
    session = runtimes.open_session(add, ROW)
    with pytest.raises(UnavailableError, match=r"tiny measures no flash and RAM\. Try --runtime qemu-cortex-m3 or"):
        session.footprint({})


def test_the_doctor_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RUNTIMES", {"tiny": ROW})
    monkeypatch.setattr(runtimes, "available", lambda _: runtimes.Availability(False, "no NumPy"))
    (found,) = doctor._runtimes()
    assert (found.works, found.hint, found.detail) == (False, "pip install tiny", "no NumPy")
