"""What every metric is: the rows that it keeps of each sample go in, its value, interval and paired test come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeopt import statistics
from edgeopt.errors import DataError
from edgeopt.vocabulary import Batch, Breakdown, Difference, MetricValue

# Arrays whose first axis is the samples.
Rows = tuple[np.ndarray, ...]


def _as_they_are(*rows: np.ndarray) -> Rows:
    return rows


def _not_apart(*rows: np.ndarray) -> Breakdown | None:
    return None


def _never(*rows: np.ndarray) -> bool:
    return False


def _not_finite(*rows: np.ndarray) -> str:
    return " (an output or a label is not finite)" if any(not np.isfinite(array).all() for array in rows) else ""


def share(hits: np.ndarray) -> float:
    """Returns the mean of hits [N], or of (hits, things that may be hit) of each sample, [N, 2], over all things."""
    if hits.ndim == 1:
        return float(np.mean(hits, dtype=np.float64)) if len(hits) else math.nan
    hit, total = hits.sum(axis=0, dtype=np.float64)
    return float(hit / total) if total else math.nan


@dataclass(frozen=True)
class Score:
    """A number that says how good a model is, made of the rows of all samples.

    Attributes:
        name: key of METRICS, a name with its number, or "module:function"; that of several outputs together.
        summary: one line for help and docs.
        combine: `combine(*rows)` is the value; NaN where it is not defined.
        higher_is_better: the direction.
        is_share: the value lies in 0 to 1, or below where it is worse than no answer; differences are given in
            percentage points.
        resamples: how many samples are drawn anew for its interval and test; None: see `statistics.bootstrap`.
        whole: `whole(*rows)` says whether the value is a function of all samples that may take long and cannot be taken
            apart: its doubt is then found by leaving groups of them out, in a tenth of the calls.
        why_undefined: `why_undefined(*rows)` says in brackets why the value is not a finite number.
    """

    name: str
    summary: str
    combine: Callable[..., float]
    higher_is_better: bool = True
    is_share: bool = False
    resamples: int | None = None
    whole: Callable[..., bool] = _never
    why_undefined: Callable[..., str] = _not_finite

    def value(self, rows: Rows) -> MetricValue:
        """Returns the value of settled rows with its 95 % interval.

        Wilson's interval for shares of samples, the jackknife for functions of all of them, else the bootstrap.

        Raises:
            DataError: the metric is not defined on these samples.
        """
        value = self.combine(*rows)
        if not math.isfinite(value):
            what = "not a number" if math.isnan(value) else "infinite"
            raise DataError(
                f"Expected samples on which {self.name} is defined, got {len(rows[0])} on which it is {what}"
                f"{self.why_undefined(*rows)}. Try other data, or another --metric."
            )
        if self._are_hits(rows):
            low, high = statistics.wilson(int(rows[0].sum()), len(rows[0]))
        elif self.whole(*rows):
            low, high = self._bounded(statistics.jackknife(rows, self.combine))
        else:
            low, high = statistics.bootstrap(rows, self.combine, resamples=self.resamples)
        return MetricValue(self.name, value, low, high, len(rows[0]), self.higher_is_better, self.is_share)

    def difference(self, reference: Rows, other: Rows) -> Difference:
        """Returns how much worse settled rows are than the reference's, of the same samples, with a p-value.

        In percentage points for shares, else in per cent of the reference's value. McNemar's exact test and Agresti
        and Min's interval for shares of samples, the paired jackknife for functions of all of them, else the paired
        permutation test and bootstrap.

        Raises:
            DataError: the two were not measured on the same number of samples.
        """
        if len(reference[0]) != len(other[0]):
            raise DataError(
                f"Expected both models scored on the same samples, got {len(reference[0])} and {len(other[0])}. "
                "Try evaluating them on the same data."
            )
        before, after = self.combine(*reference), self.combine(*other)
        worse = before - after if self.higher_is_better else after - before
        if self._are_hits(reference) and self._are_hits(other):
            p_value = statistics.mcnemar(reference[0], other[0])
            bounds = statistics.paired_shares(reference[0], other[0])
        elif self.whole(*reference):
            bounds, p_value = statistics.paired_jackknife(reference, other, self.combine)
        else:
            p_value = statistics.paired_permutation(reference, other, self.combine, resamples=self.resamples)
            bounds = statistics.paired_bootstrap(reference, other, self.combine, resamples=self.resamples)
        low, high = bounds if self.higher_is_better else (-bounds[1], -bounds[0])

        def told(amount: float) -> float:
            if self.is_share:
                return 100 * amount
            if before == 0:
                return 0.0 if amount == 0 else math.copysign(math.inf, amount)
            return 100 * amount / abs(before)

        return Difference(told(worse), p_value, told(low), told(high))

    def _bounded(self, bounds: tuple[float, float]) -> tuple[float, float]:
        return (bounds[0], min(bounds[1], 1.0)) if self.is_share else bounds

    def _are_hits(self, rows: Rows) -> bool:
        """Whether each sample counted 0 or 1, so that the value is a proportion of samples."""
        return self.combine is share and rows[0].ndim == 1 and bool(np.isin(rows[0], (0.0, 1.0)).all())


@dataclass(frozen=True, kw_only=True)
class Metric(Score):
    """A way to score an output.

    Attributes:
        per_sample: takes real-valued outputs [N, ...] and the batch they belong to, and gives its rows.
        settle: `settle(*rows)` brings the rows of all samples to what `combine` takes: what only all together
            show is decided there.
        by: "classes" or "targets" where the score is worth taking apart so; see `breakdown`.
        apart: `apart(*rows)` takes settled rows apart where `by` says nothing; None where there is nothing to tell.
        free_labels: whether labels need not have the output's form: its shape, or classes of its units.
        reads_all: whether it is of all outputs at once where there are several and it is said for all: it then takes
            what `heads.read` gives of them.
    """

    per_sample: Callable[[np.ndarray, Batch], Rows]
    settle: Callable[..., Rows] = _as_they_are
    by: str = ""
    apart: Callable[..., Breakdown | None] = _not_apart
    free_labels: bool = False
    reads_all: bool = False
