"""A model and data go in; what it loses by each of its layers comes out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeopt import data as datasets
from edgeopt import files, sensitivities
from edgeopt.api.models import as_path
from edgeopt.plain import to_plain
from edgeopt.report.heat import write_page
from edgeopt.vocabulary import Sensitivity
from edgeopt.workspace import Conditions, Workspace


def sensitivity(
    model: Any,
    data: Any,
    *,
    choices: Sequence[str] = sensitivities.NAMES,
    sparsities: Sequence[float] = sensitivities.SPARSITIES,
    widths: Sequence[float] = sensitivities.WIDTHS,
    exact: int = sensitivities.EXACT,
    metric: str | None = None,
    tasks: Mapping[str, str] | None = None,
    output_name: str | None = None,
    folder: Path | None = None,
    seed: int = 0,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> Sensitivity:
    """Returns what a model loses when one of its layers alone is quantized, thinned or narrowed; nothing is trained.

    Args:
        model: a path, or a Keras model at hand.
        data: a Dataset, or what `edgeopt.load_data` takes; labels only for scores.
        choices, sparsities, widths: see `sensitivities.chosen`.
        exact: see `sensitivities.measure`.
        metric, tasks, output_name: how scores are measured; see `Conditions`.
        folder: receives sensitivity.json and sensitivity.html; what is measured is kept there, and shared with an
            `optimize` in the same folder.
        seed, custom_objects, trust: see `Settings`.

    Raises:
        ConfigError, ConversionError, DataError, ModelError: see `sensitivities.measure`.
    """
    wanted = sensitivities.chosen(choices, sparsities=sparsities, widths=widths)
    conditions = Conditions(
        metric=metric, output_name=output_name, tasks=tasks or {}, custom_objects=custom_objects, trust=trust
    )
    with as_path(model) as path, _folder(folder) as where:
        with Workspace(path, datasets.load(data), where, conditions) as workspace:
            found = sensitivities.measure(workspace, wanted, exact=exact, seed=seed)
        if folder is not None:
            files.atomic_write(folder / "sensitivity.json", json.dumps(to_plain(found), indent=2) + "\n")
            write_page(found, folder / "sensitivity.html", f"Which layers of {path.name} to spare")
        return found


@contextlib.contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with TemporaryDirectory(prefix="edgeopt-") as temporary:
        yield Path(temporary)
