"""A session that lives in a worker process: the same calls go in, and a crash comes out as a ModelError."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import workers
from edgeopt.errors import ModelError
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.vocabulary import Footprint, TensorSpec


class IsolatedSession(Session):
    """Stands in for a Session in a worker process of its own; see `edgeopt.runtimes.isolated`."""

    def __init__(
        self, file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
    ) -> None:
        self.runtime, self.file = runtime, file
        self._what = died_words(file, runtime, delegate)
        self._worker = workers.Worker("running")
        self._remote: workers.Remote | None = None
        try:
            self._remote = self._worker.create(
                "edgeopt.runtimes:open_session",
                file,
                runtime,
                threads=threads,
                delegate=delegate,
                keep_intermediates=keep_intermediates,
            )
            self._refresh()
            self._declared: tuple[TensorSpec, ...] = self._remote.get("declared")
            self.threads = self._remote.get("threads")
            self.delegated_share = self._remote.get("delegated_share")
            self.delegated = self._remote.get("delegated")
            self.undelegated = self._remote.get("undelegated")
        except workers.WorkerCrashed as crash:
            raise crashed(self._what, crash) from None
        except BaseException:
            self._worker.close()
            raise

    def resize(self, batch_size: int) -> bool:
        """See Session.resize."""
        done = bool(self._call("resize", batch_size))
        self._refresh()
        return done

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """See Session.declared."""
        return self._declared

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """See Session.reshape."""
        self._call("reshape", dict(shapes))
        self._refresh()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        return self._call("run", dict(inputs))

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns; the clock runs in the worker."""
        return self._call("invoke_ns", dict(inputs), runs=runs)

    def tensors(self) -> dict[str, np.ndarray]:
        """See Session.tensors."""
        return self._call("tensors")

    def footprint(self, inputs: Mapping[str, np.ndarray]) -> Footprint:
        """See Session.footprint."""
        return self._call("footprint", dict(inputs))

    def close(self) -> None:
        """Ends the worker, after the session has cleaned up behind itself."""
        if self._remote is not None:
            with contextlib.suppress(workers.WorkerCrashed):
                self._remote.call("close")
        self._remote = None
        self._worker.close()

    def _refresh(self) -> None:
        assert self._remote is not None
        self.inputs = self._remote.get("inputs")
        self.outputs = self._remote.get("outputs")

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._remote is None:
            raise ModelError(f"{self._what} and its session is closed. Try opening it anew.")
        try:
            return self._remote.call(method, *args, **kwargs)
        except workers.WorkerCrashed as crash:
            self._remote = None
            raise crashed(self._what, crash) from None


def died_words(file: Path, runtime: Runtime, delegate: Delegate | None) -> str:
    """Returns the beginning of a message about a runtime's death on a file."""
    carrying = f" with the delegate {delegate.library.name}" if delegate else ""
    return f"{runtime.name}{carrying} died on {file.name}"


def crashed(what: str, crash: workers.WorkerCrashed) -> ModelError:
    """Returns the error that a worker's death is to the user, with the last line it wrote."""
    last = crash.log.splitlines()[-1] if crash.log else "it left no message"
    return ModelError(
        f"{what} ({crash.reason}): {last}. Expected it to open and run; try another runtime (--runtime litert-builtin) "
        "or converting the model again."
    )
