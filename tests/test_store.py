"""What a store gives back is what was put in, to whoever asks first and to whoever waits."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeopt.store import Store


@dataclass(frozen=True)
class Measured:
    """Numbers as they come."""

    best: float
    rows: tuple[np.ndarray, ...]
    name: str = "array:0"


def test_infinities_and_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    values = np.array([math.inf, -math.inf, math.nan, 0.1])
    integers = np.arange(6, dtype=np.int16).reshape(2, 3)
    put = Measured(-math.inf, (values, integers))
    Store(tmp_path).remember("score", {"of": 1}, Measured, lambda: put)
    got = Store(tmp_path).remember("score", {"of": 1}, Measured, lambda: Measured(0.0, ()))
    assert (got.best, got.name) == (put.best, put.name)
    for ours, theirs in zip(got.rows, put.rows, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_rows_take_no_more_than_as_arrays(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((10_000, 10))
    Store(tmp_path).remember("score", {}, Measured, lambda: Measured(0.0, (rows,)))
    (file,) = (tmp_path / ".edgeopt").iterdir()
    assert file.stat().st_size < 1.02 * rows.nbytes


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Measured:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Store(tmp_path / "new").remember("score", {}, Measured, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember("score", {}, Measured, lambda: Measured(1.0, ()))
    (file,) = (tmp_path / ".edgeopt").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert store.remember("score", {}, Measured, lambda: Measured(2.0, ())).best == 2.0


# Two of these in one folder: the second finds what the first one made.
SLOW = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from edgeopt.store import Store

@dataclass(frozen=True)
class Answer:
    who: str

def work():
    time.sleep(2)
    return Answer(sys.argv[2])

print(Store(Path(sys.argv[1])).remember("slow", {}, Answer, work).who)
"""


def test_what_one_process_makes_the_other_waits_for(tmp_path: Path) -> None:
    def start(who: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path), who], stdout=subprocess.PIPE, text=True)

    first = start("first")
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob(".*.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = start("second")
    assert first.communicate(timeout=60)[0].strip() == "first"
    assert second.communicate(timeout=60)[0].strip() == "first"
    assert [file.name.partition("-")[0] for file in (tmp_path / ".edgeopt").iterdir()] == ["slow"]


def test_the_lock_of_a_killed_process_is_nobody_s(tmp_path: Path) -> None:
    held = subprocess.Popen([sys.executable, "-c", SLOW.replace("sleep(2)", "sleep(60)"), str(tmp_path), "killed"])
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob(".*.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    held.kill()
    held.wait()
    assert Store(tmp_path).remember("slow", {}, Measured, lambda: Measured(3.0, ())).best == 3.0
