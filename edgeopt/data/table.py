"""Raw samples of one split, described: row numbers go in, arrays come out; only the description is ever pickled."""

from __future__ import annotations

import abc
import atexit
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import math
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from edgeopt import files
from edgeopt.errors import DataError
from edgeopt.vocabulary import Batch, TensorSpec

CHUNK_BYTES = 4 << 20
# Tokens of a text that make a sample where nobody says how many.
CONTEXT = 128
# A few kilobytes of an archive can unpack to any of these: beyond them it is refused instead of filling the memory.
LARGEST_SAMPLE_BYTES = 1 << 30
LARGEST_LABELS_BYTES = 4 << 30
# Arrays above this travel to worker processes through a file, so that a pickle stays small.
_INLINE_BYTES = 16 << 20


@dataclass(frozen=True)
class Options:
    """What a source has to know to read its samples.

    Attributes:
        labels_column: name (or number, from 0) of the CSV column or TFRecord feature that holds the labels.
        color: "rgb" or "grayscale" for image files; None takes that of the first one.
        resize: height and width that image files are brought to while they are read.
        tokenizer: file of the tokenizer of a text, or "bytes".
        context: tokens of a text that make a sample.
    """

    labels_column: str | None = None
    color: str | None = None
    resize: tuple[int, int] | None = None
    tokenizer: str | None = None
    context: int = CONTEXT


@dataclass(frozen=True)
class Splits:
    """What a source holds: tables under "train", "val", "test", or "all" where it makes no difference between them."""

    tables: Mapping[str, Table]
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Described:
    """A frozen dataclass that pickles its fields, not what was cached on it."""

    def __getstate__(self) -> dict[str, object]:
        return {f.name: self.__dict__[f.name] for f in dataclasses.fields(self)}  # type: ignore[arg-type]


