"""A float `.tflite` and a quantized one of the same lowering go in; which layer is which comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import Layer, StoredWeights, layers, stored_bias, stored_weights

# Least cosine between a layer's float weights and what its integers stand for: 2 bits leave about 0.7 of a normal
# distribution, and two layers that were trained apart have about 0.
LEAST_LIKENESS = 0.5


@dataclass(frozen=True)
class Pair:
    """One layer in both files.

    Attributes:
        floating, quantized: the layer in each file.
        likeness: cosine of the float weights and what the integers stand for, 0.5 to 1.
    """

    floating: Layer
    quantized: Layer
    likeness: float

    @property
    def name(self) -> str:
        """Of the tensor that the layer writes."""
        return self.quantized.name


@dataclass(frozen=True)
class Pairing:
    """Two files, layer by layer.

    Attributes:
        floating, quantized: the files.
        pairs: in the order in which the quantized file computes. Two of them may share one weight tensor.
        alone: layers of the quantized file that have no counterpart → why not.
    """

    floating: TFLiteModel
    quantized: TFLiteModel
    pairs: tuple[Pair, ...]
    alone: dict[str, str]

    def float_weights(self, pair: Pair) -> np.ndarray:
        """Returns a layer's weights before they were quantized: float32, in the tensor's shape."""
        return self.floating.values(pair.floating.weight).astype(np.float32)

    def float_bias(self, pair: Pair) -> np.ndarray | None:
        """Returns a layer's bias before it was quantized: float64 [channels]; None where it has none."""
        return stored_bias(self.floating, pair.floating)

    def stored(self, pair: Pair) -> StoredWeights:
        """Returns the integers that a layer computes with in the quantized file."""
        stored = stored_weights(self.quantized, pair.quantized)
        assert stored is not None  # only such layers are paired
        return stored


def pair_weights(float_content: bytes, quantized_content: bytes) -> Pairing:
    """Returns which layers of two files are the same one, told by kind, shape and what the weights stand for.

    Of layers that are alike in all this, the names of what they write decide, then their order.

    Raises:
        ModelError: one of them is no `.tflite` file.
    """
    floating, quantized = read(float_content), read(quantized_content)
    ours = [layer for layer in layers(floating) if layer.weight.is_float and layer.weight.sparsity is None]
    theirs = layers(quantized)
    values = {i: floating.values(layer.weight).astype(np.float32, copy=False) for i, layer in enumerate(ours)}
    alone, found = {}, []
    for place, layer in enumerate(theirs):
        stored = stored_weights(quantized, layer)
        if stored is None:
            alone[layer.name] = f"its {layer.weight.dtype} weights are no symmetric integers of 2, 4 or 8 bits"
            continue
        real = stored.dequantized
        for other, candidate in enumerate(ours):
            if (candidate.operator.name, candidate.weight.shape) == (layer.operator.name, layer.weight.shape):
                alike = likeness(values[other], real)
                found.append((-round(alike, 6), candidate.name != layer.name, abs(place - other), place, other))
    pairs: dict[int, Pair] = {}
    taken: set[int] = set()
    for unlike, _, _, place, other in sorted(found):
        if place not in pairs and other not in taken and -unlike >= LEAST_LIKENESS:
            pairs[place] = Pair(ours[other], theirs[place], -unlike)
            taken.add(other)
    for place, layer in enumerate(theirs):
        if place not in pairs:
            alone.setdefault(layer.name, f"no {layer.operator.name} of the float file has such weights")
    return Pairing(floating, quantized, tuple(pairs[place] for place in sorted(pairs)), alone)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the cosine of two vectors; 1 of two without anything in them."""
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if not all(lengths):
        return float(lengths == (0, 0))
    return float(np.vdot(one, other)) / (lengths[0] * lengths[1])
