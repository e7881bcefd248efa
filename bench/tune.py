"""The search beside a grid of as many trials, two workers beside one, and what one more trial costs.

    python -m bench.tune --model models/ds_cnn_fsdd.keras --data fsdd_logmel.npz --page

The space is what can be done after training, so that a trial takes seconds. The hypervolume is the area that a front
dominates, in points of loss up to 5 and in bytes up to those of the float file, as a share of that rectangle, of the
scores that trials are compared by; all trials share one store, so that a recipe which was made costs nothing the second
time. What one more trial costs is measured with an arithmetic in place of trials. Finished rows are kept in
bench/results/tune.json, and `--page` writes them into docs/tune.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import edgeopt
from bench import cheap_trials, common
from edgeopt import data as datasets
from edgeopt import files
from edgeopt.carry_out import BASELINE, carry_out
from edgeopt.errors import EdgeoptError
from edgeopt.recipe import Recipe, from_values
from edgeopt.search.trying import Address, Bench, Rule
from edgeopt.search.tuning import Leader
from edgeopt.workspace import Conditions, Workspace

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "tune.json"
PAGE = ROOT / "docs" / "tune.md"
MODEL, DATA = ROOT / "models" / "digits.keras", "digits"
SAMPLES = (32, 64, 128, 200)
SIZES = tuple(f"{share}%" for share in range(55, 100, 5))
MIXED = {"samples": 128, "time_limit": 5.0}
SPACE = {
    "schemes": ["float16", "dynamic", "int8", "int4"],
    "steps": [
        [
            "none",
            "correct-bias",
            {"round": {"method": "gptq", "samples": list(SAMPLES)}},
            {"mixed": {"size": list(SIZES), **MIXED}},
        ]
    ],
}
SEEDS = (0, 1, 2)
WORST_DROP = 5.0
_CHEAP, _BATCH = 1000, 100
_FEW = 8
_BLOCK = "python -m bench.tune"


def hypervolume(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Returns the area that points (cost, loss), smaller is better, dominate below `worst`, as a share of all of it."""
    area, reached = 0.0, worst[1]
    for cost, loss in sorted(points):
        if cost < worst[0] and loss < reached:
            area += (worst[0] - cost) * (reached - max(loss, 0.0))
            reached = max(loss, 0.0)
    return area / (worst[0] * worst[1])


def grid(trials: int) -> list[Recipe]:
    """Returns so many recipes of SPACE, evenly apart, of all that can be carried out."""
    steps = [
        (),
        ("correct-bias",),
        *(({"round": {"method": "gptq", "samples": count}},) for count in SAMPLES),
        *(({"mixed": {"size": size, **MIXED}},) for size in SIZES),
    ]
    space = cheap_trials.search(recipe=SPACE).space(cheap_trials.DATA)
    recipes = [from_values({"schemes": [name], "steps": list(one)}) for name in SPACE["schemes"] for one in steps]
    valid = [recipe for recipe in recipes if not space.refused(recipe)]
    count = min(trials, len(valid))
    return [valid[round(i * (len(valid) - 1) / max(1, count - 1))] for i in range(count)]


def fronts(model: Path, spec: str, trials: int, folder: Path) -> list[dict[str, Any]]:
    """Returns a row a seed: the hypervolumes of the search and of a grid of as many trials."""
    data = datasets.load(spec)
    with Workspace(model, data, folder) as workspace:
        worst = (float(workspace.converted(workspace.original, BASELINE).size_bytes or 0), WORST_DROP)
    bench, points = Bench(Address(model, data, folder, Conditions(), ("quality", "size"))), []
    for recipe in grid(trials):
        try:
            costs = bench.measure(recipe, Rule(rolled_back=False)).costs
            points.append((costs["size"].value, costs["quality"].value))
        except EdgeoptError as error:
            print(recipe, error, flush=True)
    bench.close()
    rows = []
    for seed in SEEDS:
        found = edgeopt.tune(
            model, data, folder, recipe=SPACE, trials=trials, seed=seed, study=f"seed {seed}", pruner="none", force=True
        )
        done = [t.outcome.measured.costs for t in found.trials if t.outcome.state == "done" and t.outcome.measured]
        mine = hypervolume([(costs["size"].value, costs["quality"].value) for costs in done], worst)
        rows.append({"seed": seed, "trials": trials, "ours": mine, "grid": hypervolume(points, worst)})
        print(rows[-1], flush=True)
    return rows


