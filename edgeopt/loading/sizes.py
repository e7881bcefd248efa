"""A loaded model that leaves sizes free and what they shall be go in; the model with these sizes fixed comes out.

Delegates, microcontrollers and quantizers want every size known. The batch is conversion's own to fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt import data as datasets
from edgeopt.errors import ConfigError
from edgeopt.vocabulary import Shape, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.loading import LoadedModel


def with_sizes(model: LoadedModel, shapes: Mapping[str, Shape], *, part: Part | None = None) -> LoadedModel:
    """Returns the model with its free sizes fixed, and a note for each input that had some.

    Args:
        shapes: by input, with the batch first, which is not looked at; "" names the only input.
        part: samples whose sizes are taken for inputs that `shapes` leaves out.

    Raises:
        ConfigError: there is no such input, or its shape does not fit.
    """
    wanted = _by_input(model.inputs, shapes)
    sampled = _sampled(model, part)
    notes = []
    inputs = []
    for spec in model.inputs:
        source = wanted.get(spec.name, sampled.get(spec.name, ()))
        fixed = replace(spec, shape=_fixed(spec, source)) if source else spec
        inputs.append(fixed)
        if fixed.shape != spec.shape:
            why = "as --shape says" if spec.name in wanted else "as the data are; --shape fixes another"
            notes.append(f"free sizes of {spec.name!r} fixed: {_shown(fixed.shape[1:])} a sample, {why}")
        elif None in spec.shape[1:]:
            notes.append(
                f"sizes of {spec.name!r} stay free ({_shown(spec.shape[1:])}), which delegates and microcontrollers "
                "do not take: --shape fixes them"
            )
    return replace(model, inputs=tuple(inputs), notes=(*model.notes, *notes))


def sized(inputs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> tuple[TensorSpec, ...]:
    """Returns a model's inputs with all their sizes but the batch, which stays as it is.

    Args:
        inputs: with the batch first.
        shapes: see `with_sizes`.

    Raises:
        ConfigError: see `with_sizes`; or a size stays free.
    """
    wanted = _by_input(inputs, shapes)
    found = tuple(replace(s, shape=_fixed(s, wanted[s.name])) if s.name in wanted else s for s in inputs)
    if free := next((spec for spec in found if None in spec.shape[1:]), None):
        raise ConfigError(
            f"Expected every size of the input {free.name!r}, got {_shown(free.shape[1:])}. "
            f"Try --shape {free.name}=SIZES for each signature."
        )
    return found


def _by_input(inputs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes by the names of inputs.

    Raises:
        ConfigError: there is no such input.
    """
    only = inputs[0].name if len(inputs) == 1 else ""
    wanted = {name or only: shape for name, shape in shapes.items()}
    names = [spec.name for spec in inputs]
    if unknown := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"Expected a shape for one of the inputs {', '.join(names)}, got one for {unknown[0]!r}. "
            f"Try --shape {names[0]}=1,64,64,3."
        )
    return wanted


def _sampled(model: LoadedModel, part: Part | None) -> dict[str, Shape]:
    """Returns the shape that samples have, with a free batch, for each input of which all have one."""
    if part is None or not any(None in spec.shape[1:] for spec in model.inputs):
        return {}
    found = {spec.name: spec.shape for spec in datasets.bind(part, model.inputs).specs}
    return {name: (None, *shape) for name, shape in found.items() if None not in shape}


def _fixed(spec: TensorSpec, wanted: Shape) -> Shape:
    fits = len(wanted) == len(spec.shape) and all(own in (None, size) for own, size in zip(spec.shape[1:], wanted[1:]))
    if not fits:
        raise ConfigError(
            f"Expected a shape like {_shown(spec.shape)} for the input {spec.name!r}, got {_shown(wanted)}. "
            "Try the same number of sizes, the batch first, and those that the model fixes as they are."
        )
    return (spec.shape[0], *wanted[1:])


def _shown(shape: Shape) -> str:
    return "x".join("any" if size is None else str(size) for size in shape)
