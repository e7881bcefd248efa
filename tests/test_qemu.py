"""Cortex-M boards in QEMU: what they compute is TFLM's, and what they say a model takes is there."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import edgeopt as command
from runtime_models import models

import edgeopt
from edgeopt import c99, runtimes
from edgeopt.errors import DataError, ModelError, UnavailableError
from edgeopt.runtimes import RUNTIMES, qemu
from edgeopt.runtimes.probe import model as add_model
from edgeopt.runtimes.samples import generated
from edgeopt.tflite.reader import read

BOARDS = [row for row in RUNTIMES.values() if "footprint" in row.can]
M4 = RUNTIMES["qemu-cortex-m4"]


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    for tool in (qemu.COMPILER, qemu.SIMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: {qemu.INSTALL}")


@pytest.fixture(scope="module")
def opened():
    """Opens the int8 model on a board, once."""
    sessions = {}

    def open_one(runtime=M4):
        if runtime.name not in sessions:
            sessions[runtime.name] = runtimes.open_session(models()["int8"], runtime)
        sessions[runtime.name].resize(1)
        return sessions[runtime.name]

    yield open_one
    for session in sessions.values():
        session.close()


def on_tflm(file: Path, samples):
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflite-micro is not here: pip install 'edgeopt[micro]'")
    session = runtimes.open_session(file, RUNTIMES["tflm"])
    return [session.run(sample) for sample in samples]


# --- what it computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", BOARDS, ids=lambda row: row.name)
def test_outputs_are_tflms(opened, runtime):
    session = opened(runtime)
    samples = [generated(session.inputs, seed=seed) for seed in range(4)]
    expected = np.concatenate([result["kind"] for result in on_tflm(models()["int8"], samples)])
    assert session.resize(4)
    assert (session.inputs[0].shape, session.outputs[0].shape) == ((4, 8, 8, 1), (4, 10))
    got = session.run({"picture": np.concatenate([sample["picture"] for sample in samples])})["kind"]
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected, axis=0)) > 1


def test_float_models_and_several_inputs():
    session = runtimes.open_session(models()["two"], M4)
    got = session.run({"a": np.full((1, 8), 5, np.float32), "b": np.full((1, 8), 3, np.float32)})
    session.close()
    np.testing.assert_array_equal(got["plus"], np.full((1, 8), 5 + 3, np.float32))
    np.testing.assert_array_equal(got["minus"], np.full((1, 8), 5 - 3, np.float32))


def test_names_shapes_dtypes(opened):
    session = opened()
    (picture,), (kind,) = session.inputs, session.outputs
    assert (picture.name, picture.shape, picture.dtype) == ("picture", (1, 8, 8, 1), "int8")
    assert (kind.name, kind.shape, kind.dtype) == ("kind", (1, 10), "int8")
    assert (session.threads, session.delegated_share) == (1, None)


def test_isolated_is_the_same(opened):
    sample = generated(opened().inputs, seed=6)
    there = runtimes.isolated(models()["int8"], M4)
    np.testing.assert_array_equal(there.run(sample)["kind"], opened().run(sample)["kind"])
    there.close()


def test_available_by_running():
    found = runtimes.available(M4)
    assert found.available, found.reason
    assert found.version == qemu.version()
    assert found.version[0].isdigit()


def test_it_is_tried_where_it_is_asked_for_only():
    assert {row.name for row in BOARDS} == set(qemu.BOARDS)
    assert not any(row.can & {"threads", "delegates", "time"} for row in BOARDS)


# --- what it says of a model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", BOARDS, ids=lambda row: row.name)
def test_footprint(opened, runtime):
    session = opened(runtime)
    first, second = (session.footprint(generated(session.inputs, seed=seed)) for seed in (0, 0))
    assert first == second  # instructions are counted, not timed
    library = c99.generate(read(models()["int8"]), name="model")
    assert library.arena_bytes + first.stack_bytes <= first.ram_bytes < library.arena_bytes + first.stack_bytes + 64
    assert library.weights_bytes <= first.weights_bytes < library.weights_bytes + 2048  # constants of kernels
    assert 64 <= first.stack_bytes < 2048
    assert 1000 < first.code_bytes < 20_000
    assert first.core == runtime.name.removeprefix("qemu-")
    # 3x3 over 8x8 and 8 channels, 3x3 over 3x3 of them, 72 x 16 and 16 x 10.
    macs = 8 * 8 * 8 * 9 + 3 * 3 * 8 * 9 + 72 * 16 + 16 * 10
    assert macs / 8 < first.instructions < macs * 50


@pytest.mark.parametrize(("core", "loops"), [("m3", 1_000_000), ("m4", 400_000_000), ("m55", 1_000_000)])
def test_instructions_are_counted_right(tmp_path, monkeypatch, core, loops):
    """A library whose inference is a loop of two instructions; SysTick of 24 bits wraps in the longest."""
    text = (
        '#include "model.h"\n'
        "static float values[4];\n"
        "void *model_input(int index) { return &values[index]; }\n"
        "const void *model_output(int index) { return &values[index]; }\n"
        f'void model_invoke(void) {{ int n = {loops}; __asm volatile("1: subs %0, #1\\n bne 1b" : "+r"(n)); }}\n'
    )
    header = "#define MODEL_INPUT_0_BYTES 16\n#define MODEL_OUTPUT_0_BYTES 16\n#define MODEL_INPUTS 1\n"
    header += (
        "#define MODEL_OUTPUTS 1\nvoid *model_input(int);\nconst void *model_output(int);\nvoid model_invoke(void);\n"
    )
    file = tmp_path / "add.tflite"
    file.write_bytes(add_model())
    library = c99.generate(read(file), name="model")
    loop = dataclasses.replace(library, files={"include/model.h": header, "src/model.c": text})
    monkeypatch.setattr(c99, "generate", lambda *_, **__: loop)
    session = runtimes.open_session(file, RUNTIMES[f"qemu-cortex-{core}"])
    found = session.footprint({"x": np.zeros((1, 4), np.float32)})
    session.close()
    assert abs(found.instructions - 2 * loops) < 200
    assert (found.weights_bytes, found.ram_bytes - found.stack_bytes) == (0, 16)


def test_benchmark_and_evaluate(tmp_path):
    table = edgeopt.benchmark([models()["int8"]], runtimes=["qemu-cortex-m3", "litert"], runs=10)
    simulated, timed = (row.result for row in table.rows)
    assert simulated.footprint.instructions > 0
    assert (simulated.latency_ms, simulated.version) == (None, qemu.version())
    assert timed.latency_ms is not None
    assert (timed.footprint, table.rows[1].ratio) == (None, None)
    assert any(note.startswith("simulated, compiled by arm-none-eabi-gcc") for note in table.notes)
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(12, 8, 8, 1)).astype("float32"), random.integers(0, 10, 12)
    part = edgeopt.load_data((x, labels), validation_share=1).validation
    scores = [edgeopt.evaluate(models()["int8"], part, runtime=name) for name in (M4.name, "tflm")]
    np.testing.assert_array_equal(scores[0].rows[0], scores[1].rows[0])
    assert [score.batch_size for score in scores] == [12, 1]


def test_compare_finds_no_difference_to_tflm():
    x = np.random.default_rng(1).normal(size=(8, 8, 8, 1)).astype("float32")
    part = edgeopt.load_data((x, np.arange(8)), validation_share=1).validation
    found = edgeopt.compare(models()["int8"], models()["int8"], part, runtime="tflm", runtime_b=M4.name)
    assert [one.equal for one in found.outputs] == [True]
    assert "intermediate tensors were not compared: both would be those of tflm" in found.notes


def test_what_benchmark_prints(tmp_path):
    done = command("benchmark", models()["int8"], "--runtime", M4.name, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Simulated: instructions of one inference, and bytes of" in " ".join(done.stdout.split())
    assert "Milliseconds" not in done.stdout
    row = next(line for line in done.stdout.splitlines() if re.fullmatch(r"[\d, ]+", line) and line.strip())
    instructions, code, weights, flash, ram, stack = (int(word.replace(",", "")) for word in row.split())
    assert flash == code + weights
    assert instructions > ram > stack


# --- refusals --------------------------------------------------------------------------------------------------------


def test_wrong_inputs(opened):
    with pytest.raises(DataError, match="Expected the inputs picture, got photo"):
        opened().run({"photo": np.zeros((1, 8, 8, 1), np.int8)})


def test_refused_files(tmp_path):
    with pytest.raises(ModelError, match=r"got .*none\.tflite: No such file"):
        runtimes.open_session(tmp_path / "none.tflite", M4)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(models()["int8"].read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"qemu-cortex-m4 refused cut.tflite: .*Try --runtime tflm"):
        runtimes.open_session(cut, M4)
    with pytest.raises(ModelError, match=r"refused lstm.tflite: .*variable tensors.* Try --runtime tflm, or"):
        runtimes.open_session(models()["lstm"], M4)


def test_no_clock_and_no_activations(opened):
    sample = generated(opened().inputs, seed=0)
    with pytest.raises(UnavailableError, match=r"qemu-cortex-m4 measures no time. Try --runtime litert or"):
        opened().invoke_ns(sample, runs=3)
    for call in (opened().tensors, lambda: runtimes.open_session(models()["int8"], M4, keep_intermediates=True)):
        with pytest.raises(
            UnavailableError,
            match=r"qemu-cortex-m4 keeps no activations. Try --runtime litert-builtin or",
        ):
            call()


def test_a_tool_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        UnavailableError, match=r"arm-none-eabi-gcc and qemu-system-arm not found. Try: apt-get install"
    ):
        runtimes.open_session(models()["int8"], M4)
    assert qemu.version() == ""


def test_a_model_that_the_board_has_no_room_for(monkeypatch):
    board = qemu.BOARDS[M4.name]
    for memory, size in (("flash", 256), ("ram", 65_700)):
        small = qemu.Memory(getattr(board, memory).origin, size)
        monkeypatch.setitem(qemu.BOARDS, M4.name, dataclasses.replace(board, **{memory: small}))
        with pytest.raises(ModelError, match=rf"does not fit the {size:,} bytes of {memory} of mps2-an386"):
            runtimes.open_session(models()["int8"], M4)


def test_a_program_that_faults_or_hangs(monkeypatch, tmp_path):
    library = c99.generate(read(models()["int8"]), name="model")

    def broken(body: str):
        files = {
            name: text.replace("void model_invoke(void) {", f"void model_invoke(void) {{ {body}")
            for name, text in library.files.items()
        }
        assert files != library.files
        monkeypatch.setattr(c99, "generate", lambda *_, **__: dataclasses.replace(library, files=files))
        session = runtimes.open_session(models()["int8"], M4)
        session.run(generated(session.inputs, seed=0))

    with pytest.raises(ModelError, match=r"qemu-cortex-m4 refused int8.tflite: the program faulted"):
        broken('__asm volatile("udf #0");')
    with pytest.raises(ModelError, match=r"arm-none-eabi-gcc ended with 1: .*error"):
        broken("this is not C;")
    monkeypatch.setattr(qemu, "TIMEOUT_S", 5)
    with pytest.raises(ModelError, match=r"qemu-system-arm did not end within 5 s"):
        broken("for (;;) {}")


# --- the exported project --------------------------------------------------------------------------------------------


def selftest_status(project: Path, name: str, board: qemu.Board, elf: Path) -> int:
    """Builds an exported self-test for a board and returns its exit status there, which comes through semihosting."""
    selftest = (project / f"selftest/{name}_selftest.c", project / "selftest/main.c")
    sources = (*(project / "src").glob("*.c"), *selftest, qemu.SUPPORT / "startup.c")
    includes = (f"-I{project / 'include'}", f"-I{qemu.SUPPORT}")
    compiler = (qemu.COMPILER, *board.options, "-O2", "-std=gnu99", "-Wall", "-Wextra", "-Werror")
    subprocess.run([*compiler, *includes, *sources, *board.linker_options, "-lm", "-o", elf], check=True, timeout=120)
    return subprocess.run([*board.simulator, "-kernel", elf], capture_output=True, timeout=120).returncode


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    on_tflm(models()["int8"], [])
    folder = tmp_path_factory.mktemp("exported")
    edgeopt.export("micro", models()["int8"], folder, runtime="c99", name="net")
    return folder


@pytest.mark.parametrize("runtime", BOARDS, ids=lambda row: row.name)
def test_the_exported_selftest_passes_on_boards(project, tmp_path, runtime):
    assert selftest_status(project, "net", qemu.BOARDS[runtime.name], tmp_path / "selftest.elf") == 0


def test_the_exported_selftest_finds_a_spoiled_weight(project, tmp_path):
    spoiled = shutil.copytree(project, tmp_path / "spoiled")
    weights = spoiled / "src/net_weights.c"
    weights.write_text(re.sub(r"(_weights\[\d+\] = \{\s*)-?\d+", r"\g<1>0", weights.read_text()))
    assert selftest_status(spoiled, "net", qemu.BOARDS[M4.name], tmp_path / "selftest.elf") != 0


@pytest.mark.shared
@pytest.mark.parametrize("runtime", BOARDS, ids=lambda row: row.name)
@pytest.mark.parametrize("name", ["kws_ref_model", "ad01_int8"])
def test_benchmark_models_pass_their_selftests_on_boards(shared, tmp_path, name, runtime):
    on_tflm(models()["int8"], [])
    edgeopt.export("micro", shared / f"models/{name}.tflite", tmp_path / "out", runtime="c99")
    assert selftest_status(tmp_path / "out", name, qemu.BOARDS[runtime.name], tmp_path / "selftest.elf") == 0
