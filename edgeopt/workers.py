"""Worker processes for code that may crash: a function's name and arguments go in, its result or an error comes out.

TensorFlow's converter can segfault, foreign runtimes abort on asserts, and some native libraries cannot share a
process. A worker is a fresh interpreter (no fork, no re-import of the user's script) that holds one end of a
socket; its death is an exception here, with the last lines it wrote. A thread beside each call keeps its limits,
whatever the worker says or does meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgeopt import imports, progress
from edgeopt.errors import ConfigError, EdgeoptError


@dataclass(frozen=True)
class Limits:
    """What a call may take before its worker is ended.

    Attributes:
        seconds: of wall clock, from the call on; None where nobody can say.
        memory_bytes: resident, of the worker and all that it started.
    """

    seconds: float | None
    memory_bytes: int


def _machine_bytes() -> int:
    """Returns the memory of this machine, or of the container that we are in."""
    import psutil

    sizes = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max"
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(sizes)


# By kind of work: the seconds of one call, and its share of the machine's memory. Far above what real models
# take: they end what hangs. EDGEOPT_WORKER_TIME_S and EDGEOPT_WORKER_MEMORY_GB say otherwise.
LIMITS: dict[str, tuple[float | None, float]] = {
    "training": (None, 0.9),
    "trials": (None, 0.9),
    "conversion": (2 * 3600, 0.9),
    "scoring": (6 * 3600, 0.9),
    "running": (15 * 60, 0.9),
    "trying": (5 * 60, 0.9),
}

_POLL_S = 0.2
_MEMORY_POLL_S = 0.5  # looking at the tree reads /proc, which costs milliseconds
_LOG_TAIL_BYTES = 4000
# Information and warnings of Abseil's logging: "I0000 00:00:1795228285.250010   16607 cudart_stub.cc:31] …"; what
# LiteRT says of itself: "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.".
_CHATTER = re.compile(r"WARNING: All log messages before absl|INFO: |[IW]\d{4} [\d:.]+ +\d+ \S+:\d+\]")


class WorkerCrashed(Exception):
    """The worker process died, or was ended for its time or memory.

    Attributes:
        reason: what ended it, in words ("segmentation fault", "over 4.0 GB of memory" …).
        log: the last lines it wrote to standard output and error.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"{reason}\n{log}".strip())
        self.reason = reason
        self.log = log


class TimeIsUp(Exception):
    """The moment that `until` names has come: the call was ended, or not begun."""


class WorkerDefect(Exception):
    """Code in the worker raised something that is neither an EdgeoptError nor of files: a defect, with its traceback.

    Args:
        trace: the worker's.
        gist: the error's kind and all its words in one line.
    """

    def __init__(self, trace: str, gist: str) -> None:
        super().__init__(trace, gist)
        self.gist = gist

    def __str__(self) -> str:
        return str(self.args[0])


