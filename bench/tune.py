"""The search beside grids of as many trials, two workers beside one, and what one more trial costs.

    python -m bench.tune --model models/ds_cnn_fsdd.keras --data fsdd_logmel.npz --page

The space is what can be done after training, so that a trial takes seconds. All its recipes are measured once; then
searches of many seeds, and grids of every offset, look their trials up in that table. The hypervolume is the area that
a front dominates, in points of loss up to 5 and in bytes up to those of the float file, as a share of that rectangle,
of the scores that trials are compared by. What one more trial costs is measured with an arithmetic in place of trials.
Finished rows are kept in bench/results/tune.json, and `--page` writes them into docs/tune.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgeopt
from bench import cheap_trials, common
from edgeopt import data as datasets
from edgeopt import files
from edgeopt.carry_out import BASELINE, carry_out
from edgeopt.errors import EdgeoptError
from edgeopt.front import exact
from edgeopt.plain import from_plain, to_plain
from edgeopt.prospects import ModelFacts
from edgeopt.recipe import Recipe, from_values, to_values
from edgeopt.search.expecting import dominated
from edgeopt.search.hands import Ended
from edgeopt.search.trying import Address, Bench, Rule
from edgeopt.search.tuning import Leader, first_trials
from edgeopt.store import digest
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
TRIALS, SEEDS = (8, 16), 30
SEARCHES = ("expected", "near", "tpe")
ALL = ("table", "fronts", "requantized", "hands", "growth")
WORST_DROP = 5.0
_ALL = 10**6
_CHEAP, _BATCH = 1000, 100
# More recipes than are tried in the time that workers are given.
MANY = {
    "schemes": ["dynamic", "int8", "int4"],
    "steps": [{"round": {"method": "gptq", "samples": {"from": 8, "to": 200}}}],
}
HANDS_S = 120.0
_BLOCK = "python -m bench.tune"


def hypervolume(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Returns the area that points (cost, loss), smaller is better, dominate below `worst`, as a share of all of it."""
    return dominated(points, worst) / (worst[0] * worst[1])


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


def table(model: Path, spec: str, folder: Path) -> dict[str, Any]:
    """Returns what every recipe of SPACE comes to, and the bytes of the float file."""
    data = datasets.load(spec)
    with Workspace(model, data, folder) as workspace:
        size = workspace.converted(workspace.original, BASELINE).size_bytes
        facts = workspace.survey(layers=False).facts
    bench, rows = Bench(Address(model, data, folder, Conditions(), ("quality", "size"))), []
    for recipe in grid(_ALL):
        row: dict[str, Any] = {"recipe": to_values(recipe)}
        try:
            costs = bench.measure(recipe, Rule(rolled_back=False)).costs
            rows.append({**row, "quality": costs["quality"].value, "size": costs["size"].value})
        except EdgeoptError as error:
            rows.append({**row, "failed": str(error)})
        print(rows[-1], flush=True)
    bench.close()
    return {"float_bytes": size, "facts": to_plain(facts), "rows": rows}


Points = dict[str, "tuple[float, float] | None"]


def points_of(found: dict[str, Any]) -> Points:
    """Returns bytes and loss by recipe, None for one that could not be made."""
    return {digest(row["recipe"]): None if "failed" in row else (row["size"], row["quality"]) for row in found["rows"]}


def searched(found: dict[str, Any], trials: int, sampler: str, seed: int) -> float:
    """Returns the hypervolume of a search that looks its trials up."""
    points, known = points_of(found), replace(cheap_trials.DATA, facts=from_plain(ModelFacts, found["facts"]))

    def outcome(hand: int, recipe: Recipe) -> Ended:
        point = points[digest(to_values(replace(recipe, seed=0)))]
        if point is None:
            return Ended(hand, failed="as in the table")
        costs = {"size": exact(point[0]), "quality": exact(point[1])}
        return Ended(hand, replace(cheap_trials.measured(recipe), costs=costs))

    search = cheap_trials.search(trials=trials, sampler=sampler, recipe=SPACE, seed=seed)
    space = search.space(known)
    with tempfile.TemporaryDirectory() as folder:
        study = cheap_trials.study(f"sqlite:///{folder}/study.db")
        study.first(first_trials(search, space), space)
        Leader(search, study, space, time.monotonic()).lead(cheap_trials.Cheap(outcome=outcome))
    done = [trial.outcome.measured for trial in study.trials if trial.outcome.state == "done"]
    return _area(found, [(one.costs["size"].value, one.costs["quality"].value) for one in done if one])


def fronts(found: dict[str, Any], seeds: int) -> list[dict[str, Any]]:
    """Returns a row for each number of trials: hypervolumes of searches and of grids, each sorted."""
    points = points_of(found)
    recipes = [points[digest(row["recipe"])] for row in found["rows"]]
    rows = []
    for trials in TRIALS:
        rows.append(
            {
                "trials": trials,
                "best": _area(found, recipes),
                "grids": sorted(
                    _area(found, [_every(recipes, trials, i, offset) for i in range(trials)])
                    for offset in range(len(recipes))
                ),
                **{name: sorted(searched(found, trials, name, seed) for seed in range(seeds)) for name in SEARCHES},
            }
        )
        print({name: _mean(each) for name, each in rows[-1].items()}, flush=True)
    return rows


