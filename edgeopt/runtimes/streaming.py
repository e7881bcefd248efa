"""A session of a file that reads step by step goes in; one that takes whole samples, as any other, comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.runtimes import Runtime, Session, open_session
from edgeopt.runtimes.numbers import quantize
from edgeopt.runtimes.samples import arbitrary, from_data, generated, sizes
from edgeopt.tflite.stream import Stream, stepped
from edgeopt.vocabulary import Footprint, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part


class StreamSession(Session):
    """Runs a sample as its steps, from states of zero; what it times is one step.

    Args:
        session: of the file.
        stream: how that reads.
    """

    def __init__(self, session: Session, stream: Stream) -> None:
        self._session, self._declared_stream, self._stream = session, stream, stream
        self.runtime, self.threads, self.file = session.runtime, session.threads, session.file
        self.delegated_share = session.delegated_share
        self.delegated, self.undelegated = session.delegated, session.undelegated
        self._refresh()

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """See Session.declared."""
        (spec,) = self.inputs
        free = (None if self._stream.free and i == self._stream.axis else n for i, n in enumerate(spec.shape))
        return (replace(spec, shape=tuple(free)),)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        return self._stepped(inputs, lambda number, step: None)

    def steps(self, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns the inputs of each step of a sample."""
        found: list[dict[str, np.ndarray]] = []
        self._stepped(inputs, lambda number, step: found.append(dict(step)))
        return found

    def _stepped(
        self, inputs: Mapping[str, np.ndarray], see: Callable[[int, dict[str, np.ndarray]], None]
    ) -> dict[str, np.ndarray]:
        frames, specs = inputs[self._stream.input], {spec.name: spec for spec in self._session.inputs}
        valid = specs.get(self._stream.valid)
        one = 1 if valid is None else quantize(np.ones(1, np.float32), valid)
        return stepped(self._stream, self._session.run, frames, self._zeros(), one=one, see=see)

    def resize(self, batch_size: int) -> bool:
        """See Session.resize."""
        done = self._session.resize(batch_size)
        self._refresh()
        return done

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """See Session.reshape."""
        (spec,), axis = self.inputs, self._stream.axis
        shape = shapes[spec.name]
        others = [(own, given) for i, (own, given) in enumerate(zip(spec.shape, shape)) if i not in (0, axis)]
        if len(shape) != len(spec.shape) or any(own != given for own, given in others):
            raise self.runtime.refuses_shape(spec, shapes)
        self._stream = self._declared_stream.longer(shape[axis])
        self._refresh()
        if self.inputs[0].shape != tuple(shape):
            raise self.runtime.refuses_shape(spec, shapes)

    def invocation(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the inputs of a step: the first of a sample."""
        index = (slice(None),) * self._stream.axis + (slice(0, self._stream.step),)
        return {**self._zeros(), self._stream.input: inputs[self._stream.input][index]}

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns."""
        return self._session.invoke_ns(self.invocation(inputs), runs=runs)

    def tensors(self) -> dict[str, np.ndarray]:
        """See Session.tensors: those of the last step."""
        return self._session.tensors()

    def footprint(self, inputs: Mapping[str, np.ndarray]) -> Footprint:
        """See Session.footprint."""
        return self._session.footprint(self.invocation(inputs))

    def close(self) -> None:
        """See Session.close."""
        self._session.close()

    def _zeros(self) -> dict[str, np.ndarray]:
        zero = {spec.name: np.zeros(tuple(n or 1 for n in spec.shape), np.float32) for spec in self._session.inputs}
        return {spec.name: quantize(zero[spec.name], spec) for spec in self._session.inputs}

    def _refresh(self) -> None:
        stream = self._stream
        given = next(spec for spec in self._session.inputs if spec.name == stream.input)
        self.inputs = (_along(given, stream.axis, stream.frames),)
        made = ((spec, stream.outputs.get(spec.name)) for spec in self._session.outputs)
        self.outputs = tuple(
            _along(spec, one.axis, one.length) if one.axis else spec for spec, one in made if one is not None
        )


def steps_of(file: Path, runtime: Runtime, part: Part | None) -> list[dict[str, np.ndarray]]:
    """Returns the inputs of each step of the first sample of `part`, or of a generated one."""
    session = open_session(file, runtime)
    assert isinstance(session, StreamSession)
    try:
        session.reshape(arbitrary(session) if part is None else sizes(part, session))
        sample = generated(session.inputs, seed=0) if part is None else from_data(part, session.inputs)[0]
        return session.steps(sample)
    finally:
        session.close()


def _along(spec: TensorSpec, axis: int, length: int) -> TensorSpec:
    return replace(spec, shape=tuple(length if i == axis else size for i, size in enumerate(spec.shape)))
