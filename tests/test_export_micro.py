"""`edgeopt export micro` with TFLM: what the project says is measured, and its code runs on stand-ins for TFLM."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tflite_models
import yaml
from command_line import edgeopt as command
from runtime_models import models

import edgeopt
from edgeopt import frameworks, runtimes
from edgeopt.errors import ConfigError, ModelError
from edgeopt.exporters import EXPORTERS, MARKER
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.micro import Micro, operators
from edgeopt.exporters.micro.fitness import require_fit, require_room
from edgeopt.exporters.micro.ports import number, numbers
from edgeopt.files import sha256
from edgeopt.runtimes import RUNTIMES, tflm
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.samples import generated
from edgeopt.runtimes.state import state, variables
from edgeopt.tflite import rewrite
from edgeopt.tflite.model import OperatorCode
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Preprocessing

STUBS = Path(__file__).parent / "stubs" / "tflm"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wpedantic")
HOSTILE = (
    'quo"te',
    "line\nend",
    "*/ int broken; /*",
    "back\\slash",
    "naïve 日本",
    "??/tri??'graph",
    "%s %n",
    "'single'",
    "\x01\x7f",
    "plain",
)
SHOWN = Preprocessing(resize=(8, 8), scale=1 / 255, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflite-micro is not here: pip install 'edgeopt[micro]'")
    for tool in ("gcc", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: apt-get install {tool}")


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Returns the project of a model of runtime_models, exported once."""
    made = {}

    def export(name: str) -> tuple[Path, edgeopt.exporters.Exported]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name.replace("-", "_"))
            classes = HOSTILE if name == "int8" else ()
            done = edgeopt.export(
                "micro", models()[name], folder / "out", name="net", classes=classes, preprocessing=SHOWN
            )
            made[name] = folder / "out", done
        return made[name]

    return export


def run(*command: str | Path, folder: Path | None = None, expect: int = 0) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def compiled_data(project: Path, folder: Path) -> bytes:
    """The bytes of the model as the compiler put them into the array."""
    main = folder / "bytes.cpp"
    main.write_text(
        '#include <stdio.h>\n#include <stdint.h>\n#include "net_data.h"\n'
        "int main() { return reinterpret_cast<uintptr_t>(net_data) % 16 != 0 ||\n"
        "  fwrite(net_data, 1, NET_DATA_BYTES, stdout) != NET_DATA_BYTES; }\n"
    )
    run("g++", "-std=c++17", *WARNINGS, "-I", project / "src", main, project / "src/net_data.cpp", "-o", folder / "b")
    return subprocess.run([folder / "b"], capture_output=True, check=True).stdout


def replay(
    file: Path, folder: Path, *, arena_bytes: int, spoil: bool = False, samples: list[dict] | None = None
) -> Path:
    """Writes the header that the stub interpreter plays: what tflite-micro gives for the self-test's samples."""
    session = tflm.open(file, RUNTIMES["tflm"], threads=1, delegate=None, keep_intermediates=False)
    specs = (*session.inputs, *session.outputs)
    rows = []
    for seed, sample in enumerate(samples or [generated(session.inputs, seed=seed) for seed in range(3)]):
        result = session.run(sample)
        row = bytearray(b"".join(np.ascontiguousarray({**sample, **result}[spec.name]).tobytes() for spec in specs))
        if spoil and seed == 1:
            row[-1] ^= 0x40
        rows.append("{" + ",".join(map(str, row)) + "}")
    model = read(file)
    kept = state(model)
    kinds = {"int8": "kTfLiteInt8", "float32": "kTfLiteFloat32"}
    sizes = [int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs]
    (folder / "replay.h").write_text(
        '#pragma once\n#include <cstddef>\n#include <cstdint>\n#include "tensorflow/lite/c/common.h"\n'
        "namespace replay {\n"
        f"constexpr size_t kInputs = {len(session.inputs)}, kOutputs = {len(session.outputs)};\n"
        f"constexpr size_t kSamples = {len(rows)};\n"
        f"constexpr size_t kArenaBytes = {arena_bytes};\n"
        f"constexpr unsigned kOperators = {len(model.codes)};\n"
        f"constexpr int kVariables = {variables(model)};\n"
        f"constexpr bool kRemembers = {str(kept.tensors or kept.resources).lower()};\n"
        f"constexpr size_t kBytes[] = {{{','.join(map(str, sizes))}}};\n"
        f"constexpr TfLiteType kTypes[] = {{{','.join(kinds[spec.dtype] for spec in specs)}}};\n"
        f"constexpr uint8_t kValues[][{sum(sizes)}] = {{{','.join(rows)}}};\n}}\n"
    )
    return folder


