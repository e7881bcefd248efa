"""Progress of long work: library code tells where it is; whoever is in front of the user decides how to show it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """One piece of news: `done` of `total` units of `task`; `total` is None where it cannot be known."""

    task: str
    done: int = 0
    total: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Stage:
    """A part of a whole command.

    Attributes:
        name: the `task` that it is told as.
        seconds: what it may take, roughly.
        kind: what errs alike: when one "training" takes three times its guess, so will the next.
    """

    name: str
    seconds: float
    kind: str = ""


@dataclass(frozen=True)
class Outlook:
    """All stages of a command in their order, those that are done already among them; a later one replaces it."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Announcement:
    """A line that stays: what begins now and what it will take, or what was found."""

    text: str


News = Progress | Outlook | Announcement
Sink = Callable[[News], None]
# Nobody has said anything yet: the listener of last resort hears it.
_UNSAID: Sink = lambda news: None  # noqa: E731
_sink: ContextVar[Sink | None] = ContextVar("edgeopt_progress_sink", default=_UNSAID)
_last_resort: list[Sink] = []


def tell(task: str, done: int = 0, total: int | None = None, detail: str = "") -> None:
    """Sends one piece of news to whoever listens; costs nothing when nobody does."""
    sink = current_sink()
    if sink is not None:
        sink(Progress(task, done, total, detail))


def foresee(stages: Sequence[Stage]) -> None:
    """Says of what stages the whole command consists, so that the time left can be told."""
    sink = current_sink()
    if sink is not None:
        sink(Outlook(tuple(stages)))


def announce(text: str) -> None:
    """Says what is worth a line that stays."""
    sink = current_sink()
    if sink is not None:
        sink(Announcement(text))


def track(items: Iterable[Item], task: str, total: int | None = None) -> Iterator[Item]:
    """Yields `items` and tells after each one how many are done."""
    tell(task, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        tell(task, done, total)


@contextlib.contextmanager
def listening(sink: Sink | None) -> Iterator[None]:
    """Sends the news of everything inside the block to `sink`; None keeps them quiet."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def listen_otherwise(sink: Sink) -> None:
    """Sends all news to `sink` that are told outside of any `listening`, from now on."""
    _last_resort[:] = [sink]


def current_sink() -> Sink | None:
    """Returns who listens now, so that a worker's news can be passed on."""
    sink = _sink.get()
    if sink is not _UNSAID:
        return sink
    return _last_resort[0] if _last_resort else None
