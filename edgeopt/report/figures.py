"""The figures of the report as geometry: a report goes in; marks, ticks and polylines in SVG units come out.

The template draws them, so that they follow the page's colours, light or dark, and their text stays text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from edgeopt.front import exact, front
from edgeopt.report.model import Report
from edgeopt.report.verdict import broken_budgets
from edgeopt.report.words import MINUS, Numbers, decibel, printable, shortened, size, whole
from edgeopt.vocabulary import Variant

# Ratio of largest to smallest from which an axis is logarithmic.
_LOG_FROM = 8.0
# Mean advance of a character of the figures' sans-serif, 11.5 units high.
_CHARACTER = 6.1
_LABEL_CHARACTERS = 24
_MAX_KINDS = 6
# Dots in the layer plot from which only the recommended variant's are drawn.
_CROWD = 300


class Tick(NamedTuple):
    """A tick's position in SVG units and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A scale from values to SVG units; `start` is where `low` lies."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the position of `value`, kept within the axis."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = (math.log(value) if value > 0 else low) if self.log else value
        return round(self.start + (self.end - self.start) * min(max((value - low) / (high - low), 0), 1), 1)

    def holds(self, value: float) -> bool:
        """Whether `value` lies on the axis."""
        return self.low <= value <= self.high

    def ticks(self, text: Callable[[float], str]) -> list[Tick]:
        """Returns round values along the axis."""
        return [Tick(self(value), text(value)) for value in _round_values(self.low, self.high, log=self.log)]


@dataclass(frozen=True)
class Mark:
    """One variant in a scatter plot: its centre, its error bars' ends, its label, and the words shown on hover.

    `role` is "best", "baseline", "kept" or "broken".
    """

    name: str
    role: str
    x: float
    y: float
    x_bar: tuple[float, float]
    y_bar: tuple[float, float]
    words: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Scatter:
    """A cost against the metric, with the front of what no other variant beats."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    front: str
    front_names: list[str]
    x_budget: float | None
    y_budget: float | None
    width: int = 480
    height: int = 330
    left: int = 42
    right: int = 466
    top: int = 26
    bottom: int = 284


@dataclass(frozen=True)
class Line:
    """One variant's noise along the model: polylines (broken where nothing was measured) and its worst tensor."""

    name: str
    role: str
    dash: str
    pieces: list[str]
    points: list[tuple[float, float, str]]
    worst: tuple[float, float, str]
    label_y: float


@dataclass(frozen=True)
class LayerPlot:
    """Signal to noise by position in the model, a line for each variant; a crowd is drawn fainter, without dots."""

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    crowded: bool = False
    width: int = 980
    height: int = 300
    left: int = 36
    right: int = 830
    top: int = 26
    bottom: int = 254


class Segment(NamedTuple):
    """A part of a bar: position of its kind in the legend, the kind, its bytes, its share of the longest bar."""

    colour: int
    kind: str
    size_bytes: int
    percent: float


class Bar(NamedTuple):
    """Where one variant's bytes are."""

    name: str
    size_bytes: int
    segments: list[Segment]


def size_scatter(report: Report, *, named: Collection[str] | None = None) -> Scatter | None:
    """Returns file size against the metric, or None for fewer than two points.

    Args:
        report: its variants are the points.
        named: of those that have a label; all if None.
    """
    costs = {v.name: (float(v.size_bytes),) * 3 for v in report.variants if v.size_bytes}
    limit = report.budgets.max_size_bytes
    return _scatter(report, costs, "Size and quality", "file size", size, limit=limit, named=named)


def latency_scatter(report: Report) -> Scatter | None:
    """Returns latency against the metric, or None for fewer than two points; bars reach from p50 to p90."""
    numbers = Numbers.of(report)
    costs = {v.name: (t.p50, t.p50, t.p90) for v in report.variants if (t := report.latency(v))}
    label = f"median latency on {printable(' or '.join(report.clocks))}"
    scale = 1000 if numbers.time_unit == "µs" else 1

    def text(milliseconds: float) -> str:
        return f"{milliseconds * scale:,.6g} {numbers.time_unit}"

    # What a target may take is no line among what this machine takes.
    limit = None if report.bounds_target else report.budgets.max_latency_ms
    return _scatter(report, costs, "Speed and quality", label, text, limit=limit)


