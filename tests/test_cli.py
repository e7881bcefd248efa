"""The command line: help, options, exit statuses, and what reaches standard output and standard error."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import pytest
from command_line import COMMAND, assert_clean, edgeopt, surroundings
from rich.table import Table

from edgeopt import makefile, progress
from edgeopt.cli import COMMANDS, cli, common
from edgeopt.data import load
from edgeopt.report import schema
from edgeopt.runtimes import RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.tflite.reader import read

ASKED_BYTES = 1000  # fewer than any variant has


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_holds_one_example_that_parses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = edgeopt(name, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    example = next(line.strip() for line in done.stdout.splitlines() if line.startswith("    "))
    if name == "makefile":
        assert example == "include $(shell edgeopt makefile)"
        return
    words = shlex.split(example)
    assert words[:2] == ["edgeopt", name]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    monkeypatch.chdir(tmp_path)
    for word in words[2:]:
        if word.endswith(".tflite"):
            Path(word).touch()
    command.make_context(name, words[2:])


def test_help_needs_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from edgeopt.cli import COMMANDS, cli\n"
        "for words in ([], *([name] for name in COMMANDS)):\n"
        "    assert cli.main([*words, '--help'], standalone_mode=False) == 0\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'rich', 'ai_edge_litert'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_list_of_commands_is_whole_and_uncut(tmp_path: Path) -> None:
    shown = edgeopt("--help", folder=tmp_path).stdout
    commands = shown.partition("Commands:\n")[2]
    assert [line.split()[0] for line in commands.splitlines()] == list(COMMANDS)
    assert "..." not in commands
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_names_are_not_broken_between_lines(tmp_path: Path) -> None:
    shown = edgeopt("convert", "--help", folder=tmp_path).stdout
    assert "ai-edge-litert" in shown
    assert not [line for line in shown.splitlines() if line.endswith("-")]


def test_version(tmp_path: Path) -> None:
    from edgeopt import __version__

    assert edgeopt("--version", folder=tmp_path).stdout.strip() == f"edgeopt, version {__version__}"


# --- words that are not understood -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimise m.keras", "No command is called 'optimise'. Did you mean 'optimize'?"),
        ("calibrate m.keras", "No command is called 'calibrate'. It is a step of repairs. Try edgeopt repair --steps"),
        ("correct-bias m.keras", "It is a step of repairs. Try edgeopt repair --steps correct-bias."),
        ("convert m.keras -o o.tflite --schem int8", "No such option '--schem'"),
        ("convert m.keras -o o.tflite --scheme int9", "there is none called 'int9'. Did you mean 'int8'?"),
        ("convert m.keras -o o.tflite --scheme int9", f"Known: {', '.join(SCHEMES)}."),
        ("convert m.keras -o o.tflite --runtime litrt", "got 'litrt'. Did you mean 'litert'?"),
        ("convert m.keras -o o.tflite --data digits --labels class", "Did you mean 'classes'?"),
        ("convert m.keras", "Missing option '-o' / '--output'"),
        ("convert m.keras -o o --format tflite --format onnx", "as one file is written, got tflite and onnx. Try"),
        ("evaluate m.tflite", "Missing option '--data'"),
        ("optimize m.keras --data digits -o o --max-size 64XB", "Expected a size such as 64KB, 1.5MB or 200000"),
        ("optimize m.keras --data digits -o o --max-latency soon", "Expected a time such as 5ms, 800us or 0.2s"),
        (
            "shrink m.keras --data digits -o o.keras --macs 0.5 --multiple-of 0",
            "at most 64 as --multiple-of, got 0",
        ),
        ("shrink m.keras --data digits -o o.keras", "got none. Try --macs 0.5."),
        ("distill m.keras --data digits -o o.keras", "Error: Expected one way to a student (student, width, macs"),
        ("distill m.keras --data digits -o o.keras", "got none. Try --width 0.5, half of the channels."),
        ("optimize m.keras --data digits -o o --recipe pqat --epochs 0", "as --epochs, got 0"),
        ("convert m.keras -o o.tflite --data digits --resize big", "Expected height and width as --resize, got 'big'"),
        ("benchmark m.tflite", "Expected a converted file, got m.tflite, which does not exist"),
        ("evaluate m.tflite --data digits --delegate-option a=b", "Expected --delegate FILE.so with --delegate-option"),
    ],
)
def test_mistakes_are_told_with_the_nearest_word(words: str, said: str, tmp_path: Path) -> None:
    done = edgeopt(*words.split(), folder=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert_clean(done)
    assert list(tmp_path.iterdir()) == []


# --- one run of the main job, and the other commands on what it made -------------------------------------------------


@pytest.fixture(scope="module")
def run(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`edgeopt optimize --json` under a budget that nothing keeps; and its output folder."""
    folder = tmp_path_factory.mktemp("run")
    words = ("--scheme", "dynamic", "--scheme", "int8", "--max-size", ASKED_BYTES, "--json")
    done = edgeopt("optimize", digits_model, "--data", "digits", "-o", "out", *map(str, words), folder=folder)
    return done, folder / "out"


