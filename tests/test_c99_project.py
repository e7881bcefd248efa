"""The C99 project builds with CMake, and its self-test tells right results from wrong ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from c99_graphs import Graph

import edgeopt
from edgeopt import frameworks
from edgeopt.errors import ModelError

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


def test_the_self_test_finds_a_wrong_weight(model: Path, tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("no C compiler here: install gcc")
    output = tmp_path / "project"
    edgeopt.export("micro", model, output, runtime="c99", name="net")
    weights = output / "src" / "net_weights.c"
    lines = weights.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if "weights[" in line) + 1
    lines[first] = "    127, 127, 127, 127," + lines[first].split(",", 4)[4]
    weights.write_text("\n".join(lines) + "\n")
    done = compiled_and_run(output)
    assert done.returncode == 1
    assert "net: sample 0, output 0, element" in done.stdout


def test_an_operator_without_a_kernel_is_refused(tmp_path: Path) -> None:
    g = Graph()
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    g.operator("CUMSUM", [x, g.constant(1)], [y], "CumsumOptions")
    file = tmp_path / "model.tflite"
    file.write_bytes(g.build([x], [y]))
    with pytest.raises(ModelError, match=r"operators that the C99 engine has, got CUMSUM\. Try --runtime tflm"):
        edgeopt.export("micro", file, tmp_path / "project", runtime="c99")
