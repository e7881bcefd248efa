"""Weights and the covariance of their inputs go in; integers whose error the others make up for come out.

The error of a row is (v - w)ᵀ H (v - w), so what one column loses by its rounding can be taken back by those that are
rounded after it (GPTQ: Frantar et al. 2022, arXiv 2210.17323). Coordinate descent then changes single integers, and
the step of the row, for as long as that lowers the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.rounding.grid import Grid, in_float16
from edgeopt.rounding.moments import damped

DAMPING = 0.01
# Shares of the widest step that are tried for each row: few bits are worth clipping for.
_LEAST_SHARE = 0.3
_SHARES = 18
# Multiply-adds that trying steps, and changing integers, may take; of larger layers less is tried.
_MOST_MACS = 2e11
# Columns whose corrections are applied to the rest at once.
_BLOCK = 128
_PASSES = 6
# Passes through the blocks of a row: a third changes next to nothing.
_JOINT_PASSES = 2


def round_rows(
    weights: np.ndarray,
    hessian: np.ndarray,
    grid: Grid,
    *,
    steps: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    together: bool = False,
    by_activations: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers, as floats [groups, rows, columns], and their steps [groups, rows, 1 or columns].

    Args:
        weights: real, [groups, rows, columns].
        hessian: [groups, columns, columns].
        grid: the integers that there are.
        steps: those to round with; where None each row gets the step that leaves the least error.
        zeros: which weights have to stay exactly 0.
        together: all rows have to share one step.
        by_activations: columns with the largest inputs come first, as nothing after them could make up for their
            error; else they come as they are stored.
    """
    order = _Order.of(hessian, by_activations=by_activations)
    if steps is not None:
        integers = _compensated(weights, order, grid, steps, zeros)
        return _descended(weights, hessian, grid, integers, steps, zeros, fixed=True)
    widest = grid.widest(weights)
    if together:
        widest = np.broadcast_to(widest.max(), widest.shape)
    best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    for share in _shares(weights.shape):
        tried = widest * share
        integers = _compensated(weights, order, grid, tried, zeros)
        errors = row_errors(weights, integers * tried, hessian)
        if together:
            errors = np.broadcast_to(errors.sum(), errors.shape)
        if best is None:
            best = integers, np.array(tried), errors
            continue
        better = (errors < best[2])[..., None]
        best = (
            np.where(better, integers, best[0]),
            np.where(better, tried, best[1]),
            np.where(better[..., 0], errors, best[2]),
        )
    assert best is not None
    return _descended(weights, hessian, grid, best[0], best[1], zeros, fixed=together)


def block_steps(
    weights: np.ndarray, hessian: np.ndarray, grid: Grid, block: int, *, jointly: bool = False
) -> np.ndarray:
    """Returns a step for each `block` columns of a row, [groups, rows, columns], as float16 holds them.

    Of shares of the widest, the one whose nearest integers leave the least error of what the block adds to the output;
    `jointly` of the whole output, block by block and twice, given what the other blocks do (the clipping of AWQ, Lin
    et al. 2023, arXiv 2306.00978, with the covariance in place of samples).
    """
    steps = grid.widest(weights, block)
    widest, shares = steps.copy(), _shares((*weights.shape[:2], block))
    off = grid.nearest(weights, steps) * steps - weights
    for _ in range(_JOINT_PASSES if jointly else 1):
        for start in range(0, weights.shape[2], block):
            part = slice(start, start + block)
            square, real = hessian[:, part, part], weights[..., part]
            pulled = off @ hessian[:, :, part] - off[..., part] @ square if jointly else np.zeros_like(real)
            least = _block_errors(off[..., part], square, pulled)
            for share in shares:
                tried = in_float16(widest[..., part] * share)
                other = grid.nearest(real, tried) * tried - real
                errors = _block_errors(other, square, pulled)
                better = (errors < least)[..., None]
                steps[..., part] = np.where(better, tried, steps[..., part])
                off[..., part] = np.where(better, other, off[..., part])
                least = np.minimum(errors, least)
    return steps


def _block_errors(off: np.ndarray, square: np.ndarray, pulled: np.ndarray) -> np.ndarray:
    """Returns what a block's rounding adds to the error of each row, where the other blocks pull it so."""
    found: np.ndarray = ((off @ square + 2 * pulled) * off).sum(-1)
    return found


