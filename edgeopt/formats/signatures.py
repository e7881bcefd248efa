"""A file and the name of one of its signatures go in; a file with that one alone, and what is to be said, come out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeopt import formats
from edgeopt.errors import ConfigError, DataError, EdgeoptError
from edgeopt.tflite.reader import read_once
from edgeopt.tflite.signatures import alone


def names(file: Path) -> tuple[str, ...]:
    """Returns the signatures that a file can be called by, the main graph's first; none where it has no such thing.

    Raises:
        ModelError: it cannot be read.
    """
    if formats.format_of(file).name != "tflite":
        return ()
    return tuple(one.key for one in sorted(read_once(file).signatures, key=lambda one: one.subgraph))


@contextlib.contextmanager
def of(file: Path, name: str | None) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yields what an interpreter runs for a signature, for as long as the block lasts, and in words which one that is.

    The file itself is its main graph's signature, which is meant where none is named.

    Raises:
        ConfigError: it has no signature of that name.
        ModelError: it cannot be read, or not be rewritten.
    """
    try:
        known = names(file)
    except EdgeoptError:
        if name is not None:
            raise
        known = ()  # what runs it says why
    if name is None or known[:1] == (name,):
        others = f"--signature names another: {', '.join(known[1:])}"
        try:
            yield file, ((f"of the signature {known[0]}; {others}",) if len(known) > 1 else ())
        except DataError as error:
            if len(known) > 1:
                error.args = (f"{error} It is of the signature {known[0]}; {others}.",)
            raise
        return
    if not known:
        raise ConfigError(f"Expected a .tflite with signatures for --signature {name}, got {file}. Try without.")
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        found = Path(folder) / f"{file.stem}.{name}.tflite"
        found.write_bytes(alone(file.read_bytes(), name))
        yield found, (f"of the signature {name}",)
