"""A database and a space go in; what to try next comes out, and what was found is remembered there.

Optuna remembers, and draws in memory: see `sampling`. Only the process that leads a search speaks to the database;
those that work never do. It writes what it begins and ends, and reads but now and then, for what other leaders did.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeopt import frameworks
from edgeopt.chance import seed_for
from edgeopt.errors import ConfigError, UnavailableError, setting
from edgeopt.plain import from_plain, to_plain
from edgeopt.recipe import Recipe, to_values
from edgeopt.search.expecting import Expecting
from edgeopt.search.sampling import SAMPLERS, Draft, Sampling, at_random, label, near
from edgeopt.search.space import ImpossibleError, Space
from edgeopt.search.trying import Measured
from edgeopt.store import digest
from edgeopt.vocabulary import Budgets

# A trial whose leader has not been heard of for so long is given to another.
HEARTBEAT_S, GRACE_S = 15, 60
# Draws of a sampler in a row that bring nothing new: then one at random does that was not tried before. Where so many
# of those bring nothing either, the space counts as tried out.
_DULL, _TRIED_OUT = 3, 200
# What is noted of a trial: its recipe, what became of it, who leads it, and which lost one it begins anew.
_RECIPE, _OUTCOME, _FOLDER, _AGAIN = "recipe", "outcome", "folder", "again"
# What a sampler sees of a cost that is not known: worse than any.
_NOT_KNOWN = 1e12
_IN_WORK = "it is being tried"
# What Optuna calls that which a waiting trial shall be.
_FIXED = "fixed_params"
_NO_BUDGETS = Budgets()
# A recipe that ended so was tried, whatever became of it.
_TRIED = ("done", "stopped", "failed")


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


@dataclass(frozen=True)
class Drawn:
    """A trial that has begun.

    Attributes:
        number: in the study.
        row: of the database.
        recipe, key: what is tried, and what it is known by.
        draft: what was drawn.
        again: whether a lost one is begun anew.
    """

    number: int
    row: int
    recipe: Recipe
    key: str
    draft: Draft
    again: bool


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
        self._url, self.name, self._folder, self.objectives = url, name, folder, tuple(objectives)
        self._states = self._optuna.trial.TrialState
        self._beaten = time.monotonic()
        self._running: dict[int, Drawn] = {}
        # Rows of the database that wait for whoever takes them, and numbers of those whose end is known here.
        self._waiting: deque[int] = deque()
        self._ended: set[int] = set()
        # What others try at this moment, as far as is known.
        self._elsewhere: set[str] = set()
        # Rows of the study, and those of them that were drawn: none that begins a lost one anew.
        self._rows = self._drawn = 0
        self.trials: list[Trial] = []
        self.states: Counter[str] = Counter()
        self._by_recipe: dict[str, Trial] = {}
        self._sampling = Sampling(self._optuna, len(self.objectives))
        self._expecting: Expecting | None = None
        with self._reached(), _quiet():
            self._storage = self._opened(url)
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=["minimize"] * len(self.objectives),
                load_if_exists=True,
                sampler=self._optuna.samplers.RandomSampler(seed=0),
            )
            self._id = self._storage.get_study_id_from_name(name)
            self._check(identity)
            for left in self._read():
                if left.user_attrs.get(_FOLDER) == self._folder:
                    self._leave(left.number, left._trial_id, left)

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

    def _read(self) -> list[Any]:
        """Takes over what other processes did, and at first all that there is; returns what runs elsewhere."""
        rows = self._study.get_trials(deepcopy=False)
        self._rows, self._drawn = len(rows), sum(not self._is_again(row) for row in rows)
        running, self._elsewhere = [], set()
        for row in rows:
            if row.number in self._ended or row.number in self._running:
                continue
            if row.state == self._states.WAITING:
                if row._trial_id not in self._waiting:
                    self._waiting.append(row._trial_id)
            elif row.state == self._states.RUNNING:
                running.append(row)
                if row.user_attrs.get(_FOLDER) != self._folder:
                    self._elsewhere.add(_key(row.user_attrs.get(_RECIPE, {})))
            else:
                self._ended.add(row.number)
                self._show(row.state, row.values, row, row.constraints)
                if _OUTCOME in row.user_attrs:
                    outcome = from_plain(Outcome, row.user_attrs[_OUTCOME], f"trial {row.number}")
                    self._keep(Trial(row.number, row.user_attrs.get(_RECIPE, {}), outcome))
        return running

    def _is_again(self, row: Any) -> bool:
        """Whether a row begins a trial anew, for its own leader or for one that was not heard of any more."""
        retried = self._optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(row)
        return _AGAIN in row.user_attrs or retried is not None

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.states[trial.outcome.state] += 1
        if trial.outcome.state in _TRIED:
            self._by_recipe.setdefault(_key(trial.recipe), trial)

    def _show(self, state: Any, values: Sequence[float] | None, drawn: Any, constraints: Mapping[str, float]) -> None:
        """Lets samplers see a trial that came to something."""
        if state in (self._states.COMPLETE, self._states.PRUNED):
            self._sampling.ended(
                self._optuna.create_trial(
                    state=state,
                    values=values,
                    params=dict(drawn.params),
                    distributions=dict(drawn.distributions),
                    constraints={name: over for name, over in constraints.items() if over > 0},
                )
            )

    def _create(self, state: Any, **rest: Any) -> tuple[int, int]:
        """Writes a new row, and returns its number in the study and in the database."""
        row = self._storage.create_new_trial(self._id, self._optuna.create_trial(state=state, **rest))
        number = self._storage.get_trial_number_from_id(row)
        if number > self._rows:  # somebody else writes too
            self._read()
        else:
            self._rows += 1
            self._drawn += _AGAIN not in rest.get("user_attrs", {})
        return number, row

    def _wait(self, fixed: Mapping[str, Any], **rest: Any) -> None:
        """Puts a trial before all that is drawn later."""
        _, row = self._create(self._states.WAITING, system_attrs={_FIXED: dict(fixed)}, **rest)
        if row not in self._waiting:
            self._waiting.append(row)

    def _begin_anew(self, number: int, drawn: Any) -> None:
        params, distributions = dict(drawn.params), dict(drawn.distributions)
        if params:
            self._wait(params, params=params, distributions=distributions, user_attrs={_AGAIN: number})

    def _leave(self, number: int, row: int, drawn: Any) -> None:
        """Gives up a trial that runs, to be begun anew."""
        self._begin_anew(number, drawn)
        self._ended.add(number)
        with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_state_values(row, self._states.FAIL)

    @property
    def address(self) -> str:
        """Where the database is, without a password."""
        return _without_password(self._url)

    @property
    def tried(self) -> int:
        """How many recipes were tried, whatever became of them; those that do not combine and repetitions aside."""
        return sum(self.states[state] for state in _TRIED)

    def first(self, values: Sequence[Mapping[str, Any]], space: Space) -> None:
        """Puts these before all that is drawn, in a study that has no trial yet."""
        known = {parameter.name: parameter for parameter in space.parameters}
        with self._reached(), _quiet():
            for one in values if not self._rows else ():
                self._wait({name: label(known[name], value) for name, value in one.items()})

    def draw(self, space: Space, sampler: str, seed: int, budgets: Budgets = _NO_BUDGETS) -> Drawn | None:
        """Returns a recipe that was not tried before, None where none is found; its trial has begun.

        Beyond the budgets nothing counts.

        The same trials before it, sampler and seed give the same recipe: a search that was killed goes on as it would
        have gone.
        """
        attempt = 0
        while attempt <= _DULL:
            with self._reached(), _quiet():
                own_seed = seed_for(seed, "trial", self._drawn)
                waiting = self._claimed()
                fixed = None if waiting is None else waiting.system_attrs.get(_FIXED, waiting.params)
                if waiting is None and SAMPLERS[sampler].expects:
                    fixed = self._expected(space, budgets, seed, random.Random(own_seed))
                if waiting is None and fixed is None and SAMPLERS[sampler].near:
                    fixed = near(space, self._sampling.best, random.Random(own_seed), self._is_tried)
                if waiting is None and fixed is None and (SAMPLERS[sampler].near or attempt == _DULL):
                    fixed = self._new(space, random.Random(own_seed))
                    if fixed is None:
                        return None
                attempt += waiting is None
                draft = self._sampling.draw(space, sampler, own_seed, fixed)
                key = "" if draft.recipe is None else _key(to_values(draft.recipe))
                if draft.recipe is not None and not self._is_known(key):
                    number, row = self._begun(draft, waiting)
                    if self._is_known(key):  # somebody else drew the same at the same time
                        self._end(number, row, draft, Outcome("again", _IN_WORK), self._states.PRUNED)
                        continue
                    again = waiting is not None and self._is_again(waiting)
                    self._running[number] = Drawn(number, row, draft.recipe, key, draft, again)
                    self._storage.record_heartbeat(row)
                    return self._running[number]
                self._vain(draft, waiting, self._by_recipe.get(key))
        return None

    def _expected(self, space: Space, budgets: Budgets, seed: int, generator: random.Random) -> dict[str, Any] | None:
        if self._expecting is None:
            own_seed = seed_for(seed, "recipes that may promise much")
            self._expecting = Expecting(space, self.objectives, budgets, own_seed)
        return self._expecting.params(self._sampling.seen, self._sampling.best, generator, self._is_tried)

    def _claimed(self) -> Any:
        """Returns the first row that waits, None where none does; it runs now."""
        while self._waiting:
            row = self._waiting.popleft()
            with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(row, self._states.RUNNING):
                    return self._storage.get_trial(row)
        return None

    def _begun(self, draft: Draft, waiting: Any) -> tuple[int, int]:
        """Notes what was drawn, in the row that waited for it or in a new one; returns as `_create`."""
        notes = self._notes(draft)
        if waiting is None:
            return self._create(
                self._states.RUNNING, params=draft.params, distributions=draft.distributions, user_attrs=notes
            )
        for name, distribution in draft.distributions.items():
            if name not in waiting.distributions:
                value = distribution.to_internal_repr(draft.params[name])
                self._storage.set_trial_param(waiting._trial_id, name, value, distribution)
        for key, note in notes.items():
            self._storage.set_trial_user_attr(waiting._trial_id, key, note)
        return waiting.number, waiting._trial_id

    def _notes(self, draft: Draft) -> dict[str, Any]:
        return {_FOLDER: self._folder, _RECIPE: _values_of(draft)}

    def _is_known(self, key: str) -> bool:
        ours = any(one.key == key for one in self._running.values())
        return ours or key in self._by_recipe or key in self._elsewhere

    def _is_tried(self, recipe: Recipe) -> bool:
        return self._is_known(_key(to_values(recipe)))

    def _new(self, space: Space, generator: random.Random) -> dict[str, Any] | None:
        """Returns what to draw for a recipe that was not tried before, None where none is found."""
        for _ in range(_TRIED_OUT):
            values: dict[str, Any] = {}
            with contextlib.suppress(ImpossibleError):
                recipe = space.recipe(functools.partial(at_random, generator, values))
                if not self._is_known(_key(to_values(recipe))):
                    return values
        return None

    def _vain(self, draft: Draft, waiting: Any, before: Trial | None) -> None:
        """Ends a trial at once: it does not combine, or ends as the first one of its recipe did."""
        values = None
        if draft.recipe is None:
            outcome = Outcome("impossible", draft.impossible)
        else:
            words = _IN_WORK if before is None else f"as trial {before.number}"
            outcome = Outcome("again", words, None if before is None else before.outcome.measured)
            values = None if before is None or before.outcome.state != "done" else self._values(outcome.measured)
        state = self._states.PRUNED if values is None else self._states.COMPLETE
        if waiting is not None:
            self._end(*self._begun(draft, waiting), draft, outcome, state, values)
            return
        notes = {**self._notes(draft), _OUTCOME: to_plain(outcome)}
        number, _ = self._create(
            state, values=values, params=draft.params, distributions=draft.distributions, user_attrs=notes
        )
        self._known(number, draft, outcome, state, values, {})

    def done(self, drawn: Drawn, outcome: Outcome, constraints: Mapping[str, float]) -> None:
        """Ends a trial.

        Args:
            drawn: the trial.
            outcome: what became of it; one that is lost is begun anew, once.
            constraints: by budget how far it is broken, at most 0 where it is kept.
        """
        states, draft = self._states, drawn.draft
        self._running.pop(drawn.number, None)
        with self._reached(), _quiet():
            if outcome.state == "lost" and drawn.again:
                outcome = replace(outcome, state="failed", words=f"whoever ran it died twice: {outcome.words}")
            elif outcome.state == "lost":
                self._begin_anew(drawn.number, draft)
            values = self._values(outcome.measured) if outcome.state == "done" else None
            state = {"done": states.COMPLETE, "lost": states.FAIL}.get(outcome.state, states.PRUNED)
            if state == states.COMPLETE and values is None:
                state, outcome = states.PRUNED, Outcome("failed", "its score is no number", outcome.measured)
            self._end(drawn.number, drawn.row, draft, outcome, state, values, constraints)

    def give_up(self) -> None:
        """Leaves what is running to whoever goes on with the study, as when this process had been killed."""
        for drawn in list(self._running.values()):
            self._running.pop(drawn.number)
            with self._reached(), _quiet():
                self._leave(drawn.number, drawn.row, drawn.draft)

    def _end(
        self,
        number: int,
        row: int,
        draft: Draft,
        outcome: Outcome,
        state: Any,
        values: Sequence[float] | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        broken = {name: over for name, over in (constraints or {}).items() if over > 0}
        # Another leader took it over where this one was not heard of for long: what is known here is known here.
        with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(row, _OUTCOME, to_plain(outcome))
            if broken:
                trial = self._optuna.trial.Trial(self._study, row)
                for name, over in broken.items():
                    trial.set_constraint(name, over)
            self._storage.set_trial_state_values(row, state, values)
        self._known(number, draft, outcome, state, values, broken)

    def _known(
        self,
        number: int,
        draft: Draft,
        outcome: Outcome,
        state: Any,
        values: Sequence[float] | None,
        broken: Mapping[str, float],
    ) -> None:
        if number not in self._ended:  # where others write too, it may have been read already
            self._ended.add(number)
            self._show(state, values, draft, broken)
            self._keep(Trial(number, _values_of(draft), outcome))

    def _values(self, measured: Measured | None) -> list[float] | None:
        if measured is None:
            return None
        values = [measured.costs[n].value if n in measured.costs else _NOT_KNOWN for n in self.objectives]
        return None if any(math.isnan(value) for value in values) else values

    def alive(self) -> None:
        """Says that the trials at hand are worked on, and takes over those whose leader is not heard of any more."""
        if time.monotonic() - self._beaten < HEARTBEAT_S:
            return
        self._beaten = time.monotonic()
        with self._reached(), _quiet():
            for drawn in self._running.values():
                self._storage.record_heartbeat(drawn.row)
            self._optuna.storages.fail_stale_trials(self._study)
            self._read()

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


def _values_of(draft: Draft) -> Mapping[str, Any]:
    return {} if draft.recipe is None else to_values(draft.recipe)


def _key(values: Mapping[str, Any]) -> str:
    return digest({"recipe": values})


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
