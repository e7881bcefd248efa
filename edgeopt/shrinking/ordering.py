"""Second moments of what layers read go in; in which order the units of a group are missed least comes out.

A layer computes X W. Without some rows of W, those that are left are chosen anew so that it computes the same but for
the least mean square: what a row read is computed from what is still there, as far as that goes. With H = E[x xᵀ] +
ridge, losing the rows c costs tr(W_cᵀ (H⁻¹_cc)⁻¹ W_c), exactly, and taking one unit after the other updates H⁻¹ and W:
optimal brain surgery (Hassibi and Stork 1993) by whole channels. That channels are judged by what the next layer can
still compute is the idea of ThiNet (Luo et al., arXiv 1707.06342).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from edgeopt.shrinking.channels import Group
from edgeopt.shrinking.moments import RIDGE, Moments, ridged

# Removals after which H⁻¹ is brought up to date as a whole.
_LAZY = 32
_TINY = 1e-12


def order(
    group: Group, several: Sequence[Moments], *, fewest: int = 1, ridge: float = RIDGE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns in which order a group's units go, and what is lost with each.

    Always the unit goes without which the layers that read the group, re-fitted, lose least: the sum over them of
    what they lose for what they compute.

    Args:
        group: of channels.
        several: moments of the layers that read it, one at least.
        fewest: how many units stay.
        ridge: see `moments.RIDGE`.

    Returns:
        Places in the group, the first to go first, those that stay at the end; and the loss so far after each.
    """
    # Threads cost more than they bring to matrices so small.
    with threadpool_limits(1, "blas"):
        blocks = [(block, weight) for one in several for block, weight in _blocks(one, group.units, ridge)]
        left = {int(unit): place for place, unit in enumerate(group.units)}
        gone: list[int] = []
        losses: list[float] = []
        while len(left) > fewest:
            cost = dict.fromkeys(left, 0.0)
            for block, weight in blocks:
                for unit, loss in block.losses().items():
                    cost[unit] += loss * weight
            unit = min(cost, key=cost.__getitem__)
            for block, _ in blocks:
                block.remove(unit)
            gone.append(left.pop(unit))
            losses.append(cost[unit])
    return np.array([*gone, *left.values()]), np.cumsum(losses)


def _blocks(one: Moments, units: np.ndarray, ridge: float) -> list[tuple[_Block, float]]:
    """Returns the blocks of a reader's matrix, each with its weight: over all of what the reader computes."""
    whole, centred = one.reader.matrix(), one.centred()
    power = sum(float(((gram @ whole[rows]) * whole[rows]).sum()) for rows, gram in centred)
    found = []
    for rows, gram in centred:
        ids = one.reader.units[rows]
        places = {int(unit): np.flatnonzero(ids == unit) for unit in units}
        if there := {unit: at for unit, at in places.items() if len(at)}:
            found.append((_Block(gram, whole[rows], there, ridge), 1 / (power + _TINY)))
    return found


class _Block:
    """One block of a reader while units leave it: H⁻¹ of the rows that are left, and their weights."""

    def __init__(self, gram: np.ndarray, weights: np.ndarray, places: Mapping[int, np.ndarray], ridge: float) -> None:
        factor = linalg.cho_factor(ridged(gram, ridge), lower=True)
        self._inverse = linalg.cho_solve(factor, np.eye(len(gram)))
        self._weights = weights.copy()
        self._places = dict(places)
        self._pending: list[np.ndarray] = []
        self._diagonal = {unit: self._inverse[np.ix_(rows, rows)] for unit, rows in self._places.items()}

    def losses(self) -> dict[int, float]:
        """Returns for each unit that is left what losing it costs."""
        by_width: dict[int, list[int]] = {}
        for unit, rows in self._places.items():
            by_width.setdefault(len(rows), []).append(unit)
        found: dict[int, float] = {}
        for units in by_width.values():
            weights = np.stack([self._weights[self._places[unit]] for unit in units])
            solved = np.linalg.solve(np.stack([self._diagonal[unit] for unit in units]), weights)
            found.update(zip(units, (weights * solved).sum((1, 2)).tolist()))
        return found

    def remove(self, unit: int) -> None:
        """Takes a unit away, where it is one of the block's, and re-fits the rest."""
        rows = self._places.pop(unit, None)
        if rows is None:
            return
        column = self._inverse[:, rows]
        for earlier in self._pending:
            column = column - earlier @ earlier[rows].T
        lower = np.linalg.cholesky(column[rows])
        update = linalg.solve_triangular(lower, column.T, lower=True).T
        self._weights -= update @ linalg.solve_triangular(lower, self._weights[rows], lower=True)
        del self._diagonal[unit]
        for other, places in self._places.items():
            self._diagonal[other] = self._diagonal[other] - update[places] @ update[places].T
        self._pending.append(update)
        if len(self._pending) == _LAZY:
            together = np.concatenate(self._pending, axis=1)
            self._inverse -= together @ together.T
            self._pending = []
