"""Channels and a criterion go in; what each channel of each group is worth comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgeopt.shrinking.channels import Channels
from edgeopt.shrinking.probing import Probe
from edgeopt.shrinking.tracing import Use


def l1(filters: np.ndarray) -> np.ndarray:
    """Returns sum |w| of each row of [channels, weights]: Li et al. (arXiv 1608.08710)."""
    return np.abs(filters).sum(1)


def l2(filters: np.ndarray) -> np.ndarray:
    """Returns sqrt(sum w²) of each row of [channels, weights]."""
    return np.sqrt(np.square(filters).sum(1))


def median(filters: np.ndarray) -> np.ndarray:
    """Returns the sum of each row's distances to all rows of [channels, weights].

    The row nearest to the others' geometric median can best be replaced by them: He et al., "Filter Pruning via
    Geometric Median" (arXiv 1811.00250).
    """
    squares = np.square(filters).sum(1)
    distances = squares[:, None] + squares[None] - 2 * filters @ filters.T
    return np.sqrt(np.maximum(distances, 0)).sum(1)


WEIGHT_CRITERIA: dict[str, Callable[[np.ndarray], np.ndarray]] = {"l1": l1, "l2": l2, "median": median}
# Needs a Probe.
TAYLOR = "taylor"
BATCHNORM = "batchnorm"
# Needs what layers read: see `ordering`.
RECONSTRUCTION = "reconstruction"
CRITERIA = (RECONSTRUCTION, *WEIGHT_CRITERIA, BATCHNORM, TAYLOR)


def scores(channels: Channels, criterion: str, probe: Probe | None = None, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns for each group by name what its units are worth, [units].

    Args:
        channels: of the model.
        criterion: of CRITERIA. "batchnorm" is |gamma| of the normalizations that the channels go through (Liu et al.,
            "Network Slimming", arXiv 1708.06519), and "l1" where there are none. "taylor" is `Probe.fisher`.
        probe: for "taylor".
        seed: of what "taylor" draws.

    Layers that are tied count alike: each layer's values are divided by their mean before they are averaged.
    """
    if criterion == TAYLOR:
        assert probe is not None
        worth = probe.fisher(seed=seed)
    else:
        worth = _averaged(channels, _weighed(channels, "l1" if criterion == BATCHNORM else criterion))
        if criterion == BATCHNORM:
            scale = _averaged(channels, _gammas(channels))
            worth = np.where(np.isnan(scale), worth, scale)
    return {group.name: worth[group.units] for group in channels.groups}


def _averaged(channels: Channels, found: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    total, count = np.zeros(channels.units + 1), np.zeros(channels.units + 1)
    for ids, values in found:
        relative = values / (values.mean() or 1)
        # Where -1 points to is for channels that are untouchable.
        np.add.at(total, ids, relative)
        np.add.at(count, ids, 1)
    with np.errstate(invalid="ignore"):
        return (total / count)[:-1]


def _weighed(channels: Channels, criterion: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    judge = WEIGHT_CRITERIA[criterion]
    for use in channels.uses.values():
        for index, axis in use.judged:
            yield _ids(use, index, axis), judge(_rows(use, index, axis))


def _gammas(channels: Channels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for use in channels.uses.values():
        if use.scale is not None and use.weights[use.scale][0] is not None:
            yield _ids(use, use.scale, 0), np.abs(np.asarray(use.layer.weights[use.scale]))


def _ids(use: Use, index: int, axis: int) -> np.ndarray:
    ids = use.weights[index][axis]
    assert ids is not None
    return ids


def _rows(use: Use, index: int, axis: int) -> np.ndarray:
    value = np.moveaxis(np.asarray(use.layer.weights[index], np.float64), axis, 0)
    return value.reshape(len(value), -1)
