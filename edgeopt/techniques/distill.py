"""Distillation: a teacher goes in, a smaller student that learned from it comes out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import Range, option
from edgeopt.errors import ConfigError, setting
from edgeopt.frameworks import load
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques.contract import Carried, Technique
from edgeopt.vocabulary import LayerChange, Promise, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts

# Ways to a student; one of them is said.
WAYS = ("student", "width", "macs", "depth")
# Of the training samples, how many tell which blocks the teacher can do without.
PROBED = 256
# Channel counts that kernels like best come first.
_MULTIPLES = (8, 4, 2, 1)
_MACS, _PARAMETERS = "multiply-accumulates", "parameters"


@dataclass(frozen=True, kw_only=True)
class Distill(TrainedStep):
    """What may be said about distillation. The model is the teacher; one way to a student is needed."""

    technique: ClassVar[str] = "distill"
    defaults: ClassVar[Training] = Training(epochs=30, learning_rate=2e-3, alpha=0.7)

    student: str | None = option(None, "A model file whose architecture and weights the student has.", metavar="FILE")
    width: float | None = option(
        None,
        "Make the student: this share of every layer's channels.",
        above=0.0,
        below=1.0,
        hint="0.5",
        tried=Range(0.25, 0.75),
    )
    macs: float | None = option(
        None,
        "Make the student: this share of the multiply-accumulates, all layers cut alike.",
        above=0.0,
        below=1.0,
        hint="0.5",
    )
    depth: float | None = option(
        None, "Make the student: at most this share of the residual blocks.", low=0.0, below=1.0, hint="0.5"
    )
    teachers: tuple[str, ...] = option((), "More teachers; the answers of all are averaged.", metavar="FILE")
    hints: Mapping[str, str] = option(
        {}, "Layers of the student that imitate layers of the teacher.", metavar="LAYER=LAYER"
    )
    attention: Mapping[str, str] = option(
        {}, "Layers of the student that attend to the places that layers of the teacher do.", metavar="LAYER=LAYER"
    )
    hint_weight: float = option(1.0, "Weight of hints and attention in the loss.", low=0.0)

    def training(self, recipes: Training | None = None) -> Training:
        """Returns how to train; the model itself teaches, whoever teaches the recoveries of a recipe."""
        return replace(super().training(recipes), teacher="original")


def validate(step: Distill, training: Training) -> None:
    """Checks what can be checked before any model is there.

    Raises:
        ConfigError: there is no way to a student or more than one, or a teacher is named where it is the model.
    """
    said = [way for way in WAYS if getattr(step, way) is not None]
    if len(said) != 1:
        raise ConfigError(
            f"Expected one way to a student (student, width, macs or depth), got {' and '.join(said) or 'none'}. "
            f"Try {setting('width', 0.5)}, half of the channels."
        )
    if step.teacher not in (None, "original"):
        raise ConfigError(
            f"Expected the model itself to be the teacher, got teacher {step.teacher}. "
            f"Try {setting('teachers')} for others beside it."
        )


def apply(step: Distill, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Returns the trained student, and what it is.

    Raises:
        ConfigError: see `validate`; nothing of the model can be cut, or a layer of the hints is not there.
        DataError: there are no samples to train with.
        ModelError: a file of a student or teacher cannot be trained or called here.
    """
    from edgeopt.techniques.recovery import open_model
    from edgeopt.training import Hint, fit

    training = step.training(carried.training)
    validate(step, training)
    student, changes = _student(step, model, data, carried)
    before, after = _cost(model), _cost(student)
    done = fit(
        student,
        data,
        training,
        teachers=(model, *(open_model(path, carried) for path in step.teachers)),
        goal=carried.goal,
        folder=carried.folder,
        seed=carried.seed,
        what="distilling",
        hints=[
            *(Hint(ours, theirs) for ours, theirs in step.hints.items()),
            *(Hint(ours, theirs, attention=True) for ours, theirs in step.attention.items()),
        ],
        hint_weight=step.hint_weight,
    )
    limits = {**after, _PARAMETERS: after[_PARAMETERS] + _first_states(student)}
    promises = tuple(Promise(what, limit=limits[what], of=before[what]) for what in before)
    return student, StepRecord(
        step.technique,
        step.said(),
        layers=changes,
        promises=promises,
        history=done.history,
        seconds=done.seconds,
        notes=done.notes,
    )


