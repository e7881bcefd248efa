"""Numbers in words: sizes, times, metrics and differences go in, the text that every output shares comes out."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.showing.safe import visible
from edgeopt.vocabulary import Difference, Latency, MetricValue, Preprocessing, Promise, Shape, StepRecord, Variant

if TYPE_CHECKING:
    from edgeopt.report.model import Report

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
SIGNIFICANCE = 0.05
# `vocabulary.AIMS` in words.
AIMS = {
    "size": "the smallest one",
    "latency": "the fastest one",
    "balance": "the one with the least size times latency",
}
# Techniques that are no rung of a ladder.
LEFT_OUT = (
    "Pruning and clustering are no rungs: they make no file smaller and no integer model faster, and gain only where "
    "files are stored or sent compressed."
)
# Up to this many samples one of them moves a share by more than half of a tenth of a point.
_ONE_DECIMAL_SAMPLES = 2000


def printable(text: Any) -> str:
    """Returns `text` on one line, without control characters: names come from files that anyone may have written."""
    return visible(" ".join(str(text).split()))


def shortened(text: str, length: int) -> str:
    """Returns `text` on one line, cut with an ellipsis to at most `length` characters."""
    line = printable(text)
    return line if len(line) <= length else line[: length - 1] + "…"


def clause(text: str) -> str:
    """Returns a message as part of a sentence: on one line, without the full stop at its end."""
    return printable(text).rstrip(".")


def whole(number: float | None) -> str:
    """Returns 98496 as "98,496"."""
    return ABSENT if number is None else f"{number:,.0f}"


def ratio(times: float | None) -> str:
    """Returns 3.91 as "3.9×", 12.3 as "12×"."""
    if times is None or math.isnan(times):
        return ABSENT
    digits = f"{times:.1g}" if times < 0.095 else f"{times:.1f}" if times < 9.95 else f"{times:,.0f}"
    return digits + TIMES


def share(value: float | None) -> str:
    """Returns 0.953 as "95 %"."""
    return ABSENT if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def deviation(value: float | None) -> str:
    """Returns a relative spread of 0.034 as "±3.4 %", its half on either side."""
    return ABSENT if value is None or math.isnan(value) else f"±{50 * value:.1f} %"


def decibel(value: float) -> str:
    """Returns 31.42 as "31.4"."""
    return f"{value:.1f}".replace("-", MINUS) if math.isfinite(value) else ABSENT


def shape(dimensions: Shape) -> str:
    """Returns (None, 32, 32, 3) as "? × 32 × 32 × 3"."""
    return f" {TIMES} ".join("?" if size is None else str(size) for size in dimensions) or "scalar"


def size(number: float | None) -> str:
    """Returns 98496 as "98.5 kB" (1 kB = 1000 bytes)."""
    if number is None:
        return ABSENT
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:.3g} {unit}" if number < 1000 * step else f"{number / step:,.0f} {unit}"
    return f"{number:.0f} bytes"


def seconds(value: float) -> str:
    """Returns 83.2 as "1 min 23 s", and 60 as "1 min"."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min" + (f" {rest} s" if rest else "") if minutes else f"{value:.1f} s"


def moment(created: str) -> str:
    """Returns "2026-11-21T10:14:03+00:00" as "2026-11-21 10:14 UTC"; what is no such time stays as it is."""
    try:
        at = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = "" if at.tzinfo is None else " UTC" if not at.utcoffset() else at.strftime(" %z")
    return f"{at:%Y-%m-%d %H:%M}{zone}"


def p_value(value: float) -> str:
    """Returns 0.0031 as "p=0.003"."""
    return "p<0.001" if value < 0.001 else f"p={value:.3f}" if value < 0.1 else f"p={value:.2f}"


def significance(difference: Difference | None) -> str:
    """Returns what a paired test says of a difference, in words; empty where none was made."""
    if difference is None or difference.p_value is None or math.isnan(difference.p_value):
        return ""
    p = p_value(difference.p_value)
    if difference.p_value >= SIGNIFICANCE or difference.value == 0:
        return f"no difference beyond chance, {p}"
    return f"{'worse' if difference.value > 0 else 'better'}, {p}"


def ended_worse(record: StepRecord, before: MetricValue | None) -> str:
    """Returns in a sentence what a step lost, where it ends worse than it began; "" where it does not.

    Args:
        record: of the step.
        before: the metric of the variant before it.
    """
    drop = record.drop
    # What is written as 0.00 is no loss that anybody would look for.
    if drop is None or before is None or not round(drop.value, 2) > 0:
        return ""
    unit = "points" if _is_share(before) else "%"
    sure = significance(drop)
    return f"{record.technique} ends worse than it began: {drop.value:.2f} {unit} of {before.name} lost" + (
        f" ({sure})" if sure else ""
    )


