"""Finished work of a run, kept in its output folder: a stage and what it depends on go in, its result comes out.

Results are keyed by content (file hashes, options, versions), never by name or time: the same command continues
where it was killed, and a changed input misses the store by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgeopt import files
from edgeopt.errors import DataError
from edgeopt.plain import from_plain, to_plain

Result = TypeVar("Result")

MARKER = ".edgeopt"


class Store:
    """Results of finished stages under `folder`/.edgeopt, each a small JSON file written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / MARKER

    def changes(self, inputs: Mapping[str, str]) -> tuple[str, ...]:
        """Notes the run's inputs and returns the names of those that differ from the last run's in this folder."""
        file = self._folder / "inputs.json"
        try:
            before = json.loads(file.read_text())
        except (OSError, ValueError):
            before = {}
        files.atomic_write(file, json.dumps(dict(inputs), indent=2))
        return tuple(name for name, value in inputs.items() if name in before and before[name] != value)

    def remember(
        self,
        stage: str,
        key: Mapping[str, Any],
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        still_holds: Callable[[Result], bool] = lambda _: True,
    ) -> Result:
        """Returns the result of `stage` for `key`: the stored one, or the one that `compute` makes now.

        Args:
            stage: what is done; the name of the stored file begins with it.
            key: everything the result depends on, as plain values.
            kind: the dataclass of the result.
            compute: does the work.
            still_holds: whether a stored result may be used, where it speaks of files that somebody may have touched.
        """
        digest = hashlib.sha256(json.dumps(to_plain(key), sort_keys=True).encode()).hexdigest()[:24]
        file = self._folder / f"{stage}-{digest}.json"
        try:
            stored = from_plain(kind, json.loads(file.read_text()))
            if still_holds(stored):
                return stored
        except (OSError, ValueError, DataError):
            pass  # not there, or of an older shape: do the work
        result = compute()
        files.atomic_write(file, json.dumps(to_plain(result)))
        return result
