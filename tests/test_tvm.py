"""TVM: a file becomes code for a processor, runs like any other file, and only where it may."""

from __future__ import annotations

import functools
import json
import platform
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_models
import tflite_models as models
from click.testing import CliRunner

import edgeopt
from edgeopt import data, formats, frameworks, parity, runtimes, trust
from edgeopt.cli import cli
from edgeopt.compilers import COMPILERS, compile_content, tvm, tvm_schedules
from edgeopt.compilers.tvm import built
from edgeopt.errors import ConfigError, ConversionError, EdgeoptError, ModelError, UnavailableError
from edgeopt.formats.sealed import described
from edgeopt.runtimes.tvm import LIBRARIES
from edgeopt.targets import TARGETS
from edgeopt.tflite.reader import read
from edgeopt.tflite.simulating import in_floats

TVM = COMPILERS["tvm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tvm")


@pytest.fixture(scope="module")
def libraries(folder: Path) -> dict[str, Path]:
    """One net in float32 and int8 as libraries for this machine."""
    found = {}
    for name in ("float32", "int8"):
        found[name] = folder / f"{name}.so"
        content = runtime_models.models()[name].read_bytes()
        found[name].write_bytes(compile_content(content, TVM, {"processor": "", "tune": ""}).content)
    return found


@pytest.fixture(scope="module")
def pictures() -> data.Part:
    generator = np.random.default_rng(5)
    x, y = generator.standard_normal((40, 8, 8, 1)), generator.integers(0, 10, 40)
    return data.load((x.astype(np.float32), y), validation_share=1).validation


def test_it_computes_what_the_tflite_does(libraries: dict[str, Path], pictures: data.Part) -> None:
    for name, tolerance in (("float32", 1e-5), ("int8", 3 / 256)):  # of probabilities; three steps of int8
        found = edgeopt.compare(runtime_models.models()[name], libraries[name], pictures, runtime="litert-builtin")
        assert found.outputs[0].max_difference <= tolerance
        assert found.agreement is not None
        assert found.agreement.value >= 0.97
        assert "intermediate tensors were not compared: tvm keeps no activations" in found.notes


