"""The search for notebooks and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt.api.models import as_path
from edgeopt.search.result import Tuned
from edgeopt.search.settings import SearchSettings, checked
from edgeopt.search.tuning import tune as search


def tune(model: Any, data: Any, output: Path | str, *, force: bool = False, **settings: Any) -> Tuned:
    """Searches recipes; see `search.tuning.tune`. `settings` are the fields of SearchSettings.

    Without `data` it is what the recipe names; the seed divides it.
    """
    commands = settings.pop("commands", ())
    chosen = SearchSettings(**settings)
    base = checked(chosen).base
    dataset = datasets.load(base.data if data is None else data, seed=base.seed)
    with as_path(model) as path:
        return search(path, dataset, output=Path(output), settings=chosen, force=force, commands=commands)
