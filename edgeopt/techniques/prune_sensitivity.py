"""A model, samples and its kernels go in; what each layer loses by sparsity, and the sparsities to choose, come out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import graph, progress
from edgeopt.frameworks import load
from edgeopt.rounding.alone import without_smallest
from edgeopt.techniques.samples import some_inputs

if TYPE_CHECKING:
    from edgeopt.data import Part

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SAMPLES = 512
# No layer is pruned further than was measured.
HIGHEST = SPARSITIES[-1]
# Steps of sparsity between which the choice is made.
_GRID = 191


def measure(
    model: Any, kernels: Mapping[str, Sequence[Any]], part: Part, *, seed: int = 0
) -> dict[str, tuple[float, ...]]:
    """Returns how far the model's outputs move when the smallest weights of one layer alone are zero.

    Args:
        model: a functional tf_keras model; its weights are changed and put back.
        kernels: layer → its variables.
        part: samples; SAMPLES of them are taken. Labels are not looked at.
        seed: of which.

    Returns:
        Layer → for each of SPARSITIES, the squared difference of the outputs over their variance: 0 nothing lost,
        1 nothing left.
    """
    tf = load("tensorflow")
    taken = some_inputs(model, part, SAMPLES, seed=seed)
    inputs = graph.structured_inputs(model, [tf.constant(values) for values in taken])
    call = tf.function(lambda: graph.leaves(model(inputs, training=False)))
    reference = [output.numpy() for output in call()]
    found: dict[str, tuple[float, ...]] = {}
    for name, variables in progress.track(kernels.items(), "measuring sensitivity", len(kernels)):
        losses = []
        for sparsity in SPARSITIES:
            with pruned(variables, sparsity):
                losses.append(moved(reference, [output.numpy() for output in call()]))
        found[name] = tuple(losses)
    return found


@contextlib.contextmanager
def pruned(variables: Sequence[Any], sparsity: float) -> Iterator[None]:
    """Sets the smallest weights of each variable to zero for as long as the block lasts."""
    kept = [variable.numpy() for variable in variables]
    for variable, values in zip(variables, kept):
        variable.assign(without_smallest(values, sparsity))
    try:
        yield
    finally:
        for variable, values in zip(variables, kept):
            variable.assign(values)


def moved(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """Returns the mean over outputs of the squared difference over the reference's variance: 0 nothing, 1 all."""
    errors = [np.mean(np.square(a - b)) / max(np.var(a), 1e-12) for a, b in zip(reference, outputs)]
    return float(np.mean(errors))


def spread(losses: Mapping[str, Sequence[float]], sizes: Mapping[str, int], sparsity: float) -> dict[str, float]:
    """Returns layer → sparsity, so that `sparsity` of all weights are zero and the sum of the losses is least.

    Each layer weighs what a further zero costs it against one price for all; the price is found by bisection (the
    Lagrangian of Shoham & Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

    Args:
        losses: layer → its loss at each of SPARSITIES; made to rise, as sampling noise may not.
        sizes: layer → number of its weights.
        sparsity: of all of them together; at most HIGHEST.
    """
    grid = np.linspace(0, HIGHEST, _GRID)
    curves = {name: np.interp(grid, (0, *SPARSITIES), np.maximum.accumulate((0, *row))) for name, row in losses.items()}
    total = sum(sizes.values())

    def chosen(price: float) -> dict[str, float]:
        return {name: float(grid[np.argmin(curve - price * sizes[name] * grid)]) for name, curve in curves.items()}

    def reached(choice: Mapping[str, float]) -> float:
        return sum(choice[name] * sizes[name] for name in choice) / total

    low, high = 0.0, 1e6
    for _ in range(100):
        price = (low + high) / 2
        low, high = (low, price) if reached(chosen(price)) >= sparsity else (price, high)
    under, over = chosen(low), chosen(high)
    # Layers jump between the two at this one price: go so far as is needed.
    gap = reached(over) - reached(under)
    share = 1.0 if gap <= 0 else min(1.0, max(0.0, (sparsity - reached(under)) / gap))
    return {name: under[name] + share * (over[name] - under[name]) for name in under}
