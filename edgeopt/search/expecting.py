"""Trials that ended and a space go in; what to draw for the recipe that promises most comes out.

What a recipe comes to is foretold: its bytes by what is known of the model, put right by what like recipes came to;
its loss by theirs alone. Of many recipes that one is tried by which the area that the front dominates is expected to
grow most (Emmerich, Giannakoglou & Naujoks, "Single- and multiobjective evolutionary optimization assisted by Gaussian
random field metamodels", 2006). In place of the fields, which want more trials, stand averages over like recipes
(Nadaraya, "On estimating regression", 1964).
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.recipe import Recipe
from edgeopt.search.sampling import at_random, in_order, label, near, of_label
from edgeopt.search.space import ImpossibleError, Parameter, Space
from edgeopt.search.trying import RECOVERABLE
from edgeopt.vocabulary import Budgets

# What is foretold, in the order of costs here.
OBJECTIVES = ("size", "quality")
# Recipes that are looked at for one that promises most: drawn from all of the space, and beside the best.
_DRAWN, _BESIDE = 64, 16
# How like recipes are that differ in a word, and the share of a range over which numbers are.
_OTHER_WORD, _REACH = 0.3, 0.15
# A loss of which nothing is known: in points, how sure that is beside a trial, and how far off it may be at least.
_LOSS, _LOSS_WEIGHT, _LEAST_DOUBT = 1.0, 0.5, 1.5
# By so much like trials narrow that.
_NARROWING = 4
# What fails tells more than what works, and what would have to be smaller still will hardly do.
_FAILED_WEIGHT, _HARDLY = 4, 0.02
# A bell in as many equal parts.
_PARTS = [statistics.NormalDist().inv_cdf((part + 0.5) / 9) for part in range(9)]

Point = tuple[float, float]


@dataclass(frozen=True)
class _Candidate:
    """What to draw, and the bytes that are foretold of it; 1 where nothing is known of the model."""

    params: Mapping[str, Any]
    size: float


@dataclass(frozen=True)
class _Known:
    """A trial: what was drawn, the bytes that were foretold of it, and what it came to; None where it failed."""

    params: Mapping[str, Any]
    size: float
    point: Point | None


def expected(
    space: Space,
    trials: Sequence[Any],
    objectives: Sequence[str],
    budgets: Budgets,
    generator: random.Random,
    is_known: Callable[[Recipe], bool],
    best: Sequence[Any],
) -> dict[str, Any] | None:
    """Returns what to draw for the recipe that promises most; None where none promises anything.

    Args:
        space: all that may be drawn.
        trials: those that ended, with `params` and `values`, which are None where they failed.
        objectives: of the values, those of OBJECTIVES in any order.
        budgets: beyond which nothing counts.
        generator: of every random choice.
        is_known: whether a recipe was tried.
        best: the trials that no other one beats.
    """
    known = [_known(space, trial, objectives) for trial in trials]
    found = _candidates(space, best, generator, is_known)
    points = [one.point for one in known if one.point is not None]
    if not points or not found:
        return None
    worst = _worst(points, budgets)
    before = dominated(points, worst)
    alikeness = _alikeness(space)
    promised = [_promised(one, known, points, worst, before, alikeness) for one in found]
    most = max(promised)
    return dict(found[promised.index(most)].params) if most > 0 else None


def dominated(points: Sequence[Point], worst: Point) -> float:
    """Returns the area of bytes and loss that points dominate below `worst`; a gain counts as no loss."""
    area, reached = 0.0, worst[1]
    for size, loss in sorted(points):
        if size < worst[0] and loss < reached:
            area += (worst[0] - size) * (reached - max(loss, 0.0))
            reached = max(loss, 0.0)
    return area


def _worst(points: Sequence[Point], budgets: Budgets) -> Point:
    largest = max(size for size, _ in points) * 1.01
    limit = budgets.max_size_bytes
    return (largest if limit is None else min(largest, limit + 1.0)), _most_lost(budgets)


def _most_lost(budgets: Budgets) -> float:
    return budgets.max_drop or RECOVERABLE


def _known(space: Space, trial: Any, objectives: Sequence[str]) -> _Known:
    point = None
    if trial.values is not None:
        size, loss = (trial.values[objectives.index(name)] for name in OBJECTIVES)
        point = (size, loss)
    return _Known(trial.params, _foretold(space, trial.params), point)


def _foretold(space: Space, params: Mapping[str, Any]) -> float:
    with contextlib.suppress(ImpossibleError):
        recipe = space.recipe(lambda parameter: of_label(parameter, params[parameter.name]))
        return space.foretold_bytes(recipe) or 1.0
    return 1.0


def _candidates(
    space: Space, best: Sequence[Any], generator: random.Random, is_known: Callable[[Recipe], bool]
) -> list[_Candidate]:
    """Returns recipes that were not tried, each once."""
    found: dict[tuple[Any, ...], _Candidate] = {}

    def look(values: dict[str, Any] | None, recipe: Recipe | None) -> None:
        if values is not None and recipe is not None and not is_known(recipe):
            place = tuple(values.get(parameter.name) for parameter in space.parameters)
            found.setdefault(place, _Candidate(values, space.foretold_bytes(recipe) or 1.0))

    for _ in range(_DRAWN):
        values: dict[str, Any] = {}
        with contextlib.suppress(ImpossibleError):
            look(values, space.recipe(lambda parameter: at_random(generator, values, parameter)))  # noqa: B023
    for _ in range(_BESIDE):
        beside = near(space, best, generator, is_known)
        if beside is not None:
            look(beside, space.recipe(lambda parameter: of_label(parameter, beside[parameter.name])))  # noqa: B023
    return list(found.values())


def _promised(
    one: _Candidate,
    known: Sequence[_Known],
    points: Sequence[Point],
    worst: Point,
    before: float,
    alikeness: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[float, bool]],
) -> float:
    """Returns by how much the area is expected to grow by a recipe, were it tried."""
    most = worst[1]
    # A recipe of which nothing is known is as large as foretold.
    weight, ratio, likes, lost, fails = 1e-3, 0.0, 0.0, 0.0, 0.0
    hopeless = False
    for other in known:
        like, same_words = alikeness(one.params, other.params)
        if other.point is None:
            fails += like
            hopeless |= same_words and one.size <= other.size
            continue
        likes += like
        lost += like * min(other.point[1], most)
        weight += like**2
        ratio += like**2 * math.log(other.point[0] / other.size)
    size = one.size * math.exp(ratio / weight)
    loss = (_LOSS_WEIGHT * _LOSS + lost) / (_LOSS_WEIGHT + likes)
    losses = [min(point[1], most) for point in points]
    doubt = max(_LEAST_DOUBT, statistics.pstdev(losses)) / math.sqrt(1 + _NARROWING * likes)
    works = _HARDLY if hopeless else (1 + likes) / (1 + likes + _FAILED_WEIGHT * fails)
    grown = [dominated([*points, (size, max(0.0, loss + part * doubt))], worst) - before for part in _PARTS]
    return works * statistics.fmean(grown)


def _alikeness(space: Space) -> Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[float, bool]]:
    """Returns what says how like two recipes are, 0 to 1, and whether they differ in numbers alone."""
    places = {parameter.name: _place(parameter) for parameter in space.parameters}

    def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, bool]:
        like, same_words = 1.0, True
        for name in one.keys() & other.keys():
            if one[name] == other[name]:
                continue
            place = places[name]
            if place is None:
                like, same_words = like * _OTHER_WORD, False
            else:
                like *= math.exp(-abs(place(one[name]) - place(other[name])) / _REACH)
        return like, same_words

    return alike


def _place(parameter: Parameter) -> Callable[[Any], float] | None:
    """Returns what tells where between 0 and 1 a value lies, None for words, which have no order."""
    if parameter.range is not None:
        low, high = float(parameter.range.low), float(parameter.range.high)
        scale: Callable[[float], float] = math.log if parameter.range.log else float
        return lambda value: (scale(value) - scale(low)) / ((scale(high) - scale(low)) or 1.0)
    labels = [label(parameter, value) for value in parameter.values]
    if len(labels) < 2 or not in_order(parameter.values):
        return None
    return lambda value: labels.index(value) / (len(labels) - 1)