@pytest.fixture(scope="module")
def variants(run: tuple[Any, Path]) -> Path:
    return run[1] / "variants"


def only_object(stdout: str) -> dict[str, Any]:
    """Returns the JSON that is all of standard output."""
    value = json.loads(stdout)
    assert isinstance(value, dict)
    return value


def test_a_budget_that_is_not_kept_is_status_3_and_the_best_is_written(run: tuple[Any, Path]) -> None:
    done, folder = run
    assert done.returncode == 3, done.stderr
    report = only_object(done.stdout)
    jsonschema.validate(report, schema.load_schema())
    assert report == json.loads((folder / "report.json").read_text())
    best = next(v for v in report["variants"] if v["name"] == report["best"])
    assert (folder / "best.tflite").read_bytes() == (folder / best["artifacts"][0]["file"]).read_bytes()
    said = " ".join(done.stderr.split())
    assert said.startswith(f"Error: No variant keeps every budget. The nearest, {best['name']}, takes ")
    assert f"more than {ASKED_BYTES:,} bytes" in said
    assert "best.tflite" in said
    assert_clean(done)


def test_the_report_s_command_is_the_one_that_was_given(run: tuple[Any, Path]) -> None:
    done, _ = run
    (command,) = only_object(done.stdout)["commands"]
    assert command.startswith("edgeopt optimize ")
    assert f"--max-size {ASKED_BYTES}" in command


