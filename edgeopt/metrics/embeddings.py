"""Embeddings [N, D] and who or what each sample is go in; how well near ones belong together comes out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.errors import DataError
from edgeopt.metrics.contract import Metric, Rows, share
from edgeopt.metrics.reading import required
from edgeopt.vocabulary import Batch

# Pairs grow with the square of the samples; of more of them, so many are taken, evenly spaced.
LARGEST_VERIFICATION = 1000
VERIFICATION_RESAMPLES = 200
# Cosines are ordered in so many steps from -1 to 1: finer than what an int8 embedding tells apart.
_STEPS = 1 << 16
_SIMILARITY_BYTES = 64 << 20


def recall_at(k: int) -> Metric:
    """Returns the metric that asks whether one of the k nearest other samples is of the same class."""

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        return _embeddings(outputs, batch, f"recall@{k}")

    def settle(embeddings: np.ndarray, identities: np.ndarray) -> Rows:
        _, group, counts = np.unique(identities, return_inverse=True, return_counts=True)
        asked = np.flatnonzero(counts[group] > 1)
        hits = np.zeros(len(asked))
        step = max(1, _SIMILARITY_BYTES // (4 * len(embeddings)))
        for start in range(0, len(asked), step):
            rows = asked[start : start + step]
            near = embeddings[rows] @ embeddings.T
            near[np.arange(len(rows)), rows] = -np.inf
            near = np.where(np.isnan(near), -np.inf, near)
            most = min(k, len(embeddings) - 1)
            nearest = np.argpartition(-near, most - 1, axis=1)[:, :most]
            real = np.isfinite(np.take_along_axis(near, nearest, axis=1))
            hits[start : start + step] = ((identities[nearest] == identities[rows, None]) & real).any(axis=1)
        return (hits,)

    among = "the nearest other sample is" if k == 1 else f"one of the {k} nearest other samples is"
    return Metric(
        f"recall@{k}",
        f"share of samples where {among} of the same class, by the cosine of embeddings",
        share,
        per_sample=per_sample,
        is_share=True,
        settle=settle,
        free_labels=True,
        why_undefined=lambda hits: " (no two are of one class)",
    )


def verification_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    """Returns embeddings of length 1 and class numbers."""
    return _embeddings(outputs, batch, "auc-pairs")


def verification_settle(embeddings: np.ndarray, identities: np.ndarray) -> Rows:
    """Returns at most LARGEST_VERIFICATION samples, and the number of each."""
    count = len(embeddings)
    kept = np.unique(np.linspace(0, count - 1, min(count, LARGEST_VERIFICATION)).astype(np.int64))
    return embeddings[kept], identities[kept], kept


def verification(embeddings: np.ndarray, identities: np.ndarray, numbers: np.ndarray) -> float:
    """Returns the share of (same, different) pairs of pairs whose cosines are ordered rightly, ties counting half.

    A sample that was drawn twice makes no pair with itself.
    """
    if not np.isfinite(embeddings).all():
        return math.nan
    steps = ((embeddings @ embeddings.T + 1) * (_STEPS / 2)).astype(np.int64).clip(0, _STEPS - 1)
    apart = numbers[:, None] < numbers
    same = identities[:, None] == identities
    of_same, of_others = (np.bincount(steps[apart & which], minlength=_STEPS) for which in (same, ~same))
    pairs = float(of_same.sum()) * float(of_others.sum())
    below = np.cumsum(of_others) - of_others
    return float((of_same * (below + of_others / 2)).sum() / pairs) if pairs else math.nan


def why_no_pairs(embeddings: np.ndarray, identities: np.ndarray, numbers: np.ndarray) -> str:
    """Returns why there are no pairs to tell apart."""
    if not np.isfinite(embeddings).all():
        return " (an output is not finite)"
    return " (all are of one class)" if np.unique(identities).size < 2 else " (no two are of one class)"


def _embeddings(outputs: np.ndarray, batch: Batch, name: str) -> Rows:
    labels = required(batch, name)
    if labels.size != len(labels) and labels.ndim == 2:
        labels = labels.argmax(axis=1)
    if outputs.ndim != 2 or outputs.shape[1] < 2 or labels.size != len(labels) or labels.dtype.kind not in "iubUS":
        raise DataError(
            f"Expected embeddings (N,) and a class number per sample for {name}, got outputs {outputs.shape[1:]} and "
            f"{labels.dtype} labels {labels.shape[1:]}. Try --metric mse, or data that say who or what each sample is."
        )
    values = outputs.astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1), labels.reshape(len(labels))
