"""No quantization: the float file as it was lowered."""

from __future__ import annotations

from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.vocabulary import Scheme


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the float file."""
    return source.float_file


QUANTIZER = Quantizer("the float file as it was lowered", make, {"weights": ("float32",), "activations": ("float32",)})
