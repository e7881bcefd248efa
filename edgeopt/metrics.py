"""Outputs and labels go in, one number that says how good a model is comes out.

A metric works on a batch at a time and keeps a few numbers of each sample, its rows, so that outputs can be
streamed; `combine` makes the value of the rows of all samples, and `statistics` its doubt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import statistics, user_code
from edgeopt.data.labels import class_numbers, is_one_hot
from edgeopt.errors import ConfigError, DataError, suggestion
from edgeopt.vocabulary import Batch, Difference, MetricValue

# A function of one's own may take long, and is asked again for each.
_RESAMPLES_OF_ONES_OWN = 100

# Arrays whose first axis is the samples.
Rows = tuple[np.ndarray, ...]


def _as_they_are(*rows: np.ndarray) -> Rows:
    return rows


@dataclass(frozen=True)
class Metric:
    """A way to score a model.

    Attributes:
        name: key of METRICS, "topK" or "module:function".
        summary: one line for help and docs.
        per_sample: takes real-valued outputs [N, ...] and the batch they belong to, and gives its rows.
        combine: `combine(*rows)` is the value; NaN where it is not defined.
        higher_is_better: the direction.
        is_share: the value lies in 0 to 1; differences are given in percentage points.
        resamples: how many samples are drawn anew for its interval and test; None: see `statistics.bootstrap`.
        settle: `settle(*rows)` brings the rows of all samples to what `combine` takes: what only all together
            show is decided there.
    """

    name: str
    summary: str
    per_sample: Callable[[np.ndarray, Batch], Rows]
    combine: Callable[..., float]
    higher_is_better: bool = True
    is_share: bool = False
    settle: Callable[..., Rows] = _as_they_are
    resamples: int | None = None

    def value(self, rows: Rows) -> MetricValue:
        """Returns the value of settled rows with its 95 % interval.

        Wilson's interval for shares of samples, the bootstrap for everything else.

        Raises:
            DataError: the metric is not defined on these samples.
        """
        value = self.combine(*rows)
        if not math.isfinite(value):
            what = "not a number" if math.isnan(value) else "infinite"
            raise DataError(
                f"Expected samples on which {self.name} is defined, got {len(rows[0])} on which it is {what}"
                f"{self._why_undefined(rows)}. Try other data, or another --metric."
            )
        if _are_hits(self, rows):
            low, high = statistics.wilson(int(rows[0].sum()), len(rows[0]))
        else:
            low, high = statistics.bootstrap(rows, self.combine, resamples=self.resamples)
        return MetricValue(self.name, value, low, high, len(rows[0]), self.higher_is_better, self.is_share)

    def _why_undefined(self, rows: Rows) -> str:
        if self.combine is _auc and np.unique(rows[1]).size < 2:
            return f" (all are of class {int(rows[1][0])})"
        return " (an output is not finite)" if any(not np.isfinite(array).all() for array in rows) else ""

    def difference(self, reference: Rows, other: Rows) -> Difference:
        """Returns how much worse settled rows are than the reference's, of the same samples, with a p-value.

        In percentage points for shares, else in per cent of the reference's value. McNemar's exact test and Agresti
        and Min's interval for shares of samples, the paired permutation test and bootstrap for everything else.

        Raises:
            DataError: the two were not measured on the same number of samples.
        """
        if len(reference[0]) != len(other[0]):
            raise DataError(
                f"Expected both models scored on the same samples, got {len(reference[0])} and {len(other[0])}. "
                "Try evaluating them on the same data."
            )
        before, after = self.combine(*reference), self.combine(*other)
        worse = before - after if self.higher_is_better else after - before
        if _are_hits(self, reference) and _are_hits(self, other):
            p_value = statistics.mcnemar(reference[0], other[0])
            bounds = statistics.paired_shares(reference[0], other[0])
        else:
            p_value = statistics.paired_permutation(reference, other, self.combine, resamples=self.resamples)
            bounds = statistics.paired_bootstrap(reference, other, self.combine, resamples=self.resamples)
        low, high = bounds if self.higher_is_better else (-bounds[1], -bounds[0])

        def told(amount: float) -> float:
            if self.is_share:
                return 100 * amount
            if before == 0:
                return 0.0 if amount == 0 else math.copysign(math.inf, amount)
            return 100 * amount / abs(before)

        return Difference(told(worse), p_value, told(low), told(high))


def metric(name: str) -> Metric:
    """Returns the metric called `name`: a key of METRICS, "topK" for any K, or "module:function".

    A function is called as f(predictions, labels) with float32 predictions [N, ...] and the labels of all samples
    (None where there are none), and returns one number, or one per sample. One that gives a number per sample is
    called once; of one that gives a single number the interval takes about a hundred calls, and each comparison two
    hundred more. Its attributes `higher_is_better` and `is_share` are heeded.

    Raises:
        ConfigError: there is none of that name, or the function cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    if match := re.fullmatch(r"top([1-9]\d*)", name):
        return _top(int(match[1]))
    if ":" in name:
        return _custom(name)
    raise ConfigError(
        f"Expected a metric, got {name!r}.{suggestion(name, METRICS)} Try one of {', '.join(METRICS)}, topK for any K, "
        "or module:function."
    )


