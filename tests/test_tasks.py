"""What a model is for: found from outputs, inputs and labels."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from edgeopt.cli import COMMANDS
from edgeopt.comparison import compare
from edgeopt.data import check, load
from edgeopt.data.labels import class_numbers
from edgeopt.errors import ConfigError, DataError
from edgeopt.evaluation import evaluate
from edgeopt.fidelity import measure
from edgeopt.frameworks import load as load_framework
from edgeopt.metrics import METRICS, for_outputs, metric
from edgeopt.metrics.several import Scored, naive, together
from edgeopt.tasks import TASKS, task
from edgeopt.tasks.finding import found, metric_of, metric_said
from edgeopt.vocabulary import Batch, TensorSpec
from edgeopt.workspace import Conditions

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


# --- labels that are the metric's alone ------------------------------------------------------------------------------


def test_labels_of_anomalies_are_no_classes_of_the_output() -> None:
    six, wide = [TensorSpec("x", (None, 6))], [TensorSpec("again", (None, 6))]
    few = load({"x_train": X, "y_train": 0 * BITS[:, 0], "x_test": X + 1, "y_test": BITS[:, 0]})
    assert not [words for words in check(few, six, wide) if "class" in words]
    other = [TensorSpec("kinds", (None, 5))]
    assert any("The labels name 2 classes, the model tells 5 apart" in words for words in check(few, six, other))


def test_what_is_scored_by_labels_of_its_own_is_not_held_against_the_output() -> None:
    six, out = [TensorSpec("x", (None, 6))], [TensorSpec("out", (None, 4, 4, 3))]
    boxes = load({"x": X, "y": RANDOM.random((N, 2, 5))})
    with pytest.raises(DataError, match=r"got \(2, 5\)\. Try .* --metric module:function"):
        check(boxes, six, out)
    identities = load({"x": X, "y": np.arange(N) % 20})
    with pytest.raises(DataError, match="labels from 0 to 7, as the model's output has 8 values, got"):
        check(identities, six, [TensorSpec("vector", (None, 8))])
    for said in (
        Conditions(tasks={"": "detection"}),
        Conditions(metric="map"),
        Conditions(metric="my_metrics:hits"),
        Conditions(tasks={"out": "embedding", "vector": "embedding"}),
        Conditions(metric="recall@5"),
    ):
        check(boxes, six, out, free_labels=said.free_labels)
        check(identities, six, [TensorSpec("vector", (None, 8))], free_labels=said.free_labels)
    assert not Conditions(metric="top1", tasks={"": "classes"}).free_labels


def test_tasks_that_are_said_say_the_metric() -> None:
    assert Conditions(tasks={"": "segmentation"}).scoring == "mean-iou"
    assert Conditions(metric="pixel-accuracy", tasks={"": "segmentation"}).scoring == "pixel-accuracy"
    assert Conditions().scoring is None


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_that_scores_takes_a_task(name: str) -> None:
    taken = {param.name for param in importlib.import_module(COMMANDS[name]).command.params}
    assert ("metric" in taken) == ("tasks" in taken) == ("output_name" in taken)


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


# --- the score of several outputs ------------------------------------------------------------------------------------


def test_several_outputs_have_one_score_together() -> None:
    hits, errors = np.array([1.0, 1, 0, 1]), np.array([1.0, 2, 3, 2])
    top1, mse = metric("top1"), metric("mse")
    both = together([Scored(top1, 1, 0.25), Scored(mse, 1, 8.0)])
    assert both.value((hits, errors)).value == pytest.approx((3 / 4 + (1 - 2 / 8)) / 2)
    worse = both.difference((hits, errors), (hits, 2 * errors))
    assert worse.value == pytest.approx(100 * ((1 - 2 / 8) - (1 - 4 / 8)) / 2)


def test_the_naive_answer_is_the_labels_mean() -> None:
    values = X[:, :2]
    found = naive(metric("mse"), np.zeros((1, 2)), Batch({"x": X}, values))
    assert found == pytest.approx(values.var(axis=0).mean(), rel=1e-5)


def test_metrics_are_said_of_outputs() -> None:
    assert for_outputs("kind=top1,size=mae") == {"kind": "top1", "size": "mae"}
    assert for_outputs(None) == {}
    assert metric_said({"": "segmentation"}) == "mean-iou"
    assert metric_said({"size": "regression", "boxes": "detection"}) == "size=mse"
    assert metric_said({"": "anomaly"}) is None
    with pytest.raises(ConfigError, match="one --metric for all outputs, got top1 and mse"):
        for_outputs("top1,mse")


def test_a_file_is_scored_for_each_output_and_for_all(tmp_path: Path) -> None:
    tf = load_framework("tensorflow")
    keras = load_framework("tf_keras")
    x = keras.Input((6,), name="x")
    kind = keras.layers.Dense(2, "softmax", name="kind")(x)
    model = keras.Model(x, {"kind": kind, "size": keras.layers.Dense(2, name="size")(x)})
    file = tmp_path / "two.tflite"
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec([1, 6], name="x"))
    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=function)
    file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    arrays = _twofold()
    part = load(arrays, validation_share=1.0).validation
    found = evaluate(file, part, isolate=False)
    batch = part.arrays()
    answers = {name: np.asarray(value) for name, value in model(batch.inputs["x"]).items()}
    hits = (answers["kind"].argmax(-1) == batch.several["kind"]).mean()
    error = np.square(answers["size"] - batch.several["size"]).mean()
    spread = batch.several["size"].var(axis=0).mean()
    scores = {one.output: one.metric for one in found.outputs}
    assert scores["kind"].value == pytest.approx(hits)
    assert scores["size"].value == pytest.approx(error, rel=1e-4)
    assert (found.metric.name, found.metric.value) == (
        "outputs",
        pytest.approx((hits + 1 - error / spread) / 2, rel=1e-3),
    )
    assert found.difference(found).value == 0
    assert evaluate(file, part, output="kind", isolate=False).metric.value == pytest.approx(hits)
    for words, output in (("kind=top1", None), ("kind=top1,size=mae", "kind"), (None, "kind")):
        beside = compare(file, file, part, metric=words, output=output, isolate=False).metric_a
        held = measure(file, file, part, metric=words, output=output, isolate=False).metric
        for one in (beside, held):
            assert (one.name, one.value) == ("top1", pytest.approx(hits))
    alike = {name: compare(file, file, part, output=name, isolate=False).agreement for name in ("kind", "size")}
    assert (alike["kind"].value, alike["size"]) == (1.0, None)  # the larger of two sizes is no decision
    both = compare(file, file, part, metric="kind=top1,size=mae", isolate=False)
    assert both.metric_a is None
    assert "not scored: one output is scored at a time (--output-name size)" in both.notes
    with pytest.raises(DataError, match=r"labels for the outputs .*, got some for 'sice'"):
        evaluate(
            file, load({"x": arrays["x"], "y_sice": arrays["y_size"]}, validation_share=1.0).validation, isolate=False
        )
