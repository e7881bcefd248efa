"""Progress: where a command is, how long the whole of it will take, and what of that stays on a screen."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeopt.progress import Outlook, Progress, Stage
from edgeopt.showing.course import Course, in_words
from edgeopt.showing.narrow import narrowed
from edgeopt.showing.pipe import SeldomLines
from edgeopt.showing.values import Shown


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def on_a_terminal(code: str, columns: int = 80) -> str:
    """Returns what Python code prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's end of file
                break
            if not piece:
                break
            shown += piece
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return shown.decode()


def on_the_screen(shown: str) -> list[str]:
    """Returns the lines that stand on a terminal after all of `shown`, which moves up and erases whole lines alone."""
    lines, row = [""], 0
    for code, what, character in re.findall(r"\x1b\[[?]?([\d;]*)([A-Za-z])|([^\x1b])", shown):
        if what == "K":
            assert code == "2"
            lines[row] = ""
        elif what == "A":
            row -= int(code)
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character and character != "\r":
            lines[row] += character
    return [line.rstrip() for line in lines if line.strip()]


# --- the course of a command -----------------------------------------------------------------------------------------


def test_time_left_is_of_all_stages_and_learns_from_what_the_first_took(clock: Clock) -> None:
    course = Course(clock)
    course.take(Outlook((Stage("converting", 10), Stage("scoring", 5), Stage("timing", 20))))
    course.take(Progress("converting", 0, 4))
    assert course.place().left_s is None
    clock.now = 8.0
    course.take(Progress("converting", 1, 4))
    place = course.place()
    # A quarter took 8 s, three are left; the whole took 32 s where 10 were guessed, and so will the others.
    assert (place.number, place.count, place.tasks) == (1, 3, ("converting 1/4",))
    assert place.left_s == pytest.approx(3 * 8 + (5 + 20) * 32 / 10)
    assert place.share == pytest.approx(8 / (8 + 3 * 8 + (5 + 20) * 32 / 10))
    clock.now = 32.0
    course.take(Progress("converting", 4, 4))
    assert [(stage.name, stage.seconds) for stage in course.finished()] == [("converting", 32.0)]
    course.take(Progress("scoring"))
    assert course.place().left_s == pytest.approx((5 + 20) * 32 / 10)
    clock.now = 36.0
    assert course.place().left_s == pytest.approx(5 * 32 / 10 - 4 + 20 * 32 / 10)


def test_what_is_inside_a_stage_counts_for_it(clock: Clock) -> None:
    course = Course(clock)
    course.take(Outlook((Stage("shrink", 10),)))
    course.take(Progress("shrink"))
    clock.now = 100.0  # before anything was counted
    course.take(Progress("rounds", 0, 2))
    course.take(Progress("recovering", 0, 10, "epoch 1 of 5"))
    clock.now = 110.0
    course.take(Progress("recovering", 5, 10, "epoch 3 of 5"))
    place = course.place()
    assert place.tasks == ("shrink", "rounds 0/2", "recovering 5/10")
    # A quarter of both rounds took 10 s.
    assert place.left_s == pytest.approx(3 * 10)
    clock.now = 120.0
    course.take(Progress("recovering", 10, 10, "epoch 5 of 5"))
    course.take(Progress("rounds", 1, 2))
    assert course.place().left_s == pytest.approx(20)
    assert course.place().detail == "epoch 5 of 5"


def test_training_is_no_measure_of_measuring(clock: Clock) -> None:
    course = Course(clock)
    course.take(
        Outlook(
            (Stage("loading", 5), Stage("qat", 10, "training"), Stage("scoring", 5), Stage("prune", 20, "training"))
        )
    )
    course.take(Progress("loading"))
    clock.now = 5.0
    course.take(Progress("qat"))
    assert course.place().left_s is None  # most of it is a guess
    course.take(Progress("epochs", 1, 10))
    clock.now = 6.0
    course.take(Progress("epochs", 2, 10))
    # 1 s for two tenths: 5 s where 10 were guessed. Scoring goes by loading, which took what was guessed.
    assert course.place().left_s == pytest.approx(4 + 5 + 20 * 5 / 10)


