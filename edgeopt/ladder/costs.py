"""Recipes and what has been measured go in; the seconds that each may take on this machine come out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edgeopt.errors import EdgeoptError
from edgeopt.recipe import Recipe
from edgeopt.steps import Step, TrainedStep
from edgeopt.techniques import technique

# Seconds of a small model, until something was measured.
_FILE_S, _TRIED_S = 2.0, 4.0
# What a technique on files takes, in times that the float file answers one sample, for each layer: samples that it
# fits on and is measured with, in a few passes.
_PASSES = 4 * 512
_SAMPLE_S = 1e-4
# Before a training there are graphs to build and ways to try, for each of its rounds.
_BEGINNING_S = 30.0
# Of a training's epochs, the fewest that are worth beginning with.
LEAST_SHARE = 0.3


@dataclass
class Costs:
    """What things take here; it learns from what they took.

    Attributes:
        samples: to train on.
        layers: with weights.
        measure_training: gives the seconds of one training sample in one epoch of plain training; asked when needed.
        answering_s: of one sample, by the float file.
        file_s: to convert one file; tried_s: to measure it.
        factors: by a recipe's techniques, how far off earlier guesses were.
        done: beginnings of recipes that are trained already, which the workspace remembers.
    """

    samples: int
    layers: int
    measure_training: Callable[[], float]
    answering_s: float = _SAMPLE_S
    file_s: float = _FILE_S
    tried_s: float = _TRIED_S
    factors: dict[tuple[str, ...], float] = field(default_factory=dict)
    done: list[tuple[Step, ...]] = field(default_factory=list)

    def of(self, recipe: Recipe) -> float:
        """Returns the seconds that a recipe may take."""
        return self._guessed(recipe) * self._factor(recipe)

    def learn(self, recipe: Recipe, took_s: float) -> None:
        """Notes what a recipe took: what was remembered from an earlier run says nothing of the next."""
        if took_s > 1.0:
            self.factors[_kind(recipe)] = took_s / self._guessed(recipe)
        for number, step in enumerate(recipe.steps, start=1):
            if not isinstance(step, TrainedStep):
                break
            self.done.append(recipe.steps[:number])

    def shortened(self, recipe: Recipe, left_s: float) -> Recipe | None:
        """Returns the recipe with as many epochs as there is time for; None where these are too few to be worth it."""
        if self.of(recipe) <= left_s:
            return recipe
        trained = [step for step in recipe.steps if isinstance(step, TrainedStep)]
        if not trained:
            return None
        whole = max(step.training(recipe.training).epochs or 0 for step in trained)
        rounds = max(getattr(step, "rounds", 1) for step in trained)
        for epochs in range(whole - 1, max(rounds, math.ceil(LEAST_SHARE * whole)) - 1, -1):
            steps = tuple(
                replace(step, epochs=min(epochs, step.training(recipe.training).epochs or 0))
                if isinstance(step, TrainedStep)
                else step
                for step in recipe.steps
            )
            shorter = replace(recipe, steps=steps)
            if self.of(shorter) <= left_s:
                return shorter
        return None

    @functools.cached_property
    def training_s(self) -> float:
        """Of one training sample in one epoch; no time where the model cannot be trained, as its steps will say."""
        try:
            return self.measure_training()
        except EdgeoptError:
            return 0.0

    def _guessed(self, recipe: Recipe) -> float:
        # A step is converted in the recipe's first scheme and as floats.
        files = 1 + len(recipe.schemes) + 2 * len(recipe.steps)
        seconds = files * self.file_s + len(recipe.steps) * self.tried_s
        for number, step in enumerate(recipe.steps, start=1):
            if recipe.steps[:number] in self.done:
                continue
            if isinstance(step, TrainedStep):
                epochs = step.training(recipe.training).epochs or 0
                seconds += technique(step.technique).takes * epochs * self.samples * self.training_s
                seconds += _BEGINNING_S * getattr(step, "rounds", 1)
            else:
                seconds += self.layers * _PASSES * self.answering_s
        return seconds

    def _factor(self, recipe: Recipe) -> float:
        """Returns how far off the guesses of the same techniques were, or of any that share one with it."""
        kind = tuple(
            step.technique for number, step in enumerate(recipe.steps, 1) if recipe.steps[:number] not in self.done
        )
        if kind in self.factors:
            return self.factors[kind]
        shared = [factor for other, factor in self.factors.items() if set(other) & set(kind)]
        return max(shared, default=1.0)


def _kind(recipe: Recipe) -> tuple[str, ...]:
    return tuple(step.technique for step in recipe.steps)