class Worker:
    """One worker process, started at the first call and started anew after a crash.

    Objects made with `create` live in the worker until it ends; a crash takes them along. So do its temporary files.

    Args:
        kind: what it does, a row of LIMITS.
        environment: variables it gets beside ours.
        limits: in place of those of its kind.
        verbose: what it writes goes to our standard error; by default where EDGEOPT_VERBOSE is set.
    """

    def __init__(
        self,
        kind: str = "running",
        *,
        environment: dict[str, str] | None = None,
        limits: Limits | None = None,
        verbose: bool | None = None,
    ) -> None:
        self._kind, self._environment = kind, environment or {}
        self._limits = limits or limits_of(kind)
        self._verbose = bool(os.environ.get("EDGEOPT_VERBOSE")) if verbose is None else verbose
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._log: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def call(self, function: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Runs `function`, given as "package.module:name", in the worker and returns its result.

        Args:
            timeout_s: in place of the seconds of the worker's kind.

        Raises:
            EdgeoptError, OSError: as the function raised it.
            WorkerCrashed: the process died or went over its limits.
            WorkerDefect: the function raised anything else.
        """
        return self._exchange(("call", function, args, kwargs), timeout_s)

    def create(self, factory: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Remote:
        """Calls `factory` in the worker, keeps its result there, and returns a stand-in for it."""
        return Remote(self, self._exchange(("create", factory, args, kwargs), timeout_s))

    def close(self) -> None:
        """Ends the process; a later call starts a fresh one."""
        process, connection, log, folder = self._process, self._connection, self._log, self._folder
        self._process = self._connection = self._log = self._folder = None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
        if process is not None:
            _kill(process)
            process.wait()
        if log is not None:
            log.close()
        if folder is not None:
            folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Connection:
        begun = _begun.pop(self._kind, None)
        if begun is not None and begun._process is not None and begun._process.poll() is None:
            self._process, self._connection = begun._process, begun._connection
            self._log, self._folder = begun._log, begun._folder
            assert self._connection is not None
            return self._connection
        ours, theirs = socket.socketpair()
        self._log = None if self._verbose else tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # It is ended without warning and cannot clear up; nor can TensorFlow after a segmentation fault.
        self._folder = tempfile.TemporaryDirectory(prefix="edgeopt-", ignore_cleanup_errors=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": self._folder.name, **self._environment}
        # The child must find this very package (and the user's modules), also when it runs from a checkout.
        environment["PYTHONPATH"] = os.pathsep.join(p for p in [*sys.path, os.environ.get("PYTHONPATH", "")] if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeopt.workers", str(theirs.fileno()), self._folder.name],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if self._verbose else self._log,
            stderr=None if self._verbose else self._log,
            env=environment,
            start_new_session=True,  # it ends with all that it started, and hears no Ctrl-C of its own
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        return self._connection

    def _exchange(self, message: tuple[Any, ...], timeout_s: float | None) -> Any:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self.close()
            connection = self._connection or self._start()
            assert self._process is not None
            limits = self._limits if timeout_s is None else Limits(timeout_s, self._limits.memory_bytes)
            left = _left_s()
            if left <= 0:
                raise TimeIsUp
            if left < (limits.seconds or math.inf):
                limits = Limits(left, limits.memory_bytes)
            try:
                with _Watch(self._process, limits) as watch:
                    answer = self._answer(connection, message)
            except BaseException:
                # A sink that raised, Ctrl-C: the answer is still to come, and would be taken for that of the next call.
                self.close()
                raise
            if answer is None or watch.broken:
                crash = self._crashed(watch.broken or None)
                raise TimeIsUp if watch.broken and _left_s() <= 0 else crash
        kind, value = answer
        if kind == "error":
            raise value
        if kind == "defect":
            raise WorkerDefect(*value)
        return value

    def _answer(self, connection: Connection, message: tuple[Any, ...]) -> tuple[str, Any] | None:
        """Returns the answer to a message, None where the worker died over it; news on the way are passed on."""
        try:
            connection.send(message)
        except OSError:
            return None
        while True:
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                return None
            if kind != "progress":
                return kind, value
            sink = progress.current_sink()
            if sink is not None:
                sink(value)

    def _crashed(self, reason: str | None) -> WorkerCrashed:
        process, log = self._process, ""
        assert process is not None
        if reason is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            reason = _exit_in_words(process.returncode)
        if self._log is not None:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - _LOG_TAIL_BYTES))
            log = _telling(self._log.read().decode(errors="replace"))
        self.close()
        return WorkerCrashed(reason, log)


class _Watch:
    """Ends a worker, inside the block, when it breaks its limits; `broken` says which one."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        self.broken = ""
        self._process, self._limits = process, limits
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        seconds = self._limits.seconds
        start = time.monotonic()
        looked = start
        while not self._done.wait(_POLL_S):
            now = time.monotonic()
            if seconds is not None and now - start > seconds:
                self._end(f"took longer than {seconds:g} s, which EDGEOPT_WORKER_TIME_S can change")
                return
            if now - looked >= _MEMORY_POLL_S:
                looked = now
                if _resident_bytes(self._process.pid) > self._limits.memory_bytes:
                    limit = f"{self._limits.memory_bytes / 1e9:.1f} GB of memory"
                    self._end(f"took more than {limit}, which EDGEOPT_WORKER_MEMORY_GB can change")
                    return

    def _end(self, reason: str) -> None:
        self.broken = reason
        _kill(self._process)


class Remote:
    """Stand-in for an object in a worker: its methods run there; plain attributes are fetched."""

    def __init__(self, worker: Worker, handle: int) -> None:
        self._worker = worker
        self._handle = handle

    def call(self, method: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of the object in the worker."""
        return self._worker._exchange(("method", self._handle, method, args, kwargs), timeout_s)

    def get(self, attribute: str) -> Any:
        """Returns a (picklable) attribute of the object."""
        return self._worker._exchange(("get", self._handle, attribute), None)

    def close(self) -> None:
        """Ends the worker, and the object with it."""
        self._worker.close()


_until: ContextVar[float] = ContextVar("edgeopt_until", default=math.inf)


@contextlib.contextmanager
def until(moment: float) -> Iterator[None]:
    """Ends every call to a worker inside the block at a moment of `time.monotonic`, with TimeIsUp."""
    token = _until.set(min(moment, _until.get()))
    try:
        yield
    finally:
        _until.reset(token)


def _left_s() -> float:
    return _until.get() - time.monotonic()


_begun: dict[str, Worker] = {}


def begin(kind: str, function: str) -> None:
    """Starts a process that the next Worker of that kind takes over; it imports what it will need meanwhile.

    Args:
        kind: of which no worker has an environment of its own.
        function: "package.module:name", called at once without arguments. What it raises is for the next call to meet.
    """
    if kind in _begun:
        return
    worker = Worker(kind)
    worker._start().send(("begin", function, (), {}))
    _begun[kind] = worker


_shared: dict[str, Worker] = {}


def shared(package: str) -> Worker:
    """Returns the worker that all work with one package shares, so that a heavy import is paid once.

    Packages are kept apart where their native libraries are better not in one process: "tensorflow", "litert" …
    """
    if package not in _shared:
        _shared[package] = Worker("scoring")
    return _shared[package]


@atexit.register
def close_all() -> None:
    """Ends every shared worker, and those that were begun and not needed."""
    for worker in (*_shared.values(), *_begun.values()):
        worker.close()
    _shared.clear()
    _begun.clear()


def limits_of(kind: str) -> Limits:
    """Returns the limits of a kind of work, a row of LIMITS, on this machine.

    Raises:
        ConfigError: a variable of the environment that should change them holds no number.
    """
    seconds, share = LIMITS[kind]
    own_seconds, own_gigabytes = _number("EDGEOPT_WORKER_TIME_S"), _number("EDGEOPT_WORKER_MEMORY_GB")
    memory = _machine_bytes() * share if own_gigabytes is None else own_gigabytes * 1e9
    return Limits(own_seconds or seconds, int(memory))


def _number(variable: str) -> float | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"Expected a positive number in {variable}, got {text!r}. Try {variable}=8.")
    return number


def _resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process and all that it started."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += int(one.memory_info().rss)
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a worker and what it started, which is in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _telling(log: str) -> str:
    """Returns a log without the lines that TensorFlow writes at every start."""
    return "\n".join(line for line in log.splitlines() if not _CHATTER.match(line)).strip()


def _exit_in_words(code: int | None) -> str:
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"ended with exit status {code}"
    names = {signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "abort", signal.SIGKILL: "killed (out of memory?)"}
    return names.get(signal.Signals(-code), f"ended by {signal.Signals(-code).name}")


# --- the other side ------------------------------------------------------------------------------------------------


def _serve(file_descriptor: int, folder: str) -> None:
    imports.own_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it ends us when it has to
    threading.Thread(target=_die_with_parent, args=(os.getppid(), folder), daemon=True).start()
    connection = Connection(file_descriptor)
    sending = threading.Lock()

    def send(message: tuple[str, Any]) -> None:
        with sending:
            connection.send(message)

    objects: list[Any] = []
    with progress.listening(lambda news: send(("progress", news))):
        while True:
            try:
                message = connection.recv()
            except EOFError:
                return
            if message[0] == "begin":
                with contextlib.suppress(Exception):
                    _perform(message, objects)
                continue
            try:
                send(("result", _perform(message, objects)))
            except EdgeoptError as error:
                send(("error", error))
            except OSError as error:  # a package's own kind of it may be unknown to the parent
                send(("error", OSError(error.errno, error.strerror or str(error), error.filename)))
            except Exception as error:
                gist = " ".join("".join(traceback.format_exception_only(error)).split())
                send(("defect", (traceback.format_exc(), gist)))


def _perform(message: tuple[Any, ...], objects: list[Any]) -> Any:
    kind = message[0]
    if kind == "method":
        _, handle, method, args, kwargs = message
        return getattr(objects[handle], method)(*args, **kwargs)
    if kind == "get":
        return getattr(objects[message[1]], message[2])
    _, function, args, kwargs = message
    module, _, name = function.partition(":")
    result = getattr(importlib.import_module(module), name)(*args, **kwargs)
    if kind == "create":
        objects.append(result)
        return len(objects) - 1
    return result


def _die_with_parent(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    try:
        _serve(int(sys.argv[1]), sys.argv[2])
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
