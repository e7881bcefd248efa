"""Metadata of a `.tflite` as the flatbuffers package reads them, with slots and numbers of metadata_schema.fbs."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from edgeopt.tflite.metadata import ENTRY, ModelNote, TensorNote
from edgeopt.tflite.reader import read


def read_note(content: bytes) -> ModelNote | None:
    """Returns the metadata of a file, None where it has none."""
    model = read(content)
    if ENTRY not in model.metadata:
        return None
    packed = bytearray(model.buffer(model.metadata[ENTRY]))
    root = Table(packed, int.from_bytes(packed[:4], "little"))
    (graph,) = root.tables(3)
    inputs, outputs = (tuple(_note(content, tensor) for tensor in graph.tables(slot)) for slot in (2, 3))
    return ModelNote(root.text(0), root.text(1), root.text(2), inputs, outputs)


def _note(content: bytes, tensor: Table) -> TensorNote:
    mean, std = next(((u.table(1).floats(0), u.table(1).floats(1)) for u in tensor.tables(4)), ([], []))
    properties = tensor.table(3)
    color = {1: "rgb", 2: "grayscale"}[properties.table(1).byte(0)] if properties.byte(0) == 2 else ""
    file = next((file.text(0) for file in tensor.tables(6)), "")
    labels: tuple[str, ...] = ()
    if file:
        with zipfile.ZipFile(io.BytesIO(content)) as behind:
            labels = tuple(behind.read(file).decode().splitlines())
    return TensorNote(tensor.text(0), tensor.text(1), tuple(mean), tuple(std), color, labels, file)


class Table:
    """A table as the flatbuffers package reads it."""

    def __init__(self, content: bytearray, at: int) -> None:
        from flatbuffers import number_types, table

        self._numbers, self._table = number_types, table.Table(content, at)

    def _at(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def text(self, slot: int) -> str:
        return str(self._table.String(self._at(slot) + self._table.Pos).decode())

    def byte(self, slot: int) -> int:
        return int(self._table.Get(self._numbers.Int8Flags, self._at(slot) + self._table.Pos)) if self._at(slot) else 0

    def table(self, slot: int) -> Any:
        return Table(self._table.Bytes, self._table.Indirect(self._at(slot) + self._table.Pos))

    def tables(self, slot: int) -> list[Any]:
        if not self._at(slot):
            return []
        start, count = self._table.Vector(self._at(slot)), self._table.VectorLen(self._at(slot))
        return [Table(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> list[float]:
        start, count = self._table.Vector(self._at(slot)), self._table.VectorLen(self._at(slot))
        return [float(self._table.Get(self._numbers.Float32Flags, start + 4 * i)) for i in range(count)]
