"""What a quantizer said when it refused or died goes in; words that a person can act on come out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeopt import frameworks
from edgeopt.errors import ConversionError
from edgeopt.vocabulary import Scheme
from edgeopt.workers import WorkerCrashed

if TYPE_CHECKING:
    from edgeopt.conversion.converter import ModelSummary

# Layers whose loops kill TensorFlow's quantizer, and the way round.
_LOOPING_LAYERS = ("GRU", "LSTM", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "TimeDistributed")


@contextlib.contextmanager
def in_words(scheme: Scheme) -> Iterator[None]:
    """Turns what a quantizer raises inside the block into a ConversionError."""
    refusals = (
        RuntimeError,
        ValueError,
        NotImplementedError,
        frameworks.load("tf_lite_convert").ConverterError,
        frameworks.load("tensorflow").errors.OpError,  # as when the disk is full
    )
    try:
        yield
    except refusals as error:
        raise ConversionError(f"TensorFlow's converter refused to make {scheme.name}: {_gist(error)}") from error


def _gist(error: Exception) -> str:
    """Returns the lines of a converter's complaint that a person can use."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if "error:" in line or "op:" in line or "not supported" in line] or lines
    return " ".join(useful[:3])[:600]


def crash_in_words(name: str, summary: ModelSummary, crash: WorkerCrashed) -> str:
    """Returns the message for a converter that died making the scheme called `name`."""
    loops = [kind for kind in summary.layer_kinds if kind in _LOOPING_LAYERS]
    if loops:
        cause = f"The model has {', '.join(loops)}, whose loop it cannot quantize"
        remedy = f"build {loops[0]} with unroll=True, or --scheme float16"
    else:
        cause = f"Its layers are {', '.join(summary.layer_kinds)}" if summary.layer_kinds else "Its graph gives no hint"
        remedy = "--scheme dynamic or float16"
    log = f" Its last words: {crash.log.splitlines()[-1]}" if crash.log else ""
    return f"TensorFlow's converter died ({crash.reason}) making {name}. {cause}. Try: {remedy}.{log}"
