"""Metrics of masks, tags, many labels, numbers, embeddings and boxes against scikit-learn's and COCO's."""

from __future__ import annotations

import math

import metric_rows
import numpy as np
import pytest
import sklearn.metrics

from edgeopt.errors import ConfigError, DataError
from edgeopt.metrics import metric
from edgeopt.metrics.breakdown import LARGEST_TABLE, breakdown, sums
from edgeopt.vocabulary import Batch, Breakdown, MetricValue

generator = np.random.default_rng(0)
N = 200
LABELS = generator.integers(0, 4, N)
LOGITS = (2 * np.eye(4)[LABELS] + generator.normal(size=(N, 4))).astype(np.float32)


def value_of(name: str, outputs: np.ndarray, labels: np.ndarray) -> MetricValue:
    return metric_rows.value_of(name, outputs, labels, np.zeros((len(outputs), 1), np.float32))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def masks(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns outputs [N, 6, 5, channels] and class numbers [N, 6, 5], some of which are ignored."""
    labels = generator.integers(0, max(2, channels), (N, 6, 5))
    truth = np.eye(channels)[labels] if channels > 1 else labels[..., None] * 2.0 - 1
    nobody_can_say = generator.random(labels.shape) < 0.1
    labels = (
        np.where(nobody_can_say, 255, labels).astype(np.uint8)
        if channels == 2
        else np.where(nobody_can_say, -1, labels)
    )
    return (truth + generator.normal(size=truth.shape)).astype(np.float32), labels


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_scores_of_masks_are_scikit_learns(channels: int) -> None:
    outputs, labels = masks(channels)
    known = (labels >= 0) & (labels < 255)
    decided = outputs.argmax(-1) if channels > 1 else (outputs[..., 0] > 0).astype(int)
    truth, predicted = labels[known], decided[known]
    iou = value_of("mean-iou", outputs, labels)
    assert iou.value == pytest.approx(sklearn.metrics.jaccard_score(truth, predicted, average="macro"))
    assert iou.low < iou.value < iou.high
    assert (iou.samples, iou.is_share) == (N, True)
    for name in ("pixel-accuracy", "tag-accuracy"):
        assert value_of(name, outputs, labels).value == pytest.approx((truth == predicted).mean())
    dice = sklearn.metrics.f1_score(truth, predicted, average="macro")
    assert value_of("f1", outputs, labels).value == pytest.approx(dice)
    if channels > 1:
        one_hot = np.where(known[..., None], np.eye(channels)[np.where(known, labels, 0)], 0)
        assert value_of("mean-iou", outputs, one_hot).value == pytest.approx(iou.value)
        assert value_of("top1", outputs, labels).value == pytest.approx((truth == predicted).mean())
    else:
        assert value_of("mean-iou", sigmoid(outputs), labels[..., None]).value == pytest.approx(iou.value)


def test_a_worse_mask_is_shown_to_be_worse() -> None:
    outputs, labels = masks(3)
    x = np.zeros((N, 1), np.float32)
    good = metric_rows.rows_of("mean-iou", outputs, labels, x)
    worse = metric_rows.rows_of("mean-iou", outputs + generator.normal(size=outputs.shape), labels, x)
    found = metric("mean-iou").difference(good, worse)
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert 0 < (found.low or 0) < found.value < (found.high or 0)


def test_masks_without_a_labelled_position() -> None:
    outputs = np.zeros((4, 2, 2, 3))
    for name in ("mean-iou", "pixel-accuracy", "perplexity"):
        with pytest.raises(DataError, match=rf"{name} is defined, got 4 .*no position is labelled"):
            value_of(name, outputs, np.full((4, 2, 2), -1))


def test_pictures_of_nan_are_never_right() -> None:
    outputs, labels = np.full((4, 2, 2, 3), np.nan), np.zeros((4, 2, 2), int)
    assert value_of("mean-iou", outputs, labels).value == 0
    assert value_of("pixel-accuracy", outputs[..., :1], labels).value == 0


def test_many_labels_are_scikit_learns() -> None:
    bits = (generator.random((N, 4)) < 0.3).astype(int)
    outputs = (2 * bits - 1 + generator.normal(size=(N, 4))).astype(np.float32)
    f1 = sklearn.metrics.f1_score(bits, outputs > 0, average="macro")
    assert value_of("f1", outputs, bits).value == pytest.approx(f1)
    assert value_of("f1", sigmoid(outputs), bits).value == pytest.approx(f1)
    for scores in (outputs, np.round(outputs)):
        expected = sklearn.metrics.average_precision_score(bits, scores, average="macro")
        found = value_of("average-precision", scores, bits)
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high
    of_classes = sklearn.metrics.average_precision_score(np.eye(4)[LABELS], LOGITS, average="macro")
    assert value_of("average-precision", LOGITS, LABELS).value == pytest.approx(of_classes)
    binary = sklearn.metrics.average_precision_score(bits[:, 0], outputs[:, 0])
    assert value_of("average-precision", outputs[:, :1], bits[:, 0]).value == pytest.approx(binary)


def test_regression_is_scikit_learns() -> None:
    targets = generator.normal(size=(N, 3)) * (1, 10, 100)
    outputs = targets + generator.normal(size=(N, 3)) * (0.5, 1, 50)
    assert value_of("rmse", outputs, targets).value == pytest.approx(np.sqrt(((outputs - targets) ** 2).mean()))
    found = value_of("r2", outputs, targets)
    assert found.value == pytest.approx(sklearn.metrics.r2_score(targets, outputs))
    assert found.low < found.value < found.high
    still = np.concatenate([targets[:, :1], np.ones((N, 1))], axis=1)  # a target that never changes explains nothing
    alone = sklearn.metrics.r2_score(targets[:, 0], outputs[:, 0])
    assert value_of("r2", outputs[:, :2], still).value == pytest.approx(alone)
    with pytest.raises(DataError, match=r"r2 is defined.*no target varies"):
        value_of("r2", outputs[:, :1], np.ones(N))


@pytest.mark.parametrize("probabilities", [False, True])
def test_perplexity(probabilities: bool) -> None:
    labels = generator.integers(0, 7, (N, 5))
    outputs = generator.normal(size=(N, 5, 7))
    right = np.take_along_axis(np.log(softmax(outputs)), labels[..., None], axis=-1)[..., 0]
    known = np.arange(5) < generator.integers(1, 6, N)[:, None]
    found = value_of("perplexity", softmax(outputs) if probabilities else outputs, np.where(known, labels, -1))
    assert found.value == pytest.approx(math.exp(-right[known].mean()))
    assert found.low < found.value < found.high
    assert not found.higher_is_better


def test_embeddings_of_one_class_lie_together() -> None:
    centres = generator.normal(size=(40, 8))
    identities = generator.integers(0, 40, N)
    outputs = (centres[identities] + generator.normal(size=(N, 8))).astype(np.float32)
    unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    several = np.bincount(identities)[identities] > 1
    for k in (1, 5):
        nearest = np.argsort(-near, axis=1)[:, :k]
        expected = (identities[nearest] == identities[:, None]).any(axis=1)[several].mean()
        assert value_of(f"recall@{k}", outputs, identities).value == pytest.approx(expected)
    above = np.triu_indices(N, 1)
    same = identities[:, None] == identities
    found = value_of("auc-pairs", outputs, identities)
    assert found.value == pytest.approx(sklearn.metrics.roc_auc_score(same[above], near[above]), abs=1e-4)
    assert found.low < found.value < found.high


def test_embeddings_that_are_all_alike_or_none() -> None:
    outputs = generator.normal(size=(6, 3))
    for name, labels, words in (
        ("recall@1", np.arange(6), "no two are of one class"),
        ("auc-pairs", np.arange(6), "no two are of one class"),
        ("auc-pairs", np.zeros(6, int), "all are of one class"),
    ):
        with pytest.raises(DataError, match=rf"{name} is defined.*{words}"):
            value_of(name, outputs, labels)
    assert value_of("recall@2", np.full((6, 3), np.nan), np.zeros(6, int)).value == 0


def boxes_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns found boxes [count, 12, 6] and boxes that are there [count, 5, 5] of three classes, some of them none."""
    corner, size = generator.random((count, 5, 2)) * 80, 15 + generator.random((count, 5, 2)) * 20
    classes = generator.integers(-1, 3, (count, 5, 1))
    there = np.concatenate([corner, corner + size, classes], axis=2)
    moved = np.array([2, 2, 2, 2, 0]) * generator.normal(size=(count, 12, 5))
    copies = there[:, generator.integers(0, 5, 12)] + moved
    wrong = generator.random((count, 12, 1)) < 0.2
    guessed = np.where(wrong, generator.integers(0, 3, (count, 12, 1)), copies[..., 4:])
    return np.concatenate([copies[..., :4], generator.random((count, 12, 1)), guessed], axis=2), there


def test_mean_average_precision_is_cocos(capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, there = boxes_of(60)
    truth, said = [], []
    for image in range(60):
        for x1, y1, x2, y2, number in there[image]:
            if number >= 0:
                box = [x1, y1, x2 - x1, y2 - y1]
                truth.append({"id": len(truth) + 1, "image_id": image, "category_id": int(number), "bbox": box})
                truth[-1] |= {"area": box[2] * box[3], "iscrowd": 0}
        for x1, y1, x2, y2, score, number in found[image]:
            if number >= 0:
                box = [x1, y1, x2 - x1, y2 - y1]
                said.append({"image_id": image, "category_id": int(number), "bbox": box, "score": score})
    coco = COCO()
    categories = [{"id": number} for number in range(3)]
    coco.dataset = {"images": [{"id": n} for n in range(60)], "annotations": truth, "categories": categories}
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(said), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    capsys.readouterr()
    value = value_of("map", found, there)
    assert value.value == pytest.approx(judge.stats[0], abs=1e-9)
    assert 0.05 < value.low < value.value < value.high < 1
    doubled = found * (2, 2, 2, 2, 1, 1)
    assert value_of("map@my_metrics:halved", doubled, there).value == pytest.approx(value.value)


def test_boxes_that_do_not_fit() -> None:
    there = np.zeros((N, 1, 5))
    with pytest.raises(ConfigError, match=r"Expected my_metrics:hit_boxes to return boxes .*got shape"):
        metric_rows.value_of("map@my_metrics:hit_boxes", LOGITS, there, np.zeros((N, 1)))
    with pytest.raises(ConfigError, match=r"The decoder my_metrics:no_boxes failed: .*Try it alone on the model"):
        value_of("map@my_metrics:no_boxes", LOGITS, there)
    with pytest.raises(DataError, match=r"map is defined, got 4 .*no box is labelled"):
        value_of("map", np.zeros((4, 2, 6)), np.full((4, 1, 5), -1.0))
    with pytest.raises(DataError, match="each x1, y1, x2, y2, class, with class -1 where there is none, got int64 of"):
        value_of("map", LOGITS, LABELS)
    with pytest.raises(DataError, match=r"each x1, y1, x2, y2, score, class, got shape \(64, 4\) for 64 samples"):
        value_of("map", LOGITS, there)


def table_of(outputs: np.ndarray, labels: np.ndarray, by: str = "classes", names: tuple[str, ...] = ()) -> Breakdown:
    """Returns the table, added up batch by batch."""
    x = np.zeros((len(outputs), 1))
    total = None
    for start in range(0, len(outputs), 64):
        some = slice(start, start + 64)
        found = sums(outputs[some], Batch({"x": x[some]}, labels[some]), by)
        assert found is not None
        total = found if total is None else total + found
    table = breakdown(total, names)
    assert table is not None
    return table


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_table_of_classes_is_scikit_learns(one_hot: bool) -> None:
    labels = np.where(LABELS == 3, 2, LABELS)  # one class is only ever predicted
    table = table_of(LOGITS, np.eye(4)[labels] if one_hot else labels, names=("a", "b", "c", "d"))
    predicted = LOGITS.argmax(axis=1)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=np.nan)
    assert (table.of, table.names, list(table.columns)) == (
        "classes",
        ("a", "b", "c", "d"),
        ["precision", "recall", "f1"],
    )
    for column, values in zip(table.columns.values(), expected):
        assert [np.nan if value is None else value for value in column] == pytest.approx(values.tolist(), nan_ok=True)
    assert table.counts == tuple(expected[3])
    assert table.confusion == tuple(map(tuple, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(4))))


