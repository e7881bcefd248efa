"""Metrics of several outputs go in; one metric of all of them together, which decisions go by, comes out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.metrics.contract import Metric, Rows, Score
from edgeopt.vocabulary import Batch

NAME = "outputs"


@dataclass(frozen=True)
class Scored:
    """One of several outputs.

    Attributes:
        metric: of it.
        columns: how many arrays its rows are.
        naive: the metric's value of who answers the same to every sample; see `naive`.
    """

    metric: Metric
    columns: int
    naive: float

    def goodness(self, rows: Rows) -> float:
        """Returns the score as a share: of an error what part of the naive one's is not made, at most all of it."""
        value = self.metric.combine(*rows)
        if self.metric.is_share:
            return value if self.metric.higher_is_better else 1 - value
        if self.metric.higher_is_better or not self.naive:
            return value
        return 1 - value / self.naive


def together(outputs: Sequence[Scored]) -> Score:
    """Returns the mean over outputs of how good each is, 1 at best: a share as it is, an error as the part of the naive
    answer's that is not made (of squared errors that is R²).
    """

    def combine(*rows: np.ndarray) -> float:
        found = [one.goodness(each) for one, each in zip(outputs, _apart(outputs, rows))]
        return float(np.mean(found)) if all(map(math.isfinite, found)) else math.nan

    def whole(*rows: np.ndarray) -> bool:
        return any(one.metric.whole(*each) for one, each in zip(outputs, _apart(outputs, rows)))

    resamples = [one.metric.resamples for one in outputs if one.metric.resamples is not None]
    return Score(
        NAME,
        "mean over outputs of how good each is",
        combine,
        is_share=True,
        resamples=min(resamples, default=None),
        whole=whole,
    )


def naive(metric: Metric, outputs: np.ndarray, batch: Batch) -> float:
    """Returns the metric's value of who answers the same to every sample: the labels' mean, or nothing of classes.

    Args:
        metric: of the output.
        outputs: of any samples [M, ...]: their shape counts.
        batch: samples with the labels of this output.
    """
    labels, shape = batch.labels, (len(batch), *outputs.shape[1:])
    constant = np.zeros(shape, np.float32)
    if labels is not None and labels.size == constant.size:
        constant += labels.reshape(shape).mean(axis=0)
    return metric.combine(*metric.settle(*metric.per_sample(constant, batch)))


def _apart(outputs: Sequence[Scored], rows: Rows) -> Iterator[Rows]:
    start = 0
    for one in outputs:
        yield rows[start : start + one.columns]
        start += one.columns
