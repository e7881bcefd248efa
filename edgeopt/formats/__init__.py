"""What ships, in any format: a path goes in; its format, and what everybody asks of a file, come out.

Every format is one module with `facts(path)`; the table below is all that is known of it elsewhere.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt import files, trust
from edgeopt.errors import ModelError
from edgeopt.vocabulary import Artifact

if TYPE_CHECKING:
    from edgeopt.formats.contract import FileFacts

_KEPT = 64


@dataclass(frozen=True)
class Format:
    """A row of FORMATS.

    Attributes:
        name: as in `--format` and in reports.
        suffix: of its files, ".tflite".
        module: where `facts(path)` is, which gives FileFacts or raises a ModelError.
        summary: one line for help and docs.
        magic: what its files hold, and from which byte on; None where only the suffix tells.
        is_code: whether running a file means running what its maker wrote.
    """

    name: str
    suffix: str
    module: str
    summary: str
    magic: tuple[int, bytes] | None = None
    is_code: bool = False


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("tflite", ".tflite", "edgeopt.formats.tflite", "TensorFlow Lite's flatbuffer", magic=(4, b"TFL3")),
        Format("onnx", ".onnx", "edgeopt.formats.onnx", "ONNX"),
        Format("tvm", ".so", "edgeopt.formats.sealed", "TVM's shared library", magic=(0, b"\x7fELF"), is_code=True),
        Format("tensorrt", ".engine", "edgeopt.formats.sealed", "TensorRT's engine", is_code=True),
    )
}


def format_of(path: Path) -> Format:
    """Returns the format of a file, by its content first and its suffix second.

    Raises:
        ModelError: it has none of FORMATS.
    """
    found = _known(path)
    if found is None:
        known = " or ".join(f"{row.suffix} ({row.summary})" for row in FORMATS.values())
        raise ModelError(f"Expected a converted file, {known}, got {path}. Try `edgeopt convert`.")
    return found


def is_converted(path: Path) -> bool:
    """Whether a path holds what a converter wrote, rather than a model to convert; a missing one by its suffix."""
    return not path.is_dir() and _known(path) is not None


def facts(path: Path) -> FileFacts:
    """Returns what a file holds; it is read once, for all who ask while it stays as it is.

    Raises:
        ModelError: it has no known format, or cannot be read.
    """
    row = format_of(path)
    try:
        found = path.stat()
    except OSError:
        return _read(row, path)
    return _once(row, path, found.st_ino, found.st_mtime_ns, found.st_size)


# Counts and names alone: weights are read again where somebody asks for their values.
@functools.lru_cache(maxsize=_KEPT)
def _once(row: Format, path: Path, *identity: int) -> FileFacts:
    return _read(row, path)


def artifact(file: Path, folder: Path, *, made_by: str = "") -> Artifact:
    """Returns a written file as an Artifact, its path relative to `folder`, where the report is.

    Raises:
        ModelError: it has no known format.
    """
    content = file.read_bytes()
    return Artifact(
        format_of(file).name,
        file.relative_to(folder).as_posix(),
        files.sha256(file),
        len(content),
        files.gzip_size(content),
        made_by,
    )


def trust_code(path: Path) -> None:
    """Remembers that the code of a file may run, where it is of a format that holds any; what its maker is asked for.

    Raises:
        ModelError: it has no known format, or cannot be read.
        ConfigError: see `trust.trust`.
    """
    if format_of(path).is_code:
        facts(path)
        trust.trust(path.read_bytes())


def _read(row: Format, path: Path) -> FileFacts:
    found: FileFacts = importlib.import_module(row.module).facts(path)
    return found


def _known(path: Path) -> Format | None:
    return _by_content(path) or next((row for row in FORMATS.values() if row.suffix == path.suffix), None)


def _by_content(path: Path) -> Format | None:
    rows = [(row, *row.magic) for row in FORMATS.values() if row.magic is not None]
    try:
        with path.open("rb") as file:
            head = file.read(max((at + len(magic) for _, at, magic in rows), default=0))
    except OSError:
        return None  # the format's reader says what is wrong with it
    return next((row for row, at, magic in rows if head[at : at + len(magic)] == magic), None)
