"""Advice held against what came of it: bytes and losses that `edgeopt advise` foretold, and those that were measured.

    python -m bench.advice --model DS-CNN=models/ds_cnn_fsdd.keras=fsdd_logmel.npz --page

Each model is advised on, then `edgeopt optimize` carries out recipes of one step without training; the bytes are those
of the files, losses those of the report's validation samples; where data are too few for a tuning part the advice has
measured int8 on the same. Finished rows are kept in bench/results/advice.json, and `--page` writes them into
docs/choosing.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "advice.json"
PAGE = ROOT / "docs" / "choosing.md"
MADE = ROOT / "build" / "advice"
# Step of the guide → the recipe that does it, and the scheme whose file is looked at.
RECIPES = {
    "int8": ("schemes: [int8, dynamic, float16, int16x8]\n", "int8"),
    "dynamic": ("schemes: [int8, dynamic, float16, int16x8]\n", "dynamic"),
    "float16": ("schemes: [int8, dynamic, float16, int16x8]\n", "float16"),
    "int16x8": ("schemes: [int8, dynamic, float16, int16x8]\n", "int16x8"),
    "int4": ("schemes: [int4]\nsteps: [round]\n", "int4"),
}
_BLOCK = "python -m bench.advice"


def main() -> None:
    """Advises and carries out what is missing, a model at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.advice", description=__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE=DATA")
    parser.add_argument("--page", action="store_true", help="write the table")
    said = parser.parse_args()
    for text in said.model:
        name, model, data = text.split("=")
        known = [row for row in common.kept_rows(RESULTS) if row["model"] != name]
        rows = _rows(name, model, data)
        print(*rows, sep="\n", flush=True)
        common.keep_rows(RESULTS, [*known, *rows])
    if said.page:
        text = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, table(common.kept_rows(RESULTS)))
        files.atomic_write(PAGE, text)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns what was foretold beside what was measured."""
    lines = []
    for row in rows:
        off = row["bytes"] / row["foretold_bytes"] - 1
        low, high = (f"{row[key]:.2f}" for key in ("low", "high"))
        most = "-" if row["most_lost"] is None else f"{row['most_lost']:g}"
        lines.append(
            [
                row["model"],
                f"`{row['step']}`",
                f"{row['foretold_bytes']:,}",
                f"{row['bytes']:,} ({off:+.1%})",
                most,
                f"{row['drop']:.2f} [{low}, {high}]",
            ]
        )
    header = ("model", "step", "bytes foretold", "bytes measured", "points lost at most, foretold", "measured [95 %]")
    return common.markdown(header, lines)


def _rows(name: str, model: str, data: str) -> list[dict[str, Any]]:
    folder = MADE / name
    folder.mkdir(parents=True, exist_ok=True)
    guide = json.loads(_edgeopt("advise", model, "--data", data, "-o", folder, "--json"))
    items = {item["step"]: item for item in guide["items"]}
    reports: dict[str, Any] = {}
    rows = []
    for step, (recipe, scheme) in RECIPES.items():
        if recipe not in reports:
            made = folder / f"recipe-{len(reports)}"
            made.mkdir(exist_ok=True)
            (made / "recipe.yaml").write_text(recipe, encoding="utf-8")
            words = ("optimize", model, "--data", data, "-o", made, "--recipe", made / "recipe.yaml", "--force")
            _edgeopt(*words)
            reports[recipe] = json.loads((made / "report.json").read_text(encoding="utf-8"))
        (variant,) = [one for one in reports[recipe]["variants"] if one["scheme"] == scheme][-1:]
        drop = variant["drop"]
        rows.append(
            {
                "model": name,
                "step": step,
                "foretold_bytes": items[step]["size_bytes"],
                "bytes": variant["artifacts"][0]["size_bytes"],
                "most_lost": items[step]["most_lost"],
                **{key: drop[source] for key, source in (("drop", "value"), ("low", "low"), ("high", "high"))},
            }
        )
    return rows


def _edgeopt(*words: object) -> str:
    done = subprocess.run([*common.EDGEOPT, *map(str, words)], check=False, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"edgeopt {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
