"""What a model is for: found from outputs, inputs and labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgeopt.data import check, load
from edgeopt.data.labels import class_numbers
from edgeopt.errors import ConfigError, DataError
from edgeopt.metrics import METRICS
from edgeopt.tasks import TASKS, task
from edgeopt.tasks.finding import found, metric_of
from edgeopt.vocabulary import Batch, TensorSpec

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


# --- labels of several outputs ---------------------------------------------------------------------------------------


def _twofold(count: int = 40) -> dict[str, np.ndarray]:
    x = RANDOM.random((count, 6), np.float32)
    return {"x": x, "y_kind": (x[:, 0] > 0.5).astype(np.int64), "y_size": x[:, 1:3]}


def test_labels_of_several_outputs_come_by_name() -> None:
    arrays = _twofold()
    dataset = load(arrays)
    part = dataset.training
    assert part.labels.kind == "several"
    assert {name: one.kind for name, one in part.labels.outputs.items()} == {"kind": "classes", "size": "values"}
    batch = part.arrays()
    assert batch.labels is None
    np.testing.assert_array_equal(batch.several["kind"], batch.inputs["x"][:, 0] > 0.5)
    np.testing.assert_array_equal(batch.several["size"], batch.inputs["x"][:, 1:3])
    alone = part.of_output("kind").arrays()
    np.testing.assert_array_equal(alone.labels, batch.several["kind"])
    assert part.of_output("kind").digest() != part.of_output("size").digest() != part.digest()


def test_labels_of_several_outputs_are_divided_by_the_first_classes() -> None:
    arrays = _twofold(400)
    validation = load(arrays, validation_share=0.25).validation.of_output("kind").ids()
    assert validation is not None
    assert abs(int(validation.sum()) - 0.25 * int(arrays["y_kind"].sum())) <= 1


def test_a_pair_and_a_stream_bring_labels_of_several_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twofold.py").write_text(
        "import numpy as np\n"
        "def pair():\n    return np.ones((8, 3)), {'a': np.arange(8) % 2, 'b': np.ones((8, 2))}\n"
        "def stream():\n    for _ in range(2):\n"
        "        yield np.ones((4, 3)), {'a': np.arange(4) % 2, 'b': np.ones((4, 2))}\n"
        "def ragged():\n    yield np.ones((4, 3)), {'a': np.arange(4), 'b': np.ones((3, 2))}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pair", "stream"):
        part = load(f"twofold:{name}", validation_share=0.5).training
        batch = next(part.batches(4))
        assert {name: array.shape for name, array in batch.several.items()} == {"a": (4,), "b": (4, 2)}
        assert part.of_output("a").classes == 2
    with pytest.raises(DataError, match=r"of equal length from twofold:ragged, got shapes .*'b': \(3, 2\)"):
        load("twofold:ragged")


def test_labels_with_and_without_a_name_do_not_go_together() -> None:
    with pytest.raises(DataError, match="one for each output by its name, got y and y_left"):
        load({"x": X, "y": X, "y_left": X})


def test_labels_name_outputs_of_the_model() -> None:
    outputs = [TensorSpec("kind", (None, 2)), TensorSpec("big", (None, 2))]
    with pytest.raises(DataError, match="labels for the model's outputs kind, big, got some for 'size'"):
        check(load(_twofold()), [TensorSpec("x", (None, 6))], outputs)
    with pytest.raises(DataError, match="Expected finite numbers in the labels of 'size' of the"):
        check(load({**_twofold(), "y_size": np.full((40, 2), np.nan)}), [TensorSpec("x", (None, 6))])
