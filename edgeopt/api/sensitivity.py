"""A Keras model and data go in; what it loses by each of its layers comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import workers
from edgeopt.api.models import as_path
from edgeopt.errors import ModelError
from edgeopt.sensitivities import SAMPLES, SPARSITIES, Sensitivity


def sensitivity(
    model: Any,
    data: Any,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    samples: int = SAMPLES,
    metric: str | None = None,
    seed: int = 0,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> Sensitivity:
    """Returns what a model loses when one of its layers alone is in int8 or has zeros; nothing is trained.

    Args:
        model: a path, or a Keras model at hand.
        data: a Dataset, or what `edgeopt.load_data` takes.
        sparsities, samples, metric, seed, custom_objects, trust: see `sensitivities.measure`.

    Raises:
        ConfigError, DataError, ModelError: see `sensitivities.measure`.
    """
    with as_path(model) as path:
        try:
            result: Sensitivity = workers.shared("tensorflow").call(
                "edgeopt.sensitivities:measure",
                path,
                datasets.load(data),
                sparsities=tuple(sparsities),
                samples=samples,
                metric=metric,
                seed=seed,
                custom_objects=custom_objects,
                trust=trust,
            )
        except workers.WorkerCrashed as crash:
            raise ModelError(f"Measuring {path} ended the process: {crash.reason}. Try fewer --samples.") from None
        return result
