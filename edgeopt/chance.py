"""A seed and what something is drawn for go in; the seed of that very draw comes out: no two purposes share one."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def seed_for(seed: int, purpose: str, *numbers: int) -> int:
    """Returns a number below 2**31 that follows from the seed, the purpose and what is counted within it.

    Args:
        seed: the user's.
        purpose: "order of samples"; the words count.
        numbers: as the epoch.
    """
    return int(_sequence(seed, purpose, numbers).generate_state(1)[0]) >> 1


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Returns NumPy's generator for a draw; arguments as of `seed_for`."""
    import numpy as np

    return np.random.default_rng(_sequence(seed, purpose, numbers))


def _sequence(seed: int, purpose: str, numbers: tuple[int, ...]) -> np.random.SeedSequence:
    import numpy as np

    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *numbers))
