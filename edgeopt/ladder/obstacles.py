"""A report in which nothing keeps the budgets goes in; what stands in the way comes out, in words and from facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeopt import formats
from edgeopt.report import Report
from edgeopt.report.verdict import broken, inference_in_words
from edgeopt.report.words import Numbers, clause, printable, share
from edgeopt.vocabulary import Gain, Variant


def obstacles(report: Report, folder: Path) -> tuple[str, ...]:
    """Returns what stands in the way of the budgets, one sentence each.

    Args:
        report: as choices see it, with the variants that may be recommended.
        folder: that their files are in.
    """
    lacking = {v.name: {found.lacks for found in broken(report, v)} for v in report.variants}
    fewest = min(map(len, lacking.values()), default=0)
    nearest = [v for v in report.variants if len(lacking[v.name]) == fewest and v.file]
    found: list[str] = []
    for gain in Gain:
        those = [variant for variant in nearest if gain in lacking[variant.name]]
        if those:
            found += _WAYS[gain](report, those, folder)
    return tuple(dict.fromkeys(found))


def _bytes(report: Report, nearest: Sequence[Variant], folder: Path) -> Iterator[str]:
    variant, limit = min(nearest, key=lambda v: v.size_bytes or 0), report.budgets.max_size_bytes or 0
    size = variant.size_bytes or 1
    facts = formats.facts(folder / str(variant.file))
    largest = max(facts.weights, key=lambda weight: weight.size_bytes, default=None)
    kinds = dict(variant.bytes_by_kind)
    text = f"{variant.name} takes {size:,} bytes, {size - limit:,} too many"
    rest = size - kinds.get("weights", 0)
    if rest > limit:
        text += f": without one weight it would still take {rest:,}, for its graph, scales and biases"
    elif largest is not None:
        text += f": weights of {printable(largest.name)} are {share(largest.size_bytes / size)} of them"
    yield text
    yield from _fitting(report, Gain.BYTES, "smaller")


def _quality(report: Report, nearest: Sequence[Variant], folder: Path) -> Iterator[str]:
    numbers = Numbers.of(report)
    known = [v for v in nearest if v.drop is not None]
    if not known:
        yield "no loss is known, as nothing was scored"
        return
    least = min(known, key=lambda v: v.drop.value if v.drop else 0.0)
    assert least.drop is not None
    limit = numbers.allowance(report.budgets.max_drop or 0.0)
    lost = numbers.loss_with_doubt(least.drop)
    yield f"of what keeps the other budgets {least.name} loses least: {lost}, where {limit} may be lost"


def _latency(report: Report, nearest: Sequence[Variant], folder: Path) -> Iterator[str]:
    timed = [v for v in nearest if report.bounded_ms(v) is not None]
    if not timed:
        where = f"has a known latency on {report.target}" if report.bounds_target else f"was timed on {report.runtime}"
        yield f"nothing that keeps the other budgets {where}"
        return
    fastest = min(timed, key=lambda v: report.bounded_ms(v) or 0.0)
    text = f"the fastest, {fastest.name}, takes {inference_in_words(report, fastest)}"
    if fastest.macs:
        text += f" for {fastest.macs:,} multiply-accumulates"
    yield text
    yield from _fitting(report, Gain.LATENCY, "faster")


def _ram(report: Report, nearest: Sequence[Variant], folder: Path) -> Iterator[str]:
    from edgeopt.tflite.lifetimes import peak
    from edgeopt.tflite.reader import read_once

    known = [v for v in nearest if v.on_target and v.on_target.ram_bytes is not None]
    if not known:
        yield f"what RAM it takes on {report.target} could not be told"
        return
    least = min(known, key=lambda v: v.on_target.ram_bytes or 0 if v.on_target else 0)
    assert least.on_target is not None
    where = peak(read_once(folder / str(least.file))).describe()
    yield (
        f"{least.name} takes {least.on_target.ram_bytes:,} bytes of RAM on {report.target} "
        f"({least.on_target.memory_how}), most of it at {printable(where)}"
    )
    yield from _fitting(report, Gain.RAM, "smaller")


def _runs(report: Report, nearest: Sequence[Variant], folder: Path) -> Iterator[str]:
    variant = nearest[0]
    for found in broken(report, variant):
        if found.lacks is Gain.RUNS:
            yield f"{variant.name} {clause(found.text)}"


def _fitting(report: Report, gain: Gain, more: str) -> Iterator[str]:
    """Yields what keeps this budget and breaks another, and how far off it is."""
    numbers = Numbers.of(report)
    fitting = [v for v in report.variants if v.file and gain not in {found.lacks for found in broken(report, v)}]
    if not fitting:
        yield f"nothing that was tried is {more} by enough"
        return
    best = min(fitting, key=lambda v: (len(broken(report, v)), v.drop.value if v.drop else 0.0))
    loss = f", losing {numbers.loss_with_doubt(best.drop)}" if best.drop else ""
    yield f"{best.name} fits ({best.size_bytes:,} bytes){loss}"


_WAYS = {
    Gain.QUALITY: _quality,
    Gain.BYTES: _bytes,
    Gain.LATENCY: _latency,
    Gain.RAM: _ram,
    Gain.RUNS: _runs,
}
