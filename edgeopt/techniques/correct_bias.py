"""Biases that make up for what rounding shifts: a quantized file goes in, one right on average comes out.

What a layer gets on average is told by samples or, where there are too few, by the model's batch normalizations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.choices import option
from edgeopt.errors import ModelError, setting
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques import repairs
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.repairing.biases import Correction
    from edgeopt.repairing.expectations import Expected

# Of which the first layers' inputs are taken, at most.
SAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class CorrectBias(Step):
    """What may be said about it."""

    technique: ClassVar[str] = "correct-bias"

    by: str = option(
        "auto",
        "What tells how far channels are off: samples, or the statistics of the model's batch normalizations, which "
        "take next to none; auto: these where samples are too few.",
        choices=("auto", "samples", "batchnorm"),
    )


def apply(
    step: CorrectBias, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried
) -> tuple[Path, StepRecord]:
    """Returns the file with corrected biases, or as it was where that does not bring it nearer.

    By samples, two thirds of them say how far each channel is off, the rest what its correction brought. By batch
    normalizations all samples that there are say that.

    Raises:
        DataError: there are too few samples to tell.
        ModelError: LiteRT does not run one of the files, or there are no batch normalizations to go by.
    """
    from edgeopt import files
    from edgeopt.repairing import closeness
    from edgeopt.repairing.biases import corrected, corrected_by
    from edgeopt.repairing.expectations import inputs_of
    from edgeopt.repairing.holding_out import LEAST, divided

    assert carried.converted is not None
    few = len(calibration) < LEAST
    known = _expected(carried, calibration) if step.by == "batchnorm" or (step.by == "auto" and few) else ()
    if step.by == "batchnorm" and not known:
        raise ModelError(
            "Expected a model with batch normalizations that tell what its layers get, got none. "
            f"Try {setting('by', 'samples')}."
        )
    if known:
        held_out, notes = calibration, ["by the statistics of the model's batch normalizations"]
        content, corrections = corrected_by(float_file, carried.converted, lambda weights: inputs_of(known, weights))
    else:
        seen, held_out = divided(calibration, step.technique)
        notes = []
        content, corrections = corrected(float_file, carried.converted, seen, carried.folder)
    output = carried.folder / "corrected.tflite"
    files.atomic_write(output, content)
    changed = any(one.bias.any() for one in corrections)
    found = closeness.compared(float_file, held_out, before=carried.converted, after=output)
    kept = found.after < found.before
    words = found.words
    if not kept:
        words = f"biases are as they were: {found.words if changed else _nothing(corrections)}"
        files.atomic_write(output, carried.converted.read_bytes())
    layers = (_told(one, kept=kept) for one in corrections)
    return output, StepRecord(
        step.technique,
        step.said(),
        layers=tuple(layers),
        promises=(found.promise,) if kept else (),
        notes=(words, *notes),
    )


def _expected(carried: Carried, calibration: Part) -> tuple[Expected, ...]:
    """Returns what the layers of the model that the file was converted from get on average, where it can be told.

    Few samples hold many pixels: what reaches the first layers is theirs.
    """
    from edgeopt.loading import load_model
    from edgeopt.repairing.expectations import expectations
    from edgeopt.techniques.samples import some_inputs

    assert carried.source is not None
    loaded = load_model(carried.source, custom_objects=carried.custom_objects, trust=carried.trust)
    if loaded.keras is None or not any(hasattr(layer, "moving_mean") for layer in loaded.keras.layers):
        return ()
    return expectations(loaded.keras, some_inputs(loaded.keras, calibration, SAMPLES, seed=carried.seed))


def _told(one: Correction, *, kept: bool) -> LayerChange:
    if one.reason:
        return LayerChange(one.layer, one.kind, reason=one.reason)
    if not one.bias.any():
        return LayerChange(one.layer, one.kind, reason="off by less than the samples can tell")
    if not kept:
        return LayerChange(one.layer, one.kind, reason="its correction brought the outputs no nearer")
    return LayerChange(one.layer, one.kind, done=one.words)


def _nothing(corrections: Sequence[Correction]) -> str:
    if not corrections or all(one.reason for one in corrections):
        return "no layer could be corrected"
    return "no channel is off by more than the samples can tell"


def predict(step: CorrectBias, facts: ModelFacts) -> Prospect:
    """Returns what corrected biases will bring."""
    return Prospect(
        "less loss of accuracy where rounding shifts whole channels; as many bytes, as fast",
        "most with one scale a layer, few bits and depthwise layers; where nothing is won, biases stay as they are",
    )


TECHNIQUE = Technique(
    "correct-bias",
    "Make up in the biases for what rounding shifts on average.",
    CorrectBias,
    apply,
    repairs.check,
    predict,
    typical=CorrectBias(),
    acts_on="file",
    needs=frozenset({Need.CALIBRATION, Need.SCHEME}),
    keeps=frozenset(Property),
    repairs=True,
    remarks=repairs.remarks,
    fits=repairs.fits,
    why_unfit=repairs.WHY_UNFIT,
)
