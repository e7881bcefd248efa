"""Outputs with classes at each position (pixels, steps) and labels go in; counts of each sample, and scores, come out.

A model with one channel tells two classes apart by a threshold, which is that of probabilities or of logits; which
of the two only all samples together show. So counts are kept for both until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeopt.errors import DataError
from edgeopt.metrics.contract import Rows
from edgeopt.metrics.reading import class_labels, largest, log_probabilities
from edgeopt.vocabulary import Batch

# What separates two classes in one channel of probabilities, and in one of logits.
_THRESHOLDS = (0.5, 0.0)


def confusion_per_sample(name: str) -> Callable[[np.ndarray, Batch], Rows]:
    """Returns what counts for each sample and class: positions right, predicted and labelled, [N, way, classes, 3]."""

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        labels = position_labels(outputs, batch, name)
        classes = max(2, outputs.shape[-1])
        ways = [counts(predicted, labels, classes) for predicted in predictions(outputs)]
        return np.stack(ways, axis=1), extremes(outputs)

    return per_sample


def hits_per_sample(name: str) -> Callable[[np.ndarray, Batch], Rows]:
    """Returns what counts for each sample: positions right, and positions labelled, [N, way, 2]."""

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        labels = position_labels(outputs, batch, name)
        ways = [position_hits(predicted == labels, labels) for predicted in predictions(outputs)]
        return np.stack(ways, axis=1), extremes(outputs)

    return per_sample


def settle(ways: np.ndarray, reach: np.ndarray) -> Rows:
    """Returns what was counted the one way that suits all samples."""
    return (ways[:, way_of(ways.shape[1], reach)],)


def way_of(ways: int, reach: np.ndarray) -> int:
    """Returns which of the ways to read outputs suits them all: number 1 where one channel holds logits."""
    return int(ways > 1 and (reach[:, 0].min() < 0 or reach[:, 1].max() > 1))


def mean_iou(found: np.ndarray) -> float:
    """Returns the intersection over the union of predicted and labelled positions, the mean over classes that occur.

    Args:
        found: as `counts` gives them, [N, classes, 3].
    """
    right, predicted, labelled = found.sum(axis=0, dtype=np.float64).T
    union = predicted + labelled - right
    occur = union > 0
    return float((right[occur] / union[occur]).mean()) if occur.any() else math.nan


def perplexity_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns for each sample the sum of -log p of the right classes, and how many there are, [N, 2]."""
    labels = class_labels(outputs, batch, "perplexity").reshape(len(outputs), -1)
    logarithms = log_probabilities(outputs).reshape(*labels.shape, -1)
    own = np.take_along_axis(logarithms, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    known = labels >= 0
    return (np.stack([-np.where(known, own, 0.0).sum(axis=1), known.sum(axis=1)], axis=1),)


def perplexity(sums: np.ndarray) -> float:
    """Returns e to the mean of -log p over all positions."""
    surprise, count = sums.sum(axis=0)
    # Above this it is as good as infinite, and e to it is an overflow.
    return math.exp(min(surprise / count, 700.0)) if count else math.nan


def why_nothing_counts(*rows: np.ndarray) -> str:
    """Returns why there is no score."""
    return "" if np.isfinite(rows[0]).all() and rows[0].any() else " (no position is labelled, or no output is finite)"


def position_labels(outputs: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    """Returns class numbers at each position; -1 at those that are ignored.

    Raises:
        DataError: the outputs have no positions, or the labels are not their classes.
    """
    if outputs.ndim < 3:
        raise DataError(
            f"Expected outputs with classes at each position for {name}, got outputs {outputs.shape[1:]}. "
            "Try --metric top1."
        )
    return class_labels(outputs, batch, name).reshape(outputs.shape[:-1])


def predictions(outputs: np.ndarray) -> list[np.ndarray]:
    """Returns the classes that outputs [N, ..., C] tell, [N, ...], each way that they may be read."""
    if outputs.shape[-1] > 1:
        return [largest(outputs)]
    channel = outputs[..., 0]
    return [np.where(np.isnan(channel), -1, channel > threshold) for threshold in _THRESHOLDS]


def extremes(outputs: np.ndarray) -> np.ndarray:
    """Returns the least and the greatest output of each sample, [N, 2]; of numbers alone."""
    flat = outputs.reshape(len(outputs), -1)
    numbers = ~np.isnan(flat)
    return np.stack([flat.min(axis=1, initial=0.0, where=numbers), flat.max(axis=1, initial=0.0, where=numbers)], 1)


def counts(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many positions of each sample and class are right, predicted and labelled, uint32 [N, classes, 3].

    Args:
        predicted, labels: class numbers [N, ...]; where a label is negative the position counts nothing, where a
            prediction is, it is none.
    """
    count = len(labels)
    labels, predicted = labels.reshape(count, -1), predicted.reshape(count, -1)
    sample = np.arange(count)[:, None] * classes
    known = labels >= 0
    decided = known & (predicted >= 0)
    chosen = (sample + labels)[known & (labels == predicted)], (sample + predicted)[decided], (sample + labels)[known]
    return np.stack([np.bincount(one, minlength=count * classes).reshape(count, classes) for one in chosen], 2).astype(
        np.uint32
    )


def position_hits(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many labelled positions of each sample are right, and how many there are, [N, 2]."""
    known = (labels >= 0).reshape(len(labels), -1)
    return np.stack([(right.reshape(known.shape) & known).sum(axis=1), known.sum(axis=1)], axis=1)
