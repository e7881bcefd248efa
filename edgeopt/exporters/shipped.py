"""The file that ships and what it must compute: a Source and a dtype go in, its bytes and golden vectors come out.

Vectors are real values, as the app sees them: what an int8 input stores is quantized again by the app, exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.exporters import golden as outputs
from edgeopt.exporters.contract import Source
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.tflite import interface
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Quantization, TensorSpec

if TYPE_CHECKING:
    from edgeopt.tflite.model import TFLiteModel

_RUNTIME = "litert"
# Kernels of other families round twice where XNNPACK rounds once: a quantum or two.
_QUANTA = 2.0
# Of the spread of a float output: sums in another order, float16 on a GPU.
_FLOAT_SHARE = 0.02


@dataclass(frozen=True)
class Tensor:
    """An input or output as the templates write it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def elements(self) -> int:
        """How many values the app gives or gets."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Golden:
    """What ships, and what its self-test knows.

    Attributes:
        content: the `.tflite`, without metadata.
        model: the same, read.
        samples, expected: for each sample, for each input or output in the file's order, its real values, flat.
        tolerances: for each output, by how much a value may be off on another runtime.
    """

    content: bytes
    model: TFLiteModel
    samples: tuple[tuple[np.ndarray, ...], ...]
    expected: tuple[tuple[np.ndarray, ...], ...]
    tolerances: tuple[float, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs in the order of the file."""
        return tuple(_tensor(spec) for spec in self.model.inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs in the order of the file."""
        return tuple(_tensor(spec) for spec in self.model.outputs)

    @property
    def packed(self) -> bytes:
        """The vectors in big-endian numbers of 32 bits: their count, then all inputs and outputs of each."""
        values = [v for given, wanted in zip(self.samples, self.expected) for v in (*given, *wanted)]
        return struct.pack(">i", len(self.samples)) + b"".join(v.astype(">f4").tobytes() for v in values)


def golden(source: Source, io: str, *, supported: Collection[str]) -> Golden:
    """Returns `source` with inputs and outputs of the dtype `io` ("file": its own), proven to compute the same.

    Args:
        source: what is exported.
        io: one of `interface.KINDS`, or "file".
        supported: dtypes that the app fills and reads.

    Raises:
        ModelError: the app cannot fill an input or read an output, the file has no scale for `io`, or the file with
            other inputs and outputs computes something else.
        UnavailableError: LiteRT is not installed.
    """
    content = interface.with_static_shapes(source.content)
    if io != "file":
        content = interface.with_interface(content, io)
    model = read(content)
    for spec in (*model.inputs, *model.outputs):
        _require_supported(spec, supported)
    wanted = _real(outputs.expected(source, _RUNTIME), source.model.outputs)
    real = _real(source.samples, source.model.inputs)
    samples = [{spec.name: quantize(sample[spec.name], spec) for spec in model.inputs} for sample in real]
    if content != source.content:
        _require_same(replace(source, content=content, model=model, samples=tuple(samples)), wanted)
    return Golden(
        content,
        model,
        _flat(real, model.inputs),
        _flat(wanted, model.outputs),
        tuple(_tolerance(model, i, [sample[spec.name] for sample in wanted]) for i, spec in enumerate(model.outputs)),
    )


def _require_supported(spec: TensorSpec, supported: Collection[str]) -> None:
    if spec.dtype not in supported or (spec.quantization is not None and len(spec.quantization.scales) > 1):
        raise ModelError(
            f"Expected inputs and outputs of {', '.join(supported)} with one scale, got {spec.name!r} of {spec.dtype}. "
            "Try a file made by `edgeopt convert`."
        )


def _require_same(source: Source, wanted: Sequence[Mapping[str, np.ndarray]]) -> None:
    got = _real(outputs.expected(source, _RUNTIME), source.model.outputs)
    for before, after in zip(wanted, got):
        for name, values in before.items():
            if not np.array_equal(values, after[name], equal_nan=True):
                raise ModelError(
                    f"The file with other inputs and outputs gives another {name!r} on LiteRT: off by up to "
                    f"{np.abs(values - after[name]).max():.3g}. Try the float32 file."
                )


def _real(samples: Sequence[Mapping[str, np.ndarray]], specs: Sequence[TensorSpec]) -> list[dict[str, np.ndarray]]:
    return [{spec.name: dequantize(sample[spec.name], spec) for spec in specs} for sample in samples]


def _flat(
    samples: Sequence[Mapping[str, np.ndarray]], specs: Sequence[TensorSpec]
) -> tuple[tuple[np.ndarray, ...], ...]:
    return tuple(tuple(sample[spec.name].astype(np.float32).ravel() for spec in specs) for sample in samples)


def _tolerance(model: TFLiteModel, output: int, expected: Sequence[np.ndarray]) -> float:
    """Returns two steps of an output that is, or just was, quantized; of a float one a share of its spread."""
    index = model.main.outputs[output]
    source = next((op for op in model.main.operators if index in op.outputs and op.name == "DEQUANTIZE"), None)
    stored = model.main.tensors[index if source is None else source.inputs[0]].quantization
    if stored is not None:
        return _QUANTA * stored.scales[0]
    if expected[0].dtype.kind != "f":
        return 0.0
    values = np.concatenate([np.ravel(sample) for sample in expected])
    values = values[np.isfinite(values)]
    return _FLOAT_SHARE * (float(np.ptp(values)) or float(np.abs(values).max()) or 1.0) if values.size else 0.0


def _tensor(spec: TensorSpec) -> Tensor:
    stored = spec.quantization if spec.dtype != "float32" else None
    stored = stored or Quantization((0.0,), (0,))
    shape = tuple(size or 1 for size in spec.shape)
    return Tensor(spec.name, spec.dtype, shape, stored.scales[0], stored.zero_points[0])
