"""A part and a model's inputs go in; the same part comes out under the model's names, in its shapes and dtypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast, overload

from edgeopt.data.dataset import Bound, Dataset, Part
from edgeopt.errors import DataError
from edgeopt.vocabulary import Shape, TensorSpec


def match_inputs(part: Part, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Returns which input of the part's batches feeds each input of the model: by name, or the only one the only one.

    Names match without what TensorFlow wraps around them (`serving_default_image:0` is `image`).

    Args:
        inputs: the model's, with or without a batch dimension: only names are looked at.

    Raises:
        DataError: an input of the model has no counterpart.
    """
    own = [spec.name for spec in part.specs]
    by_name = {_plain(name): name for name in own}
    if len(inputs) == 1 and len(own) == 1:
        return {inputs[0].name: own[0]}
    missing = [spec.name for spec in inputs if _plain(spec.name) not in by_name]
    if missing:
        names = ", ".join(_plain(spec.name) for spec in inputs)
        raise DataError(
            f"Expected data for the model's inputs {names}, got {', '.join(own)}: nothing feeds {', '.join(missing)}. "
            f"Try naming the arrays {', '.join(f'x_train_{_plain(spec.name)}' for spec in inputs)}."
        )
    return {spec.name: by_name[_plain(spec.name)] for spec in inputs}


@overload
def bind(data: Part, inputs: Sequence[TensorSpec]) -> Part: ...


@overload
def bind(data: Dataset, inputs: Sequence[TensorSpec]) -> Dataset: ...


def bind(data: Part | Dataset, inputs: Sequence[TensorSpec]) -> Part | Dataset:
    """Returns a part (or each part of a dataset) whose batches are what the model takes.

    A last dimension of 1 is added or dropped, and flat samples (CSV, TFRecord) are folded row by row, as nothing
    else can be meant; colour and grayscale image files are read as the model needs them. Values are cast to the
    input's dtype; where it is quantized they stay real numbers, which the runtime's session quantizes.

    Args:
        inputs: the model's, with their batch dimension first.

    Raises:
        DataError: names or shapes do not fit; the message says which option would mend it.
    """
    if isinstance(data, Dataset):
        calibration, training, tuning, validation = (bind(part, inputs) for part in data.parts.values())
        return replace(data, calibration=calibration, training=training, tuning=tuning, validation=validation)
    part, bound = data, []
    sources = {b.name: b.source for b in part.bound}
    for name, current in match_inputs(part, inputs).items():
        source = sources.get(current, current)
        spec = next(s for s in inputs if s.name == name)
        wanted = spec.shape[1:]
        found = next(s.shape for s in part.own_specs if s.name == source)
        shape = _fold(found, wanted)
        if shape is None and (other := part.table.fitted(source, wanted)) is not None:
            part = replace(part, table=other)
            found = next(s.shape for s in part.own_specs if s.name == source)
            shape = _fold(found, wanted)
        if shape is None:
            raise DataError(
                f"Expected {_shown(wanted)} per sample as input {name!r}, got {_shown(found)} from {source!r} of the "
                f"data. Try {_remedy(found, wanted)}."
            )
        dtype = "float32" if spec.quantization is not None else spec.dtype
        bound.append(Bound(name, source, shape, dtype))
    return replace(part, bound=tuple(bound))


def _fold(found: Shape, wanted: Shape) -> tuple[int, ...] | None:
    """Returns the shape that samples get, or None where they do not fit."""
    shape = cast("tuple[int, ...]", found)
    for candidate in (shape, (*shape, 1), shape[:-1] if shape and shape[-1] == 1 else shape):
        if len(candidate) == len(wanted) and all(w in (None, c) for c, w in zip(candidate, wanted)):
            return candidate
    if None in wanted or min(len(shape), len(wanted)) > 1:
        return None
    fixed = cast("tuple[int, ...]", wanted)
    return fixed if math.prod(shape) == math.prod(fixed) else None


def _remedy(found: Shape, wanted: Shape) -> str:
    if len(found) == 2 and len(wanted) == 3 and wanted[2] == 1:
        found = (*found, 1)  # grayscale pictures
    if len(found) == len(wanted) == 3 and found[2] != wanted[2]:
        if (found[2], wanted[2]) in ((1, 3), (3, 1)):
            return f"data in {'colour (RGB)' if wanted[2] == 3 else 'grayscale'}"
        return f"data with {wanted[2]} channels, last"
    if len(found) == len(wanted) == 3 and None not in wanted[:2]:
        return f"--resize {wanted[0]}x{wanted[1]}, or data of that size"
    if len(found) == len(wanted) + 1 and found[1:] == wanted:
        return "an array with one sample per first index"
    return "data made for this model, or another model"


def _plain(name: str) -> str:
    return name.split(":")[0].removeprefix("serving_default_")


def _shown(shape: Shape) -> str:
    return str(tuple("any" if n is None else n for n in shape)).replace("'any'", "any") if shape else "one number"
