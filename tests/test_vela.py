"""Vela on small real files: what it makes, what it leaves to the CPU, and what it says of files it cannot take."""

from __future__ import annotations

import pytest
from runtime_models import models

from edgeopt import frameworks
from edgeopt.compilers import vela
from edgeopt.compilers.vela import Accelerator, compile_file, is_compiled
from edgeopt.errors import ConversionError, UnavailableError
from edgeopt.tflite.macs import count_macs
from edgeopt.tflite.reader import read

U55 = Accelerator("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")

needs_vela = pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")


@needs_vela
def test_an_int8_file_runs_on_the_npu() -> None:
    file = models()["int8"]
    compiled = compile_file(file, U55)
    made, figures = read(compiled.content), compiled.figures
    assert is_compiled(made)
    assert not is_compiled(read(file))
    assert [spec.shape for spec in made.inputs] == [spec.shape for spec in read(file).inputs]
    assert figures.npu_operators > 0
    assert (figures.cpu_operators, figures.on_cpu, figures.notes) == (0, (), ())
    assert sum(layer.macs for layer in compiled.layers) >= count_macs(read(file)).total
    assert figures.cycles > 0
    assert figures.latency_ms == pytest.approx(1e3 * figures.cycles / figures.clock_hz)
    assert figures.inferences_per_second * figures.latency_ms == pytest.approx(1e3)
    assert figures.sram_bytes >= 8 * 8 * 8
    assert figures.flash_bytes > 0


@needs_vela
def test_more_multipliers_take_fewer_cycles() -> None:
    small = compile_file(models()["int8"], Accelerator("ethos-u55-32", U55.system, U55.memory_mode))
    assert compile_file(models()["int8"].read_bytes(), U55).figures.cycles < small.figures.cycles


@needs_vela
def test_a_float_file_is_all_on_the_cpu_and_says_so() -> None:
    figures = compile_file(models()["float32"], U55).figures
    assert (figures.cycles, figures.latency_ms, figures.inferences_per_second, figures.npu_operators) == (0, 0, 0, 0)
    assert figures.cpu_operators == len(read(models()["float32"]).main.operators)
    assert "not one operator runs on the NPU" in figures.notes[0]
    assert any("Float32" in row.reason for row in figures.on_cpu)


@needs_vela
def test_a_part_on_the_cpu_is_told_with_its_reason() -> None:
    figures = compile_file(models()["int8-float-io"], U55).figures
    assert figures.npu_operators > 0
    assert figures.cpu_operators >= 2
    assert any(note.startswith("1 QUANTIZE stays on the CPU") for note in figures.notes)
    assert all(row.reason and "\n" not in row.reason for row in figures.on_cpu)


@needs_vela
def test_what_is_no_model_is_refused_with_its_words() -> None:
    with pytest.raises(
        ConversionError, match=r"Vela could not compile .* ethos-u55-128 \(exit status [1-9-].*Try --scheme int8"
    ):
        compile_file(b"TFL3 but not really" * 20, U55)
    with pytest.raises(ConversionError, match="Vela could not compile"):
        compile_file(models()["int8"], Accelerator("ethos-u55-129", U55.system, U55.memory_mode))


@needs_vela
def test_it_may_not_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "TIMEOUT_S", 0.01)
    with pytest.raises(ConversionError, match=r"Vela took longer than 0.01 s for ethos-u55-128"):
        compile_file(models()["int8"], U55)


def test_without_it_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None)
    with pytest.raises(UnavailableError, match=r"ethos-u-vela .* pip install 'edgeopt\[ethos-u\]'"):
        compile_file(b"", U55)
