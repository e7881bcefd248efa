"""A database and a space go in; what to try next comes out, and what was found is remembered there.

Optuna draws and remembers. Only the process that leads a search speaks to the database; those that work never do.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeopt import frameworks
from edgeopt.chance import seed_for
from edgeopt.errors import ConfigError, UnavailableError, named, setting
from edgeopt.plain import from_plain, to_plain
from edgeopt.recipe import Recipe, to_values
from edgeopt.search.space import ImpossibleError, Parameter, Space
from edgeopt.search.trying import Measured
from edgeopt.store import digest

# Trials from which a model of the space costs more than a trial's place in a generation.
MANY_TRIALS = 300
# A trial whose leader has not been heard of for so long is given to another.
HEARTBEAT_S, GRACE_S = 15, 60
# Draws of a sampler in a row that bring nothing new: then one at random does that was not tried before. Where so many
# of those bring nothing either, the space counts as tried out.
_DULL, _TRIED_OUT = 3, 200
# What is noted of a trial: its recipe, what became of it, who leads it, and which lost one it begins anew.
_RECIPE, _OUTCOME, _FOLDER, _AGAIN = "recipe", "outcome", "folder", "again"


def _tpe(optuna: Any, seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed)


def _nsga2(optuna: Any, seed: int) -> Any:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=24)


def _random(optuna: Any, seed: int) -> Any:
    return optuna.samplers.RandomSampler(seed=seed)


@dataclass(frozen=True)
class Sampler:
    """A way to draw: its summary, what makes it, and whether it wants every parameter drawn in every trial."""

    summary: str
    make: Any
    everything: bool = False


# Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", for several objectives Ozaki et al. 2020; Deb et
# al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".
SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler("models where good trials lie; for few trials", _tpe),
    "nsga2": Sampler("breeds generations of good trials; for many", _nsga2, everything=True),
    "random": Sampler("draws without looking", _random),
}


def chosen_sampler(name: str | None, trials: int | None) -> str:
    """Returns the sampler's name: the one that is asked for, or the one that suits so many trials."""
    if name is not None:
        named(SAMPLERS, name, "a sampler")
        return name
    return "nsga2" if trials is not None and trials >= MANY_TRIALS else "tpe"


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: "done", "stopped" (given up after a step), "failed" (it could not be made or measured), "impossible" (it
            does not combine, and was not run), "lost" (whoever ran it died) or "again" (it was tried before).
        words: why, "" where it is done.
        measured: as far as it came.
        seconds: that it took.
    """

    state: str
    words: str = ""
    measured: Measured | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """A trial that has ended: its number in the study, its recipe as keys and values, and what became of it."""

    number: int
    recipe: Mapping[str, Any]
    outcome: Outcome


@dataclass
class Drawn:
    """A trial that has begun."""

    number: int
    recipe: Recipe
    key: str
    trial: Any


class Study:
    """The trials of one search, in a database.

    Args:
        url: of the database.
        name: of the study in it.
        identity: what the study is of, by name, as digests and words: a study of anything else is refused.
        objectives: keys of OBJECTIVES, all the better when smaller.
        folder: where the trials of this process are made; those that it left when it was killed are begun anew.

    Raises:
        UnavailableError: Optuna is not installed, or the database is not to be reached.
        ConfigError: the study there is of something else.
    """

    def __init__(
        self, url: str, name: str, *, identity: Mapping[str, str], objectives: Sequence[str], folder: str
    ) -> None:
        self._optuna = frameworks.load("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._url, self.name, self._folder, self._objectives = url, name, folder, tuple(objectives)
        self._beaten = time.monotonic()
        self._running: dict[int, Drawn] = {}
        self.trials: list[Trial] = []
        self._by_recipe: dict[str, Trial] = {}
        with self._reached(), _quiet():
            self._storage = self._opened(url)
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=["minimize"] * len(self._objectives),
                load_if_exists=True,
                sampler=_random(self._optuna, 0),
            )
            self._check(identity)
            self._read()

    def _opened(self, url: str) -> Any:
        storages = self._optuna.storages
        local = url.startswith("sqlite")
        storage = storages.RDBStorage(
            url,
            # Whoever writes waits for other writers instead of failing.
            engine_kwargs={"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
        )
        if local:
            frameworks.load("sqlalchemy").event.listen(storage.engine, "connect", _ahead)
            storage.engine.dispose()
        return storage

    def _check(self, identity: Mapping[str, str]) -> None:
        found = {key: str(value) for key, value in self._study.user_attrs.items()}
        for key, value in identity.items():
            if key not in found:
                self._study.set_user_attr(key, value)
            elif found[key] != value:
                raise ConfigError(
                    f"Expected the study {self.name!r} to be of the same {key}, got one of another: that is another "
                    f"search. Try another -o, or {setting('study')} with another name."
                )

    def _read(self) -> None:
        """Takes over what has ended, and gives up what this very folder's process left when it was killed."""
        states = self._optuna.trial.TrialState
        there = self._study.get_trials(deepcopy=False)
        # Rows of the study: counted here, as asking the database reads all of them.
        self._count = len(there)
        for trial in there:
            if trial.state == states.RUNNING and trial.user_attrs.get(_FOLDER) == self._folder:
                self._again(trial.number, trial.params, trial.distributions)
                self._study.tell(trial.number, state=states.FAIL)
            elif trial.state.is_finished() and _OUTCOME in trial.user_attrs:
                self._keep(trial.number, trial.user_attrs)

    def _keep(self, number: int, attributes: Mapping[str, Any]) -> None:
        outcome = from_plain(Outcome, attributes[_OUTCOME], f"trial {number}")
        kept = Trial(number, attributes.get(_RECIPE, {}), outcome)
        self.trials.append(kept)
        if outcome.state in ("done", "stopped", "failed"):
            self._by_recipe.setdefault(_key(kept.recipe), kept)

    def _again(self, number: int, params: Mapping[str, Any], distributions: Mapping[str, Any]) -> None:
        """Puts a trial before all that is drawn later."""
        if params:
            self._count += 1
            self._study.add_trial(
                self._optuna.create_trial(
                    state=self._optuna.trial.TrialState.WAITING,
                    params=dict(params),
                    distributions=dict(distributions),
                    user_attrs={_AGAIN: number},
                    system_attrs={"fixed_params": dict(params)},
                )
            )

    @property
    def address(self) -> str:
        """Where the database is, without a password."""
        return _without_password(self._url)

    @property
    def tried(self) -> int:
        """How many recipes were tried, whatever became of them; those that do not combine and repetitions aside."""
        return sum(trial.outcome.state in ("done", "stopped", "failed") for trial in self.trials)

    def first(self, values: Sequence[Mapping[str, Any]], space: Space) -> None:
        """Puts these before all that is drawn, in a study that has no trial yet."""
        with self._reached(), _quiet():
            if self._study.get_trials(deepcopy=False):
                return
            for one in values:
                known = {parameter.name: parameter for parameter in space.parameters}
                said = {name: _label(known[name], value) for name, value in one.items()}
                self._enqueue(said)

    def _enqueue(self, values: Mapping[str, Any]) -> None:
        self._study.enqueue_trial(dict(values))
        self._count += 1

    def draw(self, space: Space, sampler: str, seed: int) -> Drawn | None:
        """Returns a recipe that was not tried before, None where none is found; its trial has begun.

        The same trials before it, sampler and seed give the same recipe: a search that was killed goes on as it would
        have gone.
        """
        states, row = self._optuna.trial.TrialState, SAMPLERS[sampler]
        for attempt in range(_DULL + 1):
            with self._reached(), _quiet():
                own_seed = seed_for(seed, "trial", self._count)
                if attempt == _DULL:
                    values = self._new(space, random.Random(own_seed))
                    if values is None:
                        return None
                    self._enqueue(values)
                self._study.sampler = row.make(self._optuna, own_seed)
                trial = self._study.ask()
                self._count = max(self._count, trial.number + 1)
                trial.set_user_attr(_FOLDER, self._folder)
                for parameter in space.parameters if row.everything else ():
                    _suggested(trial, parameter)
                try:
                    recipe = space.recipe(functools.partial(_suggested, trial))
                except ImpossibleError as error:
                    self._end(trial, {}, Outcome("impossible", str(error)), states.PRUNED)
                    continue
                key = _key(to_values(recipe))
                if not self._is_known(key):
                    drawn = Drawn(trial.number, recipe, key, trial)
                    self._running[trial.number] = drawn
                    self._storage.record_heartbeat(trial._trial_id)
                    return drawn
                self._repeat(trial, recipe, self._by_recipe.get(key))
        return None

    def _is_known(self, key: str) -> bool:
        return key in self._by_recipe or any(one.key == key for one in self._running.values())

    def _new(self, space: Space, generator: random.Random) -> dict[str, Any] | None:
        """Returns what to draw for a recipe that was not tried before, None where none is found."""
        for _ in range(_TRIED_OUT):
            values: dict[str, Any] = {}
            with contextlib.suppress(ImpossibleError):
                recipe = space.recipe(functools.partial(_at_random, generator, values))
                if not self._is_known(_key(to_values(recipe))):
                    return values
        return None

    def _repeat(self, trial: Any, recipe: Recipe, before: Trial | None) -> None:
        """Ends a trial that was drawn a second time as the first one ended: that is what the sampler shall know."""
        states = self._optuna.trial.TrialState
        words = "it is being tried" if before is None else f"as trial {before.number}"
        outcome = Outcome("again", words, None if before is None else before.outcome.measured)
        values = None if before is None or before.outcome.state != "done" else self._values(before.outcome.measured)
        self._end(trial, to_values(recipe), outcome, states.PRUNED if values is None else states.COMPLETE, values)

    def done(self, drawn: Drawn, outcome: Outcome, constraints: Mapping[str, float]) -> None:
        """Ends a trial.

        Args:
            drawn: the trial.
            outcome: what became of it; one that is lost is begun anew, once.
            constraints: by budget how far it is broken, at most 0 where it is kept.
        """
        states = self._optuna.trial.TrialState
        self._running.pop(drawn.number, None)
        with self._reached(), _quiet():
            for name, value in constraints.items():
                if value > 0:
                    drawn.trial.set_constraint(name, value)
            if outcome.state == "lost" and _AGAIN in drawn.trial.user_attrs:
                outcome = replace(outcome, state="failed", words=f"whoever ran it died twice: {outcome.words}")
            elif outcome.state == "lost":
                self._again(drawn.number, drawn.trial.params, drawn.trial.distributions)
            values = self._values(outcome.measured) if outcome.state == "done" else None
            state = {"done": states.COMPLETE, "lost": states.FAIL}.get(outcome.state, states.PRUNED)
            if state == states.COMPLETE and values is None:
                state, outcome = states.PRUNED, Outcome("failed", "not every objective was measured", outcome.measured)
            self._end(drawn.trial, to_values(drawn.recipe), outcome, state, values)

    def give_up(self) -> None:
        """Leaves what is running to whoever goes on with the study, as when this process had been killed."""
        states = self._optuna.trial.TrialState
        for drawn in list(self._running.values()):
            self._running.pop(drawn.number)
            with self._reached(), _quiet():
                self._again(drawn.number, drawn.trial.params, drawn.trial.distributions)
                self._study.tell(drawn.number, state=states.FAIL)

    def _end(
        self, trial: Any, recipe: Mapping[str, Any], outcome: Outcome, state: Any, values: Sequence[float] | None = None
    ) -> None:
        trial.set_user_attr(_RECIPE, dict(recipe))
        trial.set_user_attr(_OUTCOME, to_plain(outcome))
        self._study.tell(trial, values, state=state, skip_if_finished=True)
        self._keep(trial.number, {_RECIPE: recipe, _OUTCOME: to_plain(outcome)})

    def _values(self, measured: Measured | None) -> list[float] | None:
        if measured is None or not all(name in measured.costs for name in self._objectives):
            return None
        return [measured.costs[name].value for name in self._objectives]

    def alive(self) -> None:
        """Says that the trials at hand are worked on, and takes over those whose leader is not heard of any more."""
        if time.monotonic() - self._beaten < HEARTBEAT_S:
            return
        self._beaten = time.monotonic()
        with self._reached(), _quiet():
            for drawn in self._running.values():
                self._storage.record_heartbeat(drawn.trial._trial_id)
            self._optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Says in one line what a database answers that cannot be used."""
        sqlalchemy = frameworks.load("sqlalchemy")
        troubles = (self._optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ImportError, OSError)
        try:
            yield
        except troubles as error:
            cause = error.__cause__ or error
            line = " ".join(str(getattr(cause, "orig", None) or cause).split())[:200]
            raise UnavailableError(
                f"The database {_without_password(self._url)} cannot be used: {line}. Nothing that was finished is "
                "lost: the same command goes on when it is there, or with another --storage makes the study anew "
                "from what lies in the output folder."
            ) from error


def _ahead(connection: Any, _: Any) -> None:
    """Has SQLite write ahead: a killed process loses nothing, and a trial costs a third of the disk's time."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _key(values: Mapping[str, Any]) -> str:
    return digest({"recipe": values})


