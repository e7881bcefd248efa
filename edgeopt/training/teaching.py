"""A student, its teachers and data go in; the Distiller and the answers that can be had beforehand come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import graph, progress
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.training.distiller import Distiller, as_logits, softened
from edgeopt.training.hints import Hint, Hints
from edgeopt.training.objective import Objective, gives_probabilities
from edgeopt.training.stream import fits_memory

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.steps import Training


def distiller(
    student: Any,
    part: Part,
    training: Training,
    teachers: Sequence[Any],
    aim: Objective | None,
    *,
    hints: Sequence[Hint],
    hint_weight: float,
) -> tuple[Distiller, tuple[np.ndarray, ...]]:
    """Returns what trains `student`, and the teachers' answers to all samples in the part's order.

    The answers are had beforehand where samples are not varied and they fit memory; else there are none, and the
    teachers are asked in each step.

    Args:
        student: a tf_keras model.
        part: bound to its inputs.
        training: with temperature, alpha and augmentation filled in.
        teachers: tf_keras models with inputs and outputs as the student's.
        aim: what is learned from labels, if anything.
        hints, hint_weight: what is learned from the insides of the first teacher.

    Raises:
        ConfigError: a teacher does not fit the student, or a hint neither.
    """
    for teacher in teachers:
        _require_like(student, teacher)
    count = len(student.outputs)
    temperature, alpha = training.temperature or 1.0, 0.5 if training.alpha is None else training.alpha
    asked = [_taking_inputs_of(student, teacher) for teacher in teachers]
    probabilities = [[gives_probabilities(teacher, part, index) for index in range(count)] for teacher in asked]
    # A teacher's class scores are softened; so are logits where the labels are classes.
    classes = part.classes is not None and count == 1 and student.outputs[0].shape[-1] not in (1, None)
    soft = [classes or all(gives[index] for gives in probabilities) for index in range(count)]
    teach = teaching(asked, soft=soft, probabilities=probabilities, temperature=temperature)
    shapes = [tuple(output.shape[1:]) for output in student.outputs]
    cached = training.augment == "none" and not hints and fits_memory(part, shapes)
    trainee = Distiller(
        student,
        teach,
        soft=soft,
        probabilities=[gives_probabilities(student, part, index) for index in range(count)],
        temperature=temperature,
        alpha=alpha,
        objective=aim,
        told=cached,
        hints=Hints(hints, student, asked[0]) if hints else None,
        hint_weight=hint_weight,
    )
    return trainee, answers(teach, part) if cached else ()


def teaching(
    teachers: Sequence[Any], *, soft: Sequence[bool], probabilities: Sequence[Sequence[bool]], temperature: float
) -> Callable[[Any], list[Any]]:
    """Returns the function that answers for `teachers`: the mean of their (softened) outputs, for each output.

    Args:
        teachers: tf_keras models, called in inference.
        soft: for each output, whether it tells classes apart.
        probabilities: for each teacher and output, whether it gives probabilities.
        temperature: T.
    """
    tf = load("tensorflow")

    def teach(inputs: Any) -> list[Any]:
        found: list[list[Any]] = [[] for _ in soft]
        for teacher, gives in zip(teachers, probabilities):
            outputs = teacher(inputs, training=False)
            for index, output in enumerate(outputs if isinstance(outputs, (list, tuple)) else [outputs]):
                if soft[index]:
                    output = softened(as_logits(output, probabilities=gives[index]), temperature)
                found[index].append(output)
        return [tf.stop_gradient(tf.add_n(each) / len(each)) for each in found]

    return teach


def answers(teach: Callable[[Any], Sequence[Any]], part: Part) -> tuple[np.ndarray, ...]:
    """Returns what `teach` gives for all samples, in the part's order."""
    tf = load("tensorflow")
    function = tf.function(teach, reduce_retracing=True)
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