def _area(found: dict[str, Any], points: Sequence[tuple[float, float] | None]) -> float:
    return hypervolume([point for point in points if point], (float(found["float_bytes"]), WORST_DROP))


def _every(recipes: Sequence[Any], trials: int, number: int, offset: int) -> Any:
    """Returns the point of a place of an even grid that begins at an offset."""
    return recipes[(offset + round(number * len(recipes) / trials)) % len(recipes)]


def _mean(value: Any) -> Any:
    return statistics.mean(value) if isinstance(value, list) else value


def hands(model: Path, spec: str, folder: Path, seconds: float = HANDS_S) -> dict[str, int]:
    """Returns how many trials one worker finishes in a while, and two, each in a folder of its own."""
    finished = {}
    for count in (1, 2):
        found = edgeopt.tune(
            model,
            spec,
            folder / str(count),
            recipe=MANY,
            time_s=seconds,
            sampler="random",
            workers=count,
            pruner="none",
        )
        finished[str(count)] = sum(trial.outcome.state == "done" for trial in found.trials)
        print(count, finished[str(count)], flush=True)
    return finished


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


def requantized(model: Path, spec: str, folder: Path) -> dict[str, float]:
    """Returns by scheme the processor's seconds of a trial that only quantizes anew, without its evaluation."""
    data, times = datasets.load(spec), {}
    with Workspace(model, data, folder, held=2) as workspace:
        carry_out(from_values({"schemes": ["int8"]}), workspace)
        for scheme in ("int8-per-tensor", "dynamic", "float16", "int8-float-io", "int16x8", "int4", "int4x16"):
            start = common.processor_s()
            carry_out(from_values({"schemes": [scheme]}), workspace)
            times[scheme] = common.processor_s() - start
    return times


def measured(model: Path, spec: str, seeds: int, only: Sequence[str]) -> dict[str, Any]:
    """Returns what was measured, by name; what was measured earlier is not measured again."""
    rows: dict[str, Any] = next(iter(common.kept_rows(RESULTS)), {})
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        jobs: dict[str, Callable[[], Any]] = {
            "table": lambda: table(model, spec, folder / "table"),
            "fronts": lambda: fronts(rows["table"], seeds),
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
        header = ["trials", "", "mean hypervolume", "one in ten is below", "above the grids' mean"]
        lines = [line for row in rows["fronts"] for line in _front_lines(row)]
        parts.append(common.markdown(header, lines))
    costs = {name: rows[f"growth {name}"] for name in ("tpe", "nsga2") if f"growth {name}" in rows}
    if costs:
        header = ["milliseconds of one more trial", "second hundred", "fifth", "last"]
        lines = [[name, f"{c[1]:.0f}", f"{c[4]:.0f}", f"{c[-1]:.0f}"] for name, c in costs.items()]
        parts.append(common.markdown(header, lines))
    if "requantized" in rows:
        times = rows["requantized"]
        parts.append(
            f"A trial that only quantizes anew takes {statistics.median(times.values()):.2f} s of a processor before "
            f"its evaluation, the median of {len(times)} schemes, and {max(times.values()):.2f} s at most."
        )
    if "hands" in rows:
        one, two = rows["hands"]["1"], rows["hands"]["2"]
        parts.append(
            f"In {HANDS_S:.0f} s one worker finishes {one} trials and two finish {two}: {two / one:.2f} times as many."
        )
    return "\n\n".join(parts)


_WHAT = {
    "expected": "`expected`, the default",
    "near": "`near`",
    "tpe": "`tpe`",
    "grids": "even grids",
    "best": "all recipes of the space",
}


def _front_lines(row: dict[str, Any]) -> list[list[str]]:
    lines = []
    for name, what in _WHAT.items():
        found = row[name] if isinstance(row[name], list) else [row[name]]
        above = sum(value > statistics.mean(row["grids"]) for value in found) / len(found)
        told = [f"{statistics.mean(found):.4f}"]
        told += [f"{found[len(found) // 10]:.4f}", f"{above:.0%}"] if len(found) > 1 else ["", ""]
        lines.append([str(row["trials"]), what, *told])
    return lines


def section() -> str:
    """Returns the tables, of the digits' network."""
    return tables(measured(MODEL, DATA, SEEDS, ALL))


def main() -> None:
    """Measures what is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each kind")
    parser.add_argument("--only", nargs="+", default=ALL)
    parser.add_argument("--page", action="store_true", help="write the tables")
    said = parser.parse_args()
    rows = measured(said.model, said.data, said.seeds, said.only)
    print(tables(rows), flush=True)
    if said.page:
        text = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, tables(rows))
        files.atomic_write(PAGE, text)


if __name__ == "__main__":
    main()
