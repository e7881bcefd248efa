"""Trials that ended and a space go in; what to draw for the recipe that promises most comes out.

What a recipe comes to is foretold: its bytes by what is known of the model, put right by what like recipes came to;
its loss by theirs alone. Of many recipes that one is tried by which the area that the front dominates is expected to
grow most (Emmerich, Giannakoglou & Naujoks, "Single- and multiobjective evolutionary optimization assisted by Gaussian
random field metamodels", 2006). In place of the fields, which want more trials, stand averages over like recipes
(Nadaraya, "On estimating regression", 1964).
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.recipe import Recipe
from edgeopt.search.sampling import FORETOLD, at_random, in_order, label, near, of_label
from edgeopt.search.space import ImpossibleError, Parameter, Space
from edgeopt.search.trying import RECOVERABLE
from edgeopt.vocabulary import Budgets

# Recipes that are looked at for one that promises most: drawn from all of the space, and beside the best.
_DRAWN, _BESIDE = 256, 16
# How like recipes are that differ in a word, and the share of a range over which numbers are.
_OTHER_WORD, _REACH = 0.3, 0.15
# A loss of which nothing is known: in points, how sure that is beside a trial, and how far off it may be at least.
_LOSS, _LOSS_WEIGHT, _LEAST_DOUBT = 1.0, 0.5, 1.5
# By so much like trials narrow that.
_NARROWING = 4
# The least loss that counts, in points: of none there is no area.
_LEAST_LOSS = 0.1
# What was made or failed tells of what is smaller or larger by about so much, as a power of e; that a recipe can be
# made of which nothing is known weighs so much; what fails tells more than what works, and smaller will hardly do.
_SIZE_REACH, _WORKS_WEIGHT, _FAILED_WEIGHT, _HARDLY = 0.15, 0.5, 4, 0.02
# A bell in as many equal parts.
_PARTS = [statistics.NormalDist().inv_cdf((part + 0.5) / 9) for part in range(9)]

Point = tuple[float, float]


@dataclass(frozen=True)
class _Candidate:
    """What to draw, its recipe, and the bytes that are foretold of it; 1 where nothing is known of the model."""

    params: dict[str, Any]
    recipe: Recipe
    size: float


@dataclass(frozen=True)
class _Known:
    """A trial: what was drawn, the bytes that were foretold of it, and what it came to; None where it failed."""

    params: Mapping[str, Any]
    size: float
    point: Point | None


class Expecting:
    """Says what promises most, of recipes that are drawn once from all of a space and each time beside the best.

    Args:
        space: all that may be drawn.
        objectives: of the values of trials, those of FORETOLD in any order.
        budgets: beyond which nothing counts.
        seed: of what is drawn once.
    """

    def __init__(self, space: Space, objectives: Sequence[str], budgets: Budgets, seed: int) -> None:
        self._space, self._objectives, self._budgets = space, objectives, budgets
        self._places = {parameter.name: _place(parameter) for parameter in space.parameters}
        self._drawn = self._all_over(random.Random(seed))

    def params(
        self,
        trials: Sequence[Any],
        best: Sequence[Any],
        generator: random.Random,
        is_known: Callable[[Recipe], bool],
    ) -> dict[str, Any] | None:
        """Returns what to draw for the recipe that promises most; None where none promises anything.

        Args:
            trials: those that ended, with `params` and `values`, which are None where they failed.
            best: those of them that no other one beats.
            generator: of what is drawn beside them.
            is_known: whether a recipe was tried; that never ends.
        """
        known = [self._known(trial) for trial in trials]
        points = [one.point for one in known if one.point is not None]
        self._drawn = [one for one in self._drawn if not is_known(one.recipe)]
        found = [*self._drawn, *self._beside(best, generator, is_known)]
        if not points or not found:
            return None
        worst = self._worst(points)
        before = dominated(points, worst)
        promised = [self._promised(one, known, points, worst, before) for one in found]
        most = max(promised)
        return found[promised.index(most)].params if most > 0 else None

    def _worst(self, points: Sequence[Point]) -> Point:
        """Returns beyond which bytes and loss nothing counts: those of the float file, and of a budget."""
        facts, limit = self._space.known.facts, self._budgets.max_size_bytes
        largest = max(size for size, _ in points) * 1.01
        largest = largest if facts is None else max(largest, facts.float_bytes)
        most_lost = self._budgets.max_drop
        return (
            largest if limit is None else min(largest, limit + 1.0),
            RECOVERABLE if most_lost is None else max(most_lost, _LEAST_LOSS),
        )

    def _all_over(self, generator: random.Random) -> list[_Candidate]:
        found: dict[tuple[Any, ...], _Candidate] = {}
        for _ in range(_DRAWN):
            values: dict[str, Any] = {}
            with contextlib.suppress(ImpossibleError):
                recipe = self._space.recipe(functools.partial(at_random, generator, values))
                place = tuple(values.get(name) for name in self._places)
                found.setdefault(place, _Candidate(values, recipe, self._foretold(recipe)))
        return list(found.values())

    def _beside(
        self, best: Sequence[Any], generator: random.Random, is_known: Callable[[Recipe], bool]
    ) -> Iterator[_Candidate]:
        for _ in range(_BESIDE):
            params = near(self._space, best, generator, is_known)
            if params is not None:
                recipe = self._of(params)
                yield _Candidate(params, recipe, self._foretold(recipe))

    def _of(self, params: Mapping[str, Any]) -> Recipe:
        return self._space.recipe(lambda parameter: of_label(parameter, params[parameter.name]))

    def _foretold(self, recipe: Recipe) -> float:
        return self._space.foretold_bytes(recipe) or 1.0

    def _known(self, trial: Any) -> _Known:
        point, size = None, 1.0
        with contextlib.suppress(ImpossibleError):
            size = self._foretold(self._of(trial.params))
        if trial.values is not None:
            size_bytes, loss = (trial.values[self._objectives.index(name)] for name in FORETOLD)
            point = (size_bytes, loss)
        return _Known(trial.params, size, point)

    def _promised(
        self, one: _Candidate, known: Sequence[_Known], points: Sequence[Point], worst: Point, before: float
    ) -> float:
        """Returns by how much the area is expected to grow by a recipe, were it tried."""
        most = worst[1]
        # A recipe of which nothing is known is as large as foretold.
        weight, ratio, likes, lost, least, made, failed = 1e-3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        hopeless = False
        for other in known:
            like, in_words = self._alike(one.params, other.params)
            is_smaller = in_words == 1 and one.size <= other.size
            larger = math.log(one.size / other.size)
            if other.point is None:
                failed += in_words * math.exp(-max(0.0, larger) / _SIZE_REACH)
                hopeless |= is_smaller
                continue
            made += in_words * math.exp(-max(0.0, -larger) / _SIZE_REACH)
            loss = min(other.point[1], most)
            likes += like
            lost += like * loss
            # What is smaller and else the same loses no less.
            least = max(least, loss if is_smaller else 0.0)
            weight += in_words**2
            ratio += in_words**2 * math.log(other.point[0] / other.size)
        size = one.size * math.exp(ratio / weight)
        loss = max(least, (_LOSS_WEIGHT * _LOSS + lost) / (_LOSS_WEIGHT + likes))
        losses = [min(point[1], most) for point in points]
        doubt = max(_LEAST_DOUBT, statistics.pstdev(losses)) / math.sqrt(1 + _NARROWING * likes)
        works = (_WORKS_WEIGHT + made) / (_WORKS_WEIGHT + made + _FAILED_WEIGHT * failed)
        works = _HARDLY if hopeless else works
        grown = [dominated([*points, (size, max(0.0, loss + part * doubt))], worst) - before for part in _PARTS]
        return works * statistics.fmean(grown)

    def _alike(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float]:
        """Returns how like two recipes are, 0 to 1, and how like in words alone: their numbers are foretold."""
        like, in_words = 1.0, 1.0
        for name in one.keys() & other.keys():
            place = self._places[name]
            if one[name] == other[name]:
                continue
            if place is None:
                like, in_words = like * _OTHER_WORD, in_words * _OTHER_WORD
            else:
                like *= math.exp(-abs(place(one[name]) - place(other[name])) / _REACH)
        return like, in_words


def dominated(points: Sequence[Point], worst: Point) -> float:
    """Returns the area of bytes and loss that points dominate below `worst`; a gain counts as no loss."""
    area, reached = 0.0, worst[1]
    for size, loss in sorted(points):
        if size < worst[0] and loss < reached:
            area += (worst[0] - size) * (reached - max(loss, 0.0))
            reached = max(loss, 0.0)
    return area


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
