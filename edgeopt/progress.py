"""Progress of long work: library code tells where it is; whoever is in front of the user decides how to show it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
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


Sink = Callable[[Progress], None]
_sink: ContextVar[Sink | None] = ContextVar("edgeopt_progress_sink", default=None)


def tell(task: str, done: int = 0, total: int | None = None, detail: str = "") -> None:
    """Sends one piece of news to whoever listens; costs nothing when nobody does."""
    sink = _sink.get()
    if sink is not None:
        sink(Progress(task, done, total, detail))


def track(items: Iterable[Item], task: str, total: int | None = None) -> Iterator[Item]:
    """Yields `items` and tells after each one how many are done."""
    tell(task, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        tell(task, done, total)


@contextlib.contextmanager
def listening(sink: Sink | None) -> Iterator[None]:
    """Sends the news of everything inside the block to `sink`."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def current_sink() -> Sink | None:
    """Returns who listens now, so that a worker's news can be passed on."""
    return _sink.get()
