"""Nothing goes in; the Python of an environment that has PyTorch and litert-torch comes out, made where it is not.

It lies in the user's cache, under the versions that it holds. Two that want it at once wait for one another; one that
was stopped goes on where it was, as pip keeps what it has downloaded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgeopt import files, places, progress
from edgeopt.errors import UnavailableError

PINS = {"torch": "2.14.1", "litert-torch": "0.10.0"}
# Without NVIDIA's libraries; where it cannot be reached, the registry's wheel brings them.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SIZE = "about 2 GB of downloads, 5 GB where only wheels for NVIDIA's GPUs are to be had"
_TIMEOUT_S = 2 * 3600
_READY = "edgeopt-ready"


def folder() -> Path:
    """Returns where it is, or will be."""
    versions = "-".join(f"{name}-{version}" for name, version in PINS.items())
    return places.cache() / f"py{sys.version_info[0]}.{sys.version_info[1]}-{versions}"


def is_ready() -> bool:
    """Whether it is there, whole."""
    return (folder() / _READY).is_file()


def python() -> Path:
    """Returns its interpreter; makes the environment first, where it is not there.

    Raises:
        UnavailableError: it cannot be made; the message holds pip's last words.
    """
    place = folder()
    found = place / "bin" / "python"
    if is_ready():
        return found
    with files.locked(place.with_name(f"{place.name}.lock")):
        if not is_ready():
            _make(place, found)
    return found


def _make(place: Path, found: Path) -> None:
    torch, converter = (f"{name}=={version}" for name, version in PINS.items())
    progress.tell("getting PyTorch", 0, 3)
    if not found.exists():
        _call(sys.executable, "-m", "venv", str(place))
    progress.tell("getting PyTorch", 1, 3)
    install = (str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        _call(*install, "--retries", "1", "--index-url", CPU_INDEX, torch)
    except UnavailableError:
        _call(*install, torch)
    progress.tell("getting PyTorch", 2, 3)
    _call(*install, torch, converter)
    (place / _READY).touch()
    progress.tell("getting PyTorch", 3, 3)


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"Could not make the environment for PyTorch: {error}. Try again: it goes on.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        last = lines[-1] if lines else f"it ended with {done.returncode}"
        raise UnavailableError(
            f"Could not make the environment for PyTorch in {folder()}: {last}. Try again, with {SIZE} within reach: "
            "it goes on where it stopped."
        )
