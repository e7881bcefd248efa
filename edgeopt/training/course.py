"""A model, samples and a choice go in; what a training and short trials of it have in common comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.chance import generator
from edgeopt.errors import DataError, setting
from edgeopt.training.stream import steps_per_epoch, stream

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.steps import Training
    from edgeopt.training.learner import Learner
    from edgeopt.training.optimizers import WarmupDecay

# Of the training samples, what is watched where the data have no tuning part.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Course:
    """What is trained, on what, and how; it may be trained any number of times.

    Attributes:
        model, trainee: what is trained, and what makes it learn.
        part, answers: what is trained on, and the teachers' answers to it where they are known beforehand.
        training: with every field but `patience` filled in.
        callbacks: tf_keras callbacks; they begin anew each time.
        seed: of order and augmentation.
        what: for the progress: "pruning".
    """

    model: Any
    trainee: Learner
    part: Part
    answers: tuple[np.ndarray, ...]
    training: Training
    callbacks: Sequence[Any]
    seed: int
    what: str

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return steps_per_epoch(len(self.part), self.training.batch_size or 1)

    @property
    def epochs(self) -> int:
        """Of the training."""
        return self.training.epochs or 1

    def compile(self, rate: float, *, steps: int | None = None) -> tuple[Any, WarmupDecay]:
        """Compiles what is trained; returns its optimizer and the schedule of that.

        Args:
            rate: the schedule's peak.
            steps: of an epoch, where they are not all.
        """
        from edgeopt.training.optimizers import optimizer_for, schedule_for

        schedule = schedule_for(self.training, rate, self.epochs * (steps or self.steps))
        optimizer = optimizer_for(self.training, schedule, self.trainee.trainable_variables)
        self.trainee.compile(optimizer)
        return optimizer, schedule

    def run(self, watch: Any, *, first_epoch: int = 0, steps: int | None = None) -> None:
        """Trains as it was compiled.

        Args:
            watch: a callback that comes after all others.
            first_epoch: where to go on.
            steps: of an epoch, where they are not all; the next epoch goes on with the samples that were left.
        """
        from edgeopt.training.callbacks import with_model

        batches = stream(
            self.part,
            batch_size=self.training.batch_size or 1,
            augment=self.training.augment or "none",
            seed=self.seed,
            first_epoch=first_epoch,
            beside=self.answers,
            targets=self.trainee.objective.targets,
        )
        self.trainee.fit(
            batches,
            initial_epoch=first_epoch,
            epochs=self.epochs,
            steps_per_epoch=steps or self.steps,
            shuffle=False,
            verbose=0,
            callbacks=[*(with_model(callback, self.model) for callback in self.callbacks), watch],
        )


def held_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the samples that are left to train on, and of those held out of `count`.

    Raises:
        DataError: there are too few.
    """
    order = generator(seed, "samples held out").permutation(count)
    held = max(1, round(HELD_OUT * count))
    if held >= count:
        raise DataError(
            f"Expected samples to train on and to watch for early stopping, got {count}. "
            f"Try without {setting('patience')}."
        )
    return order[held:], order[:held]
