"""edgeopt: from a trained Keras model and some data to a small, fast, proven `.tflite` inside an app.

Example:
    data = edgeopt.load_data("data.npz")
    report = edgeopt.optimize("model.keras", data, "out", budgets=edgeopt.Budgets(max_drop=1.0))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeopt.api.convert import Conversion, convert
    from edgeopt.api.inspect import inspect
    from edgeopt.api.optimize import optimize
    from edgeopt.benchmarking import benchmark
    from edgeopt.comparison import compare
    from edgeopt.data import load as load_data
    from edgeopt.doctor import examine
    from edgeopt.evaluation import evaluate
    from edgeopt.stages import Settings
    from edgeopt.vocabulary import Budgets

__version__ = "0.1.0"

# Where each name lives. NumPy and the rest come with the first use: `edgeopt --help` and the workers import this.
_HOMES = {
    "Budgets": "edgeopt.vocabulary",
    "Conversion": "edgeopt.api.convert",
    "Settings": "edgeopt.stages",
    "benchmark": "edgeopt.benchmarking",
    "compare": "edgeopt.comparison",
    "convert": "edgeopt.api.convert",
    "evaluate": "edgeopt.evaluation",
    "examine": "edgeopt.doctor",
    "inspect": "edgeopt.api.inspect",
    "load_data": "edgeopt.data.loading",
    "optimize": "edgeopt.api.optimize",
}

__all__ = [
    "Budgets",
    "Conversion",
    "Settings",
    "__version__",
    "benchmark",
    "compare",
    "convert",
    "evaluate",
    "examine",
    "inspect",
    "load_data",
    "optimize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), "load" if name == "load_data" else name)
