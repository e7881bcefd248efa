"""What is said of classes' weights and their labels go in; how much each class counts comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeopt.errors import ConfigError, setting, suggestion

BALANCED = "balanced"


def class_weights(said: str, counts: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
    """Returns the weight of each class, float32 [classes].

    Balanced is what scikit-learn calls so: all classes count the same together, and the mean over labels is 1.

    Args:
        said: "balanced", or "cat=1,dog=3" by name or number; a class that is not named has 1.
        counts: how many labels each class has.
        names: of the classes, where known.

    Raises:
        ConfigError: it is neither, names no class, or a weight is none.
    """
    if said == BALANCED:
        there = counts > 0
        return np.where(there, counts.sum() / (max(1, there.sum()) * np.maximum(counts, 1)), 1.0).astype(np.float32)
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= {str(number): number for number in range(len(counts)) if str(number) not in numbers}
    weights = np.ones(len(counts), np.float32)
    for pair in said.split(","):
        name, equals, text = pair.partition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not equals or not 0 <= weight < math.inf:
            example = names[0] if names else "0"
            raise ConfigError(
                f"Expected {BALANCED}, or weights from 0 by class, as --class-weight, got {said!r}. "
                f"Try {setting('class_weight', f'{example}=2')}."
            )
        if name.strip() not in numbers:
            raise ConfigError(
                f"Expected a class in --class-weight, got {name.strip()!r}.{suggestion(name.strip(), list(numbers))}"
            )
        weights[numbers[name.strip()]] = weight
    if not weights[counts > 0].any():
        raise ConfigError("Expected a class that counts in --class-weight, got 0 for all. Try 1 for some.")
    return weights
