"""Kernels go in; the scales with which each layer's channels have ranges as even as can be come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.equalizing.scaling import Kernel

# No channel is scaled by more, in either direction: what would need it computes next to nothing.
LIMIT = 2.0**20
# Ranges below this share of a kernel's largest count as zero: no float32 sum of them and the largest shows them.
DEAD = 2.0**-24
# Scales that move by less in a sweep have settled.
SETTLED = 0.01
SWEEPS = 500


@dataclass(frozen=True)
class Solution:
    """Scales of channels.

    Attributes:
        scales: [units + 1], the last of them 1.
        sweeps: over all kernels.
        settled: whether the last one moved nothing.
    """

    scales: np.ndarray
    sweeps: int
    settled: bool


def solve(kernels: Sequence[Kernel], units: int) -> Solution:
    """Returns the scales that make the ranges of channels within each kernel alike, on both of its sides.

    A channel between two layers ends where its share of either layer's range is the same, which is eq. 11 of Nagel et
    al. (arXiv 1906.04721) but for a factor that all channels of a layer have; where more than two layers share it, at
    the geometric mean. Zeros, and what is next to them, pull nowhere.
    """
    sides = [side for kernel in kernels for side in _sides(kernel, units)]
    moves = np.zeros(units + 1)
    for sweep in range(1, SWEEPS + 1):
        total, count = np.zeros(units + 1), np.zeros(units + 1)
        scales = np.exp(moves)
        for kernel, here in _by_kernel(sides):
            scaled = kernel.scaled(scales)
            for side in here:
                deviations, live = side.deviations(scaled)
                total[side.free[live]] += side.sign * deviations[live]
                count[side.free[live]] += 1
        step = total / np.maximum(count, 1)
        moved = np.clip(moves + step, -np.log(LIMIT), np.log(LIMIT))
        moved[-1] = 0.0
        change = float(np.abs(moved - moves).max())
        moves = moved
        if change < SETTLED:
            return Solution(np.exp(moves), sweep, True)
    return Solution(np.exp(moves), SWEEPS, False)


def unevenness(kernel: Kernel, scales: np.ndarray) -> float:
    """Returns how many times the largest weight of a kernel is that of a typical channel that it makes.

    Its base-2 logarithm is how many bits fewer such a channel has than the layer, where all weights have one scale.
    """
    return spread(_ranges(kernel.scaled(scales), kernel.made.shape))


def spread(ranges: np.ndarray) -> float:
    """Returns the largest of some ranges over the geometric mean of those that are not next to zero."""
    live = ranges[ranges > DEAD * ranges.max(initial=0.0)]
    return float(live.max() / np.exp(np.log(live).mean())) if live.size else 1.0


@dataclass(frozen=True, eq=False)
class _Side:
    """The channels on one side of a kernel.

    Attributes:
        sign: 1 where they are made, -1 where they are read: which way a larger scale moves their range.
        shape: of the channels, to which the magnitudes are reduced.
        places: for each of them, which of `members` it is.
        free: units that may move, the first of the members.
        members: how many there are; those without a scale come last.
    """

    kernel: Kernel
    sign: int
    shape: tuple[int, ...]
    places: np.ndarray
    free: np.ndarray
    members: int

    def deviations(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns how far the logarithm of each range is from their mean, and which ranges are no zeros."""
        ranges = np.zeros(self.members, np.float32)
        np.maximum.at(ranges, self.places, _ranges(scaled, self.shape))
        live = ranges > DEAD * ranges.max(initial=0.0)
        logs = np.log(np.where(live, ranges, 1.0).astype(np.float64))
        logs -= logs[live].mean() if live.any() else 0.0
        return logs[: len(self.free)], live[: len(self.free)]


def _sides(kernel: Kernel, units: int) -> Iterator[_Side]:
    for sign, numbers in ((1, kernel.made), (-1, kernel.given)):
        if (numbers < 0).all():
            continue
        flat = numbers.ravel()
        # What has no scale is a channel of its own at each place.
        own = np.where(flat < 0, units + np.arange(flat.size), flat)
        members, places = np.unique(own, return_inverse=True)
        yield _Side(kernel, sign, numbers.shape, places, members[members < units], len(members))


def _by_kernel(sides: Sequence[_Side]) -> Iterable[tuple[Kernel, list[_Side]]]:
    found: dict[int, tuple[Kernel, list[_Side]]] = {}
    for side in sides:
        found.setdefault(id(side.kernel), (side.kernel, []))[1].append(side)
    return found.values()


def _ranges(scaled: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the largest magnitudes of the channels that lie on the axes of `shape` that are no 1."""
    axes = tuple(axis for axis in range(scaled.ndim) if shape[axis] == 1 and scaled.shape[axis] != 1)
    found: np.ndarray = scaled.max(axis=axes).ravel()
    return found
