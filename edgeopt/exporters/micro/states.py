"""How a file reads step by step goes in; the C that carries its states comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeopt.exporters import streaming
from edgeopt.exporters.contract import Source
from edgeopt.exporters.micro.fitness import C_TYPES
from edgeopt.exporters.micro.rendering import render
from edgeopt.runtimes.numbers import quantize
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.stream import Stream
from edgeopt.vocabulary import TensorSpec


def stream_files(source: Source, values: Mapping[str, Any], *, header: str, code: str, fails: bool) -> dict[str, str]:
    """Returns, by its path, what reads a sample step by step; nothing where the file takes samples whole.

    Args:
        source: what is exported.
        values: of the project's templates.
        header, code: the paths.
        fails: whether a call of the model returns an error.
    """
    if source.stream is None:
        return {}
    told = {**values, **_stream_values(source.stream, source.model), "fails": fails}
    return {header: render("stream.h", **told), code: render("stream.c", **told)}


def _stream_values(stream: Stream, model: TFLiteModel) -> dict[str, Any]:
    """Returns what the templates write of a step: its inputs and outputs by number, their types and bytes."""
    found, states, offset = streaming.places(stream, model), [], 0
    for before, after in found.states:
        spec = model.inputs[before]
        size = _bytes(spec)
        # Zeros are as many equal bytes, in integers and in floats.
        states.append((before, after, offset, size, int(_stored(0.0, spec).view(np.uint8)[0])))
        offset += size
    frames = model.inputs[found.frames]
    told = {
        "step": stream.step,
        "frames_input": found.frames,
        "frames_type": C_TYPES[frames.dtype],
        "frames_bytes": _bytes(frames),
    }
    valid = None
    if found.valid is not None:
        flag = model.inputs[found.valid]
        valid = (found.valid, C_TYPES[flag.dtype], _stored(1.0, flag)[0], _stored(0.0, flag)[0])
    return {**told, "states": states, "state_bytes": offset, "valid": valid}


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod([size or 1 for size in spec.shape])) * np.dtype(spec.dtype).itemsize


def _stored(value: float, spec: TensorSpec) -> np.ndarray:
    return quantize(np.array([value], np.float32), spec)
