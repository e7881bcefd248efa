"""edgeopt: from a trained Keras model and some data to a small, fast, proven `.tflite` inside an app.

Example:
    data = edgeopt.load_data("data.npz")
    report = edgeopt.optimize("model.keras", data, "out", budgets=edgeopt.Budgets(max_drop=1.0))
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeopt.api.advise import advise
    from edgeopt.api.compress import Compressed, compress
    from edgeopt.api.convert import Conversion, convert
    from edgeopt.api.device import benchmark_on_device
    from edgeopt.api.draw import draw
    from edgeopt.api.export import export
    from edgeopt.api.inspect import inspect
    from edgeopt.api.language import decoder, generate
    from edgeopt.api.optimize import optimize
    from edgeopt.api.repair import Repaired, repair
    from edgeopt.api.sensitivity import sensitivity
    from edgeopt.api.tune import tune
    from edgeopt.benchmarking import benchmark
    from edgeopt.comparison import compare
    from edgeopt.data import load as load_data
    from edgeopt.doctor import examine
    from edgeopt.evaluation import evaluate
    from edgeopt.pipeline import Settings
    from edgeopt.recipe import Recipe, load_recipe
    from edgeopt.torch_import import import_torch
    from edgeopt.vocabulary import Budgets

__version__ = "0.1.0"

# Where each name lives. NumPy and the rest come with the first use: `edgeopt --help` and the workers import this.
_HOMES = {
    "Budgets": "edgeopt.vocabulary",
    "Compressed": "edgeopt.api.compress",
    "Conversion": "edgeopt.api.convert",
    "Recipe": "edgeopt.recipe",
    "Repaired": "edgeopt.api.repair",
    "Settings": "edgeopt.pipeline",
    "advise": "edgeopt.api.advise",
    "benchmark": "edgeopt.benchmarking",
    "benchmark_on_device": "edgeopt.api.device",
    "compare": "edgeopt.comparison",
    "compress": "edgeopt.api.compress",
    "convert": "edgeopt.api.convert",
    "decoder": "edgeopt.api.language",
    "draw": "edgeopt.api.draw",
    "evaluate": "edgeopt.evaluation",
    "examine": "edgeopt.doctor",
    "export": "edgeopt.api.export",
    "generate": "edgeopt.api.language",
    "import_torch": "edgeopt.torch_import",
    "inspect": "edgeopt.api.inspect",
    "load_data": "edgeopt.data.loading",
    "load_recipe": "edgeopt.recipe",
    "optimize": "edgeopt.api.optimize",
    "repair": "edgeopt.api.repair",
    "sensitivity": "edgeopt.api.sensitivity",
    "tune": "edgeopt.api.tune",
}

__all__ = [
    "Budgets",
    "Compressed",
    "Conversion",
    "Recipe",
    "Repaired",
    "Settings",
    "__version__",
    "advise",
    "benchmark",
    "benchmark_on_device",
    "compare",
    "compress",
    "convert",
    "decoder",
    "draw",
    "evaluate",
    "examine",
    "export",
    "generate",
    "import_torch",
    "inspect",
    "load_data",
    "load_recipe",
    "optimize",
    "repair",
    "sensitivity",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Whoever works in a notebook sees progress there without asking.
    if "ipykernel" in sys.modules:
        importlib.import_module("edgeopt.showing").in_notebooks()
    return getattr(importlib.import_module(_HOMES[name]), "load" if name == "load_data" else name)