def byte_bars(report: Report) -> tuple[list[str], list[Bar]]:
    """Returns the kinds of bytes, largest first, and for each variant its bar; small kinds beyond six are one."""
    totals: dict[str, int] = {}
    for kind, count in itertools.chain.from_iterable(v.bytes_by_kind.items() for v in report.variants):
        totals[kind] = totals.get(kind, 0) + count
    kinds = sorted((k for k in totals if totals[k] > 0), key=lambda kind: -totals[kind])
    shown = kinds if len(kinds) <= _MAX_KINDS else kinds[: _MAX_KINDS - 1]
    rest = "all else"
    longest = max((sum(v.bytes_by_kind.values()) for v in report.variants), default=0)
    bars = []
    for variant in (v for v in report.variants if sum(v.bytes_by_kind.values()) > 0):
        counts = {kind: variant.bytes_by_kind.get(kind, 0) for kind in shown}
        if len(shown) < len(kinds):
            counts[rest] = sum(variant.bytes_by_kind.get(kind, 0) for kind in kinds[len(shown) :])
        segments = [
            Segment(i, kind, count, round(100 * count / longest, 3))
            for i, (kind, count) in enumerate(counts.items())
            if count > 0
        ]
        bars.append(Bar(variant.name, sum(counts.values()), segments))
    return [*shown, *([rest] if len(shown) < len(kinds) else [])], bars


def tensor_order(report: Report) -> list[str]:
    """Returns every tensor that some variant was compared at, in order of execution as the longest list has it."""
    lists = sorted((v.layer_errors for v in report.variants), key=len, reverse=True)
    return list(dict.fromkeys(error.tensor for errors in lists for error in errors))


def layer_plot(report: Report) -> LayerPlot | None:
    """Returns the noise along the model, or None where fewer than two tensors were compared."""
    order = {tensor: i for i, tensor in enumerate(tensor_order(report))}
    shown = [v for v in report.variants if any(math.isfinite(e.sqnr_db) for e in v.layer_errors)]
    if len(order) < 2 or not shown:
        return None
    values = [e.sqnr_db for v in shown for e in v.layer_errors if math.isfinite(e.sqnr_db)]
    frame = LayerPlot([], [], [])
    x = Axis(0, len(order) - 1, frame.left + 8, frame.right - 8)
    y = Axis(min(0.0, *values), max(*values, 1.0) * 1.05, frame.bottom, frame.top)
    dashes = itertools.cycle(("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4"))
    lines = []
    for variant in shown:
        measured = {e.tensor: e for e in variant.layer_errors if math.isfinite(e.sqnr_db)}
        role = "best" if variant.name == report.best else "other"
        dash = "" if role == "best" else next(dashes)
        points = [
            (x(order[t]), y(e.sqnr_db), f"{variant.name}, {printable(t)}: {decibel(e.sqnr_db)} dB")
            for t, e in sorted(measured.items(), key=lambda item: order[item[0]])
        ]
        pieces = [
            " ".join(f"{x(order[t])},{y(measured[t].sqnr_db)}" for t in run)
            for present, run in itertools.groupby(order, key=measured.__contains__)
            if present
        ]
        worst = min(measured.values(), key=lambda e: e.sqnr_db)
        at = (x(order[worst.tensor]), y(worst.sqnr_db), printable(worst.tensor))
        lines.append(Line(variant.name, role, dash, pieces, points, at, points[-1][1]))
    # The recommended one is drawn last, above the others.
    lines = sorted(_spread(lines, frame), key=lambda line: line.role == "best")
    return replace(
        frame,
        x_ticks=_positions(x, len(order)),
        y_ticks=y.ticks(_plain),
        lines=lines,
        crowded=len(order) * len(lines) > _CROWD,
    )


