"""A report in which nothing keeps the budgets goes in; what stands in the way comes out, in words and from facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt import formats
from edgeopt.report import Report
from edgeopt.report.verdict import broken, broken_budgets, inference_in_words
from edgeopt.report.words import Numbers, clause, printable, share
from edgeopt.vocabulary import Gain, Variant


def obstacles(report: Report, nearest: Variant, folder: Path) -> tuple[str, ...]:
    """Returns what stands between the budgets and the variant that comes nearest to them, one sentence each.

    Args:
        report: as choices see it, with the variants that may be recommended.
        nearest: one of them.
        folder: that their files are in.
    """
    lacking = {found.lacks for found in broken(report, nearest)}
    return tuple(
        dict.fromkeys(said for gain in Gain if gain in lacking for said in _WAYS[gain](report, nearest, folder))
    )


def _bytes(report: Report, nearest: Variant, folder: Path) -> Iterator[str]:
    size, limit = nearest.size_bytes or 1, report.budgets.max_size_bytes or 0
    largest = max(formats.facts(folder / str(nearest.file)).weights, key=lambda weight: weight.size_bytes, default=None)
    text = f"{nearest.name} takes {size:,} bytes, {size - limit:,} too many"
    rest = size - dict(nearest.bytes_by_kind).get("weights", 0)
    if rest > limit:
        text += f": without one weight it would still take {rest:,}, for its graph, scales and biases"
    elif largest is not None:
        text += f": weights of {printable(largest.name)} are {share(largest.size_bytes / size)} of them"
    yield text
    yield from _fitting(report, Gain.BYTES, "smaller")


def _quality(report: Report, nearest: Variant, folder: Path) -> Iterator[str]:
    numbers = Numbers.of(report)
    limit = numbers.allowance(report.budgets.max_drop or 0.0)
    if nearest.drop is None:
        yield f"what {nearest.name} loses is not known, as it was not scored, where {limit} may be lost"
    else:
        yield f"{nearest.name} {numbers.moved(nearest.drop)}, where {limit} may be lost"
    yield from _fitting(report, Gain.QUALITY, "as good")


def _latency(report: Report, nearest: Variant, folder: Path) -> Iterator[str]:
    if report.bounded_ms(nearest) is None:
        where = f"{nearest.name} takes on {report.target}" if report.bounds_target else f"{nearest.name} takes"
        yield f"how long {where} is not known"
    else:
        text = f"{nearest.name} takes {inference_in_words(report, nearest)}"
        yield text + (f" for {nearest.macs:,} multiply-accumulates" if nearest.macs else "")
    yield from _fitting(report, Gain.LATENCY, "faster")


def _ram(report: Report, nearest: Variant, folder: Path) -> Iterator[str]:
    from edgeopt.tflite.lifetimes import peak
    from edgeopt.tflite.reader import read_once

    found = nearest.on_target
    if found is None or found.ram_bytes is None:
        yield f"what RAM {nearest.name} takes on {report.target} could not be told"
    else:
        where = printable(peak(read_once(folder / str(nearest.file))).describe())
        taken = f"{found.ram_bytes:,} bytes of RAM on {report.target} ({found.memory_how})"
        yield f"{nearest.name} takes {taken}, most of it at {where}"
    yield from _fitting(report, Gain.RAM, "smaller there")


def _runs(report: Report, nearest: Variant, folder: Path) -> Iterator[str]:
    for found in broken(report, nearest):
        if found.lacks is Gain.RUNS:
            yield f"{nearest.name} {clause(found.text)}"


def _fitting(report: Report, gain: Gain, more: str) -> Iterator[str]:
    """Yields what keeps this budget and breaks another, and how far off it is."""
    numbers = Numbers.of(report)
    fitting = [v for v in report.variants if v.file and gain not in {found.lacks for found in broken(report, v)}]
    if not fitting:
        yield f"nothing that was tried is {more} by enough"
        return
    best = min(fitting, key=lambda v: (len(broken(report, v)), v.drop.value if v.drop else 0.0))
    if gain is Gain.QUALITY:
        yield f"{best.name} loses little enough, and {'; '.join(clause(text) for text in broken_budgets(report, best))}"
        return
    loss = f", losing {numbers.loss_with_doubt(best.drop)}" if best.drop else ""
    yield f"{best.name} fits ({best.size_bytes:,} bytes){loss}"


_WAYS = {
    Gain.QUALITY: _quality,
    Gain.BYTES: _bytes,
    Gain.LATENCY: _latency,
    Gain.RAM: _ram,
    Gain.RUNS: _runs,
}
