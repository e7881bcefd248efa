"""A file of code that a compiler made goes in, FileFacts come out; its code is not loaded.

What it computes stands behind its code, where loaders do not look: JSON, its length in 8 bytes, and a mark.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edgeopt.errors import DataError, ModelError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.plain import from_plain, to_plain
from edgeopt.vocabulary import StoredWeight, TensorSpec

_MARK = b"edgeopt\n"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Tuning:
    """What a search for faster kernels came to.

    Attributes:
        kernels, finished: how many there are, and for how many all that is known was tried.
        tried: ways of computing them that were timed.
        before_ms, after_ms: of all kernels, each run once: by rule, and with what was found.
    """

    kernels: int
    finished: int
    tried: int
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class Library:
    """What a shared library or an engine computes, as it was known when it was made.

    Attributes:
        inputs, outputs: by the names of the file that it was made from; `main` takes and gives them in this order.
        operators: of that file; their weights are in the code.
        macs, parameters: of one inference.
        is_quantized: whether anything in that file has a scale.
        computes: how, in words.
        triple, processor: what the code is for, as LLVM names both.
        made_from: the format of that file.
        made_with: the version of the compiler.
        format: a key of `formats.FORMATS`.
        tuning: None where its kernels were not timed.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[OperatorFacts, ...]
    macs: int
    parameters: int
    is_quantized: bool
    computes: str
    triple: str
    processor: str
    made_from: str
    made_with: str
    format: str = "tvm"
    tuning: Tuning | None = None

    @property
    def architecture(self) -> str:
        """As `platform.machine()` names it."""
        return self.triple.split("-")[0]


def sealed(code: bytes, library: Library) -> bytes:
    """Returns the file of a shared library and what it computes."""
    said = json.dumps(to_plain(library)).encode()
    return code + said + struct.pack("<Q", len(said)) + _MARK


def described(path: Path) -> Library:
    """Returns what a file says that it computes.

    Raises:
        ModelError: it says nothing, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - len(_MARK) - 8))
            end = file.read()
            if len(end) != len(_MARK) + 8 or not end.endswith(_MARK):
                _refuse(path)
            (length,) = struct.unpack("<Q", end[:8])
            if length > min(_MOST_BYTES, size):
                _refuse(path)
            file.seek(size - len(end) - length)
            return from_plain(Library, json.loads(file.read(length)))
    except OSError as error:
        raise ModelError(f"Expected a file of code, got {path}: {error.strerror}. Try the path of a file.") from None
    except (ValueError, RecursionError, DataError):
        _refuse(path)


def plain_code(path: Path) -> bytes:
    """Returns a file without what it says of itself."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[-len(_MARK) - 8 : -len(_MARK)])
    return content[: -len(_MARK) - 8 - length]


def facts(path: Path) -> FileFacts:
    """Returns the facts of a file.

    Raises:
        ModelError: it cannot be read.
    """
    library, size = described(path), path.stat().st_size

    def read(weight: StoredWeight) -> NoReturn:
        raise ModelError(
            f"Expected a format that stores weights, got {path.name}, whose weights are in its code. "
            "Try the file that it was made from."
        )

    return FileFacts(
        format=library.format,
        inputs=library.inputs,
        outputs=library.outputs,
        operators=library.operators,
        weights=(),
        macs=library.macs,
        bytes_by_kind={"code": size},
        size_bytes=size,
        is_quantized=library.is_quantized,
        read=read,
        computes=library.computes,
        notes=tuple(_notes(library)),
        parameters_in_code=library.parameters,
    )


def _notes(library: Library) -> list[str]:
    if library.format == "tensorrt":
        return [
            f"an engine for {library.processor}, by TensorRT {library.made_with} from .{library.made_from}: it runs on "
            "that GPU, with that version"
        ]
    found = [
        f"code for {library.processor} ({library.triple}), by TVM {library.made_with} from .{library.made_from}",
        "its weights are in the code, which needs TVM's runtime beside it",
    ]
    if (tuning := library.tuning) is not None:
        found.append(
            f"tuned where it was made: {tuning.tried} ways to compute its {tuning.kernels} kernels tried, all "
            f"known ones for {tuning.finished}: {tuning.before_ms:.3g} ms in them by rule, {tuning.after_ms:.3g} ms now"
        )
    kinds = Counter(operator.name for operator in library.operators if operator.float_arithmetic)
    if library.is_quantized and kinds:
        found.append("integers go in and out of each operator, which computes in float32: as right as int8, no faster")
    return found


def _refuse(path: Path) -> NoReturn:
    raise ModelError(
        f"Expected code that edgeopt made, which says what it computes, got {path}. "
        f"Try `edgeopt convert MODEL -o FILE{path.suffix}`."
    )
