"""A run that is killed, interrupted and told something else in between: it continues, and redoes only what changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import COMMAND, edgeopt, surroundings, temporary_files

from edgeopt.tflite.reader import read

WORDS = ("--data", "digits", "-o", "out", "--scheme", "float16", "--scheme", "int8", "--quiet")
SCHEMES = 3  # with the float baseline
PATIENCE_S = 120


def start(model: Path, folder: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "optimize", str(model), *WORDS]
    return subprocess.Popen(
        command, cwd=folder, env=surroundings(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns time and content of every stored file and result."""
    files = [
        file
        for part in ("out/.edgeopt/artifacts", "out/.edgeopt")
        for file in (folder / part).glob("*")
        if file.is_file() and not file.name.startswith(".") and file.name != "inputs.json"
    ]
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def conversions(folder: Path) -> list[str]:
    """Returns the names of the conversions that were stored."""
    return [name for name in finished(folder) if name.startswith("convert-")]


def wait_for_conversions(count: int, process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """Waits until so many conversions are stored, and returns the worker processes."""
    deadline = time.monotonic() + PATIENCE_S
    while len(conversions(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    return workers


def assert_gone(workers: list[psutil.Process]) -> None:
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    assert len(gone) == len(workers)


def assert_whole(folder: Path) -> None:
    """Every file under a final name can be read to its end."""
    for file in (folder / "out").rglob("*"):
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix == ".tflite":
            assert read(file).subgraphs[0].operators
        elif file.suffix == ".json":
            json.loads(file.read_text())
        else:
            assert zipfile.ZipFile(file).testzip() is None


@pytest.fixture(scope="module")
def story(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Killed after one conversion, interrupted after the second, then left to finish, then run once more."""
    folder = tmp_path_factory.mktemp("story")
    told: dict[str, Any] = {"folder": folder}

    process = start(digits_model, folder)
    workers = wait_for_conversions(1, process, folder)
    process.kill()
    process.wait()
    assert_gone(workers)
    assert_whole(folder)
    told["after the kill"] = finished(folder)
    told["leftovers of the kill"] = os.listdir(temporary_files(folder))

    process = start(digits_model, folder)
    workers = wait_for_conversions(2, process, folder)
    process.send_signal(signal.SIGINT)
    told["printed"], told["said"] = process.communicate(timeout=PATIENCE_S)
    told["status"] = process.returncode
    assert_gone(workers)
    assert_whole(folder)
    told["after Ctrl-C"] = finished(folder)
    told["leftovers of Ctrl-C"] = os.listdir(temporary_files(folder))
    told["hidden after Ctrl-C"] = [p.name for p in (folder / "out/.edgeopt/artifacts").glob(".*")]

    told["last"] = edgeopt("optimize", digits_model, *WORDS, folder=folder)
    told["finished"] = finished(folder)
    return told


def test_nothing_half_written_and_nobody_left_behind(story: dict[str, Any]) -> None:
    assert story["leftovers of the kill"] == []
    assert story["leftovers of Ctrl-C"] == []
    # What a kill leaves hidden is the kill's; Ctrl-C adds nothing.
    assert len(story["hidden after Ctrl-C"]) <= 1


def test_ctrl_c_is_one_line_and_status_130(story: dict[str, Any]) -> None:
    assert story["status"] == 128 + signal.SIGINT
    assert story["printed"] == ""
    assert story["said"].strip() == (
        "Interrupted: nothing half-written is left. An `edgeopt optimize` continues when it is run again."
    )


def test_what_was_done_is_not_done_again(story: dict[str, Any]) -> None:
    assert story["last"].returncode == 0, story["last"].stderr
    killed, interrupted, done = story["after the kill"], story["after Ctrl-C"], story["finished"]
    assert len([name for name in done if name.startswith("convert-")]) == SCHEMES
    stored = [name for name in killed if name.startswith(("convert-", "load-"))]
    assert len(stored) >= 2
    for name in stored:
        assert done[name] == killed[name], f"{name} was made anew"
    assert {name: done[name] for name in interrupted if name.startswith(("convert-", "load-"))} == {
        name: value for name, value in interrupted.items() if name.startswith(("convert-", "load-"))
    }
    files = [name for name in killed if name.endswith(".tflite")]
    converted = [name for name in stored if name.startswith("convert-")]
    # One that was written and not yet noted when the kill came is written once more.
    assert sum(done[name] == killed[name] for name in files) >= len(converted) >= 1


def test_a_changed_input_starts_anew_and_says_why(story: dict[str, Any], digits_model: Path) -> None:
    folder = story["folder"]
    before, int8 = finished(folder), (folder / "out/variants/digits.int8.tflite").read_bytes()
    words = [*WORDS, "--calibration-samples", "50", "--json"]
    done = edgeopt("optimize", digits_model, *words, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "the data changed since the last run in this folder: done anew" in json.loads(done.stdout)["warnings"]
    after = finished(folder)
    assert (folder / "out/variants/digits.int8.tflite").read_bytes() != int8
    # The calibration samples are int8's alone: what does not depend on them is as it was.
    assert len([name for name in after if name.startswith("convert-")]) == SCHEMES + 1
    assert {name: after[name] for name in before if name.endswith(".tflite")} == {
        name: value for name, value in before.items() if name.endswith(".tflite")
    }


def test_sigterm_clears_up_as_ctrl_c_does(digits_model: Path, tmp_path: Path) -> None:
    process = start(digits_model, tmp_path)
    deadline = time.monotonic() + PATIENCE_S
    while not (workers := psutil.Process(process.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (128 + signal.SIGTERM, "")
    assert_gone(workers)
    assert os.listdir(temporary_files(tmp_path)) == []