def class_scores(outputs: np.ndarray, *, classes: int | None = None) -> np.ndarray | None:
    """Returns each sample's class, [N], the first of its largest outputs; a single output of two classes as it is.

    `decide` makes classes of either when all samples are together. None where outputs are no classes.

    Args:
        outputs: real values [N, ...].
        classes: how many the labels tell apart.
    """
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return _largest(outputs)
    return outputs.reshape(len(outputs)).astype(np.float64) if classes == 2 and _is_single(outputs) else None


def decide(scores: np.ndarray) -> np.ndarray:
    """Returns the classes, [N], of all that `class_scores` gave; -1, which is none, where that was NaN.

    Single outputs are class 1 above 0.5, or above 0 where any lies outside 0 to 1: then they are logits.
    """
    if scores.dtype.kind != "f":
        return scores
    numbers = ~np.isnan(scores)
    are_shares = scores.min(initial=0.0, where=numbers) >= 0 and scores.max(initial=0.0, where=numbers) <= 1
    return np.where(numbers, scores > (0.5 if are_shares else 0.0), -1)


# --- classes ---------------------------------------------------------------------------------------------------------


def _top(k: int) -> Metric:
    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        labels = _class_labels(outputs, batch, f"top{k}")
        if _is_single(outputs):
            return _scores_and_labels(outputs, labels)
        own = np.take_along_axis(outputs, labels[..., None], axis=-1)
        # NaN compares as neither: it must not look like a hit.
        ahead = (~(outputs <= own)).sum(axis=-1)
        tied = ((outputs == own) & (np.arange(outputs.shape[-1]) < labels[..., None])).sum(axis=-1)
        return ((ahead + tied < k).reshape(len(outputs), -1).mean(axis=1),)

    def settle(*rows: np.ndarray) -> Rows:
        if len(rows) == 1:
            return rows
        return (((k > 1) | (decide(rows[0]) == rows[1])).astype(np.float64),)

    what = "the right class has the highest score" if k == 1 else f"the right class is among the {k} highest scores"
    return Metric(f"top{k}", f"share of samples where {what}", per_sample, _mean, is_share=True, settle=settle)


def _f1_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    labels = _class_labels(outputs, batch, "f1")
    if _is_single(outputs):
        return _scores_and_labels(outputs, labels)
    if labels.ndim != 1:
        raise DataError(f"Expected one label per sample for f1, got labels {labels.shape[1:]}. Try --metric top1.")
    return _largest(outputs), labels


def _f1_settle(predicted: np.ndarray, labels: np.ndarray) -> Rows:
    return decide(predicted), labels


