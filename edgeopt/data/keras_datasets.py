"""The name of one of Keras' data sets goes in, its train and test pictures come out, raw (0 to 255)."""

from __future__ import annotations

import importlib

import numpy as np

from edgeopt import frameworks
from edgeopt.data.arrays import open_source as open_arrays
from edgeopt.data.table import Options, Splits
from edgeopt.errors import DataError


def open_source(spec: str, options: Options) -> Splits:
    """Loads `keras.datasets.<spec>`, which Keras downloads once and keeps in its own cache.

    Raises:
        DataError: it is not in the cache and cannot be downloaded.
    """
    frameworks.load("keras")
    module = importlib.import_module(f"keras.datasets.{spec}")
    try:
        (x_train, y_train), (x_test, y_test) = module.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DataError(
            f"Expected {spec} in Keras' cache or a network to download it, got neither ({error}). "
            "Try --data FILE.npz with a copy of it, or --data digits, which needs no network."
        ) from error
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return open_arrays({name: _with_channel(array) for name, array in arrays.items()}, options)


def _with_channel(array: np.ndarray) -> np.ndarray:
    return array[..., np.newaxis] if array.ndim == 3 else array
