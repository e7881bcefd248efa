"""A model that keeps or carries a state goes in; what its app has to keep, set back or hand on comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ConfigError

if TYPE_CHECKING:
    from edgeopt.exporters.contract import Source
    from edgeopt.tflite.model import TFLiteModel
    from edgeopt.tflite.stream import Stream

HELP = "Keep what the model remembers from call to call, until reset(); it starts anew for each call otherwise."


def remembers(source: Source, *, streaming: bool, own: bool = False) -> bool:
    """Returns whether the model keeps something from one call to the next, as an LSTM or a ring buffer does.

    Args:
        source: what is exported.
        streaming: whether it was asked to keep that.
        own: whether it has custom operators, which may.

    Raises:
        ConfigError: it is asked to keep what it does not have.
    """
    from edgeopt.runtimes.state import state

    kept = state(source.model)
    found = kept.tensors or kept.resources or own
    if streaming and not found:
        raise ConfigError(
            f"Expected a model with a state for streaming, got {source.file.name}, which keeps nothing between calls. "
            "Try it without: calls of it never depend on one another."
        )
    return found


@dataclass(frozen=True)
class Places:
    """Where what a step reads and writes goes, by the numbers of a file's inputs and outputs.

    Attributes:
        frames: the input that gets frames.
        valid: the one that says which of them are the sample's; None where there is none.
        states: the input and the output of each.
        answers: the outputs that are none.
    """

    frames: int
    valid: int | None
    states: tuple[tuple[int, int], ...]
    answers: tuple[int, ...]


def places(stream: Stream, model: TFLiteModel) -> Places:
    """Returns where the frames, the flags, the states and the answers of a file that reads step by step go."""
    inputs = {spec.name: number for number, spec in enumerate(model.inputs)}
    outputs = {spec.name: number for number, spec in enumerate(model.outputs)}
    return Places(
        inputs[stream.input],
        inputs[stream.valid] if stream.valid else None,
        tuple((inputs[before], outputs[after]) for before, after in stream.states),
        tuple(number for name, number in outputs.items() if name in stream.outputs),
    )
