"""TFRecord files of tf.train.Example go in, one or a folder of shards; tables that seek their records come out."""

from __future__ import annotations

import functools
import gzip
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from edgeopt.data.images import CHANNELS, decode
from edgeopt.data.naming import SPLIT_WORDS
from edgeopt.data.preprocessing import resize_bilinear
from edgeopt.data.table import Options, Splits, Table, combined, content_hash, joined, reading
from edgeopt.errors import DataError, suggestion
from edgeopt.vocabulary import Batch, TensorSpec

_LABEL_NAMES = ("label", "labels", "y", "target", "class", "image/class/label")
# What image records carry beside the picture; the last part of a feature's name decides.
_ABOUT = frozenset(
    ("height", "width", "depth", "channels", "format", "filename", "colorspace", "shape", "text", "source_id", "key")
)
# A record: its length (uint64) and the length's checksum, the bytes, their checksum. All little-endian.
_HEAD = struct.Struct("<QI")
_TAIL_BYTES = 4
# What a compressed file claims to hold is not known before it is read.
_LARGEST_RECORD_BYTES = 1 << 30


def open_source(spec: str, options: Options) -> Splits:
    """Indexes TFRecord files; files called train…, test… or val… make splits.

    The label is the feature that `options.labels_column` names, else `label`, `y`, `class`, `image/class/label` …
    Encoded images are decoded, other bytes are uint8 values; all features that do not merely describe an image are
    inputs, flat, in the shape of the first record.

    Raises:
        DataError: these are no such records, or they have no such feature.
    """
    path = Path(spec).resolve()
    with reading(path):
        files = sorted(p for p in path.iterdir() if ".tfrecord" in p.name.lower()) if path.is_dir() else [path]
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.name.lower()) if path.is_dir() else []
        splits.setdefault(next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), "all"), []).append(str(file))
    first = next((record for file in files for record in _records(str(file))), None)
    if first is None:
        raise DataError(f"Expected records in {spec}, got none. Try another file.")
    features = _features(first, str(files[0]))
    label = _label(features, options.labels_column, spec)
    images = [name for name, value in features.items() if _is_image(value)]
    own = [n for n in features if n != label and n.split("/")[-1] not in _ABOUT]
    chosen = sorted(images or own)
    if not chosen:
        raise DataError(
            f"Expected a feature to use as input in {spec}, got only {', '.join(features)}. Try other records."
        )
    reader = _Reader(tuple(chosen), label, CHANNELS.get(options.color or ""), options.resize)
    tables = {split: _indexed(tuple(names), reader, features) for split, names in splits.items()}
    unused = sorted(set(features) - {*chosen, label})
    return Splits(tables, notes=(f"not used in the records: {', '.join(unused)}",) if unused else ())


@dataclass(frozen=True)
class _Reader:
    """Which features are read, and how."""

    names: tuple[str, ...]
    label: str | None
    channels: int | None
    size: tuple[int, int] | None

    def sample(self, features: dict[str, Any], where: str) -> Batch:
        """Returns one record as a batch of one."""
        missing = [name for name in (*self.names, self.label) if name and name not in features]
        if missing:
            raise DataError(
                f"Expected {', '.join(missing)} in every record of {where}, got one without. Try writing it again."
            )
        inputs = {_input_name(name): self._value(features[name], where)[np.newaxis] for name in self.names}
        return Batch(inputs, None if self.label is None else _label_value(features[self.label])[np.newaxis])

    def _value(self, value: Any, where: str) -> np.ndarray:
        if not isinstance(value, list):
            return value
        if not _is_image(value):
            return np.frombuffer(b"".join(value), np.uint8)
        pixels = decode(io.BytesIO(value[0]), self.channels, name=f"an image in {where}")
        return resize_bilinear(pixels[np.newaxis], self.size)[0] if self.size else pixels


@dataclass(frozen=True, eq=False)
class RecordTable(Table):
    """Records of some files.

    Attributes:
        files: their paths.
        reader: which features are read, and how.
        specs: the inputs.
        labels: raw labels of all records [N, ...], or None.
        places: file's number, offset and length of each record, int64 [N, 3].
    """

    files: tuple[str, ...]
    reader: _Reader
    specs: tuple[TensorSpec, ...]
    labels: np.ndarray | None
    places: np.ndarray

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """The features that are inputs."""
        return self.specs

    @property
    def random_access(self) -> bool:  # type: ignore[override]
        """Compressed files can only be read from their beginning."""
        return not any(file.endswith(".gz") for file in self.files)

    def __len__(self) -> int:
        return len(self.places)

    def rows(self, numbers: np.ndarray) -> Batch:
        records: list[Batch] = []
        for file, places in _by_file(self.places[numbers]):
            path = self.files[file]
            with reading(path), open(path, "rb") as opened:
                for _, offset, length in places:
                    opened.seek(offset)
                    records.append(self._sample(opened.read(length), path))
        return self._labelled(joined(records), numbers)

    def stream(self) -> Iterator[Batch]:
        if self.random_access:
            yield from super().stream()
            return
        pending: list[Batch] = []
        row = 0
        for path in self.files:
            for record in _records(path):
                pending.append(self._sample(record, path))
                row += 1
                if len(pending) == self.chunk_rows or row == len(self):
                    yield self._labelled(joined(pending), np.arange(row - len(pending), row))
                    pending = []

    def targets(self, output: str = "") -> np.ndarray | None:
        return self.labels

    def digest(self) -> str:
        return combined(*(content_hash(file) for file in self.files), repr(self.reader))

    def _sample(self, record: bytes, path: str) -> Batch:
        sample = self.reader.sample(_features(record, path), path)
        for spec in self.specs:
            got = sample.inputs[spec.name].shape[1:]
            if got != spec.shape:
                raise DataError(
                    f"Expected {spec.shape} as {spec.name!r} in every record as in the first, got {got} in {path}. "
                    "Try --resize HEIGHTxWIDTH for images, or records of one length."
                )
        return sample

    def _labelled(self, batch: Batch, rows: np.ndarray) -> Batch:
        return Batch(batch.inputs, None if self.labels is None else self.labels[rows])


