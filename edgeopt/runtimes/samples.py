"""What a file is tried on: its inputs go in, arrays that a session takes come out, from data or from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import data as datasets
from edgeopt.runtimes.numbers import quantize
from edgeopt.vocabulary import TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part


def from_data(part: Part, specs: Sequence[TensorSpec], *, count: int = 1) -> list[dict[str, np.ndarray]]:
    """Returns what `specs` take, up to `count` times, from the first samples of `part`, quantized where the input is.

    Each holds as many samples as the file takes at a time; the last sample fills up where the data have too few.

    Raises:
        DataError: names or shapes do not fit.
    """
    size = (specs[0].shape[0] or 1) if specs and specs[0].shape else 1
    return [
        {spec.name: quantize(_filled(batch.inputs[spec.name], size), spec) for spec in specs}
        for batch in datasets.bind(part.head(count * size), specs).batches(size)
    ]


def take(part: Part, count: int) -> Part:
    """Returns `count` samples, of all classes alike where the source lets any sample be read."""
    return part.take(count) if part.reads_any_row else part.head(count)


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(array)
    return np.concatenate([array, *[array[-1:]] * missing]) if missing > 0 else array


def generated(specs: Sequence[TensorSpec], *, seed: int) -> dict[str, np.ndarray]:
    """Returns seeded random inputs: normal floats, integers of all values where they are quantized, else 0 and 1."""
    generator = np.random.default_rng(seed)
    inputs = {}
    for spec in specs:
        dtype, shape = np.dtype(spec.dtype), tuple(size or 1 for size in spec.shape)
        if dtype.kind == "f":
            inputs[spec.name] = generator.standard_normal(shape).astype(dtype)
        elif spec.quantization is not None:
            limits = np.iinfo(dtype)
            inputs[spec.name] = generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:  # indices and flags, which must stay in bounds
            inputs[spec.name] = generator.integers(0, 2, shape).astype(dtype)
    return inputs
