"""A model, and whether it is to stream, go in; whether its app has a state to keep or to set back comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt.errors import ConfigError

if TYPE_CHECKING:
    from edgeopt.exporters.contract import Source

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
