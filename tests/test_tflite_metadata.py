"""Metadata come back as they were written, to readers that are not ours too, and the model runs as before."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt.errors import ModelError
from edgeopt.tflite.metadata import ENTRY, ModelNote, TensorNote, read_note, with_note
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import with_metadata

LABELS = ("plain", 'a "cat"', "Größe 😀", "*/ ${x}", "", "5", "6", "7", "8", "9")
NOTE = ModelNote(
    'a "model"\n*/',
    "what it does",
    "1",
    (TensorNote("image", "pixels", (1.5, 2.5, 3.5), (0.5, 0.25, 0.125), "rgb"),),
    (TensorNote("classes", labels=LABELS, label_file="labels.txt"), TensorNote("other")),
)


@pytest.fixture(scope="module")
def content() -> bytes:
    return models.convert(models.cnn, "int8")


def test_notes_come_back_and_nothing_else_changes(content: bytes, tmp_path: Path) -> None:
    written = with_note(content, NOTE)
    assert read_note(written) == NOTE
    assert read_note(content) is None
    before, after = read(content), read(written)
    assert (after.codes, after.subgraphs, after.signatures) == (before.codes, before.subgraphs, before.signatures)
    expected, result = (models.run(c, "ai_edge_litert", tmp_path) for c in (content, written))
    np.testing.assert_array_equal(expected, result)
    # A second note takes the place of the first, and of its files.
    plain = ModelNote("b")
    assert read_note(with_note(written, plain)) == plain
    assert not zipfile.is_zipfile(io.BytesIO(with_note(written, plain)))
    assert with_note(written, NOTE) == written


def test_labels_stand_uncompressed_behind_the_model(content: bytes) -> None:
    written = with_note(content, NOTE)
    with zipfile.ZipFile(io.BytesIO(written)) as behind:
        assert behind.testzip() is None
        (info,) = behind.infolist()
        assert (info.filename, info.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert behind.read("labels.txt").decode().split("\n") == [*LABELS, ""]


def test_flatbuffers_reads_the_fields_of_the_schema(content: bytes) -> None:
    """Slots and numbers are those of metadata_schema.fbs, written down here once more."""
    model = read(with_note(content, NOTE))
    packed = bytearray(model.buffer(model.metadata[ENTRY]))
    assert packed[4:8] == b"M001"
    root = _Table(packed, int.from_bytes(packed[:4], "little"))
    assert (root.text(0), root.text(1), root.text(2), root.text(7)) == ('a "model"\n*/', "what it does", "1", "1.0.0")
    (graph,) = root.tables(3)
    (image,), (classes, other) = graph.tables(2), graph.tables(3)
    assert (image.text(0), image.text(1)) == ("image", "pixels")
    content_table = image.table(3)
    assert (content_table.byte(0), content_table.table(1).byte(0)) == (2, 1)  # ImageProperties, RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([1.5, 2.5, 3.5], [0.5, 0.25, 0.125])
    (file,) = classes.tables(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert (other.text(0), other.tables(6), other.table(3).byte(0)) == ("other", [], 1)  # FeatureProperties


def test_tflite_support_reads_it(content: bytes) -> None:
    schema = pytest.importorskip("tensorflow_lite_support.metadata.metadata_schema_py_generated")
    model = read(with_note(content, NOTE))
    parsed = schema.ModelMetadataT.InitFromPackedBuf(bytes(model.buffer(model.metadata[ENTRY])), 0)
    (graph,) = parsed.subgraphMetadata
    assert parsed.name == b'a "model"\n*/'
    assert graph.outputTensorMetadata[0].associatedFiles[0].name == b"labels.txt"


@pytest.mark.parametrize(
    "payload", [b"", b"\0" * 8, b"\x08\0\0\0M001", b"\x10\0\0\0M001" + b"\xff" * 40, b"\x0c\0\0\0"]
)
def test_broken_metadata_are_the_files_fault(payload: bytes, content: bytes) -> None:
    with pytest.raises(ModelError, match="Expected readable metadata in TFLITE_METADATA, got"):
        read_note(with_metadata(content, ENTRY, payload))


def test_no_mutation_of_the_metadata_ends_in_a_traceback(content: bytes) -> None:
    model = read(with_note(content, NOTE))
    packed = bytes(model.buffer(model.metadata[ENTRY]))
    written = with_note(content, NOTE)
    start = written.index(packed)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(written)
        broken[start + int(random.integers(len(packed)))] = int(random.integers(256))
        try:
            read_note(bytes(broken))
        except ModelError:
            refused += 1
    assert 0 < refused < 300


class _Table:
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
        return _Table(self._table.Bytes, self._table.Indirect(self._at(slot) + self._table.Pos))

    def tables(self, slot: int) -> list[Any]:
        if not self._at(slot):
            return []
        start, count = self._table.Vector(self._at(slot)), self._table.VectorLen(self._at(slot))
        return [_Table(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> list[float]:
        start, count = self._table.Vector(self._at(slot)), self._table.VectorLen(self._at(slot))
        return [float(self._table.Get(self._numbers.Float32Flags, start + 4 * i)) for i in range(count)]
