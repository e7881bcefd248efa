"""The plan: a recipe goes in, before any training; its steps with what each needs, keeps and brings come out.

Orders are checked and never changed: what cannot work is refused in words, with the order that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ConfigError, DataError, place, setting
from edgeopt.schemes import SCHEMES
from edgeopt.steps import Step, TrainedStep, Training
from edgeopt.techniques import TECHNIQUES, Need, Technique, technique
from edgeopt.vocabulary import Property

if TYPE_CHECKING:
    from edgeopt.prospects import ModelFacts
    from edgeopt.recipe import Recipe

_LOST = {
    Property.SPARSE: "the zeros",
    Property.CLUSTERED: "the shared values",
    Property.FAKE_QUANTIZED: "the simulated int8",
}
# What to try where something is missing.
_REMEDIES = {
    Need.TRAINING: "--train-data, or a recipe without steps, such as no-training-data",
    Need.LABELS: f"data with labels, or {setting('alpha', 1)}: then the model learns from its teacher alone",
    Need.CALIBRATION: "--calibration-data, or data with samples to calibrate with",
}


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan.

    Attributes:
        step: its choices, and `technique`: its name in TECHNIQUES.
        name: its own in the recipe: the technique's, with a number behind it from the second of one technique on.
        variant: which form of the technique runs, "PQAT", "" for the plain one.
        properties_before, properties_after: what the model's weights have.
        needs: what it takes beside the model, in the order of Need.
        prediction: what it will bring to this very model, in words; "" where no facts were given.
        training: how it trains, with recipe and defaults filled in; None where it does not.
        strict: whether `max_drop` is held against the loss as measured.
        keep_8bit: which layers have int8 weights in schemes below eight bits, as the recipe says.
    """

    step: Step
    technique: str
    name: str
    variant: str
    properties_before: frozenset[Property]
    properties_after: frozenset[Property]
    needs: tuple[Need, ...]
    prediction: str
    training: Training | None
    strict: bool = False
    keep_8bit: tuple[str, ...] = ("auto",)


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        notes: what of it is pointless, or will disappoint, and why.
    """

    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...] = ()


def plan(
    recipe: Recipe,
    *,
    start: int = 0,
    properties: frozenset[Property] = frozenset(),
    facts: ModelFacts | None = None,
    has_labels: bool | None = None,
    has_training: bool | None = None,
    has_calibration: bool | None = None,
) -> Plan:
    """Returns what `recipe` will do.

    Args:
        recipe: its steps are taken in their order.
        start: how many of them are behind the model at hand, done or left out.
        properties: what the weights of the model at hand have already.
        facts: of that model, for predictions; they are those of the model before any step.
        has_labels, has_training, has_calibration: whether there are labels, and samples for training and calibration;
            None where that is not known.

    Raises:
        ConfigError: a step would destroy what another gave the model, a scheme cannot use a step, or settings of a
            step contradict one another.
        DataError: there are no samples or labels, and a step needs them.
    """
    there = {Need.TRAINING: has_training, Need.LABELS: has_labels, Need.CALIBRATION: has_calibration}
    held = properties
    for number, step in enumerate(recipe.steps[start:], start=start):
        _require_nothing_destroyed(recipe.steps, number, start, held)
        _require_model_before_file(recipe.steps, number)
        held = _after(technique(step.technique), held)
    planned: list[PlannedStep] = []
    for number, step in enumerate(recipe.steps[start:], start=start):
        row = technique(step.technique)
        at = place(f"steps[{number}].{row.name}")
        training = step.training(recipe.training) if isinstance(step, TrainedStep) else None
        _require_sense(row, step, training, at)
        needs = row.needs_of(training)
        _require_there(row, needs, at, there)
        _require_schemes(recipe, row, step, at)
        after = _after(row, properties)
        prediction = row.predict(step, facts).words if facts is not None else ""
        name, variant = recipe.step_name(number), row.variant_of(properties)
        strict = step.strict or recipe.strict
        planned.append(
            PlannedStep(
                step,
                row.name,
                name,
                variant,
                properties,
                after,
                needs,
                prediction,
                training,
                strict,
                recipe.keep_8bit,
            )
        )
        properties = after
    return Plan(tuple(planned), tuple(_notes(recipe, properties)))


def _after(row: Technique, properties: frozenset[Property]) -> frozenset[Property]:
    return (properties & row.keeps) | row.ensures


# --- order -----------------------------------------------------------------------------------------------------------


def _require_nothing_destroyed(steps: Sequence[Step], number: int, start: int, properties: frozenset[Property]) -> None:
    """Raises ConfigError where step `number` would destroy one of the properties that hold before it."""
    step = technique(steps[number].technique)
    destroyed = sorted(properties - step.keeps, key=list(Property).index)
    givers = {
        lost: next((i for i in reversed(range(start, number)) if lost in technique(steps[i].technique).ensures), None)
        for lost in destroyed
    }
    for lost, giver in givers.items():
        if giver is None:
            raise ConfigError(
                f"Expected steps that keep what the model has, got {step.name} (steps[{number}]): the model is "
                f"{lost.value} already, and {_reason(step, lost)}. Try the model before that was done to it, or "
                f"leaving {step.name} out."
            )
    for lost, giver in reversed(givers.items()):
        assert giver is not None
        earlier = steps[giver].technique
        if earlier == step.name:
            expected, got = f"{earlier} once", f"it at steps[{giver}] and steps[{number}]"
        else:
            expected = f"{step.name} before {earlier}"
            got = f"{step.name} (steps[{number}]) after {earlier} (steps[{giver}])"
        raise ConfigError(f"Expected {expected}, got {got}: {_reason(step, lost)}. {_advice(steps)}")


def _require_model_before_file(steps: Sequence[Step], number: int) -> None:
    """Raises ConfigError where a step on the model comes after one on the file that is converted from it."""
    row = technique(steps[number].technique)
    for i, earlier in enumerate(steps[:number]):
        if row.acts_on == "model" and technique(earlier.technique).acts_on == "file":
            raise ConfigError(
                f"Expected {row.name} before {earlier.technique}, got {row.name} (steps[{number}]) after "
                f"{earlier.technique} (steps[{i}]): {row.name} changes the model, and {earlier.technique} the file "
                f"that is converted from it. {_advice(steps)}"
            )


def _reason(row: Technique, lost: Property) -> str:
    if lost is Property.FAKE_QUANTIZED:
        giver = " or ".join(other.name for other in TECHNIQUES.values() if lost in other.ensures)
        return (
            f"nothing may follow {giver}, and {row.name} would destroy {_LOST[lost]} that the weights were trained for"
        )
    if row.changes_architecture:
        return f"{row.name} makes other tensors, and {_LOST[lost]} in the old ones would be lost"
    return f"{row.name} would destroy {_LOST[lost]}"


def _advice(steps: Sequence[Step]) -> str:
    order = sorted(TECHNIQUES, key=lambda name: technique(name).acts_on == "file")
    names = sorted((step.technique for step in steps), key=order.index)
    # Once is enough of what destroys what it gives.
    once = {row.name for row in TECHNIQUES.values() if row.ensures - row.keeps}
    names = [name for i, name in enumerate(names) if name not in once or name not in names[:i]]
    return f"Try the order: {', '.join(names)}."


# --- settings and data -----------------------------------------------------------------------------------------------


def _require_sense(row: Technique, step: Step, training: Training | None, at: str) -> None:
    """Raises ConfigError where a step's settings contradict one another or its training."""
    if training is None:
        return
    if training.teacher == "none" and training.alpha == 1.0:
        raise ConfigError(
            f"{at}Expected a teacher, got teacher none with alpha 1: there is nobody to learn from. "
            f"Try {setting('teacher', 'original')}, or a smaller {setting('alpha')}."
        )
    try:
        row.validate(step, training)
    except ConfigError as error:
        raise ConfigError(f"{at}{error.marked}") from None