def _scatter(
    report: Report,
    costs: dict[str, tuple[float, float, float]],
    title: str,
    x_label: str,
    x_text: Callable[[float], str],
    *,
    limit: float | None,
    named: Collection[str] | None = None,
) -> Scatter | None:
    numbers = Numbers.of(report)
    shown = [(v, v.metric) for v in report.variants if v.name in costs and v.metric and math.isfinite(v.metric.value)]
    if len(shown) < 2:
        return None
    scale = 100 if numbers.is_share else 1
    frame = Scatter(title, x_label, "", [], [], [], "", [], None, None)
    x = _axis([c for v, _ in shown for c in costs[v.name]], frame.left, frame.right, limit=limit, from_zero=True)
    finite = [b for _, m in shown for b in (m.value, m.low, m.high) if math.isfinite(b)]
    baseline = report.variant(report.baseline)
    least = _least_metric(report, baseline, numbers)
    y = _axis([scale * b for b in finite], frame.bottom, frame.top, limit=None if least is None else scale * least)
    marks = []
    for variant, metric in shown:
        value, low, high = costs[variant.name]
        y_bar = [y(scale * (b if math.isfinite(b) else metric.value)) for b in (metric.low, metric.high)]
        quality = f"{numbers.metric_name} {numbers.metric(metric.value)} ({numbers.interval(metric)})"
        words = f"{variant.name}: {x_text(value)}, {quality}"
        at = (x(value), y(scale * metric.value))
        marks.append(Mark(variant.name, _role(report, variant), *at, (x(low), x(high)), (y_bar[0], y_bar[1]), words))
    sign = -1 if numbers.higher_is_better else 1
    best = front([(exact(costs[v.name][0]), exact(sign * m.value)) for v, m in shown])
    corners = [f"{marks[i].x},{marks[i].y}" for i in best]
    for before, after in itertools.pairwise(best):
        corners.insert(corners.index(f"{marks[after].x},{marks[after].y}"), f"{marks[after].x},{marks[before].y}")
    unit = ", %" if numbers.is_share else "" if numbers.higher_is_better else " (lower is better)"
    return replace(
        frame,
        x_label=f"{x_label}{' (log scale)' if x.log else ''}",
        y_label=f"{numbers.metric_name}{unit}{', log scale' if y.log else ''}",
        x_ticks=x.ticks(x_text),
        y_ticks=y.ticks(_plain),
        marks=_labelled(marks, frame, named),
        front=" ".join(corners),
        front_names=[shown[i][0].name for i in best],
        x_budget=x(limit) if limit is not None and x.holds(limit) else None,
        y_budget=y(scale * least) if least is not None and y.holds(scale * least) else None,
    )


def _role(report: Report, variant: Variant) -> str:
    if variant.name == report.best:
        return "best"
    if variant.name == report.baseline:
        return "baseline"
    return "broken" if broken_budgets(report, variant) else "kept"


def _least_metric(report: Report, baseline: Variant | None, numbers: Numbers) -> float | None:
    """Returns the metric at which `max_drop` is used up."""
    if report.budgets.max_drop is None or baseline is None or baseline.metric is None:
        return None
    value, drop = baseline.metric.value, report.budgets.max_drop / 100
    if numbers.is_share:
        return value - drop
    return value - drop * abs(value) if numbers.higher_is_better else value + drop * abs(value)


def _axis(
    values: Sequence[float], start: float, end: float, *, limit: float | None = None, from_zero: bool = False
) -> Axis:
    """Returns an axis with room around `values`; a limit that is not far off is shown as well."""
    low, high = min(values), max(values)
    if limit is not None and (low <= limit <= high or min(abs(limit - low), abs(limit - high)) < 0.5 * (high - low)):
        low, high = min(low, limit), max(high, limit)
    if low > 0 and high / low >= _LOG_FROM:
        room = (high / low) ** 0.08
        return Axis(low / room, high * room, start, end, log=True)
    if from_zero and low >= 0:
        return Axis(0.0, high * 1.12 or 1.0, start, end)
    room = 0.08 * (high - low) or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room, start, end)


