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


def both(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Reads two outputs: right where the class is and anything comes out of the other."""
    return ((outputs["kind"].argmax(axis=1) == labels) & (outputs["late"] > 0).any(axis=1)).astype(float)


def agreeing(outputs: dict[str, np.ndarray], labels: None) -> np.ndarray:
    """Takes no labels: right where both outputs are finite."""
    return np.all([np.isfinite(one).all(axis=1) for one in outputs.values()], axis=0).astype(float)


def both_rate(outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """As one number, of labels that have names."""
    return float(both(outputs, labels["kind"]).mean())


def pair_boxes(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Decodes the boxes of two outputs."""
    return np.concatenate([outputs["box"], outputs["score"][..., None], np.zeros((*outputs["score"].shape, 1))], axis=2)


def keras_style(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Takes labels first, and says so."""
    return float((y_pred.argmax(axis=1) == y_true).mean())


class Counted:
    """As Keras' metrics are made."""

    _direction = "down"

    def __init__(self, *settings: int) -> None:
        self.reset_state()

    def reset_state(self) -> None:
        self.errors, self.count = 0, 0

    def update_state(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        self.errors += int((outputs.argmax(axis=1) != labels).sum())
        self.count += len(labels)

    def result(self) -> float:
        return self.errors / self.count

    def __call__(self) -> None: ...


class Settled(Counted):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
