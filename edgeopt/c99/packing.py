"""Weights of few distinct values go in, 4-bit indices and their codebooks come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CODES = 16


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights [rows, taps] in 4 bits each.

    Attributes:
        indices: uint8 [rows, (taps + 1) // 2], low half of a byte first; each row starts with a byte.
        codebooks: int8 [1, 16], or [rows, 16] where each row has its own values, as scales per channel make them.
    """

    indices: np.ndarray
    codebooks: np.ndarray


def pack(weights: np.ndarray) -> Packed | None:
    """Packs int8 weights [rows, taps]; None where there are more values than codes, or nothing would be saved."""
    rows, taps = weights.shape
    for groups in ([weights], list(weights)):
        coded = [np.unique(group, return_inverse=True) for group in groups]
        packed_bytes = rows * ((taps + 1) // 2) + CODES * len(groups)
        if max(len(values) for values, _ in coded) <= CODES and packed_bytes < weights.size:
            codebooks = np.zeros((len(groups), CODES), np.int8)
            for codebook, (values, _) in zip(codebooks, coded):
                codebook[: len(values)] = values
            return Packed(_nibbles(np.concatenate([i.reshape(-1) for _, i in coded]).reshape(rows, taps)), codebooks)
    return None


def _nibbles(indices: np.ndarray) -> np.ndarray:
    rows, taps = indices.shape
    padded = np.zeros((rows, (taps + 1) // 2 * 2), np.uint8)
    padded[:, :taps] = indices
    return padded[:, ::2] | padded[:, 1::2] << 4
