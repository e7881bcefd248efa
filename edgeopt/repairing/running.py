"""A `.tflite` file and samples go in; what it computes comes out as real numbers, a batch at a time, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import data as datasets
from edgeopt import runtimes
from edgeopt.runtimes import RUNTIMES, Runtime, Session
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.samples import sizes
from edgeopt.tflite.activations import computed
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Batch

if TYPE_CHECKING:
    from edgeopt.data import Part

# Samples of one invocation at most, and what they may take of memory with all that is computed of them.
_BATCH, _BATCH_BYTES = 16, 64 << 20
# As files run where they ship, and as they show what is inside of them.
RUNS = RUNTIMES["litert"]
_SHOWS = RUNTIMES["litert-builtin"]

Values = dict[str, np.ndarray]


def outputs(file: Path, part: Part, runtime: Runtime = RUNS) -> Iterator[Values]:
    """Yields the outputs of a file, by their names, [N, ...] of some samples at a time.

    Raises:
        ModelError, DataError: the runtime does not run it, or not on these samples.
    """
    session = runtimes.open_session(file, runtime)
    try:
        for batch in _batches(session, part, _most(read_once(file))):
            stored = session.run(_stored(session, batch))
            yield {spec.name: _of(batch, dequantize(stored[spec.name], spec), session) for spec in session.outputs}
    finally:
        session.close()


def activations(file: Path, part: Part) -> Iterator[Values]:
    """Yields all that the main graph of a file computes, and its inputs, by the names of the tensors.

    Raises:
        ModelError, DataError: see `outputs`.
    """
    model = read_once(file)
    specs = {tensor.name: tensor.spec for tensor in model.main.tensors}
    fed = dict(zip((model.main.tensors[i].name for i in model.main.inputs), (spec.name for spec in model.inputs)))
    session = runtimes.open_session(file, _SHOWS, keep_intermediates=True)
    try:
        for batch in _batches(session, part, _most(model)):
            given = _stored(session, batch)
            session.run(given)
            found = {**{tensor: given[name] for tensor, name in fed.items()}, **session.tensors()}
            yield {
                name: _of(batch, dequantize(array, specs[name]), session)
                for name, array in found.items()
                if name in specs and (array.dtype.kind == "f" or specs[name].quantization is not None)
            }
    finally:
        session.close()


def _stored(session: Session, batch: Batch) -> Values:
    """Returns what the session takes: a batch that is too small is filled up with its last sample."""
    found = {}
    for spec in session.inputs:
        array, size = batch.inputs[spec.name], spec.shape[0] if spec.shape else 1
        missing = (size or 1) - len(array)
        filled = np.concatenate([array, *[array[-1:]] * missing]) if missing > 0 else array
        found[spec.name] = quantize(filled, spec)
    return found


def _batches(session: Session, part: Part, most: int) -> Iterator[Batch]:
    """Yields batches that the session takes, or the start of one."""
    session.reshape(sizes(part, session))
    own = (session.inputs[0].shape[0] or 1) if session.inputs[0].shape else 1
    size = max(own, min(most, len(part)))
    if not session.resize(size):
        size = own
    yield from datasets.bind(part, session.inputs).batches(size)


def _most(model: TFLiteModel) -> int:
    """Returns how many samples may be computed at a time."""
    each = sum(4 * tensor.elements for tensor in computed(model))
    return max(1, min(_BATCH, _BATCH_BYTES // max(each, 1)))


def _of(batch: Batch, array: np.ndarray, session: Session) -> np.ndarray:
    """Returns what of an array is the batch's, where its first axis is that of the samples."""
    filled = array.ndim and session.inputs[0].shape and len(array) == session.inputs[0].shape[0]
    return array[: len(batch)] if filled else array