def _round_values(low: float, high: float, *, log: bool, count: int = 6) -> list[float]:
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            values = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
            if len(values) <= count + 1:
                break
        return values
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.99)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _positions(x: Axis, count: int) -> list[Tick]:
    """Ticks at whole positions, counted from 1."""
    step = max(1, round(_round_values(0, count, log=False, count=10)[1]))
    return [Tick(x(i - 1), str(i)) for i in ([1] if step > 1 else []) + list(range(step, count + 1, step))]


def _plain(value: float) -> str:
    return f"{value:.6g}".replace("-", MINUS)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


def _labelled(marks: list[Mark], frame: Scatter, named: Collection[str] | None = None) -> list[Mark]:
    """Places every label where it hides least; the recommended variant and the baseline choose first."""
    others = [mark for mark in marks if named is not None and mark.name not in named]
    marks = [mark for mark in marks if named is None or mark.name in named]
    taken = [_Box(m.x - 6, m.y - 6, m.x + 6, m.y + 6) for m in marks]
    taken += [_Box(m.x - 2, min(m.y_bar), m.x + 2, max(m.y_bar)) for m in marks]
    inside = _Box(frame.left, frame.top - 8, frame.right + 6, frame.bottom)
    placed: dict[str, Mark] = {}
    for mark in sorted(marks, key=_rank):
        text = shortened(mark.name, _LABEL_CHARACTERS)
        width = _CHARACTER * len(text)
        best: tuple[float, Mark, _Box] | None = None
        for rank, (dx, dy) in enumerate(((9, 4), (-9, 4), (8, -8), (8, 16), (-8, -8), (-8, 16), (9, -22), (9, 30))):
            left = mark.x + dx if dx > 0 else mark.x + dx - width
            box = _Box(left, mark.y + dy - 10, left + width, mark.y + dy + 3)
            outside = width * 13 - box.overlap(inside)
            cost = 0.5 * rank + sum(box.overlap(other) for other in taken) + 4 * outside
            if best is None or cost < best[0]:
                anchor = "start" if dx > 0 else "end"
                best = cost, replace(mark, label=text, label_x=mark.x + dx, label_y=mark.y + dy, anchor=anchor), box
        assert best is not None
        placed[mark.name] = best[1]
        taken.append(best[2])
    # What matters most is drawn last, above the others.
    return [*others, *sorted((placed[m.name] for m in marks), key=_rank, reverse=True)]


def _rank(mark: Mark) -> int:
    return ("best", "baseline", "kept", "broken").index(mark.role)


def _spread(lines: list[Line], frame: LayerPlot) -> list[Line]:
    """Moves the labels at the lines' ends apart, so that none covers another."""
    gap = min(15.0, (frame.bottom - frame.top) / max(1, len(lines)))
    ordered = sorted(lines, key=lambda line: line.label_y)
    heights: list[float] = []
    for line in ordered:
        heights.append(max(line.label_y, heights[-1] + gap if heights else frame.top))
    for i in range(len(heights) - 1, -1, -1):
        ceiling = frame.bottom if i == len(heights) - 1 else heights[i + 1] - gap
        heights[i] = round(min(heights[i], ceiling), 1)
    return [replace(line, label_y=height) for line, height in zip(ordered, heights)]


def bytes_in_words(bar: Bar) -> str:
    """Returns a bar as a sentence, for those who do not see it."""
    parts = ", ".join(f"{printable(s.kind)} {whole(s.size_bytes)}" for s in bar.segments)
    return f"{printable(bar.name)}: {whole(bar.size_bytes)} bytes; {parts}"
