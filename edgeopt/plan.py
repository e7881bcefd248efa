"""The plan: a recipe goes in, before any training; its steps with what each needs, keeps and brings come out.

Orders are checked and never changed: what cannot work is refused in words, with the order that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt import techniques
from edgeopt.errors import ConfigError, DataError
from edgeopt.schemes import SCHEMES
from edgeopt.steps import Step, TrainedStep, Training
from edgeopt.techniques import TECHNIQUES, Technique, technique
from edgeopt.techniques.cluster import Cluster
from edgeopt.techniques.prune import Prune
from edgeopt.vocabulary import Property

if TYPE_CHECKING:
    from edgeopt.inspection.prospects import ModelFacts
    from edgeopt.recipe import Recipe

SAMPLES, LABELS = "training samples", "labels"

# What a technique is called when it keeps what is there.
VARIANTS: dict[tuple[str, frozenset[Property]], str] = {
    ("cluster", frozenset({Property.SPARSE})): "sparsity-preserving",
    ("cluster", frozenset({Property.SPARSE, Property.CLUSTERED})): "sparsity-preserving",
    ("qat", frozenset({Property.SPARSE})): "PQAT",
    ("qat", frozenset({Property.CLUSTERED})): "CQAT",
    ("qat", frozenset({Property.SPARSE, Property.CLUSTERED})): "PCQAT",
}

_LOST = {
    Property.SPARSE: "the zeros",
    Property.CLUSTERED: "the shared values",
    Property.FAKE_QUANTIZED: "the simulated int8",
}
# What the weights of a model that is fake-quantized were trained for.
_QAT_SCHEMES = tuple(
    s.name
    for s in SCHEMES.values()
    if s.weights == s.activations == "int8" and not s.dynamic and s.granularity == "channel"
)
# int8 weights are -127 to 127 in the file.
_INT8_VALUES = 255


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan.

    Attributes:
        step: its choices, and `technique`: its name in TECHNIQUES.
        variant: which form of the technique runs, "PQAT", "" for the plain one.
        properties_before, properties_after: what the model's weights have.
        needs: what it takes beside the model: SAMPLES, LABELS.
        prediction: what it will bring to this very model, in words; "" where no facts were given.
        training: how it trains, with recipe and defaults filled in; None where it does not.
    """

    step: Step
    technique: str
    variant: str
    properties_before: frozenset[Property]
    properties_after: frozenset[Property]
    needs: tuple[str, ...]
    prediction: str
    training: Training | None


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
    properties: frozenset[Property] = frozenset(),
    facts: ModelFacts | None = None,
    has_labels: bool | None = None,
    has_training: bool | None = None,
) -> Plan:
    """Returns what `recipe` will do.

    Args:
        recipe: its steps are taken in their order.
        properties: what the weights of the model at hand have already.
        facts: of that model, for predictions; they are those of the model before any step.
        has_labels, has_training: whether there are labels and training samples; None where that is not known.

    Raises:
        ConfigError: a step would destroy what another gave the model, a scheme cannot use a step, or settings of a
            step contradict one another.
        DataError: there are no training samples or labels, and a step needs them.
    """
    planned: list[PlannedStep] = []
    for number, step in enumerate(recipe.steps):
        where, row = f"steps[{number}]", technique(step.technique)
        _require_nothing_destroyed(recipe.steps, number, properties)
        training = step.training(recipe.training) if isinstance(step, TrainedStep) else None
        _require_sense(step, training, where)
        needs = _needs(row, training)
        _require_data(row, needs, where, has_training=has_training, has_labels=has_labels)
        after = (properties & row.keeps) | row.ensures
        variant = VARIANTS.get((row.name, properties), "")
        prediction = row.predict(step, facts) if facts is not None else ""
        planned.append(PlannedStep(step, row.name, variant, properties, after, needs, prediction, training))
        properties = after
    _require_schemes(recipe, properties)
    return Plan(tuple(planned), tuple(_notes(recipe, properties)))


# --- order -----------------------------------------------------------------------------------------------------------


