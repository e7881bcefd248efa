"""`python -m bench.schemes NAME MODEL DATA [--page]`: which scheme is right, fast or only small, on which runtime.

Every scheme is made of the model as it came and scored, each file is compared with LiteRT's built-in kernels on every
runtime here, and timed there in turns with float32 and int8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import edgeopt
from bench import common
from edgeopt import files, measuring
from edgeopt.benchmarking import benchmark
from edgeopt.carry_out import carry_out
from edgeopt.data import load
from edgeopt.recipe import Recipe
from edgeopt.runtimes import RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.vocabulary import RuntimeResult, Variant
from edgeopt.workspace import Workspace

PAGE = Path(__file__).parents[1] / "docs" / "schemes.md"
# Faster than float32 by less is nothing that anybody would notice.
FAST = 1.1


def main() -> None:
    """Prints the table, and keeps it in the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.schemes", description=__doc__)
    parser.add_argument("name", help="of the block in docs/schemes.md")
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--page", action="store_true", help="write it into docs/schemes.md")
    parser.add_argument("--keep-8bit", nargs="+", default=["auto"], metavar="LAYER")
    asked = parser.parse_args()
    text = section(asked.model, asked.data, tuple(asked.keep_8bit))
    print(text)
    if asked.page:
        files.atomic_write(PAGE, common.with_measured(PAGE.read_text(encoding="utf-8"), asked.name, text))


def section(model: Path, data: str, keep_8bit: tuple[str, ...]) -> str:
    """Returns the table of a model as Markdown."""
    with (
        tempfile.TemporaryDirectory() as name,
        Workspace(model, load(data), Path(name)) as workspace,
    ):
        outcome = carry_out(Recipe(schemes=tuple(SCHEMES), keep_8bit=keep_8bit), workspace)
        variants = [v for v in outcome.variants if v.error is None]
        refused = [v for v in outcome.variants if v.error is not None]
        variants = measuring.scored(workspace, variants)
        variants = measuring.tried_on_runtimes(workspace, variants, ())
        names = list(dict.fromkeys(row.name for v in variants for row in v.runtimes))
        times = {name: _times(workspace.folder, variants, name) for name in names}
    int8 = next(v for v in variants if v.name == "int8")
    rows = [_row(v, int8, names, times) for v in variants]
    table = common.markdown(["scheme", "bytes", "of int8's", str(int8.metric and int8.metric.name), *names], rows)
    notes = [f"`{v.name}` was refused: {v.error}" for v in refused]
    notes += [f"`{v.name}`: {note}." for v in variants if SCHEMES[v.scheme].is_low_bit for note in v.notes]
    return "\n".join([table, "", *(f"- {note}" for note in notes), "", f"edgeopt {edgeopt.__version__}."])


def _times(folder: Path, variants: list[Variant], runtime: str) -> dict[str, float]:
    """Returns the median time in ms of each variant that is right on a runtime."""
    if "time" not in RUNTIMES[runtime].can:
        return {}
    right = {v.name: folder / str(v.file) for v in variants if _right(_on(v, runtime))}
    found = benchmark(list(right.values()), runtimes=[runtime], min_seconds=0.1)
    return {n: row.result.latency_ms.p50 for n, row in zip(right, found.rows) if row.result.latency_ms is not None}


def _on(variant: Variant, runtime: str) -> RuntimeResult:
    return next(row for row in variant.runtimes if row.name == runtime)


def _right(result: RuntimeResult) -> bool:
    return result.loads and result.matches_reference is not False


def _row(variant: Variant, int8: Variant, names: list[str], times: Mapping[str, Mapping[str, float]]) -> list[str]:
    size, score = variant.size_bytes or 0, variant.metric.value if variant.metric else float("nan")
    return [
        f"`{variant.name}`",
        f"{size:,}",
        f"{size / (int8.size_bytes or 1):.2f}",
        f"{score:.1%}",
        *(_cell(_on(variant, name), variant.name, times[name]) for name in names),
    ]


def _cell(result: RuntimeResult, name: str, times: Mapping[str, float]) -> str:
    """Returns "fast, 2.1x, 0.9x": times float32's speed and int8's."""
    if result.status == "skipped":
        return "not here"
    if not result.loads:
        return "refused"
    if result.matches_reference is False:
        return "**wrong**"
    if not {name, "float32", "int8"} <= set(times):
        return "right"
    over_float, over_int8 = times["float32"] / times[name], times["int8"] / times[name]
    word = "fast" if over_float >= FAST else "right" if name == "float32" else "small"
    return f"{word}, {over_float:.2g}x, {over_int8:.2g}x"


if __name__ == "__main__":
    main()
