"""What a file is tried on: its inputs go in, arrays that a session takes come out, from data or from a seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from edgeopt import data as datasets
from edgeopt.errors import ConfigError, ModelError
from edgeopt.runtimes.numbers import quantize
from edgeopt.tflite.model import BITS
from edgeopt.vocabulary import TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.runtimes import Session

# Height, width or steps of random inputs, where a file takes any.
FREE_SIZE = 64


def from_data(part: Part, specs: Sequence[TensorSpec], *, count: int = 1) -> list[dict[str, np.ndarray]]:
    """Returns what `specs` take, up to `count` times, from the first samples of `part`, quantized where the input is.

    Each holds as many samples as the file takes at a time; the last sample fills up where the data have too few.

    Raises:
        DataError: names or shapes do not fit.
    """
    size = (specs[0].shape[0] or 1) if specs and specs[0].shape else 1
    return [
        {spec.name: quantize(_filled(batch.inputs[spec.name], size), spec) for spec in specs}
        for batch in datasets.bind(part.head(count * size), specs).batches(size)
    ]


def sizes(part: Part, session: Session) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a session's inputs with what the file leaves free as the data have it; one sample, if any.

    Raises:
        DataError: names or shapes do not fit.
    """
    found = {spec.name: spec.shape for spec in datasets.bind(part, session.declared).specs}
    batch = {spec.name: spec.shape[:1] for spec in session.inputs}
    return {name: cast("tuple[int, ...]", (*batch[name], *shape)) for name, shape in found.items()}


def arbitrary(session: Session, wanted: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    """Returns shapes for random inputs: what the file leaves free, but the batch, is as wanted, else FREE_SIZE.

    Args:
        session: an open one.
        wanted: shapes by input name, or by "" for the only input; the batch first.

    Raises:
        ConfigError: no input has that name.
    """
    wanted, found = dict(wanted or {}), {}
    names = [spec.name for spec in session.inputs]
    if "" in wanted and len(names) == 1:
        wanted = {names[0]: wanted[""]}
    if unknown := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"Expected --shape with one of the inputs {', '.join(names)}, got {unknown[0] or 'no name'}. "
            f"Try --shape {names[0]}=SIZES."
        )
    for spec, free in zip(session.inputs, session.declared):
        own = (*spec.shape[:1], *(FREE_SIZE if n is None else n for n in free.shape[1:]))
        found[spec.name] = wanted.get(spec.name) or cast("tuple[int, ...]", own)
    return found


def take(part: Part, count: int) -> Part:
    """Returns `count` samples, of all classes alike where the source lets any sample be read."""
    return part.take(count) if part.reads_any_row else part.head(count)


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(array)
    return np.concatenate([array, *[array[-1:]] * missing]) if missing > 0 else array


def generated(specs: Sequence[TensorSpec], *, seed: int, indices: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Returns seeded random inputs: normal floats, integers of all values where they are quantized, else 0 and 1.

    Args:
        specs: of the inputs.
        seed: of the numbers.
        indices: names of inputs of floats that are looked up in a table, which get 0 and 1 as well.

    Raises:
        ModelError: an input takes no numbers.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    for spec in specs:
        if spec.dtype not in BITS:
            raise ModelError(
                f"Expected inputs of numbers, got {spec.dtype} for {spec.name!r}. "
                "Try a model whose texts are looked up before it, so that indices go in."
            )
        dtype, shape = np.dtype(spec.dtype), tuple(size or 1 for size in spec.shape)
        if dtype.kind == "f" and spec.name not in indices:
            inputs[spec.name] = generator.standard_normal(shape).astype(dtype)
        elif spec.quantization is not None:
            limits = np.iinfo(dtype)
            inputs[spec.name] = generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:  # indices and flags, which must stay in bounds
            inputs[spec.name] = generator.integers(0, 2, shape).astype(dtype)
    return inputs