class Table(Described, abc.ABC):
    """The raw samples of one split.

    Attributes:
        inputs: names, per-sample shapes and raw dtypes.
        random_access: whether `rows` works; otherwise the samples can only be streamed from first to last.
        varies: whether each pass gives other samples with the same labels.
        costly: whether reading a sample twice is dear (decompressing, decoding), so that small sets are worth holding.
    """

    inputs: tuple[TensorSpec, ...]
    random_access: bool = True
    varies: bool = False
    costly: bool = True

    @abc.abstractmethod
    def __len__(self) -> int: ...

    def rows(self, numbers: np.ndarray) -> Batch:
        """Returns the samples with these row numbers, in this order, their raw labels included."""
        raise NotImplementedError(f"{type(self).__name__} can only be streamed")

    def stream(self) -> Iterator[Batch]:
        """Yields all samples in order, in chunks of some megabytes."""
        step = self.chunk_rows
        for start in range(0, len(self), step):
            yield self.rows(np.arange(start, min(start + step, len(self))))

    def targets(self, output: str = "") -> np.ndarray | None:
        """Returns the raw labels of all samples [N, ...]; None where there are none, or each is as big as an image.

        Args:
            output: one of `outputs`, where there are several.
        """
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that have labels of their own; none where one array is all."""
        return ()

    @property
    def weighted(self) -> bool:
        """Whether samples come with weights."""
        return False

    @property
    def has_targets(self) -> bool:
        """Whether samples come with labels."""
        return self.targets() is not None

    def fitted(self, name: str, shape: tuple[int | None, ...]) -> Table | None:
        """Returns this table reading input `name` in another per-sample shape, where the source can do that."""
        return None

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns a hash of the content, and of how it is read."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one raw sample without its label."""
        return max(
            1, sum(math.prod(cast("tuple[int, ...]", s.shape)) * np.dtype(s.dtype).itemsize for s in self.inputs)
        )

    @property
    def chunk_rows(self) -> int:
        """How many samples make a chunk of a stream."""
        return max(1, min(8192, CHUNK_BYTES // self.sample_bytes))


# --- columns: one array each --------------------------------------------------------------------------------------


class Column(abc.ABC):
    """One array [N, ...] that need not be in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    random_access: bool = True
    in_memory: bool = False

    @abc.abstractmethod
    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the rows with these numbers."""

    def stream(self, step: int) -> Iterator[np.ndarray]:
        """Yields all rows in order, `step` at a time."""
        for start in range(0, self.shape[0], step):
            yield self.rows(np.arange(start, min(start + step, self.shape[0])))

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns a hash of its content."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Stored(Column):
    """Rows that lie one after the other in a file, from byte `offset` on.

    They are read, not memory-mapped: mapped pages count as the process's memory until the system wants them back.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    content: str = ""

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        result = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        content, size = result.reshape(-1).view(np.uint8).data, self.row_bytes
        with reading(self.path), open(self.path, "rb", buffering=0) as file:
            for start, stop in runs(numbers):
                file.seek(self.offset + int(numbers[start]) * size)
                _fill(file, content[start * size : stop * size])
        return result

    def digest(self) -> str:
        return self.content or f"{content_hash(self.path)}@{self.offset}"


@dataclass(frozen=True, eq=False)
class Compressed(Column):
    """Rows in a compressed member of a zip file: decompressed as they are streamed, never as a whole."""

    path: str
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    random_access = False

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        raise NotImplementedError("a compressed array can only be streamed")

    def stream(self, step: int) -> Iterator[np.ndarray]:
        with reading(self.path), zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            read_npy_header(cast(BinaryIO, file))
            for start in range(0, self.shape[0], step):
                rows = np.empty((min(step, self.shape[0] - start), *self.shape[1:]), self.dtype)
                _fill(cast(io.RawIOBase, file), rows.reshape(-1).view(np.uint8).data)
                yield rows

    def digest(self) -> str:
        return f"{content_hash(self.path)}@{self.member}"


@dataclass(frozen=True, eq=False)
class InMemory(Column):
    """An array at hand. A large one is pickled as the description of a temporary file that it is written to."""

    array: np.ndarray
    random_access = True
    in_memory = True

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Its shape [N, ...]."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Its dtype."""
        return self.array.dtype

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        return self.array[numbers]

    def digest(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.dtype.str}{self.shape}".encode())
        for rows in self.stream(max(1, CHUNK_BYTES // max(1, self.row_bytes))):
            digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _spilled(self) -> Stored:
        path = _spill_folder() / f"{self._digest}.npy"
        if not path.exists():
            with files.atomic_path(path) as temporary:
                np.save(temporary, np.ascontiguousarray(self.array), allow_pickle=False)
        with path.open("rb") as file:
            read_npy_header(file)
            return Stored(str(path), file.tell(), self.shape, self.dtype, content=self._digest)

    def __reduce__(self) -> tuple[object, ...]:
        if self.array.nbytes <= _INLINE_BYTES:
            return InMemory, (self.array,)
        stored = self._spilled
        return Stored, (stored.path, stored.offset, stored.shape, stored.dtype, stored.content)


@dataclass(frozen=True, eq=False)
class ColumnTable(Table):
    """A table of columns: one per input, one for the labels, or one per output that has any, and one of weights.

    The labels' columns go by the name of their output, "" where there is one.
    """

    columns: tuple[tuple[str, Column], ...]
    labels: tuple[tuple[str, Column], ...] = ()
    weights: Column | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """Names, per-sample shapes and raw dtypes."""
        return tuple(TensorSpec(name, column.shape[1:], column.dtype.name) for name, column in self.columns)

    @property
    def random_access(self) -> bool:  # type: ignore[override]
        """Whether every column can be read in any order."""
        return all(column.random_access for column in self._all)

    @property
    def costly(self) -> bool:  # type: ignore[override]
        """Whether a column has to be decompressed."""
        return not self.random_access

    @property
    def in_memory(self) -> bool:
        """Whether nothing is read from a file."""
        return all(column.in_memory for column in self._all)

    @property
    def _all(self) -> list[Column]:
        named = [column for _, column in (*self.columns, *self.labels)]
        return named if self.weights is None else [*named, self.weights]

    def __len__(self) -> int:
        return self.columns[0][1].shape[0]

    def rows(self, numbers: np.ndarray) -> Batch:
        return self._batch([column.rows(numbers) for column in self._all])

    def stream(self) -> Iterator[Batch]:
        for arrays in zip(*(column.stream(self.chunk_rows) for column in self._all), strict=True):
            yield self._batch(arrays)

    def _batch(self, arrays: Sequence[np.ndarray]) -> Batch:
        inputs = dict(zip((name for name, _ in self.columns), arrays))
        labels = dict(zip((name for name, _ in self.labels), arrays[len(inputs) :]))
        weights = None if self.weights is None else arrays[-1]
        return Batch(inputs, labels.pop("", None), labels, weights)

    def targets(self, output: str = "") -> np.ndarray | None:
        column = dict(self.labels).get(output)
        if column is None or len(column.shape) > 2:
            return None
        step = max(1, CHUNK_BYTES // max(1, column.row_bytes))
        return np.concatenate(list(column.stream(step)))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.labels if name)

    @property
    def has_targets(self) -> bool:
        return bool(self.labels)

    @property
    def weighted(self) -> bool:
        return self.weights is not None

    def digest(self) -> str:
        labels = (f"labels {name}:{column.digest()}" for name, column in self.labels)
        weights = () if self.weights is None else (f"weights {self.weights.digest()}",)
        return combined(*(f"{name}:{column.digest()}" for name, column in self.columns), *labels, *weights)


# --- helpers of all sources ---------------------------------------------------------------------------------------


def table_of(batch: Batch) -> ColumnTable:
    """Returns arrays in memory as a table."""
    labels = batch.several if batch.labels is None else {"": batch.labels}
    inputs, outputs = (tuple((name, InMemory(a)) for name, a in each.items()) for each in (batch.inputs, labels))
    return ColumnTable(inputs, outputs, None if batch.weights is None else InMemory(batch.weights))


def pick(batch: Batch, numbers: np.ndarray | slice) -> Batch:
    """Returns the samples of a batch with these numbers."""
    labels = None if batch.labels is None else batch.labels[numbers]
    inputs, several = ({n: a[numbers] for n, a in each.items()} for each in (batch.inputs, batch.several))
    return Batch(inputs, labels, several, None if batch.weights is None else batch.weights[numbers])


def joined(batches: Sequence[Batch]) -> Batch:
    """Returns several batches as one."""
    if len(batches) == 1:
        return batches[0]
    labels = None
    if batches[0].labels is not None:
        labels = np.concatenate([b.labels for b in batches if b.labels is not None])
    weights = None
    if batches[0].weights is not None:
        weights = np.concatenate([b.weights for b in batches if b.weights is not None])
    return Batch(
        {name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        labels,
        {name: np.concatenate([b.several[name] for b in batches]) for name in batches[0].several},
        weights,
    )


def runs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of the stretches of `numbers` that count up by one: each is a single read."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    yield from ((start, stop) for start, stop in itertools.pairwise(edges) if stop > start)


def combined(*parts: str) -> str:
    """Returns one SHA-256 over several texts, as hex."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def content_hash(path: str) -> str:
    """Returns the SHA-256 of a file or folder, computed again only when a size or a time of change in it differs."""
    where = Path(path)
    with reading(path):
        found = sorted(where.rglob("*")) if where.is_dir() else [where]
        stamp = tuple((str(p), s.st_size, s.st_mtime_ns) for p in found if (s := p.stat()))
    return _content_hash(path, hash(stamp))


@functools.lru_cache(maxsize=64)
def _content_hash(path: str, _stamp: int) -> str:
    with reading(path):
        return files.sha256(Path(path))


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong while `path` is read into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"Expected readable data, got a damaged, truncated or missing file: {path} ({why}). "
            "Try writing or downloading it again."
        ) from error


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of a `.npy` stream: shape, whether it lies in Fortran order, dtype.

    Raises:
        ValueError: these are no bytes of an array.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except (tokenize.TokenError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        # NumPy parses the header as a Python literal.
        raise ValueError(f"its header cannot be read: {error}") from error
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def _fill(file: io.RawIOBase, content: memoryview) -> None:
    done = 0
    while done < len(content):
        read = file.readinto(content[done:])
        if not read:
            raise EOFError("the file ends in the middle of an array")
        done += read


@functools.lru_cache(maxsize=1)
def _spill_folder() -> Path:
    folder = tempfile.mkdtemp(prefix=f"edgeopt-{os.getpid()}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
