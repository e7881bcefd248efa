"""What each technique can do for a model and why: facts about its weights go in, one verdict each comes out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

TECHNIQUES = ("float16", "dynamic", "int8", "int16x8", "prune", "cluster", "shrink", "qat", "distill")

# The converter leaves smaller weights of a dynamic-range model in float.
DYNAMIC_ELEMENTS = 1024
# A float32 for each channel; the zero points are alike and stored once.
_SCALE_BYTES = 4
# A DEQUANTIZE operator and the tensor it writes, for each tensor stored as float16: measured on TensorFlow 2.21.
_WIDENING_BYTES = 130
# Share of zeros above which XNNPACK takes its sparse kernels for 1x1 convolutions.
SPARSE_KERNEL_ZEROS = 2 / 3
# Kinds of weights that prune and cluster take unless told otherwise.
PRUNABLE = frozenset({"dense", "convolution", "pointwise", "transposed", "recurrent", "embedding", "attention"})
# Classes of layers with weights that qat trains in int8; it folds or rewrites BatchNormalization.
QAT_LAYERS = frozenset(
    (
        *("BatchNormalization", "Conv1D", "Conv2D", "Conv2DTranspose", "Dense", "DepthwiseConv1D", "DepthwiseConv2D"),
        *("SeparableConv1D", "SeparableConv2D"),
    )
)


@dataclass(frozen=True)
class WeightFacts:
    """A weight that an operator multiplies with.

    Attributes:
        kind: "dense", "convolution", "pointwise" (1x1), "transposed", "depthwise", "recurrent", "embedding",
            "attention" or "other".
        elements: numbers in it; macs: multiply-accumulates with it in one inference.
        part_elements: what of it the converter quantizes as one tensor (the smallest kernel of an LSTM).
        channels: slices that get a scale of their own; 0 where it gets one for all.
    """

    kind: str
    elements: int
    macs: int
    part_elements: int
    channels: int


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
    """

    untrainable: str
    quantized: str
    float_bytes: int
    parameters: int
    tensors: int
    zeros: float
    weights: tuple[WeightFacts, ...]
    layers: Counter[str]
    loops: tuple[str, ...] = ()
    fused_lstm: bool = False

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
class TechniqueAdvice:
    """A verdict.

    Attributes:
        technique: one of TECHNIQUES.
        possible: whether it can be applied to this very model.
        gain: what it would bring, in words.
        reason: why it will or will not help here.
    """

    technique: str
    possible: bool
    gain: str
    reason: str


def prospects(facts: ModelFacts) -> tuple[TechniqueAdvice, ...]:
    """Returns a verdict for each of TECHNIQUES."""
    return tuple(_verdict(technique, facts) for technique in TECHNIQUES)


def _verdict(technique: str, facts: ModelFacts) -> TechniqueAdvice:
    is_scheme = technique in ("float16", "dynamic", "int8", "int16x8")
    if not facts.elements:
        return TechniqueAdvice(technique, technique == "distill", "none", "there are no weights to work on")
    if facts.quantized and (is_scheme or facts.untrainable):
        reason = f"the file is quantized already ({facts.quantized}): start from the float model it was made of"
        if technique == "prune":
            reason += f"; {facts.zeros:.1%} of its weights are zero"
        return TechniqueAdvice(technique, False, "none here", reason)
    possible, gain, reason = _RULES[technique](facts)
    if not is_scheme and facts.untrainable:
        return TechniqueAdvice(technique, False, gain, f"{facts.untrainable}. There: {reason}")
    return TechniqueAdvice(technique, possible, gain, reason)


_Rule = tuple[bool, str, str]


def _float16(facts: ModelFacts) -> _Rule:
    after = facts.float_bytes - 2 * facts.parameters + _WIDENING_BYTES * facts.tensors
    return (
        True,
        f"{_change(facts.float_bytes, after)}; no faster on a CPU",
        "weights are stored as float16 and widened when the file is loaded; a GPU computes with them as they are",
    )


def _dynamic(facts: ModelFacts) -> _Rule:
    large = [w for w in facts.weights if w.part_elements >= DYNAMIC_ELEMENTS]
    saved = sum(3 * w.elements - _SCALE_BYTES * w.channels for w in large)
    if not large:
        return (
            True,
            "none",
            f"nothing to gain: all weight tensors have under {DYNAMIC_ELEMENTS} elements and stay float",
        )
    reasons = []
    small = 1 - sum(w.elements for w in large) / facts.elements
    if small > 0.005:
        reasons.append(f"{small:.0%} of the weights are in tensors under {DYNAMIC_ELEMENTS} elements and stay float")
    if any(w.kind in ("dense", "recurrent", "attention") for w in large):
        reasons.append("Dense weights then need a runtime of TensorFlow Lite 2.17 or newer")
    if facts.macs_share("depthwise") > 0.02:
        reasons.append(
            f"activations are quantized at each inference, which depthwise layers ({facts.macs_share('depthwise'):.0%} "
            "of the MACs) rarely win back: measure it"
        )
    reasons.append("needs no data")
    return True, _change(facts.float_bytes, facts.float_bytes - saved), "; ".join(reasons)


