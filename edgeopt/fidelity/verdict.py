"""What was measured of a file goes in; what it is shown to have lost comes out, with the cause and the ways out.

The limits come from trials. Faithful int8 files of digits, DS-CNN, ResNet-8, MobileNetV2 (trained for two epochs),
autoencoders, embeddings, detectors and regressors had errors of 0.01 to 0.12 of a component's spread and agreed with
the float model on 0.93 to 1 of the samples. Files with a fault had errors of 0.36 to 2.6 and agreed on 0.1 to 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgeopt.fidelity.structure import Part
from edgeopt.vocabulary import (
    Difference,
    InputFidelity,
    MetricValue,
    OutputComponent,
    OutputFidelity,
    Problem,
)

# An error of this share of a component's spread takes a tenth of what the component says (its square); the worst of
# any faithful file was a third of it.
_LOST = 0.3
# A spread of fewer samples says little.
_FEWEST_SAMPLES = 8
# Scores are shares of 1, and small ones matter little: a smaller spread than this counts as this.
_LEAST_SPREAD_OF_SCORES = 0.1
# A score told in coarser steps cannot be thresholded; alone it would have steps of 1/256.
_COARSEST_SCORE = 1 / 16
# Decided as the float model does; shown when the upper end of the interval lies below.
_LEAST_AGREEMENT = 0.9
# Points: less is the usual price of int8, and told as a number. What chance brings less often than _DOUBT is shown.
_LEAST_POINTS = 5.0
_DOUBT = 0.05
# What does this much of the fault by itself is its cause.
_MOST_OF_IT = 0.5
# This share of real values beyond what the quantization holds: calibration has not seen their like.
_OUTSIDE = 0.01
# int16 in place of int8 makes steps this much smaller, and a step of a third of the spread makes an error of a tenth.
_FINER = 128
_FINE = 1 / 3


@dataclass(frozen=True)
class Judged:
    """Components that are judged together, and how far the float model itself is from the labels there."""

    part: Part
    left: OutputComponent
    own_error: float


@dataclass(frozen=True)
class Output:
    """An output as it was measured, with all that is judged of it."""

    found: OutputFidelity
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class Findings:
    """What one pass over the samples showed.

    Attributes:
        scored: the output that the labels are for.
        mistaken: of inputs that the model makes whole numbers of, the share of values that become another one.
    """

    samples: int
    inputs: tuple[InputFidelity, ...]
    outputs: tuple[Output, ...]
    scored: str = ""
    reference_metric: MetricValue | None = None
    metric: MetricValue | None = None
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    mistaken: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Precision:
    """What a file computes with.

    Attributes:
        bits: of its quantized inputs and outputs, 0 without.
        wider: the next wider scheme.
        few_bits: whether weights have fewer than eight.
    """

    bits: int
    wider: str
    few_bits: bool = False

    def sixteen(self, helps: bool) -> tuple[str, ...]:
        """Returns int16x8 as a way out, where it helps and is not what the file has already."""
        return ("int16x8",) if helps and self.bits == 8 else ()


def problems(first: Findings, precision: Precision, *, rounded: Findings | None = None) -> tuple[Problem, ...]:
    """Returns what a file has lost.

    Args:
        first: of the file beside the float model.
        precision: of the file.
        rounded: of the float model on the file's rounded inputs beside itself; says whether these are the cause.
    """
    # Rows of a table that are mistaken for one another may cost little on average, and everything where they are asked.
    found = [
        Problem("whole-numbers", "", share, cause="input", input=name, ways_out=("integers", "dynamic"))
        for name, share in first.mistaken.items()
        if share
    ]
    for place, output in enumerate(first.outputs):
        again = None if rounded is None else rounded.outputs[place]
        found += _of_output(first, output, again, precision)
    if (score := _of_score(first, rounded, precision)) is None:
        return tuple(found)
    # Components say the same as the score, and where; the score the same as the classes, with more weight.
    if any(problem.what in ("component", "step") and problem.output == score.output for problem in found):
        return tuple(found)
    return (score, *(problem for problem in found if (problem.what, problem.output) != ("classes", score.output)))


def _of_output(first: Findings, output: Output, rounded: Output | None, precision: Precision) -> Iterator[Problem]:
    found = output.found
    if found.not_finite:
        yield Problem("not-finite", found.name, found.not_finite, ways_out=(precision.wider,))
    if found.agreement is not None:
        if found.agreement.high < _LEAST_AGREEMENT:
            again = None if rounded is None else rounded.found.agreement
            by_inputs = again is not None and 1 - again.value >= _MOST_OF_IT * (1 - found.agreement.value)
            yield _explained(
                Problem("classes", found.name, found.agreement.value), first, precision, by_inputs=by_inputs
            )
        return
    if first.samples < _FEWEST_SAMPLES:
        return
    coarse = tuple(judged.left for judged in output.judged if len(output.judged) > 1 and _is_coarse(judged))
    if coarse:
        step = max(one.step or 0.0 for one in coarse)
        ways = ("split", *precision.sixteen(step <= _FINER * _COARSEST_SCORE), "dynamic")
        yield Problem("step", found.name, step, coarse, "output", ways_out=ways)
    lost: dict[str, list[OutputComponent]] = {}
    for place, judged in enumerate(output.judged):
        if judged.left not in coarse and _is_lost(judged):
            cause = _cause(judged.left, None if rounded is None else rounded.judged[place].left)
            lost.setdefault(cause, []).append(judged.left)
    for cause, components in lost.items():
        problem = Problem(
            "component",
            found.name,
            max(one.relative_error for one in components),
            tuple(components) if found.size > 1 else (),
            cause,
        )
        if cause == "output":
            finer = all((one.step or 0.0) <= _FINER * _FINE * one.spread for one in components)
            split = ("split",) if found.size > 1 else ()
            yield replace(problem, ways_out=(*split, "scale", *precision.sixteen(finer), "dynamic"))
        elif cause == "range":
            yield replace(problem, ways_out=("calibrate",))
        else:
            yield _explained(problem, first, precision, by_inputs=cause == "input")


def _of_score(first: Findings, rounded: Findings | None, precision: Precision) -> Problem | None:
    lost = first.difference
    if lost is None or lost.p_value is None or first.metric is None or not first.metric.is_share:
        return None
    if lost.value < _LEAST_POINTS or lost.p_value >= _DOUBT:
        return None
    again = None if rounded is None else rounded.difference
    by_inputs = again is not None and again.value >= _MOST_OF_IT * lost.value
    return _explained(Problem("score", first.scored, lost.value), first, precision, by_inputs=by_inputs)


def _is_coarse(judged: Judged) -> bool:
    return judged.part.kind != "value" and (judged.left.step or 0.0) > _COARSEST_SCORE


def _is_lost(judged: Judged) -> bool:
    """Whether the file's error hides what the float model tells apart, and is more than what that model is off by."""
    left, least = judged.left, 0.0 if judged.part.kind == "value" else _LEAST_SPREAD_OF_SCORES
    return left.spread > 0 and left.error > max(_LOST * max(left.spread, least), judged.own_error)


