"""Metrics as a user would write them."""

from __future__ import annotations

import numpy as np


def hits(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One number for each sample."""
    return (predictions.argmax(axis=1) == labels).astype(float)


def error_rate(predictions: np.ndarray, labels: np.ndarray) -> float:
    """One number, and lower is better."""
    return float((predictions.argmax(axis=1) != labels).mean())


error_rate.higher_is_better = False  # type: ignore[attr-defined]
error_rate.is_share = True  # type: ignore[attr-defined]


def spread(predictions: np.ndarray, labels: np.ndarray | None) -> float:
    """Needs no labels."""
    assert labels is None
    return float(predictions.std())


def words(predictions: np.ndarray, labels: np.ndarray) -> str:
    return "good"


def broken(predictions: np.ndarray, labels: np.ndarray) -> float:
    raise KeyError("threshold")


def leaving(predictions: np.ndarray, labels: np.ndarray) -> float:
    raise SystemExit(3)


def boundless(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float("inf")


calls: list[str] = []


def counted_hits(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    calls.append("hits")
    return hits(predictions, labels)


def counted_rate(predictions: np.ndarray, labels: np.ndarray) -> float:
    calls.append("rate")
    return error_rate(predictions, labels)


def halved(outputs: np.ndarray) -> np.ndarray:
    """Decodes boxes."""
    return outputs / (2, 2, 2, 2, 1, 1)


def hit_boxes(outputs: np.ndarray) -> np.ndarray:
    return outputs[:, 0]


def no_boxes(outputs: np.ndarray) -> np.ndarray:
    raise SystemExit(3)


number = 3
