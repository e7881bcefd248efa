"""Other ranges for a quantized file: it and samples go in, the file with the ranges that bring it nearest comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques import repairs
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Property, Scheme, StepRecord

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.data import Part


@dataclass(frozen=True, kw_only=True)
class Calibrate(Step):
    """What may be said about ranges."""

    technique: ClassVar[str] = "calibrate"

    activations: str = option(
        "auto",
        "How far activations reach; auto takes for each what brings the outputs nearest to the float file's.",
        choices=("auto", "keep", "min-max", "percentile", "mse", "entropy"),
        tried=("auto", "percentile", "mse"),
    )
    weights: str = option(
        "auto",
        "The same for weights; those that were rounded with more care than to the nearest integer are kept.",
        choices=("auto", "keep", "min-max", "mse", "octav"),
    )
    percentile: float = option(
        99.99,
        "Share of all values in the range of a percentile, in per cent.",
        above=50.0,
        high=100.0,
        hint="99.9",
        tried=(99.0, 99.9, 99.99),
        only_with=("activations", "percentile"),
    )


def apply(
    step: Calibrate, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried
) -> tuple[Path, StepRecord]:
    """Returns the file with other ranges, or as it was where none that it may choose is shown to bring it nearer.

    Two thirds of the samples set ranges and choose among them, the rest say what that brought.

    Raises:
        DataError: there are too few samples to tell.
        ModelError: LiteRT does not run one of the files.
    """
    from edgeopt import files
    from edgeopt.repairing import closeness
    from edgeopt.repairing.holding_out import divided
    from edgeopt.repairing.places import places
    from edgeopt.repairing.search import search

    assert carried.converted is not None
    seen, held_out = divided(calibration, step.technique)
    wanted = {"activations": step.activations, "weights": step.weights}
    there = places(
        float_file,
        carried.converted,
        seen,
        activations=step.activations != "keep",
        weights=step.weights != "keep",
        percentile=step.percentile / 100,
    )
    output = carried.folder / "calibrated.tflite"

    def written(chosen: Mapping[str, str]) -> Path | None:
        content = there.with_choices(chosen)
        if content is not None:
            files.atomic_write(output, content)
        return None if content is None else output

    said = {name: wanted[place.what] for name, place in there.found.items() if wanted[place.what] in place.kinds}
    free = {name: place.kinds for name, place in there.found.items() if wanted[place.what] == "auto"}
    chosen = dict(said)
    if free:
        some = closeness.held_at_once(float_file, seen)
        floating = closeness.reference(float_file, some)

        def measure(choices: Mapping[str, str]) -> np.ndarray | None:
            file = written({**said, **choices})
            return None if file is None else closeness.errors(floating, file, some)

        chosen |= search(free, measure)
    found = closeness.compared(
        float_file, held_out, before=carried.converted, after=written(chosen) or carried.converted
    )
    notes = [found.words]
    if free and found.after >= found.before:
        notes = [f"ranges are as they were: {found.words}"] if chosen else ["no other range is shown to be better"]
        chosen = {}
    if not chosen:
        files.atomic_write(output, carried.converted.read_bytes())
    layers = (
        *(
            LayerChange(name, there.found[name].what, done=there.found[name].words(kind))
            for name, kind in chosen.items()
        ),
        *(LayerChange(name, "range", reason=why) for name, why in there.left.items()),
    )
    return output, StepRecord(
        step.technique, step.said(), layers=layers, promises=(found.promise,) if chosen else (), notes=tuple(notes)
    )


def predict(step: Calibrate, facts: ModelFacts) -> Prospect:
    """Returns what other ranges will bring."""
    return Prospect(
        "less loss of accuracy where few values reach far; as many bytes, as fast",
        "chosen by what the outputs lose: where nothing is won, ranges stay as they are",
    )


def suits(scheme: Scheme, facts: ModelFacts) -> str:
    """Says why other ranges cannot help."""
    if scheme.activations == "int16" and scheme.weight_bits == 8:
        return "int16 activations and int8 weights lose next to nothing to their ranges"
    return ""


TECHNIQUE = Technique(
    "calibrate",
    "Choose the ranges of integers by what the outputs lose.",
    Calibrate,
    apply,
    repairs.check,
    predict,
    typical=Calibrate(),
    acts_on="file",
    needs=frozenset({Need.CALIBRATION, Need.SCHEME}),
    keeps=frozenset(Property),
    repairs=True,
    suits=suits,
    remarks=repairs.remarks,
    fits=repairs.fits,
    why_unfit=repairs.WHY_UNFIT,
)