def check(step: Distill, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises as measured in a converted file."""
    from edgeopt.techniques import in_file

    return tuple(
        in_file.multiplied(promise, file) if promise.kind == _MACS else promise.found(file.parameters)
        for promise in record.promises
    )


def predict(step: Distill, facts: ModelFacts) -> Prospect:
    """Returns what a student will be beside its teacher."""
    reason = (
        f"this model is the teacher, with {facts.parameters:,} parameters; how well the student answers depends on the "
        "data and the epochs: it starts far below the teacher"
    )
    left = 1.0
    if step.width is not None:
        linear, depthwise = facts.macs_share("depthwise"), facts.share("depthwise")
        macs = step.width * linear + step.width**2 * (1 - linear)
        left = step.width * depthwise + step.width**2 * (1 - depthwise)
        gain = f"about {macs:.0%} of the {facts.macs:,} multiply-accumulates, and smaller and faster everywhere"
    elif step.macs is not None:
        gain = f"{step.macs:.0%} of the {facts.macs:,} multiply-accumulates, and smaller and faster everywhere"
    elif step.depth is not None:
        gain = f"at most {step.depth:.0%} of the residual blocks: smaller and faster by what the others cost"
    else:
        gain = f"as small and as fast as the student in {step.student}"
    return Prospect(gain, reason, left=left)


# --- the student -----------------------------------------------------------------------------------------------------


def _student(step: Distill, model: Any, data: Dataset, carried: Carried) -> tuple[Any, tuple[LayerChange, ...]]:
    from edgeopt.techniques.recovery import open_model

    if step.student is not None:
        return open_model(step.student, carried), ()
    if step.depth is not None:
        return _shallower(model, data, step.depth, carried.seed)
    return _narrower(step, model)


def _narrower(step: Distill, model: Any) -> tuple[Any, tuple[LayerChange, ...]]:
    """Returns the model with the most valuable channels of each layer only.

    What was learned by them is a better start than random weights.
    """
    from edgeopt.shrinking.budget import best, uniform, within
    from edgeopt.shrinking.channels import Channels
    from edgeopt.shrinking.criteria import scores
    from edgeopt.shrinking.surgery import shrink

    channels = Channels(model)
    whole = channels.cost()
    problem: ConfigError | None = None
    for multiple_of in _MULTIPLES:
        try:
            if step.width is not None:
                sizes = uniform(channels, step.width, groups=channels.groups, multiple_of=multiple_of)
            else:
                limit = (step.macs or 1.0) * whole.macs
                sizes = within(channels, limit, count="macs", groups=channels.groups, multiple_of=multiple_of)
        except ConfigError as error:
            problem = error
            continue
        if channels.cost(sizes).macs < whole.macs:
            cut = best(scores(channels, "l1"), channels, sizes)
            return shrink(channels, cut), tuple(_channel_changes(channels, cut))
    reasons = "; ".join(f"{layer}: {reason}" for layer, reason in channels.untouchable.items())
    raise problem or ConfigError(
        f"Expected layers with channels to leave out, got a model without ({reasons or 'it makes none'}). "
        f"Try {setting('student')} with a model of your own."
    )


def _channel_changes(channels: Any, cut: Mapping[str, Any]) -> Iterator[LayerChange]:
    kept = channels.kept(cut)
    kinds = {call.name: type(call.layer).__name__ for call in channels.calls}
    for name, units in channels.makers.items():
        left = int(kept[units].sum())
        if left < len(units):
            yield LayerChange(name, kinds[name], done=f"{len(units)} → {left} channels")
        else:
            reason = channels.untouchable.get(name, "its channels are too few to leave some out")
            yield LayerChange(name, kinds[name], reason=reason)


def _shallower(model: Any, data: Dataset, share: float, seed: int) -> tuple[Any, tuple[LayerChange, ...]]:
    """Returns the model without those residual blocks that its answers need least."""
    from edgeopt.shrinking.blocks import blocks, drop
    from edgeopt.shrinking.channels import Channels
    from edgeopt.shrinking.probing import Probe
    from edgeopt.techniques.samples import some_inputs

    found = blocks(model)
    if not found:
        raise ConfigError(
            "Expected residual blocks to leave out, got a model whose layers all have to be there. "
            f"Try {setting('width', 0.5)}."
        )
    probe = Probe(Channels(model), some_inputs(model, data.training, PROBED, seed=seed))
    losses = {block.name: probe.loss_without(block) for block in found}
    going = sorted(losses, key=lambda name: losses[name])[: len(found) - math.floor(share * len(found))]
    changes = tuple(
        LayerChange(
            block.name,
            "residual block",
            done=f"left out with {', '.join(block.layers)}" if block.name in going else "",
            reason="" if block.name in going else "the answers need it more than those left out",
        )
        for block in found
    )
    return drop(model, going), changes


def _cost(model: Any) -> dict[str, int]:
    """Returns what a tf_keras model costs, by the names of the promises."""
    from edgeopt.inspection.keras_layers import KerasCount

    count = KerasCount(model)
    return {_MACS: sum(row.macs or 0 for row in count.rows), _PARAMETERS: count.facts("").parameters}


def _first_states(model: Any) -> int:
    """Returns how many numbers its loops begin with, states and counters: a file may store them beside the weights."""
    from edgeopt import graph

    tf, total = load("tensorflow"), 0
    for call in graph.flat_calls(model):
        layers = [getattr(call.layer, name, None) for name in ("forward_layer", "backward_layer")]
        for layer in (one for one in (*layers, call.layer) if hasattr(one, "get_initial_state")):
            start = layer.get_initial_state(tf.zeros((1, 1, *call.args[0].shape[2:])))
            total += 1 + sum(int(tf.size(state)) for state in tf.nest.flatten(start))
    return total


TECHNIQUE = Technique(
    "distill",
    "Train a smaller student on what the model answers.",
    Distill,
    apply,
    check,
    predict,
    typical=Distill(width=0.5),
    changes_architecture=True,
    speeds_up=True,
    validate=validate,
    takes=1.5,
    # It begins with little of what the teacher knows.
    least_steps=3000,
)
