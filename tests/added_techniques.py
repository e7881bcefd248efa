"""Two techniques as somebody adds them, each in its few lines: one on the model, one on the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeopt import graph
from edgeopt.choices import option
from edgeopt.data import Dataset, Part
from edgeopt.formats.contract import FileFacts
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.tflite.rewrite import with_metadata
from edgeopt.vocabulary import Promise, Scheme, StepRecord


@dataclass(frozen=True, kw_only=True)
class Coarsen(Step):
    """What may be said about it."""

    technique: ClassVar[str] = "coarsen"

    grid: float = option(0.25, "Weights become multiples of this.", above=0.0)


def coarsen(step: Coarsen, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Rounds every weight."""
    coarse = graph.flatten(model)
    weights = [np.round(w / step.grid) * step.grid for w in model.get_weights()]
    coarse.set_weights(weights)
    distinct = len(np.unique(weights[0]))
    promise = Promise("distinct weights", "head/kernel", limit=distinct, of=weights[0].size)
    return coarse, StepRecord(step.technique, step.said(), promises=(promise,))


def check_coarse(step: Coarsen, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Counts them in the file."""
    (kernel,) = (weight for weight in file.weights if weight.kind == "weights")
    return tuple(promise.found(kernel.unique or 0) for promise in record.promises)


def predict_coarse(step: Coarsen, facts: ModelFacts) -> Prospect:
    """Says what it brings."""
    return Prospect("fewer distinct weights", f"multiples of {step.grid:g}, of {facts.parameters} numbers")


COARSEN = Technique(
    "coarsen",
    "Round weights to a grid.",
    Coarsen,
    coarsen,
    check_coarse,
    predict_coarse,
    typical=Coarsen(),
    needs=frozenset(),
)


@dataclass(frozen=True, kw_only=True)
class Sign(Step):
    """What may be said about it."""

    technique: ClassVar[str] = "sign"

    name: str = option("somebody", "Who signs.")


def sign(step: Sign, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried) -> tuple[Path, StepRecord]:
    """Writes a name, the scheme and the number of samples into the file."""
    assert carried.converted is not None
    payload = f"{step.name}, {scheme.name}, {len(calibration)} samples".encode()
    signed = carried.folder / "signed.tflite"
    signed.write_bytes(with_metadata(carried.converted.read_bytes(), "SIGNED", payload))
    promise = Promise("bytes of metadata", limit=len(payload), bound="least")
    return signed, StepRecord(step.technique, step.said(), promises=(promise,))


def check_signed(step: Sign, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Looks at the bytes of its metadata."""
    return tuple(promise.found(file.bytes_by_kind["metadata"]) for promise in record.promises)


def predict_signed(step: Sign, facts: ModelFacts) -> Prospect:
    """Says what it brings."""
    return Prospect("none", "a name in the file")


def remarks_on_sign(step: Sign, earlier: Any, schemes: Any) -> Iterator[str]:
    """Says when it is pointless."""
    if any(isinstance(other, Sign) for other in earlier):
        yield "it is signed already"


SIGN = Technique(
    "sign",
    "Write a name into the file.",
    Sign,
    sign,
    check_signed,
    predict_signed,
    typical=Sign(),
    acts_on="file",
    needs=frozenset({Need.CALIBRATION, Need.SCHEME}),
    remarks=remarks_on_sign,
)


def install() -> None:
    """Adds both to the table of this process: a worker's."""
    from edgeopt.techniques import TECHNIQUES

    TECHNIQUES.update({row.name: row for row in (COARSEN, SIGN)})
