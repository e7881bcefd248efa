"""A file that reads step by step and samples go in; how it is to be called, and the samples' outputs, come out.

Such a file gets a few frames at a time, and what it remembers of the frames before as further inputs, the states; what
it shall remember then comes out beside its outputs. All states begin as zeros. The file says so itself, in an entry of
its metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.tflite.model import TFLiteModel

ENTRY = "edgeopt.stream"
# What the entry of an untrusted file may claim: days of audio.
_MOST = 1 << 24


@dataclass(frozen=True)
class StreamOutput:
    """An output of a file that reads step by step.

    Attributes:
        axis: along which it has a position for some of the frames; 0 where a step gives the answer to all frames yet.
        skip: positions that come before the first one of a sample.
        length: positions of a sample of `Stream.frames`.
        stride: frames from one position to the next.
    """

    axis: int = 0
    skip: int = 0
    length: int = 0
    stride: int = 1


@dataclass(frozen=True)
class Stream:
    """How a file reads a sample.

    Attributes:
        input: the one that gets frames.
        axis: along which they come, the batch is 0.
        frames: of the sample that its outputs are for.
        free: whether a sample may be any number of steps longer.
        step: frames that it takes at once.
        steps: how many of them a sample takes, those of its tail too.
        states: the input and the output of each.
        valid: the input that says of each frame whether it is one of the sample, 1, or behind it, 0; "" for none.
        outputs: by name.
    """

    input: str
    axis: int
    frames: int
    free: bool
    step: int
    steps: int
    states: tuple[tuple[str, str], ...]
    valid: str
    outputs: Mapping[str, StreamOutput]

    @property
    def tail(self) -> int:
        """Frames of zeros that have to follow a sample until its answer is there."""
        return self.steps * self.step - self.frames

    def longer(self, frames: int) -> Stream:
        """Returns it for samples of another length.

        Raises:
            ModelError: the file does not take them.
        """
        more = frames - self.frames
        if not more:
            return self
        if not self.free or more % self.step or frames < 1:
            way = f"{self.frames}, or whole steps of {self.step} more or less" if self.free else str(self.frames)
            raise ModelError(
                f"Expected samples of {way} frames for {self.input!r}, got {frames}. Try data of that size."
            )
        outputs = {
            name: dataclasses.replace(one, length=one.length + more // one.stride) if one.axis else one
            for name, one in self.outputs.items()
        }
        return dataclasses.replace(self, frames=frames, steps=self.steps + more // self.step, outputs=outputs)

    def note(self) -> bytes:
        """Returns the metadata that says this."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"), sort_keys=True).encode()


def stream_of(model: TFLiteModel) -> Stream | None:
    """Returns how a file reads samples step by step; None where it takes them whole.

    Raises:
        ModelError: what it says of itself is not so.
    """
    if ENTRY not in model.metadata:
        return None
    try:
        said = json.loads(model.buffer(model.metadata[ENTRY]).tobytes())
        outputs = {str(name): StreamOutput(**one) for name, one in said.pop("outputs").items()}
        states = tuple((str(one), str(other)) for one, other in said.pop("states"))
        found = Stream(**said, states=states, outputs=outputs)
        if not _holds(found, model):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(
            f"Expected inputs and outputs as the file's metadata {ENTRY} say, got others. Try converting it again."
        ) from error
    return found


def _holds(stream: Stream, model: TFLiteModel) -> bool:
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    numbers = [stream.axis, stream.frames, stream.step, stream.steps]
    numbers += [number for one in stream.outputs.values() for number in (one.axis, one.skip, one.length)]
    return (
        all(isinstance(number, int) and 0 <= number < _MOST for number in numbers)
        and min(stream.axis, stream.frames, stream.step, stream.steps) > 0
        and stream.tail >= 0
        and inputs[stream.input].shape[stream.axis] == stream.step
        and (not stream.valid or inputs[stream.valid].shape[1:] == (stream.step,))
        and {stream.input, *([stream.valid] if stream.valid else []), *(a for a, _ in stream.states)} == set(inputs)
        and {*stream.outputs, *(b for _, b in stream.states)} == set(outputs)
        and all(
            (inputs[a].shape, inputs[a].dtype, inputs[a].quantization)
            == (outputs[b].shape, outputs[b].dtype, outputs[b].quantization)
            for a, b in stream.states
        )
        and all(
            isinstance(one.stride, int)
            and one.stride > 0
            and (not one.axis or (outputs[name].shape[one.axis] or 0) * one.stride == stream.step)
            for name, one in stream.outputs.items()
        )
    )


Run = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]


def stepped(
    stream: Stream,
    run: Run,
    frames: np.ndarray,
    zeros: Mapping[str, np.ndarray],
    *,
    one: Any = 1,
    see: Callable[[int, dict[str, np.ndarray]], None] = lambda step, inputs: None,
) -> dict[str, np.ndarray]:
    """Returns what a file makes of whole samples, read step by step from the beginning.

    Args:
        stream: of samples as long as these.
        run: takes the inputs of one step by name and gives its outputs.
        frames: samples, the batch first, as the input stores them.
        zeros: what 0 is stored as: arrays of a step for every input.
        one: what 1 is stored as by `stream.valid`.
        see: is shown the number and the inputs of each step.
    """
    states = {name: zeros[name] for name, _ in stream.states}
    found: dict[str, list[np.ndarray]] = {name: [] for name in stream.outputs}
    for number in range(stream.steps):
        first = number * stream.step
        index = (slice(None),) * stream.axis
        some = frames[(*index, slice(first, first + stream.step))]
        missing = stream.step - some.shape[stream.axis]
        if missing:
            nothing = zeros[stream.input][(*index, slice(0, missing))]
            some = np.concatenate([some, nothing], axis=stream.axis)
        inputs = {stream.input: some, **states}
        if stream.valid:
            inputs[stream.valid] = zeros[stream.valid].copy()
            inputs[stream.valid][:, : max(0, stream.frames - first)] = one
        see(number, inputs)
        outputs = run(inputs)
        states = {a: outputs[b] for a, b in stream.states}
        for name, pieces in found.items():
            if stream.outputs[name].axis or number == stream.steps - 1:
                pieces.append(outputs[name])
    return {name: _joined(pieces, stream.outputs[name]) for name, pieces in found.items()}


def _joined(pieces: list[np.ndarray], output: StreamOutput) -> np.ndarray:
    if not output.axis:
        return pieces[0]
    everything = np.concatenate(pieces, axis=output.axis)
    return everything[(slice(None),) * output.axis + (slice(output.skip, output.skip + output.length),)]