def _int8(facts: ModelFacts) -> _Rule:
    gain = f"{_change(facts.float_bytes, _integer_bytes(facts))}; integer kernels, usually the fastest"
    reason = "needs calibration data; the only scheme for most microcontrollers and NPUs"
    if facts.loops:
        reason = f"{_listed(facts.loops)} become loops, which the converter cannot quantize: set unroll=True; {reason}"
    return True, gain, reason


def _int16x8(facts: ModelFacts) -> _Rule:
    if facts.fused_lstm:
        return False, "none", "the converter has no 16x8 form of the fused LSTM operator: set unroll=True"
    return (
        True,
        f"{_change(facts.float_bytes, _integer_bytes(facts, bias_bytes=8))}; nearly float accuracy",
        "XNNPACK has no int16 kernels: much slower than int8 on phones and desktops; needs calibration data",
    )


def _prune(facts: ModelFacts) -> _Rule:
    share = facts.share(*PRUNABLE)
    if not share:
        return False, "none", "only depthwise kernels, which bear few zeros: name the layers to prune them"
    dense = gzipped_share(facts.zeros)
    sparse = gzipped_share(1 - (1 - facts.zeros) * (1 - 0.8 * share))
    reasons = ["a pruned file is as large as before: only compressed storage or transfer gains"]
    if facts.zeros > 0.05:
        reasons.append(f"{facts.zeros:.0%} of the weights are zero already")
    pointwise = facts.macs_share("pointwise")
    reasons.append(
        f"XNNPACK's sparse kernels take float 1x1 convolutions with over {SPARSE_KERNEL_ZEROS:.0%} zeros: "
        f"{pointwise:.0%} of the MACs here" + ("" if pointwise > 0.3 else ", so no faster")
    )
    if depthwise := facts.share("depthwise"):
        reasons.append(f"depthwise kernels ({depthwise:.1%} of the weights) are pruned where named alone")
    return True, f"at 80 % zeros the gzipped int8 weights shrink to about {sparse / dense:.0%}", "; ".join(reasons)


def _cluster(facts: ModelFacts) -> _Rule:
    share = facts.share(*PRUNABLE)
    if not share:
        return False, "none", "only depthwise kernels, which bear few clusters: name the layers to cluster them"
    # 16 values take 4 bits of the 8 at most.
    left = 1 - share / 2
    reasons = ["gains only when compressed, or on microcontrollers with TFLM's look-up tables: the file stays as large"]
    if depthwise := facts.share("depthwise"):
        reasons.append(f"depthwise kernels ({depthwise:.1%} of the weights) are clustered where named alone")
    return True, f"16 clusters: the gzipped int8 weights shrink to about {left:.0%}", "; ".join(reasons)


def _shrink(facts: ModelFacts) -> _Rule:
    channels = [w for w in facts.weights if w.kind in ("convolution", "pointwise", "transposed", "dense", "attention")]
    if len(channels) < 2:
        return False, "none", "it takes at least two layers with channels: those of the last one are the outputs"
    linear = facts.macs_share("depthwise")
    left = 0.75 * linear + 0.75**2 * (1 - linear)
    return (
        True,
        f"three quarters of the channels leave about {left:.0%} of the {_count(facts.macs)} MACs, and smaller files",
        "tensors really get smaller, so every runtime gains; multiples of 8 channels suit it best; recover by training",
    )


def _qat(facts: ModelFacts) -> _Rule:
    gain = "size and speed of int8, with less loss of accuracy"
    if not facts.layers:
        return True, gain, "`edgeopt inspect` of the Keras model says which layers are trained in int8"
    rest = {name: n for name, n in sorted(facts.layers.items()) if name not in QAT_LAYERS}
    others = [f"{name} ({n} layer{'s' if n > 1 else ''})" for name, n in rest.items()]
    if not others:
        return True, gain, "every layer is trained in int8"
    if len(others) == len(facts.layers):
        return False, "none", f"no layer with weights can be trained in int8 here: {_listed(others)}"
    return True, gain, f"not trained in int8 but quantized afterwards: {_listed(others)}"


def _distill(facts: ModelFacts) -> _Rule:
    return (
        True,
        "a smaller student keeps more of this model's accuracy",
        f"this model is the teacher; its {_count(facts.parameters)} parameters stay as they are",
    )


_RULES: dict[str, Callable[[ModelFacts], _Rule]] = {
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
    "int16x8": _int16x8,
    "prune": _prune,
    "cluster": _cluster,
    "shrink": _shrink,
    "qat": _qat,
    "distill": _distill,
}


def gzipped_share(zeros: float) -> float:
    """Returns the share of 8 bits that an int8 weight takes when coded by its entropy: which of them, then 7 bits."""
    coded = 0.0 if zeros in (0.0, 1.0) else -zeros * math.log2(zeros) - (1 - zeros) * math.log2(1 - zeros)
    return min(1.0, (coded + (1 - zeros) * 7) / 8) or 1 / 8


def _integer_bytes(facts: ModelFacts, bias_bytes: int = 4) -> int:
    # Weights and biases have a scale for each channel; biases stood in 4 bytes before.
    channels = sum(w.channels for w in facts.weights)
    return facts.float_bytes - 3 * facts.elements + channels * (2 * _SCALE_BYTES + bias_bytes - 4)


def _change(before: int, after: int) -> str:
    share = max(after, 0) / (before or 1)
    return f"{'grows: ' * (share > 1)}about {_count(before)}B → {_count(max(after, 0))}B ({share:.0%})"


def _count(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} "


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
