"""The main job for notebooks and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import pipeline
from edgeopt.api.models import as_path
from edgeopt.data import Dataset
from edgeopt.pipeline import Settings
from edgeopt.recipe import Recipe
from edgeopt.report import Report


def optimize(model: Any, data: Any, output: Path | str, *, force: bool = False, **settings: Any) -> Report:
    """Runs the main job; see `pipeline.optimize`. `settings` are the fields of Settings.

    Without `data` it is what the recipe names; the recipe's seed divides it.
    """
    commands = settings.pop("commands", ())
    chosen = Settings(**settings)
    dataset = data_of(chosen.recipe or Recipe(seed=chosen.seed), data)
    with as_path(model) as path:
        return pipeline.optimize(path, dataset, output=Path(output), settings=chosen, force=force, commands=commands)


def data_of(recipe: Recipe, data: Any) -> Dataset:
    """Returns `data`, or else what the recipe names, divided with its seed."""
    return datasets.load(recipe.data if data is None else data, seed=recipe.seed)
