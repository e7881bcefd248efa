"""What is known of a model goes in; what each scheme and each technique would bring to it comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgeopt.conversion import eight_bits
from edgeopt.conversion.unconvertible import in_no_scheme, unconvertible
from edgeopt.prospects import Advice, ModelFacts, Prospect, WeightFacts, change
from edgeopt.schemes import SCHEMES, SMALLEST_DYNAMIC
from edgeopt.techniques import TECHNIQUES
from edgeopt.vocabulary import Scheme

# A float32 for each channel; the zero points are alike, and stored once for each number of channels.
_SCALE_BYTES = 4
_ZERO_POINT_BYTES = 8
# A float16 for each group.
_BLOCK_SCALE_BYTES = 2
# A DEQUANTIZE operator and the tensor it writes, for each tensor stored as float16: measured on TensorFlow 2.21.
_WIDENING_BYTES = 130


def advice(facts: ModelFacts) -> tuple[Advice, ...]:
    """Returns a verdict for each scheme that computes otherwise than those before it, and for each technique."""
    seen: set[tuple[str, str, bool]] = {("float32", "float32", False)}
    found = {}
    for scheme in SCHEMES.values():
        kind = (scheme.weights, scheme.activations, scheme.dynamic)
        if kind not in seen:
            seen.add(kind)
            found[scheme.name] = of_scheme(scheme, facts)
    found |= {row.name: of_technique(row.name, facts) for row in TECHNIQUES.values()}
    return tuple(Advice(name, it.possible, it.gain, it.reason) for name, it in found.items())


def of_technique(name: str, facts: ModelFacts) -> Prospect:
    """Returns what a technique would bring, by its typical step."""
    if (nothing := _nothing_to_do(facts)) is not None:
        return nothing
    if words := in_no_scheme(facts.kinds):
        return Prospect("none", f"no file holds {words}", possible=False)
    row = TECHNIQUES[name]
    prospect = row.predict(row.typical, facts)
    if facts.untrainable and row.acts_on == "model":
        return Prospect(prospect.gain, f"{facts.untrainable}. There: {prospect.reason}", possible=False)
    return prospect


def of_scheme(scheme: Scheme, facts: ModelFacts) -> Prospect:
    """Returns what a scheme would bring, by its fields."""
    if (nothing := _nothing_to_do(facts, trained=False)) is not None:
        return nothing
    if words := unconvertible(facts.kinds, scheme):
        return Prospect("none", f"no file in this scheme holds {words}", possible=False)
    if scheme.is_low_bit and not any(bits < 8 for bits in _bits(scheme, facts)):
        return Prospect(
            "none", "nothing to gain: all layers are small, first, last or of kinds that stay at eight bits"
        )
    make = _dynamic if scheme.dynamic else _static if scheme.needs_calibration else _weights_alone
    make = make if scheme.algorithm else _narrow_floats
    prospect = make(scheme, facts)
    if prospect.possible and facts.foreign:
        doubt = f"whether the converter takes {', '.join(facts.foreign)}, which is not Keras's own, is not known"
        return replace(prospect, reason=f"{doubt}; {prospect.reason}", possible=None)
    return prospect


def _nothing_to_do(facts: ModelFacts, *, trained: bool = True) -> Prospect | None:
    if not facts.elements:
        return Prospect("none", "there are no weights to work on", possible=False)
    if facts.quantized and (facts.untrainable or not trained):
        reason = f"the file is quantized already ({facts.quantized}): start from the float model it was made of"
        return Prospect("none here", reason, possible=False)
    return None


def _narrow_floats(scheme: Scheme, facts: ModelFacts) -> Prospect:
    after = facts.float_bytes - 2 * facts.parameters + _WIDENING_BYTES * facts.tensors
    return Prospect(
        f"{change(facts.float_bytes, after)}; no faster on a CPU",
        "weights are stored as float16 and widened when the file is loaded; a GPU computes with them as they are",
        size_bytes=after,
    )


# The operator that a weight of a kind becomes.
OPERATORS = {
    "dense": "FULLY_CONNECTED",
    "convolution": "CONV_2D",
    "pointwise": "CONV_2D",
    "depthwise": "DEPTHWISE_CONV_2D",
}


def _bits(scheme: Scheme, facts: ModelFacts) -> list[int]:
    """Returns the bits in which a scheme stores each of the weights; of those in its order the ends are fragile."""
    if not scheme.is_low_bit:
        return [scheme.weight_bits] * len(facts.weights)
    bits = []
    for place, weight in enumerate(facts.weights):
        # Before a float operator stands a DEQUANTIZE, which takes what Dense takes.
        behind = not scheme.dynamic and scheme.activations == "float32"
        # The steps of a loop are unrolled for integers, but those of an LSTM that is one operator.
        unrolled = weight.kind == "recurrent" and not (scheme.dynamic or facts.fused_lstm)
        operator = "FULLY_CONNECTED" if behind or unrolled else OPERATORS.get(weight.kind, "")
        activations = "float32" if scheme.dynamic else scheme.activations
        stays = not scheme.dynamic and eight_bits.fragile(
            first=place == 0,
            last=place == len(facts.weights) - 1,
            depthwise=weight.kind == "depthwise",
            elements=weight.elements,
        )
        bits.append(8 if stays else eight_bits.bits_for(operator, activations, scheme.weight_bits))
    return bits


def weight_bytes(scheme: Scheme, facts: ModelFacts) -> int:
    """Returns the bytes of all weights as a scheme stores them, without scales."""
    return round(sum(w.elements * bits / 8 for w, bits in zip(facts.weights, _bits(scheme, facts))))


def _stay(scheme: Scheme, facts: ModelFacts) -> list[str]:
    """Returns in words how much of the weights stays at eight bits."""
    stay = sum(w.elements for w, bits in zip(facts.weights, _bits(scheme, facts)) if bits == 8)
    share = stay / (facts.elements or 1)
    return [f"{share:.0%} of the weights stay at eight bits"] if scheme.is_low_bit and share > 0.005 else []


def _zero_points(weights: Iterable[WeightFacts]) -> int:
    return _ZERO_POINT_BYTES * sum({weight.channels for weight in weights})


def _weights_alone(scheme: Scheme, facts: ModelFacts) -> Prospect:
    channels = sum(w.channels for w in facts.weights)
    after = facts.float_bytes - 4 * facts.elements + weight_bytes(scheme, facts) + channels * _SCALE_BYTES
    after += _zero_points(facts.weights) + _WIDENING_BYTES * len(facts.weights)
    reasons = [*_stay(scheme, facts), "weights are widened to float32 at each inference; needs no data"]
    return Prospect(f"{change(facts.float_bytes, after)}; no faster", "; ".join(reasons), size_bytes=after)


def _dynamic(scheme: Scheme, facts: ModelFacts) -> Prospect:
    block = scheme.granularity_of_dense.partition(":")[2]
    large = [
        w
        for w, bits in zip(facts.weights, _bits(scheme, facts))
        if w.part_elements >= SMALLEST_DYNAMIC and not (scheme.is_low_bit and bits == 8)
    ]
    if not large:
        return Prospect(
            "none", f"nothing to gain: all weight tensors have under {SMALLEST_DYNAMIC} elements and stay float"
        )
    rows = sorted({w.elements // w.channels for w in large if block and w.kind == "dense" and w.channels})
    if unfit := [length for length in rows if length % int(block)]:
        return Prospect("none", f"rows of {unfit[0]} numbers do not divide into groups of {block}", possible=False)
    saved = sum(
        round((4 - scheme.weight_bits / 8) * w.elements)
        - (_BLOCK_SCALE_BYTES * w.elements // int(block) if block and w.kind == "dense" else _SCALE_BYTES * w.channels)
        for w in large
    )
    saved -= _zero_points(large)
    reasons = []
    small = 1 - sum(w.elements for w in large) / facts.elements
    if small > 0.005:
        reasons.append(f"{small:.0%} of the weights are in tensors under {SMALLEST_DYNAMIC} elements and stay float")
    if any(w.kind in ("dense", "recurrent", "attention") for w in large):
        reasons.append("Dense weights then need a runtime of TensorFlow Lite 2.17 or newer")
    if facts.macs_share("depthwise") > 0.02:
        reasons.append(
            f"activations are quantized at each inference, which depthwise layers ({facts.macs_share('depthwise'):.0%} "
            "of the MACs) rarely win back: measure it"
        )
    reasons.append("needs no data")
    after = facts.float_bytes - saved
    return Prospect(change(facts.float_bytes, after), "; ".join(reasons), size_bytes=after)


def _static(scheme: Scheme, facts: ModelFacts) -> Prospect:
    wide = scheme.activations == "int16"
    # Weights and biases have a scale for each channel; biases stood in 4 bytes before, and have twice the bits that a
    # product has.
    bias_bytes = 8 if wide else 4
    channels = sum(w.channels for w in facts.weights)
    weights = 4 * facts.elements - weight_bytes(scheme, facts)
    added = channels * (2 * _SCALE_BYTES + bias_bytes - 4) + _zero_points(facts.weights)
    after = facts.float_bytes - weights + added
    sizes = change(facts.float_bytes, after)
    stays = "".join(f"; {words}" for words in _stay(scheme, facts))
    if wide:
        if facts.fused_lstm and facts.untrainable:
            reason = "there is no 16x8 form of the fused LSTM operator: the Keras model's is unrolled for it"
            return Prospect("none", reason, possible=False)
        reason = "XNNPACK has no int16 kernels: much slower than int8 on phones and desktops; needs calibration data"
        gain = sizes if scheme.is_low_bit else f"{sizes}; nearly float accuracy"
        return Prospect(gain, f"{reason}{stays}", size_bytes=after)
    reason = "needs calibration data; the only scheme for most microcontrollers and NPUs"
    gain = f"{sizes}; integer kernels, usually the fastest"
    if scheme.is_low_bit:
        gain = f"{sizes}; about as fast as int8"
        reason = f"needs calibration data, and often repair or training for its accuracy{stays}"
    if facts.loops:
        loops = ", ".join(facts.loops)
        way = (
            "no quantizer takes: the Keras model's are unrolled" if facts.untrainable else "are unrolled: a larger file"
        )
        reason = f"{loops} become loops, which {way}; {reason}"
    return Prospect(gain, reason, size_bytes=after)
