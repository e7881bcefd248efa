"""Outputs, inputs and labels of some samples go in; the task that they are of, and its metric, come out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeopt.data.labels import is_one_hot
from edgeopt.errors import DataError
from edgeopt.tasks import TASKS, Task, task
from edgeopt.vocabulary import Batch

# From here on a target has less than a hundredth of another's part in a mean of squares.
_UNEVEN = 10


def found(outputs: np.ndarray, batch: Batch, *, classes: int | None = None, said: str | None = None) -> Task:
    """Returns what an output is for.

    Args:
        outputs: real values [M, ...], of the first samples of `batch`: only their shape, and whether they are
            probabilities, counts.
        batch: inputs and the labels of this output, [N, ...].
        classes: how many the labels of all samples tell apart, where that is known.
        said: a key of TASKS, which is taken as it is.

    Class numbers or one-hot labels, for each place of the output: classes, tagging or segmentation by its rank.
    0 and 1 for each unit: multi-label. The input given back: anomaly. Numbers in the output's shape: regression.

    Raises:
        ConfigError: there is no such task.
        DataError: no task suits them.
    """
    if said is not None:
        return task(said)
    labels = batch.labels
    gives_input_back = input_given_back(outputs, batch) is not None
    if labels is None:
        if gives_input_back:
            return TASKS["anomaly"]
        raise DataError(
            "Expected labels, or outputs shaped like an input, to choose a metric, got no labels and outputs "
            f"{outputs.shape[1:]}. Try data with y_test, or --metric module:function; `edgeopt compare` holds two "
            "files against one another without labels."
        )
    shape, whole = outputs.shape[1:], is_whole(labels)
    if gives_input_back and (labels.size == len(labels) or any(labels is array for array in batch.inputs.values())):
        return TASKS["anomaly"]
    zeros_and_ones = whole and bool(np.isin(labels, (0, 1)).all())
    if outputs[0].size == 1 and labels.size == len(labels):
        return TASKS["binary" if zeros_and_ones and (classes is None or classes <= 2) else "regression"]
    if labels.shape[1:] == shape:
        if is_one_hot(labels):
            return _placed(shape)
        if not zeros_and_ones or gives_input_back:
            return TASKS["regression"]
        return TASKS["multi-label"] if shape[-1] > 1 else _placed(shape)
    if whole and labels[0].size == outputs[0, ..., 0].size:
        return TASKS["language"] if _are_next(batch, labels) else _placed(shape)
    raise DataError(
        f"Expected labels that fit outputs {shape}, got {labels.dtype} labels {labels.shape[1:]}. "
        "Try class numbers from 0, or --metric module:function."
    )


def metric_said(tasks: Mapping[str, str]) -> str | None:
    """Returns the metrics of tasks that were said, "NAME" or "OUTPUT=NAME,..."; None where samples have to tell.

    Args:
        tasks: keys of TASKS by output, "" for all.

    Raises:
        ConfigError: there is no such task.
    """
    rows = {output: task(name) for output, name in tasks.items()}
    words = [f"{output}={row.metric}" if output else row.metric for output, row in rows.items()]
    told = [word for word, row in zip(words, rows.values()) if row.metric and not row.unlabelled_metric]
    return ",".join(told) or None


def metric_of(outputs: np.ndarray, batch: Batch, *, classes: int | None = None, said: str | None = None) -> str:
    """Returns the name of the metric that suits these outputs and labels; see `found`.

    Raises:
        DataError: none suits them, or the task has none of its own.
    """
    row = found(outputs, batch, classes=classes, said=said)
    labels = batch.labels
    if row.unlabelled_metric and (labels is None or labels.size != len(labels) or not np.isin(labels, (0, 1)).all()):
        return row.unlabelled_metric
    if row.uneven_metric and labels is not None and are_uneven(labels):
        return row.uneven_metric
    if not row.metric:
        raise DataError(
            f"Expected a metric for {row.name}, got none: it has none of its own. Try --metric module:function."
        )
    return row.metric


def are_uneven(targets: np.ndarray) -> bool:
    """Whether targets [N, targets] spread so unlike that the mean of their errors is that of the widest alone."""
    if targets.ndim != 2 or targets.dtype.kind not in "fiu":
        return False
    spreads = np.std(targets.astype(np.float64), axis=0)
    spreads = spreads[spreads > 0]
    return len(spreads) > 1 and bool(spreads.max() > _UNEVEN * spreads.min())


def input_given_back(outputs: np.ndarray, batch: Batch) -> int | None:
    """Returns the number of the input that outputs may be, by their shape; None where they are none."""
    if outputs[0].size == 1 or are_probabilities(outputs):
        return None
    alike = (n for n, array in enumerate(batch.inputs.values()) if array.shape[1:] == outputs.shape[1:])
    return next(alike, None)


def is_whole(labels: np.ndarray) -> bool:
    """Whether all labels are whole numbers, in whatever dtype."""
    return labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool(np.all(labels == np.rint(labels))))


def _placed(shape: tuple[int, ...]) -> Task:
    """Returns the task of telling classes apart, by the places that an output has beside its units."""
    return TASKS[("classes", "tagging")[len(shape) - 1] if len(shape) <= 2 else "segmentation"]


def _are_next(batch: Batch, labels: np.ndarray) -> bool:
    """Whether labels are the whole numbers of an input, moved by one step."""
    return any(
        array.dtype.kind in "iu"
        and array.ndim == 2
        and array.shape == labels.shape
        and array.shape[1] > 1
        and np.array_equal(array[:, 1:], labels[:, :-1])
        for array in batch.inputs.values()
    )


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether the last axis sums to 1, as a softmax does, but for the steps of a quantized one."""
    return outputs.min() >= 0 and bool(np.allclose(outputs.sum(axis=-1), 1, atol=0.05))
