"""A model, data and settings go in; recipes are tried until they are enough, and the front of them comes out.

Nothing that was finished is lost, however it ends: files and scores lie in the workspace's store, and what was tried in
the study's database.
"""

from __future__ import annotations

import bisect
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import files, frameworks, measuring, progress
from edgeopt.carry_out import BASELINE, carry_out, promised
from edgeopt.carry_out import Outcome as CarriedOut
from edgeopt.data import Dataset
from edgeopt.errors import EdgeoptError, ModelError
from edgeopt.ladder.climbing import Climbed
from edgeopt.pipeline import write_up
from edgeopt.recipe import Recipe, from_values, to_values, write_recipe
from edgeopt.search.choosing import Choice, chosen, excesses, is_constant, limits, unknown
from edgeopt.search.hands import Ended, Hands, Here
from edgeopt.search.on_ray import OnRay
from edgeopt.search.result import Point, Tuned, write_tuned
from edgeopt.search.sampling import SAMPLERS, chosen_sampler, spread
from edgeopt.search.settings import Search, SearchSettings, checked
from edgeopt.search.space import Known, Space
from edgeopt.search.study import Drawn, Outcome, Study
from edgeopt.search.trying import RECOVERABLE, Address, Rule, kept
from edgeopt.store import MARKER, digest
from edgeopt.vocabulary import Variant
from edgeopt.workspace import Workspace

# Trials that a median is taken of, at least; as in Optuna's MedianPruner.
_ENOUGH = 5
# Trials that failed before one worked: then it is not the trials.
_ALL_FAIL = 5
_POLL_S = 0.5
# Of the trials, what the schemes without a step may be at most to be tried first.
_PLAIN = 0.1
# Points of a front that are timed and run everywhere at the end: each is a process of its own, and all take turns.
MOST_TIMED = 12
_WAITS = "Another search works in this folder: waiting until it ends."
_LOCK, DATABASE = "search.lock", "study.db"


def tune(
    model: Path,
    data: Dataset,
    *,
    output: Path,
    settings: SearchSettings,
    force: bool = False,
    commands: Sequence[str] = (),
) -> Tuned:
    """Tries recipes of a space until they are enough, and returns those that no other is shown to beat.

    The same call goes on where it was stopped.

    Args:
        model: see `pipeline.optimize`.
        data: calibrates, trains and scores; trials are compared on its tuning part, validation is scored once.
        output: a folder; receives front/*.yaml, the recipe of each point of the front, study.json and study.html, and
            report.{html,json,md}, variants/*.tflite and best.tflite of the front.
        settings: everything else.
        force: write into a folder that holds other files.
        commands: the command lines that reproduce the search, for the report.

    Raises:
        EdgeoptError: the model, data or space cannot be used, the study is of something else, or not one trial could
            be made.
    """
    began = time.monotonic()
    search = checked(settings)
    for needed in ("optuna",) if search.settings.ray is None else ("optuna", "ray"):
        frameworks.load(needed)
    files.require_free(output, force=force, made_by_us=MARKER)
    files.require_writable(output)
    model, output = model.absolute(), output.absolute()
    # Whoever leads a search is alone in its folder: what an earlier one left running there is nobody's.
    with files.locked(output / MARKER / _LOCK, busy=lambda: progress.announce(_WAITS)):
        progress.tell("loading", 0, 1)
        with Workspace(model, data, output, search.settings) as workspace:
            warnings = _loaded(workspace)
            space = search.space(_known(workspace))
            # A study of something else is refused before anything is scored; none is begun of what cannot be scored.
            is_begun = search.settings.storage is not None or (output / MARKER / DATABASE).exists()
            if not is_begun:
                _require_baseline(workspace)
            study = Study(
                search.settings.storage or f"sqlite:///{output / MARKER / DATABASE}",
                search.settings.study or output.name,
                identity=_identity(search, space, workspace),
                objectives=search.settings.objectives,
                folder=str(output),
            )
            if is_begun:
                _require_baseline(workspace)
        study.first(first_trials(search, space), space)
        progress.tell("loading", 1, 1)
        address = Address(model, data, output, _conditions(search), search.settings.objectives, search.target)
        ended = Leader(search, study, space, began).lead(_hands(search, address))
        choice = chosen(study.trials, search.settings.objectives, search.budgets)
        if not choice.front:
            raise ModelError(f"Not one trial could be made and measured. {_why(study)}")
        with Workspace(model, data, output, search.settings) as workspace:
            return _told(search, workspace, study, choice, ended=ended, warnings=warnings, commands=commands)


