"""A model and a part of the data go in; some samples as the model takes them come out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeopt import data as datasets
from edgeopt import graph
from edgeopt.chance import seed_for

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.data import Part


def some_inputs(model: Any, part: Part, count: int, *, seed: int) -> list[np.ndarray]:
    """Returns `count` samples of `part`, drawn with `seed`, as one array for each of the model's inputs, in order."""
    specs = graph.input_specs(model)
    batch = datasets.bind(part, specs).take(count, seed=seed_for(seed, "samples to probe with")).arrays()
    return [batch.inputs[spec.name] for spec in specs]


def input_batches(model: Any, part: Part) -> Iterator[list[np.ndarray]]:
    """Yields all samples of `part` in batches, each an array for each of the model's inputs, in order."""
    specs = graph.input_specs(model)
    for batch in datasets.bind(part, specs).batches(64):
        yield [batch.inputs[spec.name] for spec in specs]
