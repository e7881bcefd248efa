"""The packaged pattern rules under real make: every scheme has one, only what changed is rebuilt, nothing half done."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeopt import makefile
from edgeopt.cli import COMMANDS
from edgeopt.compilers import COMPILERS
from edgeopt.data import SOURCES
from edgeopt.schemes import SCHEMES

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed (Debian: apt install make)")

OTHER_TARGETS = ("m.report", "m.report/best.tflite", "m.inspect.json", "h.inspect.json", "m.int8.inspect.json")
MEASURED = ("m.int8.eval.json", "m.int8.bench.json")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that includes the rules first of all, then has a goal of its own."""
    (tmp_path / "Makefile").write_text(
        f"DATA ?= train.npz\nEDGEOPT := {shlex.quote(sys.executable)} -m edgeopt\ninclude {makefile.path()}\n"
        "own: ; @echo own goal\n"
    )
    for name in ("m.keras", "h.h5", "train.npz"):
        (tmp_path / name).touch()
    return tmp_path


def make(folder: Path, *arguments: str, fails: bool = False) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "DATA", "SCHEME")}
    done = subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=500, env=environment
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def add(folder: Path, lines: str) -> None:
    makefile_there = folder / "Makefile"
    makefile_there.write_text(makefile_there.read_text() + lines)


def commands(output: str) -> list[list[str]]:
    """Returns the arguments of each edgeopt command that make printed."""
    lines = [shlex.split(line.partition(" > ")[0]) for line in output.splitlines() if "-m edgeopt" in line]
    return [line[line.index("edgeopt") + 1 :] for line in lines]


def done_in_the_past(folder: Path, *names: str) -> None:
    """Lets the files look made one second after another, long ago."""
    for age, name in enumerate(reversed(names)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - 1000 - age, time.time() - 1000 - age))


def test_the_packaged_file_is_there() -> None:
    assert makefile.path().is_file()
    assert makefile.path().suffix == ".mk"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", ["m.keras", "h.h5"])
def test_every_scheme_has_its_rule(project: Path, scheme: str, model: str) -> None:
    file = f"{Path(model).stem}.{scheme}.tflite"
    (arguments,) = commands(make(project, "-n", file))
    expected = ["convert", model, "-o", file, "--scheme", scheme, "--force"]
    assert arguments == expected + ["--data", "train.npz"] * SCHEMES[scheme].needs_calibration


@pytest.mark.parametrize("model", ["m.keras", "h.h5"])
def test_what_is_calibrated_can_be_repaired(project: Path, model: str) -> None:
    file = f"{Path(model).stem}.repaired.int8-per-tensor.tflite"
    (arguments,) = commands(make(project, "-n", file))
    assert arguments == [
        "repair",
        model,
        "-o",
        file,
        *["--scheme", "int8-per-tensor", "--force", "--data", "train.npz"],
    ]


def test_the_rules_know_no_other_schemes(project: Path) -> None:
    add(project, "$(info $(EDGEOPT_FLOAT_SCHEMES)/$(EDGEOPT_CALIBRATED_SCHEMES)/$(EDGEOPT_ONNX_SCHEMES))\n")
    plain, calibrated, onnx = make(project).splitlines()[0].split("/")
    assert onnx.split() == list(COMPILERS["tf2onnx"].sources)
    assert plain.split() == [name for name, scheme in SCHEMES.items() if not scheme.needs_calibration]
    assert calibrated.split() == [name for name, scheme in SCHEMES.items() if scheme.needs_calibration]


def test_every_command_is_one_that_edgeopt_takes(project: Path) -> None:
    targets = [f"m.{scheme}.tflite" for scheme in SCHEMES] + [
        "m.int8.onnx",
        *OTHER_TARGETS,
        *MEASURED,
        "m.repaired.int8.tflite",
    ]
    variables = ["RUNTIME=litert tflite-runtime==2.14.0", "THREADS=2", "SCHEME=int8 float16"]
    seen = commands(make(project, "-n", *targets, *variables))
    for verb, *arguments in seen:
        parsed = importlib.import_module(COMMANDS[verb]).command.make_context(verb, arguments)
        assert not parsed.args
    assert {verb for verb, *_ in seen} == {"convert", "repair", "optimize", "inspect", "evaluate", "benchmark"}
    by_verb = {verb: " ".join(arguments) for verb, *arguments in seen}
    assert "--scheme int8 --scheme float16" in by_verb["optimize"]
    assert "--runtime litert --runtime tflite-runtime==2.14.0" in by_verb["benchmark"]
    assert by_verb["evaluate"].count("--runtime") == 1
    assert "--threads 2" in by_verb["evaluate"]


def test_flags_go_to_every_command_or_to_one(project: Path) -> None:
    output = make(project, "-n", "m.int8.bench.json", "EDGEOPT_FLAGS=--quiet", "EDGEOPT_FLAGS_benchmark=--runs 50")
    convert, benchmark = commands(output)
    assert convert[-1] == "--quiet"
    assert benchmark[-4:] == ["--quiet", "--runs", "50", "--json"]


