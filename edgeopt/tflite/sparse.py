"""Weights stored sparse, in TACO's format as the schema describes it: stored values go in, a dense array comes out.

Levels are traversed in turn, each dense (all of its coordinates are there) or compressed: `segments` says for each
position of the level above which stretch of `indices` holds its coordinates. Levels behind the tensor's own dimensions
are blocks, which divide one of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SparseDimension:
    """One level: `size` coordinates, or compressed when `segments` and `indices` are given."""

    size: int
    segments: np.ndarray | None = field(default=None, repr=False, compare=False)
    indices: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SparseEncoding:
    """How a sparse tensor is laid out.

    Attributes:
        order: the dimension of each level; those from the tensor's rank on are blocks.
        blocks: for each block dimension, the tensor dimension that it divides.
        dimensions: the levels.
        index_bytes: what segments and indices take in the file.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    dimensions: tuple[SparseDimension, ...]
    index_bytes: int

    def __str__(self) -> str:
        if not self.blocks:
            return "sparse"
        rank = len(self.dimensions) - len(self.blocks)
        sizes = dict(zip(self.blocks, (d.size for d in self.dimensions[rank:])))
        return f"sparse in blocks of {'x'.join(str(sizes.get(d, 1)) for d in range(rank))}"


def expand(stored: np.ndarray, encoding: SparseEncoding, shape: tuple[int, ...], *, zero: int, most: int) -> np.ndarray:
    """Returns the dense array of `shape`; what is not stored is `zero`.

    Args:
        stored: the stored values [n], in the order of the levels.
        most: more elements than this are refused.

    Raises:
        ValueError: the encoding contradicts itself, the shape, or the number of values.
    """
    rank, levels = len(shape), len(encoding.order)
    _require(int(np.prod(shape, dtype=object)) <= most, "it claims more elements than a file of this size stands for")
    _require(
        levels == rank + len(encoding.blocks) == len(encoding.dimensions)
        and sorted(encoding.order) == list(range(levels))
        and all(0 <= b < rank for b in encoding.blocks),
        f"its levels do not fit the shape {shape}",
    )
    positions = np.zeros(1, np.int64)
    coordinates: dict[int, np.ndarray] = {}
    for dimension, level in zip(encoding.order, encoding.dimensions):
        positions, repeats, new = _descend(level, positions, most)
        coordinates = {d: np.repeat(c, repeats) for d, c in coordinates.items()}
        coordinates[dimension] = new
    for block, dimension in enumerate(encoding.blocks):
        size = encoding.dimensions[encoding.order.index(rank + block)].size
        coordinates[dimension] = coordinates[dimension] * size + coordinates[rank + block]
    index = tuple(coordinates[d] for d in range(rank))
    _require(positions.size == stored.size, f"it has {stored.size} values for {positions.size} places")
    _require(all(c.min(initial=0) >= 0 and c.max(initial=0) < s for c, s in zip(index, shape)), "it leaves its shape")
    dense = np.full(shape, zero, stored.dtype)
    dense[index] = stored[positions]
    return dense


def _descend(level: SparseDimension, positions: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for the next level, all positions, how often each old one repeats, and the new coordinates."""
    if level.segments is None or level.indices is None:
        _require(0 < level.size <= most and level.size * positions.size <= most, "a level is too large")
        new = np.tile(np.arange(level.size), positions.size)
        return np.repeat(positions * level.size, level.size) + new, np.full(positions.size, level.size), new
    segments, indices = level.segments.astype(np.int64), level.indices.astype(np.int64)
    _require(positions.max(initial=-1) + 1 < segments.size and bool((np.diff(segments) >= 0).all()), "broken segments")
    _require(segments[0] == 0 and segments[-1] <= indices.size, "its segments leave its indices")
    repeats = segments[positions + 1] - segments[positions]
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    below = np.repeat(segments[positions], repeats) + within
    return below, repeats, indices[below]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
