"""A file and a sample whose outputs are not finite go in; what is not finite first on the way there comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeopt.errors import EdgeoptError
from edgeopt.runtimes import RUNTIMES, Runtime, open_session
from edgeopt.runtimes.numbers import quantize


def first_not_finite(file: Path, runtime: Runtime, sample: Mapping[str, np.ndarray]) -> str:
    """Returns in words the first input, or tensor in the order in which they are computed, that is not finite.

    Args:
        file: of any format.
        runtime: what showed it; where it keeps no activations, that which stands in for it.
        sample: one, [1, ...], by the names of the file's inputs.

    Returns:
        "" where it cannot be told: the runtime keeps nothing, or what stands in for it computes finite numbers.
    """
    for name, array in sample.items():
        if _is_odd(array):
            return f"the input {name!r}"
    keeper = runtime if "tensors" in runtime.can else RUNTIMES.get(runtime.stand_in or "")
    if keeper is None:
        return ""
    with contextlib.suppress(EdgeoptError):  # it was opened in another way: what it refuses now is no fault
        session = open_session(file, keeper, keep_intermediates=True)
        with contextlib.closing(session):
            session.reshape({name: array.shape for name, array in sample.items()})
            session.run({spec.name: quantize(sample[spec.name], spec) for spec in session.inputs})
            name = next((name for name, array in session.tensors().items() if _is_odd(array)), "")
            return f"the tensor {name.split(';')[0]!r}" if name else ""
    return ""


def _is_odd(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and not np.isfinite(array).all()
