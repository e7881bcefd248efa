"""Each metric against scikit-learn's, one batch after the other, and every refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import metric_rows
import my_metrics
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt import metrics, statistics
from edgeopt.errors import ConfigError, DataError
from edgeopt.metrics import METRICS, Rows, class_scores, decide, heads, metric
from edgeopt.metrics.several import Scored, together
from edgeopt.tasks.finding import metric_of
from edgeopt.vocabulary import Batch, MetricValue

generator = np.random.default_rng(0)
N = 400
X = generator.random((N, 6), np.float32)
LABELS = generator.integers(0, 4, N)
# Right most of the time, as a model's are.
LOGITS = (2 * np.eye(4)[LABELS] + generator.normal(size=(N, 4))).astype(np.float32)
BINARY = generator.integers(0, 2, N)
SCORES = (BINARY + generator.normal(size=N)).astype(np.float32)


def rows_of(name: str, outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray = X) -> Rows:
    return metric_rows.rows_of(name, outputs, labels, x)


def value_of(name: str, outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray = X) -> MetricValue:
    return metric_rows.value_of(name, outputs, labels, x)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("outputs", [LOGITS, softmax(LOGITS)], ids=["logits", "probabilities"])
def test_top1_and_f1_are_scikit_learns(outputs: np.ndarray) -> None:
    predicted = outputs.argmax(axis=1)
    top1 = value_of("top1", outputs, LABELS)
    assert top1.value == pytest.approx(sklearn.metrics.accuracy_score(LABELS, predicted))
    assert (top1.low, top1.high) == statistics.wilson(int((predicted == LABELS).sum()), N)
    assert (top1.samples, top1.is_share, top1.higher_is_better) == (N, True, True)
    f1 = value_of("f1", outputs, LABELS)
    assert f1.value == pytest.approx(sklearn.metrics.f1_score(LABELS, predicted, average="macro"))
    assert f1.low < f1.value < f1.high


def test_f1_counts_classes_that_are_only_predicted_or_only_there() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 3, 1, 1])
    expected = sklearn.metrics.f1_score(labels, predicted, average="macro")
    assert value_of("f1", np.eye(5)[predicted], labels, X[:4]).value == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k_is_scikit_learns(k: int) -> None:
    expected = sklearn.metrics.top_k_accuracy_score(LABELS, LOGITS, k=k, labels=range(4))
    assert value_of(f"top{k}", LOGITS, LABELS).value == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=6), st.data())
def test_ties_go_to_the_first_as_in_argmax(scores: list[int], drawn: st.DataObject) -> None:
    label = drawn.draw(st.integers(0, len(scores) - 1))
    outputs, labels = np.array([scores], np.float32), np.array([label])
    (hit,) = metric("top1").per_sample(outputs, Batch({"x": X[:1]}, labels))
    assert bool(hit[0]) == (outputs.argmax() == label)
    order = np.argsort(-outputs[0], kind="stable")
    for k in range(1, len(scores) + 1):
        (hit,) = metric(f"top{k}").per_sample(outputs, Batch({"x": X[:1]}, labels))
        assert bool(hit[0]) == (label in order[:k])


def test_outputs_that_are_not_numbers_never_hit() -> None:
    outputs = np.full((N, 4), np.nan, np.float32)
    assert value_of("top1", outputs, np.zeros(N, int)).value == 0
    assert value_of("top5", np.full((N, 8), np.nan), np.zeros(N, int)).value == 0


@pytest.mark.parametrize(
    "labels", [np.eye(4)[LABELS], LABELS[:, None], LABELS.astype(np.float32)], ids=["one-hot", "column", "floats"]
)
def test_labels_may_be_one_hot_or_a_column(labels: np.ndarray) -> None:
    assert value_of("top1", LOGITS, labels).value == value_of("top1", LOGITS, LABELS).value
    assert value_of("f1", LOGITS, labels).value == value_of("f1", LOGITS, LABELS).value


@pytest.mark.parametrize(
    ("outputs", "threshold"), [(SCORES[:, None], 0.0), (sigmoid(SCORES)[:, None], 0.5), (sigmoid(SCORES), 0.5)]
)
def test_one_output_is_a_binary_classifier(outputs: np.ndarray, threshold: float) -> None:
    predicted = (outputs.reshape(N) > threshold).astype(int)
    value = value_of("top1", outputs, BINARY)
    assert value.value == pytest.approx((predicted == BINARY).mean())
    assert (value.low, value.high) == statistics.wilson(int((predicted == BINARY).sum()), N)
    expected = sklearn.metrics.f1_score(BINARY, predicted, average="macro")
    assert value_of("f1", outputs, BINARY).value == pytest.approx(expected)
    assert value_of("top5", outputs, BINARY).value == 1.0


def test_a_batch_of_logits_inside_0_to_1_is_still_logits() -> None:
    scores = np.array([0.2] * 64 + [-3.0] * 64, np.float32)  # the first batch alone looks like probabilities
    labels = np.array([1] * 64 + [0] * 64)
    assert value_of("top1", scores[:, None], labels, X[:128]).value == 1.0


def test_one_nan_changes_no_other_decision() -> None:
    scores = np.array([0.2] * 64 + [0.8] * 63 + [np.nan], np.float32)[:, None]
    labels = np.array([0] * 64 + [1] * 63 + [0])
    assert value_of("top1", scores, labels, X[:128]).value == 127 / 128  # NaN is no hit, whatever the label
    two = np.where(np.arange(2) == labels[:, None], 0.8, 0.2)
    two[-1] = np.nan
    right = 2 * 64 / (2 * 64 + 1)  # one of class 0 was not found
    assert value_of("f1", scores, labels, X[:128]).value == pytest.approx((right + 1) / 2)
    assert value_of("f1", two, labels, X[:128]).value == pytest.approx((right + 1) / 2)
    assert class_scores(two)[-1] == -1
    assert decide(class_scores(scores, classes=2))[-1] == -1


def test_every_position_counts_in_dense_predictions() -> None:
    labels = generator.integers(0, 3, (N, 2, 5))
    outputs = np.eye(3)[labels] + generator.normal(size=(N, 2, 5, 3))
    value = value_of("top1", outputs, labels)
    assert value.value == pytest.approx((outputs.argmax(-1) == labels).mean())
    assert value.low < value.value < value.high


@pytest.mark.parametrize("scores", [SCORES, np.round(SCORES), sigmoid(SCORES)], ids=["distinct", "tied", "shares"])
def test_auc_is_scikit_learns(scores: np.ndarray) -> None:
    expected = sklearn.metrics.roc_auc_score(BINARY, scores)
    value = value_of("auc", scores[:, None], BINARY)
    assert value.value == pytest.approx(expected)
    assert value.low < value.value < value.high
    pair = np.stack([1 - scores, scores], axis=1)
    assert value_of("auc", pair, BINARY).value == pytest.approx(expected)
    shifted = pair + generator.normal(size=(N, 1))  # logits: only their difference counts
    if len(np.unique(scores)) == N:
        assert value_of("auc", shifted, BINARY).value == pytest.approx(expected)


def test_errors_are_scikit_learns() -> None:
    targets = generator.normal(size=(N, 3))
    outputs = targets + generator.normal(size=(N, 3))
    assert value_of("mse", outputs, targets).value == pytest.approx(
        sklearn.metrics.mean_squared_error(targets, outputs)
    )
    assert value_of("mae", outputs, targets).value == pytest.approx(
        sklearn.metrics.mean_absolute_error(targets, outputs)
    )
    assert not value_of("mse", outputs, targets).higher_is_better
    column = value_of("mse", outputs[:, :1], targets[:, 0])
    assert column.value == pytest.approx(((outputs[:, 0] - targets[:, 0]) ** 2).mean())
    assert column.low < column.value < column.high


def test_reconstruction_tells_anomalies() -> None:
    outputs = X + (0.02 + 0.1 * BINARY[:, None]) * generator.normal(size=X.shape)
    errors = ((outputs - X) ** 2).mean(axis=1)
    assert value_of("reconstruction", outputs, None).value == pytest.approx(errors.mean())
    expected = sklearn.metrics.roc_auc_score(BINARY, errors)
    assert value_of("auc-reconstruction", outputs, BINARY).value == pytest.approx(expected)


def test_ones_own_function() -> None:
    top1 = value_of("top1", LOGITS, LABELS).value
    assert value_of("my_metrics:hits", LOGITS, LABELS).value == pytest.approx(top1)
    rate = value_of("my_metrics:error_rate", LOGITS, LABELS)
    assert rate.value == pytest.approx(1 - top1)
    assert rate.low < rate.value < rate.high
    assert (rate.higher_is_better, rate.is_share) == (False, True)
    assert value_of("my_metrics:spread", LOGITS, None).value == pytest.approx(LOGITS.std())
    assert metric("my_metrics:hits").summary == "One number for each sample."


def test_boxes_of_several_outputs_are_decoded_at_once() -> None:
    box = np.tile(np.float64([0, 0, 4, 4]), (N, 1, 1))
    there = np.concatenate([box, np.zeros((N, 1, 1))], axis=2)
    outputs, batch = heads.read(heads.ALL, {"box": box, "score": np.full((N, 1), 0.9)}, Batch({"x": X}, there))
    one = metric("map@my_metrics:pair_boxes")
    assert one.value(one.settle(*one.per_sample(outputs, batch))).value == pytest.approx(1)


def test_ones_own_function_is_called_no_more_than_is_said() -> None:
    my_metrics.calls.clear()
    first, second = (rows_of("my_metrics:counted_hits", outputs, LABELS) for outputs in (LOGITS, -LOGITS))
    metric("my_metrics:counted_hits").value(first)
    metric("my_metrics:counted_hits").difference(first, second)
    assert len(my_metrics.calls) == 2  # once for each model
    my_metrics.calls.clear()
    first, second = (rows_of("my_metrics:counted_rate", outputs, LABELS) for outputs in (LOGITS, -LOGITS))
    found = metric("my_metrics:counted_rate").value(first)
    assert (found.value, len(my_metrics.calls)) == (
        pytest.approx(my_metrics.error_rate(LOGITS, LABELS)),
        2 + 1 + 20 + 1,
    )
    my_metrics.calls.clear()
    metric("my_metrics:counted_rate").difference(first, second)
    assert len(my_metrics.calls) == 2 + 2 * (1 + 20)  # both whole, and without each group


def test_a_function_of_all_samples_is_tested_as_shares_of_samples_are() -> None:
    worse_logits = np.where(generator.random((N, 1)) < 0.1, -LOGITS, LOGITS)
    first, second = (rows_of("my_metrics:error_rate", outputs, LABELS) for outputs in (LOGITS, worse_logits))
    worse = metric("my_metrics:error_rate").difference(first, second)
    hits = metric("top1").difference(rows_of("top1", LOGITS, LABELS), rows_of("top1", worse_logits, LABELS))
    assert worse.value == pytest.approx(hits.value)
    assert worse.p_value is not None
    assert worse.p_value < 1e-3
    assert (worse.low, worse.high) == (pytest.approx(hits.low, abs=2), pytest.approx(hits.high, abs=2))
    same = metric("my_metrics:error_rate").difference(first, first)
    assert (same.value, same.p_value, same.low, same.high) == (0, 1, 0, 0)


def test_a_function_that_takes_labels_first_is_given_them_first() -> None:
    found, top1 = (value_of(name, LOGITS, LABELS) for name in ("my_metrics:keras_style", "top1"))
    assert found.value == pytest.approx(top1.value)
    assert (found.low, found.high) == (pytest.approx(top1.low, abs=0.02), pytest.approx(top1.high, abs=0.02))


def test_a_metric_of_keras_is_asked_for_its_result() -> None:
    found = value_of("my_metrics:Counted", LOGITS, LABELS)
    assert found.value == pytest.approx(1 - value_of("top1", LOGITS, LABELS).value)
    assert not found.higher_is_better
    with pytest.raises(ConfigError, match=r"a metric that needs no settings, got one that does: .*missing 1 required"):
        metric("my_metrics:Settled")


def test_a_value_of_all_samples_beside_another_output() -> None:
    """Both are drawn together, so that groups are left out of both."""
    own, top1 = metric("my_metrics:error_rate"), metric("top1")
    rows = (*rows_of("my_metrics:error_rate", LOGITS, LABELS), *rows_of("top1", LOGITS, LABELS))
    joined = together([Scored(own, 2, 0.5), Scored(top1, 1, 0.5)])
    assert joined.whole(*rows)
    assert joined.value(rows).value == pytest.approx(value_of("top1", LOGITS, LABELS).value)


def test_differences_say_how_much_worse() -> None:
    worse = LOGITS.copy()
    worse[:40] = -worse[:40]
    before, after = rows_of("top1", LOGITS, LABELS), rows_of("top1", worse, LABELS)
    found = metric("top1").difference(before, after)
    assert found.value == pytest.approx(100 * (before[0].mean() - after[0].mean()))
    assert found.p_value == statistics.mcnemar(before[0], after[0])
    assert metric("top1").difference(after, before).value == -found.value

    small, large = (np.full(100, 2.0),), (np.full(100, 2.5),)
    assert metric("mse").difference(small, large).value == pytest.approx(25.0)
    assert metric("mse").difference((np.zeros(4),), (np.ones(4),)).value == math.inf
    assert metric("mse").difference((np.zeros(4),), (np.zeros(4),)).value == 0

    f1 = metric("f1").difference(rows_of("f1", LOGITS, LABELS), rows_of("f1", worse, LABELS))
    assert f1.value > 0
    assert f1.p_value is not None
    assert f1.p_value < 0.05


def test_difference_needs_the_same_samples() -> None:
    with pytest.raises(DataError, match="scored on the same samples, got 3 and 4"):
        metric("top1").difference((np.ones(3),), (np.ones(4),))


@pytest.mark.parametrize(
    ("outputs", "labels", "x", "expected"),
    [
        (LOGITS, LABELS, X, "top1"),
        (LOGITS, np.eye(4)[LABELS], X, "top1"),
        (LOGITS, LOGITS + 1, X, "mse"),
        (LOGITS[:, :2], LOGITS[:, :2] * (1, 20), X, "r2"),
        (LOGITS[:, :2], LOGITS[:, :2] * (1, 0), X, "mse"),
        (SCORES[:, None], BINARY, X, "top1"),
        (SCORES[:, None], SCORES, X, "mse"),
        (SCORES[:, None], LABELS, X, "mse"),
        (X - 0.5, None, X, "reconstruction"),
        (X - 0.5, BINARY, X, "auc-reconstruction"),
        (X - 0.5, LABELS, X, "reconstruction"),
        (X - 0.5, X, X, "reconstruction"),
        (X - 0.5, X.copy(), X, "mse"),
        (softmax(X), LABELS, X, "top1"),
        (np.zeros((N, 2, 5, 3)), np.zeros((N, 2, 5), int), X, "mean-iou"),
        (np.zeros((N, 2, 5, 3)), np.eye(3)[np.zeros((N, 2, 5), int)], X, "mean-iou"),
        (
            np.zeros((N, 2, 5, 1)),
            np.where(LABELS[:, None, None] > 1, 255, np.ones((N, 2, 5))).astype(np.uint8),
            X,
            "mean-iou",
        ),
        (np.zeros((N, 5, 3)), np.where(np.arange(5) < 3, 2, np.full((N, 5), -1)), X, "tag-accuracy"),
        (np.zeros((N, 2, 5, 1)), LOGITS[:, :1, None, None] * np.ones((N, 2, 5, 1)), X, "mse"),
        (LOGITS, LOGITS > 0, X, "f1"),
    ],
)
def test_the_default_suits_outputs_and_labels(
    outputs: np.ndarray, labels: np.ndarray | None, x: np.ndarray, expected: str
) -> None:
    assert metric_of(outputs, Batch({"x": x}, labels)) == expected


def test_the_default_does_not_depend_on_how_many_outputs_are_at_hand() -> None:
    """As many as a machine computes in some time: a few are enough, and the labels are all samples'."""
    for outputs, labels in ((LOGITS, LABELS), (LOGITS, np.eye(4)[LABELS]), (LOGITS, LOGITS), (SCORES[:, None], LABELS)):
        expected = metric_of(outputs, Batch({"x": X}, labels))
        assert metric_of(outputs[:1], Batch({"x": X}, labels)) == expected
    numbers = np.array([0, 1, 1, 0])  # the first of a regression's whole numbers
    assert metric_of(SCORES[:4, None], Batch({"x": X[:4]}, numbers), classes=7) == "mse"


