"""A stand-in for adb answers with what real devices print: rows, profiles, and what goes wrong, in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeopt.api.device import benchmark_on_device
from edgeopt.cli import cli
from edgeopt.errors import ConfigError, DataError, ModelError, UnavailableError
from edgeopt.formats import artifact
from edgeopt.report import Report, read_report, write_report
from edgeopt.report.merging import merged
from edgeopt.report.model import ModelFacts
from edgeopt.runtimes import adb
from edgeopt.runtimes.benchmark_model import parse
from edgeopt.vocabulary import RuntimeResult, Variant

# Layouts of several builds, with other numbers.
NEW = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Loaded model /data/local/tmp/model.tflite
VERBOSE: Replacing 11 out of 12 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.
INFO: The input model file size (MB): 0.09
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=20 first=9000 curr=700 min=690 max=9000 avg=1200.5 std=100 p5=690 median=700 p95=9000

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=650 curr=640 min=600 max=1.2e+03 avg=656.5 std=20 p5=610 median=645 p95=720

INFO: Inference timings in us: Init: 5579, First inference: 9000, Warmup (avg): 1200.5, Inference (avg): 656.5
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=4.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 8.25
"""
OLD = """STARTING!
Num threads: [4]
count=1 curr=2004

count=50 first=2000 curr=1990 min=1900 max=2500 avg=2.01e+03 std=11

Inference timings in us: Init: 16242, First inference: 2004, Warmup (avg): 2004, Inference (avg): 2.01e+03
Peak memory footprint (MB): init=4.5 overall=6.5
"""
SAME = """count=50 curr=12(all same)
Inference timings in us: Init: 200, First inference: 12, Warmup (avg): 12, Inference (avg): 12
"""
TABLE = (
    NEW
    + """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t Convolution (NHWC, QC8) IGEMM\t 0.500\t 0.480\t 75%\t 75%\t 0.000\t 1\tDelegate/Convolution (NHWC, QC8) IGEMM:0
\t                 SOFTMAX\t 0.200\t 0.160\t 25.000%\t100.000%\t 0.000\t 1\t[StatefulPartitionedCall:0]:11

============================== Top by Computation Time ==============================
Timings (microseconds): count=50 first=700 curr=640 min=600 max=900 avg=656 std=20
"""
)
CSV = (
    OLD
    + """Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
Fully Connected (NC, QS8, QC8W) GEMM, 0.0, 0.003, 0.480, 75.000%, 75.000%, 0.000, 1, [model/dense/MatMul, x;model]:3
SOFTMAX, 0.003, 0.2, 0.16, 25%, 100%, 0, 1, [out]:4

============================== Summary by node type ==============================
"""
)
GPU = (
    NEW.replace("11 out of 12", "9 out of 12").replace("TfLiteXNNPackDelegate", "TfLiteGpuDelegateV2")
    + "INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 1.\n"
)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the stand-in answers from: one device, which works."""
    home = tmp_path / "adb"
    home.mkdir()
    (home / "devices").write_text("8A1X\tdevice\n")
    (home / "output").write_text(f"0\n{NEW}")
    (home / "output.gpu").write_text(f"0\n{GPU}")
    monkeypatch.setenv("STAND_IN_ADB", str(home))
    program = tmp_path / "bin/adb"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -SE\n{(Path(__file__).parent / 'stand_ins/adb.py').read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return home


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "android aarch64 benchmark_model"
    file.write_bytes(b"\x7fELF")
    return file


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "a 'quoted'; name.tflite", tmp_path / "b.tflite"
    for number, file in enumerate(made):
        file.write_bytes(bytes([number]))
    return made


@pytest.mark.parametrize(
    ("text", "p50", "p90", "p99", "least", "memory", "note"),
    [
        (NEW, 0.645, 0.72, 1.2, 0.6, int(8.25 * 2**20), "p90 is benchmark_model's p95, p99 its slowest run"),
        (OLD, 2.01, 2.5, 2.5, 1.9, int(6.5 * 2**20), "p50 is the mean, p90 and p99 the slowest run"),
        (SAME, 0.012, 0.012, 0.012, 0.012, None, "p50 is the mean"),
        (NEW.replace("INFO: ", "I tflite  : "), 0.645, 0.72, 1.2, 0.6, int(8.25 * 2**20), "p95"),
        (NEW.replace("INFO: ", "").replace("\n", "\r\n"), 0.645, 0.72, 1.2, 0.6, int(8.25 * 2**20), "p95"),
    ],
)
def test_every_layout_is_read(
    text: str, p50: float, p90: float, p99: float, least: float, memory: int | None, note: str
) -> None:
    printed = parse(text, threads=4)
    latency = printed.latency
    assert (latency.p50, latency.p90, latency.p99, latency.min) == pytest.approx((p50, p90, p99, least))
    assert (latency.runs, latency.threads, printed.peak_memory_bytes) == (50, 4, memory)
    assert note in printed.notes[0]


@pytest.mark.parametrize(
    ("text", "first", "name"),
    [
        (TABLE, "Convolution (NHWC, QC8) IGEMM", "Delegate/Convolution (NHWC, QC8) IGEMM"),
        (CSV, "Fully Connected (NC, QS8, QC8W) GEMM", "model/dense/MatMul, x;model"),
    ],
)
def test_a_profile_is_read_from_a_table_and_from_csv(text: str, first: str, name: str) -> None:
    one, other = parse(text, threads=1).operators
    assert (one.operator, one.layer, one.share, one.delegated) == (first, name, 0.75, text is TABLE)
    assert (other.operator, other.delegated) == ("SOFTMAX", False)
    assert (one.p50_us, other.p50_us) == pytest.approx((480, 160))
    assert "times of operators are means" in parse(text, threads=1).notes


@pytest.mark.parametrize(
    "text", ["", "STARTING!\nFailed to load model\n", "Inference timings in us: Init: 1, First inf"]
)
def test_output_without_times_is_the_programs_last_words(text: str) -> None:
    with pytest.raises(ModelError, match=r"benchmark_model gave no times: .*Try another build of it"):
        parse(text, threads=1)


def test_rows_of_both_processors(stand_in: Path, program: Path, files: tuple[Path, Path]) -> None:
    rows = benchmark_on_device(files, program, gpu=True, threads=2, runs=7, warmup=3, profile=True)
    assert [(row.file, row.result.name) for row in rows] == [(f, n) for f in files for n in ("adb-cpu", "adb-gpu")]
    cpu, gpu = rows[0].result, rows[1].result
    assert (cpu.version, cpu.status, cpu.load_ms, cpu.first_ms) == ("Pixel 8[31m, Android 15", "ok", 5.579, 9.0)
    assert (cpu.delegated_share, gpu.delegated_share) == (11 / 12, 9 / 12)
    log = (stand_in / "log").read_text()
    assert "--num_threads=2 --num_runs=7 --warmup_runs=3 --use_xnnpack=true --enable_op_profiling=true" in log
    assert "--use_gpu=true" in log
    assert "quoted'; name.tflite /data/local/tmp/edgeopt-" in log
    assert not list((stand_in / "device/data/local/tmp").iterdir())


def test_a_gpu_that_took_nothing_has_no_time(stand_in: Path, program: Path, files: tuple[Path, Path]) -> None:
    said = "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    for text in (NEW, NEW + said):
        (stand_in / "output.gpu").write_text(f"0\n{text}")
        _, gpu = benchmark_on_device(files[:1], program, gpu=True)
        assert (gpu.result.status, gpu.result.latency_ms) == ("failed", None)
        assert "The GPU took nothing of the model: it ran on the CPU" in gpu.result.reason
    said = "INFO: Explicitly applied GPU delegate, and the model graph will be {} executed by the delegate.\n"
    for word, share in (("completely", 1.0), ("partially", None)):
        (stand_in / "output.gpu").write_text(f"0\n{NEW + said.format(word)}")
        _, gpu = benchmark_on_device(files[:1], program, gpu=True)
        assert (gpu.result.status, gpu.result.delegated_share) == ("ok", share)


def test_a_program_that_dies_is_a_row_with_its_words(stand_in: Path, program: Path, files: tuple[Path, Path]) -> None:
    (stand_in / "output").write_text("126\n/data/local/tmp/x/benchmark_model: not executable: 64-bit ELF file\n")
    (row, _) = benchmark_on_device(files, program)
    assert row.result.status == "failed"
    assert "On Pixel 8[31m (arm64-v8a) this failed: " in row.result.reason
    assert "not executable: 64-bit ELF file" in row.result.reason
    said = CliRunner().invoke(cli, ["benchmark", str(files[0]), "--device", "adb", "--benchmark-model", str(program)])
    assert isinstance(said.exception, ModelError)
    assert "Nothing ran. On Pixel 8[31m" in str(said.exception)


@pytest.mark.parametrize(
    ("devices", "asked", "message"),
    [
        ("", "adb", "Expected an Android device, got none. Try a cable and USB debugging"),
        ("8A1X\tdevice\nB\tdevice\n", "adb", "Expected one Android device, got 8A1X, B. Try --device adb:8A1X"),
        ("8A1X\tdevice\n", "adb:C", "Expected the device C, got 8A1X. Try one of `adb devices`"),
        ("8A1X\tunauthorized\n", "adb", "got 'unauthorized'. Try: confirm this computer on its screen"),
        ("8A1X\toffline\n", "adb", "got 'offline'. Try: plug it in again"),
        (
            "8A1X\tno permissions (missing udev rules?); see [u]\n",
            "adb",
            "got 'no'. Try: let this user at its USB port",
        ),
        ("8A1X\tbootloader\n", "adb:8A1X", "got 'bootloader'. Try: see what `adb devices` says of it"),
    ],
)
def test_a_device_that_cannot_be_used_is_named(
    devices: str, asked: str, message: str, stand_in: Path, program: Path, files: tuple[Path, Path]
) -> None:
    (stand_in / "devices").write_text(devices)
    with pytest.raises(UnavailableError) as refusal:
        benchmark_on_device(files, program, device=asked)
    assert message in str(refusal.value)


def test_several_devices_are_told_apart_by_their_serial(
    stand_in: Path, program: Path, files: tuple[Path, Path]
) -> None:
    (stand_in / "devices").write_text("emulator-5554\tdevice\n8A1X\tdevice\n")
    assert benchmark_on_device(files[:1], program, device="adb:emulator-5554")[0].result.loads
    assert "-s emulator-5554 push" in (stand_in / "log").read_text()


def test_a_device_that_goes_away(stand_in: Path, program: Path, files: tuple[Path, Path]) -> None:
    (stand_in / "vanish").write_text("use_gpu")
    first, *others = benchmark_on_device(files, program, gpu=True)
    assert first.result.loads
    assert {row.result.status for row in others} == {"skipped"}
    assert "The device 8A1X (Pixel 8[31m) went away in the middle" in others[0].result.reason
    (stand_in / "gone").unlink()
    (stand_in / "vanish").write_text("")
    with pytest.raises(
        UnavailableError, match=r"went away in the middle: exit status 255. Try again with another cable"
    ):
        benchmark_on_device(files, program)


def test_a_device_that_does_not_answer(
    stand_in: Path, program: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], **settings: Any) -> None:
        raise subprocess.TimeoutExpired(command, settings["timeout"])

    monkeypatch.setattr(adb.subprocess, "run", hang)
    with pytest.raises(UnavailableError, match=r"adb failed: no answer in 30 seconds. Try `adb devices`"):
        benchmark_on_device(files, program)


def test_what_is_missing_is_named(
    stand_in: Path, program: Path, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"Expected a device as adb or adb:SERIAL, got 'usb'"):
        benchmark_on_device(files, program, device="usb")
    with pytest.raises(ConfigError, match=r"Expected LiteRT's benchmark_model for arm64-v8a as --benchmark-model, got"):
        benchmark_on_device(files, tmp_path / "none")
    with pytest.raises(ModelError, match=r"Expected a .tflite file, got none.tflite, which does not exist"):
        benchmark_on_device(["none.tflite"], program)
    (stand_in / "devices").unlink()
    with pytest.raises(UnavailableError, match=r"adb failed: .*No such file or directory.*until it shows the device"):
        benchmark_on_device(files, program)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"Expected adb on the PATH, got none. Try Android's platform-tools"):
        benchmark_on_device(files, program)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu"], "Expected --device adb with --benchmark-model, --gpu and --merge, got none"),
        (["--device", "adb"], "Expected --benchmark-model FILE with --device, got none"),
    ],
)
def test_options_that_need_others(options: list[str], message: str, files: tuple[Path, Path]) -> None:
    said = CliRunner().invoke(cli, ["benchmark", str(files[0]), *options])
    assert message in (said.output + str(said.exception))


def _report(files: tuple[Path, Path]) -> Report:
    here = RuntimeResult("litert", "2.3.0")
    return Report(
        "0",
        "2026-01-01T00:00:00+00:00",
        ModelFacts("m.keras", "0" * 64),
        variants=tuple(
            Variant(file.stem, "int8", (artifact(file, file.parent),), runtimes=(here,)) for file in reversed(files)
        ),
    )


def test_rows_go_into_the_report_of_these_files(
    stand_in: Path, program: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    write_report(_report(files), tmp_path / "run")
    arguments = ["benchmark", str(files[1]), "--device", "adb", "--benchmark-model", str(program), "--json"]
    for median in ("645", "600"):
        (stand_in / "output").write_text("0\n" + NEW.replace("median=645", f"median={median}"))
        said = CliRunner().invoke(cli, [*arguments, "--merge", str(tmp_path / "run")])
        assert said.exit_code == 0, said.output
    (row,) = json.loads(said.stdout)["rows"]
    assert row["result"]["name"] == "adb-cpu"
    b, a = read_report(tmp_path / "run").variants
    assert [result.name for result in a.runtimes] == ["litert"]
    assert [result.name for result in b.runtimes] == ["litert", "adb-cpu"]
    assert b.runtimes[1].latency_ms is not None
    assert b.runtimes[1].latency_ms.p50 == 0.6
    assert "adb-cpu" in (tmp_path / "run/report.html").read_text()
    with pytest.raises(DataError, match=r"Expected files of the report, got none that is one of its own. Try b.tflite"):
        merged(_report(files), {"0" * 64: []})


def test_the_table_shows_the_device(stand_in: Path, program: Path, files: tuple[Path, Path]) -> None:
    (stand_in / "output").write_text(f"0\n{TABLE}")
    arguments = ["benchmark", *map(str, files), "--device", "adb", "--benchmark-model", str(program), "--profile"]
    said = CliRunner().invoke(cli, arguments)
    assert said.exit_code == 0, said.output
    assert "adb-cpu Pixel 8[31m, Android 15" in said.output
    assert "0.645" in said.output
    assert "92%" in said.output
    assert "Convolution (NHWC, QC8) IGEMM" in said.output
    assert "the machine told here is the one it is connected to" in said.output
