"""A report goes in; the score by class, label or target comes out, of the baseline and the recommended variant."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.report.model import Report
from edgeopt.report.words import printable
from edgeopt.vocabulary import Breakdown

# What a row is told by, the first that there is.
_MEASURES = ("iou", "f1", "rmse")
_SINGULAR = {"classes": "class", "labels": "label", "targets": "target"}
# More rows help nobody; those that lost most stay.
_MOST_ROWS = 20
_ROW, _LEFT, _WIDTH, _TOP = 18, 150, 420, 22
_CHARACTERS = 20


@dataclass(frozen=True)
class Part:
    """A row: its name, how many samples or positions are labelled so, and its score before and after.

    Attributes:
        worse: how much the score got worse, in its own unit; 0 where it is not defined for both.
    """

    name: str
    count: int | None
    before: float | None
    after: float | None
    worse: float


@dataclass(frozen=True)
class Parts:
    """What is told of the score by part.

    Attributes:
        kind: "class", "label" or "target".
        measure: "iou", "f1" or "rmse".
        before, after: names of the variants.
        rows: in their own order.
        left_out: how many rows lost less than those that are told.
        mistakes: which class is taken for which how much more often than before, most first.
    """

    kind: str
    measure: str
    before: str
    after: str
    rows: tuple[Part, ...]
    left_out: int
    mistakes: tuple[str, ...]

    def text(self, value: float | None) -> str:
        """Returns a score as people read it."""
        return "not defined" if value is None else format(value, ".4g" if self.measure == "rmse" else ".1%")


def parts(report: Report) -> Parts | None:
    """Returns the score by part; None where there is none, or but one part."""
    baseline, best = report.variant(report.baseline), report.variant(report.best)
    pair = [variant for variant in (baseline, best) if variant is not None and variant.breakdown is not None]
    if len(pair) < 2 or pair[0].breakdown is None or pair[1].breakdown is None:
        return None
    first, second = pair[0].breakdown, pair[1].breakdown
    measure = next((name for name in _MEASURES if name in first.columns and name in second.columns), None)
    if measure is None or first.names != second.names or len(first.names) < 2:
        return None
    rows = [
        Part(name, first.counts[n] if first.counts else None, before, after, _worse(measure, before, after))
        for n, (name, before, after) in enumerate(zip(first.names, first.columns[measure], second.columns[measure]))
    ]
    told = set(sorted(range(len(rows)), key=lambda n: -rows[n].worse)[:_MOST_ROWS])
    kept = tuple(row for n, row in enumerate(rows) if n in told)
    before, after = (variant.name for variant in pair)
    left_out = len(rows) - len(kept)
    return Parts(_SINGULAR[first.of], measure, before, after, kept, left_out, _mistakes(first, second))


def svg(found: Parts) -> str:
    """Returns a line for each part from its score before to its score after."""
    height = _TOP + _ROW * len(found.rows) + 6
    values = [value for row in found.rows for value in (row.before, row.after) if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if found.measure != "rmse":
        high = 1.0
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / span * _WIDTH, 1)

    label = f"{found.measure} of each {found.kind}, {found.before} and {found.after}"
    drawn = [
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" width="{_LEFT + _WIDTH + 20}" role="img" '
        f'aria-label="{html.escape(label)}">',
        f'<text x="{_LEFT}" y="12">{html.escape(found.text(low))}</text>',
        f'<text x="{_LEFT + _WIDTH}" y="12" text-anchor="end">{html.escape(found.text(high))}</text>',
    ]
    for number, row in enumerate(found.rows):
        y = _TOP + _ROW * number + 9
        name = printable(row.name)
        name = name if len(name) <= _CHARACTERS else name[: _CHARACTERS - 1] + "…"
        drawn.append(f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{html.escape(name)}</text>')
        if row.before is None or row.after is None:
            continue
        words = f"{row.name}: {found.text(row.before)}, then {found.text(row.after)}"
        drawn.append(
            f"<g><title>{html.escape(printable(words))}</title>"
            f'<line x1="{x(row.before)}" y1="{y}" x2="{x(row.after)}" y2="{y}" stroke="currentColor" stroke-width="2"/>'
            f'<circle cx="{x(row.before)}" cy="{y}" r="3.5" fill="none" stroke="currentColor"/>'
            f'<circle cx="{x(row.after)}" cy="{y}" r="3.5" fill="currentColor"/></g>'
        )
    return "\n".join([*drawn, "</svg>"])


def _worse(measure: str, before: float | None, after: float | None) -> float:
    if before is None or after is None:
        return 0.0
    return after - before if measure == "rmse" else before - after


def _mistakes(first: Breakdown, second: Breakdown, most: int = 3) -> tuple[str, ...]:
    if not first.confusion or not second.confusion:
        return ()
    more: Sequence[tuple[int, str]] = [
        (count - had, f"{label} is taken for {taken} {count} times instead of {had}")
        for label, before, after in zip(first.names, first.confusion, second.confusion)
        for taken, had, count in zip(first.names, before, after)
        if label != taken and count > had
    ]
    return tuple(words for _, words in sorted(more, key=lambda one: -one[0])[:most])
