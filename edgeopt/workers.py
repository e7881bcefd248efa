"""Worker processes for code that may crash: a function's name and arguments go in, its result or an error comes out.

TensorFlow's converter can segfault, foreign runtimes abort on asserts, and some native libraries cannot share a
process. A worker is a fresh interpreter (no fork, no re-import of the user's script) that holds one end of a
socket; its death is an exception here, with the last lines it wrote.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
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
from multiprocessing.connection import Connection
from typing import Any

from edgeopt import progress
from edgeopt.errors import EdgeoptError

_POLL_S = 0.2
_LOG_TAIL_BYTES = 4000
# Information and warnings of Abseil's logging: "I0000 00:00:1795228285.250010   16607 cudart_stub.cc:31] …".
_CHATTER = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} [\d:.]+ +\d+ \S+:\d+\]")


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


class WorkerDefect(Exception):
    """Code in the worker raised something that is no EdgeoptError: a defect, with the worker's traceback."""


class Worker:
    """One worker process, started at the first call and started anew after a crash.

    Objects made with `create` live in the worker until it ends; a crash takes them along. So do its temporary files.

    Args:
        environment: variables it gets beside ours.
        memory_limit_bytes: it is ended when it takes more.
        verbose: what it writes goes to our standard error; by default where EDGEOPT_VERBOSE is set.
    """

    def __init__(
        self,
        *,
        environment: dict[str, str] | None = None,
        memory_limit_bytes: int | None = None,
        verbose: bool | None = None,
    ) -> None:
        self._environment = environment or {}
        self._memory_limit_bytes = memory_limit_bytes
        self._verbose = bool(os.environ.get("EDGEOPT_VERBOSE")) if verbose is None else verbose
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._log: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def call(self, function: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Runs `function`, given as "package.module:name", in the worker and returns its result.

        Raises:
            EdgeoptError: as the function raised it.
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
            process.kill()
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
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        return self._connection

    def _exchange(self, message: tuple[Any, ...], timeout_s: float | None) -> Any:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self.close()
            connection = self._connection or self._start()
            try:
                connection.send(message)
                return self._answer(connection, timeout_s)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise self._crashed(None) from None
            except KeyboardInterrupt:
                self.close()
                raise

    def _answer(self, connection: Connection, timeout_s: float | None) -> Any:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            while not connection.poll(_POLL_S):
                if deadline is not None and time.monotonic() > deadline:
                    raise self._crashed(f"took longer than {timeout_s:g} s")
                if self._memory_limit_bytes is not None and self._resident_bytes() > self._memory_limit_bytes:
                    raise self._crashed(f"took more than {self._memory_limit_bytes / 1e9:.1f} GB of memory")
            kind, value = connection.recv()
            if kind == "progress":
                sink = progress.current_sink()
                if sink is not None:
                    sink(value)
            elif kind == "result":
                return value
            elif kind == "error":
                raise value
            else:
                raise WorkerDefect(value)

    def _resident_bytes(self) -> int:
        import psutil

        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

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


_shared: dict[str, Worker] = {}


def shared(kind: str) -> Worker:
    """Returns the worker that all work of one kind shares, so that a heavy import is paid once.

    Kinds are kept apart where their native libraries are better not in one process: "tensorflow", "litert" …
    """
    if kind not in _shared:
        _shared[kind] = Worker(memory_limit_bytes=_memory_limit())
    return _shared[kind]


@contextlib.contextmanager
def fresh() -> Iterator[Worker]:
    """Yields a worker for one piece of work and ends it afterwards."""
    with Worker(memory_limit_bytes=_memory_limit()) as worker:
        yield worker


@atexit.register
def close_all() -> None:
    """Ends every shared worker."""
    for worker in _shared.values():
        worker.close()
    _shared.clear()


def _memory_limit() -> int | None:
    value = os.environ.get("EDGEOPT_WORKER_MEMORY_GB")
    return int(float(value) * 1e9) if value else None


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
            try:
                send(("result", _perform(message, objects)))
            except EdgeoptError as error:
                send(("error", error))
            except Exception:
                send(("defect", traceback.format_exc()))


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
    os._exit(1)


if __name__ == "__main__":
    try:
        _serve(int(sys.argv[1]), sys.argv[2])
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
