"""What is said of classes' weights and their labels go in; how much each class counts comes out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeopt.errors import ConfigError, setting, suggestion

BALANCED = "balanced"
_LARGEST_BYTES = 1 << 20


def class_weights(said: str, counts: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
    """Returns the weight of each class, float32 [classes].

    Balanced is what scikit-learn calls so: all classes count the same together, and the mean over labels is 1.

    Args:
        said: "balanced", "cat=1,dog=3" by name or number, or a JSON file with {"cat": 1, "dog": 3}; a class that is not
            named has 1.
        counts: how many labels each class has.
        names: of the classes, where known.

    Raises:
        ConfigError: it is none of these, names no class, or a weight is none.
    """
    if said == BALANCED:
        there = counts > 0
        return np.where(there, counts.sum() / (max(1, there.sum()) * np.maximum(counts, 1)), 1.0).astype(np.float32)
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= {str(number): number for number in range(len(counts)) if str(number) not in numbers}
    weights = np.ones(len(counts), np.float32)
    pairs = _of_file(Path(said)) if said.endswith(".json") else [pair.partition("=")[::2] for pair in said.split(",")]
    for name, text in pairs:
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
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


def _of_file(file: Path) -> list[tuple[str, str]]:
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise ValueError("it is too large")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f'Expected a JSON object of weights by class in {file}, got none ({error}). Try {{"cat": 2, "dog": 1}}.'
        ) from error
    return [(str(name), str(weight)) for name, weight in found.items()]
