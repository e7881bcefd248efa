"""The C99 project builds with CMake, and its self-test tells right results from wrong ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import test_c99_packing
from c99_graphs import Graph

import edgeopt
from edgeopt import frameworks
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.exporters.micro import proof

CLASSES = ('a "quoted" one', "*/ #error", "größer\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a dense layer to three classes."""
    g = Graph(1)
    x = g.tensor((1, 6, 5, 4), zero=-5)
    window = {"axis": 0, "kind": "Conv2DOptions", "padding": 0, "strideH": 2, "strideW": 2}
    y = g.weighted("CONV_2D", x, (6, 3, 3, 4), (1, 3, 3, 6), **window)
    flat = g.tensor((1, 54), scale=0.1, zero=3)
    g.operator("RESHAPE", [y, g.constant([1, 54])], [flat])
    dense = {"axis": 0, "kind": "FullyConnectedOptions", "version": 4, "scale": 0.4}
    file = tmp_path_factory.mktemp("c99") / "Großes Netz.tflite"
    file.write_bytes(g.build([x], [g.weighted("FULLY_CONNECTED", flat, (3, 54), (1, 3), **dense)]))
    return file


def compiled_and_run(project: Path) -> subprocess.CompletedProcess[str]:
    """Compiles the project of the model called net, and runs its self-test."""
    sources = ["src/net.c", "src/net_weights.c", "selftest/main.c", "selftest/net_selftest.c"]
    command = ["gcc", "-std=c99", "-Iinclude", *sources, "-lm", "-o", "selftest/program"]
    assert subprocess.run(command, cwd=project).returncode == 0
    return subprocess.run([project / "selftest" / "program"], capture_output=True, text=True)


