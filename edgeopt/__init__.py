"""edgeopt: from a trained Keras model and some data to a small, fast, proven `.tflite` inside an app.

    import edgeopt

    data = edgeopt.load_data("data.npz")
    report = edgeopt.optimize("model.keras", data, "out", budgets=edgeopt.Budgets(max_drop=1.0))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeopt.api import (
        Budgets,
        Conversion,
        Settings,
        benchmark,
        compare,
        convert,
        evaluate,
        examine,
        inspect,
        load_data,
        optimize,
    )

__version__ = "0.1.0"

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
    # `edgeopt --help` and the workers import this package; NumPy and the rest come with the first use.
    if name in __all__:
        from edgeopt import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
