"""Outputs and labels of a batch go in, sums that may be added come out; of all of them a table by class or target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.data.labels import is_one_hot
from edgeopt.metrics.positions import counts, extremes, predictions, way_of
from edgeopt.metrics.reading import are_bits, class_labels, is_single, largest, targets_of
from edgeopt.vocabulary import Batch, Breakdown

# Longer tables help nobody, and a matrix has their square.
LARGEST_TABLE = 100
_LARGEST_MATRIX = 30


@dataclass(frozen=True)
class Sums:
    """What is added up over batches; all arrays of two of them have one shape.

    Attributes:
        added: name to array, to be added.
        least, greatest: of all outputs: whether one channel holds probabilities or logits.
        one_hot: whether rows of labels have had a single 1.
        positions: whether each position has a class.
    """

    added: Mapping[str, np.ndarray]
    least: float = 0.0
    greatest: float = 0.0
    one_hot: bool = True
    positions: bool = False

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            {name: array + other.added[name] for name, array in self.added.items()},
            min(self.least, other.least),
            max(self.greatest, other.greatest),
            self.one_hot and other.one_hot,
            self.positions,
        )


def sums(outputs: np.ndarray, batch: Batch, by: str) -> Sums | None:
    """Returns what a batch adds to the table; None where there is none for such outputs.

    Args:
        by: "classes" or "targets", as the metric says.
    """
    if batch.labels is None or not by:
        return None
    if by == "targets":
        return _of_targets(outputs, batch) if outputs.ndim == 2 and outputs.shape[1] <= LARGEST_TABLE else None
    if outputs.ndim > 1 and not is_single(outputs) and outputs.shape[-1] > LARGEST_TABLE:
        return None
    reach = extremes(outputs)
    least, greatest = float(reach[:, 0].min()), float(reach[:, 1].max())
    labels = np.asarray(batch.labels)
    if outputs.ndim == 2 and labels.shape == outputs.shape and are_bits(labels):
        bits = labels.astype(bool)
        told = [(outputs > threshold) & ~np.isnan(outputs) for threshold in (0.5, 0.0)]
        added = {"bits": np.stack([np.stack([(p & bits).sum(0), p.sum(0), bits.sum(0)], 1) for p in told])}
        if one_hot := is_one_hot(labels):
            added |= _of_classes([largest(outputs)], bits.argmax(axis=1), outputs.shape[1])
        else:
            added |= _of_classes([np.full(len(bits), -1)], np.full(len(bits), -1), outputs.shape[1])
        return Sums(added, least, greatest, one_hot)
    numbers = class_labels(outputs, batch, "a table by class")
    read = outputs.reshape(len(outputs), 1) if is_single(outputs) else outputs
    added = _of_classes(predictions(read), numbers, max(2, read.shape[-1]))
    return Sums(added, least, greatest, positions=outputs.ndim > 2)


def breakdown(total: Sums | None, names: Sequence[str] = ()) -> Breakdown | None:
    """Returns the table of the sums of all batches.

    Args:
        names: of the classes, where known.
    """
    if total is None:
        return None
    added = total.added
    if "squares" in added:
        return _targets_table(added)
    reach = np.array([[total.least, total.greatest]])
    if "bits" in added and not total.one_hot:
        return _classes_table("labels", added["bits"][way_of(2, reach)], names)
    way = way_of(len(added["counts"]), reach)
    matrix = added["matrix"][way] if "matrix" in added else None
    return _classes_table("classes", added["counts"][way], names, matrix, positions=total.positions)


def _of_classes(ways: Sequence[np.ndarray], labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    added = {"counts": np.stack([counts(one, labels, classes).sum(axis=0, dtype=np.int64) for one in ways])}
    if classes <= _LARGEST_MATRIX:
        known = labels >= 0
        added["matrix"] = np.stack([_matrix(one[known], labels[known], classes) for one in ways])
    return added


def _matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    decided = predicted >= 0
    pairs = labels[decided] * classes + predicted[decided]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _of_targets(outputs: np.ndarray, batch: Batch) -> Sums:
    targets = targets_of(outputs, batch, "a table by target").reshape(outputs.shape).astype(np.float64)
    errors = outputs.astype(np.float64) - targets
    return Sums(
        {
            "count": np.full(outputs.shape[1], len(outputs)),
            "squares": np.square(errors).sum(axis=0),
            "sizes": np.abs(errors).sum(axis=0),
            "targets": targets.sum(axis=0),
            "target_squares": np.square(targets).sum(axis=0),
        }
    )


def _targets_table(added: Mapping[str, np.ndarray]) -> Breakdown:
    count = added["count"]
    spread = added["target_squares"] - np.square(added["targets"]) / count
    # What is left of the difference of two large sums is rounding.
    varies = spread > 1e-9 * added["target_squares"]
    columns = {
        "rmse": np.sqrt(added["squares"] / count),
        "mae": added["sizes"] / count,
        "r2": np.where(varies, 1 - added["squares"] / np.where(varies, spread, 1), np.nan),
    }
    return Breakdown("targets", tuple(str(number) for number in range(len(count))), _plain(columns))


def _classes_table(
    of: str, found: np.ndarray, names: Sequence[str], matrix: np.ndarray | None = None, *, positions: bool = False
) -> Breakdown:
    right, predicted, labelled = found.T.astype(np.float64)

    def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(whole > 0, of / np.where(whole > 0, whole, 1), np.nan)

    columns = {
        "precision": share(right, predicted),
        "recall": share(right, labelled),
        "f1": share(2 * right, predicted + labelled),
    }
    if positions:
        columns["iou"] = share(right, predicted + labelled - right)
    called = tuple(names) if len(names) == len(found) else tuple(str(number) for number in range(len(found)))
    counted = tuple(int(count) for count in labelled)
    rows = () if matrix is None else tuple(tuple(int(count) for count in row) for row in matrix)
    return Breakdown(of, called, _plain(columns), counted, rows)


def _plain(columns: Mapping[str, np.ndarray]) -> dict[str, tuple[float | None, ...]]:
    return {
        name: tuple(float(value) if math.isfinite(value) else None for value in values)
        for name, values in columns.items()
    }