def test_between_stages_the_next_one_is_named(clock: Clock) -> None:
    course = Course(clock)
    course.take(Outlook((Stage("loading", 5), Stage("scoring", 5))))
    course.take(Progress("loading", 0, 1))
    course.take(Progress("loading", 1, 1))
    assert course.place().words() == "2/2 scoring"
    course.take(Progress("reading the file"))
    assert course.place().words() == "2/2 scoring, reading the file"
    course.take(Progress("scoring", 1, 1))
    assert course.place().words() == "finishing"


def test_what_was_remembered_says_nothing_of_what_is_to_come(clock: Clock) -> None:
    course = Course(clock)
    course.take(Outlook((Stage("loading", 5), Stage("scoring", 5))))
    course.take(Progress("loading", 0, 1))
    clock.now = 0.01
    course.take(Progress("loading", 1, 1))
    course.take(Progress("scoring", 1, 5))
    clock.now = 1.01
    assert course.place().left_s == pytest.approx(4)


def test_without_an_outlook_the_time_is_of_the_outermost_task(clock: Clock) -> None:
    course = Course(clock)
    assert course.place().words() == "starting"
    course.take(Progress("evaluate", 0, 100))
    clock.now = 3.0
    course.take(Progress("evaluate", 25, 100))
    place = course.place()
    assert (place.words(), place.left_s, place.share) == ("evaluate 25/100", 9.0, 0.25)
    course.take(Progress("evaluate", 100, 100))
    assert course.finished() == []


def test_a_narrow_line_loses_what_is_between_stage_and_detail(clock: Clock) -> None:
    course = Course(clock)
    course.take(Outlook((Stage("shrink", 10), Stage("scoring", 1))))
    course.take(Progress("shrink"))
    course.take(Progress("rounds", 0, 2))
    course.take(Progress("recovering", 5, 10, "epoch 3 of 5, loss 0.25"))
    place = course.place()
    assert place.words() == "1/2 shrink, rounds 0/2, recovering 5/10, epoch 3 of 5, loss 0.25"
    assert place.words(58) == "1/2 shrink, recovering 5/10, epoch 3 of 5, loss 0.25"
    assert place.words(40) == "1/2 shrink, epoch 3 of 5, loss 0.25"
    assert place.words(20) == "1/2 shrink, epoch 3…"


@pytest.mark.parametrize(("seconds", "words"), [(6.6, "0:07"), (750, "12:30"), (3723, "1:02:03")])
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# --- where it is shown -----------------------------------------------------------------------------------------------

