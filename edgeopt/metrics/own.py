"""The name of one's own function, or of a Keras metric, goes in; a metric that calls it comes out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeopt import user_code
from edgeopt.errors import ConfigError
from edgeopt.metrics.contract import Metric, Rows
from edgeopt.metrics.heads import by_name
from edgeopt.vocabulary import Batch

# What functions in the style of Keras and scikit-learn call their first argument, where it is the labels.
_LABELS_FIRST = frozenset({"y_true", "y", "labels", "targets", "target", "truth", "true", "ground_truth"})


def own(name: str) -> Metric:
    """Returns the metric that "module:function" computes; see `metrics.metric`.

    Raises:
        ConfigError: it cannot be imported.
    """
    function = _made(user_code.load_function(name, "a metric"), name)
    call = _of_labels_and_outputs(function)
    # Keras' metrics know theirs.
    direction = getattr(function, "_direction", None) != "down"

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
            result = np.asarray(call(by_name(labels) if labels.shape[1:] != (0,) else None, by_name(outputs)))
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
        combine,
        per_sample=per_sample,
        higher_is_better=bool(getattr(function, "higher_is_better", direction)),
        is_share=bool(getattr(function, "is_share", False)),
        settle=settle,
        whole=lambda *rows: len(rows) > 1,
        free_labels=True,
        reads_all=True,
        why_undefined=lambda *rows: "",
    )


def _made(function: Any, name: str) -> Any:
    """Returns a metric of Keras where its class was named, and any other function as it is.

    Raises:
        ConfigError: the class cannot be made without settings.
    """
    if not isinstance(function, type) or not hasattr(function, "update_state"):
        return function
    try:
        return function()
    except TypeError as error:
        raise ConfigError(
            f"Expected {name} to be a metric that needs no settings, got one that does: {error}. Try one that is made: "
            "in a module of yours, iou = keras.metrics.MeanIoU(num_classes=3), as module:iou."
        ) from None


def _of_labels_and_outputs(function: Any) -> Callable[[Any, Any], Any]:
    """Returns what takes labels, then outputs, whichever the function takes first; of a metric of Keras its result."""
    if hasattr(function, "update_state"):
        return lambda labels, outputs: _result(function, labels, outputs)
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):  # of native code nothing is known
        first = ""
    if first.lower() in _LABELS_FIRST:
        return lambda labels, outputs: function(labels, outputs)
    return lambda labels, outputs: function(outputs, labels)


def _result(metric: Any, labels: Any, outputs: Any) -> float:
    metric.reset_state()
    metric.update_state(labels, outputs)
    return float(metric.result())
