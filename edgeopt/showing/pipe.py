"""News go in; a plain line comes out once a minute, for logs of long work: what is short stays silent."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import IO

from edgeopt.progress import Announcement, News
from edgeopt.showing.course import Course, in_words
from edgeopt.showing.safe import visible

EVERY_S = 60.0


class SeldomLines:
    """Writes to `file` where a command is.

    Args:
        clock: seconds, from any moment on.
    """

    def __init__(self, file: IO[str], clock: Callable[[], float] = monotonic) -> None:
        self._file, self._clock, self._course = file, clock, Course(clock)
        self._written = clock()

    def take(self, news: News) -> None:
        """Notes what is new, and writes a line when the last one is a minute old."""
        self._course.take(news)
        if isinstance(news, Announcement):
            print(visible(news.text), file=self._file, flush=True)
            return
        if self._clock() - self._written < EVERY_S:
            return
        place = self._course.place()
        if not place.words():  # between two tasks
            return
        self._written = self._clock()
        left = "" if place.left_s is None else f", {in_words(place.left_s)} left"
        print(f"{in_words(self._course.elapsed_s())} {place.words()}{left}", file=self._file, flush=True)
