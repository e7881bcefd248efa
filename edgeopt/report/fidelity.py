"""How faithful a file is, in words: a Fidelity goes in; a line that sums it up, its problems and ways out come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgeopt.report.words import p_value, printable, whole
from edgeopt.vocabulary import Fidelity, InputComponent, MetricValue, OutputComponent, Problem

# Of a long list.
_SHOWN = 3
_EQUAL = "the same outputs"

# What mends a fault, by the keys of `Problem.ways_out`; each was tried on the kind of fault it is named for.
WAYS_OUT: dict[str, str] = {
    "normalize-outside": "take the normalization out of the model and feed it normalized values",
    "split": "give each kind of value an output of its own",
    "scale": "let the model give targets scaled to like spreads around 0, and scale them back outside of it",
    "integers": "give the model an integer input for them, which stays as it is",
    "calibrate": "calibrate with samples that are like the real ones",
    "int16x8": "--scheme int16x8",
    "dynamic": "--scheme dynamic, which keeps outputs in float",
    "float16": "--scheme float16",
    "float32": "--scheme float32",
    "repair": "`edgeopt repair` in the same scheme, where that was not done",
    "trace": "let `edgeopt compare` name the layer, with the float32 file as its reference",
}


def summary(found: Fidelity) -> str:
    """Returns "beside float32 on 300 samples: SQNR 42.7 dB, same class 99.7 %, top1 98.33 % (float32 98.67 %)"."""
    words = [_loudness(found)]
    agreements = [output.agreement for output in found.outputs if output.agreement is not None]
    if agreements and words[0] != _EQUAL:
        words.append(f"same class {_percent(min(one.value for one in agreements), 1)}")
    if found.metric is not None and found.reference_metric is not None:
        name, theirs = printable(found.metric.name), _value(found.reference_metric)
        words.append(f"{name} {_value(found.metric)} (float32 {theirs})")
    return f"beside float32 on {_samples(found)}: {', '.join(words)}"


def problem(told: Problem, found: Fidelity) -> str:
    """Returns what is lost, why, and what to try, in one or two sentences."""
    ways = [WAYS_OUT[way] for way in told.ways_out]
    remedy = f" Try one of: {'; '.join(ways)}." if len(ways) > 1 else f" Try: {ways[0]}." if ways else ""
    why = "" if told.what == "whole-numbers" else _why(told, found)
    return f"{_lost(told, found)}{why}.{remedy}"


def _lost(told: Problem, found: Fidelity) -> str:
    output = f"output {printable(told.output)!r}"
    if told.what == "score" and found.metric is not None and found.reference_metric is not None:
        doubt = found.difference.p_value if found.difference is not None else None
        tested = "" if doubt is None else f", {p_value(doubt)}"
        name = printable(found.metric.name)
        theirs = _value(found.reference_metric)
        return f"{name} is {_value(found.metric)} where the float model's is {theirs} ({_samples(found)}{tested})"
    if told.what == "whole-numbers":
        return (
            f"input {printable(told.input)!r} holds whole numbers, as rows of a table, and the rounding to its steps "
            f"makes {_percent(told.measured, 1)} of its values another one"
        )
    if told.what == "classes":
        return f"{output} decides as the float model's does for only {_percent(told.measured, 1)} of {_samples(found)}"
    if told.what == "not-finite":
        return f"{whole(told.measured)} values of {output} are not finite where the float model's are"
    if told.what == "step":
        levels = max((one.levels for one in told.components if one.levels is not None), default=None)
        kept = "" if levels is None else f"keep {levels} levels of 256: they "
        return f"scores ({_components(told.components)} of {output}) {kept}are told in steps of {told.measured:.3g}"
    if not told.components:
        return f"the error of {output} is {_times(told.measured)} its spread"
    plural = len(told.components) > 1
    return (
        f"the error{'s' if plural else ''} of {_components(told.components)} of {output} "
        f"{'are up to' if plural else 'is'} {_times(told.measured)} {'their spreads' if plural else 'its spread'}"
    )


def _why(told: Problem, found: Fidelity) -> str:
    if told.cause == "inside":
        return ", and neither its inputs' nor its outputs' quantization alone does that" if _quantized(found) else ""
    where = f"input {printable(told.input)!r}"
    if told.cause == "range":
        if told.input:
            return f": {_share(told.columns)} of {where} lies outside of what calibration saw"
        return f": {_share(told.components)} of the values lie outside of what calibration saw"
    if told.cause == "input":
        if not told.columns:
            return f": the rounding of {where} alone does that"
        least = min(told.columns, key=lambda one: one.steps)
        others = [one.index for one in told.columns if one is not least]
        beside = f", and less than a step is left of {_listed(others)}" if others else ""
        return f": component {least.index} of {where} spans {_steps(least)}{beside}"
    steps = [one.step for one in told.components if one.step is not None]
    if told.what == "step":
        return ", as wide as the larger values beside them need"
    if not steps:
        return ": one step of its quantization is too wide"
    least_kept = min(told.components, key=lambda one: one.spread)
    return f": one step is {steps[0]:.3g}, and {_components((least_kept,))} spreads over {least_kept.spread:.3g}"


def _components(components: Sequence[OutputComponent]) -> str:
    """Returns "component 2", "components 4 to 83", "components 1, 3, 4 and 9 more"."""
    if len(components) == 1 and components[0].first != components[0].last:
        return f"components {components[0].first} to {components[0].last}"
    noun = "component" if len(components) == 1 else "components"
    return f"{noun} {_listed(one.first for one in components)}"


def _listed(numbers: Iterable[int]) -> str:
    every = [str(number) for number in numbers]
    if len(every) > _SHOWN + 1:
        every[_SHOWN:] = [f"{len(every) - _SHOWN} more"]
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def _share(components: Sequence[InputComponent] | Sequence[OutputComponent]) -> str:
    return _percent(max(one.outside for one in components), 0) if components else "a part"


def _times(measured: float) -> str:
    return f"{measured:.1f} times" if measured >= 0.95 else f"{measured:.2f} of"


def _steps(column: InputComponent) -> str:
    return f"{column.steps:.2g} of a step" if column.steps < 1 else f"{column.steps:.1f} steps"


def _loudness(found: Fidelity) -> str:
    decibels = [output.sqnr_db for output in found.outputs if not math.isnan(output.sqnr_db)]
    least = min(decibels, default=math.inf)
    return f"SQNR {least:.1f} dB" if math.isfinite(least) else _EQUAL if least > 0 else "nothing is left"


def _samples(found: Fidelity) -> str:
    return f"{found.samples:,} sample{'' if found.samples == 1 else 's'}"


def _quantized(found: Fidelity) -> bool:
    return bool(found.inputs) or any(one.step is not None for output in found.outputs for one in output.components)


def _value(metric: MetricValue) -> str:
    return _percent(metric.value, 2) if metric.is_share else f"{metric.value:.5g}"


def _percent(value: float, decimals: int) -> str:
    return f"{100 * value:.{decimals}f} %"
