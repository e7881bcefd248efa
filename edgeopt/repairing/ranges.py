"""Values a batch at a time, or weights, go in; the range that integers shall hold comes out.

A range always holds 0, which every integer file has to be able to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Range = tuple[float, float]

_BINS = 2048
# Shares of a range that are tried as its clipped ends: of activations few values may reach very far.
_SHARES = np.concatenate([np.geomspace(0.005, 0.5, 40)[:-1], np.linspace(0.5, 1.0, 51)])
_WEIGHT_SHARES = np.linspace(0.2, 1.0, 81)
_OCTAV_STEPS = 20


@dataclass
class Histogram:
    """How often a tensor had which values, between the least and the largest.

    Attributes:
        low, high: of all values, with 0.
        counts: of all values but 0, int64 [bins].
        zeros: how many are 0, which every range says exactly: after a ReLU most.
    """

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    zeros: int = 0

    def add(self, values: np.ndarray) -> None:
        """Counts more values."""
        other = values[values != 0]
        self.zeros += values.size - other.size
        self.counts += np.histogram(np.clip(other, self.low, self.high), _BINS, (self.low, self.high))[0]

    @property
    def centres(self) -> np.ndarray:
        """What stands for the values of each bin: float64 [bins]."""
        edges = np.linspace(self.low, self.high, _BINS + 1)
        return (edges[1:] + edges[:-1]) / 2

    @property
    def empty(self) -> bool:
        """Whether there is nothing to choose: no values, or none but 0."""
        return not self.counts.any() or self.low == self.high


def min_max(found: Histogram, levels: int, symmetric: bool) -> Range:
    """Returns all that was seen."""
    return _held(found.low, found.high, symmetric)


def percentile(found: Histogram, levels: int, symmetric: bool, share: float = 0.9999) -> Range:
    """Returns the range of `share` of the values: what it leaves is cut from both ends, or from the only one."""
    edges = np.linspace(found.low, found.high, _BINS + 1)
    counts = found.counts.copy()
    counts[min(int(np.searchsorted(edges, 0.0, side="right")) - 1, _BINS - 1)] += found.zeros
    seen = np.cumsum(counts) / counts.sum()
    tail = (1 - share) / (2 if found.low < 0 < found.high else 1)
    low = edges[int(np.searchsorted(seen, tail, side="right"))] if found.low < 0 else 0.0
    high = edges[min(int(np.searchsorted(seen, 1 - tail)) + 1, _BINS)] if found.high > 0 else 0.0
    return _held(low, high, symmetric)


def mse(found: Histogram, levels: int, symmetric: bool) -> Range:
    """Returns the range with the least mean square error of rounding and clipping together.

    Banner et al., "Post training 4-bit quantization of convolutional networks", 2019, ask for the same; here the
    histogram says what a distribution is assumed for there.
    """
    return _best(found, levels, symmetric, _square_error)


def entropy(found: Histogram, levels: int, symmetric: bool) -> Range:
    """Returns the range whose histogram of integers says most of the values', by Kullback and Leibler's divergence.

    As TensorRT (S. Migacz, "8-bit inference with TensorRT", 2017); both ends of a range that has two are clipped in
    proportion.
    """
    return _best(found, levels, symmetric, _divergence)


# What may be chosen for activations, in the order in which they are tried.
ACTIVATIONS: Mapping[str, Callable[..., Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def _held(low: float, high: float, symmetric: bool) -> Range:
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    largest = max(-low, high)
    return (-largest, largest) if symmetric else (low, high)


def _best(found: Histogram, levels: int, symmetric: bool, loss: Callable[[Histogram, Range, int], float]) -> Range:
    ranges = [_held(found.low * share, found.high * share, symmetric) for share in _SHARES]
    if not symmetric and found.low < 0 < found.high:
        # Outliers are at one end as a rule.
        ranges += [_held(found.low, found.high * share, False) for share in _SHARES]
        ranges += [_held(found.low * share, found.high, False) for share in _SHARES]
    return min(ranges, key=lambda one: loss(found, one, levels))


def _square_error(found: Histogram, held: Range, levels: int) -> float:
    values = found.centres
    step = (held[1] - held[0]) / (levels - 1)
    near = np.clip(np.rint(values / step) * step, *held)
    inside = (values >= held[0]) & (values <= held[1])
    # Inside a bin that is as wide as some steps every remainder is as likely: a twelfth of the step squared.
    width = (found.high - found.low) / _BINS
    apart = np.where(inside & (width > step / 2), step**2 / 12, (values - near) ** 2)
    return float((found.counts * apart).sum())


def _divergence(found: Histogram, held: Range, levels: int) -> float:
    """Returns the divergence of the values from what integers over `held` tell of them."""
    values, counts = found.centres, found.counts.astype(np.float64)
    inside = (values >= held[0]) & (values <= held[1])
    told = counts[inside]
    if not told.sum():
        return np.inf
    seen = told.copy()
    seen[0] += counts[values < held[0]].sum()
    seen[-1] += counts[values > held[1]].sum()
    # An integer tells of its bins together: as much of each in which there was anything.
    starts = np.linspace(0, told.size, min(levels, told.size) + 1).astype(int)[:-1]
    there = told > 0
    each = np.add.reduceat(told, starts) / np.maximum(np.add.reduceat(there.astype(np.float64), starts), 1)
    spread = np.where(there, np.repeat(each, np.diff([*starts, told.size])), 0.0)
    seen, spread = seen / seen.sum(), spread / spread.sum()
    # What integers cannot tell at all is as unlikely as a part of one value.
    spread = np.maximum(spread, 1e-3 / counts.sum())
    known = seen > 0
    return float((seen[known] * np.log(seen[known] / spread[known])).sum())


# --- weights ---------------------------------------------------------------------------------------------------------


def weight_min_max(rows: np.ndarray, bits: int) -> np.ndarray:
    """Returns the largest magnitude of each row: float64 [rows] of [rows, values]."""
    return np.abs(rows).max(1, initial=0.0).astype(np.float64)


def weight_mse(rows: np.ndarray, bits: int) -> np.ndarray:
    """Returns for each row the clipping point with the least mean square error: float64 [rows]."""
    largest = weight_min_max(rows, bits)
    best, least = largest.copy(), np.full(len(rows), np.inf)
    highest = 2 ** (bits - 1) - 1
    for share in _WEIGHT_SHARES[::-1]:
        step = np.maximum(largest * share / highest, np.finfo(np.float32).tiny)[:, None]
        apart = rows - np.clip(np.rint(rows / step), -highest, highest) * step
        error = (apart**2).sum(1)
        better = error < least
        best[better], least[better] = (largest * share)[better], error[better]
    return best


def weight_octav(rows: np.ndarray, bits: int) -> np.ndarray:
    """Returns for each row the clipping point by OCTAV's fixed point: float64 [rows].

    Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation for Improved Quantization-aware Training", 2022,
    equation 3: s ← E|x|1(|x| > s) / (4^-B / 3 · E 1(0 < |x| ≤ s) + E 1(|x| > s)).
    """
    sizes = np.abs(rows).astype(np.float64)
    clip = sizes.sum(1) / np.maximum((sizes > 0).sum(1), 1)
    for _ in range(_OCTAV_STEPS):
        outside = sizes > clip[:, None]
        inside = (sizes > 0) & ~outside
        below = 4.0**-bits / 3 * inside.sum(1) + outside.sum(1)
        clip = np.where(below > 0, (sizes * outside).sum(1) / np.maximum(below, 1e-30), clip)
    # Few values may leave nothing outside.
    return np.where(clip > 0, np.minimum(clip, weight_min_max(rows, bits)), weight_min_max(rows, bits))


WEIGHTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "min-max": weight_min_max,
    "mse": weight_mse,
    "octav": weight_octav,
}


def alike(one: Range, others: Sequence[Range]) -> bool:
    """Whether a range is one of others, but for a hundredth of its width."""
    width = max(one[1] - one[0], 1e-30)
    return any(abs(one[0] - low) + abs(one[1] - high) < 0.01 * width for low, high in others)
