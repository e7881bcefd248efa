"""Rows of what a layer reads go in, chunk by chunk; their second moments come out, and what can be solved with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from edgeopt.shrinking.readers import Reader

# Of the mean diagonal of a matrix of moments, added to its diagonal.
RIDGE = 1e-3
# What may be added where samples are few for the unknowns: that with which the half that was not fitted loses least.
RIDGES = (RIDGE, 1e-2, 1e-1, 1.0)
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of what a reader reads.

    Attributes:
        reader: the layer.
        blocks: for each block along the diagonal its rows, and the mean of x xᵀ over positions, [rows, rows].
        means: of x, [rows].
        positions: how many there were.
    """

    reader: Reader
    blocks: tuple[tuple[np.ndarray, np.ndarray], ...]
    means: np.ndarray
    positions: int

    def centred(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Returns the blocks as they count where the mean is free: of the deviations from it."""
        if not self.reader.shifts:
            return self.blocks
        return tuple((rows, gram - np.outer(self.means[rows], self.means[rows])) for rows, gram in self.blocks)


class Pairs:
    """Sums over positions of what is read, x, and of what is to be computed from it, y."""

    def __init__(self, rows: int, outputs: int) -> None:
        self.count = 0
        self._xx, self._xy = np.zeros((rows, rows)), np.zeros((rows, outputs))
        self._x, self._y = np.zeros(rows), np.zeros(outputs)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Adds positions, [positions, rows] and [positions, outputs], float64."""
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._x += x.sum(0)
        self._y += y.sum(0)
        self.count += len(x)

    def __add__(self, other: Pairs) -> Pairs:
        both = Pairs(0, 0)
        both._xx, both._xy = self._xx + other._xx, self._xy + other._xy
        both._x, both._y, both.count = self._x + other._x, self._y + other._y, self.count + other.count
        return both

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the means of x and of y."""
        return self._x / self.count, self._y / self.count

    def solved(self, before: np.ndarray, ridge: float, *, shifts: bool) -> np.ndarray:
        """Returns the W of least mean square of X W - Y, held to `before`; with `shifts` their means are free."""
        xx, xy = self._second(shifts)
        weight = ridge * xx.diagonal().mean() + _TINY
        return linalg.solve(xx + weight * np.eye(len(xx)), xy + weight * before, assume_a="pos")

    def loss(self, matrix: np.ndarray, *, shifts: bool) -> float:
        """Returns the mean square of X W - Y, but for what does not depend on W."""
        xx, xy = self._second(shifts)
        return float(((xx @ matrix - 2 * xy) * matrix).sum())

    def _second(self, shifts: bool) -> tuple[np.ndarray, np.ndarray]:
        xx, xy = self._xx / self.count, self._xy / self.count
        if not shifts:
            return xx, xy
        x, y = self.means()
        return xx - np.outer(x, x), xy - np.outer(x, y)


def best_ridge(halves: Sequence[Pairs], before: np.ndarray, *, shifts: bool) -> float:
    """Returns which of RIDGES serves best: W is solved on one half of the samples, and judged on the other."""
    if not all(half.count for half in halves):
        return RIDGES[-1]
    fitted, judged = halves
    losses = [judged.loss(fitted.solved(before, ridge, shifts=shifts), shifts=shifts) for ridge in RIDGES]
    return RIDGES[int(np.argmin(losses))]


def ridged(gram: np.ndarray, ridge: float) -> np.ndarray:
    """Returns a matrix of moments with a share of its mean diagonal added to the diagonal."""
    return gram + np.eye(len(gram)) * (ridge * gram.diagonal().mean() + _TINY)


def without(one: Moments, kept: np.ndarray, *, ridge: float = RIDGE) -> tuple[np.ndarray, np.ndarray]:
    """Returns a reader's matrix re-fitted on the moments alone, zeros in the rows that are gone, and what a bias gains.

    Args:
        one: its moments; what it reads is taken to be what it was.
        kept: for each unit whether it stays; see `Channels.kept`.
        ridge: see RIDGE; it holds the weights to what they were.
    """
    whole = one.reader.matrix()
    stays = kept[one.reader.units]
    made = np.where(stays[:, None], whole, 0)
    for rows, gram in one.centred():
        inside, outside = np.flatnonzero(stays[rows]), np.flatnonzero(~stays[rows])
        if len(inside) and len(outside):
            held = ridged(gram, ridge)
            right = held[np.ix_(inside, outside)] @ whole[rows[outside]]
            made[rows[inside]] += linalg.solve(held[np.ix_(inside, inside)], right, assume_a="pos")
    return made, one.means @ (whole - made)