def _require_nothing_destroyed(steps: Sequence[Step], number: int, properties: frozenset[Property]) -> None:
    """Raises ConfigError where step `number` would destroy one of the properties that hold before it."""
    step = technique(steps[number].technique)
    destroyed = sorted(properties - step.keeps, key=list(Property).index)
    givers = {
        lost: next((i for i in reversed(range(number)) if lost in technique(steps[i].technique).ensures), None)
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


def _reason(row: Technique, lost: Property) -> str:
    if lost is Property.FAKE_QUANTIZED:
        return f"nothing may follow qat, and {row.name} would destroy {_LOST[lost]} that the weights were trained for"
    if row.changes_architecture:
        return f"{row.name} makes other tensors, and {_LOST[lost]} in the old ones would be lost"
    return f"{row.name} would destroy {_LOST[lost]}"


def _advice(steps: Sequence[Step]) -> str:
    order = list(TECHNIQUES)
    names = sorted((step.technique for step in steps), key=order.index)
    # Once is enough of what nothing may follow.
    names = [name for i, name in enumerate(names) if name != "qat" or name not in names[:i]]
    return f"Try the order: {', '.join(names)}."


# --- settings and data -----------------------------------------------------------------------------------------------


def _require_sense(step: Step, training: Training | None, where: str) -> None:
    """Raises ConfigError where a step's settings contradict one another or its training."""
    if training is not None and step.technique != "distill" and training.teacher == "none" and training.alpha == 1.0:
        raise ConfigError(
            f"Expected a teacher at {where}.{step.technique}, got teacher none with alpha 1: there is nobody to learn "
            "from. Try teacher: original, or a smaller alpha."
        )
    validate = getattr(getattr(techniques, step.technique), "validate", None)
    if validate is not None and training is not None:
        try:
            validate(step, training)
        except ConfigError as error:
            raise ConfigError(f"At {where}.{step.technique}: {error}") from None


def _needs(row: Technique, training: Training | None) -> tuple[str, ...]:
    if training is None:
        return ()
    taught = row.name == "distill" or training.teacher != "none"
    return (SAMPLES,) if taught and training.alpha == 1.0 else (SAMPLES, LABELS)


def _require_data(
    row: Technique, needs: tuple[str, ...], where: str, *, has_training: bool | None, has_labels: bool | None
) -> None:
    if SAMPLES in needs and has_training is False:
        raise DataError(
            f"Expected training samples for {row.name} ({where}), got none. Try --train-data, or a recipe without "
            "steps, such as no-training-data."
        )
    if LABELS in needs and has_labels is False:
        raise DataError(
            f"Expected labels for {row.name} ({where}), got samples without. Try data with labels, or alpha: 1 with a "
            "teacher: then the model learns from the teacher's answers alone."
        )


def _require_schemes(recipe: Recipe, properties: frozenset[Property]) -> None:
    if Property.FAKE_QUANTIZED not in properties:
        return
    unfit = [name for name in recipe.schemes if name not in _QAT_SCHEMES]
    if unfit:
        raise ConfigError(
            f"Expected schemes that qat trains for, {' or '.join(_QAT_SCHEMES)}, got {', '.join(unfit)}: its model "
            f"computes with simulated int8 already. Try schemes: [{', '.join(_QAT_SCHEMES)}], or another recipe for "
            f"{', '.join(unfit)}."
        )


# --- what will disappoint --------------------------------------------------------------------------------------------


def _notes(recipe: Recipe, properties: frozenset[Property]) -> Iterable[str]:
    names = [step.technique for step in recipe.steps]
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
    slow = dict.fromkeys(name for name in names if not TECHNIQUES[name].changes_architecture and name != "qat")
    if recipe.budgets.max_latency_ms is not None and slow and set(names) == set(slow):
        yield f"max_latency: {' and '.join(slow)} will not make the model faster; shrink and distill do"
    for number, step in enumerate(recipe.steps):
        for why in _pointless(step, recipe.steps[:number], recipe.schemes):
            yield f"steps[{number}].{step.technique}: {why}"


def _pointless(step: Step, earlier: Sequence[Step], schemes: Sequence[str]) -> Iterable[str]:
    before = [other for other in earlier if type(other) is type(step)]
    if isinstance(step, Prune):
        if step.for_xnnpack and not any(SCHEMES[name].activations == "float32" for name in schemes):
            yield f"for_xnnpack restricts pruning for the sake of kernels that {', '.join(schemes)} does not use"
        if any(isinstance(other, Prune) and other.sparsity >= step.sparsity for other in before):
            yield f"an earlier step asks for as many zeros as its {step.sparsity:.0%}, or more"
    if isinstance(step, Cluster):
        integer = [name for name in schemes if SCHEMES[name].weights == "int8"]
        if step.clusters >= _INT8_VALUES and integer:
            yield f"{', '.join(integer)} knows {_INT8_VALUES} weights anyway; 16 or 32 clusters compress"
        if any(isinstance(other, Cluster) and other.clusters <= step.clusters for other in before):
            yield f"an earlier step asks for as few values as its {step.clusters}, or fewer"
