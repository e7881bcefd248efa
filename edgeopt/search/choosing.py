"""Trials go in; those that keep the budgets and that no other one is shown to beat come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeopt.front import exact, front
from edgeopt.search.study import Trial
from edgeopt.search.trying import Measured
from edgeopt.vocabulary import Budgets, Interval

# What a budget on an objective is called.
BUDGETS = {"quality": "max_drop", "size": "max_size", "latency": "max_latency", "ram": "max_ram"}
# Different files of one and the same score from which that is no coincidence.
_CONSTANT = 5


def limits(budgets: Budgets) -> dict[str, float]:
    """Returns the budgets that are set, by the objective that they limit."""
    said = {
        "quality": budgets.max_drop,
        "size": budgets.max_size_bytes,
        "latency": budgets.max_latency_ms,
        "ram": budgets.max_ram_bytes,
    }
    return {name: float(limit) for name, limit in said.items() if limit is not None}


def excesses(measured: Measured, budgets: Budgets) -> dict[str, float]:
    """Returns by budget how far it is broken, as a share of it; at most 0 where it is kept."""
    found = {"runs": float(len(measured.problems))}
    for name, limit in limits(budgets).items():
        cost = measured.costs.get(name)
        found[name] = 1.0 if cost is None else (cost.value - limit) / max(limit, 1.0 if name == "quality" else limit)
    return found


@dataclass(frozen=True)
class Choice:
    """What was chosen of the trials.

    Attributes:
        front: of those that keep the budgets, or of all where none does.
        kept: whether they do.
        obstacle: why not, in words.
    """

    front: tuple[Trial, ...]
    kept: bool
    obstacle: str = ""


def chosen(trials: Sequence[Trial], objectives: Sequence[str], budgets: Budgets) -> Choice:
    """Returns the front of the trials that are done, the smallest file first.

    Of several recipes that come to the same file, or to the same costs, the one with the fewest steps stands for all.
    A cost that is not known, as of a latency that no source tells of a scheme, counts as the worst.
    """
    done = [trial for trial in trials if trial.outcome.state == "done"]
    files: dict[str, Trial] = {}
    costs: dict[tuple[float, ...], Trial] = {}
    for trial in sorted(done, key=lambda t: (len(t.recipe.get("steps", ())), t.number)):
        files.setdefault(_measured(trial).sha256, trial)
    for trial in files.values():
        costs.setdefault(tuple(_cost(trial, name).value for name in objectives), trial)
    different = sorted(costs.values(), key=lambda t: t.number)
    keeping = [t for t in different if all(over <= 0 for over in excesses(_measured(t), budgets).values())]
    some = keeping or different
    found = front([[_cost(t, name) for name in objectives] for t in some])
    order = sorted((some[i] for i in found), key=lambda t: (_measured(t).costs["size"].value, t.number))
    return Choice(tuple(order), bool(keeping), "" if keeping else _obstacle(different, budgets))


def unknown(trials: Iterable[Trial], objectives: Sequence[str]) -> dict[str, int]:
    """Returns of how many trials that are done an objective is not known, by its name; those of none are left out."""
    done = [_measured(trial).costs for trial in trials if trial.outcome.state == "done"]
    found = {name: sum(name not in costs for costs in done) for name in objectives}
    return {name: count for name, count in found.items() if count}


def _cost(trial: Trial, name: str) -> Interval:
    return _measured(trial).costs.get(name, exact(math.inf))


def _measured(trial: Trial) -> Measured:
    assert trial.outcome.measured is not None
    return trial.outcome.measured


def _obstacle(trials: Sequence[Trial], budgets: Budgets) -> str:
    """Returns in words which budgets no trial keeps, or which ones contradict each other."""
    over = [excesses(_measured(trial), budgets) for trial in trials]
    keep = {name: {i for i, one in enumerate(over) if one[name] <= 0} for name in (over[0] if over else {})}
    names = {**BUDGETS, "runs": "running where it is meant to"}
    never = [names[name] for name, which in keep.items() if not which]
    if never:
        return f"of {len(trials)} files none keeps {' or '.join(never)}"
    told = ", ".join(f"{len(which)} keep {names[name]}" for name, which in keep.items() if len(which) < len(trials))
    return f"of {len(trials)} files {told}, and none keeps all: they contradict each other here"


def is_constant(trials: Iterable[Trial]) -> bool:
    """Whether different files all have the very same score: then the metric tells nothing apart."""
    scores: Mapping[str, float] = {
        _measured(t).sha256: _measured(t).metric.value for t in trials if t.outcome.measured is not None
    }
    return len(scores) >= _CONSTANT and len(set(scores.values())) == 1