@pytest.mark.parametrize("channels", [1, 5])
def test_the_table_of_masks_is_scikit_learns(channels: int) -> None:
    outputs, labels = masks(channels)
    table = table_of(outputs, labels)
    decided = outputs.argmax(-1) if channels > 1 else (outputs[..., 0] > 0).astype(int)
    truth, predicted = labels[labels >= 0], decided[labels >= 0]
    assert table.columns["iou"] == pytest.approx(sklearn.metrics.jaccard_score(truth, predicted, average=None))
    assert table.confusion == tuple(map(tuple, sklearn.metrics.confusion_matrix(truth, predicted)))


def test_the_table_of_many_labels_is_scikit_learns() -> None:
    bits = (generator.random((N, 3)) < 0.3).astype(int)
    bits[:64] = np.eye(3)[generator.integers(0, 3, 64)]  # a batch that could be of classes
    outputs = 2 * bits - 1 + generator.normal(size=(N, 3))
    table = table_of(outputs, bits)
    assert table.of == "labels"
    assert table.columns["f1"] == pytest.approx(sklearn.metrics.f1_score(bits, outputs > 0, average=None))
    assert table.confusion == ()
    f1 = sklearn.metrics.f1_score(bits, outputs > 0, average="macro")
    assert value_of("f1", outputs, bits).value == pytest.approx(f1)


