"""Outputs and labels of a batch go in; the classes, numbers and scores that they stand for come out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt.data.labels import class_numbers
from edgeopt.errors import DataError
from edgeopt.metrics.contract import Rows
from edgeopt.tasks.finding import are_probabilities
from edgeopt.vocabulary import Batch

# A quantized softmax gives probabilities of 0, whose logarithm is infinite; this is the least that Keras counts.
_LEAST_PROBABILITY = 1e-7


def class_scores(outputs: np.ndarray, *, classes: int | None = None) -> np.ndarray | None:
    """Returns each sample's class, [N], the first of its largest outputs; a single output of two classes as it is.

    `decide` makes classes of either when all samples are together. None where outputs are no classes.

    Args:
        outputs: real values [N, ...].
        classes: how many the labels tell apart.
    """
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return largest(outputs)
    return outputs.reshape(len(outputs)).astype(np.float64) if classes == 2 and is_single(outputs) else None


def decide(scores: np.ndarray) -> np.ndarray:
    """Returns the classes of all that `class_scores` gave; -1, which is none, where that was NaN.

    Single outputs are class 1 above 0.5, or above 0 where any lies outside 0 to 1: then they are logits.
    """
    if scores.dtype.kind != "f":
        return scores
    numbers = ~np.isnan(scores)
    are_shares = scores.min(initial=0.0, where=numbers) >= 0 and scores.max(initial=0.0, where=numbers) <= 1
    return np.where(numbers, scores > (0.5 if are_shares else 0.0), -1)


def largest(outputs: np.ndarray) -> np.ndarray:
    """Returns the place of the largest along the last axis; -1, which is none, where one is NaN."""
    return np.where(np.isnan(outputs).any(axis=-1), -1, outputs.argmax(axis=-1))


def is_single(outputs: np.ndarray) -> bool:
    """Whether a sample's output is one number."""
    return bool(outputs[0].size == 1)


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the probabilities of classes, last axis, of logits or of probabilities."""
    values = outputs.astype(np.float64)
    if are_probabilities(outputs):
        return np.log(np.maximum(values, _LEAST_PROBABILITY))
    values = values - values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def are_bits(labels: np.ndarray) -> bool:
    """Whether labels [N, K] say of each of K things whether it is there."""
    return (
        labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "fiub" and bool(np.isin(labels, (0, 1)).all())
    )


def required(batch: Batch, name: str) -> np.ndarray:
    """Returns the labels.

    Raises:
        DataError: there are none.
    """
    if batch.labels is None:
        raise DataError(
            f"Expected labels for {name}, got none. Try data with y_test; for an autoencoder, --metric reconstruction."
        )
    return np.asarray(batch.labels)


def class_labels(outputs: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    """Returns class numbers, int64, in the shape of the outputs without their last axis; -1 at ignored positions.

    Raises:
        DataError: the labels are not classes of these outputs.
    """
    labels = required(batch, name)
    if is_single(outputs):
        return binary_labels(batch, name)
    numbers = class_numbers(labels, outputs.shape[1:])
    if numbers is not None:
        return numbers
    if labels.size != outputs[..., 0].size:
        raise DataError(
            f"Expected labels {outputs.shape[1:-1] or '()'} per sample for outputs {outputs.shape[1:]}, got "
            f"{labels.shape[1:]}. Try one class number per {'position' if outputs.ndim > 2 else 'sample'}, or "
            "--metric mse."
        )
    if labels.dtype.kind not in "fiub" or not np.array_equal(labels, np.rint(labels)):
        raise DataError(f"Expected class numbers for {name}, got {labels.dtype} values. Try --metric mse.")
    classes = max(2, outputs.shape[-1])
    raise DataError(
        f"Expected labels 0..{classes - 1} for {outputs.shape[-1]} outputs, got {_extreme(labels, classes)}. Try "
        "labels counted from 0, in the order of the model's outputs, and data of the same classes."
    )


def binary_labels(batch: Batch, name: str) -> np.ndarray:
    """Returns labels 0 and 1, int64 [N].

    Raises:
        DataError: they are something else.
    """
    labels = required(batch, name)
    if labels.size != len(labels) or not np.isin(labels, (0, 1)).all():
        got = f"labels {labels.shape[1:]}" if labels.size != len(labels) else f"labels such as {_odd(labels)}"
        raise DataError(
            f"Expected labels 0 and 1, one per sample, for {name} with these outputs, got {got}. Try --metric mse for "
            "numbers, or a model with an output for each class."
        )
    return labels.reshape(len(labels)).astype(np.int64)


def targets_of(outputs: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    """Returns labels that are as many numbers as the outputs.

    Raises:
        DataError: they are not.
    """
    labels = required(batch, name)
    if labels.size != outputs.size:
        raise DataError(
            f"Expected labels {outputs.shape[1:]} like the outputs for {name}, got {labels.shape[1:]}. "
            "Try --metric top1 for class numbers."
        )
    return labels


def scores_and_labels(outputs: np.ndarray, labels: np.ndarray) -> Rows:
    """Returns the single output of each sample, [N], and its label."""
    return outputs.reshape(len(outputs)).astype(np.float64), labels


def _extreme(labels: np.ndarray, classes: int) -> str:
    return f"up to {labels.max():g}" if labels.max() >= classes else f"down to {labels.min():g}"


def _odd(labels: np.ndarray) -> Any:
    return labels[~np.isin(labels, (0, 1))].flat[0]