def hands(model: Path, spec: str, folder: Path) -> dict[str, float]:
    """Returns the seconds of a few trials with one worker and with two, each in a folder of its own."""
    seconds = {}
    for count in (1, 2):
        start = time.perf_counter()
        edgeopt.tune(model, spec, folder / str(count), recipe=SPACE, trials=_FEW, sampler="random", workers=count)
        seconds[str(count)] = time.perf_counter() - start
    return seconds


def growth(sampler: str, trials: int = _CHEAP) -> list[float]:
    """Returns the processor's milliseconds of a trial that costs nothing itself, by hundreds of trials."""
    with tempfile.TemporaryDirectory() as folder:
        study = cheap_trials.study(f"sqlite:///{folder}/study.db")
        seconds = []
        for upto in range(_BATCH, trials + 1, _BATCH):
            search = cheap_trials.search(trials=upto, sampler=sampler, recipe=cheap_trials.WIDE)
            start = time.process_time()
            Leader(search, study, search.space(cheap_trials.DATA), time.monotonic()).lead(cheap_trials.Cheap())
            seconds.append(1000 * (time.process_time() - start) / _BATCH)
    return seconds


def requantized(model: Path, spec: str, folder: Path) -> float:
    """Returns the median seconds of a trial that only quantizes anew, without its evaluation."""
    data, times = datasets.load(spec), []
    with Workspace(model, data, folder, held=2) as workspace:
        carry_out(from_values({"schemes": ["int8"]}), workspace)
        for scheme in ("int8-per-tensor", "dynamic", "float16", "int8-float-io", "int16x8", "int4", "int4x16"):
            start = time.perf_counter()
            carry_out(from_values({"schemes": [scheme]}), workspace)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measured(model: Path, spec: str, trials: int, only: Sequence[str]) -> dict[str, Any]:
    """Returns what was measured, by name; what was measured earlier is not measured again."""
    rows: dict[str, Any] = next(iter(common.kept_rows(RESULTS)), {})
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        jobs: dict[str, Callable[[], Any]] = {
            "fronts": lambda: fronts(model, spec, trials, folder / "fronts"),
            "requantized": lambda: requantized(model, spec, folder / "again"),
            "hands": lambda: hands(model, spec, folder / "hands"),
            **{f"growth {name}": lambda name=name: growth(name) for name in ("tpe", "nsga2")},
        }
        for name, job in jobs.items():
            if name.split()[0] in only and name not in rows:
                rows[name] = job()
                common.keep_rows(RESULTS, [rows])
    return rows


def tables(rows: dict[str, Any]) -> str:
    """Returns what was measured as tables and sentences."""
    parts = []
    if "fronts" in rows:
        lines = [[str(r["seed"]), f"{r['ours']:.4f}", f"{r['grid']:.4f}"] for r in rows["fronts"]]
        count = rows["fronts"][0]["trials"]
        parts.append(common.markdown(["seed", f"hypervolume, {count} trials", f"a grid of {count}"], lines))
    costs = {name: rows[f"growth {name}"] for name in ("tpe", "nsga2") if f"growth {name}" in rows}
    if costs:
        header = ["milliseconds of one more trial", "second hundred", "fifth", "last"]
        lines = [[name, f"{c[1]:.0f}", f"{c[4]:.0f}", f"{c[-1]:.0f}"] for name, c in costs.items()]
        parts.append(common.markdown(header, lines))
    if "requantized" in rows:
        parts.append(f"A trial that only quantizes anew takes {rows['requantized']:.2f} s before its evaluation.")
    if "hands" in rows:
        one, two = rows["hands"]["1"], rows["hands"]["2"]
        parts.append(f"{_FEW} trials take {one:.0f} s with one worker and {two:.0f} s with two: {one / two:.2f} times.")
    return "\n\n".join(parts)


def section() -> str:
    """Returns the tables, of the digits' network."""
    return tables(measured(MODEL, DATA, 24, ("fronts", "requantized", "hands", "growth")))


def main() -> None:
    """Measures what is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--only", nargs="+", default=["fronts", "requantized", "hands", "growth"])
    parser.add_argument("--page", action="store_true", help="write the tables")
    said = parser.parse_args()
    rows = measured(said.model, said.data, said.trials, said.only)
    print(tables(rows), flush=True)
    if said.page:
        text = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, tables(rows))
        files.atomic_write(PAGE, text)


if __name__ == "__main__":
    main()