def _f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur, as labels or predictions, of 2 TP / (2 TP + FP + FN)."""
    classes = int(max(predicted.max(), labels.max())) + 1
    decided = predicted[predicted >= 0]
    occurrences = np.bincount(labels, minlength=classes) + np.bincount(decided, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    present = occurrences > 0
    return float(np.mean(2 * right[present] / occurrences[present]))


def _auc_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    labels = _binary_labels(batch, "auc")
    if _is_single(outputs):
        return _scores_and_labels(outputs, labels)
    if outputs.shape[1:] != (2,):
        raise DataError(
            f"Expected one output, or one for each of two classes, for auc, got outputs {outputs.shape[1:]}. "
            "Try --metric f1 or top1; for an autoencoder, auc-reconstruction."
        )
    # Of logits only the difference says how likely class 1 is; of probabilities it orders as the second does.
    return outputs[:, 1].astype(np.float64) - outputs[:, 0], labels


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (class 1, class 0) pairs that the scores order rightly, ties counting half: Mann-Whitney's U."""
    positive = labels == 1
    positives = int(positive.sum())
    pairs = positives * (len(labels) - positives)
    if not pairs or not np.isfinite(scores).all():
        return math.nan
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / pairs)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _mse_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    return (np.square(_errors(outputs, _targets(outputs, batch, "mse"))).mean(axis=1),)


def _mae_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    return (np.abs(_errors(outputs, _targets(outputs, batch, "mae"))).mean(axis=1),)


def _reconstruction_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    same = [array for array in batch.inputs.values() if array.shape == outputs.shape]
    if not same:
        shapes = ", ".join(str(array.shape[1:]) for array in batch.inputs.values())
        raise DataError(
            f"Expected outputs shaped like an input for the reconstruction error, got outputs {outputs.shape[1:]} for "
            f"inputs {shapes}. Try --metric top1 or mse with labels."
        )
    return (np.square(_errors(outputs, same[0])).mean(axis=1),)


def _auc_reconstruction_per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
    labels = _binary_labels(batch, "auc-reconstruction")
    return (*_reconstruction_per_sample(outputs, batch), labels)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        _top(1),
        _top(5),
        Metric("f1", "F1 score, the mean over classes", _f1_per_sample, _f1, is_share=True, settle=_f1_settle),
        Metric("auc", "area under the ROC curve of two classes", _auc_per_sample, _auc, is_share=True),
        Metric("mse", "mean squared error", _mse_per_sample, _mean, higher_is_better=False),
        Metric("mae", "mean absolute error", _mae_per_sample, _mean, higher_is_better=False),
        Metric(
            "reconstruction",
            "mean squared error between output and input (autoencoders)",
            _reconstruction_per_sample,
            _mean,
            higher_is_better=False,
        ),
        Metric(
            "auc-reconstruction",
            "area under the ROC curve of the reconstruction error, labels 1 = anomaly (autoencoders)",
            _auc_reconstruction_per_sample,
            _auc,
            is_share=True,
        ),
    )
}


# --- one's own -------------------------------------------------------------------------------------------------------