def row_errors(weights: np.ndarray, rounded: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Returns (v - w)ᵀ H (v - w) of each row, [groups, rows]: the mean squared error of its output."""
    off = rounded - weights
    found: np.ndarray = np.einsum("grk,grk->gr", off @ hessian, off)
    return np.maximum(0.0, found)


def _shares(shape: tuple[int, ...]) -> np.ndarray:
    return np.linspace(1.0, _LEAST_SHARE, max(4, min(_SHARES, _affordable(shape))))


def _affordable(shape: tuple[int, ...]) -> int:
    """Returns how often all weights of a layer may be gone through."""
    groups, rows, columns = shape
    return int(_MOST_MACS / max(1.0, groups * rows * float(columns) ** 2))


@dataclass(frozen=True)
class _Order:
    """The order in which columns are rounded, and what the error of each does to those that follow.

    Attributes:
        along, back: of the columns, [groups, 1, columns], there and back.
        factor: upper Cholesky factor of the inverse of the damped Hessian in that order.
    """

    along: np.ndarray
    back: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, hessian: np.ndarray, *, by_activations: bool) -> _Order:
        """Returns that of a Hessian: by its diagonal, the largest first, or as it is."""
        diagonal = np.einsum("gkk->gk", hessian)
        order = np.argsort(-diagonal if by_activations else np.zeros_like(diagonal), axis=1, kind="stable")
        along = order[:, None, :]
        turned = np.take_along_axis(np.take_along_axis(damped(hessian, DAMPING), order[:, :, None], 1), along, 2)
        factor = np.linalg.cholesky(np.linalg.inv(turned)).transpose(0, 2, 1)
        return cls(along, np.argsort(order, axis=1)[:, None, :], np.ascontiguousarray(factor))


def _compensated(
    weights: np.ndarray, order: _Order, grid: Grid, steps: np.ndarray, zeros: np.ndarray | None
) -> np.ndarray:
    """Rounds the columns in their order; each one's error goes into those that follow."""
    left = np.take_along_axis(np.asarray(weights, np.float64), order.along, 2)
    step = np.take_along_axis(np.broadcast_to(steps, weights.shape), order.along, 2)
    fixed = None if zeros is None else np.take_along_axis(zeros, order.along, 2)
    columns, factor = weights.shape[2], order.factor
    found = np.empty_like(left)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.empty((*left.shape[:2], end - start))
        for k in range(start, end):
            integers = grid.nearest(left[..., k], step[..., k])
            if fixed is not None:
                integers[fixed[..., k]] = 0.0
            found[..., k] = integers
            errors[..., k - start] = (left[..., k] - integers * step[..., k]) / factor[:, k, k, None]
            left[..., k + 1 : end] -= errors[..., k - start, None] * factor[:, None, k, k + 1 : end]
        left[..., end:] -= errors @ factor[:, start:end, end:]
    return np.take_along_axis(found, order.back, 2)


def _descended(
    weights: np.ndarray,
    hessian: np.ndarray,
    grid: Grid,
    integers: np.ndarray,
    steps: np.ndarray,
    zeros: np.ndarray | None,
    *,
    fixed: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers and steps after descent along single coordinates: no row's error rises.

    Args:
        fixed: steps stay as they are.
    """
    q, s = np.array(integers), np.array(steps, np.float64)
    curvature = np.einsum("gkk->gk", hessian)
    for _ in range(max(1, min(_PASSES, _affordable(weights.shape)))):
        pulled = (q * s - weights) @ hessian  # half the gradient of each row's error
        before = q.copy()
        for k in range(weights.shape[2]):
            if not curvature[:, k].any():
                continue
            step = s[..., min(k, s.shape[2] - 1)]
            bend = np.where(curvature[:, k] > 0, curvature[:, k], np.inf)[:, None]
            wanted = np.clip(np.rint(q[..., k] - pulled[..., k] / (bend * step)), -grid.highest, grid.highest)
            if zeros is not None:
                wanted[zeros[..., k]] = 0.0
            moved = (wanted - q[..., k]) * step
            if moved.any():
                pulled += moved[..., None] * hessian[:, None, k]
                q[..., k] = wanted
        if not fixed and s.shape[2] == 1:
            s = _best_steps(weights, hessian, q, s)
        if np.array_equal(q, before):
            break
    return q, s


def _best_steps(weights: np.ndarray, hessian: np.ndarray, integers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Returns the step of each row that leaves the least error with these integers: (q H w) / (q H q)."""
    turned = integers @ hessian
    above = np.einsum("grk,grk->gr", turned, weights)
    below = np.einsum("grk,grk->gr", turned, integers)
    found = np.divide(above, below, out=np.zeros_like(above), where=below > 0)[..., None]
    return np.where(found > 0, found, steps)
