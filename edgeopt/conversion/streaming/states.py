"""A float file of steps with its ranges, or a converted one, goes in; the same with states that fit comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeopt.conversion.calibrating import Calibrated
from edgeopt.errors import ConversionError
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, with_metadata
from edgeopt.tflite.stream import ENTRY, Stream
from edgeopt.tflite.trained_ranges import SAME_SCALE


def alike(calibrated: Calibrated, stream: Stream) -> Calibrated:
    """Returns what calibration found with one range for a state, what becomes of it, and all that is joined to it.

    An output that goes in again at the next step has to be quantized as that input is.
    """
    model = read(calibrated.content)
    inputs = dict(zip((spec.name for spec in model.inputs), model.main.inputs))
    outputs = dict(zip((spec.name for spec in model.outputs), model.main.outputs))
    group = {index: index for index in range(len(model.main.tensors))}

    def root(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    for before, after in stream.states:
        group[root(outputs[after])] = root(inputs[before])
    for operator in model.main.operators:
        if operator.name in SAME_SCALE:
            tensors = [*operator.inputs, *operator.outputs]
            moved = [i for i in tensors if i >= 0 and model.main.tensors[i].is_float]
            for index in moved[1:]:
                group[root(index)] = root(moved[0])
    states = {root(inputs[before]) for before, _ in stream.states}

    def change(parsed: Any, schema: Any) -> None:
        tensors = parsed.subgraphs[0].tensors
        for state in states:
            members = [tensors[i].quantization for i in group if root(i) == state]
            known = [one for one in members if one is not None and one.min is not None and len(one.min)]
            if known:
                least = min(float(np.min(one.min)) for one in known)
                most = max(float(np.max(one.max)) for one in known)
                for one in known:
                    one.min, one.max = [np.float32(least)], [np.float32(most)]

    return replace(calibrated, content=changed(calibrated.content, change))


def noted(content: bytes, stream: Stream) -> bytes:
    """Returns a file of steps that says how it is to be called.

    Raises:
        ConversionError: an output is quantized otherwise than the input that it goes into at the next step.
    """
    model = read(content)
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    for before, after in stream.states:
        one, other = inputs[before], outputs[after]
        if (one.dtype, one.quantization) != (other.dtype, other.quantization):
            raise ConversionError(
                f"Expected the state {before!r} to come out as it goes in, got {one.dtype} with {one.quantization} and "
                f"{other.dtype} with {other.quantization}. Try --scheme dynamic or float32."
            )
    return with_metadata(content, ENTRY, stream.note())
