"""Recipes and what has been measured go in; the seconds that each may take on this machine come out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from edgeopt.errors import EdgeoptError
from edgeopt.recipe import Recipe
from edgeopt.steps import Step, TrainedStep, Training
from edgeopt.techniques import technique

# Seconds of a small model, until something was measured.
_FILE_S, _TRIED_S = 2.0, 4.0
# What a technique on files takes, in times that the float file answers one sample, for each layer: samples that it
# fits on and is measured with, in a few passes.
_PASSES = 4 * 512
_SAMPLE_S = 1e-4
# Before a training there are graphs to build and ways to try, for each of its rounds.
_BEGINNING_S = 30.0
# Of a training, the least that is worth beginning with; of a long one it is the technique's `least_steps`.
LEAST_SHARE = 0.3
# An epoch is shortened by so many parts of the samples.
_PARTS = 8
# A round of cutting has at least so many epochs to recover in, where it is not the only one.
_EPOCHS_OF_ROUND = 2
# What was remembered from an earlier run says nothing of the next; what took less than this share was.
_REMEMBERED = 0.1


@dataclass
class Costs:
    """What things take here; it learns from what they took.

    Attributes:
        samples: to train on.
        layers: with weights.
        measure_training: gives the seconds of one training sample in one epoch of plain training; asked when needed.
        answering_s: of one sample, by the float file.
        file_s: to convert one file; tried_s: to measure it.
        factors: by what is done, how far off earlier guesses were.
        done: beginnings of recipes that are trained already, which the workspace remembers.
    """

    samples: int
    layers: int
    measure_training: Callable[[], float]
    answering_s: float = _SAMPLE_S
    file_s: float = _FILE_S
    tried_s: float = _TRIED_S
    factors: dict[str, float] = field(default_factory=dict)
    done: list[tuple[Step, ...]] = field(default_factory=list)

    def of(self, recipe: Recipe) -> float:
        """Returns the seconds that a recipe may take."""
        return self._files_s(recipe) + self._steps_s(recipe)

    def learn(self, recipe: Recipe, took_s: float) -> None:
        """Notes what a recipe took."""
        told, took = self._steps_s(recipe), took_s - self._files_s(recipe)
        if told and took > _REMEMBERED * told:
            for what, _ in self._parts(recipe):
                self.factors[what] = self.factors.get(what, 1.0) * took / told
        for number, step in enumerate(recipe.steps, start=1):
            if not isinstance(step, TrainedStep):
                break
            self.done.append(recipe.steps[:number])

    def shortened(self, recipe: Recipe, left_s: float) -> Recipe | None:
        """Returns the recipe with as much training as there is time for; None where that is too little to be worth it.

        Epochs go first, and of the last one samples: a step on samples that are new teaches more than one on the same.
        """
        return next((one for one in (recipe, *self._shorter(recipe)) if self.of(one) <= left_s), None)

    def _shorter(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yields a recipe with less and less training, as far as that may still do."""
        whole = max((training.epochs or 0 for _, training in trained(recipe)), default=0)
        for epochs in range(whole - 1, 0, -1):
            yield from self._worth_it(recipe, _with_less(recipe, epochs))
        for part in range(_PARTS - 1, 0, -1) if whole else ():
            yield from self._worth_it(recipe, _with_less(recipe, 1, self.samples * part // _PARTS))

    def _worth_it(self, recipe: Recipe, shorter: Recipe) -> Iterator[Recipe]:
        """Yields the shorter one, if every training in it is long enough."""
        for (step, before), (_, after) in zip(trained(recipe), trained(shorter)):
            least = min(LEAST_SHARE * self._steps(before), technique(step.technique).least_steps)
            if self._steps(after) < least:
                return
        yield shorter

    def steps(self, recipe: Recipe) -> int:
        """Returns how many training steps a recipe takes."""
        return sum(self._steps(training) for _, training in trained(recipe))

    def _steps(self, training: Training) -> int:
        return math.ceil(self._samples(training) / (training.batch_size or 1)) * (training.epochs or 0)

    def _samples(self, training: Training) -> int:
        return min(self.samples, training.train_samples or self.samples)

    @functools.cached_property
    def training_s(self) -> float:
        """Of one training sample in one epoch; no time where the model cannot be trained, as its steps will say."""
        try:
            return self.measure_training()
        except EdgeoptError:
            return 0.0

    def _files_s(self, recipe: Recipe) -> float:
        # A step is converted in the recipe's first scheme and as floats.
        files = 1 + len(recipe.schemes) + 2 * len(recipe.steps)
        return files * self.file_s + len(recipe.steps) * self.tried_s

    def _steps_s(self, recipe: Recipe) -> float:
        return sum(self.factors.get(what, 1.0) * guess for what, guess in self._parts(recipe))

    def _parts(self, recipe: Recipe) -> Iterator[tuple[str, float]]:
        """Yields what is done for the steps of a recipe that are not done yet, and the guess at its seconds."""
        for number, step in enumerate(recipe.steps, start=1):
            if recipe.steps[:number] in self.done:
                continue
            name = step.technique
            if isinstance(step, TrainedStep):
                training = step.training(recipe.training)
                yield f"{name}, beginning", _BEGINNING_S * getattr(step, "rounds", 1)
                if training.epochs:
                    taken = technique(name).takes * training.epochs * self._samples(training)
                    yield f"{name}, training", taken * self.training_s
            else:
                yield name, self.layers * _PASSES * self.answering_s


def trained(recipe: Recipe) -> list[tuple[TrainedStep, Training]]:
    """Returns the steps of a recipe that train something, and how."""
    steps = [(step, step.training(recipe.training)) for step in recipe.steps if isinstance(step, TrainedStep)]
    return [(step, training) for step, training in steps if training.epochs]


def _with_less(recipe: Recipe, epochs: int, samples: int | None = None) -> Recipe:
    """Returns a recipe that trains for at most so many epochs, on at most so many samples."""
    steps = (_shorter_step(step, recipe, epochs, samples) for step in recipe.steps)
    return replace(recipe, steps=tuple(steps))


def _shorter_step(step: Step, recipe: Recipe, epochs: int, samples: int | None) -> Step:
    training = step.training(recipe.training) if isinstance(step, TrainedStep) else None
    if training is None or not training.epochs:
        return step
    most: dict[str, Any] = {"epochs": min(epochs, training.epochs)}
    if samples is not None:
        most["train_samples"] = min(samples, training.train_samples or samples)
    if hasattr(step, "rounds"):
        most["rounds"] = max(1, min(step.rounds, most["epochs"] // _EPOCHS_OF_ROUND))
    return replace(step, **most)
