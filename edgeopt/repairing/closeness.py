"""A float file, quantized ones and samples go in; how far their outputs lie from its comes out, beside its doubt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.repairing.running import RUNS, Values, outputs
from edgeopt.runtimes import Runtime
from edgeopt.vocabulary import Promise

if TYPE_CHECKING:
    from edgeopt.data import Part

# A difference that chance alone brings less often than this is one.
_DOUBT = 0.05


@dataclass(frozen=True)
class Reference:
    """The outputs of a float file.

    Attributes:
        values: by name, [N, ...].
        spreads: mean square of each output around its mean over the samples; 1 of one that is the same for all.
    """

    values: Mapping[str, np.ndarray]
    spreads: Mapping[str, float]


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


def reference(file: Path, part: Part, runtime: Runtime = RUNS) -> Reference:
    """Returns the outputs of a float file on all samples of a part."""
    values = _joined(outputs(file, part, runtime))
    return Reference(values, {name: float(np.var(array, axis=0).mean()) or 1.0 for name, array in values.items()})


def errors(floating: Reference, file: Path, part: Part, runtime: Runtime = RUNS) -> np.ndarray:
    """Returns for each sample the mean square of what a file's outputs are off, in spreads: float64 [N].

    What is not finite counts as infinitely far. Several outputs add up.
    """
    found = _joined(outputs(file, part, runtime))
    names = dict(zip(floating.values, found)) if set(floating.values) != set(found) else {n: n for n in found}
    total = np.zeros(len(part))
    for ours, theirs in names.items():
        apart = found[theirs].astype(np.float64) - floating.values[ours]
        each = (apart**2).reshape(len(apart), -1).mean(1)
        total += np.where(np.isfinite(each), each, np.inf) / floating.spreads[ours]
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
    """Returns how far two files lie from a float file; see `errors`."""
    floating = reference(float_file, part, runtime)
    return change(errors(floating, before, part, runtime), errors(floating, after, part, runtime))


def _root_mean(squares: np.ndarray) -> float:
    return math.sqrt(float(squares.mean())) if len(squares) else math.nan


def _joined(batches: Iterable[Values]) -> Values:
    found = list(batches)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
