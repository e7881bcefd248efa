"""What no other point is shown to beat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeopt.front import beats, exact, front
from edgeopt.vocabulary import Interval


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_without_doubt_it_is_the_pareto_front(points: list[tuple[int, int]]) -> None:
    found = front([(exact(x), exact(y)) for x, y in points])
    unbeaten = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    assert [points[i] for i in found] == sorted(unbeaten)


def test_a_difference_that_is_not_shown_beats_nothing() -> None:
    sure, unsure = Interval(1.0, 0.9, 1.1), Interval(1.2, 1.0, 1.4)
    assert not beats([sure, exact(5)], [unsure, exact(5)])
    assert beats([sure, exact(4)], [unsure, exact(5)])
    assert beats([sure, exact(5)], [Interval(1.2, 1.15, 1.25), exact(5)])
    assert not beats([sure, exact(6)], [Interval(9.0, 8.0, 10.0), exact(5)])
    assert front([(unsure, exact(5)), (sure, exact(5))]) == [1, 0]


def test_equal_points_stand_beside_each_other() -> None:
    assert front([(exact(1), exact(1)), (exact(1), exact(1))]) == [0, 1]
    assert front([]) == []
