"""A dataset and the sizes that a model shall take go in; its samples in these, and what was done to them, come out.

Pictures are resized, as `--resize` does it; sequences are cut, their first steps kept. Nothing is made up: steps that
are not there, and sizes of anything else, are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from edgeopt.data.binding import bind, match_inputs
from edgeopt.data.dataset import Dataset, Part
from edgeopt.data.table import table_of
from edgeopt.errors import DataError
from edgeopt.vocabulary import Batch, Shape, TensorSpec

# Samples of a part that are cut, which takes memory for them.
_MOST_CUT = 1000


def in_sizes(dataset: Dataset, inputs: Sequence[TensorSpec]) -> tuple[Dataset, tuple[str, ...]]:
    """Returns the samples in the sizes of the inputs, and in words what was done to them for it.

    Args:
        dataset: of any one size.
        inputs: with the batch first, and all sizes known.

    Raises:
        DataError: samples cannot be brought to these sizes.
    """
    notes: dict[str, None] = {}
    calibration, training, tuning, validation = (_in_sizes(part, inputs, notes) for part in dataset.parts.values())
    found = replace(dataset, calibration=calibration, training=training, tuning=tuning, validation=validation)
    return found, tuple(notes)


def _in_sizes(part: Part, inputs: Sequence[TensorSpec], notes: dict[str, None]) -> Part:
    sources = match_inputs(part, inputs)
    for spec in inputs:
        found = next(own.shape for own in part.own_specs if own.name == sources[spec.name])
        wanted = spec.shape[1:]
        if _fits(part, spec):
            continue
        what = f"{_shown(found)} to {_shown(wanted)}"
        if _is_picture(found, wanted) and len(part.table.inputs) == 1:
            size = cast("tuple[int, int]", wanted[:2])
            part = replace(part, preprocessing=replace(part.preprocessing, resize=size))
            notes[f"samples resized from {what}"] = None
        elif _is_cut(found, wanted):
            part = _cut(part, sources[spec.name], cast(int, wanted[0]))
            notes[f"samples cut from {what}, the first steps kept"] = None
        else:
            raise DataError(
                f"Expected samples that can be brought to {_shown(wanted)} for the input {spec.name!r} (pictures are "
                f"resized, sequences cut), got {_shown(found)}. Try data of that size, or no data with a --scheme "
                "that needs none, as dynamic or float16."
            )
    return part


def _fits(part: Part, spec: TensorSpec) -> bool:
    try:
        bind(part, [spec])
    except DataError:
        return False
    return True


def _is_picture(found: Shape, wanted: Shape) -> bool:
    """Whether they are height, width and the same channels."""
    return (len(found) == len(wanted) == 3 and found[2] == wanted[2]) or (len(found) == 2 and wanted[2:] == (1,))


def _is_cut(found: Shape, wanted: Shape) -> bool:
    """Whether only the first axis, of steps, is shorter."""
    return (
        1 <= len(wanted) <= 2
        and len(found) == len(wanted)
        and found[1:] == wanted[1:]
        and cast(int, found[0]) > cast(int, wanted[0])
    )


def _cut(part: Part, name: str, steps: int) -> Part:
    """Returns the first samples with their first steps alone, their labels too where these go by the step."""
    some = part if len(part) <= _MOST_CUT else part.take(_MOST_CUT) if part.reads_any_row else part.head(_MOST_CUT)
    raw = some.raw_arrays() if len(part) else some.arrays()
    before = raw.inputs[name].shape[1]

    def shorter(array: np.ndarray) -> np.ndarray:
        return array[:, :steps] if array.ndim > 1 and array.shape[1] == before else array

    labels = None if raw.labels is None else shorter(raw.labels)
    several = {output: shorter(array) for output, array in raw.several.items()}
    table = table_of(Batch({**raw.inputs, name: raw.inputs[name][:, :steps]}, labels, several, raw.weights))
    kinds = replace(
        part.labels,
        ids=None if part.labels.ids is None else labels,
        outputs={
            output: replace(one, ids=None if one.ids is None else several[output])
            for output, one in part.labels.outputs.items()
        },
    )
    return replace(part, table=table, rows=None, labels=kinds, bound=())


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