@pytest.mark.parametrize(
    ("outputs", "labels", "words"),
    [
        (LOGITS, None, "no labels and outputs (4,). Try data with y_test"),
        (LOGITS, LOGITS[:, :3], "labels that fit outputs (4,), got float32 labels (3,)"),
    ],
)
def test_where_no_default_suits(outputs: np.ndarray, labels: np.ndarray | None, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        metric_of(outputs, Batch({"x": X}, labels))


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "words"),
    [
        ("top1", LOGITS, LABELS + 8, "Expected labels 0..3 for 4 outputs, got up to 11. Try labels counted from 0"),
        ("top1", LOGITS, np.where(LABELS == 1, np.inf, LABELS), "Expected labels 0..3 for 4 outputs, got up to inf"),
        ("top1", LOGITS, LABELS.astype(str), "Expected class numbers for top1, got <U21 values. Try --metric mse"),
        ("f1", LOGITS, LABELS - 1, "Expected labels 0..3 for 4 outputs, got down to -1"),
        ("top1", LOGITS, None, "Expected labels for top1, got none. Try data with y_test"),
        ("mse", LOGITS, None, "Expected labels for mse, got none"),
        ("auc", SCORES[:, None], None, "Expected labels for auc, got none"),
        ("top1", LOGITS, LABELS + 0.5, "Expected class numbers for top1, got float64 values. Try --metric mse"),
        ("top1", LOGITS, np.zeros((N, 3)), "Expected labels () per sample for outputs (4,), got (3,)"),
        ("mean-iou", LOGITS, LABELS, "with classes at each position for mean-iou, got outputs (4,). Try --metric top1"),
        ("mean-iou", np.zeros((N, 2, 4)), LABELS, "Expected labels (2,) per sample for outputs (2, 4), got ()"),
        ("mean-iou", np.zeros((N, 2, 4)), np.full((N, 2), 4), "Expected labels 0..3 for 4 outputs, got up to 4"),
        ("average-precision", LOGITS, LOGITS, "0 and 1 (4,) per sample, one for each output, for average-precision"),
        ("recall@1", SCORES[:, None], LABELS, "Expected embeddings (N,) and a class number per sample for recall@1"),
        ("top1", SCORES[:, None], LABELS, "Expected labels 0 and 1, one per sample, for top1 with these outputs, got"),
        ("auc", LOGITS, BINARY, "one for each of two classes, for auc, got outputs (4,). Try --metric f1"),
        ("auc", LOGITS, np.eye(4)[LABELS], "Expected labels 0 and 1, one per sample, for auc with these outputs, got"),
        ("mae", LOGITS, LABELS, "Expected labels (4,) like the outputs for mae, got (). Try --metric top1"),
        ("reconstruction", LOGITS, None, "shaped like an input for the reconstruction error, got outputs (4,)"),
    ],
)
def test_labels_that_do_not_fit(name: str, outputs: np.ndarray, labels: np.ndarray | None, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        value_of(name, outputs, labels)


def test_auc_needs_both_classes() -> None:
    with pytest.raises(DataError, match=r"auc is defined.*all are of class 1"):
        value_of("auc", SCORES[:, None], np.ones(N, int))


def test_a_value_without_bounds_is_none() -> None:
    with pytest.raises(DataError, match=r"my_metrics:boundless is defined, got 400 on which it is infinite"):
        value_of("my_metrics:boundless", LOGITS, LABELS)


def test_a_metric_that_ends_its_process_has_failed() -> None:
    with pytest.raises(ConfigError, match=r"The metric my_metrics:leaving failed: SystemExit: 3"):
        value_of("my_metrics:leaving", LOGITS, LABELS)


def test_errors_of_outputs_that_are_not_numbers() -> None:
    outputs = np.full((N, 4), np.nan)
    with pytest.raises(DataError, match=r"mse is defined, got 400 .* \(an output or a label is not finite\)"):
        value_of("mse", outputs, LOGITS)
    with pytest.raises(DataError, match=r"r2 is defined, got 400 .* \(a label is not finite\)"):
        value_of("r2", LOGITS, outputs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("top_1", "Expected a metric, got 'top_1'. Did you mean 'top1'?"),
        ("top0", "Expected a metric, got 'top0'"),
        ("my_metrics:missing", "Expected a metric as module:function, got 'my_metrics:missing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        (":f", "Expected a metric as module:function, got ':f'"),
        ("my_metrics:number", "Expected 'my_metrics:number' to name a function, got int"),
    ],
)
def test_unknown_metrics(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        metric(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_metrics:words", r"to return a number, or one for each of 400 samples, got <U4 of shape \(\)"),
        ("my_metrics:broken", "The metric my_metrics:broken failed: KeyError: 'threshold'"),
    ],
)
def test_functions_that_give_no_number(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        value_of(name, LOGITS, LABELS)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is(name: str) -> None:
    one = metric(name)
    assert one.name == name
    assert one.summary
    assert not one.is_share or one.higher_is_better


def test_classes_of_outputs() -> None:
    def decided(outputs: Sequence[Sequence[float]], classes: int) -> list[int] | None:
        scores = metrics.class_scores(np.array(outputs), classes=classes)
        return None if scores is None else metrics.decide(scores).tolist()

    assert decided([[0, 2, 2], [1, 0, 0]], 3) == [1, 0]
    assert decided([[0.4], [0.6]], 2) == [0, 1]
    assert decided([[-0.4], [0.4]], 2) == [0, 1]
    assert decided([[0.4], [0.6]], 5) is None
