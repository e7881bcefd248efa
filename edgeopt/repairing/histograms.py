"""A float file, a quantized one's groups of activations and samples go in; what each group has to hold comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.repairing.ranges import Histogram
from edgeopt.repairing.running import activations
from edgeopt.repairing.scales import Group
from edgeopt.tflite.activations import computed, matched
from edgeopt.tflite.model import Tensor, TFLiteModel

if TYPE_CHECKING:
    from edgeopt.data import Part


def histograms(
    float_file: Path, floating: TFLiteModel, quantized: TFLiteModel, groups: Sequence[Group], part: Part
) -> dict[Group, Histogram]:
    """Returns the values of each group as the float file computes them, of those that it computes.

    In two passes, since a histogram has to know its ends: memory does not grow with the samples.
    """
    names = counterparts(floating, quantized)
    wanted = {group: [names[i] for i in group.tensors if i in names] for group in groups}
    ends = {group: [0.0, 0.0] for group, sources in wanted.items() if sources}
    for group, values in _seen(float_file, part, wanted):
        ends[group] = [min(ends[group][0], float(values.min())), max(ends[group][1], float(values.max()))]
    found = {group: Histogram(low, high) for group, (low, high) in ends.items()}
    for group, values in _seen(float_file, part, wanted):
        found[group].add(values)
    return {group: histogram for group, histogram in found.items() if not histogram.empty}


def counterparts(floating: TFLiteModel, quantized: TFLiteModel) -> dict[int, str]:
    """Returns the float file's name of each integer activation, by its index in the quantized file."""
    ours = [*(floating.main.tensors[i] for i in floating.main.inputs), *computed(floating)]
    theirs = [*(quantized.main.tensors[i] for i in quantized.main.inputs), *computed(quantized)]
    pairs = {other: name for name, other in matched(ours, [t for t in theirs if _whole(t)]).items()}
    found = {tensor.index: pairs[tensor.name] for tensor in theirs if _whole(tensor) and tensor.name in pairs}
    for operator in quantized.main.operators:
        # What is only scaled anew is the same numbers.
        if operator.name == "QUANTIZE" and operator.inputs and operator.outputs:
            source, result = operator.inputs[0], operator.outputs[0]
            if source in found:
                found.setdefault(result, found[source])
            elif result in found:
                found[source] = found[result]
    return found


def _whole(tensor: Tensor) -> bool:
    return not tensor.is_float and tensor.quantization is not None


def _seen(float_file: Path, part: Part, wanted: Mapping[Group, Sequence[str]]) -> Iterator[tuple[Group, np.ndarray]]:
    for batch in activations(float_file, part):
        for group, sources in wanted.items():
            for name in sources:
                if name in batch and (values := batch[name][np.isfinite(batch[name])]).size:
                    yield group, values
