"""News go in; one live line comes out below the cell of a notebook that is running, and is gone when it has run."""

from __future__ import annotations

import html
from time import monotonic
from typing import Any

from edgeopt import progress
from edgeopt.progress import Announcement, News
from edgeopt.showing.course import Course, in_words

_EVERY_S = 0.2


class CellLine:
    """Shows what one cell does, by IPython's own display: that works in every front end, and needs no widgets."""

    def __init__(self) -> None:
        self._course, self._display, self._shown = Course(), None, 0.0
        self._stages: list[str] = []

    def take(self, news: News) -> None:
        """Notes what is new, and shows it when the last line is old enough to have been read."""
        self._course.take(news)
        if isinstance(news, Announcement):
            self._stages.append(news.text)
        if monotonic() - self._shown >= _EVERY_S:
            self._shown = monotonic()
            place = self._course.place()
            left = "" if place.left_s is None else f", {in_words(place.left_s)} left"
            bar = "" if place.share is None else f"<progress value='{place.share:.3f}'></progress> "
            self._show(f"{bar}{html.escape(place.words() + left)}")

    def end(self, *, done: bool) -> None:
        """Leaves the stages that are done, the one at hand if the cell is; nothing where there were none."""
        if done:
            self._course.end()
        if self._display is not None:
            self._show("")

    def _show(self, line: str) -> None:
        from IPython.display import HTML, display

        for stage in self._course.finished():
            self._stages.append(f"{stage.name}, {stage.detail}" if stage.detail else stage.name)
            self._stages[-1] += f" ({in_words(stage.seconds)})"
        rows = [*map(html.escape, self._stages), *([line] if line else [])]
        page: Any = HTML("<br>".join(rows))
        if self._display is None:
            self._display = display(page, display_id=True)
        else:
            self._display.update(page)


class _Notebook:
    """One line a cell."""

    def __init__(self) -> None:
        self._line: CellLine | None = None

    def take(self, news: News) -> None:
        self._line = self._line or CellLine()
        self._line.take(news)

    def cell_ended(self, result: Any) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.end(done=result.success)


_following: list[_Notebook] = []


def follow() -> None:
    """Shows all news that nobody else listens to; asked again it does nothing."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None or _following:
        return
    _following.append(_Notebook())
    shell.events.register("post_run_cell", _following[0].cell_ended)
    progress.listen_otherwise(_following[0].take)
