"""A learning rate and a way to try one go in; the rate that a training is best done with comes out.

A trial is the whole training in short: it begins with the same weights and the same samples, and its schedules (warm-up
and decay of the rate, the rise of sparsity, the averages of BatchNormalization) run through in a small share of the
steps. A trial that stopped half-way down the schedule would always prefer small rates, whose weights are at rest at any
time (Wu et al., "Understanding Short-Horizon Bias in Stochastic Meta-Optimization", arXiv 1803.02021).

What is tried first is the rate that the technique has by default, and a smaller one. The better one says where to go
on, until nothing is gained: a grid of rates is not searched, it is climbed.

The teacher's weight is not tried: trials rank it the wrong way round. In few steps a model comes back soonest by the
teacher's answers; what labels bring comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import progress
from edgeopt.training.course import Course, held_out
from edgeopt.training.watching import Watched, is_better, some

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.training.optimizers import WarmupDecay

# Of a training's steps, what a trial takes.
SHARE = 0.04
# Fewer steps tell nothing of a rate; where they are more than this share of the training, none is tried.
LEAST_STEPS, LARGEST_SHARE = 50, 0.1
# Rates lie so far apart: closer ones do the same within what can be told.
RATIO = 10**0.5
# Trials of one training, at most.
MOST = 4


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        rate: the learning rate.
        tried: the mean loss by rate, in the order of the trials.
    """

    rate: float
    tried: tuple[tuple[float, float], ...]

    def words(self, default: float) -> str:
        """Returns what was chosen and why, for people."""
        losses = ", ".join(f"{loss:.4g} at {rate:g}" for rate, loss in self.tried)
        if self.rate == default:
            return f"learning rate {self.rate:g}, the default: no other did better in short trials (loss {losses})"
        return f"learning rate {self.rate:g} instead of {default:g}: the best of short trials (loss {losses})"


def choose(default: float, losses_at: Callable[[float], np.ndarray]) -> Choice:
    """Returns the best rate on a grid around the default; the default where chance may explain the difference.

    Args:
        default: the middle of the grid.
        losses_at: does a trial at a rate, and returns the loss of each watched sample after it.
    """
    tried: dict[float, np.ndarray] = {}

    def losses(power: int) -> np.ndarray:
        rate = _rate(default, power)
        if rate not in tried:
            tried[rate] = losses_at(rate)
        return tried[rate]

    best = 0
    losses(best)
    for direction in (-1, 1):
        while len(tried) < MOST and is_better(losses(best + direction), losses(best)):
            best += direction
        if best:
            break
    means = tuple((rate, float(np.mean(each))) for rate, each in tried.items())
    return Choice(_rate(default, best), means)


def _rate(default: float, power: int) -> float:
    """Returns a rate of the grid, such as people write them."""
    return default if not power else float(f"{default * RATIO**power:.1g}")


@dataclass
class Trials:
    """Short trainings of one model from the same weights; it is left as it was.

    Attributes:
        course: of the training that they are trials of, on fewer samples where some of them are watched.
        watched: what tells how good a trial was.
        steps: of an epoch.
        optimizer, schedule: what all of them are compiled with.
        weights: what all begin with.
    """

    course: Course
    watched: Watched
    steps: int
    optimizer: Any
    schedule: WarmupDecay
    weights: list[np.ndarray]
    done: int = 0

    @property
    def share(self) -> float:
        """Of the training's steps, what a trial takes."""
        return self.steps / self.course.steps

    @classmethod
    def of(cls, course: Course, watched: Part | None) -> Trials | None:
        """Returns the trials of a training; None where it is too short for any to tell something.

        Args:
            watched: samples that are not trained on; None: a share of the training samples is held out.
        """
        steps = max(1, round(max(SHARE * course.steps, LEAST_STEPS / course.epochs)))
        if steps > LARGEST_SHARE * course.steps or len(course.part) < 2:
            return None
        if watched is None:
            kept, held = held_out(len(course.part), course.seed)
            watched = some(course.part.subset(held), seed=course.seed)
            answers = tuple(each[kept] for each in course.answers)
            course = replace(course, part=course.part.subset(kept), answers=answers)
        optimizer, schedule = course.compile(course.training.learning_rate or 0.0, steps=steps)
        found = Watched(watched, course.trainee)
        return cls(course, found, steps, optimizer, schedule, course.trainee.get_weights())

    def losses_at(self, rate: float) -> np.ndarray:
        """Returns the loss of each watched sample after a trial at a learning rate; NaN where it did not converge."""
        from edgeopt.training.callbacks import Trial
        from edgeopt.training.optimizers import start_anew

        start_anew(self.optimizer)
        self.schedule.peak.assign(rate)
        total = self.course.epochs * self.steps
        words = f"{rate:g}, trial {self.done + 1} of at most {MOST}, {self.share:.0%} of the training each"
        watch = Trial(lambda steps: progress.tell("trying learning rates", steps, total, words))
        with _time_compressed(self.course.model, self.share):
            self.course.run(watch, steps=self.steps)
            losses = self.watched.losses()
        self.course.trainee.set_weights(self.weights)
        self.done += 1
        return losses


@contextmanager
def _time_compressed(model: Any, share: float) -> Iterator[None]:
    """Lets the averages of BatchNormalization forget within a trial what they forget within the whole training."""
    layers = [layer for layer in model.submodules if hasattr(layer, "moving_variance") and hasattr(layer, "momentum")]
    before = [layer.momentum for layer in layers]
    for layer, momentum in zip(layers, before):
        layer.momentum = momentum ** (1 / share)
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before):
            layer.momentum = momentum
