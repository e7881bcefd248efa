"""Weights of few distinct values go in, the forms in which 1 to 4 bits hold each come out, smallest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Most distinct values that are packed.
CODES = 16
# Bits of an index → those of the parts that it is stored in, lowest first.
_PARTS = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,)}
_WORD_BYTES = 4


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights [rows, taps] as indices into tables; `kernels/packed.c` says in which order.

    Attributes:
        bits: of an index.
        on_grid: whether a table holds `low` and `step` (unsigned) of weights low + step * index; values otherwise.
        indices: uint8 [rows, bytes of a row].
        tables: int8 [1 or rows, 2 or 2^bits].
    """

    bits: int
    on_grid: bool
    indices: np.ndarray
    tables: np.ndarray

    @property
    def size_bytes(self) -> int:
        """Of indices and tables."""
        return self.indices.nbytes + self.tables.nbytes

    @property
    def table_step(self) -> int:
        """Bytes from the table of a row to that of the next; 0 where all rows have one."""
        return self.tables.shape[1] if len(self.tables) > 1 else 0


def forms(weights: np.ndarray, *, grids: bool = True, threes: bool = True) -> list[Packed]:
    """Returns how int8 weights [rows, taps] can be packed, smallest first, all smaller than they are.

    Args:
        weights: int8 [rows, taps].
        grids: whether a kernel computes with grids; they come first where a codebook is as small.
        threes: whether it looks up indices of three bits; they take four otherwise.
    """
    found: list[Packed] = []
    for groups in [weights.reshape(1, -1), weights][: 1 + (len(weights) > 1)]:
        values = _values(groups)
        if values is None:
            continue
        bits = _bits(max(map(len, values)), threes=threes)
        codebooks = np.stack([np.resize(v, 2**bits) for v in values])
        indices = np.stack([np.searchsorted(v, group) for v, group in zip(values, groups)])
        found.append(Packed(bits, False, _words(indices.reshape(weights.shape), bits), codebooks))
        if grids and (grid := _grid(weights, groups, values)) is not None:
            found.append(grid)
    return sorted((f for f in found if f.size_bytes < weights.size), key=lambda f: (f.size_bytes, not f.on_grid))


def _values(groups: np.ndarray) -> list[np.ndarray] | None:
    """Returns the distinct values of each group; None where one has too many."""
    found = []
    for group in groups:
        found.append(np.unique(group))
        if len(found[-1]) > CODES:
            return None
    return found


def _grid(weights: np.ndarray, groups: np.ndarray, values: list[np.ndarray]) -> Packed | None:
    lows = np.array([v[0] for v in values], int)
    steps = np.array([max(1, np.gcd.reduce(v.astype(int) - low)) for v, low in zip(values, lows)])
    indices = (groups - lows[:, None]) // steps[:, None]
    bits = _bits(int(indices.max()) + 1, threes=False)
    if bits > 4:
        return None
    tables = np.stack([lows, steps], axis=1).astype(np.uint8).view(np.int8)
    return Packed(bits, True, _words(indices.reshape(weights.shape), bits), tables)


def _bits(count: int, *, threes: bool) -> int:
    """Bits of the indices of so many values; four instead of three where a kernel takes no `threes`."""
    bits = max(1, (count - 1).bit_length())
    return 4 if bits == 3 and not threes else bits


def _words(indices: np.ndarray, bits: int) -> np.ndarray:
    """Returns uint8 [rows, bytes] for indices [rows, taps]."""
    parts, shift = [], 0
    for part in _PARTS[bits]:
        parts.append(_part(indices >> shift & (2**part - 1), part))
        shift += part
    return np.concatenate(parts, axis=1)


def _part(indices: np.ndarray, bits: int) -> np.ndarray:
    rows, taps = indices.shape
    fields = 8 // bits
    padded = np.zeros((rows, -(-taps // (fields * _WORD_BYTES)) * fields * _WORD_BYTES), np.uint8)
    padded[:, :taps] = indices
    shifts = np.arange(fields, dtype=np.uint8)[:, None] * bits
    words = padded.reshape(rows, -1, fields, _WORD_BYTES) << shifts
    return np.bitwise_or.reduce(words, axis=2).reshape(rows, -1)
