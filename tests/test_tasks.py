"""What a model is for: found from outputs, inputs and labels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgeopt.data.labels import class_numbers
from edgeopt.errors import ConfigError, DataError
from edgeopt.metrics import METRICS
from edgeopt.tasks import TASKS, task
from edgeopt.tasks.finding import found, metric_of
from edgeopt.vocabulary import Batch

RANDOM = np.random.default_rng(0)
N = 40
X = RANDOM.random((N, 6), np.float32) - 0.5
PICTURES = RANDOM.random((N, 4, 4, 1), np.float32)
TOKENS = RANDOM.integers(0, 9, (N, 5))
PIXELS = RANDOM.integers(0, 3, (N, 4, 4))
BITS = RANDOM.integers(0, 2, (N, 3))


@pytest.mark.parametrize("row", TASKS.values(), ids=list(TASKS))
def test_what_a_row_names_is_there(row: object) -> None:
    assert {row.metric, row.unlabelled_metric} - {""} <= set(METRICS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("outputs", "labels", "x", "expected"),
    [
        (np.zeros((N, 3)), BITS[:, 0], X, "classes"),
        (np.zeros((N, 3)), np.eye(3)[PIXELS[:, 0, 0]], X, "classes"),
        (np.zeros((N, 1)), BITS[:, 0], X, "binary"),
        (np.zeros((N, 1)), X[:, 0], X, "regression"),
        (np.zeros((N, 3)), BITS, X, "multi-label"),
        (np.zeros((N, 3)), X[:, :3], X, "regression"),
        (np.zeros((N, 4, 4, 3)), PIXELS, PICTURES, "segmentation"),
        (np.zeros((N, 4, 4, 3)), np.eye(3, dtype=np.uint8)[PIXELS], PICTURES, "segmentation"),
        (np.zeros((N, 4, 4, 1)), PIXELS > 0, PIXELS, "segmentation"),
        (np.zeros((N, 5, 3)), TOKENS % 3, TOKENS, "tagging"),
        (np.zeros((N, 5, 9)), np.roll(TOKENS, -1, axis=1), TOKENS, "language"),
        (X, None, X, "anomaly"),
        (X, BITS[:, 0], X, "anomaly"),
        (X, X, X, "anomaly"),
        (X, X.copy(), X, "regression"),
    ],
)
def test_a_task_is_found(outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray, expected: str) -> None:
    assert found(outputs, Batch({"x": x}, labels)).name == expected


def test_a_task_that_is_said_is_taken() -> None:
    assert found(X, Batch({"x": X}, BITS[:, 0]), said="embedding").name == "embedding"
    with pytest.raises(ConfigError, match=re.escape("as --task, got 'segmentaton'. Did you mean 'segmentation'?")):
        task("segmentaton")


def test_detection_has_no_metric_of_its_own() -> None:
    with pytest.raises(DataError, match=r"a metric for detection, got none.*--metric module:function"):
        metric_of(X, Batch({"x": X}, X), said="detection")


@pytest.mark.parametrize(
    ("labels", "outputs", "expected"),
    [
        (np.array([[0, -1], [2, 1]]), (2, 3), [[0, -1], [2, 1]]),
        (np.array([[0, 255], [2, 1]], np.uint8), (2, 3), [[0, -1], [2, 1]]),
        (np.array([[[0.0], [-100.0]]]), (2, 3), [[0, -1]]),
        (np.array([[[0, 1, 0], [0, 0, 0]]]), (2, 3), [[1, -1]]),
        (np.array([[1, 0]]), (2, 1), [[1, 0]]),
        (np.array([[0, 3]]), (2, 3), None),
        (np.array([[0, 255]]), (2, 3), None),
        (np.array([-1, 0]), (3,), None),
    ],
)
def test_class_numbers_leave_places_out(labels: np.ndarray, outputs: tuple[int, ...], expected: object) -> None:
    numbers = class_numbers(labels, outputs)
    assert (numbers if numbers is None else numbers.tolist()) == expected