def test_json_is_all_there_is_on_standard_output(variants: Path, tmp_path: Path) -> None:
    float32, int8 = variants / "digits.float32.tflite", variants / "digits.int8.tflite"
    keys = {
        ("inspect", int8): {"format", "operators", "parameters", "macs", "advice"},
        ("evaluate", int8, "--data", "digits"): {"metric", "runtime", "preprocessing", "breakdown"},
        ("benchmark", float32, int8, "--runs", "20"): {"rows", "machine", "versions"},
        ("compare", float32, int8, "--data", "digits", "--layer-samples", "2"): {"agreement", "outputs", "layers"},
    }
    for words, expected in keys.items():
        done = edgeopt(*words, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert expected <= set(only_object(done.stdout)), words


def test_convert_in_json_and_inspect_of_keras(digits_model: Path, tmp_path: Path) -> None:
    words = ("--scheme", "int8", "--data", "digits", "--format", "tflite", "--json")
    done = edgeopt("convert", digits_model, "-o", "m", *words, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = only_object(done.stdout)
    file = tmp_path / "m.tflite"
    assert (told["scheme"], told["size_bytes"]) == ("int8", file.stat().st_size)
    assert {spec["dtype"] for spec in (*told["inputs"], *told["outputs"])} == {"int8"}
    assert [row["status"] for row in told["runtimes"]] == ["ok"]
    assert read(file).inputs[0].dtype == "int8"

    done = edgeopt("inspect", digits_model, "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert only_object(done.stdout)["format"] == "keras3"


def test_a_suffix_that_is_another_format_s(digits_model: Path, tmp_path: Path) -> None:
    done = edgeopt("convert", digits_model, "-o", "m.onnx", "--format", "tflite", folder=tmp_path)
    assert done.returncode == 2
    assert "Expected -o to end in .tflite with --format tflite, got m.onnx. Try one of the two." in done.stderr


def test_sensitivity_in_words_and_in_json(digits_model: Path, tmp_path: Path) -> None:
    words = ("sensitivity", digits_model, "--data", "digits", "--choices", "int8,sparsity", "-o", "out")
    done = edgeopt(*words, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for fragment in ("float model: top1", "50% zeros", "DEPTHWISE_CONV_2D", "loses most by int8: ", " dB left"):
        assert fragment in done.stdout
    assert_clean(done)
    told = edgeopt(*words, "--json", folder=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert {"samples", "metric", "choices", "layers"} <= set(only_object(told.stdout))


def test_people_read_words_and_numbers(variants: Path, tmp_path: Path) -> None:
    float32, int8 = variants / "digits.float32.tflite", variants / "digits.int8.tflite"
    expected = {
        ("inspect", int8): ["What each technique can do here", "oldest runtime", "zero point"],
        ("evaluate", int8, "--data", "digits", "--details"): ["top1", "on 359 samples", "precision", "Rows are labels"],
        ("benchmark", float32, int8, "--runs", "20"): ["p50", "ratio [95 %]", "note: inputs: seeded random values"],
        ("compare", float32, int8, "--data", "digits", "--layer-samples", "2"): ["B is ", "same class on", "SQNR"],
    }
    for words, fragments in expected.items():
        done = edgeopt(*words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        for fragment in fragments:
            assert fragment in done.stdout, words
        assert_clean(done)


def test_details_of_a_score_that_has_none(variants: Path, tmp_path: Path) -> None:
    words = ("evaluate", variants / "digits.int8.tflite", "--data", "digits", "--metric", "recall@1", "--details")
    done = edgeopt(*words, folder=tmp_path)
    assert done.returncode == 2
    assert "with --details, got a score by recall@1. Try --metric top1" in " ".join(done.stderr.split())


def test_a_score_of_classes_in_another_order_is_doubted(digits_model: Path, variants: Path, tmp_path: Path) -> None:
    found = load("digits").validation.arrays()
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    np.savez(tmp_path / "texts.npz", x=next(iter(found.inputs.values())), y=names[found.labels])
    converting = ("convert", digits_model, "-o", "new.tflite", "--scheme", "int8", "--quiet")
    for words in (("evaluate", variants / "digits.int8.tflite"), converting):
        done = edgeopt(*words, "--data", "texts.npz", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        said = "not shown to do better than one that answers one class to every sample"
        assert said in " ".join(done.stdout.split())
        assert "the order of the classes (here eight, five, four …)" in " ".join(done.stdout.split())


def test_one_thread_and_one_sample_are_singular() -> None:
    assert [common.counted(n, "thread") for n in (1, 2, 1797)] == ["1 thread", "2 threads", "1,797 threads"]


def test_names_in_brackets_are_printed_as_they_are(variants: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[bold]model[red] :smile:.tflite"
    odd.write_bytes((variants / "digits.float32.tflite").read_bytes())
    done = edgeopt("evaluate", odd.name, "--data", "digits", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{odd.name}: top1")


def test_nothing_ran_is_a_mistake_and_not_a_table(variants: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((variants / "digits.float32.tflite").read_bytes()[:900])
    done = edgeopt("benchmark", broken, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: Nothing ran.")
    assert_clean(done)


def test_a_runtime_that_is_here_in_another_version(variants: Path, tmp_path: Path) -> None:
    file = variants / "digits.float32.tflite"
    done = edgeopt("evaluate", file, "--data", "digits", "--runtime", "litert==0.1", folder=tmp_path)
    assert done.returncode == 2
    assert "Expected litert==0.1, got litert" in done.stderr


def test_a_runtime_that_is_not_here_is_told_before_the_work(variants: Path, tmp_path: Path) -> None:
    (tmp_path / "tflite_micro.py").write_text("raise ModuleNotFoundError('gone', name='tflite_micro')")
    file = variants / "digits.float32.tflite"
    words = ("--data", "digits", "-o", "out", "--runtime", "tflm")
    done = edgeopt("optimize", file, *words, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: tflm is not available here: tflite-micro is needed here but is not installed")
    assert not (tmp_path / "out").exists()


def test_a_reader_that_leaves_early(variants: Path, tmp_path: Path) -> None:
    file = variants / "digits.float32.tflite"
    for words in (("--json",), ()):
        ours, theirs = os.pipe()
        os.close(ours)
        command = [*COMMAND, "inspect", str(file), *words]
        with subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.PIPE, text=True, env=surroundings(tmp_path)
        ) as process:
            os.close(theirs)
            _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (128 + signal.SIGPIPE, "")


# --- doctor, makefile, view ------------------------------------------------------------------------------------------


def test_doctor(tmp_path: Path) -> None:
    done = edgeopt("doctor", "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = only_object(done.stdout)["findings"]
    assert [row["name"] for row in found if row["kind"] == "runtime"] == list(RUNTIMES)
    assert next(row["works"] for row in found if row["name"] == "litert")


def test_makefile_prints_a_path(tmp_path: Path) -> None:
    done = edgeopt("makefile", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.removesuffix("\n")) == makefile.path()
    assert makefile.path().is_file()


def test_view_without_netron(variants: Path, tmp_path: Path) -> None:
    (tmp_path / "netron.py").write_text("raise ModuleNotFoundError(\"No module named 'netron'\", name='netron')")
    file = variants / "digits.float32.tflite"
    done = edgeopt("view", file, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: netron is needed here but is not installed. Try: pip install 'edgeopt[view]'.\n"


def test_view_of_what_has_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.so").write_bytes(b"\x7fELF and more")
    (tmp_path / "empty").mkdir()
    for file, words in {
        "m.so": "Expected a file with a graph that Netron shows, got m.so, TVM's shared library: code for a processor.",
        "empty": "Expected a model file or a SavedModel, got the folder empty. Try another path.",
        "none.onnx": "Expected a model file, got none.onnx, which does not exist.",
    }.items():
        done = edgeopt("view", file, folder=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr


def test_view_serves_until_ctrl_c(variants: Path, tmp_path: Path) -> None:
    pytest.importorskip("netron")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = variants / "digits.float32.tflite"
    command = [*COMMAND, "view", str(file), "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings(tmp_path)) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address == f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(address, timeout=30) as page:
                assert page.status == 200
                assert b"Netron" in page.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in (0, 130)
        finally:
            process.kill()


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("edgeopt con", ["plain,convert"]),
        ("edgeopt optimize --max-s", ["plain,--max-size"]),
        ("edgeopt convert m.keras --scheme int8-f", ["plain,int8-float-io"]),
        ("edgeopt convert m.keras --runtime litert-b", ["plain,litert-builtin"]),
        ("edgeopt convert m.keras --target cortex-m5", ["plain,cortex-m55"]),
        ("edgeopt optimize m.keras --recipe prune-5", ["plain,prune-50"]),
        ("edgeopt optimize m.keras --data dig", ["plain,digits"]),
        ("edgeopt optimize m.keras --data d.np", ["file,d.np"]),
        ("edgeopt export mi", ["plain,micro"]),
        ("edgeopt evaluate m", ["file,m"]),
    ],
)
def test_a_shell_completes(words: str, expected: list[str], tmp_path: Path) -> None:
    asked = {"_EDGEOPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = edgeopt(folder=tmp_path, **asked)
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_are_told_how(shell: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "getting-started.md").read_text()
    assert f"_EDGEOPT_COMPLETE={shell}_source edgeopt" in page
    done = edgeopt(folder=tmp_path, _EDGEOPT_COMPLETE=f"{shell}_source")
    assert f"_EDGEOPT_COMPLETE={shell}_complete" in done.stdout


def test_no_terminal_obeys_what_files_are_called(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.add_column("\x1b[2Jname")
    table.add_row("\x1b]0;title\x07row")
    console = common.console()
    console.print("one\x1b[31m\u202e line\nand\tanother")
    console.print(table)
    shown = capfd.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "one\ufffd[31m\ufffd line\nand" in shown
    (tmp_path / "\x1b[2Jd.csv").write_text("a,label\n")
    done = edgeopt("evaluate", "m.tflite", "--data", "\x1b[2Jd.csv", folder=tmp_path)
    assert done.returncode == 2
    assert "\ufffd[2Jd.csv" in done.stderr
    assert "\x1b" not in done.stderr


def test_no_progress_when_quiet() -> None:
    with common.progress_shown(quiet=True):
        assert progress.current_sink() is None
