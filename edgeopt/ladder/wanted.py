"""A report goes in, as choices see it; what is still to be brought, and what its samples leave open, come out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.report import Report
from edgeopt.report.verdict import broken
from edgeopt.report.words import Numbers
from edgeopt.statistics import samples_to_show
from edgeopt.vocabulary import Difference, Gain, Variant


@dataclass(frozen=True)
class Doubt:
    """What the samples do not show of a loss that is kept as measured.

    Attributes:
        words: what they show, and how many would show it.
        can_be_shown: whether these samples would show it of a file that loses nothing and changes few answers.
        is_near: whether the file changes no more answers than plain integers do.
    """

    words: str
    can_be_shown: bool
    is_near: bool


def lacking(report: Report, base: Variant, *, in_doubt: bool) -> frozenset[Gain]:
    """Returns what the nearest variants lack; where a loss that is kept as measured is in doubt, quality does.

    What is made on the next rungs begins at the base: while something lacks, what that lacks does as well.
    """
    broken_by = {v.name: frozenset(found.lacks for found in broken(report, v)) for v in report.variants}
    least = [one for one in broken_by.values() if not any(other < one for other in broken_by.values())]
    found = frozenset[Gain]().union(*least, {Gain.QUALITY} if in_doubt else ())
    return found | broken_by[base.name] if found else found


def doubt(report: Report, base: Variant) -> Doubt | None:
    """Returns what the samples do not show of a loss that is kept as measured; None where they show it of one file.

    Args:
        report: with a budget for the loss.
        base: the model as it came in integers: few files change fewer answers.
    """
    limit, kept = report.budgets.max_drop, [v for v in report.variants if not broken(report, v)]
    drops = [(v.drop, v.metric, v.name) for v in kept if v.drop and v.metric]
    if limit is None or not kept or len(drops) < len(kept) or any(drop.most <= limit for drop, _, _ in drops):
        return None
    drop, metric, name = min(drops, key=lambda one: one[0].most)
    numbers, half = Numbers.of(report), drop.most - drop.value
    words = (
        f"on {metric.samples:,} samples {name} {numbers.moved(Difference(drop.value))}, and chance does not rule out "
        f"a loss of {numbers.loss(drop.most)}"
    )
    needed = samples_to_show(half, metric.samples, limit - drop.value)
    if needed is not None:
        words += f"; about {needed:,} samples would show it to be within {numbers.allowance(limit)}"
    plain = half if base.drop is None else base.drop.most - base.drop.value
    return Doubt(words, can_be_shown=min(half, plain) <= limit, is_near=half <= plain)
