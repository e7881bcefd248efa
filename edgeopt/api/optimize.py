"""The main job for notebooks and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import pipeline
from edgeopt.api.models import as_path
from edgeopt.pipeline import Settings
from edgeopt.report import Report


def optimize(model: Any, data: Any, output: Path | str, *, force: bool = False, **settings: Any) -> Report:
    """Runs the main job; see `pipeline.optimize`. `settings` are the fields of Settings."""
    commands = settings.pop("commands", ())
    dataset, chosen = datasets.load(data), Settings(**settings)
    with as_path(model) as path:
        return pipeline.optimize(path, dataset, output=Path(output), settings=chosen, force=force, commands=commands)
