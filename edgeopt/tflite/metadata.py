"""What apps and their libraries read in a `.tflite`: names, normalization and labels go in and out of its metadata.

A FlatBuffer of metadata_schema.fbs (identifier M001) in the entry TFLITE_METADATA; the files that it names stand in a
zip archive behind the model, stored and not compressed, so that they can be mapped.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.errors import ModelError
from edgeopt.tflite import reader
from edgeopt.tflite.rewrite import with_metadata

ENTRY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# The parser that knows every field written here.
_MIN_PARSER_VERSION = "1.0.0"
_DATE = (1980, 1, 1, 0, 0, 0)

# Numbers of unions and enumerations, and of fields, in metadata_schema.fbs.
_IMAGE, _FEATURE = 2, 1
_NORMALIZATION = 1
_AXIS_LABELS = 2
_RGB, _GRAYSCALE = 1, 2


@dataclass(frozen=True)
class TensorNote:
    """What is said of one input or output.

    Attributes:
        mean, std: an app computes (value - mean) / std; one number or one per channel; () where nothing is said.
        color: "rgb" or "grayscale" where it is a picture, "" where it is not.
        labels: names along the last axis, in their order.
        label_file: the file that holds them.
    """

    name: str
    description: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    color: str = ""
    labels: tuple[str, ...] = ()
    label_file: str = ""


@dataclass(frozen=True)
class ModelNote:
    """What is said of a model."""

    name: str
    description: str = ""
    version: str = ""
    inputs: tuple[TensorNote, ...] = ()
    outputs: tuple[TensorNote, ...] = ()


def with_note(content: bytes, note: ModelNote) -> bytes:
    """Returns the file with `note` as its metadata, in place of what was there.

    A label is one line of its file: line ends inside of one become spaces.

    Raises:
        ModelError: `content` is no `.tflite` file.
    """
    archive = io.BytesIO(with_metadata(content, ENTRY, _packed(note)))
    files = {tensor.label_file: tensor.labels for tensor in (*note.inputs, *note.outputs) if tensor.labels}
    if files:
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as behind:
            for name, labels in files.items():
                lines = "\n".join(" ".join(label.splitlines()) for label in labels)
                behind.writestr(zipfile.ZipInfo(name, _DATE), f"{lines}\n")
    return archive.getvalue()


def read_note(content: bytes) -> ModelNote | None:
    """Returns the metadata of a file, None where it has none.

    Raises:
        ModelError: `content` is no `.tflite` file, or its metadata are broken.
    """
    model = reader.read(content)
    if ENTRY not in model.metadata:
        return None
    packed = bytes(model.buffer(model.metadata[ENTRY]))
    try:
        return _Unpacker(packed, _files_behind(content)).note()
    except (struct.error, IndexError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"Expected readable metadata in {ENTRY}, got {len(packed)} broken bytes. Try exporting the model again."
        ) from error


def _files_behind(content: bytes) -> dict[str, bytes]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    with zipfile.ZipFile(io.BytesIO(content)) as behind:
        return {info.filename: behind.read(info) for info in behind.infolist() if info.file_size <= len(content)}


# --- writing: a table is its fields by slot, each a function that writes what it points to ----------------------------


@dataclass(frozen=True)
class _Table:
    fields: dict[int, Any]


@dataclass(frozen=True)
class _Byte:
    value: int


def _packed(note: ModelNote) -> bytes:
    import flatbuffers

    graph = _Table({2: [_tensor(t) for t in note.inputs], 3: [_tensor(t) for t in note.outputs]})
    root = _Table({0: note.name, 1: note.description, 2: note.version, 3: [graph], 7: _MIN_PARSER_VERSION})
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, root), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(note: TensorNote) -> _Table:
    fields: dict[int, Any] = {0: note.name, 1: note.description}
    color = {"rgb": _RGB, "grayscale": _GRAYSCALE}.get(note.color)
    content = _Table({}) if color is None else _Table({0: _Byte(color)})
    fields[3] = _Table({0: _Byte(_FEATURE if color is None else _IMAGE), 1: content})
    if note.mean:
        options = _Table({0: note.mean, 1: note.std})
        fields[4] = [_Table({0: _Byte(_NORMALIZATION), 1: options})]
    if note.labels:
        fields[6] = [_Table({0: note.label_file, 2: _Byte(_AXIS_LABELS)})]
    return _Table(fields)


def _write(builder: Any, value: Any) -> int:
    """Writes a string, a vector of floats, a vector of tables or a table, and returns its offset."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, tuple):
        return _vector(builder, value, builder.PrependFloat32)
    if isinstance(value, list):
        return _vector(builder, [_write(builder, item) for item in value], builder.PrependUOffsetTRelative)
    offsets = {slot: _write(builder, f) for slot, f in value.fields.items() if not isinstance(f, _Byte)}
    builder.StartObject(max(value.fields, default=-1) + 1)
    for slot, field in value.fields.items():
        if isinstance(field, _Byte):
            builder.PrependUint8Slot(slot, field.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
    return int(builder.EndObject())


def _vector(builder: Any, items: Sequence[Any], prepend: Callable[[Any], None]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        prepend(item)
    return int(builder.EndVector())


# --- reading ----------------------------------------------------------------------------------------------------------


class _Unpacker:
    """Follows the offsets of an untrusted flatbuffer; what points outside raises struct.error or ValueError."""

    def __init__(self, packed: bytes, files: dict[str, bytes]) -> None:
        if packed[4:8] != IDENTIFIER:
            raise ValueError(packed[:8])
        self._packed, self._files = packed, files

    def note(self) -> ModelNote:
        root = self._number("<I", 0)
        graphs = self._tables(root, 3)
        inputs, outputs = ((self._tables(graphs[0], slot)) for slot in (2, 3)) if graphs else ((), ())
        return ModelNote(
            self._text(root, 0),
            self._text(root, 1),
            self._text(root, 2),
            tuple(self._tensor(t) for t in inputs),
            tuple(self._tensor(t) for t in outputs),
        )

    def _tensor(self, table: int) -> TensorNote:
        mean: tuple[float, ...] = ()
        std: tuple[float, ...] = ()
        for unit in self._tables(table, 4):
            if self._byte(unit, 0) == _NORMALIZATION and (options := self._follow(unit, 1)) is not None:
                mean, std = self._floats(options, 0), self._floats(options, 1)
        color, content = "", self._follow(table, 3)
        if content is not None and self._byte(content, 0) == _IMAGE and (image := self._follow(content, 1)) is not None:
            color = {_RGB: "rgb", _GRAYSCALE: "grayscale"}.get(self._byte(image, 0), "")
        named = [self._text(file, 0) for file in self._tables(table, 6) if self._byte(file, 2) == _AXIS_LABELS]
        file = next((name for name in named if name in self._files), "")
        labels = tuple(self._files[file].decode().splitlines()) if file else ()
        return TensorNote(self._text(table, 0), self._text(table, 1), mean, std, color, labels, file)

    def _number(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError(at)
        return int(struct.unpack_from(form, self._packed, at)[0])

    def _field(self, table: int, slot: int) -> int | None:
        vtable = table - self._number("<i", table)
        at = 4 + 2 * slot
        place = self._number("<H", vtable + at) if at < self._number("<H", vtable) else 0
        return table + place if place else None

    def _follow(self, table: int, slot: int) -> int | None:
        field = self._field(table, slot)
        return None if field is None else field + self._number("<I", field)

    def _byte(self, table: int, slot: int) -> int:
        field = self._field(table, slot)
        return 0 if field is None else self._number("<B", field)

    def _text(self, table: int, slot: int) -> str:
        at = self._follow(table, slot)
        return "" if at is None else self._packed[at + 4 : at + 4 + self._number("<I", at)].decode("utf-8", "replace")

    def _floats(self, table: int, slot: int) -> tuple[float, ...]:
        at = self._follow(table, slot)
        return () if at is None else struct.unpack_from(f"<{self._number('<I', at)}f", self._packed, at + 4)

    def _tables(self, table: int, slot: int) -> tuple[int, ...]:
        at = self._follow(table, slot)
        if at is None:
            return ()
        places = range(at + 4, at + 4 + 4 * min(self._number("<I", at), len(self._packed) // 4), 4)
        return tuple(place + self._number("<I", place) for place in places)
