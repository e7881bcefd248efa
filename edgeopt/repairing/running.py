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
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Batch

if TYPE_CHECKING:
    from edgeopt.data import Part

# Samples of one invocation: the activations of so many are in memory at a time.
_BATCH = 16
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
        for batch in _batches(session, part):
            stored = session.run(_stored(session, batch))
            yield {spec.name: dequantize(stored[spec.name], spec) for spec in session.outputs}
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
        for batch in _batches(session, part):
            given = _stored(session, batch)
            session.run(given)
            found = {**{tensor: given[name] for tensor, name in fed.items()}, **session.tensors()}
            yield {
                name: dequantize(array, specs[name])
                for name, array in found.items()
                if name in specs and (array.dtype.kind == "f" or specs[name].quantization is not None)
            }
    finally:
        session.close()


def _stored(session: Session, batch: Batch) -> Values:
    return {spec.name: quantize(batch.inputs[spec.name], spec) for spec in session.inputs}


def _batches(session: Session, part: Part) -> Iterator[Batch]:
    """Yields batches that the session takes: what is left over comes in the file's own size."""
    session.reshape(sizes(part, session))
    own = (session.inputs[0].shape[0] or 1) if session.inputs[0].shape else 1
    size = max(own, min(_BATCH, len(part)))
    if not session.resize(size):
        size = own
    whole = len(part) - len(part) % size
    bound = datasets.bind(part, session.inputs)
    yield from bound.head(whole).batches(size)
    if whole < len(part) and session.resize(1):
        yield from bound.subset(np.arange(whole, len(part))).batches(1)
