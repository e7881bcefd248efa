"""News go in; where a command is, what it has done and how long it will still take come out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from edgeopt.progress import News, Outlook, Progress, Stage
from edgeopt.showing.safe import visible

# Work that was remembered from an earlier run takes no time, and says nothing of what is to come.
_TELLING_S = 0.3


@dataclass
class _Task:
    name: str
    began: float
    done: int = 0
    total: int | None = None
    detail: str = ""

    @property
    def counted(self) -> bool:
        return self.total is not None and self.total > 1


@dataclass(frozen=True)
class Finished:
    """A stage that is done."""

    name: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Place:
    """Where a command is.

    Attributes:
        number, count: of the stage, 0 where nothing is foreseen.
        tasks: the task at hand and those that it is a part of, outermost first, with "3/7" where they are counted.
        detail: what else is told of the innermost.
        share: what is done of the whole, from 0 to 1; None where nobody can say.
        left_s: what the whole will still take; None where nobody can say.
    """

    number: int
    count: int
    tasks: tuple[str, ...]
    detail: str
    share: float | None
    left_s: float | None

    def words(self, width: int = 1000) -> str:
        """Returns all of it but share and time in one line; what is between stage and detail goes first."""
        number = f"{self.number}/{self.count} " if self.count else ""
        details = [self.detail] if self.detail else []
        for inner in (self.tasks[1:], self.tasks[-1:] if len(self.tasks) > 2 else (), ()):
            line = visible(number + ", ".join((*self.tasks[:1], *inner, *details)))
            if len(line) <= width:
                return line
        return line if width < 1 else f"{line[: width - 1]}…"


class Course:
    """The way through one command.

    Args:
        clock: seconds, from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # a doctor's checks tell in several threads, and a screen is drawn in another
        self._began = clock()
        self._stages: tuple[Stage, ...] = ()
        self._took: dict[str, float] = {}
        self._tasks: list[_Task] = [_Task("starting", self._began)]
        self._finished: list[Finished] = []

    def take(self, news: News) -> None:
        """Notes what is new."""
        with self._lock:
            if isinstance(news, Outlook):
                self._stages = news.stages
            elif isinstance(news, Progress):
                self._note(news)

    def finished(self) -> list[Finished]:
        """Returns the stages that have ended since this was asked last."""
        with self._lock:
            found, self._finished = self._finished, []
            return found

    def end(self) -> None:
        """Ends the stage at hand: nothing more will be told."""
        with self._lock:
            self._leave(0)

    def elapsed_s(self) -> float:
        """Returns how long it has taken so far."""
        return self._clock() - self._began

    def place(self) -> Place:
        """Returns where it is now."""
        with self._lock:
            names = tuple(
                f"{task.name} {task.done}/{task.total}" if task.counted else task.name for task in self._tasks
            )
            current = self._current()
            if current is None and self._stages:
                # Between two stages: the next is being prepared, or what comes after the last.
                current = next((stage for stage in self._stages if stage.name not in self._took), None)
                names = ("finishing" if current is None else current.name, *names)
            number = 0 if current is None else 1 + [stage.name for stage in self._stages].index(current.name)
            left = self._left()
            elapsed = self.elapsed_s()
            if left is not None:
                share: float | None = elapsed / (elapsed + left) if elapsed + left else 0.0
            else:
                share = None if self._stages else self._share()
            detail = self._tasks[-1].detail if self._tasks else ""
            return Place(number, len(self._stages) if number else 0, names, detail, share, left)

    def _note(self, news: Progress) -> None:
        if any(stage.name == news.task for stage in self._stages):
            if not self._tasks or self._tasks[0].name != news.task:
                self._leave(0)
            else:
                self._leave(1)
        names = [task.name for task in self._tasks]
        if news.task in names:
            self._leave(names.index(news.task) + 1)
        else:
            while self._tasks and self._tasks[-1].total is None and not self._foreseen(self._tasks[-1]):
                self._leave(len(self._tasks) - 1)
            self._tasks.append(_Task(news.task, self._clock()))
        task = self._tasks[-1]
        task.done, task.total, task.detail = news.done, news.total, news.detail or task.detail
        if news.done == news.total:
            self._leave(len(self._tasks) - 1)

    def _leave(self, count: int) -> None:
        if count == 0 and self._tasks and self._foreseen(self._tasks[0]):
            task = self._tasks[0]
            detail = next((t.detail for t in reversed(self._tasks) if t.detail), "")
            seconds = self._clock() - task.began
            self._took[task.name] = self._took.get(task.name, 0.0) + seconds
            self._finished.append(Finished(task.name, seconds, detail))
        elif count and len(self._tasks) > count and self._tasks[count].detail:
            self._tasks[count - 1].detail = self._tasks[count].detail
        del self._tasks[count:]

    def _foreseen(self, task: _Task) -> bool:
        return any(stage.name == task.name for stage in self._stages)

    def _current(self) -> Stage | None:
        return next((stage for stage in self._stages if self._tasks and stage.name == self._tasks[0].name), None)

    def _share(self, first: int = 0) -> float | None:
        """Returns what is done of the task at that place of the stack, what is inside of it included."""
        tasks = self._tasks[first:]
        if not tasks:
            return None
        inside = self._share(first + 1) or 0.0
        if tasks[0].counted:
            return min(1.0, (tasks[0].done + inside) / (tasks[0].total or 1))
        return inside or None

    def _left_of_current(self) -> float | None:
        """Returns what the stage at hand will still take at the rate of what in it can be counted."""
        for depth, task in enumerate(self._tasks):
            if task.counted:
                share = self._share(depth)
                return (self._clock() - task.began) * (1 - share) / share if share else None
        return None

    def _left(self) -> float | None:
        """Returns what the whole will still take: guesses, corrected by what stages of the same kind took."""
        counted = self._left_of_current()
        if not self._stages:
            return counted
        current = self._current()
        spent = self._clock() - self._tasks[0].began if current else 0.0
        guessed: dict[str, float] = {}
        took: dict[str, float] = {}
        for stage in self._stages:
            seconds = self._took.get(stage.name, 0.0)
            if stage is current:
                seconds = 0.0 if counted is None else spent + counted
            if seconds > _TELLING_S:
                guessed[stage.kind] = guessed.get(stage.kind, 0.0) + stage.seconds
                took[stage.kind] = took.get(stage.kind, 0.0) + seconds
        factor = {kind: took[kind] / guessed[kind] for kind in guessed if guessed[kind]}
        rest = [stage for stage in self._stages if stage.name not in self._took and stage is not current]
        known = [stage.seconds for stage in rest if stage.kind in factor]
        unknown = [stage.seconds for stage in rest if stage.kind not in factor]
        here = counted
        if current and counted is None and current.kind in factor:
            here = max(0.0, current.seconds * factor[current.kind] - spent)
        elif current and counted is None:
            unknown.append(current.seconds)
        # A time of which most is a guess helps nobody.
        if sum(unknown) > sum(known) + (here or 0.0):
            return None
        return (
            (here or 0.0)
            + sum(unknown)
            + sum(stage.seconds * factor[stage.kind] for stage in rest if stage.kind in factor)
        )


def in_words(seconds: float) -> str:
    """Returns a time as people read it off a clock: "0:07", "12:30", "1:02:03"."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
