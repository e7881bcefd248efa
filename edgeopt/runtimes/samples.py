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
    """Returns the first `count` samples of `part`, each a batch of one, quantized where the input is.

    Raises:
        DataError: names or shapes do not fit.
    """
    return [
        {spec.name: quantize(batch.inputs[spec.name], spec) for spec in specs}
        for batch in datasets.bind(part.head(count), specs).batches(1)
    ]


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
