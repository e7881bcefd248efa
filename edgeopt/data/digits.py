"""The word `digits` goes in, scikit-learn's 1797 handwritten digits come out, 8x8x1 in 0 to 1."""

from __future__ import annotations

import importlib

import numpy as np

from edgeopt import frameworks
from edgeopt.data.arrays import open_source as open_arrays
from edgeopt.data.table import Options, Splits

# Pixels count the dark points of a block of 4 by 4.
_DARKEST = 16
_TEST_SAMPLES = 359


def open_source(spec: str, options: Options) -> Splits:
    """Returns 1438 digits to train and 359 to test on, divided by class and always the same way.

    They are the test set of the UCI "Optical Recognition of Handwritten Digits" data (E. Alpaydin, C. Kaynak, 1998).
    """
    frameworks.load("sklearn")
    digits = importlib.import_module("sklearn.datasets").load_digits()
    x = (digits.images[..., np.newaxis] / _DARKEST).astype(np.float32)
    y = digits.target.astype(np.int64)
    divide = importlib.import_module("sklearn.model_selection").train_test_split
    x_train, x_test, y_train, y_test = divide(x, y, test_size=_TEST_SAMPLES, stratify=y, random_state=0)
    return open_arrays({"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}, options)