def selftest(project: Path, folder: Path, *defines: str) -> subprocess.CompletedProcess[str]:
    """Compiles the whole project against the stubs with every warning, and runs it."""
    sources = [*sorted((project / "src").glob("*.cpp")), project / "selftest/main.cpp"]
    run(
        *("g++", "-std=c++17", *WARNINGS, *defines, "-fsanitize=address,undefined", "-fno-sanitize-recover"),
        *("-I", project / "src", "-isystem", STUBS, "-isystem", folder, *sources, "-o", folder / "selftest"),
    )
    return subprocess.run([folder / "selftest"], capture_output=True, text=True, timeout=60)


# --- the project -----------------------------------------------------------------------------------------------------


def test_the_array_is_the_file_without_names(projects, tmp_path):
    project, done = projects("int8")
    content = compiled_data(project, tmp_path)
    lean, whole = read(content), read(models()["int8"])
    assert done.facts["model_bytes"] == len(content) == models()["int8"].stat().st_size - done.facts["left_out_bytes"]
    assert done.facts["left_out_bytes"] > 0
    assert [op.name for op in lean.main.operators] == [op.name for op in whole.main.operators]
    for kept, tensor in zip(lean.main.tensors, whole.main.tensors):
        assert (kept.shape, kept.dtype, kept.quantization) == (tensor.shape, tensor.dtype, tensor.quantization)
        assert lean.data(kept).tobytes() == whole.data(tensor).tobytes()
        assert lean.buffers[kept.buffer].offset % 16 == 0 or not kept.is_constant
    assert lean.metadata == {}


def test_the_arena_suffices_and_less_than_its_need_does_not(projects, tmp_path):
    project, done = projects("int8")
    content = compiled_data(project, tmp_path)
    header = (project / "src/net.h").read_text()
    arena = int(re.search(r"define NET_ARENA_BYTES (\d+)", header)[1])
    interpreter = frameworks.load("tflite_micro").runtime.Interpreter
    interpreter.from_bytes(content, arena_size=arena).invoke()
    need = done.facts["arena_needed_bytes"]
    assert arena == done.facts["arena_bytes"] == -(-int(need * 1.1 * 16) // 256) * 16
    interpreter.from_bytes(content, arena_size=need).invoke()
    with pytest.raises(RuntimeError):
        interpreter.from_bytes(content, arena_size=need - 16).invoke()


@pytest.mark.parametrize("name", ["int8", "two", "lstm", "ring", "int8-float-io"])
def test_the_resolver_has_exactly_the_operators(projects, name):
    project, _ = projects(name)
    source = (project / "src/net.cpp").read_text()
    added = re.findall(r"resolver\.Add(\w+)\(\)", source)
    used = {code.name for code in read(models()[name]).codes}
    assert sorted(word.lower() for word in added) == sorted(word.replace("_", "").lower() for word in used)
    assert f"MicroMutableOpResolver<{len(used)}>" in source


@pytest.mark.parametrize("name", ["int8", "two", "lstm", "ring", "int8-float-io"])
def test_the_selftest_passes_on_what_tflm_computes(projects, tmp_path, name):
    project, done = projects(name)
    replay(models()[name], tmp_path, arena_bytes=done.facts["arena_needed_bytes"])
    got = selftest(project, tmp_path)
    assert got.returncode == 0, got.stdout + got.stderr
    assert "net: 3 samples, 0 outputs differ" in got.stdout


@pytest.mark.parametrize("name", ["lstm", "ring"])
def test_a_stream_goes_on_until_it_is_reset(tmp_path, name):
    project = tmp_path / "out"
    done = edgeopt.export("micro", models()[name], project, name="net", streaming=True)
    replay(models()[name], tmp_path, arena_bytes=done.facts["arena_needed_bytes"])
    got = selftest(project, tmp_path)
    assert (got.returncode, "net: 3 samples, 0 outputs differ" in got.stdout) == (0, True), got.stdout + got.stderr
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include <string.h>\n#include "net.h"\n#include "replay.h"\n'
        "static bool right() {\n"
        "  memcpy(net_input(0), replay::kValues[0], NET_INPUT_0_BYTES);\n"
        "  if (net_invoke() != NET_OK) return false;\n"
        "  return memcmp(net_output(0), replay::kValues[0] + NET_INPUT_0_BYTES, NET_OUTPUT_0_BYTES) == 0;\n}\n"
        "int main() {\n"
        "  if (net_init() || !right() || right()) return 1;\n"
        "  return net_reset() || !right() ? 2 : 0;\n}\n"
    )
    sources = [project / "src/net.cpp", project / "src/net_data.cpp", main]
    include = ("-I", project / "src", "-isystem", STUBS, "-isystem", tmp_path)
    run("g++", "-std=c++17", *WARNINGS, *include, *sources, "-o", tmp_path / "main")
    run(tmp_path / "main")


