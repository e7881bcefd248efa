"""Bits go in, the integers that weights may become come out; and steps that fit weights to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """The integers of a weight: from -`highest` to `highest`, as TensorFlow Lite has symmetric weights."""

    highest: int

    @classmethod
    def of(cls, bits: int) -> Grid:
        """Returns the grid of so many bits: -7 to 7 for 4, -1 to 1 for 2."""
        return cls(2 ** (bits - 1) - 1)

    def nearest(self, weights: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Returns the nearest integers of `weights` in units of `steps`, as floats."""
        found: np.ndarray = np.clip(np.rint(weights / steps), -self.highest, self.highest)
        return found

    def widest(self, weights: np.ndarray, block: int = 0) -> np.ndarray:
        """Returns the steps at which the largest of each row becomes the highest integer, [groups, rows, 1].

        With a `block` those of each so many columns, [groups, rows, columns], as float16 holds them.
        """
        if block:
            steps = self.widest(weights.reshape(*weights.shape[:2], -1, block))
            return in_float16(np.repeat(steps[..., 0], block, axis=-1))
        largest = np.abs(weights).max(-1, keepdims=True, initial=0.0)
        # A row of zeros stays one at any step; 1 divides.
        return np.where(largest > 0, largest, 1.0) / self.highest


def in_float16(steps: np.ndarray) -> np.ndarray:
    """Returns steps as files hold those of blocks: the nearest of float16 that is above 0, in float64."""
    return np.maximum(steps.astype(np.float16), np.finfo(np.float16).smallest_subnormal).astype(np.float64)
