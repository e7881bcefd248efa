"""Biases that make up for what rounding shifts: a quantized file and samples go in, one right on average comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques import repairs
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.repairing.biases import Correction


@dataclass(frozen=True, kw_only=True)
class CorrectBias(Step):
    """What may be said about it: nothing but what every step has."""

    technique: ClassVar[str] = "correct-bias"


def apply(
    step: CorrectBias, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried
) -> tuple[Path, StepRecord]:
    """Returns the file with corrected biases, or as it was where that does not bring it nearer.

    Two thirds of the samples say how far each channel is off, the rest what its correction brought.

    Raises:
        DataError: there are too few samples to tell.
        ModelError: LiteRT does not run one of the files.
    """
    from edgeopt import files
    from edgeopt.repairing import closeness
    from edgeopt.repairing.biases import corrected
    from edgeopt.repairing.holding_out import divided

    assert carried.converted is not None
    seen, held_out = divided(calibration, step.technique)
    content, corrections = corrected(float_file, carried.converted, seen, carried.folder)
    output = carried.folder / "corrected.tflite"
    files.atomic_write(output, content)
    found = closeness.compared(float_file, held_out, before=carried.converted, after=output)
    changed = any(one.bias.any() for one in corrections)
    notes = [found.words]
    kept = found.after < found.before
    if not kept:
        notes = [f"biases are as they were: {found.words if changed else _nothing(corrections)}"]
        files.atomic_write(output, carried.converted.read_bytes())
    layers = (_told(one, kept=kept) for one in corrections)
    return output, StepRecord(
        step.technique,
        step.said(),
        layers=tuple(layers),
        promises=(found.promise,) if kept else (),
        notes=tuple(notes),
    )


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
