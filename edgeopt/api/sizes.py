"""A model that leaves sizes free and several sets of them go in; one `.tflite`, a signature for each set, comes out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import files, workers
from edgeopt.conversion import ConvertOptions, IsolatedConverter
from edgeopt.data import Dataset
from edgeopt.data.sizes import in_sizes
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.loading.sizes import sized
from edgeopt.runtimes import RUNTIMES
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.samples import from_data, generated
from edgeopt.tflite.macs import count_macs
from edgeopt.tflite.reader import read
from edgeopt.tflite.signatures import alone, merged
from edgeopt.vocabulary import Fidelity, Shape, TensorSpec

if TYPE_CHECKING:
    from edgeopt.api.convert import Conversion

# Real samples that a signature is tried on.
_TRIED = 4
# A file of floats computes what the model does, as a share of the output's range: float16 rounds the weights.
_TOLERANCES = {"float32": 1e-3, "float16": 2e-2}

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Sized:
    """A signature of a file that takes several sizes, and what was verified of it.

    Attributes:
        name: of the signature.
        inputs, outputs: as it declares them.
        macs: of one inference.
        keras_db: how loud Keras' own outputs are beside the differences from them; NaN where they are not known.
        fidelity, notes: see `Conversion`.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: int
    keras_db: float
    fidelity: Fidelity | None = None
    notes: tuple[str, ...] = ()


One = Callable[[Mapping[str, Shape], Dataset | None, Path], "Conversion"]
Sizes = Mapping[str, Shape]


