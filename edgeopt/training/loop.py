"""The training that all techniques share: a model, data and what is said about it go in; what was done comes out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import data as datasets
from edgeopt import files, graph
from edgeopt.chance import seed_for
from edgeopt.errors import DataError
from edgeopt.frameworks import load
from edgeopt.tasks.losses import UNSAID, Goal
from edgeopt.training.augmentation import AUTO, resolved
from edgeopt.training.course import Course, held_out
from edgeopt.training.hints import Hint
from edgeopt.training.objective import Objective, objective
from edgeopt.training.probing import Trials, choose
from edgeopt.training.stream import can_follow
from edgeopt.training.watching import Watched, some

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.steps import Training


@dataclass(frozen=True)
class Fit:
    """What a training did.

    Attributes:
        history: a row for each epoch: loss, accuracy, learning_rate …
        seconds: of this process.
        notes: what is worth saying.
        ended: those of them that say why it stopped before its end, or which epoch its weights are of.
    """

    history: tuple[dict[str, float], ...]
    seconds: float
    notes: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


def fit(
    model: Any,
    data: Dataset,
    training: Training,
    *,
    teachers: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    goal: Goal = UNSAID,
    folder: Path,
    seed: int = 0,
    what: str = "training",
    hints: Sequence[Hint] = (),
    hint_weight: float = 1.0,
    settled_epoch: int | None = None,
    free_rate: bool = False,
) -> Fit:
    """Trains `model` in place on `data.training`.

    Its weights are scored on the tuning part after every epoch. What is kept are the last ones, or those of an epoch
    that did better beyond chance.

    Args:
        model: a tf_keras model.
        data: bound to the model's inputs or not.
        training: with every field but `patience` filled in.
        teachers: whom it learns from beside the labels, models with outputs of the same shapes.
        callbacks: tf_keras callbacks; their model is `model`. They begin anew with each training.
        goal: what is known of its outputs: their tasks, and the losses that it was compiled with.
        folder: holds checkpoints and TensorBoard logs. One that holds those of the same training, killed, is gone on
            with from its last checkpoint; a finished one is not trained again.
        seed: of the order, the augmentation and dropout.
        what: for the progress: "pruning".
        hints, hint_weight: layers that imitate layers of the first teacher, and their weight in the loss.
        settled_epoch: the first epoch (from 0) whose weights may be the best; None: those before any training too.
        free_rate: the learning rate is chosen by short trials around the one that `training` names, where it is long
            enough for that; see `probing`.

    Returns:
        What was done. Where the loss turned NaN the weights are those of the last good epoch.

    Raises:
        ConfigError: the loss was no number before one epoch was over, there is nothing to augment, a teacher or a
            hint does not fit.
        DataError: there are no training samples, or labels are missing or do not fit.
    """
    from edgeopt.training.callbacks import Keeper, Watch
    from edgeopt.training.teaching import learner

    start = time.perf_counter()
    # TrainedStep.training left nothing unsaid.
    assert training.epochs
    assert training.batch_size
    assert training.augment
    assert training.learning_rate

    # Whom it learns from, and what.
    part, watched = _samples(model, data, training, seed)
    load("tf_keras").utils.set_random_seed(seed_for(seed, "dropout and new weights"))
    aims = objective(model, part, training, goal, taught=bool(teachers))
    how, varied = varying(training, part, aims, taught=bool(teachers))
    trainee, answers = learner(model, part, how, teachers, aims, hints=hints, hint_weight=hint_weight)
    course = Course(model, trainee, part, answers, how, callbacks, seed, what)
    key = _key(model, part, how, seed, [len(teachers), [asdict(hint) for hint in hints], hint_weight, free_rate])
    rate, notes = _rate(course, watched, folder, key) if free_rate else (training.learning_rate, ())
    optimizer, _ = course.compile(rate)

    # What a killed one had done.
    keeper = Keeper({"model": trainee, "optimizer": optimizer}, folder, key)
    begun_anew = keeper.restore()

    if not keeper.state.finished:
        watch = Watch(
            keeper,
            what=what,
            steps=course.steps,
            epochs=training.epochs,
            peak=rate,
            logs=folder / "logs",
            losses=None if watched is None else Watched(watched, trainee).losses,
            patience=training.patience,
            settled_epoch=None if settled_epoch is None else min(settled_epoch, training.epochs - 1),
        )
        course.run(watch, first_epoch=len(keeper.state.history))
    ended = tuple(keeper.state.notes)
    notes = (*((begun_anew,) if begun_anew else ()), *notes, *ended, *aims.notes, *varied)
    return Fit(tuple(keeper.state.history), time.perf_counter() - start, notes, ended)


def varying(training: Training, part: Part, aims: Objective, *, taught: bool) -> tuple[Training, tuple[str, ...]]:
    """Returns the training with the augmentation that is meant, and what is to be said about it.

    Raises:
        ConfigError: there is no such augmentation, or nothing to augment.
    """
    asked = training.augment or "none"
    meant = resolved(asked, part.specs, taught=taught)
    if asked != AUTO or meant == "none":
        return replace(training, augment=meant), ()
    if not can_follow(part, aims.targets):
        return replace(training, augment="none"), ()
    return replace(training, augment=meant), (f"samples varied as {meant}, since a teacher answers for them",)


def _samples(model: Any, data: Dataset, training: Training, seed: int) -> tuple[Part, Part | None]:
    """Returns what is trained on, bound to the model's inputs, and what is scored after each epoch.

    That is the tuning part. Where there is none nothing is scored, but for early stopping: that takes a share of the
    training samples, which are then not trained on.

    Raises:
        DataError: there are too few samples.
    """
    part = datasets.bind(data.training, graph.input_specs(model))
    if not len(part):
        raise DataError("Expected training samples, got none. Try --train-data, or data with a train split.")
    if len(data.tuning):
        return part, some(datasets.bind(data.tuning, graph.input_specs(model)), seed=seed)
    if training.patience is None:
        return part, None
    kept, held = held_out(len(part), seed)
    return part.subset(kept), part.subset(held)


def _rate(course: Course, watched: Part | None, folder: Path, key: str) -> tuple[float, tuple[str, ...]]:
    """Returns a training's learning rate, and how it was chosen; what was chosen before a kill stays."""
    file, default = folder / "rate.json", course.training.learning_rate or 0.0
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(file.read_text())
        if kept["key"] == key:
            return float(kept["rate"]), (str(kept["words"]),)
    trials = Trials.of(course, watched)
    if trials is None:
        return default, ()
    chosen = choose(default, trials.losses_at)
    words = chosen.words(default)
    folder.mkdir(parents=True, exist_ok=True)
    files.atomic_write(file, json.dumps({"key": key, "rate": chosen.rate, "words": words}))
    return chosen.rate, (words,)


def _key(model: Any, part: Part, training: Training, seed: int, more: Sequence[Any]) -> str:
    """Returns a hash of what makes two trainings the same, but for their weights and samples themselves."""
    weights = [list(weight.shape) for weight in model.weights]
    said = [asdict(training), seed, len(part), [spec.name for spec in part.specs], weights, list(more)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
