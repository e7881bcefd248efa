"""Whether a budget is met, by the ladder and by what else one would try: the same model, data and test split.

    python -m bench.budget --model DS-CNN=models/ds_cnn_fsdd.keras=fsdd_logmel.npz --time 30m --page

The budget is a loss of at most one point at half of the bytes of plain int8. Beside `edgeopt optimize` without a recipe
stand the packaged recipes, ai-edge-quantizer's recipes after training and tfmot's tutorials (`bench/by_hand.py`). All
files are scored by `edgeopt evaluate` on the test split. Finished rows are kept in
bench/results/budget.json, and `--page` writes them into docs/budgets.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import data as datasets
from edgeopt import files, formats

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "budget.json"
PAGE = ROOT / "docs" / "budgets.md"
MADE = ROOT / "build" / "budget"
MAX_DROP, SHARE = 1.0, 0.5
RECIPES = ("repair", "mixed-bits", "few-values", "qat-int4", "half-macs", "quarter-macs", "student")
# Static int8, and fewer bits with the algorithms that it has.
OTHERS = ("static_wi8_ai8", "weight_only_wi4_afp32", "dynamic_wi4_afp32")
BY_HAND = ("qat", "prune", "student")
_BLOCK = "python -m bench.budget"


@dataclass(frozen=True)
class Case:
    """A model and its data; `limit` is the bytes that a file may have."""

    name: str
    model: str
    data: str
    limit: int
    folder: Path


def main() -> None:
    """Makes and scores what is missing, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE=DATA")
    parser.add_argument("--time", default="30m", help="of the ladder")
    parser.add_argument("--epochs", type=int, default=10, help="of tfmot's tutorials")
    parser.add_argument("--only", nargs="+", default=["plain", "ladder", "others", "by-hand", "recipes"])
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="the packaged ones that are tried")
    parser.add_argument("--page", action="store_true", help="write the table")
    said = parser.parse_args()
    for text in said.model:
        name, model, data = text.split("=")
        folder = MADE / name
        folder.mkdir(parents=True, exist_ok=True)
        plain = folder / "int8.tflite"
        if not plain.exists():
            common.edgeopt("convert", model, "--data", data, "--scheme", "int8", "-o", str(plain))
        case = Case(name, model, data, int(SHARE * plain.stat().st_size), folder)
        for kind, what, make in _rows(case, said.time, said.epochs, said.recipes):
            if kind not in said.only or any((r["model"], r["what"]) == (name, what) for r in common.kept_rows(RESULTS)):
                continue
            start = time.perf_counter()
            try:
                row = scored(case, make(), time.perf_counter() - start)
            except (subprocess.CalledProcessError, ValueError, RuntimeError) as error:
                told = getattr(error, "stderr", None) or str(error)
                row = {"failed": told.strip().splitlines()[-1] if told.strip() else "no reason given"}
            found = {"model": name, "kind": kind, "what": what, "limit": case.limit, **row}
            print(found, flush=True)
            common.keep_rows(RESULTS, [*common.kept_rows(RESULTS), found])
    if said.page:
        files.atomic_write(PAGE, page())


def page() -> str:
    """Returns the page with the table of what was measured."""
    return common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, table(common.kept_rows(RESULTS)))


def _rows(
    case: Case, seconds: str, epochs: int, recipes: Sequence[str]
) -> Iterator[tuple[str, str, Callable[[], Path]]]:
    """Yields the kind and the name of every file to make, and what makes it."""
    yield "plain", "int8 after training", lambda: case.folder / "int8.tflite"
    yield "ladder", "`edgeopt optimize`", partial(_climbed, case, ("--time", seconds))
    for recipe in OTHERS:
        yield "others", f"ai-edge-quantizer, {recipe}", partial(_others, case, recipe)
    for technique in BY_HAND:
        yield "by-hand", f"tfmot's tutorial, {technique}", partial(_by_hand, case, technique, epochs)
    for recipe in recipes:
        yield "recipes", f"recipe {recipe}", partial(_climbed, case, ("--recipe", recipe))


