"""A report goes in; the same with the variant to ship, and why, comes out.

No decision rests on noise: variants whose difference the measurements do not show are equal, and then the one that
runs in more places is taken, then the one whose loss is surer, then the simpler one, then the smaller. A loss is the
surer the less of it chance leaves open: a file that changes few of the float model's answers is seldom one that only
seems to be good, and so a worse choice is made more seldom than by the losses as measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeopt.report import Report, broken_budgets
from edgeopt.report.fidelity import problem as problem_words
from edgeopt.report.verdict import as_chosen, broken, smaller
from edgeopt.report.words import AIMS, Numbers
from edgeopt.vocabulary import DEFAULT_MAX_DROP, Gain, StepRecord, Variant

# Medians of one file differ by up to so much from one run of a command to the next, on a machine that others share.
LEAST_DOUBT = 0.2


def recommended(measured: Report) -> Report:
    """Returns the report with the variant to ship, and why; by the scores on the tuning samples where there are such.

    Of the variants that work on the report's runtime and keep every budget, the one with the smallest product of size
    and latency, both relative to the float baseline, or its equal that is to be preferred; where none keeps all, of
    those that come nearest. The latency is the target's where it is known there of any of them, and then of those
    alone. Without a budget for the loss, one that loses more than DEFAULT_MAX_DROP is only taken where no other keeps
    the budgets. So is one that is shown to have lost something against float32, and that is said.
    Further formats have the same numbers in them: what is recommended is of the first.
    """
    report = as_chosen(measured)
    undone = rolled_back(report.steps)
    forms = [variant.primary.format for variant in report.variants if variant.primary]
    made = [v for v in report.variants if v.primary and v.primary.format == forms[0] and v.name not in undone]
    if not made:
        return measured
    made = [variant for variant in made if _works(report, variant)] or made
    strict = report
    if report.budgets.max_drop is None and any(variant.drop for variant in made):
        strict = replace(report, budgets=replace(report.budgets, max_drop=DEFAULT_MAX_DROP))
    keeping = [variant for variant in made if not broken_budgets(report, variant)]
    near = [variant for variant in keeping if not broken_budgets(strict, variant)]
    bounded = report.budgets.max_drop is not None
    sound = [variant for variant in near if not _lost(variant, bounded=bounded)]
    sought = sound or near or keeping or _nearest(report, made)
    left = _known_there(report, sought)
    equal = _equals(report, left)
    preferences = {variant.name: _preference(strict, variant) for variant in equal}
    best = min(equal, key=lambda variant: preferences[variant.name])
    reason = _reason(report, (len(keeping), len(near), len(sound), len(left)), best, preferences)
    return replace(measured, best=best.name, best_reason=reason + (f"; but {lost}" if (lost := _lost(best)) else ""))


def rolled_back(steps: Sequence[StepRecord]) -> frozenset[str]:
    """Returns the names of variants that show a step which was undone."""
    return frozenset(step.after for step in steps if step.rolled_back)


def _works(report: Report, variant: Variant) -> bool:
    rows = [row for row in variant.runtimes if row.name == report.runtime]
    return all(row.loads and row.matches_reference is not False for row in rows)


def _lost(variant: Variant, *, bounded: bool = False) -> str:
    """Returns in words what a variant is shown to have lost against float32; "" for a faithful one.

    Args:
        variant: with its fidelity.
        bounded: a budget says which loss of the score is allowed: that alone counts for it.
    """
    if (found := variant.fidelity) is None:
        return ""
    told = (problem for problem in found.problems if not (bounded and problem.what == "score"))
    return " ".join(problem_words(problem, found) for problem in told)


def _nearest(report: Report, variants: Sequence[Variant]) -> list[Variant]:
    """Returns the variants that come nearest to budgets that none keeps: one of them little may break more of them than
    one that is far from a single one.

    As near are those that the samples do not show to lose more; of all these, the ones whose loss is surest.
    """
    found = {variant.name: broken(report, variant) for variant in variants}
    whole = {name: sum(one.over for one in those) for name, those in found.items()}
    rest = {name: sum(one.over for one in those if one.lacks is not Gain.QUALITY) for name, those in found.items()}
    nearest = min(variants, key=lambda variant: whole[variant.name])
    near = [
        variant
        for variant in variants
        if whole[variant.name] <= whole[nearest.name] + LEAST_DOUBT
        or (rest[variant.name] <= rest[nearest.name] and not _shown_to_lose_more(variant, nearest))
    ]
    least = min(_open_loss(report, variant) for variant in near)
    return [variant for variant in near if _open_loss(report, variant) <= least + LEAST_DOUBT]


def _shown_to_lose_more(variant: Variant, other: Variant) -> bool:
    return variant.drop is None or other.drop is None or variant.drop.exceeds(other.drop.value)


def _open_loss(report: Report, variant: Variant) -> float:
    """Returns what chance does not rule out of a loss beyond what may be lost, in times of that, of one point at least;
    0 where it is shown to be kept, and where nothing bounds it."""
    limit = report.budgets.max_drop
    if limit is None or variant.name == report.baseline:
        return 0.0
    if variant.drop is None:
        return math.inf
    return max(0.0, variant.drop.most - limit) / max(limit, 1.0)


def _known_there(report: Report, variants: list[Variant]) -> list[Variant]:
    """Returns those whose latency on the target is known, all where it is of none or does not count: what this machine
    takes tells nothing of another."""
    known = [variant for variant in variants if _target_ms(variant) is not None]
    return variants if _aim(report) == "size" else known or variants


def _target_ms(variant: Variant) -> float | None:
    return None if variant.on_target is None else variant.on_target.latency_ms


def _aim(report: Report) -> str:
    return (report.climb and report.climb.aim) or "balance"


def _cost(report: Report, variant: Variant) -> float:
    """Returns what is to be small: of size and latency what the run aims at."""
    size, time = 1.0 / (smaller(report, variant) or 1.0), _time(report, variant)
    return {"size": size, "latency": time, "balance": size * time}[_aim(report)]


def _time(report: Report, variant: Variant) -> float:
    """Returns the latency on the target, or relative to the baseline's, by the fastest runs: what others do on the
    machine adds to a median, and not to these.
    """
    if (there := _target_ms(variant)) is not None:
        return there
    baseline = report.variant(report.baseline)
    ours, theirs = report.latency(variant), report.latency(baseline) if baseline else None
    if ours is None or theirs is None:
        return 1.0
    mine, other = (ours.min, theirs.min) if ours.min and theirs.min else (ours.p50, theirs.p50)
    return mine / other if mine > 0 and other > 0 else 1.0


def _equals(report: Report, variants: Sequence[Variant]) -> list[Variant]:
    """Returns the cheapest and those whose cost differs no more than by the machine's doubt: sizes are exact,
    latencies are not.

    Where the doubt ends is itself not known to the per cent. The bound is put into the widest gap that the costs leave
    there: so none lies so near to it that the next run of the same command would put it on the other side.
    """
    costs = {variant.name: _cost(report, variant) for variant in variants}
    least = min(costs.values()) or 1.0
    if _aim(report) == "size":
        return [variant for variant in variants if costs[variant.name] == least]
    clocked = [v for v in variants if costs[v.name] < 2 * least and _target_ms(v) is None]
    near = [latency for variant in clocked if (latency := report.latency(variant))]
    doubt = max([LEAST_DOUBT, *(latency.noise or 0.0 for latency in near)])
    low, high = 1 + doubt / 2, 1 + 2 * doubt
    marks = [low, *sorted(cost / least for cost in costs.values() if low < cost / least < high), high]
    below, above = max(itertools.pairwise(marks), key=lambda pair: pair[1] / pair[0])
    bound = math.sqrt(below * above) * least
    return [variant for variant in variants if costs[variant.name] <= bound]


def _preference(report: Report, variant: Variant) -> tuple[float, ...]:
    """Returns what is compared among equals, the smaller the better: places it does not run, what chance leaves open of
    its loss as far as that counts, steps, bytes, and at last the least of such a loss."""
    elsewhere = sum(row.loads and row.matches_reference is not False for row in variant.runtimes)
    loss = _open_loss(report, variant)
    counts = loss // LEAST_DOUBT
    return (-elsewhere, counts, len(variant.steps), variant.size_bytes or 0, loss, report.variants.index(variant))


def _reason(
    report: Report, counts: tuple[int, int, int, int], best: Variant, preferences: Mapping[str, tuple[float, ...]]
) -> str:
    """Returns why a variant was chosen, of how many that keep the budgets, lose little, have lost nothing shown, and
    can be compared; `preferences` are those of all its equals by name."""
    keeping, near, sound, left = counts
    if not keeping:
        return "none keeps every budget; this one comes nearest"
    allowance, count = Numbers.of(report).allowance(DEFAULT_MAX_DROP), left
    keeps, loses, are, have = ("keeps", "loses", "is", "has") if count == 1 else ("keep", "lose", "are", "have")
    asked = report.budgets.bound or report.budgets.runtimes or report.target
    condition = f"{keeps} every budget" if asked else f"{'was' if count == 1 else 'were'} made"
    condition += f" and {loses} at most {allowance}" if 0 < near < keeping else ""
    condition += f" and {are} faithful to float32" if 0 < sound < near else ""
    condition += f" and {have} a known latency on {report.target}" if left < (sound or near or keeping) else ""
    doubt = "" if near else f"; it loses more than {allowance}"
    if count == 1:
        return f"the only one that {condition}{doubt}"
    others = [name for name in preferences if name != best.name]
    there = _target_ms(best) is not None and _aim(report) != "size"
    how = AIMS[_aim(report)] + (f" on {report.target}" if there else "")
    if others:
        ours, *theirs = (preferences[name] for name in (best.name, *others))
        surer = "whose loss is surer"
        ways = ("that runs in more places", surer, "with fewer steps", "that is smaller", surer, "that comes first")
        way = next(way for way, *values in zip(ways, ours, *theirs) if any(v != values[0] for v in values))
        how += f", or its equal within the measurements' doubt ({', '.join(others)}): the one {way}"
    return f"of the {count} that {condition}, {how}{doubt}"
