"""A user's "module:function" goes in; the module as its file says it now, and a digest of that file, come out."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

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
