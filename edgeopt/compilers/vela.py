"""Arm's Vela: an int8 `.tflite` and an Ethos-U go in; the file for it, cycles, memory and what the CPU runs come out.

Vela runs in a process of its own; its figures are those of its performance model, no measurement.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgeopt import frameworks
from edgeopt.errors import ConversionError, UnavailableError
from edgeopt.tflite.model import TFLiteModel

TIMEOUT_S = 600
_KIB = 1024
_REFUSED = re.compile(
    r"Warning \(supported operators\) operator: (?P<operator>\w+), ofm: '(?P<name>[^\n]*)'\n"
    r"Reason: (?P<reason>.+?)\n\s*\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Accelerator:
    """Which Ethos-U, in which system.

    Attributes:
        configuration: as Vela's `--accelerator-config`: "ethos-u55-128".
        system, memory_mode: sections of Vela's Arm/vela.ini: clock and speed of memories, and what lies where.
    """

    configuration: str
    system: str
    memory_mode: str


@dataclass(frozen=True)
class OnCpu:
    """An operator that Vela leaves to the CPU.

    Attributes:
        name: of the tensor it writes.
        reason: in Vela's words.
    """

    operator: str
    name: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """An operator of the file as the NPU runs it.

    Attributes:
        cycles: by Vela's model; 0 for what the CPU runs.
    """

    operator: str
    name: str
    cycles: int
    macs: int
    on_npu: bool


@dataclass(frozen=True)
class Figures:
    """What Vela says of a file that it compiled.

    Attributes:
        clock_hz: of the NPU.
        cycles: of one inference on the NPU; what the CPU runs is not in them, nor in the two that follow from it.
        sram_bytes: of activations and buffers; TFLM's own structures come on top.
        flash_bytes: of weights and commands, as the NPU reads them.
        npu_operators, cpu_operators: how many run where, as Vela counts them after its own rewriting.
        on_cpu: each of those on the CPU, with the reason.
    """

    accelerator: Accelerator
    clock_hz: float
    cycles: int
    latency_ms: float
    inferences_per_second: float
    sram_bytes: int
    flash_bytes: int
    npu_operators: int
    cpu_operators: int
    on_cpu: tuple[OnCpu, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know, in words."""
        if not self.npu_operators:
            return ("not one operator runs on the NPU: Vela compiles integer operators only. Try --scheme int8",)
        counts = Counter((row.operator, row.reason) for row in self.on_cpu)
        return tuple(
            f"{count} {operator} stays on the CPU, whose time is not counted: {reason}"
            for (operator, reason), count in counts.items()
        )


@dataclass(frozen=True)
class Compiled:
    """What Vela made of a file.

    Attributes:
        content: the file, for TFLM with its Ethos-U driver.
        layers: in the order they run.
    """

    content: bytes
    figures: Figures
    layers: tuple[Layer, ...]


def is_compiled(model: TFLiteModel) -> bool:
    """Whether Vela has been over a file already."""
    return any(operator.name == "ethos-u" for operator in model.main.operators)


def compile_file(file: Path | bytes, accelerator: Accelerator) -> Compiled:
    """Compiles a `.tflite` file for an Ethos-U.

    Raises:
        UnavailableError: Vela is not installed.
        ConversionError: Vela refuses the file or dies on it; the message holds its last words.
    """
    if frameworks.installed_version("vela") is None:
        raise UnavailableError("ethos-u-vela is needed here but is not installed. Try: pip install 'edgeopt[ethos-u]'.")
    content = file if isinstance(file, bytes) else file.read_bytes()
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        words = _run(folder, accelerator)
        return _read(folder, accelerator, words)


def _run(folder: Path, accelerator: Accelerator) -> str:
    """Runs Vela on model.tflite in `folder` and returns what it printed."""
    options = {
        "--accelerator-config": accelerator.configuration,
        "--config": "Arm/vela.ini",
        "--system-config": accelerator.system,
        "--memory-mode": accelerator.memory_mode,
        "--output-dir": str(folder),
    }
    command = [sys.executable, "-m", "ethosu.vela", "model.tflite", "--verbose-performance", "--show-cpu-operations"]
    command += [text for pair in options.items() for text in pair]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(
            f"Vela took longer than {TIMEOUT_S} s for {accelerator.configuration}. Try a smaller model."
        ) from None
    if done.returncode or not (folder / "model_vela.tflite").is_file():
        last = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "it left no message")
        raise ConversionError(
            f"Vela could not compile the file for {accelerator.configuration} "
            f"(exit status {done.returncode}): {last.rstrip('.')}. Try --scheme int8 and a fixed batch of 1."
        )
    return done.stdout


def _read(folder: Path, accelerator: Accelerator, words: str) -> Compiled:
    (summary,) = _rows(next(folder.glob("*_summary_*.csv")))
    layers = tuple(
        Layer(row["Original Operator"], row["Name"], int(float(row["Op Cycles"])), int(row["MAC Count"]), npu)
        for row in _rows(next(folder.glob("*_per-layer.csv")))
        for npu in (row["Target"] == "NPU",)
    )
    flash = sum(float(summary[f"{kind}_memory_used"]) for kind in ("on_chip_flash", "off_chip_flash", "dram"))
    clock, cycles = float(summary["core_clock"]), int(float(summary["cycles_total"]))
    figures = Figures(
        accelerator,
        clock,
        cycles,
        1e3 * cycles / clock,
        clock / cycles if cycles else 0.0,
        round(float(summary["sram_memory_used"]) * _KIB),
        round(flash * _KIB),
        _count(words, "NPU"),
        _count(words, "CPU"),
        tuple(
            OnCpu(found["operator"], found["name"], " ".join(found["reason"].split()))
            for found in _REFUSED.finditer(words)
        ),
    )
    return Compiled((folder / "model_vela.tflite").read_bytes(), figures, layers)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _count(words: str, where: str) -> int:
    found = re.search(rf"^{where} operators = (\d+)", words, re.MULTILINE)
    return int(found[1]) if found else 0
