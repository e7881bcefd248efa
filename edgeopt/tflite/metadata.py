"""What apps and their libraries read in a `.tflite`: names, normalization and labels go in, a file with
metadata comes out.

A FlatBuffer of metadata_schema.fbs (identifier M001) in the entry TFLITE_METADATA; the files that it names stand in a
zip archive behind the model, stored and not compressed, so that they can be mapped.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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


# A table is its fields by slot, each written before what points to it.


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
