"""The path of a decoder and, perhaps, a quantized file of it go in; the file that generates, proven, is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt import files, progress
from edgeopt.errors import ConversionError, ModelError
from edgeopt.language.generating import open_generator
from edgeopt.language.grafting import graft
from edgeopt.language.lowering import decoder_of, lower
from edgeopt.loading import load_model
from edgeopt.runtimes import RUNTIMES, open_session

# How far logits token by token may lie from those of the file that weights came from, as a share of their range.
SAME = 1e-3
_PIECES = (64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        cache, prefill: tokens that it remembers, and reads at once.
        difference: of its logits to those of the file with its weights, as a share of their range; None without one.
    """

    cache: int
    prefill: int
    difference: float | None


def make(
    path: Path,
    output: Path,
    *,
    weights: Path | None,
    cache: int | None,
    prefill: int | None,
    custom_objects: Path | None,
    trust: bool,
) -> Made:
    """Writes a decoder with the signatures prefill and decode; see `api.language.decoder`."""
    progress.tell("loading the model")
    loaded = load_model(path, custom_objects=custom_objects, trust=trust)
    if loaded.keras is None:
        raise ModelError(
            f"Expected a functional decoder, got {path}, whose layers nobody can get at: {loaded.why_closed}. Try "
            "building it from Keras layers, or its own export (KerasHub's, ai-edge-torch's) and that .tflite."
        )
    context = decoder_of(loaded.keras).context
    cache = cache or context or 1024
    prefill = prefill or next(piece for piece in _PIECES if cache % piece == 0)
    content = lower(loaded.keras, cache=cache, prefill=prefill)
    difference = None
    with files.atomic_path(output) as temporary:
        temporary.write_bytes(content if weights is None else graft(content, weights.read_bytes()))
        if weights is not None:
            difference = _difference(temporary, weights, min(cache, 2 * prefill))
            if not difference <= SAME:
                raise ConversionError(
                    f"Expected the logits of {weights}, got others, off by {difference:.2g} of their range. "
                    "Try the model that the file was made of."
                )
    return Made(cache, prefill, difference)


def _difference(made: Path, weights: Path, length: int) -> float:
    """Returns how far logits token by token lie from those of the file that reads a whole context."""
    generator = open_generator(made)
    session = open_session(weights, RUNTIMES["litert"])
    try:
        (spec,) = session.inputs
        context = spec.shape[-1]
        assert context is not None
        length = min(length, context)
        tokens = np.random.default_rng(0).integers(0, generator.vocabulary, (1, context)).astype(spec.dtype)
        (whole,) = session.run({spec.name: tokens}).values()
    finally:
        session.close()
    wanted = np.asarray(whole)[0, :length].astype(np.float64)
    return float(np.abs(generator.logits(tokens[0, :length].tolist()) - wanted).max() / (np.ptp(wanted) or 1.0))
