"""A recipe and the address of a workspace go in; what was measured of the file that it makes comes out.

This is all that leaves the process or the machine: whoever can open the workspace's folder can take a trial.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeopt import files, formats, measuring
from edgeopt.carry_out import BASELINE, Outcome, carry_out, promised
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError
from edgeopt.evaluation import Evaluation
from edgeopt.front import exact
from edgeopt.recipe import Recipe
from edgeopt.recommendation import LEAST_DOUBT
from edgeopt.store import MARKER
from edgeopt.targets import Target
from edgeopt.vocabulary import Difference, Interval, MetricValue, Variant
from edgeopt.workspace import Conditions, Workspace

# What is sought, each smaller by its own measure but for quality, and its unit.
OBJECTIVES = {
    "quality": "the score on the samples that choices are made on",
    "size": "bytes of the file",
    "latency": "milliseconds of one inference: the target's, or measured on this machine",
    "ram": "bytes of RAM on the target",
}
# The model as it came, and the one that the last step made.
_MODELS_HELD = 2
# Points, or per cent, that steps which are left may win back.
RECOVERABLE = 5.0
# One file at a time is timed, however many processes work in the folder.
_TIMING_LOCK = "timing.lock"


@dataclass(frozen=True)
class Address:
    """Where trials are made: all that opens the workspace anew, in any process that reaches its folder.

    Attributes:
        model, data, folder, conditions: see `Workspace`; the paths are whole ones.
        objectives: keys of OBJECTIVES that are measured.
        target: the device that files are judged for.
    """

    model: Path
    data: Dataset
    folder: Path
    conditions: Conditions
    objectives: tuple[str, ...]
    target: Target | None = None


@dataclass(frozen=True)
class Rule:
    """When a trial is given up after a step that is not its last.

    Attributes:
        rolled_back: where the step was: what is left is another recipe.
        most_lost: points, or per cent, that may be lost beyond chance.
        least: by number of the step, from 0, the score that trials had after theirs; whoever is worse is given up.
    """

    rolled_back: bool = True
    most_lost: float | None = None
    least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a trial found.

    Attributes:
        variant: its name.
        sha256: of the file.
        metric, drop: on the samples that choices are made on; the loss is against the float baseline.
        costs: by objective, smaller is better: how much worse the score is, bytes, milliseconds, bytes.
        latency_how: "measured", "simulated", "estimated" or "".
        problems: why the file is of no use where it is meant to run.
        notes: what became of the steps.
        scores: after each step, in the metric's own unit.
        stopped: why it was given up before its last step, "" where it was not.
    """

    variant: str
    sha256: str
    metric: MetricValue
    drop: Difference | None
    costs: Mapping[str, Interval]
    latency_how: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    stopped: str = ""