def preprocessing_steps(steps: Preprocessing) -> list[str]:
    """Returns what is done to a raw sample, one phrase a step."""
    if steps.is_identity:
        return [f"none: samples pass as they are, as {steps.dtype}"]
    phrases = []
    if steps.resize:
        phrases.append(f"resized to {shape(steps.resize)}")
    if steps.scale != 1.0:
        phrases.append(f"multiplied by {steps.scale:.6g}")
    if set(steps.mean) != {0.0}:
        phrases.append(f"mean {', '.join(f'{m:.6g}' for m in steps.mean)} subtracted")
    if set(steps.std) != {1.0}:
        phrases.append(f"divided by {', '.join(f'{s:.6g}' for s in steps.std)}")
    return [*phrases, f"as {steps.dtype}"]


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a mapping as pairs of label and text; keys that end in `_bytes` are sizes."""
    pairs = []
    for key, value in values.items():
        if key.endswith("_bytes") and isinstance(value, (int, float)):
            pairs.append((key.removesuffix("_bytes").replace("_", " "), size(value)))
        else:
            items = value if isinstance(value, (list, tuple)) else [value]
            pairs.append((key.replace("_", " "), ", ".join(ABSENT if item is None else str(item) for item in items)))
    return pairs


def chosen_on(report: Report) -> str:
    """Returns in a sentence which samples the choice rests on, and whether the scores shown are of others."""
    best = report.variant(report.best)
    if best is None or best.metric is None:
        return ""
    scored = f"{whole(best.metric.samples)} validation samples"
    if best.tuning_metric is None:
        return f"Chosen by the scores shown, of {scored}: they flatter what was chosen by them."
    chosen = f"{whole(best.tuning_metric.samples)} tuning samples"
    return f"Chosen by the scores on {chosen}. The scores shown are of {scored}, which no choice has seen."


def promise_words(told: Promise) -> str:
    """Returns what was promised and what was measured: "zeros of conv/kernel: promised at least 40 of 64 …"."""
    what = f"{told.kind} of {told.subject}" if told.subject else told.kind
    if told.limit is None:
        return f"{what}: {told.note}"
    bound = f"at {told.bound} {_counted(told.limit, told)}"
    if told.of is not None:
        bound = f"at {told.bound} {_digits(told.limit)} of {_counted(told.of, told)}{_part(told.limit, told)}"
    found = "nothing" if told.measured is None else _counted(told.measured, told) + _part(told.measured, told)
    return f"{what}: promised {bound}, measured {found}" + (f" ({told.note})" if told.note else "")


def _counted(number: float, told: Promise) -> str:
    return f"{_digits(number)} {told.unit}".strip()


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) or number >= 1000 else f"{number:.3g}"


def _part(number: float, told: Promise) -> str:
    return f" ({number / told.of:.1%})" if told.of else ""


def scored(metric: MetricValue) -> str:
    """Returns a score alone with its interval: "84.4 % (81.7 to 86.7 %)" for shares, plain digits otherwise."""
    if not math.isfinite(metric.value):
        return ABSENT
    low, value, high = (
        f"{100 * number:.1f}" if metric.is_share else f"{number:.4g}".replace("-", MINUS)
        for number in (metric.low, metric.value, metric.high)
    )
    unit = " %" if metric.is_share else ""
    return f"{value}{unit} ({low} to {high}{unit})"


@dataclass(frozen=True)
class Numbers:
    """How the metric and the times of one report are written: one unit and one precision for a whole column.

    Attributes:
        metric_name: as people say it.
        is_share: the metric is written in per cent and its differences in points.
        decimals: of metrics.
        time_unit: "ms" or "µs".
        time_decimals: of times.
    """

    metric_name: str = "metric"
    is_share: bool = False
    higher_is_better: bool = True
    decimals: int = 1
    time_unit: str = "ms"
    time_decimals: int = 2

    @classmethod
    def of(cls, report: Report) -> Numbers:
        """Chooses units and precision that suit every variant of `report`."""
        metrics = [v.metric for v in report.variants if v.metric and math.isfinite(v.metric.value)]
        medians = [t.p50 for v in report.variants for r in v.runtimes if (t := r.latency_ms)]
        unit = "µs" if medians and min(medians) < 0.1 else "ms"
        places = _time_decimals(min(medians, default=1.0), unit)
        if not metrics:
            return cls(time_unit=unit, time_decimals=places)
        is_share = all(_is_share(m) for m in metrics)
        decimals = _share_decimals(metrics) if is_share else _value_decimals(metrics)
        name = metrics[0].name.replace("_", " ")
        return cls(name, is_share, metrics[0].higher_is_better, decimals, unit, places)

    def metric(self, value: float, *, unit: bool = True) -> str:
        """Returns a value of the metric: "98.3 %" for shares, plain digits otherwise."""
        if not math.isfinite(value):
            return ABSENT
        if self.is_share:
            return f"{100 * value:.{self.decimals}f}{' %' if unit else ''}"
        text = f"{value:.{self.decimals}f}" if self.decimals <= 6 else f"{value:.3g}"
        return text.replace("-", MINUS)

    def interval(self, metric: MetricValue, *, unit: bool = True) -> str:
        """Returns "97.0 to 99.1 %"."""
        if not (math.isfinite(metric.low) and math.isfinite(metric.high)):
            return "not known"
        return f"{self.metric(metric.low, unit=False)} to {self.metric(metric.high, unit=unit)}"

    def allowance(self, drop: float) -> str:
        """Returns a budget for losses, as it was given: "1 point", "2.5 points", "5 %"."""
        return f"{drop:g} {'%' if not self.is_share else 'point' if drop == 1 else 'points'}"

    def lost(self, amount: str) -> str:
        """Returns a loss as a verb and its amount, for shares and for other metrics."""
        return f"loses {amount} of {self.metric_name}" if self.is_share else f"has {self.metric_name} {amount} worse"

    def loss(self, drop: float) -> str:
        """Returns the size of a loss: "0.3 points" for shares, "3.2 %" of the baseline's value otherwise."""
        unit = "points" if self.is_share else "%"
        return f"{drop:.{self.decimals if self.is_share else 1}f} {unit}"

    def loss_with_doubt(self, drop: Difference) -> str:
        """Returns a loss and how far it may be off: "1.8 ± 0.6 points"."""
        if drop.low is None or drop.high is None:
            return self.loss(drop.value).replace("-", MINUS)
        decimals, unit = self.decimals if self.is_share else 1, "points" if self.is_share else "%"
        half = max(drop.high - drop.value, drop.value - drop.low)
        return f"{drop.value:.{decimals}f} ± {half:.{decimals}f} {unit}".replace("-", MINUS)

    def moved(self, drop: Difference) -> str:
        """Returns "loses 1.8 ± 0.6 points", or "gains 0.3 ± 0.6 points" where a file is better than the baseline."""
        told = self.loss_with_doubt(drop)
        return f"gains {told.removeprefix(MINUS)}" if told.startswith(MINUS) else f"loses {told}"

    def change(self, drop: Difference | None) -> str:
        """Returns how the metric itself moved against the baseline: "−0.3" points, or "+3.2" per cent."""
        if drop is None or not math.isfinite(drop.value):
            return ABSENT
        moved = -drop.value if self.higher_is_better else drop.value
        text = f"{moved:+.{self.decimals if self.is_share else 1}f}"
        return "±" + text[1:] if float(text) == 0 else text.replace("-", MINUS)

    def tuned(self, variant: Variant) -> str:
        """Returns what a variant was chosen by: "on the tuning samples 91.3 %, −0.4 points"; "" where by nothing."""
        if variant.tuning_metric is None:
            return ""
        change = "" if variant.tuning_drop is None else f", {self.change(variant.tuning_drop)} {self.change_unit}"
        return f"on the tuning samples {self.metric(variant.tuning_metric.value)}{change}"

    @property
    def change_unit(self) -> str:
        """The unit of `change`."""
        return "points" if self.is_share else "%"

    def time(self, milliseconds: float, *, unit: bool = True) -> str:
        """Returns a time in the report's unit."""
        if not math.isfinite(milliseconds):
            return ABSENT
        value = milliseconds * (1000 if self.time_unit == "µs" else 1)
        return f"{value:,.{self.time_decimals}f}{f' {self.time_unit}' if unit else ''}"

    def tail(self, latency: Latency) -> str:
        """Returns "[p90, p99]"."""
        return f"[{self.time(latency.p90, unit=False)}, {self.time(latency.p99, unit=False)}]"


def _is_share(metric: MetricValue) -> bool:
    if metric.is_share is not None:
        return metric.is_share
    return metric.higher_is_better and 0 <= metric.value <= 1


def _time_decimals(smallest_ms: float, unit: str) -> int:
    """Three significant digits of the smallest time, two of microseconds: clocks resolve no more."""
    if unit == "µs":
        return 0 if smallest_ms >= 0.01 else 1
    return min(3, max(0, 2 - math.floor(math.log10(smallest_ms))))


def _share_decimals(metrics: list[MetricValue]) -> int:
    return 1 if max(m.samples for m in metrics) <= _ONE_DECIMAL_SAMPLES else 2


def _value_decimals(metrics: list[MetricValue]) -> int:
    """Two digits of the narrowest interval, or four of the smallest value where there is none."""
    widths = [m.high - m.low for m in metrics if math.isfinite(m.high - m.low) and m.high > m.low]
    if widths:
        return max(0, 1 - math.floor(math.log10(min(widths) / 2)))
    smallest = min((abs(m.value) for m in metrics if m.value), default=1.0)
    return max(0, 3 - math.floor(math.log10(smallest)))
