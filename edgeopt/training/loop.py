"""The training that all techniques share: a model, data and what is said about it go in; what was done comes out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import data as datasets
from edgeopt import graph
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.training.hints import Hint
from edgeopt.training.objective import Objective, objective
from edgeopt.training.stream import steps_per_epoch, stream

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.steps import Training

# Of the training samples, what early stopping watches: validation samples are for the final score alone.
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
    from edgeopt.training.optimizers import optimizer_for

    start = time.perf_counter()
    # TrainedStep.training left nothing unsaid.
    assert training.epochs
    assert training.batch_size
    assert training.augment
    assert training.learning_rate
    part = _bound(model, data.training)
    if not len(part):
        raise DataError("Expected training samples, got none. Try --train-data, or data with a train split.")
    load("tf_keras").utils.set_random_seed(seed)
    watched = None
    if training.patience is not None:
        part, watched = _divided(part, seed)
    aim = objective(model, part, training, taught=bool(teachers))
    trainee: Any = model
    beside: tuple[np.ndarray, ...] = ()
    if teachers:
        from edgeopt.training.teaching import distiller

        trainee, beside = distiller(model, part, training, teachers, aim, hints=hints, hint_weight=hint_weight)
    elif hints:
        raise ConfigError("Expected a teacher to take hints from, got none. Try without hints.")
    per_epoch, epochs = steps_per_epoch(len(part), training.batch_size), training.epochs
    optimizer = optimizer_for(training, epochs * per_epoch, trainee.trainable_variables)
    trainee.compile(
        optimizer, loss=aim.loss if aim and not teachers else None, metrics=list(aim.metrics) if aim else None
    )
    keeper = Keeper(
        {"model": trainee, "optimizer": optimizer},
        folder,
        _key(model, part, training, seed, [len(teachers), [asdict(hint) for hint in hints], hint_weight]),
    )
    anew = keeper.restore()
    if not keeper.state.finished:
        done = len(keeper.state.history)
        trainee.fit(
            stream(
                part,
                batch_size=training.batch_size,
                augment=training.augment,
                seed=seed,
                first_epoch=done,
                beside=beside,
                one_hot=None if aim is None else aim.one_hot,
                labels=aim is not None,
            ),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=per_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[
                *(with_model(callback, model) for callback in callbacks),
                Watch(
                    keeper,
                    what=what,
                    steps=per_epoch,
                    epochs=epochs,
                    peak=training.learning_rate,
                    logs=folder / "logs",
                    validate=None if watched is None else _loss_on(watched, trainee, aim),
                    patience=training.patience,
                    settled_epoch=min(settled_epoch, epochs - 1),
                ),
            ],
        )
    notes = (*([anew] if anew else []), *keeper.state.notes)
    return Fit(tuple(keeper.state.history), time.perf_counter() - start, notes)


def _bound(model: Any, part: Part) -> Part:
    return datasets.bind(part, graph.input_specs(model))


def _divided(part: Part, seed: int) -> tuple[Part, Part]:
    order = np.random.default_rng(seed).permutation(len(part))
    held_out = max(1, round(HELD_OUT * len(part)))
    if held_out >= len(part):
        raise DataError(
            f"Expected samples to train on and to watch for early stopping, got {len(part)}. Try without patience."
        )
    return part.subset(order[held_out:]), part.subset(order[:held_out])


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
