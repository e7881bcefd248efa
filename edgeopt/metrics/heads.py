"""All outputs of a model, or all labels, by name go in; one array that a metric can keep, and they again, come out.

A metric of one output reads that output's array. One of all of them at once reads an array with a field for each, so
that samples are drawn, joined and stored in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeopt.vocabulary import Batch

# What all outputs at once are called where an output's name is expected.
ALL = ""


def read(output: str, values: Mapping[str, np.ndarray], batch: Batch) -> tuple[np.ndarray, Batch]:
    """Returns what a metric of an output, or of ALL, takes: real-valued outputs [N, ...], and samples with its labels.

    Args:
        output: its name, or ALL.
        values: outputs by name.
        batch: the samples that they are of.
    """
    if output != ALL:
        return values[output], batch.of_output(output)
    labels = _joined(batch.several) if batch.several else batch.labels
    return _joined(values), replace(batch, labels=labels, several={})


def by_name(array: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
    """Returns arrays by name where they were joined in one, and any other as it is."""
    return array if array.dtype.names is None else {name: array[name] for name in array.dtype.names}


def are_finite(outputs: np.ndarray) -> np.ndarray:
    """Returns whether all numbers of each sample are finite, [N]."""
    if outputs.dtype.names is not None:
        return np.all([are_finite(outputs[name]) for name in outputs.dtype.names], axis=0)
    return np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)


def _joined(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns one array [N] with a field for each."""
    first = next(iter(arrays.values()))
    joined = np.empty(len(first), [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        joined[name] = array
    return joined
