"""What the benchmarks share: processes timed in turn, their peak memory, rows that are kept, tables in pages."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from edgeopt import files

EDGEOPT = (sys.executable, "-m", "edgeopt")
_SAMPLE_EVERY_S = 0.02


def in_turn(commands: Mapping[str, Sequence[str]], *, repeats: int) -> dict[str, list[float]]:
    """Returns wall-clock seconds of each command, run A B C, A B C … after one untimed round.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(repeats + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def edgeopt(*arguments: str) -> Any:
    """Returns what a command prints as JSON.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    done = subprocess.run([*EDGEOPT, *arguments, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def scaled(made: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the options that do to samples what a model's Rescaling layer did, as `bench.by_hand` tells of it."""
    return ("--scale", str(made.get("scale", 1.0)), "--mean", str(-made.get("offset", 0.0)))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the ratio of the medians: what stands beside them in a table is what a reader finds by dividing."""
    return statistics.median(ours) / statistics.median(theirs)


def peak_memory_bytes(command: Sequence[str]) -> int:
    """Runs `command` and returns the most memory that it and its children held together, sampled every 20 ms.

    Pages shared between processes count once for each, so this is an upper bound.
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            for one in (root, *_children(root)):
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)
            time.sleep(_SAMPLE_EVERY_S)
        assert process.stderr is not None
        message = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {message}")
    return peak


def processor_s() -> float:
    """Returns the processor's seconds that this process and its children have taken, whatever else the machine does."""
    root = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (root, *_children(root)))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def reference_model(folder: Path, name: str) -> Path:
    """Builds a model of models/ with random weights and returns its .keras file: speed does not depend on them."""
    path = folder / f"{name}.keras"
    code = f"import sys; sys.path.insert(0, 'models'); import {name}; {name}.build().save({str(path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return path


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def kept_rows(results: Path) -> list[dict[str, Any]]:
    """Returns the rows that were measured so far."""
    return json.loads(results.read_text(encoding="utf-8")) if results.exists() else []


def keep_rows(results: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes all rows that were measured so far."""
    files.atomic_write(results, json.dumps(rows, indent=1) + "\n")


def with_measured(page: str, name: str, text: str) -> str:
    """Returns a page with `text` in its block of that name, `<!-- measured: NAME -->`.

    Raises:
        ValueError: it has no such block.
    """
    before, start, after = page.partition(f"<!-- measured: {name} -->")
    _, end, rest = after.partition("<!-- end of what was measured -->")
    if not end:
        raise ValueError(f"Expected a block called {name!r} in the page, got none. Try one that is there.")
    return f"{before}{start}\n\n{text}\n\n{end}{rest}"
