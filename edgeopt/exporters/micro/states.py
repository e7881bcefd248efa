"""How a file reads step by step goes in; the C that carries its states comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """Returns where the frames, the states and the flags of a step go, by the numbers of inputs and outputs."""
    inputs = {spec.name: (number, spec) for number, spec in enumerate(model.inputs)}
    outputs = {spec.name: number for number, spec in enumerate(model.outputs)}
    states, offset = [], 0
    for before, after in stream.states:
        number, spec = inputs[before]
        size = _bytes(spec)
        # Zeros are as many equal bytes, in integers and in floats.
        states.append((number, outputs[after], offset, size, int(_stored(0.0, spec).view(np.uint8)[0])))
        offset += size
    given, spec = inputs[stream.input]
    told = {
        "step": stream.step,
        "frames_input": given,
        "frames_type": C_TYPES[spec.dtype],
        "frames_bytes": _bytes(spec),
    }
    valid = None
    if stream.valid:
        number, flag = inputs[stream.valid]
        valid = (number, C_TYPES[flag.dtype], _stored(1.0, flag)[0], _stored(0.0, flag)[0])
    return {**told, "states": states, "state_bytes": offset, "valid": valid}


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod([size or 1 for size in spec.shape])) * np.dtype(spec.dtype).itemsize


def _stored(value: float, spec: TensorSpec) -> np.ndarray:
    return quantize(np.array([value], np.float32), spec)
