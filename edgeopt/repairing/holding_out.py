"""Samples go in; those that a repair is made with, and those that say what it brought, come out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.errors import DataError

if TYPE_CHECKING:
    from edgeopt.data import Part

# Each so-manieth sample only measures.
_HELD_OUT = 3
# The standard error of a mean of n samples is itself known to a part in sqrt(2 (n - 1)): this one to a quarter.
_DOUBT_OF_DOUBT = 1 / 4
_FEWEST = math.ceil(1 + 1 / (2 * _DOUBT_OF_DOUBT**2))
# With as many, those that are left to work with are so many.
LEAST = math.ceil(_FEWEST * _HELD_OUT / (_HELD_OUT - 1))


def divided(part: Part, technique: str) -> tuple[Part, Part]:
    """Returns two thirds of the samples to work with, and one third to measure on.

    Raises:
        DataError: there are too few to tell an effect from chance.
    """
    if len(part) < LEAST:
        raise DataError(
            f"Expected at least {LEAST} calibration samples for {technique}, got {len(part)}: with fewer, what is "
            "to be mended cannot be told from chance. Try --calibration-samples 100, or a recipe without it."
        )
    numbers = np.arange(len(part))
    held = numbers % _HELD_OUT == _HELD_OUT - 1
    return part.subset(numbers[~held]), part.subset(numbers[held])