def _custom(name: str) -> Metric:
    function = _load_function(name)

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        return outputs, np.empty((len(outputs), 0)) if batch.labels is None else batch.labels

    def settle(outputs: np.ndarray, labels: np.ndarray) -> Rows:
        result = called(outputs, labels)
        return (outputs, labels) if result.ndim == 0 else (result.astype(np.float64),)

    def combine(values: np.ndarray, labels: np.ndarray | None = None) -> float:
        """Takes a number per sample, or the outputs and labels of a function that gives one number."""
        return float((values if labels is None else called(values, labels)).mean())

    def called(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        try:
            result = np.asarray(function(outputs, labels if labels.shape[1:] != (0,) else None))
        except (Exception, SystemExit) as error:  # sys.exit would end the worker without a word
            raise ConfigError(f"The metric {name} failed: {type(error).__name__}: {error}. Try it alone.") from error
        if result.dtype.kind not in "fiub" or result.shape not in ((), (len(outputs),)):
            raise ConfigError(
                f"Expected {name} to return a number, or one for each of {len(outputs)} samples, got {result.dtype} of "
                f"shape {result.shape}. Try returning float(...)."
            )
        return result

    return Metric(
        name,
        (function.__doc__ or "your own").strip().partition("\n")[0],
        per_sample,
        combine,
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        is_share=bool(getattr(function, "is_share", False)),
        settle=settle,
        resamples=_RESAMPLES_OF_ONES_OWN,
    )


def _largest(outputs: np.ndarray) -> np.ndarray:
    """Returns the place of the largest along the last axis; -1, which is none, where one is NaN."""
    return np.where(np.isnan(outputs).any(axis=-1), -1, outputs.argmax(axis=-1))


def _load_function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(user_code.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Expected a metric as module:function, got {name!r} ({error}). Try one that can be imported from here."
        ) from error
    if not callable(function):
        raise ConfigError(f"Expected {name!r} to name a function, got {type(function).__name__}. Try module:function.")
    return function


# --- labels ----------------------------------------------------------------------------------------------------------


def _are_hits(one: Metric, rows: Rows) -> bool:
    """Whether each sample counted 0 or 1, so that the value is a proportion of samples."""
    return one.is_share and one.combine is _mean and bool(np.isin(rows[0], (0.0, 1.0)).all())


def _is_single(outputs: np.ndarray) -> bool:
    return outputs[0].size == 1


def _scores_and_labels(outputs: np.ndarray, labels: np.ndarray) -> Rows:
    return outputs.reshape(len(outputs)).astype(np.float64), labels


def _required(batch: Batch, name: str) -> np.ndarray:
    if batch.labels is None:
        raise DataError(
            f"Expected labels for {name}, got none. Try data with y_test; for an autoencoder, --metric reconstruction."
        )
    return np.asarray(batch.labels)


def _class_labels(outputs: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    """Returns class numbers in the shape of the outputs without their last axis."""
    labels = _required(batch, name)
    if _is_single(outputs):
        return _binary_labels(batch, name)
    if labels.shape == outputs.shape and is_one_hot(labels):
        return labels.argmax(axis=-1)
    if labels.size != outputs[..., 0].size:
        raise DataError(
            f"Expected labels {outputs.shape[1:-1] or '()'} per sample for outputs {outputs.shape[1:]}, got "
            f"{labels.shape[1:]}. Try one class number per sample, or --metric mse."
        )
    numbers = class_numbers(labels, outputs.shape[1:])
    if numbers is not None and (numbers >= 0).all():
        return numbers
    if labels.dtype.kind not in "fiub" or not np.array_equal(labels, np.rint(labels)):
        raise DataError(f"Expected class numbers for {name}, got {labels.dtype} values. Try --metric mse.")
    classes = outputs.shape[-1]
    raise DataError(
        f"Expected labels 0..{classes - 1} for {classes} outputs, got {_extreme(labels, classes)}. Try labels "
        "counted from 0, in the order of the model's outputs, and data of the same classes."
    )


def _extreme(labels: np.ndarray, classes: int) -> str:
    return f"up to {labels.max():g}" if labels.max() >= classes else f"down to {labels.min():g}"


def _binary_labels(batch: Batch, name: str) -> np.ndarray:
    labels = _required(batch, name)
    if labels.size != len(labels) or not np.isin(labels, (0, 1)).all():
        got = f"labels {labels.shape[1:]}" if labels.size != len(labels) else f"labels such as {_odd(labels)}"
        raise DataError(
            f"Expected labels 0 and 1, one per sample, for {name} with these outputs, got {got}. Try --metric mse for "
            "numbers, or a model with an output for each class."
        )
    return labels.reshape(len(labels)).astype(np.int64)


def _odd(labels: np.ndarray) -> Any:
    return labels[~np.isin(labels, (0, 1))].flat[0]


def _targets(outputs: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    labels = _required(batch, name)
    if labels.size != outputs.size:
        raise DataError(
            f"Expected labels {outputs.shape[1:]} like the outputs for {name}, got {labels.shape[1:]}. "
            "Try --metric top1 for class numbers."
        )
    return labels


def _errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the differences in double precision, one row per sample."""
    count = len(outputs)
    return outputs.reshape(count, -1).astype(np.float64) - targets.reshape(count, -1)
