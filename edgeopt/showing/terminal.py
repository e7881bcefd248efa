"""News go in; one live line comes out on a terminal, and a line that stays for each stage that is done."""

from __future__ import annotations

from time import monotonic

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from edgeopt.progress import Announcement, News
from edgeopt.showing.course import Course, Finished, Place, in_words
from edgeopt.showing.safe import visible

_BAR_COLUMNS = 12
_FRAMES, _BAR = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", ("━", "─")
_ASCII_FRAMES, _ASCII_BAR = "|/-\\", ("#", "-")
_FRAMES_A_SECOND = 8


class LiveLine:
    """Shows one command; the live line is gone at the end."""

    def __init__(self, console: Console) -> None:
        self._console, self._course = console, Course()
        self._live = Live(self, console=console, refresh_per_second=_FRAMES_A_SECOND, transient=True)

    def __enter__(self) -> LiveLine:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._course.end()
            self._write_down()
        self._live.stop()

    def take(self, news: News) -> None:
        """Notes what is new, and writes down what is done."""
        self._course.take(news)
        self._write_down()
        if isinstance(news, Announcement):
            self._console.print(Text(visible(news.text)), no_wrap=True, overflow="ellipsis", crop=True)

    def _write_down(self) -> None:
        for stage in self._course.finished():
            self._console.print(_done(stage), no_wrap=True, overflow="ellipsis", crop=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        frames = _ASCII_FRAMES if options.ascii_only else _FRAMES
        frame = frames[int(monotonic() * _FRAMES_A_SECOND) % len(frames)]
        yield _line(self._course.place(), frame, options.max_width, _ASCII_BAR if options.ascii_only else _BAR)


def _line(place: Place, frame: str, width: int, bar: tuple[str, str]) -> Text:
    right = ""
    if place.share is not None:
        filled = round(place.share * _BAR_COLUMNS)
        right += " " + bar[0] * filled + bar[1] * (_BAR_COLUMNS - filled)
    if place.left_s is not None:
        right += f" {in_words(place.left_s)} left"
    # One column less than there is: a full line makes some terminals begin the next.
    room = width - 1 - len(frame) - 1 - len(right)
    words = place.words(room)
    return Text(f"{frame} {words}{' ' * (room - len(words))}{right}", no_wrap=True, overflow="crop")


def _done(stage: Finished) -> Text:
    words = f"  {in_words(stage.seconds):>7}  {stage.name}"
    return Text(visible(f"{words}, {stage.detail}" if stage.detail else words), style="dim")
