"""Trials that ended go in; what to try next comes out, drawn by Optuna's samplers in this process' memory.

A sampler is shown the best trials and the newest ones, a bounded number: the thousandth draw costs what the hundredth
did. What it is shown depends on nothing but the trials that ended, in their order.
"""

from __future__ import annotations

import functools
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.errors import named
from edgeopt.plain import to_plain
from edgeopt.recipe import Recipe
from edgeopt.search.space import ImpossibleError, Parameter, Space

# Trials from which a model of the space costs more than a trial's place among the best.
MANY_TRIALS = 300
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
    """A way to draw: its summary, what makes it, and whether it wants every parameter drawn in every trial."""

    summary: str
    make: Any
    everything: bool = False


# Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", for several objectives Ozaki et al. 2020; Deb et
# al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", in the steady state of Durillo et al. 2009,
# "On the effect of the steady-state selection scheme in multi-objective genetic algorithms".
SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler("models where good trials lie; for few trials", _tpe),
    "nsga2": Sampler("breeds from the best trials so far; for many", _nsga2, everything=True),
    "random": Sampler("draws without looking", _random),
}


def chosen_sampler(name: str | None, trials: int | None) -> str:
    """Returns the sampler's name: the one that is asked for, or the one that suits so many trials."""
    if name is not None:
        named(SAMPLERS, name, "a sampler")
        return name
    return "nsga2" if trials is not None and trials >= MANY_TRIALS else "tpe"


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
            newest = list(self._newest)
            self._show([trial for trial in self._best if not any(trial is one for one in newest)] + newest)
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