def test_whoever_includes_the_rules_keeps_their_goal_and_help_says_all(project: Path) -> None:
    assert make(project) == "own goal\n"
    text = make(project, "edgeopt-help")
    for word in (*SCHEMES, "DATA", "SCHEME", "RUNTIME", "THREADS", "EDGEOPT_FLAGS", "bench.json", "[train.npz]"):
        assert word in text


def test_only_what_changed_is_rebuilt(project: Path) -> None:
    made = ("m.float32.tflite", "m.int8.tflite", "m.int8.eval.json", "m.int8.bench.json", "m.report/.edgeopt/made")
    targets = (*made[:-1], "m.report")
    done_in_the_past(project, "m.keras", "train.npz", *made)
    for target in targets:
        assert "is up to date" in (said := make(project, target)) or "Nothing to be done" in said

    (project / "train.npz").touch()
    assert [c[0] for c in commands(make(project, "-n", *targets))] == ["convert", "evaluate", "benchmark", "optimize"]
    done_in_the_past(project, "m.keras", "train.npz", *made)
    (project / "m.keras").touch()
    assert [c[0] for c in commands(make(project, "-n", *targets))] == [
        *("convert", "convert", "evaluate", "benchmark", "optimize")
    ]
    done_in_the_past(project, "m.keras", "train.npz", *made)
    (project / "m.int8.tflite").touch()
    assert [c[0] for c in commands(make(project, "-n", *targets))] == ["evaluate", "benchmark"]


@pytest.mark.parametrize("suffix", sorted({suffix for source in SOURCES.values() for suffix in source.suffixes}))
def test_data_files_are_prerequisites_even_before_they_exist(project: Path, suffix: str) -> None:
    said = make(project, "m.int8.tflite", f"DATA=none{suffix}", fails=True)
    assert f"No rule to make target 'none{suffix}', needed by" in said


def test_data_that_another_rule_makes_are_made_first(project: Path) -> None:
    add(project, "made.npz: ; touch $@\n")
    output = make(project, "-n", "m.int8.tflite", "DATA=made.npz")
    assert output.index("touch made.npz") < output.index("convert")


def test_names_and_folders_of_data_are_no_prerequisites(project: Path) -> None:
    (project / "pictures").mkdir()
    for name in ("digits", "pictures", "package.module:function"):
        (arguments,) = commands(make(project, "-n", "m.int8.tflite", f"DATA={name}"))
        assert arguments[-2:] == ["--data", name]
        done_in_the_past(project, "m.keras", "m.int8.tflite")
        assert "is up to date" in make(project, "m.int8.tflite", f"DATA={name}")
        (project / "m.int8.tflite").unlink()


def test_a_failed_command_leaves_nothing_and_fails_make(project: Path) -> None:
    (project / "text.tflite").write_text("no model at all, but text of some length")
    before = sorted(project.iterdir())
    said = make(project, "text.inspect.json", fails=True)
    assert "Error 2" in said
    assert "Traceback" not in said
    assert sorted(project.iterdir()) == before


def test_a_real_model_goes_through_the_rules(project: Path) -> None:
    from edgeopt.frameworks import load

    keras = load("keras")
    layers = keras.layers
    keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10, "softmax")]
    ).save(project / "m.keras")
    targets = ("m.int8.inspect.json", "m.int8.eval.json", "m.int8.bench.json")
    variables = ("DATA=digits", "EDGEOPT_FLAGS_benchmark=--runs 20")
    make(project, *targets, *variables)
    inspection, evaluation, benchmark = (json.loads((project / target).read_text()) for target in targets)
    assert inspection["parameters"] >= 3 * 3 * 4 + 6 * 6 * 4 * 10
    assert evaluation["metric"]["name"] == "top1"
    assert benchmark["rows"][0]["result"]["latency_ms"]["runs"] == 20
    # Made on the way to the measurements, and kept.
    assert (project / "m.int8.tflite").stat().st_size > 1000
    assert all("is up to date" in line for line in make(project, *targets, *variables).splitlines())
    os.utime(project / "m.int8.tflite")
    assert [c[0] for c in commands(make(project, *targets, *variables))] == ["inspect", "evaluate", "benchmark"]


def test_a_report_that_was_not_finished_is_not_called_done(project: Path) -> None:
    done_in_the_past(project, "m.keras", "train.npz")
    for _ in range(2):
        assert "Killed" in make(project, "m.report", "EDGEOPT=kill -9 $$$$;", fails=True)
    done_in_the_past(project, "mine.report/notes.txt")
    os.utime(project / "mine.report", (0, 0))
    (project / "mine.keras").touch()
    make(project, "mine.report", fails=True)
    assert [path.name for path in (project / "mine.report").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_real_report_is_made_once_and_kept_when_a_budget_breaks(project: Path) -> None:
    from edgeopt.frameworks import load

    keras = load("keras")
    keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]).save(
        project / "m.keras"
    )
    variables = ("DATA=digits", "SCHEME=int8")
    said = make(project, "m.report", *variables, "EDGEOPT_FLAGS_optimize=--max-size 10", fails=True)
    assert "Error 3" in said
    assert (project / "m.report" / "best.tflite").is_file()
    assert [c[0] for c in commands(make(project, "m.report", *variables))] == ["optimize"]
    assert json.loads((project / "m.report" / "report.json").read_text())["best"]
    said = make(project, "m.report", "m.report/best.tflite", *variables)
    assert not commands(said)
