"""What the numbers say: a report goes in; broken budgets, ratios, the Pareto front and the headline come out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from edgeopt import runtimes
from edgeopt.report.model import Report
from edgeopt.report.words import SIGNIFICANCE, Numbers, clause, ratio, whole
from edgeopt.vocabulary import Gain, RungRecord, RuntimeResult, Variant


class Gap(NamedTuple):
    """Something that is not in the tables: what, and in words what became of it and why."""

    what: str
    text: str


# How far off something is that does not run, or of which nothing is known: a thousand times too large.
_FAR = 10.0


# Three of 300 are one point, whatever a difference of floats says.
_EQUAL = 1e-9


class Broken(NamedTuple):
    """A budget that is not kept, or not known to be: what it lacks, in words how, and how far off it is, in doublings
    of the budget; of a loss in times of what is allowed, of one point at least."""

    lacks: Gain
    text: str
    over: float = _FAR


def broken_budgets(report: Report, variant: Variant) -> tuple[str, ...]:
    """Returns in words each budget that `variant` does not keep, or that was not measured; empty when all hold."""
    return tuple(found.text for found in broken(report, variant))


def broken(report: Report, variant: Variant) -> tuple[Broken, ...]:
    """Returns each budget that `variant` does not keep, or that was not measured; empty when all hold."""
    if variant.error is not None:
        return (Broken(Gain.RUNS, "was not made"),)
    numbers, budgets = Numbers.of(report), report.budgets
    found = []
    if budgets.max_drop is not None and variant.name != report.baseline:
        limit = numbers.allowance(budgets.max_drop)
        if variant.drop is None or math.isnan(variant.drop.value):
            found.append(Broken(Gain.QUALITY, f"loss not known (at most {limit} allowed)"))
        elif variant.drop.value > budgets.max_drop + _EQUAL:
            lost = numbers.lost(numbers.loss(variant.drop.value))
            over = (variant.drop.value - budgets.max_drop) / max(budgets.max_drop, 1.0)
            found.append(Broken(Gain.QUALITY, f"{lost}, more than {limit}", over))
    if budgets.max_size_bytes is not None:
        limit = f"{whole(budgets.max_size_bytes)} bytes"
        if variant.size_bytes is None:
            found.append(Broken(Gain.BYTES, f"size not measured (at most {limit} allowed)"))
        elif variant.size_bytes > budgets.max_size_bytes:
            over = math.log2(variant.size_bytes / budgets.max_size_bytes)
            found.append(Broken(Gain.BYTES, f"takes {whole(variant.size_bytes)} bytes, more than {limit}", over))
    if budgets.max_latency_ms is not None:
        limit, takes = latency_in_words(report, budgets.max_latency_ms), report.bounded_ms(variant)
        if takes is None:
            unknown = f"on {report.target} not known" if report.bounds_target else f"on {report.runtime} not measured"
            found.append(Broken(Gain.LATENCY, f"latency {unknown} (at most {limit} allowed)"))
        elif takes > budgets.max_latency_ms:
            over = math.log2(takes / budgets.max_latency_ms)
            took = inference_in_words(report, variant)
            found.append(Broken(Gain.LATENCY, f"takes {took}, more than {limit}", over))
    if budgets.max_ram_bytes is not None:
        limit = f"{whole(budgets.max_ram_bytes)} bytes of RAM"
        if variant.on_target is None or variant.on_target.ram_bytes is None:
            found.append(Broken(Gain.RAM, f"RAM not known (at most {limit} allowed)"))
        elif variant.on_target.ram_bytes > budgets.max_ram_bytes:
            took = f"{whole(variant.on_target.ram_bytes)} ({variant.on_target.memory_how})"
            over = math.log2(variant.on_target.ram_bytes / budgets.max_ram_bytes)
            found.append(Broken(Gain.RAM, f"takes {took} on {report.target}, more than {limit}", over))
    if variant.on_target is not None and variant.on_target.problems:
        why = clause("; ".join(variant.on_target.problems))
        found.append(Broken(Gain.RUNS, f"does not run on {report.target}: {why}"))
    told = _told_of_target(report, variant)
    promises = [text for text in budgets.runtimes if text not in told]
    found += [Broken(Gain.RUNS, words) for text in promises if (words := _broken_promise(variant, text))]
    return tuple(found)


def _told_of_target(report: Report, variant: Variant) -> tuple[str, ...]:
    """Returns the target's own runtimes that refuse a variant, where its target is told to refuse it anyway."""
    if variant.on_target is None or not variant.on_target.problems:
        return ()
    from edgeopt.targets import TARGETS  # with NumPy, which a report is read without

    device = TARGETS.get(report.target or "")
    if device is None:
        return ()
    refused = {row.name for row in variant.runtimes if row.status == "failed"}
    return tuple(text for text in device.runtimes if runtimes.parse(text).runtime.name in refused)


