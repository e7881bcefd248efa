"""Inputs of a layer, a batch at a time, go in; what a quadratic error of its outputs depends on comes out.

For y = W x + b in floats and v = V z + c with other inputs z, the mean of (y - v)^2 over samples, c chosen best, is a
quadratic of V around a target. Memory does not grow with the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Sums over samples, float64, of what inputs are beyond those of the first rows: what is near 0 loses no digits.

    Attributes:
        count: rows that were seen.
        floats, arrived: sums of the inputs, [groups, columns]: those of the float layer, and those that arrive.
        products: sum of z zᵀ, [groups, columns, columns].
        crossed: sum of x zᵀ.
        first: what is taken from both, [groups, columns].
    """

    count: int
    floats: np.ndarray
    arrived: np.ndarray
    products: np.ndarray
    crossed: np.ndarray
    first: tuple[np.ndarray, np.ndarray]

    @classmethod
    def none(cls, groups: int, columns: int) -> Moments:
        """Returns the sums over nothing."""
        line, square = (groups, columns), (groups, columns, columns)
        zero = np.zeros(line)
        return cls(0, zero.copy(), zero.copy(), np.zeros(square), np.zeros(square), (zero, zero))

    def add(self, floats: np.ndarray, arrived: np.ndarray) -> None:
        """Adds rows [groups, rows, columns] of what the float layer gets, and of what arrives in its stead."""
        if not self.count:
            self.first = floats.mean(1, dtype=np.float64), arrived.mean(1, dtype=np.float64)
        floats, arrived = (
            (each - first[:, None]).astype(each.dtype) for each, first in zip((floats, arrived), self.first)
        )
        self.count += floats.shape[1]
        self.floats += floats.sum(1, dtype=np.float64)
        self.arrived += arrived.sum(1, dtype=np.float64)
        turned = arrived.transpose(0, 2, 1)
        self.products += turned @ arrived
        self.crossed += floats.transpose(0, 2, 1) @ arrived

    def hessian(self) -> np.ndarray:
        """Returns the covariance of what arrives, [groups, columns, columns]: the mean is left to the bias."""
        return self.products / max(1, self.count) - _outer(self._mean(self.arrived), self._mean(self.arrived))

    def covariance(self) -> np.ndarray:
        """Returns that of the float layer's inputs with what arrives, [groups, columns, columns]."""
        return self.crossed / max(1, self.count) - _outer(self._mean(self.floats), self._mean(self.arrived))

    def offset(self, weights: np.ndarray, rounded: np.ndarray) -> np.ndarray:
        """Returns what has to be added to the bias so that the means of the outputs stay, [groups, rows]."""
        floats, arrived = (self._mean(each) + first for each, first in zip((self.floats, self.arrived), self.first))
        kept = np.einsum("grk,gk->gr", weights, floats)
        found: np.ndarray = kept - np.einsum("grk,gk->gr", rounded, arrived)
        return found

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        return sums / max(1, self.count)


def target(weights: np.ndarray, hessian: np.ndarray, covariance: np.ndarray, *, damping: float) -> np.ndarray:
    """Returns the real weights that come nearest to the float layer's outputs from what arrives.

    W + W (C_xz - C_zz) (C_zz + damping)^-1, the least squares of the difference: where samples say little, it stays
    with W.

    Args:
        weights: of the float layer, [groups, rows, columns].
        hessian, covariance: C_zz and C_xz, as Moments has them.
        damping: share of the mean of the Hessian's diagonal.
    """
    return shifted(weights, hessian, weights @ (covariance - hessian), damping=damping)


def shifted(weights: np.ndarray, hessian: np.ndarray, missing: np.ndarray, *, damping: float) -> np.ndarray:
    """Returns weights + missing (hessian + damping)^-1; `missing` is what their outputs lack, with what arrives."""
    turned = np.linalg.solve(damped(hessian, damping), missing.transpose(0, 2, 1))
    found: np.ndarray = weights + turned.transpose(0, 2, 1)
    return found


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    """Returns [groups, K, K] with a share of the mean of its diagonal added there, so that it has an inverse."""
    diagonal = np.einsum("gkk->gk", hessian)
    mean = diagonal.mean(1)
    # An input that never varies leaves every rounding equal.
    added = np.where(mean > 0, damping * mean, 1.0)
    return hessian + added[:, None, None] * np.eye(hessian.shape[-1])


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left[:, :, None] * right[:, None, :]
