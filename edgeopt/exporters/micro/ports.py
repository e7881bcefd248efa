"""Inputs and outputs of a model go in; what templates write of them in C comes out, with the literals they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.exporters.micro.fitness import C_TYPES
from edgeopt.vocabulary import TensorSpec

_NUMBERS_A_LINE = 16


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        spec: the tensor.
        index: its place among its kind.
        kind: "input" or "output".
        c_type: of an element.
        shape: with 1 for a free batch.
    """

    spec: TensorSpec
    index: int
    kind: str
    c_type: str
    shape: tuple[int, ...]

    @property
    def macro(self) -> str:
        """As it stands in macros: "INPUT_0"."""
        return f"{self.kind}_{self.index}".upper()

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return self.elements * np.dtype(self.spec.dtype).itemsize

    @property
    def is_quantized(self) -> bool:
        """Whether its integers stand for real numbers."""
        return self.spec.quantization is not None and self.spec.dtype != "float32"

    @property
    def scale(self) -> str:
        """The scale as a literal."""
        return number(self.spec.quantization.scales[0] if self.spec.quantization else 1.0)

    @property
    def zero_point(self) -> int:
        """The zero point."""
        return self.spec.quantization.zero_points[0] if self.spec.quantization else 0

    @property
    def limits(self) -> tuple[int, int]:
        """The least and largest integer that it holds."""
        info = np.iinfo(self.spec.dtype)
        return int(info.min), int(info.max)


def ports(specs: Sequence[TensorSpec], kind: str) -> tuple[Port, ...]:
    """Returns the ports of `specs`, all "input" or all "output"."""
    return tuple(
        Port(
            spec,
            index,
            kind,
            C_TYPES[spec.dtype],
            tuple(size or 1 for size in spec.shape),
        )
        for index, spec in enumerate(specs)
    )


def number(value: float) -> str:
    """Returns a float literal of C and C++ that reads back as the same float32."""
    text = repr(float(np.float32(value)))
    return f"{text}f" if math.isfinite(float(text)) else {"inf": "INFINITY", "-inf": "-INFINITY"}.get(text, "NAN")


def numbers(values: np.ndarray) -> str:
    """Returns the elements of an array as an initializer's lines, without its braces."""
    flat = np.asarray(values).reshape(-1)
    if flat.dtype.kind == "f":
        texts = [number(value) for value in flat]
    else:  # INT64_MIN has no literal of its own
        texts = [str(int(v)) if int(v) != np.iinfo(np.int64).min else "INT64_MIN" for v in flat]
    rows = (texts[i : i + _NUMBERS_A_LINE] for i in range(0, len(texts), _NUMBERS_A_LINE))
    return ",\n".join("    " + ", ".join(row) for row in rows)