def _climbed(case: Case, more: tuple[str, ...]) -> Path:
    """Runs `edgeopt optimize`; a budget that is not kept is status 3, and the nearest file is there."""
    output = case.folder / more[1].replace("/", "-")
    budget = ("--max-drop", str(MAX_DROP), "--max-size", str(case.limit))
    command = [*common.EDGEOPT, "optimize", case.model, "--data", case.data, "-o", str(output), *budget, *more]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
    return output / "best.tflite"


def _others(case: Case, recipe: str) -> Path:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe as recipes

    floating = case.folder / "float32.tflite"
    if not floating.exists():
        common.edgeopt("convert", case.model, "--data", case.data, "--scheme", "float32", "-o", str(floating))
    work = quantizer.Quantizer(str(floating), getattr(recipes, recipe)())
    calibration = None
    if recipe.startswith("static"):
        samples = datasets.bind(datasets.load(case.data), formats.facts(floating).inputs).calibration
        (signature,) = {one.key for one in formats.tflite.read_once(floating).signatures}
        calibration = work.calibrate({signature: [dict(batch.inputs) for batch in samples.batches(1)]}, num_threads=2)
    output = case.folder / f"{recipe}.tflite"
    output.write_bytes(bytes(work.quantize(calibration).quantized_model))
    return output


def _by_hand(case: Case, technique: str, epochs: int) -> Path:
    """Runs tfmot's tutorial, on the same network as a Keras 2 file."""
    model, output = case.folder / "model.h5", case.folder / f"by-hand-{technique}.tflite"
    if not model.exists():
        code = (
            "import sys; from pathlib import Path; from edgeopt.loading import load_model; "
            "load_model(Path(sys.argv[1])).keras.save(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, case.model, str(model)], check=True, capture_output=True, text=True)
    words = (technique, str(model), case.data, str(output), "--epochs", str(epochs), "--work", str(case.folder))
    done = subprocess.run([sys.executable, "-m", "bench.by_hand", *words], check=True, capture_output=True, text=True)
    # The tutorials refuse a Rescaling layer: what it did is done to the samples.
    _scaling(output).write_text(done.stdout.splitlines()[-1])
    return output


def _scaling(file: Path) -> Path:
    return file.with_suffix(".json")


def scored(case: Case, file: Path, seconds: float) -> dict[str, Any]:
    """Returns what a file is worth on the test split, beside the float model."""
    floating = case.folder / "float32.tflite"
    if not floating.exists():
        common.edgeopt("convert", case.model, "--data", case.data, "--scheme", "float32", "-o", str(floating))
    scaling = _scaling(file)
    scaled = common.scaled(json.loads(scaling.read_text())) if scaling.is_file() else ()
    score = common.edgeopt("evaluate", str(file), "--data", case.data, *scaled)["metric"]
    reference = common.edgeopt("evaluate", str(floating), "--data", case.data)["metric"]
    return {
        "score": score["value"],
        "low": score["low"],
        "high": score["high"],
        "float_score": reference["value"],
        "samples": score["samples"],
        "size_bytes": file.stat().st_size,
        "seconds": seconds,
    }


def kept(row: dict[str, Any]) -> bool:
    """Whether a row keeps the budget where it is scored."""
    lost = round(100 * (row["float_score"] - row["score"]), 6)
    return bool(row["size_bytes"] <= row["limit"] and lost <= MAX_DROP)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the page: a row for each file."""
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append([row["model"], row["what"], "", "", "", "", f"failed: {row['failed'].replace('|', '/')}"])
            continue
        lines.append(
            [
                row["model"],
                row["what"],
                f"{row['score']:.2%} ({row['low']:.1%} to {row['high']:.1%})",
                f"{100 * (row['float_score'] - row['score']):.2f}",
                f"{row['size_bytes']:,}",
                f"{row['seconds']:,.0f}",
                "yes" if kept(row) else "no",
            ]
        )
    return common.markdown(["model", "file", "score", "points lost", "bytes", "s", "keeps the budget"], lines)


if __name__ == "__main__":
    main()