@pytest.mark.parametrize("rounding", ["tflm", "xnnpack"])
def test_the_project_builds_and_tests_itself(model: Path, rounding: str, tmp_path: Path) -> None:
    output = tmp_path / "project"
    exported = edgeopt.export("micro", model, output, runtime="c99", rounding=rounding, classes=CLASSES)
    assert exported.facts["rounding"] == rounding
    header = (output / "include" / "grosses_netz.h").read_text()
    assert f"#define GROSSES_NETZ_ARENA_BYTES {exported.facts['arena_bytes']}\n" in header
    assert "peak_operator" in exported.facts
    if not shutil.which("cmake") or not shutil.which("gcc"):
        pytest.skip("no C build tools here: install cmake and gcc")
    flags = "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror -pedantic"
    for command in (
        ["cmake", "-S", ".", "-B", "build", flags],
        ["cmake", "--build", "build"],
        ["ctest", "--test-dir", "build", "--output-on-failure"],
    ):
        done = subprocess.run(command, cwd=output, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    program = output / "build" / "grosses_netz_selftest"
    assert "3 samples, 0 outputs differ" in subprocess.run([program], capture_output=True, text=True).stdout
    settings = "int main(void) { return grosses_netz_classes[0][0] != 'a'; }\n"
    (output / "settings.c").write_text('#include "grosses_netz_settings.h"\n' + settings)
    command = ["gcc", "-std=c99", "-Iinclude", "settings.c", "-o", "settings"]
    assert subprocess.run(command, cwd=output).returncode == 0
    assert subprocess.run([output / "settings"]).returncode == 0


@pytest.mark.parametrize(("kind", "dtype"), [("int2", "int2"), ("16 of each", "int8")])
def test_the_readme_says_what_packing_saved_and_costs(kind: str, dtype: str, tmp_path: Path) -> None:
    """int2, which no runtime of the family has: the golden outputs are those of the same weights in 8 bits."""
    file = tmp_path / "net.tflite"
    file.write_bytes(test_c99_packing._network(kind, dtype))
    plain, packed = (
        edgeopt.export("micro", file, tmp_path / pack, runtime="c99", pack=pack) for pack in ("never", "auto")
    )
    assert plain.facts["weights_bytes"] - packed.facts["weights_bytes"] == packed.facts["packed_saves_bytes"] > 0
    assert packed.facts["arena_bytes"] - plain.facts["arena_bytes"] == packed.facts["packed_more_arena_bytes"]
    assert "packed_operators" not in plain.facts
    readme = (tmp_path / "auto" / "README.md").read_text()
    assert f"saves {packed.facts['packed_saves_bytes']} bytes of flash" in readme
    bits, form = (2, "on a grid") if kind == "int2" else (4, "in a codebook")
    assert f"| CONV_2D (operator 1) | {bits} | {form} |" in readme
    assert "Packed weights" not in (tmp_path / "never" / "README.md").read_text()


def test_what_auto_left_is_said(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(test_c99_packing._dense("16 of each"))
    auto, always = (
        edgeopt.export("micro", file, tmp_path / pack, runtime="c99", pack=pack) for pack in ("auto", "always")
    )
    more = always.facts["packed_saves_bytes"] - auto.facts["packed_saves_bytes"]
    assert any(
        f"there: FULLY_CONNECTED (operator 2); --pack always saves {more:,} more bytes" in note for note in auto.notes
    )
    assert "FULLY_CONNECTED (operator 2) would save" in (tmp_path / "auto" / "README.md").read_text()
    assert not any("--pack" in note for note in always.notes)


def test_without_tflite_micro_the_self_test_is_of_another_family_and_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None if name == "tflite_micro" else "1")
    output = tmp_path / "project"
    exported = edgeopt.export("micro", model, output, runtime="c99", name="net")
    assert any("reference kernels, within 8 quantization steps: tflite-micro" in note for note in exported.notes)
    assert "8 quantization steps from those of LiteRT's reference kernels" in (output / "README.md").read_text()
    if not shutil.which("gcc"):
        pytest.skip("no C compiler here: install gcc")
    assert "3 samples, 0 outputs differ" in compiled_and_run(output).stdout


def _damaged(model: Path, output: Path) -> dict[str, bytes | str]:
    """The files of a project, four weights of which are others."""
    edgeopt.export("micro", model, output, runtime="c99", name="net")
    files: dict[str, bytes | str] = {
        str(path.relative_to(output)): path.read_text() for path in output.rglob("*") if path.suffix in (".c", ".h")
    }
    lines = str(files["src/net_weights.c"]).splitlines()
    first = next(i for i, line in enumerate(lines) if "weights[" in line) + 1
    lines[first] = "    127, 127, 127, 127," + lines[first].split(",", 4)[4]
    return {**files, "src/net_weights.c": "\n".join(lines) + "\n"}


def test_the_export_runs_its_own_self_test(model: Path, tmp_path: Path) -> None:
    compiler = next((name for name in proof.COMPILERS if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("no C compiler here: install gcc")
    exported = edgeopt.export("micro", model, tmp_path / "project", runtime="c99")
    assert exported.facts["self_test"] == f"3 samples, 0 outputs differ, compiled by {compiler}"
    with pytest.raises(
        ModelError, match=r"C of net does not compute .* \(net: 3 samples, \d+ outputs differ: net: sample 0"
    ):
        proof.prove(_damaged(model, tmp_path / "damaged"), "net")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("[ $1 = --version ]", r"cc did not compile the C of net: .*\. Try another C99 compiler as cc or gcc or clang"),
        ('[ $1 = --version ] || { printf "#!/bin/sh\\nexit 3\\n" > program; chmod +x program; }', r"\(exit status 3\)"),
    ],
)
def test_a_compiler_that_fails(script: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises((ModelError, UnavailableError), match=words):
        proof.prove({"src/net.c": "", "selftest/main.c": ""}, "net")


def test_compilers_and_programs_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(map(shutil.which, proof.COMPILERS)):
        pytest.skip("no C compiler here: install gcc")
    for name, seconds in (("_COMPILE_S", 0), ("_RUN_S", 0)):
        monkeypatch.setattr(proof, name, seconds)
        with pytest.raises((ModelError, UnavailableError), match=r"Expected the (C|self-test) of net"):
            proof.prove({"src/net.c": "int main(void) { for (;;) {} }"}, "net")
        monkeypatch.undo()


def test_golden_outputs_that_are_infinite(tmp_path: Path) -> None:
    if not any(map(shutil.which, proof.COMPILERS)):
        pytest.skip("no C compiler here: install gcc")
    g = Graph()
    x, y = g.tensor((1, 4), "float32"), g.tensor((1, 4), "float32")
    mask = g.constant([[0, float("-inf"), float("inf"), float("nan")]], "float32")
    g.operator("ADD", [x, mask], [y], "AddOptions")
    file = tmp_path / "model.tflite"
    file.write_bytes(g.build([x], [y]))
    exported = edgeopt.export("micro", file, tmp_path / "project", runtime="c99", rounding="xnnpack")
    assert "0 outputs differ" in exported.facts["self_test"]
    assert "INFINITY" in (tmp_path / "project" / "selftest" / "model_selftest.c").read_text()


def test_without_a_compiler_it_says_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    exported = edgeopt.export("micro", model, tmp_path / "project", runtime="c99")
    words = "not run: none of cc, gcc, clang works on this machine; ctest runs it where one does"
    assert exported.facts["self_test"] == words


def test_an_operator_without_a_kernel_is_refused(tmp_path: Path) -> None:
    g = Graph()
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    g.operator("CUMSUM", [x, g.constant(1)], [y], "CumsumOptions")
    file = tmp_path / "model.tflite"
    file.write_bytes(g.build([x], [y]))
    with pytest.raises(ModelError, match=r"operators that the C99 engine has, got CUMSUM\. Try --runtime tflm"):
        edgeopt.export("micro", file, tmp_path / "project", runtime="c99")