def test_a_file_of_steps_comes_with_what_carries_its_states(step_file, tmp_path):
    project = tmp_path / "out"
    done = edgeopt.export("micro", step_file, project, name="net")
    session = runtimes.open_session(step_file, RUNTIMES["tflm"])
    calls = session.steps(generated(session.inputs, seed=0))
    replay(step_file, tmp_path, arena_bytes=done.facts["arena_needed_bytes"], samples=calls)
    model = read(step_file)
    names = [spec.name for spec in model.inputs]
    frames = names.index("frames")
    heard = [max(0, min(2, 20 - 2 * number)) for number in range(len(calls))]
    (tmp_path / "frames.h").write_text(
        f"static const int8_t frames[][NET_INPUT_{frames}_SIZE] = "
        f"{{{','.join('{' + ','.join(map(str, call['frames'].ravel())) + '}' for call in calls)}}};\n"
        f"static const int heard[] = {{{','.join(map(str, heard))}}};\n"
    )
    main = tmp_path / "main.cpp"
    # What the stand-in has not seen as the inputs of a step it refuses, so every state has to arrive.
    main.write_text(
        '#include "net_stream.h"\n#include "frames.h"\n'
        "int main() {\n"
        "  if (net_stream_step(frames[0], heard[0]) != NET_ERROR_CLOSED) return 1;\n"
        "  if (net_init()) return 2;\n"
        "  for (int pass = 0; pass < 2; pass++) {\n"
        "    for (int i = 0; i < NET_STREAM_STEPS; i++)\n"
        "      if (net_stream_step(frames[i], heard[i]) != NET_OK) return 3;\n"
        "    if (net_stream_step(frames[0], heard[0]) != NET_ERROR_INVOKE) return 4;\n"
        "    net_stream_reset();\n  }\n}\n"
    )
    sources = [project / f"src/net{part}.cpp" for part in ("", "_data", "_stream")]
    include = ("-I", project / "src", "-I", tmp_path, "-isystem", STUBS, "-isystem", tmp_path)
    run("g++", "-std=c++17", *WARNINGS, *include, *sources, main, "-o", tmp_path / "main")
    run(tmp_path / "main")
    assert "src/net_stream.cpp" in (project / "CMakeLists.txt").read_text()
    assert "net_stream_step(frames, NET_STREAM_FRAMES);" in (project / "README.md").read_text()