# --- before ----------------------------------------------------------------------------------------------------------


def first_trials(search: Search, space: Space) -> tuple[Mapping[str, Any], ...]:
    """Returns what to draw before anything is known: each scheme without a step, and what lies evenly in the space.

    Of few trials the plain schemes would be too many: there they are a part of what lies evenly.
    """
    trials, plain = search.settings.trials, space.plain()
    if trials is not None and len(plain) > _PLAIN * trials:
        plain = ()
    share = SAMPLERS[_sampler(search)].evenly
    return (*plain, *spread(space, trials, search.base.seed, share=share, besides=len(plain)))


def _sampler(search: Search) -> str:
    settings = search.settings
    return chosen_sampler(settings.sampler, settings.trials, settings.objectives)


def _loaded(workspace: Workspace) -> tuple[str, ...]:
    """Loads what came in, and returns what is remarked on it; of what cannot be used nothing is left."""
    _ = workspace.runtime, workspace.summary
    return workspace.warnings


def _known(workspace: Workspace) -> Known:
    untrainable = ""
    try:
        survey = workspace.survey()
    except ModelError as error:
        survey, untrainable = workspace.survey(layers=False), str(error)
    data = workspace.data
    return Known(
        survey.facts,
        survey.properties,
        untrainable=untrainable,
        has_labels=data.training.has_labels,
        has_training=len(data.training) > 0,
        has_calibration=len(data.calibration) > 0,
    )


def _require_baseline(workspace: Workspace) -> None:
    """Raises EdgeoptError where the model as it came cannot be converted, or not be scored."""
    baseline = workspace.converted(workspace.original, BASELINE)
    if baseline.error is not None:
        raise ModelError(f"Expected a model that can be converted, got one that cannot: {baseline.error}")
    score = workspace.score(baseline, workspace.data.deciding)
    if isinstance(score, EdgeoptError):
        raise score


def _identity(search: Search, space: Space, workspace: Workspace) -> dict[str, str]:
    """Returns what a study is of."""
    settings = search.settings
    return {
        "model": workspace.original.content,
        "data": datasets.fingerprint(workspace.data),
        "metric": digest({"metric": workspace.metric_content, "tasks": settings.tasks}),
        "objectives": ", ".join(settings.objectives),
        "target": "" if search.target is None else digest({"target": search.target}),
        "space": digest(
            {
                "base": to_values(space.base),
                "schemes": space.schemes,
                "training": space.training,
                "places": space.places,
            }
        ),
    }


def _conditions(search: Search) -> SearchSettings:
    """Returns the conditions of trials: all that is said of a search but what only its leader needs."""
    return replace(search.settings, recipe=None)


def _hands(search: Search, address: Address) -> Hands:
    workers, cluster = search.settings.workers, search.settings.ray
    return Here(address, workers) if cluster is None else OnRay(address, workers, cluster)


# --- trials ----------------------------------------------------------------------------------------------------------


