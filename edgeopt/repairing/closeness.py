"""A float file, quantized ones and samples go in; how far their outputs lie from its comes out, beside its doubt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.repairing.running import RUNS, Values, outputs
from edgeopt.runtimes import Runtime
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Promise

if TYPE_CHECKING:
    from edgeopt.data import Part

# A difference that chance alone brings less often than this is one.
_DOUBT = 0.05
# Of outputs that many files are compared with.
_HELD_BYTES = 64 << 20


@dataclass(frozen=True)
class Reference:
    """The outputs of a float file.

    Attributes:
        values: by name, [N, ...].
        spreads: mean square of each output around its mean over the samples; 1 of one that is the same for all.
        heeds: how much the square of each number counts, [N, ...]; an output without counts everywhere alike.
    """

    values: Mapping[str, np.ndarray]
    spreads: Mapping[str, float]
    heeds: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """How far two files lie from one float file, on the same samples.

    Attributes:
        before, after: error of the outputs as a share of their spread, 0 where there is none.
        p_value: of a paired t-test of the samples' errors, two-sided.
        samples: how many.
    """

    before: float
    after: float
    p_value: float
    samples: int

    @property
    def nearer(self) -> bool:
        """Whether the second is shown to be nearer."""
        return self.after < self.before and self.p_value < _DOUBT

    @property
    def farther(self) -> bool:
        """Whether the second is shown to be farther away."""
        return self.after > self.before and self.p_value < _DOUBT

    @property
    def promise(self) -> Promise:
        """That the second is no farther away, as measured."""
        return Promise("output error beside float32", limit=100 * self.before, unit="%").found(100 * self.after)

    @property
    def words(self) -> str:
        """In one line."""
        shown = "less" if self.nearer else "more" if self.farther else "equal, within chance"
        return f"output error {self.before:.3%} before, {self.after:.3%} after ({self.samples} samples: {shown})"


def held_at_once(float_file: Path, part: Part) -> Part:
    """Returns the samples, or the first of them, whose outputs are small enough to be held in memory."""
    each = sum(4 * math.prod(size or 1 for size in spec.shape) for spec in read_once(float_file).outputs)
    return part.head(max(2, _HELD_BYTES // max(each, 1)))


def reference(
    file: Path, part: Part, runtime: Runtime = RUNS, *, heed: Callable[[np.ndarray], np.ndarray] | None = None
) -> Reference:
    """Returns the outputs of a float file on all samples of a part; `heed` gives how much each number of one counts."""
    values = _joined(outputs(file, part, runtime))
    if heed is None:
        return Reference(values, {name: float(np.var(array, axis=0).mean()) or 1.0 for name, array in values.items()})
    heeds = {name: heed(array) for name, array in values.items()}
    spreads = {
        name: float((np.square(array - array.mean(0)) * heeds[name]).mean()) or 1.0 for name, array in values.items()
    }
    return Reference(values, spreads, heeds)


def errors(floating: Reference, file: Path, part: Part, runtime: Runtime = RUNS) -> np.ndarray:
    """Returns for each sample the mean square of what a file's outputs are off, in spreads: float64 [N].

    What is not finite counts as infinitely far. Several outputs add up.
    """
    found = _joined(outputs(file, part, runtime))
    total = np.zeros(len(part))
    for ours, theirs in _paired(floating.values, found).items():
        squares = _squares(floating.values[ours], found[theirs])
        if ours in floating.heeds:
            squares *= np.where(np.isfinite(squares), floating.heeds[ours], 1.0)
        total += squares.reshape(len(squares), -1).mean(1) / floating.spreads[ours]
    return total


def change(before: np.ndarray, after: np.ndarray) -> Change:
    """Returns how two files differ by what `errors` gave for them."""
    from scipy.stats import ttest_rel

    # Roots, since a few samples make most of a sum of squares.
    pair = np.sqrt(before), np.sqrt(after)
    apart = pair[0] - pair[1]
    if not np.isfinite(apart).all() or len(apart) < 2 or np.ptp(apart) == 0:
        p_value = 1.0 if not np.isfinite(apart).all() or len(apart) < 2 or apart[0] == 0 else 0.0
    else:
        p_value = float(ttest_rel(*pair).pvalue)
    return Change(_root_mean(before), _root_mean(after), p_value, len(before))


def compared(float_file: Path, part: Part, runtime: Runtime = RUNS, *, before: Path, after: Path) -> Change:
    """Returns how far two files lie from a float file, as `errors` has it; memory does not grow with the samples."""
    streams = [_samples(outputs(file, part, runtime)) for file in (float_file, before, after)]
    spreads: dict[str, _Spread] = {}
    apart: tuple[dict[str, list[float]], ...] = ({}, {})
    for floating, *others in zip(*streams):
        for name, values in floating.items():
            spreads.setdefault(name, _Spread(values)).add(values)
        for found, other in zip(apart, others):
            for name, theirs in _paired(floating, other).items():
                found.setdefault(name, []).append(float(_squares(floating[name], other[theirs]).mean()))
    squares = [
        sum((np.array(errors) / spreads[name].value for name, errors in found.items()), np.zeros(len(part)))
        for found in apart
    ]
    return change(*squares)


class _Spread:
    """The mean square of an output around its mean, a sample at a time."""

    def __init__(self, first: np.ndarray) -> None:
        # Sums of what is near 0 lose no digits.
        self._first = first.astype(np.float64)
        self._count, self._sum, self._squares = 0, np.zeros(first.shape), np.zeros(first.shape)

    def add(self, values: np.ndarray) -> None:
        apart = values - self._first
        self._count += 1
        self._sum += apart
        self._squares += apart**2

    @property
    def value(self) -> float:
        return float((self._squares / self._count - (self._sum / self._count) ** 2).mean()) or 1.0


def _samples(batches: Iterable[Values]) -> Iterator[Values]:
    """Yields one sample at a time: files may take batches of different sizes."""
    for batch in batches:
        for number in range(len(next(iter(batch.values())))):
            yield {name: array[number] for name, array in batch.items()}


def _paired(floating: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns which output is which: by name, or by place."""
    return {name: name for name in floating} if set(floating) == set(found) else dict(zip(floating, found))


def _squares(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns squares of differences, infinite where one is not finite."""
    squares = (theirs.astype(np.float64) - ours) ** 2
    return np.where(np.isfinite(squares), squares, np.inf)


def _root_mean(squares: np.ndarray) -> float:
    return math.sqrt(float(squares.mean())) if len(squares) else math.nan


def _joined(batches: Iterable[Values]) -> Values:
    found = list(batches)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
