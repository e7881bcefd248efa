"""A user's "module:function" goes in; the function as its file says it now, and a digest of that file, come out."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeopt.errors import ConfigError

# Digest of the source that each module was imported from here.
_imported: dict[str, str] = {}


def import_module(name: str) -> ModuleType:
    """Imports a module that lies in the working folder or on Python's path; anew where its file was edited since.

    Raises:
        ImportError, ValueError: there is none.
        Exception: what its code raises.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a console script does not look where it is called
    importlib.invalidate_caches()
    before, now = _imported.get(name), _source_digest(name)
    module = sys.modules.get(name)
    if module is not None and before not in (None, now):
        module = importlib.reload(module)
    _imported[name] = now
    return module or importlib.import_module(name)


def load_function(name: str, kind: str) -> Callable[..., Any]:
    """Returns the function, or class, that "module:function" names; `kind` is what it is, "a metric".

    Raises:
        ConfigError: it cannot be imported, or is none.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Expected {kind} as module:function, got {name!r} ({error}). Try one that can be imported from here."
        ) from error
    if not callable(function):
        raise ConfigError(f"Expected {name!r} to name a function, got {type(function).__name__}. Try module:function.")
    found: Callable[..., Any] = function
    return found


def digest(name: str) -> str:
    """Returns a hash of the file that holds a "module:function", "" for words that are none."""
    module, colon, _ = name.partition(":")
    try:
        return _source_digest(module) if colon else ""
    except (ImportError, ValueError):
        return ""


def _source_digest(module: str) -> str:
    found = importlib.util.find_spec(module) if module else None
    if found is None or not found.origin or not Path(found.origin).is_file():
        return ""
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
