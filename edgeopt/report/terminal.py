"""The last screen of a run: a report goes in, a rich table of at most 80 columns comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeopt.report.model import Report
from edgeopt.report.verdict import broken_budgets, faster, rungs_above, smaller
from edgeopt.report.words import ABSENT, SIGNIFICANCE, Numbers, ratio, seconds, shortened, whole
from edgeopt.vocabulary import Variant

if TYPE_CHECKING:
    from rich.table import Table

# Columns of space after each column, and the fewest characters of a variant's name.
_GAP = 2
_SHORTEST_NAME = 8


def terminal_table(report: Report, *, width: int = 80) -> Table:
    """Returns one row a variant: bytes, metric, change, latency and on how many runtimes it ran, or its target.

    A `*` after the change marks a loss beyond chance; the arrow points at the recommended variant. On the target, `~`
    marks a latency that was estimated or simulated, "no" what does not run or fit there. Numbers are never cut: where
    `width` is short, the names give way.
    """
    from rich.table import Table
    from rich.text import Text

    columns = [(header, [text(v) for v in report.variants]) for header, text in _columns(report, Numbers.of(report))]
    taken = sum(_GAP + max(map(len, (header, *cells))) for header, cells in columns)
    room = max(_SHORTEST_NAME, width - taken - _GAP - 1)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for header, _ in columns:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for i, variant in enumerate(report.variants):
        is_best = variant.name == report.best
        style = "bold" if is_best else "dim" if broken_budgets(report, variant) else ""
        texts = (_name(variant, room), *(cells[i] for _, cells in columns))
        table.add_row("→" if is_best else " ", *(Text(text, style) for text in texts))
    return table


def ladder_lines(report: Report, *, width: int = 80) -> list[str]:
    """Returns one line a rung, what it took and what was the best after it, or why it was not begun; then why no more.

    Rungs above the last one are not told of. Empty for a run that climbed none.
    """
    if report.climb is None:
        return []
    shown = [rung for rung in report.climb.rungs if rung not in rungs_above(report)]
    longest = max((len(rung.name) for rung in shown), default=0)
    lines = []
    for rung in shown:
        took = "skipped" if rung.skipped else seconds(rung.took_s or 0.0)
        told = rung.skipped or f"the best so far: {rung.best}"
        lines.append((begun := f"{rung.name:<{longest}}  {took:>11}  ") + shortened(told, max(20, width - len(begun))))
    return [*lines, *([f"Ended: {report.climb.why}."] if report.climb.why else [])]


def _name(variant: Variant, room: int) -> str:
    """Returns a variant's name, the steps cut before the scheme where there is no room for all."""
    scheme = f".{variant.scheme}"
    if len(variant.name) <= room or not variant.name.endswith(scheme) or room < len(scheme) + _SHORTEST_NAME:
        return shortened(variant.name, room)
    return shortened(variant.name.removesuffix(scheme), room - len(scheme)) + scheme


def _columns(report: Report, numbers: Numbers) -> list[tuple[str, Callable[[Variant], str]]]:
    def latency(variant: Variant) -> str:
        measured = report.latency(variant)
        return numbers.time(measured.p50, unit=False) if measured else ABSENT

    def change(variant: Variant) -> str:
        drop = variant.drop
        beyond = drop is not None and drop.p_value is not None and drop.p_value < SIGNIFICANCE and drop.value > 0
        return numbers.change(drop) + ("*" if beyond else " ")

    def runs_on(variant: Variant) -> str:
        tried = [r for r in variant.runtimes if r.status != "skipped"]
        return f"{sum(r.loads for r in tried)}/{len(tried)}" if tried else ABSENT

    columns = [
        ("bytes", lambda v: "failed" if v.error is not None else whole(v.size_bytes)),
        ("smaller", lambda v: ratio(smaller(report, v))),
    ]
    if any(v.metric for v in report.variants):
        unit = " %" if numbers.is_share else ""
        columns.append((f"{shortened(numbers.metric_name, 12)}{unit}", lambda v: _metric(v, numbers)))
        columns.append((f"+/- {'pt' if numbers.is_share else '%'} ", change))
    if any(report.latency(v) for v in report.variants):
        columns += [(numbers.time_unit, latency), ("faster", lambda v: ratio(faster(report, v)))]
    # There is room for one of them, and the target's own runtimes are what counts.
    judged = any(v.on_target for v in report.variants)
    return [*columns, ("target ms", _on_target) if judged else ("runs on", runs_on)]


def _on_target(variant: Variant) -> str:
    """Returns the latency on the target with a mark of how it was found: "~" where it was not measured."""
    found = variant.on_target
    if found is None:
        return ABSENT
    if found.problems:
        return "no"
    if found.latency_ms is None:
        return "fits"
    return f"{'' if found.latency_how == 'measured' else '~'}{found.latency_ms:.3g}"


def _metric(variant: Variant, numbers: Numbers) -> str:
    metric = variant.metric
    return ABSENT if metric is None or math.isnan(metric.value) else numbers.metric(metric.value, unit=False)
