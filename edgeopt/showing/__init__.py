"""News of long work go in; one live line on a terminal or in a notebook, or seldom plain lines in a pipe, come out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeopt import progress

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def shown(console: Console) -> Iterator[None]:
    """Shows the news of everything inside the block on `console`: live where it is a terminal, seldom where not."""
    if console.is_terminal and not console.is_dumb_terminal:
        from edgeopt.showing.terminal import LiveLine

        with LiveLine(console) as line, progress.listening(line.take):
            yield
        return
    from edgeopt.showing.pipe import SeldomLines

    with progress.listening(SeldomLines(console.file).take):
        yield


def in_notebooks() -> None:
    """Shows all news below the cell that runs, where IPython runs one."""
    from edgeopt.showing import notebook

    notebook.follow()
