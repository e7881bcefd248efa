"""Whether a recommendation is the same in every run of a command, however noisy the machine.

    python -m bench.steady --model models/ds_cnn_fsdd.keras --data fsdd_logmel.npz --page

Each run is in a folder of its own, so that all is made and measured anew. Finished runs are kept in
bench/results/steady.json, and `--page` writes what they came to into docs/budgets.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "steady.json"
PAGE = ROOT / "docs" / "budgets.md"
WORDS = ("--max-drop", "1.0", "--target", "cortex-m4")
RUNS = 10
_BLOCK = "python -m bench.steady"


def main() -> None:
    """Makes the runs that are missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.steady", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--page", action="store_true", help="write what they came to")
    said = parser.parse_args()
    rows = common.kept_rows(RESULTS)
    while len(rows) < RUNS:
        rows.append(run(said.model, said.data))
        print(rows[-1], flush=True)
        common.keep_rows(RESULTS, rows)
    print(told(rows))
    if said.page:
        files.atomic_write(PAGE, common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, told(rows)))


def run(model: str, data: str) -> dict[str, Any]:
    """Returns what one run recommends, and the medians that it measured."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*common.EDGEOPT, "optimize", model, "--data", data, "-o", folder, *WORDS]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    clock = report["runtime"]
    medians = {
        variant["name"]: row["latency_ms"]["p50"]
        for variant in report["variants"]
        for row in variant["runtimes"]
        if row["name"] == clock and row["latency_ms"]
    }
    return {"best": report["best"], "sha256": _content(report), "medians": medians}


def _content(report: dict[str, Any]) -> str:
    (best,) = (variant for variant in report["variants"] if variant["name"] == report["best"])
    return str(best["artifacts"][0]["sha256"])


def told(rows: list[dict[str, Any]]) -> str:
    """Returns what the runs came to, in words."""
    found = Counter((row["best"], row["sha256"]) for row in rows)
    spread = max(max(times) / min(times) for times in _medians(rows).values())
    names = ", ".join(f"{name} {count} times" for (name, _), count in found.most_common())
    same = "one and the same file" if len(found) == 1 else f"{len(found)} different files"
    return (
        f"{len(rows)} runs of `edgeopt optimize … {' '.join(WORDS)}`, each in a folder of its own, recommend {names}: "
        f"{same}. The medians of one variant differ between these runs by up to {spread:.1f} times."
    )


def _medians(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [row["medians"][name] for row in rows if name in row["medians"]] for name in rows[0]["medians"]}


if __name__ == "__main__":
    main()
