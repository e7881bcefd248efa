"""Trials go in; what was measured, or the news that whoever ran one died, comes out: processes of this machine."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import Protocol

from edgeopt import progress, workers
from edgeopt.errors import EdgeoptError
from edgeopt.recipe import Recipe
from edgeopt.search.trying import Address, Measured, Rule

BENCH = "edgeopt.search.trying:Bench"


@dataclass(frozen=True)
class Ended:
    """A trial that came back.

    Attributes:
        hand: number of the process, from 0.
        measured: None where there is nothing.
        failed: why it could not be made or measured.
        lost: why whoever ran it is gone.
    """

    hand: int
    measured: Measured | None = None
    failed: str = ""
    lost: str = ""


class Hands(Protocol):
    """Processes that take a trial each."""

    count: int

    def give(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        """Has a process that has nothing to do begin a trial."""

    def take(self, timeout_s: float) -> Ended | None:
        """Returns a trial that came back, None where none does in time."""

    def close(self) -> None:
        """Ends all of them, whatever they do."""


class Here:
    """Worker processes of this machine, each with its share of the cores.

    Args:
        address: of the workspace.
        count: how many.
        bench: what takes the trials in a process, "package.module:name".
    """

    def __init__(self, address: Address, count: int, *, bench: str = BENCH) -> None:
        self.count = count
        self._address, self._bench = address, bench
        self._workers = [workers.Worker("trials") for _ in range(count)]
        self._benches: dict[int, workers.Remote] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._closing = False

    def give(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        """See `Hands`."""
        threading.Thread(target=self._run, args=(hand, recipe, rule), daemon=True).start()

    def _run(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        # What several do at a time is no line for a terminal: whoever leads says how far all of it is.
        with progress.listening(None):
            try:
                self._ended.put(self._outcome(hand, recipe, rule))
            except Exception as error:
                if not self._closing:  # its process was taken from under it
                    self._ended.put(Ended(hand, failed=f"a defect of edgeopt: {error!r}"))

    def _outcome(self, hand: int, recipe: Recipe, rule: Rule) -> Ended:
        try:
            if hand not in self._benches:
                self._benches[hand] = self._workers[hand].create(self._bench, self._address, (hand, self.count))
            return Ended(hand, self._benches[hand].call("measure", recipe, rule))
        except EdgeoptError as error:
            return Ended(hand, failed=str(error))
        except workers.WorkerCrashed as crash:
            self._benches.pop(hand, None)
            return Ended(hand, lost=crash.reason)
        except workers.WorkerDefect as defect:
            return Ended(hand, failed=f"a defect of edgeopt: {defect.gist}")

    def take(self, timeout_s: float) -> Ended | None:
        """See `Hands`."""
        with contextlib.suppress(queue.Empty):
            return self._ended.get(timeout=timeout_s)
        return None

    def close(self) -> None:
        """See `Hands`."""
        self._closing = True
        for worker in self._workers:
            worker.close()
