"""Trials that ended go in; what to try next comes out, drawn by Optuna's samplers in this process' memory.

A sampler is shown the best trials and the newest ones, a bounded number: the thousandth draw costs what the hundredth
did. What it is shown depends on nothing but the trials that ended, in their order.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.chance import seed_for
from edgeopt.errors import ConfigError, named, setting
from edgeopt.plain import to_plain
from edgeopt.recipe import Recipe
from edgeopt.search.space import ImpossibleError, Parameter, Space

# Trials from which models of where good ones lie have something to go by, and from which they cost more than a trial's
# place among the best.
SOME_TRIALS, MANY_TRIALS = 50, 300
# Of the trials, so many at most lie evenly in the space before any looks at what the others came to.
MOST_EVENLY = 32
# Recipes that are looked at for those that lie evenly, and changes for one that was not tried before.
_LOOKED_AT, _CHANGES = 256, 12
# Of a range, how far a neighbour lies at least and at most.
_NEAR, _FAR = 0.05, 0.25
# So many of the best trials are shown, and so many of the newest.
SHOWN = 50
_POPULATION = 24


def _tpe(optuna: Any, seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed)


def _nsga2(optuna: Any, seed: int) -> Any:
    class SteadyState(optuna.samplers.NSGAIISampler):
        """Takes the parents from all that is shown, for every trial anew, instead of from the generation before."""

        def get_trial_generation(self, study: Any, trial: Any) -> int:
            return int(len(self.get_population(study, 0)) >= _POPULATION)

        def get_population(self, study: Any, generation: int) -> list[Any]:
            complete = (optuna.trial.TrialState.COMPLETE,)
            return list(study.get_trials(deepcopy=False, states=complete)) if generation == 0 else []

        def get_parent_population(self, study: Any, generation: int) -> list[Any]:
            return list(self.select_parent(study, generation)) if generation else []

    return SteadyState(seed=seed, population_size=_POPULATION)


def _random(optuna: Any, seed: int) -> Any:
    return optuna.samplers.RandomSampler(seed=seed)


@dataclass(frozen=True)
class Sampler:
    """A way to draw.

    Attributes:
        summary: what it does.
        make: makes Optuna's, of the package and a seed.
        everything: whether it wants every parameter drawn in every trial.
        near: whether it changes what was best so far; see `near`.
        expects: whether it tries what promises most; see `expecting`.
        evenly: of few trials, the share that lies evenly in the space before any looks at what the others came to.
    """

    summary: str
    make: Any
    everything: bool = False
    near: bool = False
    expects: bool = False
    evenly: float = 0.75


# Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", for several objectives Ozaki et al. 2020; Deb et
# al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", in the steady state of Durillo et al. 2009,
# "On the effect of the steady-state selection scheme in multi-objective genetic algorithms".
SAMPLERS: dict[str, Sampler] = {
    "expected": Sampler(
        "tries what promises most, by the bytes that are foretold and the losses of like recipes; for few trials",
        _random,
        near=True,
        expects=True,
        evenly=0.25,
    ),
    "near": Sampler("changes one thing of the best trials so far; for few trials", _random, near=True),
    "tpe": Sampler("models where good trials lie; for more", _tpe),
    "nsga2": Sampler("breeds from the best trials so far; for many", _nsga2, everything=True),
    "random": Sampler("draws without looking", _random),
}


# What `expected` foretells.
FORETOLD = ("size", "quality")


def chosen_sampler(name: str | None, trials: int | None, objectives: Sequence[str]) -> str:
    """Returns the sampler's name: the one that is asked for, or the one that suits so many trials and what is sought.

    Raises:
        ConfigError: there is none of that name, or it cannot foretell what is sought.
    """
    if name is not None:
        named(SAMPLERS, name, "a sampler")
        if SAMPLERS[name].expects and set(objectives) != set(FORETOLD):
            raise ConfigError(
                f"Expected quality and size as what is sought with {setting('sampler', name)}, which foretells nothing "
                f"else, got {', '.join(objectives)}. Try {setting('sampler', 'near')}."
            )
        return name
    if trials is None or trials < SOME_TRIALS:
        return "expected" if set(objectives) == set(FORETOLD) else "near"
    return "nsga2" if trials >= MANY_TRIALS else "tpe"


@dataclass(frozen=True)
class Draft:
    """What was drawn.

    Attributes:
        recipe: None where it does not combine.
        impossible: why not.
        params, distributions: of the trial, as Optuna has them.
    """

    recipe: Recipe | None
    impossible: str
    params: Mapping[str, Any]
    distributions: Mapping[str, Any]


class Sampling:
    """What a sampler is shown, and draws from.

    Args:
        optuna: the package.
        objectives: how many, all the better when smaller.
    """

    def __init__(self, optuna: Any, objectives: int) -> None:
        self._optuna, self._objectives = optuna, objectives
        self._best: list[Any] = []
        self._newest: deque[Any] = deque(maxlen=SHOWN)
        self._show([])

    @property
    def seen(self) -> Sequence[Any]:
        """The best trials and the newest, each once."""
        newest = list(self._newest)
        return [trial for trial in self._best if not any(trial is one for one in newest)] + newest

    @property
    def best(self) -> Sequence[Any]:
        """The trials that no other beats."""
        return self._best

    @property
    def shown(self) -> int:
        """How many rows a sampler looks through."""
        return self._rows

    def _show(self, trials: Sequence[Any]) -> None:
        self._study = self._optuna.create_study(
            directions=["minimize"] * self._objectives, sampler=self._optuna.samplers.RandomSampler(seed=0)
        )
        self._study.add_trials(trials)
        self._rows = len(trials)

    def ended(self, trial: Any) -> None:
        """Takes in a frozen trial: one that is complete, or pruned."""
        self._newest.append(trial)
        if trial.values is not None and not any(over > 0 for over in trial.constraints.values()):
            self._best = _with(self._best, trial)
        self._study.add_trial(trial)
        self._rows += 1

    def draw(self, space: Space, sampler: str, seed: int, fixed: Mapping[str, Any] | None = None) -> Draft:
        """Returns what a sampler draws, or what comes of what is fixed."""
        # What was drawn stays in the study, whatever became of it: from time to time it begins anew.
        if self._rows > 4 * SHOWN:
            self._show(self.seen)
        row = SAMPLERS[sampler]
        self._study.sampler = row.make(self._optuna, seed)
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        self._rows += 1
        for parameter in space.parameters if row.everything else ():
            _suggested(trial, parameter)
        try:
            recipe, impossible = space.recipe(functools.partial(_suggested, trial)), ""
        except ImpossibleError as error:
            recipe, impossible = None, str(error)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return Draft(recipe, impossible, trial.params, trial.distributions)


def _with(best: Sequence[Any], trial: Any) -> list[Any]:
    """Returns those of the trials that no other beats; of too many the one goes that has the nearest neighbours."""
    if any(_as_good(one, trial) for one in best):
        return list(best)
    left = [one for one in best if not _as_good(trial, one)] + [trial]
    crowded = _most_crowded(left) if len(left) > SHOWN else None
    return [one for one in left if one is not crowded]


def _as_good(one: Any, other: Any) -> bool:
    return all(ours <= theirs for ours, theirs in zip(one.values, other.values))


def _most_crowded(trials: Sequence[Any]) -> Any:
    """Returns the trial of the least crowding distance, as of NSGA-II."""
    room = dict.fromkeys(range(len(trials)), 0.0)
    for axis in range(len(trials[0].values)):
        order = sorted(room, key=lambda i: trials[i].values[axis])
        values = [trials[i].values[axis] for i in order]
        room[order[0]] = room[order[-1]] = float("inf")
        for before, i, after in zip(values, order[1:], values[2:]):
            room[i] += (after - before) / ((values[-1] - values[0]) or 1.0)
    return trials[min(room, key=lambda i: room[i])]


def _suggested(trial: Any, parameter: Parameter) -> Any:
    """Returns what Optuna draws for a parameter."""
    if parameter.range is None:
        labels = [label(parameter, value) for value in parameter.values]
        return parameter.values[labels.index(trial.suggest_categorical(parameter.name, labels))]
    low, high, log = parameter.range.low, parameter.range.high, parameter.range.log
    if parameter.whole:
        return parameter.near(trial.suggest_int(parameter.name, int(low), int(high), log=log))
    return parameter.near(trial.suggest_float(parameter.name, float(low), float(high), log=log))


def spread(space: Space, trials: int | None, seed: int, *, share: float, besides: int = 0) -> list[Mapping[str, Any]]:
    """Returns what to draw for recipes that lie evenly in a space: a grid of all it has, or of many drawn from it.

    In the order of schemes, techniques and settings it is every so-many-th, from one that the seed says; what has many
    values is looked at in many.

    Args:
        trials: of the search.
        share: of these; see `Sampler.evenly`.
        besides: so many recipes without a step are tried already.
    """
    generator = random.Random(seed_for(seed, "trials that lie evenly"))
    found: dict[tuple[float, ...], Mapping[str, Any]] = {}
    for _ in range(_LOOKED_AT):
        places: dict[str, float] = {}
        values: dict[str, Any] = {}
        with contextlib.suppress(ImpossibleError):
            recipe = space.recipe(functools.partial(_placed, generator, values, places))
            if besides and not recipe.steps:
                continue
            found[tuple(places.get(parameter.name, -1) for parameter in space.parameters)] = values
    order = [found[place] for place in sorted(found)]
    wanted = MOST_EVENLY if trials is None else min(MOST_EVENLY, round(share * trials))
    count = min(len(order), max(0, wanted - besides))
    offset = generator.random()
    evenly = [order[int((number + offset) * len(order) / count)] for number in range(count)]
    generator.shuffle(evenly)
    return evenly


def _placed(generator: random.Random, values: dict[str, Any], places: dict[str, float], parameter: Parameter) -> Any:
    """Returns a value as `at_random` does, and notes where it lies among those of its parameter as well."""
    value = at_random(generator, values, parameter)
    places[parameter.name] = value if parameter.range else parameter.values.index(value)
    return value


def near(
    space: Space, best: Sequence[Any], generator: random.Random, is_known: Callable[[Recipe], bool]
) -> dict[str, Any] | None:
    """Returns what to draw for one of the best trials with one thing changed, to its neighbour where values have an
    order; None where all that were looked at are known."""
    for _ in range(_CHANGES if best else 0):
        params = dict(generator.choice(best).params)
        known = [parameter for parameter in space.parameters if parameter.name in params]
        if not known:
            return None
        changed = generator.choice(known)
        params[changed.name] = _neighbour(changed, params[changed.name], generator)
        values: dict[str, Any] = {}
        with contextlib.suppress(ImpossibleError):
            if not is_known(space.recipe(functools.partial(_as_in, params, generator, values))):
                return values
    return None


def _as_in(params: Mapping[str, Any], generator: random.Random, values: dict[str, Any], parameter: Parameter) -> Any:
    """Returns the value that `params` hold of a parameter, else one at random, and notes it as a study holds it."""
    if parameter.name not in params:
        return at_random(generator, values, parameter)
    values[parameter.name] = params[parameter.name]
    return of_label(parameter, params[parameter.name])


def _neighbour(parameter: Parameter, value: Any, generator: random.Random) -> Any:
    """Returns another value of a parameter as a study holds it: the next one up or down of those in order."""
    if parameter.range is not None:
        low, high = parameter.range.low, parameter.range.high
        if parameter.range.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        moved = value + generator.choice((-1, 1)) * generator.uniform(_NEAR, _FAR) * (high - low)
        moved = min(max(moved, low), high)
        return parameter.near(math.exp(moved) if parameter.range.log else moved)
    labels = [label(parameter, one) for one in parameter.values]
    place = labels.index(value)
    if not in_order(parameter.values):
        return generator.choice([one for one in labels if one != value] or labels)
    return labels[min(max(place + generator.choice((-1, 1)), 0), len(labels) - 1)]


def in_order(values: Sequence[Any]) -> bool:
    """Whether values are numbers, or shares such as 55%, that rise or fall."""
    try:
        numbers = [float(str(value).rstrip("%")) for value in values]
    except ValueError:
        return False
    return numbers in (sorted(numbers), sorted(numbers, reverse=True))


def of_label(parameter: Parameter, held: Any) -> Any:
    """Returns the value of a parameter that a study holds so."""
    if parameter.range is not None:
        return parameter.near(held)
    return next(value for value in parameter.values if label(parameter, value) == held)


def at_random(generator: random.Random, values: dict[str, Any], parameter: Parameter) -> Any:
    """Returns a value for a parameter, and notes it as a study holds it."""
    if parameter.range is None:
        value = generator.choice(parameter.values)
    else:
        ends = (parameter.range.low, parameter.range.high)
        low, high = map(math.log, ends) if parameter.range.log else ends
        drawn = generator.uniform(low, high)
        value = parameter.near(math.exp(drawn) if parameter.range.log else drawn)
    values[parameter.name] = label(parameter, value)
    return value


def label(parameter: Parameter, value: Any) -> Any:
    """Returns a value of a parameter as a study holds it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(to_plain(value))
