"""Vela on small real files: what it makes, what it leaves to the CPU, and what it says of files it cannot take."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_models import models

from edgeopt import frameworks, runtimes
from edgeopt.compilers import COMPILERS, compile_content, compiled_by, vela
from edgeopt.compilers.contract import Compiled, Figures
from edgeopt.errors import ConversionError, ModelError, UnavailableError
from edgeopt.tflite.macs import count_macs
from edgeopt.tflite.reader import read

U55 = {"accelerator": "ethos-u55-128", "system": "Ethos_U55_High_End_Embedded", "memory_mode": "Shared_Sram"}

needs_vela = pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")


def compiled(file: Path, **changes: str) -> tuple[Compiled, Figures]:
    made = compile_content(file.read_bytes(), COMPILERS["vela"], {**U55, **changes})
    assert made.figures is not None
    return made, made.figures


@needs_vela
def test_an_int8_file_runs_on_the_npu() -> None:
    file = models()["int8"]
    made, figures = compiled(file)
    model = read(made.content)
    assert compiled_by(operator.name for operator in model.main.operators) is COMPILERS["vela"]
    assert compiled_by(operator.name for operator in read(file).main.operators) is None
    assert [spec.shape for spec in model.inputs] == [spec.shape for spec in read(file).inputs]
    assert figures.accelerated_operators > 0
    assert (figures.cpu_operators, figures.on_cpu, figures.notes) == (0, (), ())
    assert sum(layer.macs for layer in made.layers) >= count_macs(read(file)).total
    assert figures.cycles > 0
    assert figures.latency_ms == pytest.approx(1e3 * figures.cycles / figures.clock_hz)
    assert figures.inferences_per_second * figures.latency_ms == pytest.approx(1e3)
    assert figures.ram_bytes >= 8 * 8 * 8
    assert figures.flash_bytes > 0


@needs_vela
@pytest.mark.parametrize("runtime", ["tflm", "litert", "qemu-cortex-m4"])
def test_what_no_runtime_here_computes_is_said_in_words(runtime: str, tmp_path: Path) -> None:
    if not runtimes.available(runtimes.RUNTIMES[runtime]).available:
        pytest.skip(f"{runtime} is not here")
    file = tmp_path / "net.vela.tflite"
    file.write_bytes(compiled(models()["int8"])[0].content)
    words = rf"got net.vela.tflite, which is compiled for an Ethos-U: {runtime} has none. Try the file that it was"
    with pytest.raises(ModelError, match=words):
        runtimes.isolated(file, runtimes.RUNTIMES[runtime])


@needs_vela
def test_more_multipliers_take_fewer_cycles() -> None:
    _, small = compiled(models()["int8"], accelerator="ethos-u55-32")
    _, large = compiled(models()["int8"])
    assert large.cycles < small.cycles


@needs_vela
def test_a_float_file_is_all_on_the_cpu_and_says_so() -> None:
    _, figures = compiled(models()["float32"])
    assert (figures.cycles, figures.latency_ms, figures.inferences_per_second, figures.accelerated_operators) == (
        0,
        0,
        0,
        0,
    )
    assert figures.cpu_operators == len(read(models()["float32"]).main.operators)
    assert "not one operator runs on the NPU" in figures.notes[0]
    assert any("Float32" in row.reason for row in figures.on_cpu)


@needs_vela
def test_a_part_on_the_cpu_is_told_with_its_reason() -> None:
    _, figures = compiled(models()["int8-float-io"])
    assert figures.accelerated_operators > 0
    assert figures.cpu_operators >= 2
    assert any(note.startswith("1 QUANTIZE stays on the CPU") for note in figures.notes)
    assert all(row.reason and "\n" not in row.reason for row in figures.on_cpu)


@needs_vela
def test_what_is_no_model_is_refused_with_its_words() -> None:
    with pytest.raises(
        ConversionError, match=r"Vela could not compile .* ethos-u55-128 \(exit status [1-9-].*Try --scheme int8"
    ):
        compile_content(b"TFL3 but not really" * 20, COMPILERS["vela"], U55)
    with pytest.raises(ConversionError, match="Vela could not compile"):
        compiled(models()["int8"], accelerator="ethos-u55-129")


@needs_vela
def test_it_may_not_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "TIMEOUT_S", 0.01)
    with pytest.raises(ConversionError, match=r"Vela took longer than 0.01 s for ethos-u55-128"):
        compiled(models()["int8"])


def test_without_it_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None)
    with pytest.raises(UnavailableError, match=r"ethos-u-vela .* pip install 'edgeopt\[ethos-u\]'"):
        compile_content(b"", COMPILERS["vela"], U55)
