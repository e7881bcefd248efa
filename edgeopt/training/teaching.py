"""A student, its teachers and data go in; the Learner and the answers that can be had beforehand come out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import graph, progress
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.training.hints import Hint, Hints
from edgeopt.training.imitation import Manner, are_probabilities, kind_of
from edgeopt.training.learner import Learner, Teach
from edgeopt.training.losses import scaled_squared_error
from edgeopt.training.objective import Objective, some_outputs, spread_of
from edgeopt.training.stream import fits_memory

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.steps import Training


def learner(
    student: Any,
    part: Part,
    training: Training,
    teachers: Sequence[Any],
    aims: Objective,
    *,
    hints: Sequence[Hint],
    hint_weight: float,
) -> tuple[Learner, tuple[np.ndarray, ...]]:
    """Returns what trains `student`, and the teachers' answers to all samples in the part's order.

    The answers are had beforehand where samples are not varied and they fit memory; else there are none, and the
    teachers are asked in each step.

    Args:
        student: a tf_keras model.
        part: bound to its inputs.
        training: with temperature, alpha and augmentation filled in.
        teachers: tf_keras models with inputs and outputs as the student's; none where it learns from labels alone.
        aims: what is learned from labels.
        hints, hint_weight: what is learned from the insides of the first teacher.

    Raises:
        ConfigError: a teacher does not fit the student, or a hint neither, or there are hints and nobody to give them.
    """
    if not teachers:
        if hints:
            raise ConfigError("Expected a teacher to take hints from, got none. Try without hints.")
        return Learner(student, aims, weighted=part.has_weights), ()
    for teacher in teachers:
        _require_like(student, teacher)
    asked = [_taking_inputs_of(student, teacher) for teacher in teachers]
    theirs = [some_outputs(teacher, part) for teacher in asked]
    temperature = training.temperature or 1.0
    manners = tuple(
        _manner(aims, index, [outputs[index] for outputs in theirs], ours, temperature)
        for index, ours in enumerate(some_outputs(student, part))
    )
    probabilities = [[are_probabilities(m.kind, o) for m, o in zip(manners, outputs)] for outputs in theirs]
    hinted = Hints(hints, student, asked[0]) if hints else None
    teach = teaching(asked, manners=manners, probabilities=probabilities, hints=hinted)
    shapes = [tuple(output.shape[1:]) for output in student.outputs]
    cached = training.augment == "none" and not hints and fits_memory(part, shapes)
    trainee = Learner(
        student,
        aims,
        teach,
        manners=manners,
        alpha=0.5 if training.alpha is None else training.alpha,
        told=cached,
        hints=hinted,
        hint_weight=hint_weight,
        weighted=part.has_weights,
    )
    return trainee, answers(teach, part) if cached else ()


def _manner(aims: Objective, index: int, theirs: Sequence[np.ndarray], ours: np.ndarray, temperature: float) -> Manner:
    """Returns how an output imitates.

    Values are as far apart as the loss that is known for them says; where none is, and there are several outputs, each
    is measured in its own spread.
    """
    task, aim = aims.tasks[index], aims.aim(index)
    kinds = {kind_of(task, outputs) for outputs in theirs}
    kind = kinds.pop() if len(kinds) == 1 else "values"
    distance = None
    if kind == "values":
        if aim is not None and aim.known:
            distance = aim.loss
        elif len(aims.outputs) > 1:
            distance = scaled_squared_error(spread_of(theirs[0]))
    return Manner(kind, are_probabilities(kind, ours), temperature, distance)


def teaching(
    teachers: Sequence[Any],
    *,
    manners: Sequence[Manner],
    probabilities: Sequence[Sequence[bool]],
    hints: Hints | None = None,
) -> Teach:
    """Returns the function that answers for `teachers`: the mean of what they tell of each output, and the features
    of the first that are hinted at.

    Args:
        teachers: tf_keras models, called in inference.
        manners: how each output is told.
        probabilities: for each teacher and output, whether it gives probabilities.
        hints: on layers of the first.
    """
    tf = load("tensorflow")

    def teach(inputs: Any) -> tuple[list[Any], list[Any]]:
        found: list[list[Any]] = [[] for _ in manners]
        features: list[Any] = []
        for number, (teacher, gives) in enumerate(zip(teachers, probabilities)):
            if hints is not None and number == 0:
                outputs, features = hints.told(inputs)
            else:
                outputs = teacher(inputs, training=False)
            for index, output in enumerate(outputs if isinstance(outputs, (list, tuple)) else [outputs]):
                found[index].append(manners[index].told(output, probabilities=gives[index]))
        return [tf.stop_gradient(tf.add_n(each) / len(each)) for each in found], features

    return teach


def answers(teach: Teach, part: Part) -> tuple[np.ndarray, ...]:
    """Returns what `teach` answers to all samples, in the part's order."""
    tf = load("tensorflow")
    function = tf.function(lambda inputs: teach(inputs)[0], reduce_retracing=True)
    found = []
    for batch in progress.track(part.batches(256), "asking the teacher", math.ceil(len(part) / 256)):
        inputs = [tf.constant(batch.inputs[spec.name]) for spec in part.specs]
        found.append([answer.numpy() for answer in function(inputs[0] if len(inputs) == 1 else tuple(inputs))])
    return tuple(np.concatenate(each) for each in zip(*found))


def _taking_inputs_of(student: Any, teacher: Any) -> Any:
    """Returns `teacher` with its inputs in the student's order, which is by name where the names are the same."""
    ours = [name for name, _ in graph.input_names(student)]
    theirs = dict(graph.input_names(teacher))
    if len(ours) == 1 or set(ours) != set(theirs) or list(theirs) == ours:
        return teacher
    return load("tf_keras").Model([theirs[name] for name in ours], teacher.outputs)


def _require_like(student: Any, teacher: Any) -> None:
    for what, ours, theirs in (
        ("inputs", _shapes(student.inputs), _shapes(teacher.inputs)),
        ("outputs", _shapes(student.outputs), _shapes(teacher.outputs)),
    ):
        if sorted(ours) != sorted(theirs) if what == "inputs" else ours != theirs:
            raise ConfigError(
                f"Expected a student whose {what} are the teacher's, {theirs}, got {ours}. "
                "Try a student built for the same samples and classes."
            )


def _shapes(tensors: Sequence[Any]) -> list[str]:
    return ["x".join("any" if size is None else str(size) for size in tensor.shape[1:]) or "1" for tensor in tensors]
