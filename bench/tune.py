"""The search beside a grid of as many trials: the digits' network, zeros and clusters of one epoch and every scheme.

The hypervolume is the area that a front dominates, in points of loss up to 10 and in bytes up to those of the float
file, as a share of that rectangle; recipes are those of the same space, and both share one store, so that a trial which
both make costs nothing the second time. What one more trial costs is measured with an arithmetic in place of training.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import edgeopt
from bench import cheap_trials
from edgeopt import data as datasets
from edgeopt.carry_out import BASELINE, carry_out
from edgeopt.recipe import from_values
from edgeopt.search.trying import Address, Bench, Rule
from edgeopt.search.tuning import Leader
from edgeopt.workspace import Conditions, Workspace

MODEL = Path(__file__).parents[1] / "models" / "digits.keras"
SPACE = {
    "schemes": ["float16", "dynamic", "int8", "int4"],
    "training": {"epochs": 1, "learning_rate": 0.001},
    "steps": [
        ["none", {"prune": {"sparsity": {"from": 0.3, "to": 0.9}}}],
        ["none", {"cluster": {"clusters": {"from": 4, "to": 64, "log": True}, "per_channel": False}}],
    ],
}
SEEDS = (0, 1, 2)
WORST_DROP = 10.0
_CHEAP, _BATCH = 1000, 100


def hypervolume(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Returns the area that points (cost, loss), smaller is better, dominate below `worst`, as a share of all of it."""
    area, reached = 0.0, worst[1]
    for cost, loss in sorted(points):
        if cost < worst[0] and loss < reached:
            area += (worst[0] - cost) * (reached - max(loss, 0.0))
            reached = max(loss, 0.0)
    return area / (worst[0] * worst[1])


def grid(trials: int) -> list[dict[str, object]]:
    """Returns so many recipes of SPACE, evenly apart: without a step, and values of each step in every scheme."""
    each = max(1, trials // len(SPACE["schemes"]))
    sides = [(sparsity, clusters) for sparsity, clusters in itertools.product((None, 0.3, 0.6, 0.9), (None, 4, 16, 64))]
    chosen = [sides[round(i * (len(sides) - 1) / max(1, each - 1))] for i in range(each)]
    return [
        {
            "schemes": [scheme],
            "training": SPACE["training"],
            "steps": [
                *([{"prune": {"sparsity": sparsity}}] if sparsity else []),
                *([{"cluster": {"clusters": clusters}}] if clusters else []),
            ],
        }
        for scheme in SPACE["schemes"]
        for sparsity, clusters in chosen
    ]


def fronts(trials: int, folder: Path) -> list[str]:
    """Returns a row a seed: the hypervolumes of the search and of a grid of as many trials."""
    data = datasets.load("digits")
    with Workspace(MODEL, data, folder) as workspace:
        baseline = workspace.converted(workspace.original, BASELINE)
    worst = (float(baseline.size_bytes or 0), WORST_DROP)
    bench = Bench(Address(MODEL, data, folder, Conditions(), ("quality", "size")))
    ours = [bench.measure(from_values(recipe), Rule(rolled_back=False)) for recipe in grid(trials)]
    bench.close()
    theirs = hypervolume([(m.costs["size"].value, m.costs["quality"].value) for m in ours], worst)
    rows = []
    for seed in SEEDS:
        found = edgeopt.tune(
            MODEL, data, folder, recipe=SPACE, trials=trials, seed=seed, study=f"seed {seed}", pruner="none"
        )
        done = [t.outcome.measured.costs for t in found.trials if t.outcome.state == "done" and t.outcome.measured]
        mine = hypervolume([(costs["size"].value, costs["quality"].value) for costs in done], worst)
        rows.append(f"| {seed} | {mine:.4f} | {theirs:.4f} |")
    return rows


def growth(sampler: str, trials: int = _CHEAP) -> list[float]:
    """Returns the milliseconds of a trial that costs nothing itself, by hundreds of trials."""
    with tempfile.TemporaryDirectory() as folder:
        study = cheap_trials.study(f"sqlite:///{folder}/study.db")
        seconds = []
        for upto in range(_BATCH, trials + 1, _BATCH):
            search = cheap_trials.search(trials=upto, sampler=sampler)
            start = time.perf_counter()
            Leader(search, study, search.space(cheap_trials.DATA), start).lead(cheap_trials.Cheap())
            seconds.append(1000 * (time.perf_counter() - start) / _BATCH)
    return seconds


def requantized(folder: Path) -> float:
    """Returns the median seconds of a trial that only quantizes anew, without its evaluation."""
    data, times = datasets.load("digits"), []
    with Workspace(MODEL, data, folder, held=2) as workspace:
        carry_out(from_values({"schemes": ["int8"]}), workspace)
        for scheme in ("int8-per-tensor", "int8-float-io", "int16x8", "int4", "int4x16", "int3", "int2"):
            start = time.perf_counter()
            carry_out(from_values({"schemes": [scheme]}), workspace)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def section() -> str:
    """Returns the tables."""
    trials = 24
    with tempfile.TemporaryDirectory() as folder:
        again = requantized(Path(folder) / "again")
        rows = fronts(trials, Path(folder) / "fronts")
    costs = {name: growth(name) for name in ("tpe", "nsga2")}
    return "\n".join(
        [
            f"| seed | hypervolume of {trials} trials of the search | of a grid of {trials} |",
            "|:--|--:|--:|",
            *rows,
            "",
            f"A trial that only quantizes anew takes {again:.2f} s before its evaluation.",
            "",
            "| milliseconds of one more trial | first hundred | fifth | tenth |",
            "|:--|--:|--:|--:|",
            *(f"| {name} | {c[0]:.0f} | {c[4]:.0f} | {c[9]:.0f} |" for name, c in costs.items()),
        ]
    )