@functools.cache
def _averaging() -> Any:
    """Means of 64 numbers, and what a Dense layer makes of them."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(8)
    picture = keras.layers.Input((8, 8, 4), batch_size=1)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(picture))
    return keras.Model(picture, keras.layers.Dense(6)(x))


def test_means_of_integers_are_rounded_as_litert_rounds_them(tmp_path: Path) -> None:
    content = models.convert(_averaging, "int8")
    assert "AVERAGE_POOL_2D" in {operator.name for operator in read(content).main.operators}
    source, library = tmp_path / "m.tflite", tmp_path / "m.so"
    source.write_bytes(content)
    library.write_bytes(compile_content(content, TVM, {"processor": "", "tune": ""}).content)
    (row,) = parity.check(library, [runtimes.parse("tvm")], source=source)
    assert row.max_difference is not None
    assert row.max_difference < 0.01  # TVM's own cuts off what is behind the point
    floats = models.convert(_averaging, "float32")
    assert in_floats(floats, ("AVERAGE_POOL_2D",)) is floats


def test_convert_writes_a_library(folder: Path) -> None:
    found = edgeopt.convert(runtime_models.models()["float32"], folder / "net.so")
    (row,) = found.runtimes
    assert (row.name, row.status, row.matches_reference) == ("tvm", "ok", True)
    assert any(" from .tflite" in note for note in found.notes)


def test_it_is_timed_beside_others(libraries: dict[str, Path]) -> None:
    table = edgeopt.benchmark([runtime_models.models()["float32"], libraries["float32"]], runs=5, warmup=0)
    assert [(row.result.name, row.result.status) for row in table.rows] == [("litert", "ok"), ("tvm", "ok")]
    assert all(row.result.latency_ms for row in table.rows)


def test_what_it_holds_is_read_without_its_code(libraries: dict[str, Path]) -> None:
    for name, library in libraries.items():
        theirs, ours = formats.facts(runtime_models.models()[name]), formats.facts(library)
        assert [spec.shape for spec in (*ours.inputs, *ours.outputs)] == [(1, 8, 8, 1), (1, 10)]  # the batch was free
        assert [spec.quantization for spec in ours.inputs] == [spec.quantization for spec in theirs.inputs]
        assert ours.macs == theirs.macs
        assert ours.parameters == theirs.parameters
        assert sum(ours.bytes_by_kind.values()) == ours.size_bytes == library.stat().st_size
        assert [one.name for one in ours.operators] == [one.name for one in theirs.operators]
    assert {"CONV_2D", "FULLY_CONNECTED"} <= set(formats.facts(libraries["int8"]).float_operators)
    assert "computes in float32: as right as int8, no faster" in formats.facts(libraries["int8"]).notes[-1]
    assert described(libraries["int8"]).made_with == frameworks.installed_version("tvm")


def test_optimize_makes_libraries_beside_the_files(digits_model: Path, tmp_path: Path) -> None:
    report = edgeopt.optimize(digits_model, "digits", tmp_path, schemes=("float32",), formats=("tvm",))
    assert [variant.name for variant in report.variants] == ["float32", "float32-tvm"]
    twin = report.variants[-1]
    assert twin.file == "variants/digits.float32.so"
    assert [(row.name, row.matches_reference) for row in twin.runtimes] == [("tvm", True)]
    assert twin.metric == report.variants[0].metric
    assert report.latency(twin) is not None


def test_an_onnx_file_becomes_a_library_too(folder: Path, tmp_path: Path) -> None:
    source = runtime_models.models()["float32"]
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(
        compile_content(source.read_bytes(), COMPILERS["tf2onnx"], {"scheme": "float32", "opset": ""}).content
    )
    library = tmp_path / "net.so"
    library.write_bytes(compile_content(onnx.read_bytes(), TVM, {"processor": "", "tune": ""}).content)
    assert described(library).made_from == "onnx"
    session = runtimes.isolated(library, runtimes.RUNTIMES["tvm"])
    theirs = runtimes.isolated(source, runtimes.RUNTIMES["litert-builtin"])
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 1)).astype(np.float32)
    (ours,), (expected,) = session.run({"picture": x}).values(), theirs.run({"picture": x}).values()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    session.close(), theirs.close()


# --- its kernels -----------------------------------------------------------------------------------------------------


def _kernels(name: str) -> Any:
    """The kernels of a net as TVM makes them, by their names."""
    file = runtime_models.models()[name]
    frameworks.load("tvm")
    module = tvm._imported(file.read_bytes(), tvm._of_one(formats.facts(file)))
    return tvm._through(module, _target(), "library_dispatch_passes", "legalize_passes")


def _target() -> Any:
    package = frameworks.load("tvm")
    triple, cpu = tvm.wanted_processor(package, "")
    return package.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_sums_run_in_registers_and_all_in_vectors(name: str) -> None:
    module = _kernels(name)
    before = {at.name_hint: kernel.script() for at, kernel in module.functions.items() if "conv2d" in at.name_hint}
    after = {at.name_hint: kernel.script() for at, kernel in tvm_schedules.scheduled(module).functions.items()}
    assert before
    for kernel, script in before.items():
        assert "vectorized" not in script
        assert "T.vectorized(" in after[kernel]
        assert 'scope="local"' in after[kernel]
    # What came in is as it was.
    assert {at.name_hint: module[at].script() for at in module.functions if at.name_hint in before} == before


def test_kernels_are_tuned_for_as_long_as_is_said(folder: Path, libraries: dict[str, Path]) -> None:
    found = edgeopt.convert(runtime_models.models()["float32"], folder / "tuned.so", tune_s=6)
    tuning = described(found.file).tuning
    assert tuning is not None
    assert tuning.finished <= tuning.kernels < tuning.tried
    assert 0 < tuning.after_ms <= tuning.before_ms
    assert any(f"{tuning.tried} ways to compute its {tuning.kernels} kernels tried" in note for note in found.notes)
    (row,) = found.runtimes
    assert row.matches_reference
    assert described(libraries["float32"]).tuning is None
    _, none_left = tvm_schedules.tuned(_kernels("float32"), _target(), 1e-9)
    assert none_left.tried == none_left.kernels > none_left.finished


def test_what_cannot_be_tuned_is_refused(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a \.so of TVM's to tune, got another file"):
        edgeopt.convert(digits_model, tmp_path / "digits.onnx", tune_s=60)
    with pytest.raises(ConfigError, match=r"to tune, as it is timed here, got the target raspberry-pi-4\."):
        edgeopt.convert(digits_model, tmp_path / "digits.so", target="raspberry-pi-4", tune_s=60)


# --- for another processor -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def for_arm64(folder: Path) -> Path:
    """The int8 net for the cores of a Raspberry Pi 4."""
    library, processor = folder / "arm64.so", TARGETS["raspberry-pi-4"].processor
    content = runtime_models.models()["int8"].read_bytes()
    try:
        library.write_bytes(compile_content(content, TVM, {"processor": processor, "tune": ""}).content)
        runtimes.isolated(library, runtimes.RUNTIMES["tvm"]).close()
    except UnavailableError as error:
        pytest.skip(f"install what runs ARM64: {error}")
    return library


def test_code_for_arm64_computes_the_same_in_qemu(for_arm64: Path, libraries: dict[str, Path]) -> None:
    assert described(for_arm64).architecture == "aarch64"
    samples = np.random.default_rng(1).integers(-128, 128, (5, 8, 8, 1), dtype=np.int8)
    outputs = []
    for file in (for_arm64, libraries["int8"]):
        session = runtimes.isolated(file, runtimes.RUNTIMES["tvm"])
        assert session.resize(5)
        outputs.append(session.run({"picture": samples})["kind"])
        session.close()
    assert np.abs(outputs[0].astype(int) - outputs[1]).max() <= 1
    (row,) = edgeopt.benchmark([for_arm64], runs=2, warmup=0).rows
    assert row.result.status == "skipped"
    assert "got arm64.so for cortex-a72, which QEMU runs here: its times say nothing" in row.result.reason


def test_what_arm64_needs_is_said(for_arm64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtimes.RUNTIMES["tvm"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UnavailableError, match=r"qemu-aarch64 and aarch64-linux-gnu-gcc not found, which run arm64\.so"
    ):
        runtimes.open_session(for_arm64, runtime)
    monkeypatch.setenv(LIBRARIES, str(tmp_path))
    words = r"TVM's libraries for ARM64 in .*, got none\. Try: pip install --no-deps --target .* apache-tvm==0\.27"
    with pytest.raises(UnavailableError, match=words):
        runtimes.open_session(for_arm64, runtime)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UnavailableError, match=r"aarch64-linux-gnu-gcc is needed to link code for aarch64 but is not"):
        built(b"", "aarch64-linux-gnu/cortex-a72")


def test_code_for_neither_is_refused(libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(
        ModelError, match=r"Expected code for this machine, riscv64, or for ARM64, got int8\.so for x86"
    ):
        runtimes.open_session(libraries["int8"], runtimes.RUNTIMES["tvm"])


# --- whose code runs -------------------------------------------------------------------------------------------------


def test_a_strangers_code_runs_where_it_is_trusted_alone(libraries: dict[str, Path], tmp_path: Path) -> None:
    strange = tmp_path / "strange.so"
    content = libraries["float32"].read_bytes()
    strange.write_bytes(content[:64] + bytes([content[64] ^ 1]) + content[65:])
    with pytest.raises(
        ModelError, match=r"Expected strange\.so as edgeopt made it for you here, got other code, which"
    ):
        runtimes.isolated(strange, runtimes.RUNTIMES["tvm"])
    # The same content under another name is the same code.
    moved = tmp_path / "moved.so"
    moved.write_bytes(content)
    runtimes.isolated(moved, runtimes.RUNTIMES["tvm"]).close()


def test_trust_is_remembered(libraries: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    asked = ["benchmark", str(libraries["float32"]), "--runs", "2", "--warmup", "0", "--quiet"]
    refused = CliRunner().invoke(cli, asked)
    assert "or --trust where you know who made it" in str(refused.exception)
    assert CliRunner().invoke(cli, [*asked, "--trust"]).exit_code == 0
    assert CliRunner().invoke(cli, asked).exit_code == 0
    assert len(list(trust.folder().iterdir())) == 1


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"Could not remember in .* what may run: .* Try XDG_STATE_HOME=FOLDER\."):
        trust.trust(b"code")


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"edgeopt\n",
        struct.pack("<Q", 1 << 62) + b"edgeopt\n",
        b"[" * 100_000 + struct.pack("<Q", 100_000) + b"edgeopt\n",
        b"{}" + struct.pack("<Q", 2) + b"edgeopt\n",
        b"\xff\xfe" + struct.pack("<Q", 2) + b"edgeopt\n",
    ],
)
def test_other_libraries_are_refused(end: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(b"\x7fELF" + end)
    with pytest.raises(ModelError, match=r"Expected code that edgeopt made, which says what it computes, got"):
        formats.facts(tmp_path / "other.so")


def test_what_a_library_says_of_itself_ends_no_process(libraries: dict[str, Path], tmp_path: Path) -> None:
    content = libraries["float32"].read_bytes()
    (length,) = struct.unpack("<Q", content[-16:-8])
    said: dict[str, Any] = json.loads(content[-16 - length : -16])
    said["inputs"][0]["shape"] = [2, 8, 8, 1]
    tail = json.dumps(said).encode()
    wrong = content[: -16 - length] + tail + struct.pack("<Q", len(tail)) + content[-8:]
    (tmp_path / "wrong.so").write_bytes(wrong)
    formats.trust_code(tmp_path / "wrong.so")
    session = runtimes.isolated(tmp_path / "wrong.so", runtimes.RUNTIMES["tvm"])
    with pytest.raises(ModelError, match=r"tvm could not run wrong\.so: .*Expected a library made by this version"):
        session.run({"picture": np.zeros((2, 8, 8, 1), np.float32)})
    session.close()
    with pytest.raises(ModelError, match=r"Expected a file of code, got .*gone\.so: No such file"):
        described(tmp_path / "gone.so")


# --- what it cannot --------------------------------------------------------------------------------------------------


def test_weights_are_not_read_out_of_code(libraries: dict[str, Path]) -> None:
    facts, weight = formats.facts(libraries["int8"]), formats.facts(runtime_models.models()["int8"]).weights[0]
    with pytest.raises(ModelError, match=r"Expected a format that stores weights, got int8\.so, whose weights are in"):
        facts.values(weight)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dynamic", r"got dynamic range in FULLY_CONNECTED '.*', of which TVM has no kernels"),
        ("any-size", r"Expected a file whose sizes are fixed, .*, any, any, 3\] as 'photo'\. Try converting"),
        ("ring", r"Expected a file of operators that TVM has as well, got "),
    ],
)
def test_what_tvm_lacks_is_named(name: str, said: str) -> None:
    with pytest.raises(ConversionError, match=said):
        compile_content(runtime_models.models()[name].read_bytes(), TVM, {"processor": "", "tune": ""})


def test_another_version_of_tvm_is_no_promise(libraries: dict[str, Path]) -> None:
    (said,) = runtimes.refusals(libraries["int8"], runtimes.parse("tvm==0.26"))
    assert said.startswith("it was compiled by TVM 0.27")
    assert said.endswith("whose code TVM 0.26 does not promise to run")
    assert runtimes.refusals(libraries["int8"], runtimes.parse("tvm")) == ()


def test_a_scheme_without_a_library_is_refused(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a scheme that \.so files can be in, float32, int8, .*got dynamic"):
        edgeopt.convert(digits_model, tmp_path / "digits.so", scheme="dynamic")
    with pytest.raises(EdgeoptError, match=r"Expected a \.tflite for the target cortex-m4, got .*digits\.so"):
        edgeopt.convert(digits_model, tmp_path / "digits.so", target="cortex-m4")
