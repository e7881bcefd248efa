"""Nothing goes in; the folders where edgeopt keeps things for a user, beside any project, come out."""

from __future__ import annotations

import os
from pathlib import Path


def state() -> Path:
    """Returns the folder of what edgeopt has to remember."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgeopt"


def cache() -> Path:
    """Returns the folder of what edgeopt can make or get again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeopt"
