"""`python -m bench.runtimes NAME MODEL DATA … [--page]`: score, bytes and time of models in all formats and runtimes.

One or more models, each with the name of its block in docs/runtimes.md and its data. Each scheme that several formats
have is made in all of them; each file runs on every runtime that takes it, is compared with LiteRT's built-in kernels
on the `.tflite` that it is made of, and timed where the comparison holds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import edgeopt
from bench import common
from edgeopt import files, machine, measuring
from edgeopt.benchmarking import benchmark
from edgeopt.carry_out import carry_out
from edgeopt.data import load
from edgeopt.recipe import Recipe
from edgeopt.runtimes import RUNTIMES
from edgeopt.vocabulary import RuntimeResult, Variant
from edgeopt.workspace import Workspace

PAGE = Path(__file__).parents[1] / "docs" / "runtimes.md"
MADE_IN = ("onnx", "tvm")


def main() -> None:
    """Prints the table, and keeps it in the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.runtimes", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME MODEL DATA", help="three for each model")
    parser.add_argument("--scheme", nargs="+", default=["float32", "float16", "dynamic", "int8", "int8-float-io"])
    parser.add_argument("--page", action="store_true", help="write it into docs/runtimes.md")
    asked = parser.parse_args()
    if len(asked.models) % 3:
        parser.error(f"expected NAME MODEL DATA for each model, got {len(asked.models)} words")
    for name, model, data in zip(*(asked.models[place::3] for place in range(3))):
        text = section(Path(model), data, tuple(asked.scheme))
        print(f"{name}\n\n{text}\n")
        if asked.page:
            files.atomic_write(PAGE, common.with_measured(PAGE.read_text(encoding="utf-8"), name, text))


def section(model: Path, data: str, schemes: tuple[str, ...]) -> str:
    """Returns the table of a model as Markdown."""
    with tempfile.TemporaryDirectory() as name, Workspace(model, load(data), Path(name)) as workspace:
        outcome = measuring.translated(workspace, carry_out(Recipe(schemes=schemes), workspace), MADE_IN)
        variants = measuring.scored(workspace, [v for v in outcome.variants if v.error is None])
        variants = measuring.tried_on_runtimes(workspace, variants, ())
        rows = [row for variant in variants for row in _rows(workspace.folder, variant)]
    metric = next(v.metric.name for v in variants if v.metric is not None)
    table = common.markdown(["file", "bytes", metric, "runtime", "results", "ms"], rows)
    refused = [f"- `{v.name}`: {v.error}" for v in outcome.variants if v.error is not None]
    told = f"{machine.describe().describe()}. edgeopt {edgeopt.__version__}."
    return "\n".join([table, "", *refused, *([""] if refused else []), told])


def _rows(folder: Path, variant: Variant) -> list[list[str]]:
    found = []
    for number, row in enumerate(variant.runtimes):
        own = number == 0
        found.append(
            [
                f"`{variant.name}`" if own else "",
                f"{variant.size_bytes or 0:,}" if own else "",
                f"{variant.metric.value:.2%}" if own and variant.metric else "",
                f"`{row.name}`",
                _parity(row),
                _time(folder / str(variant.file), row),
            ]
        )
    return found


def _parity(row: RuntimeResult) -> str:
    if row.status == "skipped":
        return "not here"
    if not row.loads:
        return f"refused: {row.reason.splitlines()[0]}"
    if row.matches_reference is None:
        return "runs"
    return f"{'same' if row.matches_reference else '**wrong**'}, within {row.max_difference:.1e}"


def _time(file: Path, row: RuntimeResult) -> str:
    if not row.loads or row.matches_reference is False or "time" not in RUNTIMES[row.name].can:
        return ""
    (found,) = benchmark([file], runtimes=[row.name], min_seconds=0.1).rows
    return f"{found.result.latency_ms.p50:.3g}" if found.result.latency_ms is not None else ""


if __name__ == "__main__":
    main()
