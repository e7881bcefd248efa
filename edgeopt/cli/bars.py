"""News of long work goes in; bars with what is done and the time left come out on the terminal."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from edgeopt.progress import Progress, listening

_BAR_COLUMNS = 20


class _TimeLeft(TimeRemainingColumn):
    """Says nothing where nothing can be said yet."""

    def render(self, task: Task) -> Text:
        return super().render(task) + " left" if task.time_remaining is not None else Text("")


@contextlib.contextmanager
def shown(console: Console) -> Iterator[None]:
    """Shows the news of everything inside the block, and leaves nothing on the screen.

    Work inside of work has a bar of its own below it. What cannot be counted turns until other news come.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_COLUMNS),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        _TimeLeft(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        stack = _Stack(bars)
        stack.show(Progress("starting"))
        with listening(stack.show):
            yield


class _Stack:
    """The bars on the screen: each task stands below the one it is a part of."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._showing = threading.Lock()  # a doctor's checks run, and tell, in several threads
        self._rows: list[tuple[str, TaskID]] = []

    def show(self, news: Progress) -> None:
        """Brings the bars up to date; a task that is done takes those below it along."""
        with self._showing:
            self._show(news)

    def _show(self, news: Progress) -> None:
        tasks = [task for task, _ in self._rows]
        if news.task in tasks:
            self._leave(tasks.index(news.task) + 1)
        else:
            while self._rows and self._bars.tasks[-1].total is None:
                self._leave(len(self._rows) - 1)
            row = self._bars.add_task(news.task, total=news.total, count="")
            self._rows.append((news.task, row))
        count = "" if news.total in (None, 1) else f"{news.done}/{news.total}"
        self._bars.update(self._rows[-1][1], completed=news.done, total=news.total, count=count)
        if news.done == news.total:
            self._leave(len(self._rows) - 1)

    def _leave(self, count: int) -> None:
        for _, row in self._rows[count:]:
            self._bars.remove_task(row)
        del self._rows[count:]
