"""What techniques have in common that bring a quantized file nearer to its float model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeopt.steps import Step
from edgeopt.vocabulary import Promise, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.formats.contract import FileFacts

WHY_UNFIT = "nothing in it is rounded to integers"


def check(step: Step, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises: the step measured them in this very file, on LiteRT."""
    return record.promises


def remarks(step: Step, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Says that a file whose rounding was trained is nearest to what was trained as it is."""
    if any(other.technique == "qat" for other in earlier):
        yield f"after qat the model computes with its rounding: {step.technique} finds next to nothing to mend"


def fits(step: Step, scheme: Scheme) -> bool:
    """Whether a scheme has ranges of integers."""
    return bool(scheme.algorithm)
