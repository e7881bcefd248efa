"""Everything that can be said of a file on a target: a Target and a TFLiteModel go in, one Assessment comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.compilers.vela import Compiled, Figures, compile_file, is_compiled
from edgeopt.errors import UnavailableError
from edgeopt.targets.estimating import Estimate, accelerator, estimate
from edgeopt.targets.fitting import Fit, fit, memory
from edgeopt.targets.judging import Verdict, judge, on_cpu, refusal
from edgeopt.targets.model import Target
from edgeopt.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Assessment:
    """A file on a target.

    Attributes:
        runs: whether the target takes the file and has room for it.
        refusals: why it does not take it, in words.
        memory_how: "measured", "simulated" or "estimated".
        operators: a verdict for each operator and arithmetic.
        techniques: what each brings there, in words.
        npu: Vela's figures, where the target has an Ethos-U that takes the file.
    """

    target: str
    summary: str
    runs: bool
    refusals: tuple[str, ...]
    fit: Fit
    memory_how: str
    estimate: Estimate
    operators: tuple[Verdict, ...]
    techniques: Mapping[str, str]
    npu: Figures | None = None
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it does not run there, in words, what it is refused for before its size; empty where it does."""
        return self.refusals or self.fit.problems


def assess(target: Target, model: TFLiteModel, *, compiled: Compiled | None = None) -> Assessment:
    """Returns all that is known of a file on `target`; where Vela is needed and not here, without its figures.

    Raises:
        ConversionError: Vela dies on a file that it should take.
    """
    refusals, chip = refusal(target, model), accelerator(target)
    missing: tuple[str, ...] = ()
    if chip is not None and compiled is None and not refusals and not is_compiled(model):
        try:
            compiled = compile_file(model.content.tobytes(), chip)
        except UnavailableError as error:
            missing = (str(error),)
    guess = Estimate(None, "", notes=missing) if refusals or missing else estimate(target, model, compiled=compiled)
    needs = memory(target, model, compiled=compiled)
    room = fit(target, flash_bytes=needs.flash_bytes, ram_bytes=needs.ram_bytes, peak=needs.peak)
    return Assessment(
        target.name,
        target.summary,
        not refusals and room.fits,
        refusals,
        room,
        needs.how,
        guess,
        on_cpu(judge(target, model), compiled.figures.on_cpu if compiled else ()),
        target.techniques,
        compiled.figures if compiled else None,
        target.notes,
    )
