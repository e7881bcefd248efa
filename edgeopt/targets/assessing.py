"""Everything that can be said of a file on a target: a Target and a TFLiteModel go in, one Assessment comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.compilers import compiled_by
from edgeopt.compilers.contract import Compiled, Figures
from edgeopt.errors import UnavailableError
from edgeopt.targets.estimating import Estimate, compiled_for, estimate
from edgeopt.targets.fitting import Fit, fit, memory
from edgeopt.targets.judging import Verdict, judge, on_cpu, refusal
from edgeopt.targets.model import Target
from edgeopt.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Assessment:
    """A file on a target.

    Attributes:
        runs: whether the target takes the file and has room for it; None where that is not known of an operator.
        refusals: why it does not take it, in words.
        memory_how: "measured", "simulated" or "estimated".
        operators: a verdict for each operator and arithmetic.
        techniques: what each brings there, in words.
        compiled: what the target's compiler says of the file, where it has one that takes it.
    """

    target: str
    summary: str
    runs: bool | None
    refusals: tuple[str, ...]
    fit: Fit
    memory_how: str
    estimate: Estimate
    operators: tuple[Verdict, ...]
    techniques: Mapping[str, str]
    compiled: Figures | None = None
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it does not run there, in words, what it is refused for before its size; empty where it does."""
        return self.refusals or self.fit.problems


def assess(target: Target, model: TFLiteModel, *, compiled: Compiled | None = None) -> Assessment:
    """Returns all that is known of a file on `target`; where a compiler is needed and not here, without its figures.

    Raises:
        ConversionError: the compiler dies on a file that it should take.
    """
    refusals = refusal(target, model)
    missing: tuple[str, ...] = ()
    if compiled is None and not refusals and compiled_by(o.name for o in model.main.operators) is None:
        try:
            compiled = compiled_for(target, model.content.tobytes())
        except UnavailableError as error:
            missing = (str(error),)
    guess = Estimate(None, "", notes=missing) if refusals or missing else estimate(target, model, compiled=compiled)
    needs = memory(target, model, compiled=compiled)
    room = fit(target, flash_bytes=needs.flash_bytes, ram_bytes=needs.ram_bytes, peak=needs.peak)
    figures = None if compiled is None else compiled.figures
    verdicts = on_cpu(judge(target, model), figures.on_cpu if figures else ())
    runs = None if any(row.verdict == "unknown" for row in verdicts) else True
    if refusals or not room.fits:
        runs = False
    return Assessment(
        target.name,
        target.summary,
        runs,
        refusals,
        room,
        needs.how,
        guess,
        verdicts,
        target.techniques,
        figures,
        target.notes,
    )
