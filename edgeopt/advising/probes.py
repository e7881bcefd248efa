"""A float file goes in; how redundant its weights are comes out, from the weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.formats.contract import FileFacts

_KINDS = ("convolution", "pointwise", "dense")
# A kernel's energy that its first directions have to hold.
_ENERGY = 0.95
# Cosine from which a channel is another's copy; norm, beside the median of its layer, below which it is nothing.
_ALIKE, _NOTHING = 0.95, 0.02
# Matrices beyond this are looked at by some of their columns.
_MOST_COLUMNS = 1024


@dataclass(frozen=True)
class Redundancy:
    """Shares, 0 to 1, over all layers with channels, each by its weights.

    Attributes:
        rank: of the directions of a kernel, those that hold 95 % of its energy: what a product of two smaller kernels
            would need (Denton et al. 2014, arXiv 1404.0736).
        duplicates: channels whose weights point where another's of the layer do (Srinivas & Babu 2015, arXiv
            1507.06149).
        dead: channels whose weights are next to nothing beside the layer's others.
    """

    rank: float
    duplicates: float
    dead: float


def redundancy(file: FileFacts) -> Redundancy | None:
    """Returns what the weights of a float file show; None where no layer has channels."""
    found, sizes = [], []
    seen: set[str] = set()
    for operator in file.operators:
        for weight in operator.weights:
            if weight.kind != "weights" or operator.kind not in _KINDS or weight.name in seen:
                continue
            seen.add(weight.name)
            values = file.values(weight)
            if values is None or values.ndim < 2 or len(values) < 2 or values.dtype.kind != "f":
                continue
            found.append(_of_kernel(values.reshape(len(values), -1).astype(np.float64)))
            sizes.append(weight.elements)
    if not found:
        return None
    rank, duplicates, dead = np.average(np.array(found), axis=0, weights=sizes)
    return Redundancy(float(rank), float(duplicates), float(dead))


def _of_kernel(rows: np.ndarray) -> tuple[float, float, float]:
    """Returns the three shares of one kernel, [channels, inputs]."""
    norms = np.linalg.norm(rows, axis=1)
    dead = norms < _NOTHING * np.median(norms)
    if rows.shape[1] > _MOST_COLUMNS:
        rows = rows[:, np.random.default_rng(0).choice(rows.shape[1], _MOST_COLUMNS, replace=False)]
    energy = np.cumsum(np.square(np.linalg.svd(rows[:_MOST_COLUMNS], compute_uv=False)))
    whole = energy[-1]
    needed = int(np.searchsorted(energy, _ENERGY * whole)) + 1 if whole > 0 else 0
    live = rows[~dead][:_MOST_COLUMNS]
    unit = live / np.maximum(np.linalg.norm(live, axis=1, keepdims=True), 1e-30)
    alike = np.triu(np.abs(unit @ unit.T), 1) > _ALIKE
    return needed / len(energy), float(alike.any(0).sum()) / len(norms), float(dead.mean())
