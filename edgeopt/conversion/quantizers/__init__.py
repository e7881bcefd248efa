"""The quantizers: what a model was lowered to and a scheme go in, the bytes of a `.tflite` come out."""

from __future__ import annotations

from edgeopt.conversion.quantizers import (
    ai_edge,
    low_bits,
    tensorflow_16x8,
    tensorflow_graph,
    tensorflow_static,
    unquantized,
)
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.errors import named
from edgeopt.vocabulary import Scheme

__all__ = ["QUANTIZERS", "Quantizer", "Source", "maker_of", "quantize"]

QUANTIZERS: dict[str, Quantizer] = {
    "unquantized": unquantized.QUANTIZER,
    "tensorflow-graph": tensorflow_graph.QUANTIZER,
    "tensorflow-static": tensorflow_static.QUANTIZER,
    "tensorflow-16x8": tensorflow_16x8.QUANTIZER,
    "ai-edge-quantizer": ai_edge.QUANTIZER,
    "low-bits": low_bits.QUANTIZER,
    "low-bits-16x8": low_bits.QUANTIZER_16X8,
}


def maker_of(scheme: Scheme) -> Quantizer:
    """Returns the quantizer that makes `scheme`.

    Raises:
        ConfigError: there is no such maker, or it cannot make what the scheme says.
    """
    quantizer = named(QUANTIZERS, scheme.maker, "a quantizer as the maker of a scheme")
    quantizer.refuse(scheme)
    return quantizer


def quantize(source: Source, scheme: Scheme) -> bytes:
    """Returns what the maker of `scheme`, or its stand-in where there is no graph, makes of a lowered model.

    Raises:
        ConfigError: see `maker_of`.
    """
    quantizer = maker_of(scheme)
    if quantizer.without_graph and source.plain_graph is None:
        quantizer = QUANTIZERS[quantizer.without_graph]
    return quantizer.make(source, scheme)