class Leader:
    """Draws recipes, gives them to processes, and notes what came of them.

    Args:
        search: what is asked for.
        study: remembers the trials.
        space: what is drawn from.
        began: of the whole command, by `time.monotonic`.
    """

    def __init__(self, search: Search, study: Study, space: Space, began: float) -> None:
        self._search, self._study, self._space = search, study, space
        settings = search.settings
        self._sampler = _sampler(search)
        self._deadline = None if settings.time_s is None else began + settings.time_s
        self._running: dict[int, tuple[Drawn, float]] = {}
        self._tried_out = False
        # Scores after each step, in order, of the trials that were looked at so far.
        self._scores: dict[int, list[float]] = defaultdict(list)
        self._seen = 0

    def lead(self, hands: Hands) -> str:
        """Makes trials until they are enough, and returns why they ended; see `Tuned`."""
        try:
            return self._led(hands)
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            hands.close()
            self._study.give_up()

    def _led(self, hands: Hands) -> str:
        self._tell()
        while True:
            self._begin(hands)
            if not self._running:
                return "trials" if self._enough() else "space" if self._tried_out else "time"
            ended = hands.take(_POLL_S)
            self._study.alive()
            if ended is not None:
                self._note(ended)
            elif self._late():
                return "time"
            self._tell()

    def _begin(self, hands: Hands) -> None:
        """Gives a trial to every process that has none, while trials are wanted."""
        for hand in range(hands.count):
            if hand in self._running or self._enough() or self._late() or self._tried_out:
                continue
            drawn = self._study.draw(self._space, self._sampler, self._search.base.seed, self._search.budgets)
            if drawn is None:
                self._tried_out = True
                return
            self._running[hand] = drawn, time.monotonic()
            hands.give(hand, drawn.recipe, self._rule())

    def _enough(self) -> bool:
        most = self._search.settings.trials
        return most is not None and self._study.tried + len(self._running) >= most

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _note(self, ended: Ended) -> None:
        drawn, begun = self._running.pop(ended.hand)
        seconds = time.monotonic() - begun
        measured, study = ended.measured, self._study
        if ended.lost:
            outcome = Outcome("lost", ended.lost, seconds=seconds)
        elif measured is None:
            outcome = Outcome("failed", ended.failed, seconds=seconds)
        else:
            outcome = Outcome("stopped" if measured.stopped else "done", measured.stopped, measured, seconds)
        constraints = {} if measured is None else excesses(measured, self._search.budgets)
        study.done(drawn, outcome, constraints)
        states = study.states
        ran = states.total() - states["again"] - states["impossible"]
        if ran == _ALL_FAIL and not states["done"] + states["stopped"]:
            raise ModelError(f"Not one of the first {_ALL_FAIL} trials could be made. {_why(study)}")

    def _rule(self) -> Rule:
        """Returns when a trial that begins now is given up."""
        pruner, budget = self._search.settings.pruner, self._search.budgets.max_drop
        if pruner == "none":
            return Rule(rolled_back=False)
        most = None if budget is None else budget + RECOVERABLE
        return Rule(True, most, self._medians() if pruner == "median" else {})

    def _medians(self) -> dict[str, float]:
        """Returns what half of the trials had after each step, as of Optuna's MedianPruner."""
        for trial in self._study.trials[self._seen :]:
            found = trial.outcome.measured
            for number, score in enumerate(found.scores if found and trial.outcome.state == "done" else ()):
                bisect.insort(self._scores[number], score)
        self._seen = len(self._study.trials)
        halves = {str(number): (some, len(some) // 2) for number, some in self._scores.items() if len(some) >= _ENOUGH}
        return {
            n: some[half] if len(some) % 2 else (some[half - 1] + some[half]) / 2 for n, (some, half) in halves.items()
        }

    def _tell(self) -> None:
        running = f"{len(self._running)} at work" if len(self._running) > 1 else ""
        progress.tell("trials", self._study.tried, self._search.settings.trials, running)


def _why(study: Study) -> str:
    """Returns what most trials failed of."""
    words = [trial.outcome.words for trial in study.trials if trial.outcome.state in ("failed", "lost", "stopped")]
    return statistics.mode(words) if words else "None was run."


# --- after -----------------------------------------------------------------------------------------------------------


def _told(
    search: Search,
    workspace: Workspace,
    study: Study,
    choice: Choice,
    *,
    ended: str,
    warnings: Sequence[str],
    commands: Sequence[str],
) -> Tuned:
    """Scores the front on samples that no trial has seen, and writes all that is to be told."""
    outcome, recipes = _front(search, workspace, choice)
    outcome = replace(outcome, notes=_notes(study, choice, ended))
    outcome, said = measuring.measured(
        workspace,
        outcome,
        promises=promised(search.base),
        target=search.target,
        wholly=lambda variants: _some([variant.name for variant in variants]),
    )
    whole = replace(search.base, budgets=search.budgets)
    found = Climbed(outcome, None, recipes, said)
    report = write_up(workspace, whole, found, warnings=warnings, commands=commands)
    points = []
    for number, (trial, (name, recipe)) in enumerate(zip(choice.front, recipes.items()), start=1):
        file = f"front/{number}.yaml"
        files.atomic_write(workspace.folder / file, write_recipe(recipe))
        assert trial.outcome.measured is not None
        points.append(Point(number, trial.number, name, file, to_values(recipe), trial.outcome.measured))
    _remove_older(workspace.folder, len(points))
    tuned = Tuned(
        report,
        search.settings.objectives,
        limits(search.budgets),
        tuple(points),
        tuple(study.trials),
        ended=ended,
        kept=choice.kept,
        obstacle=choice.obstacle,
        study=study.name,
        storage=study.address,
        sampler=_sampler(search),
    )
    write_tuned(tuned, workspace.folder)
    return tuned


def _front(search: Search, workspace: Workspace, choice: Choice) -> tuple[CarriedOut, dict[str, Recipe]]:
    """Returns the files of a front, from the store, and by their names the recipes that make them again."""
    baseline: Variant | None = None
    variants: list[Variant] = []
    references: dict[str, Variant] = {}
    recipes: dict[str, Recipe] = {}
    for number, trial in enumerate(progress.track(choice.front, "making the front", len(choice.front)), start=1):
        recipe = from_values(trial.recipe)
        made = carry_out(recipe, workspace)
        baseline = baseline or made.variants[0]
        variant = kept(made)
        name = f"{number}.{variant.name}"
        variants.append(replace(variant, name=name))
        recipes[name] = replace(recipe, budgets=search.budgets)
        if variant.name in made.references:
            references[name] = made.references[variant.name]
    assert baseline is not None
    return CarriedOut((baseline, *variants), references=references), recipes


def _some(names: Sequence[str]) -> set[str]:
    """Returns the first, the float baseline, and as many of the others, evenly among them, as are timed."""
    first, *others = names
    if len(others) <= MOST_TIMED:
        return set(names)
    return {first, *(others[i * (len(others) - 1) // (MOST_TIMED - 1)] for i in range(MOST_TIMED))}


def _notes(study: Study, choice: Choice, ended: str) -> tuple[str, ...]:
    notes = []
    if is_constant(study.trials):
        notes.append("every file has the same score: quality tells nothing apart, the front is by the rest")
    for name, count in unknown(study.trials, study.objectives).items():
        notes.append(f"{name} is not known of {count} of {study.states['done']} files: there they count as the worst")
    if ended == "space":
        notes.append(f"every recipe that was found in the space was tried: {study.tried} of them")
    if len(choice.front) > MOST_TIMED:
        notes.append(f"{MOST_TIMED} of the front's {len(choice.front)} points were timed and run on all runtimes")
    if choice.obstacle:
        notes.append(f"no trial keeps every budget: {choice.obstacle}")
    return tuple(notes)


def _remove_older(folder: Path, count: int) -> None:
    """Removes what an earlier, larger front has left."""
    for file in (folder / "front").glob("*.yaml"):
        if file.stem.isdigit() and int(file.stem) > count:
            file.unlink()
