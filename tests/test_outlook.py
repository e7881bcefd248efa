"""The stages that a command says it consists of are those that it goes through."""

from __future__ import annotations

from pathlib import Path

import edgeopt
from edgeopt import outlook, progress
from edgeopt.recipe import Recipe, steps_from
from edgeopt.showing.course import Course
from edgeopt.steps import Training


def test_a_recipes_steps_are_stages_by_what_they_train() -> None:
    steps = steps_from(["prune", {"qat": {"epochs": 3}}, "prune"])
    recipe = Recipe(steps=steps, training=Training(epochs=2))
    stages = {stage.name: stage for stage in outlook.stages(recipe, samples=1000, measured=False)}
    assert list(stages) == ["loading", "converting", "prune", "qat", "prune-2", "scoring", "comparing with float32"]
    assert [stages[name].seconds for name in ("prune", "qat", "prune-2")] == [5 + 2 * 1.0, 5 + 3 * 1.0, 5 + 2 * 1.0]
    assert {stages[name].kind for name in ("prune", "qat", "prune-2")} == {"training"}
    assert len(outlook.stages(recipe, samples=1000, measured=True)) == len(stages) + 3


def test_optimize_goes_through_the_stages_that_it_foresees(digits_model: Path, tmp_path: Path) -> None:
    course, foreseen = Course(), []

    def take(news: progress.News) -> None:
        course.take(news)
        if isinstance(news, progress.Outlook):
            foreseen.extend(stage.name for stage in news.stages)

    with progress.listening(take):
        edgeopt.optimize(digits_model, "digits", tmp_path / "out", schemes=("float32",))
    assert [stage.name for stage in course.finished()] == foreseen
