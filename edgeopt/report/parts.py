"""A report goes in; scores by class, label or target come out, of the baseline and the recommended variant."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeopt.report.model import Report
from edgeopt.report.words import printable
from edgeopt.vocabulary import Breakdown

# What a row is told by, the first that there is; targets in their own spread where all have one, or the one in pixels
# hides the one in metres.
_MEASURES = ("iou", "f1", "ap", "spread", "rmse")
_ERRORS = ("spread", "rmse")
_SINGULAR = {"classes": "class", "labels": "label", "targets": "target"}
# More rows help nobody; those that lost most stay.
_MOST_ROWS = 20
_ROW, _LEFT, _WIDTH, _TOP = 18, 150, 420, 22
_CHARACTERS = 20
# Room for the numbers of a row.
_NUMBERS = 150
_HEIGHT = 120
_LARGEST_MATRIX = 12


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
        measure: of _MEASURES.
        before, after: names of the variants.
        rows: in their own order.
        left_out: how many rows lost less than those that are told.
        mistakes: which class is taken for which how much more often than before, most first.
        output: which one it is of, where there are several.
        confusion: of the variant after, how many of each class are taken for each; () of many.
    """

    kind: str
    measure: str
    before: str
    after: str
    rows: tuple[Part, ...]
    left_out: int
    mistakes: tuple[str, ...]
    output: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def title(self) -> str:
        """What the section is called."""
        return f"{self.kind.capitalize()} by {self.kind}{f' of {self.output}' if self.output else ''}"

    @property
    def called(self) -> str:
        """The measure as people write it."""
        names = {"iou": "IoU", "ap": "average precision", "spread": "RMSE, as a share of its spread,"}
        return names.get(self.measure, self.measure.upper())

    def text(self, value: float | None) -> str:
        """Returns a score as people read it."""
        return "not defined" if value is None else format(value, ".4g" if self.measure == "rmse" else ".1%")


def parts(report: Report) -> tuple[Parts, ...]:
    """Returns the score by part, of each output that has several parts."""
    baseline, best = report.variant(report.baseline), report.variant(report.best)
    if baseline is None or best is None:
        return ()
    names = (baseline.name, best.name)
    ours = {one.output: one.breakdown for one in best.outputs}
    pairs = [("", baseline.breakdown, best.breakdown)]
    pairs += [(one.output, one.breakdown, ours.get(one.output)) for one in baseline.outputs]
    found = (_parts(output, names, *pair) for output, *pair in pairs)
    return tuple(one for one in found if one is not None)


def _parts(output: str, names: tuple[str, str], first: Breakdown | None, second: Breakdown | None) -> Parts | None:
    if first is None or second is None:
        return None
    if first.names != second.names or len(first.names) < 2:
        return None
    found = ((name, _column(first, name), _column(second, name)) for name in _MEASURES)
    measure, before, after = next((one for one in found if one[1] and one[2]), ("", (), ()))
    if not measure:
        return None
    rows = [
        Part(name, first.counts[n] if first.counts else None, had, has, _worse(measure, had, has))
        for n, (name, had, has) in enumerate(zip(first.names, before, after))
    ]
    told = set(sorted(range(len(rows)), key=lambda n: -rows[n].worse)[:_MOST_ROWS])
    kept = tuple(row for n, row in enumerate(rows) if n in told)
    confusion = second.confusion if len(second.confusion) <= _LARGEST_MATRIX else ()
    left_out = len(rows) - len(kept)
    return Parts(_SINGULAR[first.of], measure, *names, kept, left_out, _mistakes(first, second), output, confusion)


def _column(found: Breakdown, measure: str) -> tuple[float | None, ...]:
    """Returns a measure of each part; () where there is none."""
    if measure != "spread":
        return tuple(found.columns.get(measure, ()))
    explained = [value for value in found.columns.get("r2", ()) if value is not None]
    return tuple(math.sqrt(1 - value) for value in explained) if len(explained) == len(found.names) else ()


@dataclass(frozen=True)
class Spread:
    """Where the scores of the ordinary and of anomalies lie.

    Attributes:
        variant: whose.
        output: which one, where there are several.
        edges: where columns begin, as they are written.
        rows: name to the share of each column.
    """

    variant: str
    output: str
    edges: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]


def spreads(report: Report) -> tuple[Spread, ...]:
    """Returns where scores lie, of the recommended variant."""
    best = report.variant(report.best)
    if best is None:
        return ()
    every = (("", best.breakdown), *((one.output, one.breakdown) for one in best.outputs))
    found = []
    for output, told in every:
        if told is not None and told.of == "scores":
            shares = zip(*told.columns.values())
            rows = {name: tuple(value or 0.0 for value in row) for name, row in zip(told.names, shares)}
            found.append(Spread(best.name, output, tuple(told.columns), rows))
    return tuple(found)


def spread_svg(found: Spread) -> str:
    """Returns the histogram: outlined bars of the first row, filled ones of the second."""
    count = len(found.edges)
    step = _WIDTH / count
    most = max((value for row in found.rows.values() for value in row), default=0.0) or 1.0
    label = f"Reconstruction errors of {found.variant}: {' and '.join(found.rows)}"
    drawn = [
        f'<svg viewBox="0 0 {_WIDTH + 40} {_HEIGHT + 40}" width="{_WIDTH + 40}" role="img" '
        f'aria-label="{html.escape(printable(label))}">'
    ]
    for place, (name, row) in enumerate(found.rows.items()):
        style = 'fill="currentColor" fill-opacity="0.75"' if place else 'fill="none" stroke="currentColor"'
        for number, (edge, value) in enumerate(zip(found.edges, row)):
            high = round(value / most * _HEIGHT, 1)
            x = round(20 + number * step + place * step / 2, 1)
            words = html.escape(printable(f"{name} from {edge}: {value:.1%}"))
            drawn.append(
                f'<rect x="{x}" y="{round(_HEIGHT + 8 - high, 1)}" width="{step / 2 - 3:.1f}" height="{high}" {style}>'
                f"<title>{words}</title></rect>"
            )
    for number in range(0, count, 3):
        edge = html.escape(printable(found.edges[number]))
        drawn.append(f'<text x="{round(20 + number * step, 1)}" y="{_HEIGHT + 26}">{edge}</text>')
    return "\n".join([*drawn, "</svg>"])


def svg(found: Parts) -> str:
    """Returns a line for each part from its score before to its score after."""
    height = _TOP + _ROW * len(found.rows) + 6
    values = [value for row in found.rows for value in (row.before, row.after) if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if found.measure not in _ERRORS:
        high = 1.0
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / span * _WIDTH, 1)

    label = f"{found.called} of each {found.kind}, {found.before} and {found.after}"
    drawn = [
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + _NUMBERS} {height}" width="{_LEFT + _WIDTH + _NUMBERS}" role="img" '
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
            f'<text x="{_LEFT + _WIDTH + 16}" y="{y + 4}">{found.text(row.before)} → {found.text(row.after)}</text>'
        )
    return "\n".join([*drawn, "</svg>"])


def _worse(measure: str, before: float | None, after: float | None) -> float:
    if before is None or after is None:
        return 0.0
    return after - before if measure in _ERRORS else before - after


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
