"""An import of a heavy package goes in; in a process of our own it costs half of the processor time.

An import of TensorFlow makes half a million objects that stay. Python's collector of garbage looks through all of them
time and again, at the end of the process too, unless it is told that they stay. And Keras imports scikit-learn, where
it finds it, for wrappers that make a Keras model an estimator.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any, cast

_ours = False


def own_process() -> None:
    """Says that this process is edgeopt's alone: whatever is there at an import may stay until the end."""
    global _ours
    _ours = True


@contextlib.contextmanager
def sparing(*needless: str) -> Iterator[None]:
    """Spares imports inside the block what a process of our own does not need; in a user's it changes nothing.

    Args:
        needless: packages that would be imported on the way, where they are installed.
    """
    if not _ours:
        yield
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        with contextlib.ExitStack() as stack:
            for name in needless:
                stack.enter_context(_hidden(name))
            yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Makes an import of `module` fail inside the block, where it has not been imported yet."""
    if module in sys.modules:
        yield
        return
    modules = cast(dict[str, Any], sys.modules)
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]
