"""Points with costs and their doubt go in; those that no other one is shown to beat come out."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.vocabulary import Interval


def exact(value: float) -> Interval:
    """Returns a number without doubt: bytes are counted, not measured."""
    return Interval(value, value, value)


def beats(one: Sequence[Interval], other: Sequence[Interval]) -> bool:
    """Whether `one` is nowhere worse as measured, and in something better beyond doubt.

    Args:
        one, other: costs in one order, each better when smaller.
    """
    return all(a.value <= b.value for a, b in zip(one, other)) and any(a.high < b.low for a, b in zip(one, other))


def front(points: Sequence[Sequence[Interval]]) -> list[int]:
    """Returns the positions of the points that no other one beats, by their first cost, then by the next.

    What the measurements do not tell apart stands beside each other: the front may hold several of one kind, and never
    lacks one because of noise. Points without doubt give the Pareto front.

    Args:
        points: of each the costs, in one order, each better when smaller; none is NaN.
    """
    left = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    return sorted(left, key=lambda i: [cost.value for cost in points[i]])
