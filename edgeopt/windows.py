"""Windows that move over positions: sizes go in, what 'same' padding adds to the positions comes out."""

from __future__ import annotations


def missing_for_same(length: int, size: int, step: int) -> int:
    """Returns how many positions 'same' padding adds to so many, for windows of `size` that move by `step`.

    TensorFlow puts the odd one behind.
    """
    return max((-(-length // step) - 1) * step + size - length, 0)
