"""How long an inference takes on a target: a Target and a TFLiteModel go in; milliseconds and how they were found, out.

"measured" ran here; "simulated" is a vendor's model of the hardware; "estimated" is cycles for each
multiply-accumulate, from published figures, times those of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt import files, runtimes
from edgeopt.compilers.vela import Accelerator, Compiled, compile_file, is_compiled
from edgeopt.errors import EdgeoptError
from edgeopt.runtimes.samples import generated
from edgeopt.targets.judging import arithmetic
from edgeopt.targets.model import Target
from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.model import TFLiteModel

_HOW = {"measured": "measured", "vela": "simulated", "cycles": "estimated", "adb": "", "none": ""}
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


def accelerator(target: Target) -> Accelerator | None:
    """Returns the Ethos-U of the target, None where it has none."""
    model = target.latency
    return Accelerator(model.accelerator, model.system, model.memory_mode) if model.kind == "vela" else None


def estimate(target: Target, model: TFLiteModel, *, compiled: Compiled | None = None) -> Estimate:
    """Returns the time of one inference on `target`.

    Args:
        target: the device.
        model: the file.
        compiled: what Vela made of it, where that is known already.

    Raises:
        UnavailableError: Vela is needed and not installed.
        ConversionError: Vela refuses the file.
    """
    chip = accelerator(target)
    if chip is not None and is_compiled(model):
        return Estimate(None, "", notes=("Vela compiled this file already: the int8 file before it tells its cycles",))
    if chip is not None:
        return _simulated(compiled or compile_file(model.content.tobytes(), chip))
    if target.latency.kind == "measured":
        return _measured(target, model)
    if target.latency.kind == "cycles":
        return _estimated(target, model)
    if target.latency.kind == "adb":
        return Estimate(None, "", notes=("measure it on a phone: edgeopt benchmark FILE --device adb",))
    return Estimate(None, "", notes=("no published figures are known to estimate from: measure it on the device",))


def _simulated(compiled: Compiled) -> Estimate:
    figures = compiled.figures
    operators = tuple(
        OperatorEstimate(
            layer.operator, layer.name, layer.macs, 1e3 * layer.cycles / figures.clock_hz if layer.on_npu else None
        )
        for layer in compiled.layers
    )
    if not figures.npu_operators:
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
            sample = generated(session.inputs, seed=0)
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
