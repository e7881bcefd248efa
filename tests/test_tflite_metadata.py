"""Metadata come back as they were written, to readers that are not ours too, and the model runs as before."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tflite_models as models
from metadata_reader import Table, read_note

from edgeopt.tflite.metadata import ENTRY, ModelNote, TensorNote, with_note
from edgeopt.tflite.reader import read

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
    root = Table(packed, int.from_bytes(packed[:4], "little"))
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
