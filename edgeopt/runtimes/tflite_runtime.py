"""tflite-runtime: the interpreter package that LiteRT replaced, as many devices still run it."""

from __future__ import annotations

from pathlib import Path

from edgeopt import frameworks
from edgeopt.runtimes import Delegate, Runtime
from edgeopt.runtimes.interpreter import InterpreterSession


def open(
    file: Path,
    runtime: Runtime,
    *,
    threads: int,
    delegate: Delegate | None,
    keep_intermediates: bool,
    one_by_one: bool = False,
) -> InterpreterSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`. It applies XNNPACK to float operators by itself.

    Args:
        one_by_one: has no effect: this package gives XNNPACK's part of a graph as a whole only.
    """
    return InterpreterSession(
        frameworks.load("tflite_runtime"),
        runtime.name,
        file,
        options={},
        threads=threads,
        delegate=delegate,
        own_delegate=True,
        keep_intermediates=keep_intermediates,
    )
