"""Trials go in; what was measured, or the news that whoever ran one died, comes out: processes of a Ray cluster.

Models, data and everything that is made travel through the output folder, which all machines have to reach; what Ray
carries are recipes and what was measured. Ray itself works in a process of its own: it prints what it likes, and ends
its process when its cluster is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import tempfile
import time
from typing import Any

from edgeopt import frameworks, workers
from edgeopt.errors import EdgeoptError, UnavailableError, setting
from edgeopt.recipe import Recipe
from edgeopt.search.hands import BENCH, Ended
from edgeopt.search.trying import Address, Rule

# A cluster of this machine, for as long as the search lasts.
LOCAL = "local"
# How long a process of a cluster may take to start: by then there is no room for it.
START_S = 300.0
_CLOSE_S, _KNOCK_S = 30.0, 10.0
# A cluster of ours sends nothing to anybody, and its processes are as important as we are: Ray's are not. (Its TMPDIR
# is the system's: the paths of its sockets are nearly as long as may be.)
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


class OnRay:
    """Actors of a Ray cluster, each with one of its CPUs.

    Args:
        address: of the workspace.
        count: how many.
        cluster: its address, or LOCAL.
        bench: see `Here`.

    Raises:
        UnavailableError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: Address, count: int, cluster: str, *, bench: str = BENCH) -> None:
        self.count = count
        self._cluster = cluster
        _require_somebody(cluster)
        self._worker = workers.Worker("trials", environment={**_ENVIRONMENT, "TMPDIR": tempfile.gettempdir()})
        try:
            self._driver = self._worker.create("edgeopt.search.on_ray:Driver", address, count, cluster, bench)
        except workers.WorkerCrashed as crash:
            raise _unreachable(cluster, crash.reason) from None

    def give(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        """See `Hands`.

        Raises:
            UnavailableError: the cluster has no room, or is gone.
            ConfigError: its machines do not reach the output folder.
        """
        self._call("give", hand, recipe, rule)

    def take(self, timeout_s: float) -> Ended | None:
        """See `Hands`.

        Raises:
            UnavailableError: the cluster is gone.
        """
        ended: Ended | None = self._call("take", timeout_s)
        return ended

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return self._driver.call(method, *args)
        except workers.WorkerCrashed as crash:
            raise _gone(self._cluster, crash.reason) from None

    def close(self) -> None:
        """See `Hands`."""
        with contextlib.suppress(EdgeoptError, workers.WorkerCrashed, workers.WorkerDefect):
            self._driver.call("close", timeout_s=_CLOSE_S)
        self._worker.close()


class Driver:
    """What speaks to Ray, in a process of its own; arguments and errors as of `OnRay`."""

    def __init__(self, address: Address, count: int, cluster: str, bench: str) -> None:
        self._address, self._count, self._cluster, self._bench = address, count, cluster, bench
        self._ray = ray = frameworks.load("ray")
        options: dict[str, Any] = {"num_cpus": count, "include_dashboard": False}
        if cluster != LOCAL:
            # Its processes find this very package, and the user's modules, where its machines share them.
            options = {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}}
        try:
            ray.init(address=cluster, logging_level="ERROR", log_to_driver=False, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _unreachable(cluster, _line(error)) from error
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}

    def give(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        """Has an actor begin a trial, a new one where there is none."""
        if hand not in self._actors:
            self._actors[hand] = self._started(hand)
        self._waiting[self._actors[hand].measure.remote(recipe, rule)] = hand

    def _started(self, hand: int) -> Any:
        ray = self._ray
        module, _, name = self._bench.partition(":")
        kind = ray.remote(num_cpus=1)(getattr(importlib.import_module(module), name))
        actor = kind.remote(self._address, (hand, self._count))
        try:
            ray.get(actor.ready.remote(), timeout=START_S)
        except ray.exceptions.GetTimeoutError:
            there = ray.cluster_resources().get("CPU", 0)
            raise UnavailableError(
                f"Expected room for {self._count} processes on the Ray cluster, got none for the next in {START_S:g} "
                f"s: it has {there:g} CPUs. Try fewer {setting('workers')}."
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise _gone(self._cluster, _line(error)) from error
        return actor

    def take(self, timeout_s: float) -> Ended | None:
        """Returns a trial that came back, None where none does in time."""
        ray = self._ray
        if not self._waiting:
            time.sleep(timeout_s)
            return None
        try:
            ready, _ = ray.wait(list(self._waiting), timeout=timeout_s)
            return self._ended(self._waiting.pop(ready[0]), ready[0]) if ready else None
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise _gone(self._cluster, _line(error)) from error

    def _ended(self, hand: int, result: Any) -> Ended:
        lost = self._ray.exceptions
        try:
            return Ended(hand, self._ray.get(result))
        except lost.RayTaskError as error:
            defect = "" if isinstance(error.cause, EdgeoptError) else "a defect of edgeopt: "
            return Ended(hand, failed=f"{defect}{error.cause}")
        except (lost.ActorDiedError, lost.ActorUnavailableError, lost.WorkerCrashedError) as error:
            del self._actors[hand]  # its next trial gets another
            return Ended(hand, lost=_line(error))

    def close(self) -> None:
        """Ends all actors, and a cluster of our own."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()


def _require_somebody(cluster: str) -> None:
    """Raises UnavailableError where nobody listens at an address: Ray itself goes on trying for minutes."""
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "local", "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(cluster, str(error)) from None


def _unreachable(cluster: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"The Ray cluster {cluster} cannot be reached: {why}. Try the address that `ray start --head` printed, or "
        f"{setting('ray', LOCAL)} for one of this machine."
    )


def _gone(cluster: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"The Ray cluster {cluster} is gone: {why}. Nothing that was finished is lost: the same command goes on."
    )


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
