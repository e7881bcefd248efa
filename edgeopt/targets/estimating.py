"""How long an inference takes on a target: a Target and a TFLiteModel go in; milliseconds and how they were found, out.

"measured" ran here; "simulated" is a vendor's model of the hardware; "estimated" is cycles for each
multiply-accumulate, from published figures, times those of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt import files, runtimes
from edgeopt.compilers import COMPILERS, compile_content, compiled_by
from edgeopt.compilers.contract import Compiled
from edgeopt.errors import EdgeoptError
from edgeopt.runtimes.samples import generated
from edgeopt.targets.judging import arithmetic
from edgeopt.targets.model import Target
from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.model import TFLiteModel

_HOW = {"measured": "measured", "compiler": "simulated", "cycles": "estimated", "adb": "", "none": ""}
_RUNS = 20


@dataclass(frozen=True)
class OperatorEstimate:
    """An operator's share of the time.

    Attributes:
        layer: name of the tensor it writes.
        latency_ms: None where it is not known.
    """

    operator: str
    layer: str
    macs: int
    latency_ms: float | None


@dataclass(frozen=True)
class Estimate:
    """Time of one inference.

    Attributes:
        latency_ms: None where it cannot be told here; `notes` say why.
        how: "measured", "simulated", "estimated", or "" where there is none.
        operators: those with a time or multiply-accumulates, in the order they run.
    """

    latency_ms: float | None
    how: str
    operators: tuple[OperatorEstimate, ...] = ()
    notes: tuple[str, ...] = ()


def how(target: Target) -> str:
    """Returns how the target's latencies are found here: "measured", "simulated", "estimated", or "" for not at all."""
    return _HOW[target.latency.kind]


def compiled_for(target: Target, content: bytes) -> Compiled | None:
    """Returns what the target's compiler makes of a file, None where the target runs files as they are.

    Raises:
        UnavailableError: the compiler is not installed.
        ConversionError: it refuses the file.
    """
    if not target.compiler:
        return None
    return compile_content(content, COMPILERS[target.compiler], target.compiler_settings)


def estimate(target: Target, model: TFLiteModel, *, compiled: Compiled | None = None) -> Estimate:
    """Returns the time of one inference on `target`.

    Args:
        target: the device.
        model: the file.
        compiled: what the target's compiler made of it, where that is known already.

    Raises:
        UnavailableError: the compiler is needed and not installed.
        ConversionError: the compiler refuses the file.
    """
    if target.latency.kind == "compiler":
        if before := compiled_by(operator.name for operator in model.main.operators):
            note = f"{before.title} compiled this file already: the file that it was made of tells its time"
            return Estimate(None, "", notes=(note,))
        made = compiled or compiled_for(target, model.content.tobytes())
        return _simulated(made) if made is not None else Estimate(None, "")
    if target.latency.kind == "measured":
        return _measured(target, model)
    if target.latency.kind == "cycles":
        return _estimated(target, model)
    if target.latency.kind == "adb":
        return Estimate(None, "", notes=("measure it on a phone: edgeopt benchmark FILE --device adb",))
    return Estimate(None, "", notes=("no published figures are known to estimate from: measure it on the device",))


def _simulated(compiled: Compiled) -> Estimate:
    figures = compiled.figures
    operators = tuple(OperatorEstimate(row.operator, row.name, row.macs, row.latency_ms) for row in compiled.layers)
    if figures is None:
        return Estimate(None, "", operators, ("the compiler tells no time: measure it on the device",))
    if not figures.accelerated_operators:
        return Estimate(None, "", operators, figures.notes)
    return Estimate(figures.latency_ms, "simulated", operators, figures.notes)


def _measured(target: Target, model: TFLiteModel) -> Estimate:
    with files.temporary(model.content.tobytes(), "model.tflite") as file:
        runtime = runtimes.parse(target.runtimes[0]).runtime
        try:
            session = runtimes.isolated(file, runtime)
        except EdgeoptError as error:
            return Estimate(None, "", notes=(str(error),))
        try:
            sample = generated(session.inputs, seed=0, indices=session.indices)
            session.invoke_ns(sample, runs=_RUNS)
            times = session.invoke_ns(sample, runs=_RUNS)
        finally:
            session.close()
    return Estimate(float(np.median(times)) / 1e6, "measured", notes=(f"on {runtime.name}, one thread, {_RUNS} runs",))


def _estimated(target: Target, model: TFLiteModel) -> Estimate:
    rates = {"float32": target.latency.float32, "int8": target.latency.int8, "int16x8": target.latency.int16x8}
    assert target.latency.clock_hz is not None  # LatencyModel sees to it
    rows, unknown = [], set()
    for operator in model.main.operators:
        macs = operator_macs(model.main, operator)
        if not macs:
            continue
        kind = arithmetic(model.main, operator)
        known = rates.get(kind, {})
        # Kernels of other operators are built like the convolution's.
        cycles = known.get(operator.name, known.get("CONV_2D"))
        if cycles is None:
            unknown.add(kind)
        result = model.main.result(operator)
        time_ms = None if cycles is None else 1e3 * macs * cycles / target.latency.clock_hz
        rows.append(OperatorEstimate(operator.name, "" if result is None else result.name, macs, time_ms))
    if unknown:
        kinds = ", ".join(sorted(unknown))
        why = f"no published figures for {kinds} on {target.name} are known: measure it on the device"
        return Estimate(None, "", tuple(rows), (why,))
    notes = [f"estimated from published figures: `edgeopt targets {target.name}` says which, and how far off they are"]
    if len(rows) < len(model.main.operators):
        notes.append("operators without multiply-accumulates are not counted")
    if count_macs(model).loops:
        notes.append("loops are not counted: the file does not tell how often they run")
    return Estimate(sum(row.latency_ms or 0.0 for row in rows), "estimated", tuple(rows), tuple(notes))
