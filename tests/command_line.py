"""Runs `edgeopt` as a user does, in a process of its own, and looks at all it leaves."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-m", "edgeopt")

# What frameworks write on standard error when nobody stops them.
_LOGS = re.compile(r"^[IWEF]\d{4} |cudart|cuda drivers|oneDNN|absl::InitializeLog|tensorflow/|UserWarning", re.M)


def edgeopt(
    *arguments: str | Path, folder: Path, timeout_s: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs one command in `folder`; its temporary files go where the test can look for them."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env=surroundings(folder, **environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


def surroundings(folder: Path, **environment: str) -> dict[str, str]:
    """Returns the environment of a command that runs in `folder`."""
    temporary_files(folder).mkdir(exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EDGEOPT_")}
    return {**plain, "TMPDIR": str(temporary_files(folder)), **environment}


def temporary_files(folder: Path) -> Path:
    """Returns the folder of temporary files of the commands that run in `folder`."""
    return folder.with_name(f"{folder.name}-temporary")


def contents(folder: Path) -> dict[str, str]:
    """Returns the hash of every file below `folder`, hidden ones too, by name; folders have none."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    """No traceback and no log of a framework reached the user."""
    for stream in (done.stdout, done.stderr):
        assert "Traceback" not in stream, stream
        assert not _LOGS.search(stream), stream