def names_of(sizes: Sequence[Sequence[TensorSpec]], inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Returns what signatures are called after the sizes that the model leaves free: "size_64x64", "size_24".

    Raises:
        ConfigError: two have the same sizes.
    """
    free = [(place, axis) for place, spec in enumerate(inputs) for axis, n in enumerate(spec.shape) if axis and not n]
    each = [[set_[place].shape[axis] for place, axis in free] for set_ in sizes]
    for number, one in enumerate(each):
        if one in each[:number]:
            raise ConfigError(
                f"Expected sizes that differ, got {'x'.join(map(str, one))} twice. Try each --shape once, in sizes "
                "that the model leaves free."
            )
    return tuple(f"size_{'x'.join(map(str, one))}" for one in each)


def in_several_sizes(
    model: Path,
    output: Path,
    sizes: Sequence[Sizes],
    *,
    data: Dataset | None,
    scheme: str,
    options: ConvertOptions,
    one: One,
) -> Conversion:
    """Writes a file with a signature for each of `sizes`, each converted and verified alone and then in this file.

    Args:
        model: leaves these sizes free.
        output: the file to write.
        sizes: by input, the batch first; "" names the only input.
        data: of any one size: see `data.sizes.in_sizes`.
        scheme: of all signatures.
        options: how the model is opened.
        one: converts the model in one of the sizes, with data in it, to a file.

    Raises:
        ConfigError: sizes are not the model's, or the same twice.
        DataError: the data cannot be brought to one of the sizes.
        ConversionError: see `convert`; or a signature of the file does not compute what its own file does.
    """
    with IsolatedConverter(model, options) as keras, tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        inputs = keras.summary().inputs
        specs = [sized(inputs, shapes) for shapes in sizes]
        names, alike = names_of(specs, inputs), [None if data is None else in_sizes(data, each) for each in specs]
        made = {}
        for name, shapes, found in zip(names, sizes, alike):
            conversion = one(shapes, None if found is None else found[0], Path(folder) / f"{name}.tflite")
            made[name] = replace(conversion, notes=(*conversion.notes, *(found[1] if found else ())))
        each = {name: merged({name: conversion.file.read_bytes()}) for name, conversion in made.items()}
        content = merged(each)
        told = []
        for (name, conversion), own, found in zip(made.items(), specs, alike):
            single = [replace(spec, shape=(1, *spec.shape[1:])) for spec in own]
            samples = None if found is None else from_data(found[0].calibration, single, count=_TRIED)
            answers = keras.answers([spec.shape for spec in single], samples)
            given: Sequence[Outputs] = [sample for sample, _ in answers] if samples is None else samples
            stored = [_stored(sample, conversion.inputs) for sample in given]
            stored = stored or [generated(conversion.inputs, seed=0)]
            ours = _run(content, name, stored, folder)
            _require_alike(_run(each[name], name, stored, folder), ours, name)
            beside = _beside([wanted for _, wanted in answers], ours, conversion.outputs)
            told.append(_sized(name, conversion, content, beside, scheme))
    files.atomic_write(output, content)
    first = next(iter(made.values()))
    common = [note for note in first.notes if all(note in one.notes for one in made.values())]
    told = [replace(one, notes=tuple(note for note in one.notes if note not in common)) for one in told]
    return replace(
        first,
        file=output,
        sha256=files.sha256(output),
        size_bytes=len(content),
        gzip_bytes=files.gzip_size(content),
        float_operators=tuple(dict.fromkeys(name for each in made.values() for name in each.float_operators)),
        notes=tuple(common),
        fidelity=None,
        signatures=tuple(told),
    )


def _stored(sample: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    return {spec.name: quantize(sample[spec.name], spec) for spec in inputs}


def _run(content: bytes, name: str, samples: Sequence[Mapping[str, np.ndarray]], folder: str) -> list[Outputs]:
    """Returns what LiteRT makes of samples by a signature, in its worker."""
    file = Path(folder) / "signatures.tflite"
    file.write_bytes(content)
    try:
        found: list[Outputs] = workers.shared(RUNTIMES["litert"].package).call(
            "edgeopt.runtimes.signatures:run", file, name, samples
        )
        return found
    except workers.WorkerCrashed as crash:
        raise ConversionError(
            f"Expected a file that LiteRT runs by its signature {name}, got one that it died on: {crash.reason}. "
            "Try a file for each size."
        ) from None


def _require_alike(alone: Sequence[Outputs], together: Sequence[Outputs], name: str) -> None:
    for one, other in zip(alone, together):
        if unlike := [
            key for key in one if not np.array_equal(one[key], other[key], equal_nan=one[key].dtype.kind == "f")
        ]:
            raise ConversionError(
                f"Expected the signature {name} to compute what the file of that size does, got another output "
                f"{unlike[0]!r}. Try a file for each size."
            )


def _beside(wanted: Sequence[Outputs], stored: Sequence[Outputs], outputs: Sequence[TensorSpec]) -> tuple[float, float]:
    """Returns how loud Keras' outputs are beside the differences from them, in dB, and the largest as a share of range.

    NaN and 0 where Keras' are not known.
    """
    signal = noise = worst = 0.0
    for theirs, ours in zip(wanted, stored):
        for spec in outputs:
            keras = theirs[spec.name].astype(np.float64)
            apart = keras - dequantize(ours[spec.name], spec)
            signal, noise = signal + float(np.square(keras).sum()), noise + float(np.square(apart).sum())
            worst = max(worst, float(np.abs(apart).max(initial=0)) / (float(np.ptp(keras)) or 1.0))
    if not wanted:
        return math.nan, 0.0
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf, worst


def _sized(name: str, conversion: Conversion, content: bytes, beside: tuple[float, float], scheme: str) -> Sized:
    """Returns what was verified of a signature.

    Raises:
        ConversionError: it computes in floats, and not what Keras does.
    """
    loudness, worst = beside
    if not worst <= _TOLERANCES.get(scheme, math.inf):
        raise ConversionError(
            f"Expected the signature {name} to compute what Keras does, got an output that is off by {worst:.2g} of "
            "its range. Try that size alone."
        )
    macs = count_macs(read(alone(content, name))).total
    return Sized(name, conversion.inputs, conversion.outputs, macs, loudness, conversion.fidelity, conversion.notes)
