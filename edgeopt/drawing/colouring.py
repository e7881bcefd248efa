"""What the boxes of a drawn graph show: facts and measurements go in, a shade and words for each operator come out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeopt.formats.contract import FileFacts
from edgeopt.vocabulary import LayerError, OperatorTime

Row = TypeVar("Row")

# Below this a tensor has gone bad, and above that nobody would find a difference, in dB.
_BAD_DB, _GOOD_DB = 10.0, 50.0


@dataclass(frozen=True)
class Shade:
    """What an operator's box shows.

    Attributes:
        share: how dark it is, 0 to 1; None where nothing is known.
        text: the number in words.
    """

    share: float | None
    text: str


@dataclass(frozen=True)
class Colouring:
    """How boxes are coloured.

    Attributes:
        title: what the colours are, in words.
        shades: one for each operator, in the file's order.
    """

    title: str
    shades: tuple[Shade, ...]


def by_bytes(facts: FileFacts) -> Colouring:
    """Colours by the bytes of the weights that an operator computes with; shared ones count for each."""
    sizes = [sum(weight.size_bytes for weight in operator.weights) for operator in facts.operators]
    return _counted(sizes, "bytes of weights", "bytes")


def by_macs(facts: FileFacts) -> Colouring:
    """Colours by multiply-accumulates of one inference."""
    return _counted([operator.macs for operator in facts.operators], "multiply-accumulates", "MACs")


def by_time(facts: FileFacts, profile: Sequence[OperatorTime], where: str) -> Colouring:
    """Colours by the measured time of each operator; those that ran as part of another have none of their own."""
    times = _matched(facts, [(row.layer, row) for row in profile])
    most = max((row.share for row in profile), default=0.0) or 1.0
    shades = [
        Shade(None, "") if row is None else Shade(row.share / most, f"{row.p50_us:,.4g} µs, {row.share:.1%}")
        for row in times
    ]
    return Colouring(f"time on {where}", tuple(shades))


def by_error(facts: FileFacts, layers: Sequence[LayerError]) -> Colouring:
    """Colours by how much noise lies on what an operator writes, beside the signal: dark from 10 dB down."""
    errors = _matched(facts, [(row.tensor, row) for row in layers])
    shades = tuple(Shade(None, "") if row is None else _of_noise(row.sqnr_db) for row in errors)
    return Colouring("signal to quantization noise of what each operator writes", shades)


COUNTED: dict[str, Callable[[FileFacts], Colouring]] = {"bytes": by_bytes, "macs": by_macs}
# What measures it, as one would type it.
MEASURED = {"time": "benchmark FILE --profile --json", "error": "compare FLOAT FILE --data DATA --json"}
COLOURS = ("kind", *COUNTED, *MEASURED)


def _counted(values: Sequence[int], title: str, unit: str) -> Colouring:
    total, most = sum(values), max(values, default=0)
    shades = (
        Shade(value / most if most else 0.0, f"{value:,} {unit}, {value / total:.1%}" if value else "")
        for value in values
    )
    return Colouring(f"{title}, {total:,} in all", tuple(shades))


def _of_noise(sqnr_db: float) -> Shade:
    # Without any noise it is infinite, which JSON does not know.
    if not math.isfinite(sqnr_db):
        return Shade(0.0, "no noise")
    return Shade(min(1.0, max(0.0, (_GOOD_DB - sqnr_db) / (_GOOD_DB - _BAD_DB))), f"{sqnr_db:.1f} dB")


def _matched(facts: FileFacts, rows: Sequence[tuple[str, Row]]) -> list[Row | None]:
    """Returns for each operator the row of the tensor that it writes, or None; of equal names one after the other."""
    waiting: defaultdict[str, list[Row]] = defaultdict(list)
    for name, row in reversed(rows):
        waiting[name].append(row)
    return [waiting[operator.layer].pop() if waiting[operator.layer] else None for operator in facts.operators]