def _require_there(row: Technique, needs: Sequence[Need], at: str, there: Mapping[Need, bool | None]) -> None:
    for need in needs:
        if there.get(need) is False:
            got = "samples without" if need is Need.LABELS else "none"
            raise DataError(f"{at}Expected {need.value} for {row.name}, got {got}. Try {_REMEDIES[need]}.")


def _require_schemes(recipe: Recipe, row: Technique, step: Step, at: str) -> None:
    """Raises ConfigError where what the step leaves cannot be had in the recipe's schemes."""
    schemes = [SCHEMES[name] for name in recipe.schemes]
    if Need.SCHEME in row.needs and not any(scheme.algorithm for scheme in schemes):
        raise ConfigError(
            f"{at}Expected a scheme of integers for {row.name}, got {', '.join(recipe.schemes)}. Try schemes: [int8]."
        )
    unfit = [scheme.name for scheme in schemes if not row.fits(step, scheme)]
    if unfit:
        fit = [scheme.name for scheme in SCHEMES.values() if row.fits(step, scheme)]
        raise ConfigError(
            f"Expected schemes that {row.name} is for, {' or '.join(fit)}, got {', '.join(unfit)}: {row.why_unfit}. "
            f"Try schemes: [{', '.join(fit)}], or another recipe for {', '.join(unfit)}."
        )


# --- what will disappoint --------------------------------------------------------------------------------------------


def _notes(recipe: Recipe, properties: frozenset[Property]) -> Iterable[str]:
    compress = {Property.SPARSE: "zeros", Property.CLUSTERED: "shared values"}
    if there := [what for lost, what in compress.items() if lost in properties]:
        yield f"{' and '.join(there)}: the file is as large as without; what stores or sends it compressed gains"
    if Property.SPARSE in properties:
        floats = [name for name in recipe.schemes if SCHEMES[name].activations == "float32"]
        others = [name for name in recipe.schemes if name not in floats]
        if others:
            yield f"zeros: no faster as {', '.join(others)}, since sparse kernels compute in float only"
        if floats:
            yield (
                f"zeros: as {', '.join(floats)}, XNNPACK's sparse kernels take 1x1 convolutions with more than 2/3 "
                "zeros and nothing else"
            )
    rows = [technique(step.technique) for step in recipe.steps]
    if recipe.budgets.max_latency_ms is not None and rows and all(row.speeds_up is False for row in rows):
        slow = " and ".join(dict.fromkeys(row.name for row in rows))
        faster = " and ".join(sorted(row.name for row in TECHNIQUES.values() if row.speeds_up))
        yield f"max_latency: {slow} will not make the model faster; {faster} do"
    schemes = [SCHEMES[name] for name in recipe.schemes]
    for number, (row, step) in enumerate(zip(rows, recipe.steps)):
        for why in row.remarks(step, recipe.steps[:number], schemes):
            yield f"steps[{number}].{row.name}: {why}"
