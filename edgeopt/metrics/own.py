"""The name of one's own function goes in, a metric that calls it comes out."""

from __future__ import annotations

import numpy as np

from edgeopt import user_code
from edgeopt.errors import ConfigError
from edgeopt.metrics.contract import Metric, Rows
from edgeopt.vocabulary import Batch

# A function of one's own may take long, and is asked again for each.
_RESAMPLES = 100


def own(name: str) -> Metric:
    """Returns the metric that "module:function" computes; see `metrics.metric`.

    Raises:
        ConfigError: it cannot be imported.
    """
    function = user_code.load_function(name, "a metric")

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
        combine,
        per_sample=per_sample,
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        is_share=bool(getattr(function, "is_share", False)),
        settle=settle,
        resamples=_RESAMPLES,
        free_labels=True,
    )