class Bench:
    """A workspace that stays open for one trial after the other.

    Args:
        address: of the workspace.
        share: number of this process and how many there are: each takes its share of the cores.
    """

    def __init__(self, address: Address, share: tuple[int, int] = (0, 1)) -> None:
        take_share(*share)
        self._address = address
        self._workspace = Workspace(address.model, address.data, address.folder, address.conditions, held=_MODELS_HELD)

    def ready(self) -> None:
        """Raises ConfigError where the workspace's folder is not to be reached from this process."""
        folder = self._address.folder
        if not (folder / MARKER).is_dir():
            raise ConfigError(
                f"Expected {folder} to be a folder that {platform.node()} reaches too, got none there. Try -o on a "
                "file system that all machines share."
            )

    def measure(self, recipe: Recipe, rule: Rule) -> Measured:
        """Carries out a recipe of one scheme, step by step, and measures the file that comes out.

        Raises:
            EdgeoptError: it cannot be carried out, or its file not be measured.
        """
        workspace, scores = self._workspace, []
        for end in range(len(recipe.steps)):
            # What recipes begin with is in the store: every beginning costs only its last step.
            outcome = carry_out(replace(recipe, steps=recipe.steps[: end + 1]), workspace)
            found = self._measured(recipe, outcome, whole=end + 1 == len(recipe.steps))
            scores.append(found.metric.value)
            if end + 1 == len(recipe.steps):
                return replace(found, scores=tuple(scores))
            if why := _hopeless(found, outcome, end, rule):
                return replace(found, scores=tuple(scores), stopped=f"after {recipe.step_name(end)}: {why}")
        return self._measured(recipe, carry_out(recipe, workspace), whole=True)

    def _measured(self, recipe: Recipe, outcome: Outcome, *, whole: bool) -> Measured:
        """Returns what is known of the file that a recipe comes to; without `whole` its score and size alone."""
        workspace = self._workspace
        baseline, variant = outcome.variants[0], kept(outcome)
        if variant.error is not None or variant.size_bytes is None:
            raise ConfigError(f"There is no {variant.scheme} file: {variant.error}")
        part = workspace.data.deciding
        ours, theirs = workspace.score(variant, part), workspace.score(baseline, part)
        if not isinstance(ours, Evaluation):
            raise ours
        drop = ours.difference(theirs) if isinstance(theirs, Evaluation) and variant is not baseline else None
        costs = {"quality": _lost(drop), "size": exact(variant.size_bytes)}
        notes = [f"{r.technique} was rolled back: {r.rolled_back}" for r in outcome.records if r.rolled_back]
        found = Measured(variant.name, str(variant.sha256), ours.metric, drop, costs, notes=tuple(notes))
        return self._on_runtimes(recipe, found, outcome, variant) if whole else found

    def _on_runtimes(self, recipe: Recipe, found: Measured, outcome: Outcome, variant: Variant) -> Measured:
        """Adds what a target, the promised runtimes and the clock say."""
        workspace, target, baseline = self._workspace, self._address.target, outcome.variants[0]
        costs, how = dict(found.costs), ""
        problems: list[str] = []
        if target is not None:
            (judged,) = measuring.judged_on_target(workspace, [variant], target)
            on_target = judged.on_target
            assert on_target is not None
            problems += on_target.problems
            if on_target.ram_bytes is not None:
                costs["ram"] = exact(on_target.ram_bytes)
            if on_target.latency_ms is not None:
                costs["latency"], how = exact(on_target.latency_ms), on_target.latency_how
        promises = promised(recipe)
        timing = "latency" in self._address.objectives and target is None
        if promises or timing:
            (variant,) = measuring.tried_on_runtimes(
                workspace, [variant], promises, references=outcome.references, everywhere=False
            )
            for row in variant.runtimes:
                if not row.loads:
                    problems.append(f"does not run on {row.name}: {row.reason}")
                elif row.matches_reference is False:
                    problems.append(f"computes something else on {row.name}")
        if timing and not problems:
            with files.locked(self._address.folder / MARKER / _TIMING_LOCK):
                timed, _ = measuring.timed(workspace, [baseline, variant] if variant.name != BASELINE else [baseline])
            latency = timed[-1].latency_on(
                workspace.runtime_for(formats.format_of(_file(workspace, variant)).name).runtime.name
            )
            if latency is not None:
                doubt = max(LEAST_DOUBT, latency.noise or 0.0)
                costs["latency"] = Interval(latency.p50, latency.p50 * (1 - doubt), latency.p50 * (1 + doubt))
                how = "measured"
        return replace(found, costs=costs, problems=tuple(problems), latency_how=how)

    def close(self) -> None:
        """Ends the processes that worked for it."""
        self._workspace.close()


def kept(outcome: Outcome) -> Variant:
    """Returns the file that a recipe of one scheme comes to: of its last step that was not rolled back."""
    names = [record.after for record in outcome.records if not record.rolled_back]
    plain = outcome.variants[min(1, len(outcome.variants) - 1)]
    return next((v for v in outcome.variants if names and v.name == names[-1]), plain)


def _file(workspace: Workspace, variant: Variant) -> Path:
    return workspace.folder / str(variant.file)


def _lost(drop: Difference | None) -> Interval:
    if drop is None:
        return exact(0.0)
    low, high = (drop.value if end is None else end for end in (drop.low, drop.high))
    return Interval(drop.value, low, high)


def _hopeless(found: Measured, outcome: Outcome, number: int, rule: Rule) -> str:
    record = outcome.records[-1]
    if rule.rolled_back and record.rolled_back:
        return f"it was rolled back ({record.rolled_back}), and what is left is another recipe"
    lost = found.costs["quality"]
    if rule.most_lost is not None and lost.low > rule.most_lost:
        return f"{lost.value:.2f} lost, more than the budget and what later steps win back ({rule.most_lost:g})"
    least = rule.least.get(str(number))
    if least is not None and _worse(found.metric, least):
        return f"{found.metric.name} {found.metric.value:.4g} is worse than most had there ({least:.4g})"
    return ""


def _worse(metric: MetricValue, least: float) -> bool:
    return metric.value < least if metric.higher_is_better else metric.value > least


def take_share(number: int, of: int) -> None:
    """Keeps this process, and all that it starts, to its share of the cores, where the system knows how."""
    if of < 2 or not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores(sorted(os.sched_getaffinity(0)), number, of))


def cores(there: Sequence[int], number: int, of: int) -> tuple[int, ...]:
    """Returns the cores of process `number` of so many: as even a division as there is, at least one."""
    return tuple(there[number % of :: of]) or (there[number % len(there)],)