def test_the_table_of_two_classes_told_by_one_unit() -> None:
    labels = (LABELS > 1).astype(int)
    logits = labels - 0.5 + generator.normal(size=N)
    for outputs in (logits, sigmoid(logits)):
        expected = sklearn.metrics.confusion_matrix(labels, logits > 0)
        assert table_of(outputs[:, None], labels).confusion == tuple(map(tuple, expected))


def test_the_table_of_targets_is_scikit_learns() -> None:
    targets = generator.normal(size=(N, 3)) * (1, 10, 0) + (0, 1e3, 5)
    outputs = targets + generator.normal(size=(N, 3))
    table = table_of(outputs, targets, "targets")
    errors = outputs - targets
    assert table.columns["rmse"] == pytest.approx(np.sqrt((errors**2).mean(axis=0)))
    assert table.columns["mae"] == pytest.approx(np.abs(errors).mean(axis=0))
    r2 = sklearn.metrics.r2_score(targets[:, :2], outputs[:, :2], multioutput="raw_values")
    assert table.columns["r2"] == (*(pytest.approx(value) for value in r2), None)  # the third target never varies


def test_there_is_no_table_of_very_many_classes_or_none() -> None:
    many = np.zeros((4, LARGEST_TABLE + 1))
    for outputs, by in ((many, "classes"), (many, "targets"), (LOGITS[:4], "")):
        assert sums(outputs, Batch({"x": np.zeros((4, 1))}, np.zeros(4, int)), by) is None
    assert sums(LOGITS[:4], Batch({"x": np.zeros((4, 1))}), "classes") is None
    assert breakdown(None) is None
