"""A session and a batch size go in; whether the outputs of a batch are those of its samples alone comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.native_log import native_log
from edgeopt.runtimes.samples import generated

if TYPE_CHECKING:
    from edgeopt.runtimes import Session

_TOLERANCE = 1e-4
_DISTINCT_SAMPLES = 3


def batch_is_its_samples(
    session: Session,
    shapes: Sequence[tuple[int | None, ...]],
    reshape: Callable[[Sequence[tuple[int | None, ...]]], Any],
    *,
    refusals: tuple[type[BaseException], ...],
) -> bool:
    """Runs a few samples alone, sets the batch size, and says whether they come out of a batch the same.

    The first of them and the last: where the first dimension counts steps in time, one end sees no other step.

    Args:
        session: left in the new shapes, or anywhere where they are refused.
        shapes: of its inputs, which differ from those it has in the first dimension.
        reshape: sets them.
        refusals: what the runtime raises where it does not take them.
    """
    size, batch_size = session.inputs[0].shape[0] or 1, shapes[0][0] or 1
    count = -(-_DISTINCT_SAMPLES // size)
    alone = [generated(session.inputs, seed=seed, indices=session.indices) for seed in range(count)]
    samples = {name: np.concatenate([sample[name] for sample in alone]) for name in alone[0]}
    batches = [np.arange(batch_size) % (count * size)]
    if batch_size < count * size:
        batches.append(np.arange(count * size)[-batch_size:])
    refused: tuple[type[BaseException], ...] = (*refusals, ModelError)
    try:
        with native_log():
            results = [session.run(sample) for sample in alone]
            reshape(shapes)
            together = [session.run({name: array[rows] for name, array in samples.items()}) for rows in batches]
    except refused:
        return False
    for name in together[0]:
        parts = [result[name] for result in results]
        if any(part.ndim == 0 or len(part) != size for part in parts):
            return False
        expected = np.concatenate(parts)
        for got, rows in zip((outputs[name] for outputs in together), batches):
            if got.shape != expected[rows].shape or not _agree(got, expected[rows]):
                return False
    return True


def _agree(got: np.ndarray, expected: np.ndarray) -> bool:
    if got.dtype.kind != "f":
        return np.array_equal(got, expected)
    scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    return np.allclose(got, expected, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)
