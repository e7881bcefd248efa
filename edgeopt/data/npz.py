"""A `.npz` or `.npy` file goes in, tables that read it piece by piece come out; nothing is unpickled."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from edgeopt.data.arrays import assemble
from edgeopt.data.naming import CLASS_NAMES
from edgeopt.data.table import Column, Compressed, InMemory, Options, Splits, Stored, read_npy_header, reading
from edgeopt.errors import DataError

# The local header of a zip member: 30 bytes, the last four of which are the lengths of what follows before the data.
_LOCAL_HEADER_BYTES = 30
_FORTRAN_LIMIT_BYTES = 256 << 20
_CLASS_NAMES_BYTES = 16 << 20


def open_source(spec: str, options: Options) -> Splits:
    """Opens a `.npz` in Keras' convention, or a `.npy` of samples.

    Uncompressed arrays (`numpy.savez`) are read at any place; compressed ones (`numpy.savez_compressed`) are
    streamed. The names are those of `naming.sort_names`; an array `class_names` of texts names the classes.

    Raises:
        DataError: it is damaged, holds pickled objects, or its arrays do not go together.
    """
    path = Path(spec).resolve()
    if path.suffix == ".npy":
        with reading(path), path.open("rb") as file:
            column = _npy_column(path, file)
        return assemble(["x"], lambda _: column, where=path.name)
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
        columns = {name: _zip_column(path, archive, info) for name, info in members.items()}
    names = columns.pop(CLASS_NAMES, None)
    class_names = () if names is None else _texts(names, path.name)
    return assemble(columns, columns.__getitem__, where=path.name, class_names=class_names)


def _texts(column: Column, where: str) -> tuple[str, ...]:
    if (size := column.row_bytes * math.prod(column.shape[:1])) > _CLASS_NAMES_BYTES:
        raise DataError(
            f"Expected at most {_CLASS_NAMES_BYTES:,} bytes of {CLASS_NAMES} in {where}, got {size:,}. "
            "Try a text for each class."
        )
    return tuple(str(text) for rows in column.stream(1024) for text in rows)


def _npy_column(path: Path, file: BinaryIO) -> Column:
    shape, fortran, dtype = _header(path.name, path.name, file)
    offset = file.tell()
    _require_bytes(path.name, path.stat().st_size - offset, shape, dtype)
    return _column(Stored(str(path), offset, shape, dtype), fortran)


def _zip_column(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Column:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(path.name, info.filename, cast(BinaryIO, file))
        header_bytes = file.tell()
    _require_bytes(f"{info.filename} in {path.name}", info.file_size - header_bytes, shape, dtype)
    if info.compress_type != zipfile.ZIP_STORED:
        return _column(Compressed(str(path), info.filename, shape, dtype), fortran)
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        name_bytes, extra_bytes = struct.unpack("<HH", raw.read(_LOCAL_HEADER_BYTES)[-4:])
    start = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    return _column(Stored(str(path), start + header_bytes, shape, dtype), fortran)


def _column(column: Stored | Compressed, fortran: bool) -> Column:
    if not fortran or len(column.shape) < 2:
        return column
    # Its samples lie across the file, so there is no reading them one after the other.
    if column.row_bytes * column.shape[0] > _FORTRAN_LIMIT_BYTES:
        raise DataError(
            f"Expected samples that lie one after the other in {column.path}, got a large array in Fortran order. "
            "Try saving numpy.ascontiguousarray(x)."
        )
    turned = type(column)(**{**column.__dict__, "shape": column.shape[::-1]})
    return InMemory(np.concatenate(list(turned.stream(turned.shape[0]))).T)


def _header(file_name: str, member: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        shape, fortran, dtype = read_npy_header(file)
    except ValueError as error:
        raise DataError(
            f"Expected an array as {member} in {file_name}, got other bytes ({error}). Try saving it again."
        ) from error
    if dtype.hasobject:
        raise DataError(
            f"Expected plain arrays in {file_name}, got {member}, which holds pickled objects, which can run code when "
            "they are read. Try to re-save it with plain arrays: numpy.savez(file, x=numpy.asarray(x, 'float32'), ...)."
        )
    return shape, fortran, dtype


def _require_bytes(name: str, got: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if got < expected:
        raise DataError(
            f"Expected {expected} bytes of samples in {name}, got {got}: it is truncated. Try saving it again."
        )
