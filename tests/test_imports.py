"""Imports in processes of our own leave Python's collector and what nobody needs out; in a user's process nothing."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys

import pytest

from edgeopt import frameworks, imports, workers


def _kept() -> tuple[int, bool, bool, bool, int]:
    """Loads Keras, and then digits, which come from scikit-learn; says what is kept from the collector."""
    frameworks.load("keras")
    early = "sklearn" in sys.modules
    kept, collects = gc.get_freeze_count(), gc.isenabled()
    import sklearn.datasets

    return kept, collects, early, "sklearn" in sys.modules, len(sklearn.datasets.load_digits().target)


def test_a_worker_spares_what_an_import_need_not_do() -> None:
    with workers.Worker() as worker:
        kept, collects, early, late, samples = worker.call("test_imports:_kept")
    assert kept > 100_000
    assert collects
    assert (early, late) == (False, True), "Keras' wrappers are not needed; who needs scikit-learn has it"
    assert samples == 1797


def test_a_users_process_is_left_as_it_is() -> None:
    code = """
import gc
import importlib
from edgeopt import imports
with imports.sparing("colorsys"):
    import colorsys
    print(gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "0"], done.stderr


def test_what_is_needless_is_there_again_after_a_failure() -> None:
    sys.modules.pop("colorsys", None)
    with pytest.raises(ModuleNotFoundError, match="colorsys"), imports.sparing("colorsys"):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    assert gc.isenabled()