COMMAND = """
import time
from edgeopt import progress
from edgeopt.cli import common
stages = [progress.Stage("converting", 1), progress.Stage("qat", 2, "training"), progress.Stage("scoring", 1)]
with common.progress_shown(quiet=False):
    time.sleep(0.2)
    progress.foresee(stages)
    for _ in progress.track(range(2), "converting", 2):
        progress.tell("loading [/x] the model")
        time.sleep(0.2)
    progress.tell("qat")
    for batch in range(1, 31):
        time.sleep(0.02)
        words = f"epoch {(batch + 9) // 10} of 3, loss 0.{batch}, accuracy 97.1%"
        progress.tell("training in int8", batch, 30, words)
    progress.tell("scoring", 0, 1)
    time.sleep(0.2)
    progress.tell("scoring", 1, 1)
print("the end")
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_has_one_live_line_and_one_for_each_stage_that_is_done(columns: int) -> None:
    shown = on_a_terminal(COMMAND, columns)
    for fragment in (
        "starting",
        "1/3 converting 1/2, loading [/x] the model",
        "2/3 qat",
        "epoch 2 of 3, loss",
        " left",
    ):
        assert fragment in shown, fragment
    assert on_the_screen(shown) == [
        "     0:00  converting",
        "     0:01  qat, epoch 3 of 3, loss 0.30, accuracy 97.1%",
        "     0:00  scoring",
        "the end",
    ]
    frames = [line for line in shown.replace("\x1b[2K", "\r").replace("\n", "\r").split("\r") if " left" in line]
    assert frames
    assert all(len(line) <= columns - 1 for line in frames)


def test_what_is_not_foreseen_leaves_nothing_on_a_terminal() -> None:
    code = COMMAND.replace("progress.foresee(stages)", "pass")
    assert on_the_screen(on_a_terminal(code)) == ["the end"]


def test_a_pipe_gets_a_plain_line_a_minute(clock: Clock) -> None:
    file = io.StringIO()
    lines = SeldomLines(file, clock)
    lines.take(Outlook((Stage("converting", 10),)))
    for second in range(0, 151):
        clock.now = float(second)
        lines.take(Progress("converting", second, 200))
    assert file.getvalue().splitlines() == [
        "1:00 1/1 converting 60/200, 2:20 left",
        "2:00 1/1 converting 120/200, 1:20 left",
    ]


def test_a_pipe_gets_no_line_that_says_nothing(clock: Clock) -> None:
    """A task that ends as the minute is over leaves no words; what comes next says where the command is."""
    file = io.StringIO()
    lines = SeldomLines(file, clock)
    lines.take(Progress("loading", 0, 1))
    clock.now = 61.0
    lines.take(Progress("loading", 1, 1))
    clock.now = 62.0
    lines.take(Progress("converting", 1, 4))
    assert [line.rpartition(",")[0] or line for line in file.getvalue().splitlines()] == ["1:02 converting 1/4"]


def test_short_work_is_silent_in_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("the end\n", "")


# --- results in notebooks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    name: str
    share: float


@dataclass(frozen=True)
class Result(Shown):
    size_bytes: int
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    best: Part | None = None


def test_a_notebook_shows_a_result_as_a_table() -> None:
    shown = Result(12_345, (Part("<b>\x1b", 0.123456),), versions={"numpy": "1.26"})._repr_html_()
    part = "<table><tr><th>name</th><td>&lt;b&gt;\ufffd</td></tr><tr><th>share</th><td>0.1235</td></tr></table>"
    assert shown == (
        "<table><tr><th>size bytes</th><td>12,345</td></tr>"
        f"<tr><th>parts</th><td>{part}</td></tr>"
        "<tr><th>versions</th><td>numpy: 1.26</td></tr></table>"
    )
    assert "1<br>and 7 more" in Result(1, (), notes=("1",) * 57)._repr_html_()


def test_results_of_the_api_are_shown() -> None:
    from edgeopt.api.compress import Compressed
    from edgeopt.api.convert import Conversion
    from edgeopt.benchmarking import Benchmark
    from edgeopt.comparison import Comparison

    assert all(issubclass(kind, Shown) for kind in (Benchmark, Comparison, Compressed, Conversion))


def test_a_narrow_terminal_does_without_columns_rather_than_with_pieces_of_words() -> None:
    from rich.console import Console
    from rich.table import Table

    def shown(width: int) -> str:
        table = Table(box=None, pad_edge=False)
        for header, options in (("name", {"min_width": 10}), ("least", {"no_wrap": True}), ("less", {"no_wrap": True})):
            table.add_column(header, overflow="fold", **options)
        table.add_row("long_name_" * 3, "1234567890", "1234567")
        console = Console(width=width, file=io.StringIO())
        console.print(narrowed(table, width, ("least", "less")))
        return console.file.getvalue()  # type: ignore[attr-defined]

    # 10 of the name, then each column and 2 characters behind it.
    whole = (10 + 2) + (10 + 2) + (7 + 2)
    assert all(text in shown(whole) for text in ("long_name_", "1234567890", "1234567"))
    assert "no room" not in shown(whole)
    assert "1234567890" not in shown(whole - 1)
    assert "no room for least:" in shown(whole - 1)
    assert "1234567\n" in shown(whole - 1)
    assert "1234567\n" in shown((10 + 2) + (7 + 2)).replace(" ", "")
    assert "no room for least, less" in " ".join(shown((10 + 2) + (7 + 2) - 1).split())
    assert "long_name_" in shown(12)