def test_calls_that_depend_on_nothing_are_no_stream(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a model with a state for streaming, got int8.tflite"):
        edgeopt.export("micro", models()["int8"], tmp_path / "out", streaming=True)
    with pytest.raises(ConfigError, match="Expected runtime tflm with streaming, got c99"):
        Micro(runtime="c99", streaming=True)


def test_the_selftest_tells_a_wrong_output(projects, tmp_path):
    project, _ = projects("int8")
    replay(models()["int8"], tmp_path, arena_bytes=16, spoil=True)
    got = selftest(project, tmp_path)
    assert got.returncode == 1
    assert "net: sample 1, output 0, element 9: expected" in got.stdout
    assert "1 outputs differ" in got.stdout


def test_the_selftest_tells_an_arena_that_is_too_small(projects, tmp_path):
    project, done = projects("int8")
    replay(models()["int8"], tmp_path, arena_bytes=done.facts["arena_needed_bytes"])
    got = selftest(project, tmp_path, f"-DNET_ARENA_BYTES={done.facts['arena_needed_bytes'] - 16}")
    assert (got.returncode, got.stdout) == (1, "net: did not start, error 3 of net.h\n")


def test_nothing_runs_before_init(projects, tmp_path):
    project, _ = projects("int8")
    replay(models()["int8"], tmp_path, arena_bytes=16)
    main = tmp_path / "main.c"
    main.write_text(
        '#include "net_settings.h"\n'
        "int main(void) {\n"
        "  if (net_input(0) || net_output(0) || net_invoke() != NET_ERROR_CLOSED || net_arena_used_bytes()) return 1;\n"
        "  if (net_init() || net_init() || !net_input(0) || net_input(1) || net_output(-1)) return 2;\n"
        "  return net_invoke() == NET_ERROR_INVOKE ? 0 : 3;\n}\n"
    )
    include = ("-I", project / "src", "-isystem", STUBS, "-isystem", tmp_path)
    run("gcc", "-std=c99", *WARNINGS, *include, "-c", main, "-o", tmp_path / "main.o")
    sources = [project / "src/net.cpp", project / "src/net_data.cpp"]
    run("g++", "-std=c++17", *WARNINGS, *include, *sources, tmp_path / "main.o", "-o", tmp_path / "main")
    run(tmp_path / "main")


def test_cmake_builds_it(projects, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not here: apt-get install cmake")
    project, _ = projects("int8")
    replay(models()["int8"], tmp_path, arena_bytes=16)
    without = run("cmake", "-S", project, "-B", tmp_path / "none", expect=1)
    assert "Configuring incomplete" in without
    run("cmake", "-S", project, "-B", tmp_path / "build", f"-DTFLM_INCLUDE_DIR={STUBS};{tmp_path}")
    run("cmake", "--build", tmp_path / "build")
    assert "100% tests passed" in run("ctest", "--test-dir", tmp_path / "build")


def test_other_build_files(projects):
    project, done = projects("int8")
    library = json.loads((project / "library.json").read_text())
    assert (library["name"], library["build"]["srcDir"]) == ("net", "src")
    component = yaml.safe_load((project / "idf_component.yml").read_text())
    assert "espressif/esp-tflite-micro" in component["dependencies"]
    assert yaml.safe_load((project / "zephyr/module.yml").read_text())["build"]["cmake"] == "zephyr"
    properties = dict(line.split("=", 1) for line in (project / "library.properties").read_text().splitlines())
    assert (properties["name"], properties["includes"]) == ("net", "net.h")
    for build in ("CMakeLists.txt", "zephyr/CMakeLists.txt", "zephyr/selftest/CMakeLists.txt"):
        for path in re.findall(r"[\w./]+\.cpp", (project / build).read_text()):
            assert ((project / build).parent / path).is_file(), path
    readme = (project / "README.md").read_text()
    assert f"| RAM of the tensor arena, `NET_ARENA_BYTES` | {done.facts['arena_bytes']} |" in readme
    assert "no package registry carries its sources" in readme
    assert "{{" not in "".join(path.read_text() for path in project.rglob("*") if path.is_file())


def test_names_in_the_file_do_no_harm(tmp_path):
    """Names of tensors and of the file itself end no comment and no line of the code that mentions them."""
    hostile = '*/ #error "x"\n#error y \\'

    def rename(model, schema):
        for entry in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
            entry.name = f"{hostile}{entry.tensorIndex}"

    file = tmp_path / "a\n#error name.tflite"
    file.write_bytes(rewrite.changed(models()["int8"].read_bytes(), rename))
    edgeopt.export("micro", file, tmp_path / "out", name='"; #error')
    replay(file, tmp_path, arena_bytes=16)
    got = selftest(tmp_path / "out", tmp_path)
    assert (got.returncode, got.stdout.splitlines()[-1].split(";")[0]) == (
        0,
        "model_error: 3 samples, 0 outputs differ",
    )


def test_weights_behind_the_flatbuffer_ship_inside(projects, tmp_path):
    """TFLM computes NaN without them, and ai-edge-quantizer writes them there from 256 KiB on."""
    file = tmp_path / "int8.tflite"
    file.write_bytes(tflite_models.behind(models()["int8"].read_bytes()))
    with pytest.raises(ModelError, match=r"Expected weights inside the flatbuffer of int8.tflite.*export micro"):
        runtimes.open_session(file, RUNTIMES["tflm"])
    assert any("behind the flatbuffer" in reason for reason in unsupported_by(read(file), "tflm"))
    edgeopt.export("micro", file, tmp_path / "out", name="net")
    project, _ = projects("int8")
    for name in ("net_data.cpp", "net_selftest.cpp"):
        assert (tmp_path / "out/src" / name).read_text() == (project / "src" / name).read_text()


def test_what_vela_compiled_ships_with_the_driver_named(tmp_path):
    """As Vela writes it: a stream of commands, weights and scratch memory, placed by an offline plan."""

    def compile_for_npu(model, schema):
        graph = model.subgraphs[0]
        given, result = (graph.tensors[index[0]] for index in (graph.inputs, graph.outputs))

        def tensor(size, data=None):
            made, buffer = schema.TensorT(), schema.BufferT()
            made.name, made.type, made.shape, made.buffer = "t", schema.TensorType.UINT8, [size], 0
            if data is not None:
                made.buffer, buffer.data = len(model.buffers), data
                model.buffers.append(buffer)
            return made

        graph.tensors = [result, tensor(64, bytes(64)), tensor(512, bytes(512)), tensor(2000), given]
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, [1, 2, 3, 4], [0]
        operator.customOptions = [1, 4, 1]
        graph.operators, graph.inputs, graph.outputs = [operator], [4], [0]
        (model.signatureDefs[0].inputs[0].tensorIndex, model.signatureDefs[0].outputs[0].tensorIndex) = (4, 0)
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "ethos-u"
        model.operatorCodes = [code]

    plan = np.array([0, 0, 5, 1024, -1, -1, 0, 2048], "<i4").tobytes()
    compiled = rewrite.changed(models()["int8"].read_bytes(), compile_for_npu)
    file = tmp_path / "npu.tflite"
    file.write_bytes(rewrite.with_metadata(compiled, "OfflineMemoryAllocation", plan))
    done = edgeopt.export("micro", file, tmp_path / "out", name="net", arena_margin=0)
    # The input lies highest, from 2048 on; then the interpreter, and an entry for each of five tensors and an operator.
    assert done.facts["arena_bytes"] == 2048 + 8 * 8 + 4096 + 128 * 6
    assert (done.facts["operators"], done.facts["golden_samples"]) == ("EthosU", 0)
    assert any("nothing on this machine runs an Ethos-U" in note for note in done.notes)
    readme = (tmp_path / "out/README.md").read_text()
    assert "ethos-u-core-driver" in readme
    assert "CO_PROCESSOR=ethos_u" in readme
    shipped = read(compiled_data(tmp_path / "out", tmp_path))
    assert bytes(shipped.buffer(shipped.metadata["OfflineMemoryAllocation"])) == plan
    sizes = "constexpr size_t kInputs = 1, kOutputs = 1, kSamples = 1, kArenaBytes = 16, kBytes[] = {64, 10};"
    types = "constexpr TfLiteType kTypes[] = {kTfLiteInt8, kTfLiteInt8};"
    (tmp_path / "replay.h").write_text(
        '#pragma once\n#include <cstddef>\n#include <cstdint>\n#include "tensorflow/lite/c/common.h"\n'
        f"namespace replay {{\n{sizes}\n{types}\nconstexpr unsigned kOperators = 1;\nconstexpr int kVariables = 0;\n"
        "constexpr bool kRemembers = false;\nconstexpr uint8_t kValues[1][74] = {};\n}\n"
    )
    got = selftest(tmp_path / "out", tmp_path)
    assert (got.returncode, got.stdout.split(";")[0]) == (0, "net: ran"), got.stderr
    with pytest.raises(ModelError, match="C99 engine has, got ethos-u"):
        edgeopt.export("micro", file, tmp_path / "c99", runtime="c99")


@pytest.mark.parametrize(
    ("name", "used"), [("math", "model_math"), ("String", "model_string"), ("test", "model_test"), ("clock", "clock")]
)
def test_a_name_takes_no_header_and_no_target_away(tmp_path, name, used):
    project = tmp_path / "out"
    done = edgeopt.export("micro", models()["float32"], project, name=name)
    assert f"src/{used}.h" in done.files
    include = ("-I", project / "src", "-isystem", STUBS, "-isystem", tmp_path)
    replay(models()["float32"], tmp_path, arena_bytes=16)
    run("g++", "-std=c++17", *WARNINGS, *include, "-fsyntax-only", *sorted((project / "src").glob("*.cpp")))
    plain = edgeopt.export("micro", models()["float32"], tmp_path / "c99", name=name, runtime="c99")
    assert f"include/{used}.h" in plain.files
    sources = sorted((tmp_path / "c99/src").glob("*.c"))
    run("gcc", "-std=c99", *WARNINGS, "-I", tmp_path / "c99/include", "-fsyntax-only", *sources)


def test_another_project_takes_the_place_of_the_one_before(tmp_path):
    out = tmp_path / "out"
    first = edgeopt.export("micro", models()["int8"], out, name="net")
    (out / "src/mine.cpp").write_text("// mine")
    (out / "zephyr/prj.conf").write_text("mine")
    (out / "README.md").write_text("changed, and in both")
    (out / "library.json").write_text("changed")
    second = edgeopt.export("micro", models()["int8"], out, name="net", runtime="c99")
    there = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert set(first.files) - set(second.files) > {"src/net.cpp", "zephyr/module.yml"}
    assert there == {*second.files, MARKER, "src/mine.cpp", "zephyr/prj.conf", "library.json"}
    assert not (out / "examples").exists()
    assert (out / "README.md").read_text().startswith("# net")
    assert "of the project before, changed since and kept: library.json" in second.notes
    # Where a list came with a folder from elsewhere, it reaches no file outside of it.
    outside = tmp_path / "outside.txt"
    outside.write_text("theirs")
    (out / "link").symlink_to(tmp_path)
    digest = sha256(outside)
    (out / MARKER).write_text(
        f"micro\n{digest}  ../outside.txt\n{digest}  {outside}\n{digest}  link/outside.txt\nodd\n"
    )
    edgeopt.export("micro", models()["int8"], out, name="net", runtime="c99")
    assert outside.read_text() == "theirs"


# --- the settings header ---------------------------------------------------------------------------------------------

READER = r"""
#include <stdio.h>
#include "net_settings.h"
int main(void) {
    float real;
    int places[3], i;
    NET_OUTPUT_0_TYPE scores[NET_OUTPUT_0_SIZE] = {1, 5, -3, 5, 2, 0, 0, 9, 0, -128};
    for (i = 0; i < NET_CLASSES; i++) {
        const char *byte;
        for (byte = net_classes[i]; *byte; byte++) printf("%02x", (unsigned char)*byte);
        printf("\n");
    }
    net_top(scores, 3, places);
    printf("%d %d %d\n", places[0], places[1], places[2]);
    printf("%d %d %d %d\n", NET_INPUT_0_RANK, NET_INPUT_0_DIM_1, NET_RESIZE_HEIGHT, NET_IS_PREPROCESSED);
    printf("%.9g %.9g\n", (double)net_preprocess(255.0f, 0), (double)net_dequantize_0(-128));
    while (scanf("%f", &real) == 1) printf("%d ", net_quantize_0(real));
    return 0;
}
"""


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_settings_header(projects, tmp_path, language):
    project, _ = projects("int8")
    main = tmp_path / "main.c"
    main.write_text(READER)
    standard = {"c": ("gcc", "-std=c99"), "c++": ("g++", "-std=c++17", "-x", "c++")}[language]
    run(*standard, *WARNINGS, "-I", project / "src", main, "-o", tmp_path / "main")
    session = runtimes.open_session(models()["int8"], RUNTIMES["tflm"])
    (picture,), (kind,) = session.inputs, session.outputs
    scale = picture.quantization.scales[0]
    reals = np.array([0, scale * 0.49999, scale * 0.5, -scale * 0.5, 1e9, -1e9, 1.234, -0.77], np.float32)
    text = " ".join(f"{value:.9g}" for value in reals) + " nan"
    out = subprocess.run([tmp_path / "main"], input=text, capture_output=True, text=True, check=True).stdout
    lines = out.split("\n")
    assert [bytes.fromhex(line).decode() for line in lines[:10]] == list(HOSTILE)
    assert lines[10] == "7 1 3"
    assert lines[11] == "4 8 8 1"
    shown, lowest = map(float, lines[12].split())
    assert shown == pytest.approx((255 * np.float32(1 / 255) - 0.5) / 0.25)
    assert lowest == dequantize(np.array([-128], np.int8), kind)[0]
    assert list(map(int, lines[13].split())) == [*quantize(reals, picture), -128]


def test_literals():
    assert number(1) == "1.0f"
    assert np.float32(float(number(0.1).rstrip("f"))) == np.float32(0.1)
    assert number(float("nan")) == "NAN"
    assert number(float("-inf")) == "-INFINITY"
    assert numbers(np.array([np.iinfo(np.int64).min, 1])).strip() == "INT64_MIN, 1"


# --- refusals --------------------------------------------------------------------------------------------------------


def test_the_settings():
    assert EXPORTERS["micro"].settings is Micro
    with pytest.raises(ConfigError, match=r"Expected rounding tflm with runtime tflm.*got 'xnnpack'.*--runtime c99"):
        Micro(rounding="xnnpack")
    assert Micro(runtime="c99", rounding="xnnpack").rounding == "xnnpack"
    with pytest.raises(ConfigError, match=r"Expected pack auto with runtime tflm.*got 'never'.*--runtime c99 --pack"):
        Micro(pack="never")
    assert Micro(runtime="c99", pack="never").pack == "never"


@pytest.mark.parametrize("runtime", ["tflm", "c99"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("float16", r"float16.tflite holds float16 weights.*Expected an int8 or float32 model.*--scheme int8"),
        ("dynamic", r"dynamic.tflite quantizes at run time \(dynamic range\).*--scheme int8"),
    ],
)
def test_files_that_no_microcontroller_runs(tmp_path, name, why, runtime):
    with pytest.raises(ModelError, match=why):
        edgeopt.export("micro", models()[name], tmp_path / "out", runtime=runtime)
    assert not (tmp_path / "out").exists()


def test_the_int8_variant_beside_the_best_one_is_named(tmp_path):
    best, variant = tmp_path / "best.tflite", tmp_path / "variants" / "picture.int8.tflite"
    variant.parent.mkdir()
    best.symlink_to(models()["float16"])
    with pytest.raises(ModelError, match=r"best.tflite holds float16 weights.*Try edgeopt convert"):
        edgeopt.export("micro", best, tmp_path / "out")
    variant.symlink_to(models()["int8"])
    with pytest.raises(ModelError, match=r"Try \S+/variants/picture\.int8\.tflite, which lies beside it\."):
        edgeopt.export("micro", best, tmp_path / "out")


@pytest.mark.parametrize("runtime", ["tflm", "c99"])
def test_uint8_of_older_files_is_refused_alike(runtime):
    model = read(models()["int8"])
    tensors = tuple(replace(t, dtype=t.dtype.replace("int8", "uint8")) for t in model.main.tensors)
    old = replace(model, subgraphs=(replace(model.main, tensors=tensors),))
    with pytest.raises(ModelError, match=r"int8.tflite holds the uint8 weights of older files.*Try .*--scheme int8"):
        require_fit(Source(models()["int8"], b"", old, "net"), runtime)


def changed(name: str, **changes) -> Source:
    """A Source of a model whose tensors are changed: {tensor name: fields}, or the inputs' specs."""
    model = read(models()[name])
    tensors = tuple(replace(t, **changes.get(t.name, {})) for t in model.main.tensors)
    tensors = tuple(replace(t, **changes["inputs"]) if t.index in model.main.inputs else t for t in tensors)
    model = replace(model, subgraphs=(replace(model.main, tensors=tensors),))
    return Source(models()[name], b"", model, "net")


@pytest.mark.parametrize(
    ("name", "fields", "runtime", "why"),
    [
        (
            "int8",
            {"signature": (4, 8, 8, 1)},
            "tflm",
            r"a first dimension of 1, got one that is fixed at 4 .* samples or steps in time.*exported for 1 of them",
        ),
        ("int8", {"signature": (None, None, 8, 1)}, "c99", r"Expected fixed shapes, got \[\?, \?, 8, 1\].*Input gives"),
        ("float32", {"dtype": "complex64"}, "tflm", r"inputs and outputs of int8, .*got complex64 for 'picture'"),
        ("int8", {"dtype": "int16"}, "c99", r"Expected int8 or float32 activations for c99, got int16.*--runtime tflm"),
    ],
)
def test_what_does_not_fit_is_refused(name, fields, runtime, why):
    with pytest.raises(ModelError, match=why):
        require_fit(changed(name, inputs=fields), runtime)


def test_weights_of_int8_for_float_kernels():
    """As ai-edge-quantizer's weight-only recipes make them: int8 constants that are dequantized before each use."""
    model = read(models()["float16"])
    tensors = tuple(replace(t, dtype="int8") if t.dtype == "float16" else t for t in model.main.tensors)
    source = Source(Path("w.tflite"), b"", replace(model, subgraphs=(replace(model.main, tensors=tensors),)), "w")
    with pytest.raises(ModelError, match=r"w.tflite holds int8 weights for float kernels.*--scheme int8"):
        require_fit(source, "tflm")


def test_operators_that_tflm_lacks():
    model = read(models()["int8"])
    odd = replace(model, codes=(*model.codes, OperatorCode("GELU", 1, False), OperatorCode("FlexErf", 1, True)))
    with pytest.raises(ModelError, match=r"Expected operators that TFLM has, got GELU, FlexErf in net.tflite"):
        operators.registrations(odd, "net.tflite")


def test_a_target_that_it_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a microcontroller as target, got 'host'"):
        edgeopt.export("micro", models()["int8"], tmp_path / "out", target="host")
    edgeopt.export("micro", models()["int8"], tmp_path / "out", target="cortex-m4")
    source = Source(models()["int8"], b"", read(models()["int8"]), "net")
    large = Project({}, facts={"model_bytes": 1000, "arena_bytes": 10**9})
    with pytest.raises(ModelError, match=r"Expected a model that fits cortex-m4.*1,000,000,000 bytes of RAM.*CONV_2D"):
        require_room(source, large, "cortex-m4")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path):
    file = tmp_path / "My Net (v2).tflite"
    file.write_bytes(models()["int8"].read_bytes())
    done = command("export", "micro", file, "-o", "firmware", "--arena-margin", "0.5", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    assert facts["arena_bytes"] >= 1.5 * facts["arena_needed_bytes"]
    assert (tmp_path / "firmware/src/my_net_v2.h").is_file()
    again = command("export", "micro", file, "-o", "firmware", "--runtime", "c88", folder=tmp_path)
    assert again.returncode == 2
    assert "'c88'. Known: c99, tflm." in again.stderr
