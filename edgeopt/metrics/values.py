"""Outputs and the numbers that they should be go in; rows of their errors, and what is made of them, come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.errors import DataError
from edgeopt.metrics.contract import Rows
from edgeopt.metrics.reading import binary_labels, targets_of
from edgeopt.vocabulary import Batch, Breakdown

# Of a histogram.
_COLUMNS = 12


def mse_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the mean squared error of each sample."""
    return (np.square(_errors(outputs, targets_of(outputs, batch, "mse"))).mean(axis=1),)


def rmse_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the mean squared error of each sample."""
    return (np.square(_errors(outputs, targets_of(outputs, batch, "rmse"))).mean(axis=1),)


def mae_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the mean absolute error of each sample."""
    return (np.abs(_errors(outputs, targets_of(outputs, batch, "mae"))).mean(axis=1),)


def r2_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the squared errors and the targets of each sample, [N, targets] each."""
    targets = targets_of(outputs, batch, "r2")
    return np.square(_errors(outputs, targets)), targets.reshape(len(targets), -1).astype(np.float64)


def reconstruction_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the mean squared error of each sample against the input of the same shape.

    Raises:
        DataError: there is none.
    """
    same = [array for array in batch.inputs.values() if array.shape == outputs.shape]
    if not same:
        shapes = ", ".join(str(array.shape[1:]) for array in batch.inputs.values())
        raise DataError(
            f"Expected outputs shaped like an input for the reconstruction error, got outputs {outputs.shape[1:]} for "
            f"inputs {shapes}. Try --metric top1 or mse with labels."
        )
    return (np.square(_errors(outputs, same[0])).mean(axis=1),)


def auc_reconstruction_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the reconstruction error and the label, 1 = anomaly, of each sample."""
    labels = binary_labels(batch, "auc-reconstruction")
    return (*reconstruction_per_sample(outputs, batch), labels)


def spread_of_scores(errors: np.ndarray, labels: np.ndarray) -> Breakdown | None:
    """Returns where the reconstruction errors of the ordinary and of anomalies lie; None where there are not both.

    The last column has all that lie higher, too.
    """
    finite = np.isfinite(errors)
    rows = [errors[finite & (labels == kind)] for kind in (0, 1)]
    if not all(len(row) for row in rows):
        return None
    edges = np.linspace(errors[finite].min(), np.quantile(errors[finite], 0.99), _COLUMNS + 1)
    shares = [np.histogram(np.minimum(row, edges[-1]), edges)[0] / len(row) for row in rows]
    columns = {f"{edge:.4g}": tuple(float(share[n]) for share in shares) for n, edge in enumerate(edges[:-1])}
    if len(columns) < _COLUMNS:  # the errors hardly differ
        return None
    return Breakdown("scores", ("ordinary", "anomaly"), columns, tuple(len(row) for row in rows))


def mean(values: np.ndarray) -> float:
    """Returns the mean over samples."""
    return float(np.mean(values, dtype=np.float64))


def root_mean(squares: np.ndarray) -> float:
    """Returns the square root of the mean over samples."""
    return math.sqrt(mean(squares))


def r2(squared_errors: np.ndarray, targets: np.ndarray) -> float:
    """Returns 1 less the share of the targets' variance that is not explained: the mean over targets that vary."""
    deviations = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    vary = deviations > 0
    return float((1 - squared_errors.sum(axis=0)[vary] / deviations[vary]).mean()) if vary.any() else math.nan


def why_no_r2(squared_errors: np.ndarray, targets: np.ndarray) -> str:
    """Returns why there is no R²."""
    if not np.isfinite(targets).all():
        return " (a label is not finite)"
    return " (an output is not finite)" if not np.isfinite(squared_errors).all() else " (no target varies)"


def _errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the differences in double precision, one row per sample."""
    count = len(outputs)
    return outputs.reshape(count, -1).astype(np.float64) - targets.reshape(count, -1)
