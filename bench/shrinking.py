"""Shrinking without and with recovery, beside a uniform cut by hand: what is left of a trained model's accuracy.

    python -m bench.shrinking resnet8.keras photos.npz --epochs 14 --augment image --seeds 0

Without an epoch, each criterion at three quarters and at half of the MACs, bare and re-fitted; the cut is spread by the
same search. With epochs, half of the MACs: by default, and every layer cut alike to its largest weights (`l1`, nothing
re-fitted) with the same training. Scores are those of the float32 `.tflite` on the data's test split. What is done is
kept in bench/results/shrinking.json; `--page` writes docs/shrinking-results.md of it. `--rows` does some of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import data as datasets
from edgeopt import files
from edgeopt.carry_out import carry_out
from edgeopt.evaluation import Evaluation
from edgeopt.recipe import Recipe, steps_from
from edgeopt.steps import Training
from edgeopt.workspace import Workspace

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "shrinking.json"
PAGE = ROOT / "docs" / "shrinking-results.md"

# Beside `macs` and `epochs: 0`.
UNTRAINED: dict[str, Mapping[str, Any]] = {
    "smallest L1 norm, bare": {"criterion": "l1", "refit": False},
    "smallest L1 norm, re-fitted": {"criterion": "l1"},
    "Taylor, re-fitted": {"criterion": "taylor"},
    "reconstruction, re-fitted (the default)": {},
}
TRAINED: dict[str, Mapping[str, Any]] = {
    "shrink": {},
    "shrink, multiples of 4": {"multiple_of": 4},
    "every layer alike, by hand": {"criterion": "l1", "refit": False, "by_sensitivity": False, "multiple_of": 1},
}
SHARES = (0.75, 0.5)


def main() -> None:
    """Does what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=[*UNTRAINED, *TRAINED], default=[*UNTRAINED, *TRAINED])
    parser.add_argument("--page", action="store_true")
    said = parser.parse_args()
    if said.model and said.data:
        for seed in said.seeds:
            if not said.epochs:
                jobs = [(title, share, row) for share in SHARES for title, row in UNTRAINED.items()]
            else:
                jobs = [(title, 0.5, row) for title, row in TRAINED.items()]
            for title, share, row in (job for job in jobs if job[0] in said.rows):
                key = {"model": said.model.stem, "data": said.data.stem, "row": title, "share": share}
                key |= {"epochs": said.epochs, "seed": seed}
                if not any(all(known[k] == v for k, v in key.items()) for known in common.kept_rows(RESULTS)):
                    step = {"shrink": {"macs": share, **row, **({"epochs": 0} if not said.epochs else {})}}
                    result = {**key, **_done(said, step, seed)}
                    common.keep_rows(RESULTS, [*common.kept_rows(RESULTS), result])
                    print(json.dumps(result), flush=True)
    if said.page:
        files.atomic_write(PAGE, page())


def _done(said: argparse.Namespace, step: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns what one step leaves, and what there was."""
    training = Training(epochs=said.epochs or None, augment=said.augment)
    recipe = Recipe(steps=steps_from([step]), schemes=("float32",), training=training, seed=seed)
    with (
        tempfile.TemporaryDirectory(prefix="edgeopt-") as folder,
        Workspace(said.model, datasets.load(str(said.data)), Path(folder)) as workspace,
    ):
        outcome = carry_out(recipe, workspace)
        before, after = outcome.variants[0], next(v for v in outcome.variants if v.steps)
        scores = [workspace.score(one, workspace.data.validation) for one in (before, after)]
    found: dict[str, Any] = {}
    for name, score, variant in zip(("before", "after"), scores, (before, after)):
        assert isinstance(score, Evaluation)
        found |= {name: score.metric.value, f"{name}_macs": variant.macs, f"{name}_bytes": variant.size_bytes}
        found["samples"] = score.metric.samples
    return found | {"seconds": round(outcome.records[-1].seconds, 1)}


def page() -> str:
    """Returns docs/shrinking-results.md from what was done."""
    parts = [
        "# Shrinking, measured",
        "<!-- Written by `python -m bench.shrinking --page` from bench/results/shrinking.json. -->",
        "What is left of a model after `shrink`, with no training at all and after a recovery: top-1 accuracy of the "
        "float32 `.tflite` on those two thirds of the data's test split that nothing was chosen on, several numbers "
        "for several seeds. A cut by hand has the same training, teacher and augmentation. Without training no labels "
        "are used. `python -m bench.shrinking --help` says how to make these tables.",
    ]
    known = common.kept_rows(RESULTS)
    for model, data in dict.fromkeys((r["model"], r["data"]) for r in known):
        rows = [r for r in known if (r["model"], r["data"]) == (model, data)]
        parts.append(
            f"## {model} on {data}\n\nThe whole model: {rows[0]['before']:.2%} of {rows[0]['samples']:,} samples, "
            f"{rows[0]['before_macs']:,} MACs, {rows[0]['before_bytes']:,} bytes."
        )
        table = []
        for epochs, share, title in dict.fromkeys((r["epochs"], r["share"], r["row"]) for r in rows):
            same = [r for r in rows if (r["epochs"], r["share"], r["row"]) == (epochs, share, title)]
            lost = sum(r["before"] - r["after"] for r in same) / len(same)
            table.append(
                [
                    title,
                    str(epochs or "none"),
                    f"{share:.0%}",
                    f"{same[0]['after_macs'] / same[0]['before_macs']:.1%}",
                    " ".join(f"{r['after']:.2%}" for r in same),
                    f"{100 * lost:.1f}",
                    f"{same[0]['seconds']:.0f}",
                ]
            )
        header = ["cut", "epochs", "MACs asked for", "MACs left", "top-1", "points lost", "s"]
        parts.append(common.markdown(header, table))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
