"""A file that is code goes in; whether this user's edgeopt made it, or was told to trust it, comes out.

What a compiler wrote runs in our process when it is loaded. Its digest is kept under the user's home as it is made, so
that a stranger's file is refused wherever it lies and whatever it says of itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeopt import files, places
from edgeopt.errors import ConfigError, ModelError


def trust(content: bytes) -> None:
    """Remembers a file's content, by its digest, as one whose code may run.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        (folder() / hashlib.sha256(content).hexdigest()).touch()
    except OSError as error:
        raise ConfigError(
            f"Could not remember in {folder()} what may run: {error.strerror}. Try XDG_STATE_HOME=FOLDER."
        ) from error


def require_trusted(file: Path) -> None:
    """Raises ModelError where a file's code is neither of our making nor trusted."""
    if not (folder() / files.sha256(file)).exists():
        raise ModelError(
            f"Expected {file.name} as edgeopt made it for you here, got other code, which would run. Try making it "
            "anew from its model, or --trust where you know who made it."
        )


def folder() -> Path:
    """Returns where the digests lie."""
    return places.state() / "trusted"
