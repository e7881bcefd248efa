"""Finished work, kept in a folder: a stage and what it depends on go in, its result comes out.

Results are keyed by content (file hashes, options, versions), never by name or time: the same command continues
where it was killed, a changed input misses the store by itself, and whoever asks for the same gets the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeopt import files
from edgeopt.errors import DataError
from edgeopt.plain import from_plain, to_plain

Result = TypeVar("Result")

MARKER = ".edgeopt"


def digest(key: Mapping[str, Any]) -> str:
    """Returns a hash of plain values, dataclasses and paths, in 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(to_plain(key), sort_keys=True).encode()).hexdigest()[:24]


class Store:
    """Results of finished stages under `folder`/.edgeopt, each a file written atomically.

    Any number of processes may use one folder: what one of them is doing, the others wait for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / MARKER

    def changes(self, inputs: Mapping[str, str]) -> tuple[str, ...]:
        """Notes the run's inputs and returns the names of those that differ from the last run's in this folder."""
        file = self.folder / "inputs.json"
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
            kind: the dataclass of the result; arrays in it are stored as arrays.
            compute: does the work.
            still_holds: whether a stored result may be used, where it speaks of files that somebody may have touched.
        """
        file = self.folder / f"{stage}-{digest(key)}"
        with files.locked(file.with_name(f".{file.name}.lock")):
            stored = _read(file, kind)
            if stored is not None and still_holds(stored):
                return stored
            result = compute()
            _write(file, result)
            return result


def _read(file: Path, kind: type[Result]) -> Result | None:
    """Returns what `_write` stored, or None where nothing is there, or something of an older shape."""
    try:
        with zipfile.ZipFile(file) as archive:
            plain = json.loads(archive.read("result.json"))
            arrays = {
                name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        return from_plain(kind, plain, arrays=arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, DataError):
        return None


def _write(file: Path, result: Any) -> None:
    arrays: dict[str, np.ndarray] = {}
    plain = to_plain(result, arrays=arrays)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("result.json", json.dumps(plain))
        for name, array in arrays.items():
            stored = io.BytesIO()
            np.save(stored, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", stored.getvalue())
    files.atomic_write(file, content.getvalue())