def _suggested(trial: Any, parameter: Parameter) -> Any:
    """Returns what Optuna draws for a parameter."""
    if parameter.range is None:
        labels = [_label(parameter, value) for value in parameter.values]
        return parameter.values[labels.index(trial.suggest_categorical(parameter.name, labels))]
    low, high, log = parameter.range.low, parameter.range.high, parameter.range.log
    if parameter.whole:
        return parameter.near(trial.suggest_int(parameter.name, int(low), int(high), log=log))
    return parameter.near(trial.suggest_float(parameter.name, float(low), float(high), log=log))


def _at_random(generator: random.Random, values: dict[str, Any], parameter: Parameter) -> Any:
    """Returns a value for a parameter, and notes it as the database holds it."""
    if parameter.range is None:
        value = generator.choice(parameter.values)
    else:
        ends = (parameter.range.low, parameter.range.high)
        low, high = map(math.log, ends) if parameter.range.log else ends
        drawn = generator.uniform(low, high)
        value = parameter.near(math.exp(drawn) if parameter.range.log else drawn)
    values[parameter.name] = _label(parameter, value)
    return value


def _label(parameter: Parameter, value: Any) -> Any:
    """Returns a value as the database holds it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(to_plain(value))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what Optuna says of parts of it that may change, as constraints and heartbeats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_password(url: str) -> str:
    sqlalchemy = frameworks.load("sqlalchemy")
    try:
        return str(sqlalchemy.engine.make_url(url).render_as_string(hide_password=True))
    except sqlalchemy.exc.ArgumentError:
        return url.partition("://")[0] + "://…"