def _cause(left: OutputComponent, rounded: OutputComponent | None) -> str:
    if left.rounding >= _MOST_OF_IT * left.error:
        return "range" if left.outside > _OUTSIDE else "output"
    return "input" if rounded is not None and rounded.error >= _MOST_OF_IT * left.error else "inside"


def _explained(problem: Problem, first: Findings, precision: Precision, *, by_inputs: bool) -> Problem:
    """Returns the problem with its cause, where the output's own quantization is none, and the ways out."""
    if not by_inputs:
        first_of_all = ("repair",) if precision.few_bits else ()
        return replace(problem, cause="inside", ways_out=(*first_of_all, precision.wider, "trace"))
    coarse = {one.name: tuple(c for c in one.components if c.steps < 1) for one in first.inputs}
    beyond = {one.name: tuple(c for c in one.components if c.outside > _OUTSIDE) for one in first.inputs}
    if any(beyond.values()) and not any(coarse.values()):
        name = max(beyond, key=lambda one: len(beyond[one]))
        return replace(problem, cause="range", input=name, columns=beyond[name], ways_out=("calibrate",))
    name = max(coarse, key=lambda one: len(coarse[one]))
    finer = all(column.steps * _FINER * _FINE >= 1 for column in coarse[name])
    ways = ("normalize-outside", *precision.sixteen(finer))
    return replace(problem, cause="input", input=name, columns=coarse[name], ways_out=ways)
