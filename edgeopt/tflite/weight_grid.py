"""Float weights and a number of bits go in; the integers nearest to them, and the scales they stand on, come out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeopt.errors import named
from edgeopt.tflite.stored_weights import STORED_BITS, StoredWeights

# The algorithm that finds what weights were rounded to before.
TRAINED = "trained"
# Of a step: what folding a BatchNormalization into rounded weights leaves in float32.
_TOLERANCE = 1e-3
# Shares of the largest weight at which scales are tried: two bits want a fifth to a third of it, eight nearly all.
_SHARES = np.linspace(1.0, 0.2, 41, dtype=np.float32)


def limits(bits: int) -> tuple[int, int]:
    """Returns the least and the greatest integer of so many bits; of eight, kernels want -127 and no less."""
    return (-127 if bits == 8 else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1


def nearest(
    weights: np.ndarray,
    bits: int,
    *,
    axis: int | None,
    algorithm: str = "mse",
    stored_bits: int | None = None,
    least_scales: np.ndarray | float = 0.0,
) -> StoredWeights:
    """Returns float weights in integers, each the nearest that its scale allows.

    Args:
        weights: float32, in the tensor's shape.
        bits: of the values: 2 to 8.
        axis: what gets a scale a slice; None for one scale.
        algorithm: how scales are found, a key of ALGORITHMS.
        stored_bits: of the file; the fewest that hold the values where nothing is said.
        least_scales: [slices] or one number, below which no scale goes, as a bias may ask for.

    Raises:
        ConfigError: there is no such algorithm.
    """
    rows = _rows(weights, axis)
    scales = named(ALGORITHMS, algorithm, "an algorithm for the scales of weights")(rows.astype(np.float32), bits)
    # What is all zero may have any scale; one like its neighbours' keeps its bias within its integers.
    usual = float(np.median(scales[scales > 0])) if (scales > 0).any() else 1.0
    scales = np.maximum(np.where(scales > 0, scales, usual), least_scales).astype(np.float32)
    integers = _rounded(rows, scales, bits).astype(np.int8)
    values = integers.reshape(np.moveaxis(weights, axis or 0, 0).shape)
    fewest = min(each for each in STORED_BITS if each >= bits)
    return StoredWeights(np.moveaxis(values, 0, axis or 0), scales, stored_bits or fewest, axis)


def on_grid(weights: np.ndarray, bits: int, *, axis: int | None) -> bool:
    """Whether float weights are integers of so many bits already, times a scale for each slice along `axis`."""
    return bool(np.isfinite(_rounded_before(_rows(weights, axis), bits)).all())


def _rows(weights: np.ndarray, axis: int | None) -> np.ndarray:
    return weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def _rounded(rows: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.rint(rows / scales[:, None]), *limits(bits))


def _largest(rows: np.ndarray, bits: int) -> np.ndarray:
    """The largest weight becomes the largest integer: s = max |w| / (2^(b-1) - 1)."""
    return np.abs(rows).max(axis=1, initial=0.0) / np.float32(limits(bits)[1])


def _least_error(rows: np.ndarray, bits: int) -> np.ndarray:
    """The scale, of 41 shares of the largest weight's, that leaves the least sum of squared errors."""
    largest = _largest(rows, bits)
    # A slice of zeros has no scale; 1 stands in where a division wants one.
    safe = np.where(largest > 0, largest, 1.0).astype(np.float32)
    best, least = safe, np.full(len(rows), np.inf, np.float32)
    for share in _SHARES:
        scales = safe * share
        error = np.square(rows - scales[:, None] * _rounded(rows, scales, bits)).sum(axis=1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return np.where(largest > 0, best, 0.0)


def _rounded_before(rows: np.ndarray, bits: int) -> np.ndarray:
    """The scale of which all weights are multiples, NaN where there is none.

    The largest weight need not be the largest integer; it is one of 1, 2, 3 … steps, and the fewest that fit are taken.
    """
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    scales = np.where(largest > 0, np.nan, 0.0)
    for steps in range(1, limits(bits)[1] + 1):
        for row in np.flatnonzero(np.isnan(scales) & np.isfinite(largest)):
            ratios = rows[row] * (steps / largest[row])
            if np.abs(ratios - np.rint(ratios)).max() <= _TOLERANCE:
                scales[row] = largest[row] / steps
    return scales


ALGORITHMS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "min-max": _largest,
    "mse": _least_error,
    TRAINED: _rounded_before,
}
