"""The training that all techniques share: a model, data and what is said about it go in; what was done comes out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import data as datasets
from edgeopt import graph
from edgeopt.chance import generator, seed_for
from edgeopt.data.labels import Labels, class_numbers
from edgeopt.errors import ConfigError, DataError, setting
from edgeopt.frameworks import load
from edgeopt.training.hints import Hint
from edgeopt.training.objective import Objective, objective
from edgeopt.training.stream import steps_per_epoch, stream

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.steps import Training

# Of the training samples, what early stopping watches where the data have no tuning part.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Fit:
    """What a training did.

    Attributes:
        history: a row for each epoch: loss, accuracy, learning_rate …
        seconds: of this process.
        notes: what is worth saying, as a stop before the end.
    """

    history: tuple[dict[str, float], ...]
    seconds: float
    notes: tuple[str, ...] = ()


def fit(
    model: Any,
    data: Dataset,
    training: Training,
    *,
    teachers: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    folder: Path,
    seed: int = 0,
    what: str = "training",
    hints: Sequence[Hint] = (),
    hint_weight: float = 1.0,
    settled_epoch: int = 0,
) -> Fit:
    """Trains `model` in place on `data.training`.

    Args:
        model: a tf_keras model.
        data: bound to the model's inputs or not.
        training: with every field but `patience` filled in.
        teachers: whom it learns from beside the labels, models with outputs of the same shapes.
        callbacks: tf_keras callbacks; their model is `model`.
        folder: holds checkpoints and TensorBoard logs. One that holds those of the same training, killed, is gone on
            with from its last checkpoint; a finished one is not trained again.
        seed: of the order, the augmentation and dropout.
        what: for the progress: "pruning".
        hints, hint_weight: layers that imitate layers of the first teacher, and their weight in the loss.
        settled_epoch: the first epoch (from 0) whose weights early stopping may take for the best.

    Returns:
        What was done. Where the loss turned NaN the weights are those of the last good epoch.

    Raises:
        ConfigError: the loss was no number before one epoch was over, there is nothing to augment, a teacher or a
            hint does not fit.
        DataError: there are no training samples, or labels are missing or do not fit.
    """
    from edgeopt.training.callbacks import Keeper, Watch, with_model

    start = time.perf_counter()
    # TrainedStep.training left nothing unsaid.
    assert training.epochs
    assert training.batch_size
    assert training.augment
    assert training.learning_rate

    # Whom it learns from, and what.
    part, watched = _samples(model, data, training, seed)
    load("tf_keras").utils.set_random_seed(seed_for(seed, "dropout and new weights"))
    aim = objective(model, part, training, taught=bool(teachers))
    trainee, answers = _trainee(model, part, training, teachers, aim, hints, hint_weight)
    steps = steps_per_epoch(len(part), training.batch_size)
    optimizer = _compiled(trainee, training, aim, training.epochs * steps, taught=bool(teachers))

    # What a killed one had done.
    beside = [len(teachers), [asdict(hint) for hint in hints], hint_weight]
    keeper = Keeper({"model": trainee, "optimizer": optimizer}, folder, _key(model, part, training, seed, beside))
    begun_anew = keeper.restore()

    if not keeper.state.finished:
        done = len(keeper.state.history)
        watch = Watch(
            keeper,
            what=what,
            steps=steps,
            epochs=training.epochs,
            peak=training.learning_rate,
            logs=folder / "logs",
            validate=None if watched is None else _loss_on(watched, trainee, aim),
            patience=training.patience,
            settled_epoch=min(settled_epoch, training.epochs - 1),
        )
        trainee.fit(
            stream(
                part,
                batch_size=training.batch_size,
                augment=training.augment,
                seed=seed,
                first_epoch=done,
                beside=answers,
                one_hot=None if aim is None else aim.one_hot,
                labels=aim is not None,
            ),
            initial_epoch=done,
            epochs=training.epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=[*(with_model(callback, model) for callback in callbacks), watch],
        )
    notes = (begun_anew, *keeper.state.notes) if begun_anew else tuple(keeper.state.notes)
    return Fit(tuple(keeper.state.history), time.perf_counter() - start, notes)


def _samples(model: Any, data: Dataset, training: Training, seed: int) -> tuple[Part, Part | None]:
    """Returns what is trained on, bound to the model's inputs, and what early stopping watches, where it is asked for.

    That is the tuning part, or a share of the training samples, which are then not trained on.

    Raises:
        DataError: there are too few samples.
    """
    part = datasets.bind(data.training, graph.input_specs(model))
    if not len(part):
        raise DataError("Expected training samples, got none. Try --train-data, or data with a train split.")
    part = _with_classes(part, model)
    if training.patience is None:
        return part, None
    if len(data.tuning):
        return part, _with_classes(datasets.bind(data.tuning, graph.input_specs(model)), model)
    order = generator(seed, "samples held out").permutation(len(part))
    held_out = max(1, round(HELD_OUT * len(part)))
    if held_out >= len(part):
        raise DataError(
            f"Expected samples to train on and to watch for early stopping, got {len(part)}. "
            f"Try without {setting('patience')}."
        )
    return part.subset(order[held_out:]), part.subset(order[:held_out])


def _with_classes(part: Part, model: Any) -> Part:
    """Returns the part with class numbers, where its values are such for a model that tells classes apart."""
    shape = model.outputs[0].shape[1:]
    if part.labels.kind != "values" or len(model.outputs) != 1 or len(shape) != 1 or shape[0] is None:
        return part
    targets = part.table.targets()
    numbers = None if targets is None else class_numbers(targets, shape)
    return part if numbers is None else replace(part, labels=Labels("classes", numbers, shape[0]))


def _trainee(
    model: Any,
    part: Part,
    training: Training,
    teachers: Sequence[Any],
    aim: Objective | None,
    hints: Sequence[Hint],
    hint_weight: float,
) -> tuple[Any, tuple[np.ndarray, ...]]:
    """Returns what is trained, the model or what teaches it, and the teachers' answers that are known beforehand.

    Raises:
        ConfigError: there are hints, and nobody to give them.
    """
    if not teachers:
        if hints:
            raise ConfigError("Expected a teacher to take hints from, got none. Try without hints.")
        return model, ()
    from edgeopt.training.teaching import distiller

    return distiller(model, part, training, teachers, aim, hints=hints, hint_weight=hint_weight)


def _compiled(trainee: Any, training: Training, aim: Objective | None, steps: int, *, taught: bool) -> Any:
    """Compiles what is trained, for so many steps, and returns its optimizer; what is taught has a loss of its own."""
    from edgeopt.training.optimizers import optimizer_for

    optimizer = optimizer_for(training, steps, trainee.trainable_variables)
    loss = aim.loss if aim and not taught else None
    trainee.compile(optimizer, loss=loss, metrics=list(aim.metrics) if aim else None)
    return optimizer


def _key(model: Any, part: Part, training: Training, seed: int, more: Sequence[Any]) -> str:
    """Returns a hash of what makes two trainings the same, but for their weights and samples themselves."""
    weights = [list(weight.shape) for weight in model.weights]
    said = [asdict(training), seed, len(part), [spec.name for spec in part.specs], weights, list(more)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _loss_on(part: Part, trainee: Any, aim: Objective | None) -> Callable[[], float]:
    """Returns the function that measures the mean loss on samples that are not trained on.

    It is the labels' loss, or the teachers' where there are no labels.
    """
    tf = load("tensorflow")

    @tf.function(reduce_retracing=True)
    def loss_of(inputs: Any, labels: Any) -> Any:
        outputs = trainee(inputs, training=False)
        if aim is not None:
            return aim.mean(labels, outputs)
        several = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return trainee.imitation(trainee.teach(inputs), several)

    def measure() -> float:
        total = 0.0
        for batch in part.batches(256):
            inputs = [tf.constant(batch.inputs[spec.name]) for spec in part.specs]
            labels = batch.labels
            if aim is not None and aim.one_hot is not None:
                labels = tf.one_hot(labels, aim.one_hot)
            total += float(loss_of(inputs[0] if len(inputs) == 1 else tuple(inputs), labels)) * len(batch)
        return total / len(part)

    return measure
