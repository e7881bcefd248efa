"""Activation-aware scaling: a model goes in; the same function with weights that lose less in few bits comes out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.equalizing.awareness import Scaled, Site
    from edgeopt.formats.contract import FileFacts

# Samples that outputs are compared on, and how far those of the same function may lie apart, as a share of their range.
COMPARED = 32
SAME = 1e-4
_OUTPUTS, _OFF = "relative difference of the outputs", "error of layers in few bits"
_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
_ATTENTIONS = ("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention")


@dataclass(frozen=True, kw_only=True)
class Awq(Step):
    """What may be said about scaling by activations."""

    technique: ClassVar[str] = "awq"

    bits: int = option(4, "Of the weights that it is done for.", low=2, high=8)
    group: int = option(
        32, "Weights in a row that share a scale, as in int4-block32; 0 for one a channel.", low=0, high=4096
    )
    samples: int = option(128, "Calibration samples to choose by, at most.", low=1, high=100_000)


def apply(step: Awq, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Multiplies weights that meet large activations, and divides what makes these; see contract.Apply."""
    from edgeopt import graph, keras_bridge
    from edgeopt.chance import seed_for
    from edgeopt.equalizing import answers
    from edgeopt.equalizing.awareness import scale
    from edgeopt.techniques.samples import input_batches, some_inputs

    start = time.perf_counter()
    inputs = some_inputs(model, data.calibration, COMPARED, seed=carried.seed)
    few = data.calibration.take(step.samples, seed=seed_for(carried.seed, "samples to scale by"))
    ready = graph.flatten(model)
    before = answers(ready, inputs)
    done, left = scale(ready, lambda: input_batches(ready, few), bits=step.bits, group=step.group)
    apart = max(keras_bridge.relative_difference(one, other) for one, other in zip(before, answers(ready, inputs)))
    promises = [Promise(_OUTPUTS, limit=SAME).found(apart, note=f"{len(inputs[0])} calibration samples")]
    promises += [Promise(_OFF, one.site.name, limit=100 * one.before, unit="%").found(100 * one.after) for one in done]
    notes: tuple[str, ...] = ()
    if not done:
        notes = ("nothing was scaled: the model has no channels that linear layers alone read",)
    elif not any(one.power for one in done):
        notes = ("nothing was scaled: no channels meet so much larger activations than the rest that it pays",)
    record = StepRecord(
        step.technique,
        step.said(),
        layers=tuple(_layers(done, left, step.bits)),
        promises=tuple(promises),
        seconds=time.perf_counter() - start,
        notes=notes,
    )
    return ready, record


def check(step: Awq, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises: both were measured on the model, whose weights no file holds as they are."""
    return record.promises


def predict(step: Awq, facts: ModelFacts) -> Prospect:
    """Returns what the step will bring, before any data is seen."""
    known = {*facts.layers, *facts.kinds}
    if known.isdisjoint((*_NORMALIZATIONS, *_ATTENTIONS, "Dense")):
        return Prospect("none", "it takes layers that normalize, attend or are dense", possible=False)
    if known.isdisjoint((*_NORMALIZATIONS, *_ATTENTIONS)):
        return Prospect("little", "only channels from one Dense layer to the next can be scaled")
    return Prospect(
        "less loss with weights of few bits; as many bytes, as fast",
        "some of a language model's activations are many times larger than the rest; needs no labels and no training, "
        "and the float model stays the same function",
    )


def suits(scheme: Scheme, facts: ModelFacts) -> str:
    """Returns why it cannot help in a scheme."""
    if not scheme.algorithm:
        return "nothing is quantized"
    if scheme.needs_calibration:
        return "it evens out what weights lose, and makes what activations lose no less"
    if not scheme.is_low_bit:
        return "of 8 bits with a scale for each channel there is next to nothing to win back"
    if {*facts.layers, *facts.kinds}.isdisjoint((*_NORMALIZATIONS, *_ATTENTIONS)):
        return "no layer normalizes or attends"
    return ""


def remarks(step: Awq, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields why it is pointless in these schemes."""
    quantized = [scheme for scheme in schemes if scheme.algorithm]
    if quantized and not any(scheme.is_low_bit for scheme in quantized):
        yield "no scheme has weights of fewer than 8 bits: there is next to nothing to win back"


def _layers(done: Sequence[Scaled], left: Sequence[Site], bits: int) -> Iterator[LayerChange]:
    for one in done:
        if one.power:
            said = f"power {one.power:.2f}: error with {bits} bits {one.before:.3%} → {one.after:.3%}"
            yield LayerChange(one.site.name, one.site.kind, said)
        else:
            reason = f"no power is worth it: error with {bits} bits {one.before:.3%}"
            yield LayerChange(one.site.name, one.site.kind, reason=reason)
    for site in left:
        yield LayerChange(site.name, site.kind, reason=site.reason)


TECHNIQUE = Technique(
    "awq",
    "Scale language models' weights: few bits then lose less.",
    Awq,
    apply,
    check,
    predict,
    typical=Awq(),
    needs=frozenset({Need.CALIBRATION}),
    keeps=frozenset({Property.SPARSE}),
    repairs=True,
    remarks=remarks,
    suits=suits,
)
