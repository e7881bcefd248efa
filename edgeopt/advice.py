"""What is known of a model goes in; what each scheme and each technique would bring to it comes out."""

from __future__ import annotations

from edgeopt.conversion.unconvertible import in_no_scheme, unconvertible
from edgeopt.prospects import Advice, ModelFacts, Prospect, change
from edgeopt.schemes import SCHEMES, SMALLEST_DYNAMIC
from edgeopt.techniques import TECHNIQUES
from edgeopt.vocabulary import Scheme

# A float32 for each channel; the zero points are alike and stored once.
_SCALE_BYTES = 4
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
    make = _dynamic if scheme.dynamic else _static if scheme.algorithm else _narrow_floats
    prospect = make(scheme, facts)
    if prospect.possible and facts.foreign:
        doubt = f"whether the converter takes {', '.join(facts.foreign)}, which is not Keras's own, is not known"
        return Prospect(prospect.gain, f"{doubt}; {prospect.reason}", possible=None)
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
    )


def _dynamic(scheme: Scheme, facts: ModelFacts) -> Prospect:
    large = [w for w in facts.weights if w.part_elements >= SMALLEST_DYNAMIC]
    if not large:
        return Prospect(
            "none", f"nothing to gain: all weight tensors have under {SMALLEST_DYNAMIC} elements and stay float"
        )
    saved = sum(round((4 - scheme.weight_bits / 8) * w.elements) - _SCALE_BYTES * w.channels for w in large)
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
    return Prospect(change(facts.float_bytes, facts.float_bytes - saved), "; ".join(reasons))


def _static(scheme: Scheme, facts: ModelFacts) -> Prospect:
    wide = scheme.activations == "int16"
    # Weights and biases have a scale for each channel; biases stood in 4 bytes before, and have twice the bits that a
    # product has.
    bias_bytes = 8 if wide else 4
    channels = sum(w.channels for w in facts.weights)
    weights = round((4 - scheme.weight_bits / 8) * facts.elements)
    sizes = change(facts.float_bytes, facts.float_bytes - weights + channels * (2 * _SCALE_BYTES + bias_bytes - 4))
    if wide:
        if facts.fused_lstm and facts.untrainable:
            reason = "there is no 16x8 form of the fused LSTM operator: the Keras model's is unrolled for it"
            return Prospect("none", reason, possible=False)
        return Prospect(
            f"{sizes}; nearly float accuracy",
            "XNNPACK has no int16 kernels: much slower than int8 on phones and desktops; needs calibration data",
        )
    reason = "needs calibration data; the only scheme for most microcontrollers and NPUs"
    if facts.loops:
        loops = ", ".join(facts.loops)
        way = (
            "no quantizer takes: the Keras model's are unrolled" if facts.untrainable else "are unrolled: a larger file"
        )
        reason = f"{loops} become loops, which {way}; {reason}"
    return Prospect(f"{sizes}; integer kernels, usually the fastest", reason)
