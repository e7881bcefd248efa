"""A workspace, budgets and an aim go in; what was found on the way up the ladder, and why no further, comes out.

A loop around `carry_out` on one workspace: recipes that begin alike share their work. What a rung is worth is decided
on the samples that choices are made on, and what chance may explain decides nothing.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edgeopt import __version__, measuring, progress, schemes, targets
from edgeopt.carry_out import BASELINE, Outcome, carry_out, promised
from edgeopt.data import Part
from edgeopt.errors import EdgeoptError
from edgeopt.evaluation import Evaluation
from edgeopt.front import exact, front
from edgeopt.ladder.costs import Costs, trained
from edgeopt.ladder.merging import fresh, joined
from edgeopt.ladder.obstacles import obstacles
from edgeopt.ladder.rungs import FOUR_BITS, RUNGS, Rung, Situation, needs, touches_model
from edgeopt.ladder.wanted import Doubt, doubt, lacking
from edgeopt.outlook import stages
from edgeopt.recipe import Recipe
from edgeopt.recommendation import recommended, rolled_back
from edgeopt.report import ModelFacts, Report
from edgeopt.report.verdict import as_chosen, broken
from edgeopt.report.words import Numbers, seconds
from edgeopt.schemes import SCHEMES, scheme
from edgeopt.steps import DEFAULTS, Training
from edgeopt.techniques import Need, technique
from edgeopt.vocabulary import AIMS, DEFAULT_MAX_DROP, Climb, Gain, Interval, RungRecord, Variant
from edgeopt.workers import TimeIsUp, until
from edgeopt.workspace import Workspace

# Kept for what is measured and written after the last rung, until it is known what that takes here.
_LEAST_RESERVE_S = 10.0
_OVER = "the time was over"
_TOO_LONG = "what was not begun takes longer than the time that is left"
# What a variant that lacks it is.
_TOO = {
    Gain.QUALITY: "too much",
    Gain.BYTES: "too large",
    Gain.LATENCY: "too slow",
    Gain.RAM: "too much RAM",
    Gain.RUNS: "does not run there",
}
_NEED_WORDS = {
    Need.TRAINING: "there are no training samples (--train-data)",
    Need.LABELS: "there are no labels",
    Need.CALIBRATION: "there are no samples to calibrate with (--calibration-data)",
}


@dataclass(frozen=True)
class Aim:
    """How far to climb.

    Attributes:
        gain: key of AIMS: what to gain beyond the budgets; "" to stop where they are kept.
        time_s: what the whole command may take; None for as long as it takes.
        began: when it began, of `time.monotonic`.
    """

    gain: str = ""
    time_s: float | None = None
    began: float = 0.0


@dataclass(frozen=True)
class Climbed:
    """What was found.

    Attributes:
        outcome: every variant, measured.
        climb: how it was come by; None where a recipe said it.
        recipes: name of a variant → the recipe that makes it.
        said: what is to be said of the machine.
    """

    outcome: Outcome
    climb: Climb | None
    recipes: dict[str, Recipe]
    said: tuple[str, ...] = ()


@dataclass
class _Done:
    """What was done on a rung so far; see `RungRecord`."""

    told_s: float = 0.0
    took_s: float = 0.0
    made: list[str] = field(default_factory=list)
    came_to: list[str] = field(default_factory=list)
    skipped: str = ""


# What is told after every rung, so that the best so far is always on disk.
Keep = Callable[[Climbed], object]


def climb(workspace: Workspace, asked: Recipe, aim: Aim, *, keep: Keep = lambda climbed: None) -> Climbed:
    """Climbs the ladder as far as the budgets ask, or, with an aim, as far as it gains.

    Args:
        workspace: where everything is made.
        asked: schemes, budgets, target, training and seed; it has no steps.
        aim: how far.
        keep: is called with all that was found after every rung.

    Raises:
        EdgeoptError: the model or data cannot be used, or not one variant could be made.
    """
    climber = _Climber(workspace, asked, aim, keep)
    climber.first(RUNGS[0])
    try:
        for rung in RUNGS[1:]:
            if climber.ended:
                break
            with until(time.monotonic() + climber.left_s()):
                climber.try_rung(rung)
    except TimeIsUp:
        climber.stop("time", _OVER)
    except KeyboardInterrupt:
        climber.stop("interrupted", "it was interrupted")
    return climber.finish()


class _Climber:
    """Where on the ladder one is, and what was found there."""

    def __init__(self, workspace: Workspace, asked: Recipe, aim: Aim, keep: Keep) -> None:
        self._workspace, self._asked, self._aim, self._keep = workspace, asked, aim, keep
        self._target = None if asked.target is None else targets.target(asked.target)
        self._outcome = Outcome(())
        self._recipes: dict[str, Recipe] = {}
        self._records: list[RungRecord] = []
        self._said: tuple[str, ...] = ()
        self._begun: list[Recipe] = []
        self.ended, self._why = "", ""
        self._for_want_of_time = False
        # Without an aim, time that was said is for what the budgets ask; without budgets for both.
        self._gains = AIMS[aim.gain] if aim.gain else frozenset()
        self._clocked = asked.budgets.max_latency_ms is not None or Gain.LATENCY in self._gains

    # --- the rungs -------------------------------------------------------------------------------------------------

    def first(self, rung: Rung) -> None:
        """Converts in every scheme, or in as many as there is time for; one is always made, however short it is."""
        began = time.monotonic()
        progress.foresee(stages(self._asked, samples=0, measured=True))
        asked, short = self._schemes_in_time(began)
        outcome = carry_out(asked, self._workspace)
        outcome = measuring.translated(self._workspace, outcome, asked.formats)
        most = outcome.variants[-1].name
        self._outcome, self._said = measuring.measured(
            self._workspace,
            outcome,
            promises=promised(asked),
            target=self._target,
            wholly=(lambda variants: {BASELINE, most}) if short else None,
            clocked=not short,
        )
        self._said += _one_label(self._workspace.data.deciding)
        self._recipes = {variant.name: self._asked for variant in self._outcome.variants}
        took = time.monotonic() - began
        made = tuple(variant.name for variant in self._outcome.variants)
        best = self._recommended()
        record = RungRecord(rung.name, rung.summary, None, took, made, best.best or "", came_to=self._judged(made))
        self._records.append(record)
        self._decide()
        if short:
            self.stop("time", f"there was no time for {', '.join(short)}")
        elif self._aim.time_s is not None and took > self._aim.time_s:
            self.stop(
                "time", f"the schemes alone took {seconds(took)}, more than the {seconds(self._aim.time_s)} there were"
            )
        self._keep(self._climbed())

    def _schemes_in_time(self, began: float) -> tuple[Recipe, tuple[str, ...]]:
        """Returns what is asked for with the schemes that are converted in half of the time, the integers first, and
        the others; where nothing is bounded, with all of them."""
        asked, time_s = self._asked, self._aim.time_s
        if time_s is None:
            return asked, ()
        made: list[str] = []
        others = [name for name in asked.schemes if name != BASELINE] or [BASELINE]
        for name in sorted(others, key=lambda name: name != _first_of(others, self._target)):
            if made and time.monotonic() - began > time_s / 2:
                break
            carry_out(replace(asked, schemes=(name,)), self._workspace)
            made.append(name)
        left = tuple(name for name in others if name not in made)
        return replace(asked, schemes=tuple(name for name in asked.schemes if name not in left)), left

    def try_rung(self, rung: Rung) -> None:
        """Climbs one rung, or notes why not; decides whether to go on."""
        if self.left_s() <= 0:
            self.stop("time", _OVER)
            return
        situation = self._situation()
        if why := self._idle(rung, situation):
            self._records.append(RungRecord(rung.name, rung.summary, skipped=why))
            return
        done = _Done()
        try:
            self._try_all(rung, situation, done)
            if not self.ended and self._just_too_large(done.made):
                self._try_all(rung, self._situation(), done)
        finally:  # whatever ends it, what was begun is told of
            if done.told_s:
                self._records.append(self._record(rung, done))
        if not done.told_s:
            self._records.append(RungRecord(rung.name, rung.summary, skipped=done.skipped or "nothing to try here"))
            return
        self._keep(self._climbed())

    def _try_all(self, rung: Rung, situation: Situation, done: _Done) -> None:
        """Tries the candidates of a rung, until one ends the climb or is shown to lose too much."""
        for recipe in rung.candidates(situation):
            if recipe in self._begun:
                continue
            fitting, why = self._fitting(recipe)
            if fitting is None:
                done.skipped = why
            elif self._tried(rung, recipe, fitting, done) or self._tried_longer(rung, recipe, fitting, done):
                break

    def _tried_longer(self, rung: Rung, recipe: Recipe, fitting: Recipe, done: _Done) -> bool:
        """Tries a shortened training again, where it nearly did and turned out to leave time for twice as much.

        Returns whether that ends the rung.
        """
        if fitting == recipe or not self._nearly_does(done.made):
            return False
        longer, _ = self._fitting(recipe)
        if longer is None or self._costs.steps(longer) < 2 * self._costs.steps(fitting):
            return False
        return self._tried(rung, recipe, longer, done)

    def _nearly_does(self, names: Sequence[str]) -> bool:
        """Whether the last file loses too much, lacks nothing else, and chance does not rule out that it lost less."""
        report = self._strict()
        last, limit = report.variant(names[-1] if names else None), report.budgets.max_drop
        if last is None or last.drop is None or limit is None:
            return False
        lacks = [found.lacks for found in broken(report, last)]
        return lacks == [Gain.QUALITY] and not last.drop.exceeds(limit)

    def _just_too_large(self, names: Sequence[str]) -> bool:
        """Whether a file was cut for the budget and lacks nothing but a few bytes: a little deeper it may keep it."""
        report = self._strict()
        cut = [v for v in report.variants if v.name in names and _is_cut(v)]
        return any([found.lacks for found in broken(report, variant)] == [Gain.BYTES] for variant in cut)

    def _fitting(self, recipe: Recipe) -> tuple[Recipe | None, str]:
        """Returns a recipe as there is time for it; None, and why, where it is not to be begun."""
        if why := self._missing(recipe) or self._needless(recipe):
            return None, why
        left = self.left_s()
        fitting = self._costs.shortened(recipe, left)
        if fitting is not None:
            return fitting, ""
        self._for_want_of_time = True
        there = f"{seconds(left)} are left" if left > 0 else "no time is left"
        return None, f"{recipe.name} may take {seconds(self._costs.of(recipe))}, and {there}"

    def _tried(self, rung: Rung, recipe: Recipe, fitting: Recipe, done: _Done) -> bool:
        """Carries a recipe out and adds what came of it to `done`; returns whether it was the last one of its rung."""
        self._begun.append(recipe)
        cost = self._costs.of(fitting)
        progress.foresee(stages(fitting, samples=self._costs.samples, measured=False))
        progress.announce(f"{rung.name}, {recipe.name}: may take {seconds(cost)}")
        began = time.monotonic()
        done.told_s += cost
        try:
            names, said = self._carried_out(fitting)
        except TimeIsUp:
            done.came_to.append(f"{recipe.name} was ended when the time was over")
            self.stop("time", _OVER)
            return True
        except KeyboardInterrupt:
            done.came_to.append(f"{recipe.name} was interrupted")
            raise
        except EdgeoptError as error:
            done.came_to.append(f"{recipe.name} could not be done: {error}")
            return False
        finally:
            done.took_s += time.monotonic() - began
        took = time.monotonic() - began
        self._costs.learn(fitting, took)
        done.made += names
        done.came_to += [*_shortened_words(recipe, fitting), *said]
        progress.announce(f"  took {seconds(took)}; the best so far is {self._recommended().best}")
        self._decide()
        return bool(self.ended) or self._is_shown_to_lose(names)

    def stop(self, ended: str, why: str) -> None:
        """Notes why the ladder is not climbed any further."""
        self.ended, self._why = ended, why

    def finish(self) -> Climbed:
        """Returns all that was found; what may be recommended is timed once more, all taking turns."""
        if not self.ended:
            if self._for_want_of_time:
                self.stop("time", _TOO_LONG)
            else:
                self.stop("top", self._at_the_top())
        there = {record.name for record in self._records}
        rest = [RungRecord(r.name, r.summary, skipped=self._why) for r in RUNGS if r.name not in there]
        self._records += rest
        if self.ended != "interrupted" and len(self._records) - len(rest) > 1:
            chosen = [v for v in self._outcome.variants if v.runtimes and v.file]
            progress.tell("timing")
            again, said = measuring.timed(self._workspace, chosen)
            self._said += said
            self._outcome = joined(self._outcome, Outcome(tuple(again)))
        return self._climbed(final=True)

    # --- what is known ------------------------------------------------------------------------------------------------

    def _carried_out(self, recipe: Recipe) -> tuple[list[str], list[str]]:
        """Carries a recipe out and measures what is new; returns the names, and what came of it in words."""
        made = carry_out(recipe, self._workspace)
        new = fresh(self._outcome, made)
        baseline = next(v for v in self._outcome.variants if v.name == BASELINE)
        measured, _ = measuring.measured(
            self._workspace,
            replace(new, variants=(baseline, *new.variants)),
            promises=promised(recipe),
            target=self._target,
            wholly=self._contenders,
            clocked=self._clocked,
        )
        # The baseline is known from the first rung, with all variants of which it was timed.
        variants = (v if v.runtimes or not v.file else _scored_only(v) for v in measured.variants[1:])
        measured = replace(measured, variants=tuple(variants))
        self._outcome = joined(self._outcome, measured)
        names = [variant.name for variant in measured.variants]
        self._recipes |= dict.fromkeys(names, recipe)
        undone = [f"{r.technique} was rolled back: {r.rolled_back}" for r in measured.records if r.rolled_back]
        return names, [*undone, *self._judged(names, recipe.name)]

    def _contenders(self, new: Sequence[Variant]) -> list[str]:
        """Returns the names of new variants that may be recommended: nothing of their kind is shown to beat them.

        What computes alike is as fast as it has arithmetic; so the measuring does not grow with the ladder.
        """
        names: list[str] = []
        old = [variant for variant in self._outcome.variants if variant.runtimes and variant.file]
        for kind in {_kind(variant) for variant in new if variant.file}:
            of_kind = {v.name: v for v in (*old, *new) if v.file and _kind(v) == kind}
            points = [_point(variant) for variant in of_kind.values()]
            names += [list(of_kind)[i] for i in front(points)]
        there = {variant.name for variant in new}
        undone = rolled_back(self._outcome.records)
        return [name for name in names if name in there and name not in undone and name != BASELINE]

    def _recommended(self) -> Report:
        return recommended(self._report())

    def _report(self) -> Report:
        """Returns what is known as a report, with the one point that nobody has to lose where no loss is allowed."""
        budgets = self._asked.budgets
        return Report(
            __version__,
            "",
            ModelFacts(str(self._workspace.original.file)),
            target=None if self._target is None else self._target.name,
            budgets=budgets,
            runtime=self._workspace.runtime.runtime.name,
            steps=self._outcome.records,
            variants=self._outcome.variants,
            baseline=BASELINE,
            climb=Climb(self._aim.gain),
        )

    def _strict(self) -> Report:
        """Returns the report as choices see it, with a bound for the loss."""
        report, budgets = as_chosen(self._report()), self._asked.budgets
        known = any(variant.drop for variant in report.variants)
        if budgets.max_drop is None and known:
            budgets = replace(budgets, max_drop=DEFAULT_MAX_DROP)
        undone = rolled_back(report.steps)
        made = tuple(v for v in report.variants if v.file and v.name not in undone)
        return replace(report, budgets=budgets, variants=made, steps=())

    def _situation(self) -> Situation:
        report = self._strict()
        base = self._base(report)
        return Situation(
            replace(self._asked, formats=()),
            lacking(report, base, in_doubt=self._doubt(report) is not None) | self._gains,
            self._workspace.survey(layers=False).facts,
            base,
            None if base.drop is None else base.drop.value,
            report.bounded_ms(base),
            self._target,
            frozenset(found.lacks for found in broken(report, base)),
            self._four_bits_lose(report),
            self._missed_by(report),
            frozenset(SCHEMES if self._asked.schemes == schemes.DEFAULTS else self._asked.schemes),
        )

    def _four_bits_lose(self, report: Report) -> str:
        """Says that weights of four bits alone are shown to lose too much, "" where they are not."""
        limit = report.budgets.max_drop
        known = [
            v.drop
            for v in report.variants
            if v.scheme == FOUR_BITS and v.drop and not any(technique(s).acts_on == "model" for s in v.steps)
        ]
        best = min(known, key=lambda drop: drop.value, default=None)
        if limit is None or best is None or not best.exceeds(limit):
            return ""
        return f"weights of four bits alone lose {Numbers.of(report).loss_with_doubt(best)}"

    def _missed_by(self, report: Report) -> dict[str, float]:
        """Returns by scheme how many times larger than the budget the smallest file is that was cut for it."""
        limit, found = report.budgets.max_size_bytes, dict[str, float]()
        for variant in report.variants:
            if limit and variant.size_bytes and _is_cut(variant):
                times = variant.size_bytes / limit
                found[variant.scheme] = min(times, found.get(variant.scheme, times))
        return {name: times for name, times in found.items() if times > 1}

    def _base(self, report: Report) -> Variant:
        """Returns the model as it came in the integers that suit the target, or else in what comes first."""
        plain = {v.scheme: v for v in report.variants if not v.steps}
        integers = [name for name in plain if scheme(name).algorithm and not scheme(name).is_low_bit]
        calibrated = [name for name in integers if scheme(name).needs_calibration]
        order = [*_preferred(self._target), *calibrated, *integers, *plain]
        return next(plain[name] for name in order if name in plain)

    def _doubt(self, report: Report) -> Doubt | None:
        return None if self._asked.budgets.max_drop is None else doubt(report, self._base(report))

    def _decide(self) -> None:
        """Ends the climb where the budgets are kept and no more was asked for.

        A loss that is kept as measured is kept; where a better file could also be shown to keep it, one is looked for.
        """
        report = self._strict()
        if self._gains or all(broken(report, v) for v in report.variants):
            return
        open_loss, best = self._doubt(report), self._recommended().best
        as_it_is = best != BASELINE and any(v.name == BASELINE and not broken(report, v) for v in report.variants)
        too = f", as {BASELINE} does" if as_it_is and self._asked.budgets.max_size_bytes is not None else ""
        if open_loss is None:
            self.stop("met", f"{best} keeps every budget{too}, and no more was asked for")
        elif not open_loss.can_be_shown:
            self.stop("met", f"{best} keeps every budget{too} as measured: {open_loss.words}")

    def _at_the_top(self) -> str:
        report = self._strict()
        if any(not broken(report, v) for v in report.variants):
            open_loss = self._doubt(report)
            return "every rung that may gain something was tried" + (f"; {open_loss.words}" if open_loss else "")
        tried = [record for record in self._records[1:] if not record.skipped]
        return "every rung that may bring what lacks was tried" if tried else "no rung may bring what lacks"

    def _idle(self, rung: Rung, situation: Situation) -> str:
        """Says why a rung is not begun, "" where it is."""
        if not rung.brings & situation.lacking:
            brings = " and ".join(gain.value for gain in Gain if gain in rung.brings)
            lacking = " and ".join(gain.value for gain in Gain if gain in situation.lacking)
            return f"it brings {brings}, and what {'is wanted' if self._gains else 'lacks'} is {lacking}"
        return rung.idle(situation)

    def _missing(self, recipe: Recipe) -> str:
        """Says what a recipe needs that is not there, "" where all is."""
        data, facts = self._workspace.data, self._workspace.survey(layers=False).facts
        if touches_model(recipe) and facts.untrainable:
            return facts.untrainable
        there = {
            Need.TRAINING: len(data.training) > 0,
            Need.LABELS: data.training.has_labels or not len(data.training),
            Need.CALIBRATION: len(data.calibration) > 0,
        }
        return next((_NEED_WORDS[need] for need in needs(recipe) if there.get(need) is False), "")

    def _needless(self, recipe: Recipe) -> str:
        """Says that a training is not worth it, where it would only show what is kept as measured."""
        report = self._strict()
        open_loss = self._doubt(report)
        if not trained(recipe) or self._gains or open_loss is None:
            return ""
        only = "nothing is trained only to show a loss that is kept as measured"
        if self._aim.time_s is None:
            return f"{only}; --time lets it"
        if open_loss.is_near:
            return f"{only} by a file that changes no more answers than plain integers do"
        kept = [v.name for v in report.variants if not broken(report, v)]
        if any(trained(self._recipes[name]) for name in kept):
            return f"{only} by a file that was trained"
        return ""

    def _is_shown_to_lose(self, names: Sequence[str]) -> bool:
        """Whether what a recipe came to is shown to lose more than may be lost: a deeper cut would lose more."""
        report = self._strict()
        limit, last = report.budgets.max_drop, report.variant(names[-1] if names else None)
        return limit is not None and last is not None and last.drop is not None and last.drop.exceeds(limit)

    def _judged(self, names: Sequence[str], recipe: str = "") -> tuple[str, ...]:
        """Returns what variants came to, one sentence each; names alone do not tell how deep a cut was."""
        report = self._strict()
        numbers = Numbers.of(report)
        found = []
        for variant in report.variants:
            if variant.name not in names or variant.name == BASELINE:
                continue
            lacks = dict.fromkeys(_TOO[one.lacks] for one in broken(report, variant))
            loss = "" if variant.drop is None else f", {numbers.moved(variant.drop)}"
            named = f"{variant.name} ({recipe})" if recipe and _is_cut(variant) else variant.name
            found.append(f"{named}: {variant.size_bytes:,} bytes{loss}: {'; '.join(lacks) or 'keeps every budget'}")
        return tuple(found)

    # --- time ---------------------------------------------------------------------------------------------------------

    def left_s(self) -> float:
        """Returns the seconds that are left for rungs; what comes after the last one is not among them."""
        if self._aim.time_s is None:
            return float("inf")
        return self._aim.began + self._aim.time_s - time.monotonic() - self._reserve_s()

    def _reserve_s(self) -> float:
        taken = self._workspace.seconds
        files = max(1, len(self._records) and len(self._records[0].made))
        contenders = sum(1 for v in self._outcome.variants if v.runtimes) + 2
        return max(_LEAST_RESERVE_S, taken.get("time", 0.0) / files * contenders * 1.5)

    @functools.cached_property
    def _costs(self) -> Costs:
        """What things take, by what the first rung took."""
        taken, files = self._workspace.seconds, max(1, len(self._outcome.variants))
        tried = sum(taken.get(name, 0.0) for name in ("score", "fidelity", "runtimes", "target", "layers"))
        data = self._workspace.data
        return Costs(
            len(data.training),
            len(self._workspace.survey(layers=False).facts.weights),
            lambda: self._workspace.pace(self._asked.training.over(DEFAULTS)),
            answering_s=self._answering_s(data.deciding),
            file_s=max(1.0, taken.get("convert", 0.0) / files),
            tried_s=max(1.0, tried / files),
        )

    def _answering_s(self, part: Part) -> float:
        baseline = next((v for v in self._outcome.variants if v.name == BASELINE and v.file), None)
        score = None if baseline is None else self._workspace.score(baseline, part)
        return score.seconds / max(1, score.samples) if isinstance(score, Evaluation) else 1e-3

    # --- what is told -------------------------------------------------------------------------------------------------

    def _record(self, rung: Rung, done: _Done) -> RungRecord:
        best = self._recommended().best or ""
        made, came_to = tuple(done.made), tuple(done.came_to)
        return RungRecord(rung.name, rung.summary, done.told_s, done.took_s, made, best, came_to=came_to)

    def _climbed(self, *, final: bool = False) -> Climbed:
        report = self._strict()
        lacks = all(broken(report, variant) for variant in report.variants)
        nearest = report.variant(self._recommended().best) if final and lacks else None
        stands = () if nearest is None else obstacles(report, nearest, self._workspace.folder)
        found = Climb(self._aim.gain, self._aim.time_s, tuple(self._records), self.ended, self._why, stands)
        return Climbed(self._outcome, found, dict(self._recipes), self._said)


def _first_of(names: Sequence[str], target: targets.Target | None) -> str:
    """Returns the scheme that is worth most where there is time for one."""
    return next((name for name in _preferred(target) if name in names), names[0])


def _preferred(target: targets.Target | None) -> tuple[str, ...]:
    """Returns the schemes to begin with, the better first."""
    return ("int8",) if target is None else (target.best_scheme, "int8")


def _is_cut(variant: Variant) -> bool:
    return any(technique(step).changes_architecture for step in variant.steps)


def _kind(variant: Variant) -> tuple[str, ...]:
    """Returns what a file computes with: those of one kind are as fast as they have arithmetic."""
    row = scheme(variant.scheme)
    form = variant.primary.format if variant.primary else ""
    return form, row.activations, str(row.dynamic)


def _point(variant: Variant) -> tuple[Interval, ...]:
    drop = variant.tuning_drop or variant.drop
    value = 0.0 if drop is None or math.isnan(drop.value) else drop.value
    loss = Interval(value, value, value) if drop is None or drop.low is None else Interval(value, drop.low, drop.most)
    ram = variant.on_target.ram_bytes if variant.on_target else None
    return (loss, exact(variant.size_bytes or 0), exact(variant.macs or 0), exact(ram or 0))


def _one_label(part: Part) -> tuple[str, ...]:
    """Says that no loss can show on samples of which all have the same label."""
    ids = part.ids()
    if ids is None or len(set(ids.tolist())) != 1:
        return ()
    return (f"all {len(part):,} samples that choices are made on have one label: no loss can show on them",)


def _scored_only(variant: Variant) -> Variant:
    return replace(variant, notes=(*variant.notes, "scored only: it was undone, or what computes alike beats it"))


def _shortened_words(whole: Recipe, fitting: Recipe) -> list[str]:
    if whole == fitting:
        return []
    (before, after) = (max((training for _, training in trained(one)), key=_epochs) for one in (whole, fitting))
    few = "" if after.train_samples in (None, before.train_samples) else f" on {after.train_samples:,} samples"
    epochs = "epoch" if after.epochs == 1 else "epochs"
    return [f"{whole.name} had {after.epochs} {epochs}{few} in place of {before.epochs}: what there was time for"]


def _epochs(training: Training) -> int:
    return training.epochs or 0
