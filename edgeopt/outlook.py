"""A recipe goes in; the stages that carrying it out consists of, and what each may take, come out."""

from __future__ import annotations

from edgeopt.progress import Stage
from edgeopt.recipe import Recipe
from edgeopt.steps import TrainedStep

# Seconds of a small model. What a run's own stages take corrects them: see `showing.course`.
LOADING, CONVERTING, SCORING = Stage("loading", 6), Stage("converting", 12), Stage("scoring", 5)
COMPARING = Stage("comparing with float32", 5)
MEASURING = (Stage("trying runtimes", 15), Stage("timing", 10), Stage("comparing layers", 10))
_A_SAMPLE_S = 0.001  # of one epoch


def stages(recipe: Recipe, *, samples: int, measured: bool) -> tuple[Stage, ...]:
    """Returns the stages of a run.

    Args:
        recipe: its steps have a stage each.
        samples: to train on.
        measured: whether the files are tried on runtimes and timed, or only scored.
    """
    steps = (_step(recipe, number, samples) for number in range(len(recipe.steps)))
    return (LOADING, CONVERTING, *steps, SCORING, COMPARING, *(MEASURING if measured else ()))


def _step(recipe: Recipe, number: int, samples: int) -> Stage:
    step, seconds = recipe.steps[number], 5.0
    if isinstance(step, TrainedStep):
        seconds += samples * _A_SAMPLE_S * (step.training(recipe.training).epochs or 0)
    return Stage(recipe.step_name(number), seconds, "training")
