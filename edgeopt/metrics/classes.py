"""Outputs and classes or yes-or-no labels go in; whether each sample is right, and what is made of that, come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.data.labels import is_one_hot
from edgeopt.errors import DataError
from edgeopt.metrics.contract import Metric, Rows, share
from edgeopt.metrics.positions import confusion_per_sample, position_hits, way_of
from edgeopt.metrics.reading import (
    are_bits,
    binary_labels,
    class_labels,
    decide,
    is_single,
    largest,
    required,
    scores_and_labels,
)
from edgeopt.vocabulary import Batch

# Each draw sorts the scores of every label anew.
AVERAGE_PRECISION_RESAMPLES = 200


def top(k: int) -> Metric:
    """Returns the metric that asks whether the right class is among the k highest scores."""

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        labels = class_labels(outputs, batch, f"top{k}")
        if is_single(outputs):
            return scores_and_labels(outputs, labels)
        own = np.take_along_axis(outputs, np.maximum(labels, 0)[..., None], axis=-1)
        # NaN compares as neither: it must not look like a hit.
        ahead = (~(outputs <= own)).sum(axis=-1)
        tied = ((outputs == own) & (np.arange(outputs.shape[-1]) < labels[..., None])).sum(axis=-1)
        hits = ahead + tied < k
        return (position_hits(hits, labels) if labels.ndim > 1 else hits.astype(np.float64),)

    def settle(*rows: np.ndarray) -> Rows:
        if len(rows) == 1:
            return rows
        return (((k > 1) | (decide(rows[0]) == rows[1])).astype(np.float64),)

    what = "the right class has the highest score" if k == 1 else f"the right class is among the {k} highest scores"
    return Metric(
        f"top{k}",
        f"share of samples where {what}",
        share,
        per_sample=per_sample,
        is_share=True,
        settle=settle,
        by="classes",
    )


def f1_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns predicted and labelled classes, [N] each; scores and bits, [N, K]; or counts of positions."""
    if outputs.ndim > 2 and not is_single(outputs):
        return confusion_per_sample("f1")(outputs, batch)
    labels = required(batch, "f1")
    if labels.shape == outputs.shape and are_bits(labels):
        return outputs.astype(np.float64), labels.astype(bool)
    labels = class_labels(outputs, batch, "f1")
    return scores_and_labels(outputs, labels) if is_single(outputs) else (largest(outputs), labels)


def f1_settle(scores: np.ndarray, labels: np.ndarray) -> Rows:
    """Returns decided classes or bits, or counts read the one way that suits them all."""
    if scores.ndim == 4:
        return (scores[:, way_of(scores.shape[1], labels)],)
    # Whether each sample has one class or any number of them only all of them show.
    if scores.ndim == 2 and is_one_hot(labels):
        return largest(scores), labels.argmax(axis=1)
    return decide(scores), labels


def f1(predicted: np.ndarray, labels: np.ndarray | None = None) -> float:
    """Returns 2 TP / (2 TP + FP + FN), the mean over the classes that occur, as labels or predictions.

    Args:
        predicted: classes [N], bits [N, K], or what `positions.counts` gives, then without labels.
        labels: the same.
    """
    if labels is None:
        right, found, there = predicted.sum(axis=0, dtype=np.float64).T
    elif predicted.ndim == 2:
        right, found, there = ((predicted == 1) & labels).sum(axis=0), (predicted == 1).sum(axis=0), labels.sum(axis=0)
    else:
        classes = int(max(predicted.max(), labels.max())) + 1
        there = np.bincount(labels, minlength=classes)
        found = np.bincount(predicted[predicted >= 0], minlength=classes)
        right = np.bincount(labels[predicted == labels], minlength=classes)
    occur = there + found > 0
    return float(np.mean(2 * right[occur] / (there + found)[occur])) if occur.any() else math.nan


def average_precision_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns the scores and the bits of each label, [N, K] each.

    Raises:
        DataError: there is not one label, yes or no, for each output.
    """
    labels = required(batch, "average-precision")
    if is_single(outputs) and labels.size == len(labels):
        scores, bits = scores_and_labels(outputs, binary_labels(batch, "average-precision"))
        return scores[:, None], bits[:, None].astype(bool)
    if outputs.ndim == 2 and labels.ndim < 2:
        labels = np.eye(outputs.shape[1], dtype=bool)[class_labels(outputs, batch, "average-precision")]
    if labels.shape != outputs.shape or not are_bits(labels):
        raise DataError(
            f"Expected labels 0 and 1 {outputs.shape[1:]} per sample, one for each output, for average-precision, got "
            f"{labels.dtype} labels {labels.shape[1:]}. Try --metric mse for numbers, or f1 for classes."
        )
    return outputs.astype(np.float64), labels.astype(bool)


def average_precision(scores: np.ndarray, bits: np.ndarray) -> float:
    """Returns the mean over labels that occur of the precision at each sample that has it, best scores first.

    Samples of equal score come together, as scikit-learn counts them.
    """
    if not np.isfinite(scores).all():
        return math.nan
    found = [_precision(column, truth) for column, truth in zip(scores.T, bits.T) if truth.any()]
    return float(np.mean(found)) if found else math.nan


def _precision(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    right, ordered = np.cumsum(truth[order]), scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    gained = np.diff(right[last], prepend=0)
    return float((gained * right[last] / (last + 1)).sum() / right[-1])


def auc_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns how likely class 1 is of each sample, and its label.

    Raises:
        DataError: these are not two classes.
    """
    labels = binary_labels(batch, "auc")
    if is_single(outputs):
        return scores_and_labels(outputs, labels)
    if outputs.shape[1:] != (2,):
        raise DataError(
            f"Expected one output, or one for each of two classes, for auc, got outputs {outputs.shape[1:]}. "
            "Try --metric f1 or top1; for an autoencoder, auc-reconstruction."
        )
    # Of logits only the difference says how likely class 1 is; of probabilities it orders as the second does.
    return outputs[:, 1].astype(np.float64) - outputs[:, 0], labels


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (class 1, class 0) pairs that the scores order rightly, ties counting half: Mann-Whitney's U."""
    positive = labels == 1
    positives = int(positive.sum())
    pairs = positives * (len(labels) - positives)
    if not pairs or not np.isfinite(scores).all():
        return math.nan
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / pairs)


def why_no_auc(scores: np.ndarray, labels: np.ndarray) -> str:
    """Returns why the scores order no pairs."""
    if np.unique(labels).size < 2:
        return f" (all are of class {int(labels[0])})"
    return " (an output is not finite)" if not np.isfinite(scores).all() else ""
