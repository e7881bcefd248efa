"""What native code writes to standard error inside a block comes out as text, instead of on the user's terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator

_STDERR = 2
_lock = threading.RLock()


class NativeLog:
    """The text, complete when the block has ended."""

    text = ""

    @property
    def words(self) -> str:
        """The text on one line, without the INFO lines."""
        lines = (line.strip() for line in self.text.splitlines())
        return " ".join(line for line in lines if line and not line.startswith(("INFO:", "WARNING: All log")))


@contextlib.contextmanager
def native_log() -> Iterator[NativeLog]:
    """Yields a NativeLog of what this process writes to file descriptor 2 inside the block."""
    log = NativeLog()
    with _lock:
        sys.stderr.flush()
        if _is_readable_file(_STDERR):
            # A worker's log: what is written must stay there, to explain a crash.
            start = os.fstat(_STDERR).st_size
            try:
                yield log
            finally:
                sys.stderr.flush()
                log.text = os.pread(_STDERR, os.fstat(_STDERR).st_size - start, start).decode(errors="replace")
            return
        with tempfile.TemporaryFile() as file:
            saved = os.dup(_STDERR)
            os.dup2(file.fileno(), _STDERR)
            try:
                yield log
            finally:
                sys.stderr.flush()
                os.dup2(saved, _STDERR)
                os.close(saved)
                file.seek(0)
                log.text = file.read().decode(errors="replace")


def _is_readable_file(descriptor: int) -> bool:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