def inference_in_words(report: Report, variant: Variant) -> str:
    """Returns what one inference takes of that which a budget of latency bounds, where, and how that is known."""
    took = latency_in_words(report, report.bounded_ms(variant) or 0.0)
    if report.bounds_target and variant.on_target is not None:
        return f"{took} on {report.target} ({variant.on_target.latency_how})"
    return f"{took} on {report.runtime}"


def latency_in_words(report: Report, milliseconds: float) -> str:
    """Returns milliseconds as a budget of latency is told: in the unit of what was timed here, or of the target."""
    return f"{milliseconds:.3g} ms" if report.bounds_target else Numbers.of(report).time(milliseconds)


def as_chosen(report: Report) -> Report:
    """Returns the report as whoever chooses sees it: with the scores on the tuning samples, where there are such."""
    if not any(variant.tuning_metric for variant in report.variants):
        return report
    variants = (replace(v, metric=v.tuning_metric, drop=v.tuning_drop) for v in report.variants)
    return replace(report, variants=tuple(variants))


def kept_where_chosen(report: Report) -> bool:
    """Whether the recommended variant keeps every budget on the samples that it was chosen on."""
    chosen = as_chosen(report)
    best = chosen.variant(chosen.best)
    return best is not None and not broken_budgets(chosen, best)


def smaller(report: Report, variant: Variant) -> float | None:
    """Returns how many times smaller the file is than the baseline's, or None."""
    baseline = report.variant(report.baseline)
    if baseline is None or not baseline.size_bytes or not variant.size_bytes:
        return None
    return baseline.size_bytes / variant.size_bytes


def faster(report: Report, variant: Variant) -> float | None:
    """Returns how many times faster the median inference is than the baseline's on the same runtime, or None."""
    baseline = report.variant(report.baseline)
    ours, theirs = report.latency(variant), report.latency(baseline) if baseline else None
    return theirs.p50 / ours.p50 if ours and theirs and ours.p50 > 0 else None


def on_target(variant: Variant) -> str:
    """Returns in words what a variant costs on the report's target; "" where nothing is known."""
    found = variant.on_target
    if found is None or found.flash_bytes is None:
        return ""
    told = f"{whole(found.flash_bytes)} bytes of flash, {whole(found.ram_bytes)} of RAM ({found.memory_how})"
    return told + (f", {found.latency_ms:.3g} ms ({found.latency_how})" if found.latency_ms is not None else "")


def target_notes(report: Report) -> list[Gap]:
    """Returns what is remarked on variants on the target, each remark once."""
    found: dict[str, list[str]] = {}
    judged = [v for v in report.variants if v.on_target and not v.on_target.problems]
    for variant in judged:
        for note in variant.on_target.notes if variant.on_target else ():
            found.setdefault(note, []).append(variant.name)
    return [Gap("" if len(names) == len(judged) else ", ".join(names), note) for note, names in found.items()]


def rungs_above(report: Report) -> list[RungRecord]:
    """Returns the rungs of a ladder that lie above where it ended."""
    climb = report.climb
    return [] if climb is None else [rung for rung in climb.rungs if rung.skipped and rung.skipped == climb.why]


def headline(report: Report) -> str:
    """Returns the outcome in one sentence."""
    best, baseline = report.variant(report.best), report.variant(report.baseline)
    made = [v for v in report.variants if v.error is None]
    if not made:
        return "No variant could be made"
    if best is None:
        return f"{len(made)} of {len(report.variants)} variants made, none recommended"
    kept = not broken_budgets(report, best)
    if baseline is None or best is baseline:
        return f"{best.name} is recommended as it is" if kept else f"No variant keeps the budgets; {best.name} is kept"
    sentence = f"{best.name} is {_size_and_speed(report, best, baseline)}{_quality(report, best)}"
    if not kept and not kept_where_chosen(report):
        return f"No variant keeps every budget; nearest, {sentence}"
    if not kept:
        return f"{sentence} — chosen, but it keeps every budget on the tuning samples only"
    return f"{sentence} — recommended"


