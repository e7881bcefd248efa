"""A CSV file of numbers goes in, one sample a line, a column of labels; a table that seeks its lines comes out."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.data.table import CHUNK_BYTES, Options, Splits, Table, combined, content_hash, reading, runs
from edgeopt.errors import DataError, suggestion
from edgeopt.vocabulary import Batch, TensorSpec

_LABEL_NAMES = ("label", "labels", "y", "target", "targets", "class")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_source(spec: str, options: Options) -> Splits:
    """Indexes the lines of a CSV file (comma, semicolon or tab; with or without a header).

    Labels are the column that `options.labels_column` names or numbers, else one whose header says so
    (`label`, `y`, `target`, `class` …). All others are the one input `x`, a row of float32.

    Raises:
        DataError: it is empty, is no text, or has no such column.
    """
    path = Path(spec).resolve()
    with reading(path):
        starts = _line_starts(path)
        with path.open("rb") as file:
            file.seek(starts[0] if len(starts) > 1 else 0)
            first = file.readline()
    if len(starts) < 2 or not first.strip():
        raise DataError(f"Expected lines of numbers in {spec}, got an empty file. Try another file.")
    try:
        text = first.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"Expected lines of text in {spec}, got other bytes. Try a CSV file in UTF-8.") from error
    delimiter = max(",;\t", key=text.count)
    try:
        fields = next(csv.reader([text.strip("\r\n")], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(
            f"Expected fields in the first line of {spec}, got others ({error}). Try mending it."
        ) from error
    header = not any(_is_number(field) for field in fields)
    starts = starts[1:] if header else starts
    if len(starts) < 2:
        raise DataError(f"Expected samples in {spec}, got only a header. Try another file.")
    column = _label_column(fields, header, options.labels_column, spec)
    inputs = tuple(n for n in range(len(fields)) if n != column)
    if not inputs:
        raise DataError(f"Expected columns of numbers beside the label in {spec}, got one column. Try another file.")
    table = CsvTable(str(path), starts, inputs, delimiter, int(header), None)
    notes: tuple[str, ...] = ()
    if column is None:
        notes = (f"labels: none in {path.name}; --labels-column names or numbers their column",)
    else:
        pieces = [
            table.cells(np.arange(s, min(s + 65536, len(table))), (column,), str) for s in range(0, len(table), 65536)
        ]
        table = CsvTable(str(path), starts, inputs, delimiter, int(header), _typed(np.concatenate(pieces)[:, 0]))
    return Splits({"all": table}, notes=notes)


@dataclass(frozen=True, eq=False)
class CsvTable(Table):
    """Lines of a CSV file.

    Attributes:
        path: the file.
        starts: where each line begins, and where the last one ends: int64 [N + 1].
        columns: numbers of the columns that are the input.
        header_lines: lines before the first sample, for messages.
        labels: raw labels of all lines [N], or None.
    """

    path: str
    starts: np.ndarray
    columns: tuple[int, ...]
    delimiter: str
    header_lines: int
    labels: np.ndarray | None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """One input, `x`."""
        return (TensorSpec("x", (len(self.columns),), "float32"),)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, numbers: np.ndarray) -> Batch:
        labels = None if self.labels is None else self.labels[numbers]
        return Batch({"x": self.cells(numbers, self.columns, np.float32)}, labels)

    def targets(self, output: str = "") -> np.ndarray | None:
        return self.labels

    def digest(self) -> str:
        return combined(content_hash(self.path), repr(self.columns))

    def cells(self, numbers: np.ndarray, columns: tuple[int, ...], dtype: type) -> np.ndarray:
        """Returns columns of these lines, [lines, columns].

        Raises:
            DataError: a cell is empty or no number; the message names the line.
        """
        lines: list[str] = []
        with reading(self.path), open(self.path, "rb") as file:
            for start, stop in runs(numbers):
                begin, end = self.starts[numbers[start]], self.starts[numbers[stop - 1] + 1]
                file.seek(begin)
                lines += file.read(end - begin).decode("utf-8", errors="replace").removesuffix("\n").split("\n")
        if all(line.strip() for line in lines):
            try:
                cells = self._parsed(lines, columns, dtype)
            except ValueError as error:
                why = error
            else:
                if len(cells) == len(lines):
                    return cells
                why = ValueError("a quote that is not closed")
        else:
            why = ValueError("an empty line")
        # Only now is it worth looking for the line.
        number = next((n for n, line in zip(numbers, lines) if not self._parses(line, columns, dtype)), numbers[0])
        raise DataError(
            f"Expected {len(columns)} columns to read in line {number + 1 + self.header_lines} of {self.path}, got "
            f"something else ({why}). Try mending or removing that line, or --labels-column for a column of texts."
        ) from why

    def _parsed(self, lines: list[str], columns: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.loadtxt(
            lines, dtype, comments=None, delimiter=self.delimiter, usecols=columns, ndmin=2, quotechar='"'
        )

    def _parses(self, line: str, columns: tuple[int, ...], dtype: type) -> bool:
        try:
            whole = bool(line.strip()) and line.count('"') % 2 == 0
            return whole and len(self._parsed([line], columns, dtype)) == 1
        except ValueError:
            return False


def _line_starts(path: Path) -> np.ndarray:
    """Returns where each line begins and where the last one ends, without the empty ones at the end."""
    pieces, position = [], 0
    with path.open("rb") as file:
        begin = len(_BYTE_ORDER_MARK) if file.read(3) == _BYTE_ORDER_MARK else 0
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            pieces.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + position + 1)
            position += len(chunk)
            last = chunk
    if not position:
        return np.zeros(1, np.int64)
    ends = np.concatenate(pieces)
    if not last.endswith(b"\n"):
        ends = np.append(ends, position)
    starts = np.concatenate(([begin], ends)).astype(np.int64)
    with path.open("rb") as file:
        while len(starts) > 1:
            file.seek(starts[-2])
            if file.read(starts[-1] - starts[-2]).strip():
                break
            starts = starts[:-1]
    return starts


def _label_column(fields: list[str], header: bool, asked: str | None, spec: str) -> int | None:
    names = [field.strip() for field in fields] if header else []
    if asked is None:
        return next((n for n, name in enumerate(names) if name.lower() in _LABEL_NAMES), None)
    if asked in names:
        return names.index(asked)
    if asked.lstrip("-").isdigit() and -len(fields) <= int(asked) < len(fields):
        return int(asked) % len(fields)
    known = suggestion(asked, names) if names else f" Try a number from 0 to {len(fields) - 1}."
    raise DataError(f"Expected a column of {spec} as --labels-column, got {asked!r}.{known}")


def _typed(cells: np.ndarray) -> np.ndarray:
    for dtype in (np.int64, np.float64):
        try:
            return cells.astype(dtype)
        except ValueError:
            continue
    return np.char.strip(cells)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
