"""A model, data and a choice go in; how long one sample takes in training here comes out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeopt.frameworks import load
from edgeopt.tasks.losses import UNSAID, Goal
from edgeopt.training.course import Course
from edgeopt.training.loop import _samples, varying
from edgeopt.training.objective import objective
from edgeopt.training.teaching import learner

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.steps import Training

# Training steps that are timed, after those in which the graph is built.
_STEPS, _FIRST = 6, 2


def sample_seconds(
    model: Any, data: Dataset, training: Training, *, teachers: tuple[Any, ...] = (), goal: Goal = UNSAID
) -> float:
    """Returns the seconds that one training sample takes, by a few steps; `model` is trained by them.

    Raises:
        ConfigError, DataError: see `fit`.
    """
    part, _ = _samples(model, data, training, seed=0)
    batch = min(training.batch_size or 1, len(part))
    part = part.take(batch * (_FIRST + _STEPS))
    aims = objective(model, part, training, goal, taught=bool(teachers))
    once, _ = varying(replace(training, epochs=1), part, aims, taught=bool(teachers))
    trainee, answers = learner(model, part, once, teachers, aims, hints=(), hint_weight=1.0)
    course = Course(model, trainee, part, answers, once, (), 0, "timing training steps")
    course.compile(training.learning_rate or 0.0)
    ends: list[float] = []
    watch = load("tf_keras").callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: ends.append(time.perf_counter())
    )
    begun = time.perf_counter()
    course.run(watch)
    timed = ends[_FIRST:] or ends
    since = ends[_FIRST - 1] if len(ends) > _FIRST else begun
    return (timed[-1] - since) / (len(timed) * batch)
