"""Outputs, labels and a metric's name go in; its rows, gathered batch by batch as an evaluation does, come out."""

from __future__ import annotations

import numpy as np

from edgeopt.metrics import Rows, metric
from edgeopt.vocabulary import Batch, MetricValue


def rows_of(name: str, outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray, size: int = 64) -> Rows:
    """Returns settled rows."""
    one = metric(name)
    pieces = [
        one.per_sample(
            outputs[i : i + size], Batch({"x": x[i : i + size]}, None if labels is None else labels[i : i + size])
        )
        for i in range(0, len(outputs), size)
    ]
    return one.settle(*(np.concatenate(column) for column in zip(*pieces)))


def value_of(name: str, outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray) -> MetricValue:
    """Returns the value of all samples."""
    return metric(name).value(rows_of(name, outputs, labels, x))