def _indexed(files: tuple[str, ...], reader: _Reader, features: dict[str, Any]) -> RecordTable:
    places: list[tuple[int, int, int]] = []
    labels: list[np.ndarray] = []
    for number, path in enumerate(files):
        position = 0
        for record in _records(path):
            places.append((number, position + _HEAD.size, len(record)))
            position += _HEAD.size + len(record) + _TAIL_BYTES
            if reader.label is not None:
                found = _features(record, path).get(reader.label)
                if found is None:
                    raise DataError(
                        f"Expected {reader.label} in every record of {path}, got one without. Try writing it again."
                    )
                labels.append(_label_value(found))
    if not places:
        raise DataError(f"Expected records in {files[0]}, got none. Try another file.")
    first = reader.sample(features, files[0])
    specs = tuple(TensorSpec(name, array.shape[1:], array.dtype.name) for name, array in first.inputs.items())
    return RecordTable(files, reader, specs, np.stack(labels) if labels else None, np.asarray(places, np.int64))


def _records(path: str) -> Iterator[bytes]:
    opener = gzip.open if path.endswith(".gz") else open
    with reading(path), opener(path, "rb") as opened:
        file = cast(BinaryIO, opened)
        limit = None if path.endswith(".gz") else Path(path).stat().st_size
        while head := file.read(_HEAD.size):
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else None
            if length is None or (limit is not None and file.tell() + length + _TAIL_BYTES > limit):
                raise EOFError("it ends in the middle of a record, or holds no records")
            if length > _LARGEST_RECORD_BYTES:
                raise EOFError(f"a record claims to have {length:,} bytes, more than {_LARGEST_RECORD_BYTES:,}")
            record = file.read(length)
            if len(record) < length or len(file.read(_TAIL_BYTES)) < _TAIL_BYTES:
                raise EOFError("it ends in the middle of a record")
            yield record


def _features(record: bytes, path: str) -> dict[str, Any]:
    """Returns the features of a tf.train.Example: arrays for numbers, lists of bytes for bytes."""
    from google.protobuf.message import DecodeError

    try:
        example = _example_class().FromString(record)
    except DecodeError as error:
        raise DataError(
            f"Expected tf.train.Example records in {path}, got other bytes. Try writing it again."
        ) from error
    result: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        if feature.float_list.value:
            result[name] = np.asarray(feature.float_list.value, np.float32)
        elif feature.int64_list.value:
            result[name] = np.asarray(feature.int64_list.value, np.int64)
        else:
            result[name] = list(feature.bytes_list.value)
    return result


@functools.lru_cache(maxsize=1)
def _example_class() -> Any:
    """Builds the message that `tensorflow/core/example/example.proto` describes, without importing TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="edgeopt", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str], within: Any = file.message_type) -> Any:
        made = within.add(name=name)
        for field, number, kind, type_name in fields:
            label = (
                kinds.LABEL_REPEATED
                if field in ("value", "feature") and name != "FeatureEntry"
                else kinds.LABEL_OPTIONAL
            )
            made.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
        return made

    message("BytesList", ("value", 1, kinds.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, kinds.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, kinds.TYPE_INT64, ""))
    lists = [("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List")]
    message("Feature", *((name, n, kinds.TYPE_MESSAGE, f".edgeopt.{kind}") for name, n, kind in lists))
    features = message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".edgeopt.Features.FeatureEntry"))
    entry = (("key", 1, kinds.TYPE_STRING, ""), ("value", 2, kinds.TYPE_MESSAGE, ".edgeopt.Feature"))
    message("FeatureEntry", *entry, within=features.nested_type).options.map_entry = True
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".edgeopt.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("edgeopt.Example"))


def _label(features: dict[str, Any], asked: str | None, spec: str) -> str | None:
    if asked is None:
        return next((name for name in _LABEL_NAMES if name in features), None)
    if asked not in features:
        raise DataError(f"Expected a feature of {spec} as --labels-column, got {asked!r}.{suggestion(asked, features)}")
    return asked


def _label_value(value: Any) -> np.ndarray:
    text = value[0] if isinstance(value, list) and value else b""
    array = np.asarray(text.decode(errors="replace")) if isinstance(value, list) else value
    return array[0] if array.shape == (1,) else array


def _is_image(value: Any) -> bool:
    # The first bytes of JPEG, PNG, GIF, BMP and (in a RIFF container) WebP.
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")
    return isinstance(value, list) and len(value) == 1 and value[0].startswith(starts)


def _input_name(name: str) -> str:
    return name.removesuffix("/encoded")


def _by_file(places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (file's number, places) of the stretches that lie in one file."""
    for stretch in np.split(places, np.flatnonzero(np.diff(places[:, 0])) + 1):
        yield int(stretch[0, 0]), stretch