def gaps(report: Report) -> list[Gap]:
    """Returns everything that was not made, did not run, disagreed or was not tried; equal reasons are told once."""
    failed = [Gap(v.name, f"was not made: {clause(v.error)}") for v in report.variants if v.error is not None]
    found: dict[tuple[str, str, str], list[str]] = {}
    for variant in report.variants:
        for result in variant.runtimes:
            if not result.loads:
                key = (result.name, result.status, clause(result.reason) or "no reason given")
            elif result.matches_reference is False:
                key = (result.name, "differs", _disagreement(result))
            else:
                continue
            found.setdefault(key, []).append(variant.name)
    order = list(dict.fromkeys(name for name, _, _ in found))
    told = sorted(found.items(), key=lambda item: order.index(item[0][0]))
    return failed + [Gap(key[0], _gap_in_words(report, key[1], key[2], names)) for key, names in told]


def _gap_in_words(report: Report, status: str, why: str, names: list[str]) -> str:
    whom = "every variant" if len(names) == len(report.variants) > 1 else ", ".join(names)
    if status == "differs":
        return f"runs {whom}, but {why}"
    return f"{'was not tried on' if status == 'skipped' else 'failed on'} {whom}: {why}"


def _broken_promise(variant: Variant, text: str) -> str | None:
    request = runtimes.parse(text)
    rows = [r for r in variant.runtimes if r.name == request.runtime.name and _is_version(r.version, request.version)]
    if not rows:
        return f"was not run on {text}"
    if not rows[0].loads:
        what = f"{'was not tried' if rows[0].status == 'skipped' else 'does not run'} on {text}"
        return f"{what}: {clause(rows[0].reason)}" if rows[0].reason else what
    if rows[0].matches_reference is False:
        return f"runs on {text}, but {_disagreement(rows[0])}"
    return None


def _is_version(version: str, asked: str | None) -> bool:
    """Whether `version` is `asked` or a patch release of it: 2.14 asks for 2.14.0 as well."""
    return asked is None or version.split(".")[: asked.count(".") + 1] == asked.split(".")


def _disagreement(result: RuntimeResult) -> str:
    if result.reason:
        return clause(result.reason)
    by = "" if result.max_difference is None else f" (by up to {result.max_difference:.3g})"
    return f"its outputs differ from the reference's{by}"


def _size_and_speed(report: Report, best: Variant, baseline: Variant) -> str:
    phrases = [
        _compared(smaller(report, best), "smaller", "larger", "as large"),
        _compared(faster(report, best), "faster", "slower", "as fast"),
    ]
    told = [p for p in phrases if p]
    if not told:
        return f"compared with {baseline.name}"
    gains = any(text.endswith(("smaller", "faster")) for text in told)
    losses = any(text.endswith(("larger", "slower")) for text in told)
    joined = (" but " if gains and losses else " and ").join(told)
    return f"{joined} {'as' if told[-1].startswith('as ') else 'than'} {baseline.name}"


def _compared(times: float | None, more: str, less: str, equal: str) -> str | None:
    if times is None:
        return None
    if ratio(times) == ratio(1.0) or ratio(1 / times) == ratio(1.0):
        return equal
    return f"{ratio(times)} {more}" if times > 1 else f"{ratio(1 / times)} {less}"


def _quality(report: Report, best: Variant) -> str:
    numbers, metric = Numbers.of(report), best.metric
    if metric is None or math.isnan(metric.value):
        return ", its quality not measured"
    # By its short name, as columns have it, two variants would be "at the same outputs".
    name = "mean of outputs" if best.outputs else numbers.metric_name
    interval = f"{numbers.metric(metric.value)}, 95 % interval {numbers.interval(metric)}"
    if best.drop is None or not math.isfinite(best.drop.value):
        return f", with {name} {interval}"
    if numbers.loss(abs(best.drop.value)) == numbers.loss(0.0):
        return f" at the same {name} ({interval})"
    lower = (best.drop.value > 0) == metric.higher_is_better
    moved = f"{numbers.loss(abs(best.drop.value))} {'lower' if lower else 'higher'}"
    if best.drop.p_value is not None and best.drop.p_value >= SIGNIFICANCE:
        moved += ", within chance"
    return f", its {name} {moved} ({interval})"
