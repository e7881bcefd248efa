"""What is known of a model's weights and layers, and what something would bring to it: the nouns of all prospects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Share of zeros above which XNNPACK takes its sparse kernels for 1x1 convolutions.
SPARSE_KERNEL_ZEROS = 2 / 3
# Kinds of weights that prune and cluster take unless told otherwise.
PRUNABLE = frozenset({"dense", "convolution", "pointwise", "transposed", "recurrent", "embedding", "attention"})


@dataclass(frozen=True)
class WeightFacts:
    """A weight that an operator multiplies with.

    Attributes:
        kind: "dense", "convolution", "pointwise" (1x1), "transposed", "depthwise", "recurrent", "embedding",
            "attention" or "other".
        elements: numbers in it; macs: multiply-accumulates with it in one inference.
        part_elements: what of it the converter quantizes as one tensor (the smallest kernel of an LSTM).
        channels: slices that get a scale of their own; 0 where it gets one for all.
        unevenness: its largest weight over that of a typical channel, normalization multiplied in; None where that is
            not known.
    """

    kind: str
    elements: int
    macs: int
    part_elements: int
    channels: int
    unevenness: float | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What the verdicts rest on.

    Attributes:
        untrainable: why there are no layers to train, "" where there are.
        quantized: in words, "" for a float model.
        float_bytes: of the float32 `.tflite`, measured or (for Keras models) four bytes a parameter.
        parameters: trained numbers, biases included.
        tensors: in how many stored tensors.
        zeros: share of the weights that are zero now.
        layers: Keras class → how many layers with weights.
        loops: the names of recurrent layers that become loops in the file.
        fused_lstm: whether an LSTM becomes one fused operator.
        kinds: Keras classes of all layers, those without weights too.
        foreign: those of them that are not Keras's own.
    """

    untrainable: str
    quantized: str
    float_bytes: int
    parameters: int
    tensors: int
    zeros: float
    weights: tuple[WeightFacts, ...]
    layers: Mapping[str, int]
    loops: tuple[str, ...] = ()
    fused_lstm: bool = False
    kinds: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Numbers in all weights, biases left out."""
        return sum(w.elements for w in self.weights)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(w.macs for w in self.weights)

    def share(self, *kinds: str) -> float:
        """Returns the share of the weights that are of these kinds, 0 to 1."""
        return sum(w.elements for w in self.weights if w.kind in kinds) / (self.elements or 1)

    def macs_share(self, *kinds: str) -> float:
        """Returns the share of the multiply-accumulates that are done with weights of these kinds, 0 to 1."""
        return sum(w.macs for w in self.weights if w.kind in kinds) / (self.macs or 1)


@dataclass(frozen=True)
class Prospect:
    """What something would bring to a model.

    Attributes:
        gain: in words, "none" where there is none.
        reason: why it will or will not help here.
        possible: whether it can be done to this very model; None where that is not known.
        size_bytes: of the file in a scheme; None where that is not told.
        left: share of the weights that are left.
        share: of the file's bytes that are left, where a setting says it.
    """

    gain: str
    reason: str
    possible: bool | None = True
    size_bytes: int | None = None
    left: float = 1.0
    share: float = 1.0

    @property
    def words(self) -> str:
        """Both in one."""
        return f"{self.gain}; {self.reason}" if self.reason else self.gain


@dataclass(frozen=True)
class Advice:
    """A verdict.

    Attributes:
        technique: the name of a scheme or technique.
        possible: whether it can be applied to this very model; None where that is not known.
        gain: what it would bring, in words.
        reason: why it will or will not help here.
    """

    technique: str
    possible: bool | None
    gain: str
    reason: str


def gzipped_share(zeros: float) -> float:
    """Returns the share of 8 bits that an int8 weight takes when coded by its entropy: which of them, then 7 bits."""
    coded = 0.0 if zeros in (0.0, 1.0) else -zeros * math.log2(zeros) - (1 - zeros) * math.log2(1 - zeros)
    return min(1.0, (coded + (1 - zeros) * 7) / 8) or 1 / 8


def change(before: int, after: int) -> str:
    """Returns two sizes in bytes as "about 1.2 MB → 0.4 MB (33%)"."""
    share = max(after, 0) / (before or 1)
    return f"{'grows: ' * (share > 1)}about {count(before)}B → {count(max(after, 0))}B ({share:.0%})"


def count(number: int) -> str:
    """Returns 1234567 as "1.23 M", to be followed by a unit."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} "
