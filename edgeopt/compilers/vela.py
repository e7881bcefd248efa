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
from collections.abc import Mapping
from pathlib import Path

from edgeopt.compilers.contract import Compiled, Figures, Layer, OnCpu
from edgeopt.errors import ConversionError

TIMEOUT_S = 600
_KIB = 1024
_REFUSED = re.compile(
    r"Warning \(supported operators\) operator: (?P<operator>\w+), ofm: '(?P<name>[^\n]*)'\n"
    r"Reason: (?P<reason>.+?)\n\s*\n",
    re.DOTALL,
)


def compile_content(content: bytes, settings: Mapping[str, str]) -> Compiled:
    """Compiles a `.tflite` file for an Ethos-U; what comes out is for TFLM with its Ethos-U driver.

    Args:
        content: of the file.
        settings: `accelerator` as Vela's `--accelerator-config`, "ethos-u55-128"; `system` and `memory_mode` are
            sections of its Arm/vela.ini: clock and speed of memories, and what lies where.

    Raises:
        ConversionError: Vela refuses the file or dies on it; the message holds its last words.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        words = _run(folder, settings)
        return _read(folder, settings, words)


def _run(folder: Path, settings: Mapping[str, str]) -> str:
    """Runs Vela on model.tflite in `folder` and returns what it printed."""
    options = {
        "--accelerator-config": settings["accelerator"],
        "--config": "Arm/vela.ini",
        "--system-config": settings["system"],
        "--memory-mode": settings["memory_mode"],
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
            f"Vela took longer than {TIMEOUT_S} s for {settings['accelerator']}. Try a smaller model."
        ) from None
    if done.returncode or not (folder / "model_vela.tflite").is_file():
        last = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "it left no message")
        raise ConversionError(
            f"Vela could not compile the file for {settings['accelerator']} "
            f"(exit status {done.returncode}): {last.rstrip('.')}. Try --scheme int8 and a fixed batch of 1."
        )
    return done.stdout


def _read(folder: Path, settings: Mapping[str, str], words: str) -> Compiled:
    (summary,) = _rows(next(folder.glob("*_summary_*.csv")))
    flash = sum(float(summary[f"{kind}_memory_used"]) for kind in ("on_chip_flash", "off_chip_flash", "dram"))
    clock, cycles = float(summary["core_clock"]), int(float(summary["cycles_total"]))
    layers = tuple(
        Layer(
            row["Original Operator"],
            row["Name"],
            int(row["MAC Count"]),
            1e3 * float(row["Op Cycles"]) / clock if row["Target"] == "NPU" else None,
        )
        for row in _rows(next(folder.glob("*_per-layer.csv")))
    )
    on_npu = _count(words, "NPU")
    left = tuple(
        OnCpu(found["operator"], found["name"], " ".join(found["reason"].split())) for found in _REFUSED.finditer(words)
    )
    figures = Figures(
        settings,
        clock,
        cycles,
        1e3 * cycles / clock,
        clock / cycles if cycles else 0.0,
        round(float(summary["sram_memory_used"]) * _KIB),
        round(flash * _KIB),
        on_npu,
        _count(words, "CPU"),
        left,
        _notes(on_npu, left),
    )
    return Compiled((folder / "model_vela.tflite").read_bytes(), figures, layers)


def _notes(on_npu: int, left: tuple[OnCpu, ...]) -> tuple[str, ...]:
    if not on_npu:
        return ("not one operator runs on the NPU: Vela compiles integer operators only. Try --scheme int8",)
    counts = Counter((row.operator, row.reason) for row in left)
    return tuple(
        f"{count} {operator} stays on the CPU, whose time is not counted: {reason}"
        for (operator, reason), count in counts.items()
    )


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _count(words: str, where: str) -> int:
    found = re.search(rf"^{where} operators = (\d+)", words, re.MULTILINE)
    return int(found[1]) if found else 0
