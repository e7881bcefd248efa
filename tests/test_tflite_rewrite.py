"""Rewritten files hold the same model, aligned, and run alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt.errors import ModelError
from edgeopt.tflite import inlining, reader, rewrite
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, compact, inlined, normalized, with_metadata, with_truthful_versions

FILES = [
    (models.cnn, "int8"),
    (models.cnn, "float16"),
    (models.recurrent, "int8"),
    (models.dense, "sparse", "pruned"),
]


@pytest.mark.parametrize("source", FILES, ids=lambda s: f"{s[0].__name__}-{s[1]}")
def test_metadata_is_added_and_replaced_and_nothing_else_changes(source: tuple[str, ...], tmp_path: Path) -> None:
    content = models.convert(*source)
    before = read(content)
    once = with_metadata(content, "NOTES", b"first, and longer")
    model = read(with_metadata(once, "NOTES", b"second"))
    assert bytes(model.buffer(model.metadata["NOTES"])) == b"second"
    assert set(model.metadata) == {*before.metadata, "NOTES"}
    assert (model.codes, model.subgraphs, model.signatures) == (before.codes, before.subgraphs, before.signatures)
    assert all(extent.offset % 16 == 0 for extent in model.buffers)
    for old, new in zip(before.main.tensors, model.main.tensors):
        np.testing.assert_array_equal(before.data(old), model.data(new))
    expected, result = (models.run(c, "ai_edge_litert", tmp_path) for c in (content, once))
    assert result is not None
    np.testing.assert_array_equal(expected, result)


def test_normalized_files_of_two_conversions_are_equal() -> None:
    content = models.convert(models.cnn, "int8")
    other = with_metadata(content, "min_runtime_version", b"9.9.9")
    assert other != normalized(content)
    assert normalized(other) == normalized(content) == normalized(normalized(content))
    model = read(normalized(content))
    assert (model.metadata, model.description) == ({}, "")


@pytest.mark.parametrize("runtime", ["ai_edge_litert", "tflite_runtime"])
def test_a_compact_file_holds_the_same_in_fewer_bytes(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    content = models.convert(models.cnn, "int8")
    smaller = compact(content)
    before, after = read(content), read(smaller)
    assert (after.codes, after.subgraphs, after.signatures) == (before.codes, before.subgraphs, before.signatures)
    channels = [len(t.quantization.zero_points) for t in before.main.tensors if t.is_per_channel]
    # Of the zero points, 8 bytes each, one vector of each length is left; the converter shares none.
    assert len(content) - len(smaller) >= 8 * (sum(channels) - sum(set(channels)))
    assert compact(smaller) == smaller
    expected, result = (models.run(c, runtime, tmp_path) for c in (content, smaller))
    assert result is not None
    np.testing.assert_array_equal(expected, result)


def test_truthful_versions_make_an_old_runtime_refuse_what_it_would_get_wrong(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    pytest.importorskip("tflite_runtime")
    content = models.requantized("dynamic_wi8_afp32")
    truthful = with_truthful_versions(content)
    assert models.run(content, "tflite_runtime", tmp_path) is not None
    assert models.run(truthful, "tflite_runtime", tmp_path) is None
    expected, result = (models.run(c, "ai_edge_litert", tmp_path) for c in (content, truthful))
    assert result is not None
    np.testing.assert_array_equal(expected, result)
    assert with_truthful_versions(truthful) == truthful


def test_files_that_cannot_be_rewritten() -> None:
    with pytest.raises(ModelError, match=r"is no \.tflite file"):
        with_metadata(b"text", "NOTES", b"")


@pytest.mark.parametrize("rewritten", [inlined, compact, normalized], ids=lambda f: f.__name__)
def test_buffers_behind_the_flatbuffer_come_inside(rewritten: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = models.convert(models.cnn, "int8")
    done = rewritten(models.behind(content))
    model = read(done)
    assert (model.outside_bytes, model.size_bytes) == (0, len(done))
    expected, result = (models.run(c, "tflite_micro", tmp_path) for c in (content, done))
    assert result is not None
    np.testing.assert_array_equal(expected, result)
    assert inlined(done) == done
    assert inlined(content) is content


def test_weights_that_share_a_buffer_with_metadata_stay() -> None:
    def share(model: Any, schema: Any) -> None:
        kernel = next(t for t in model.subgraphs[0].tensors if t.buffer and model.buffers[t.buffer].data is not None)
        for name, buffer in (("min_runtime_version", kernel.buffer), ("NOTES", kernel.buffer), ("EMPTY", 0)):
            entry = next((m for m in model.metadata if m.name in (name, name.encode())), None) or schema.MetadataT()
            entry.name, entry.buffer = name, buffer
            model.metadata = [m for m in model.metadata if m is not entry] + [entry]

    content = changed(models.convert(models.cnn, "int8"), share)
    before = read(content)
    noted = with_metadata(with_metadata(content, "NOTES", b"new"), "EMPTY", b"words")
    for done in (normalized(content), compact(content), noted):
        after = read(done)
        assert after.main.tensors == before.main.tensors
        for tensor in before.main.tensors:
            assert after.data(tensor).tobytes() == before.data(tensor).tobytes()
    after = read(noted)
    assert [bytes(after.buffer(after.metadata[name])) for name in ("NOTES", "EMPTY")] == [b"new", b"words"]


def test_options_that_no_reader_needs_are_checked_before_they_are_written_anew() -> None:
    def tell(model: Any, schema: Any) -> None:
        pool = model.subgraphs[0].operators[3]
        pool.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        pool.builtinOptions = schema.ReshapeOptionsT()
        pool.builtinOptions.newShape = np.array([0x01020304, 7, 7, 7], np.int32)

    content = changed(models.convert(models.cnn, "int8"), tell)
    # Before the numbers stands how many there are.
    place = content.index(bytes([4, 0, 0, 0, 4, 3, 2, 1, 7, 0, 0, 0]))
    broken = content[:place] + bytes([255, 255, 255, 127]) + content[place + 4 :]
    assert read(broken).main.operators[3].name == "MEAN"
    with pytest.raises(ModelError, match="cannot be rewritten: the options of one of its operators point outside"):
        compact(broken)


def test_files_over_2_gb_are_not_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit that is smaller than a file that tests can afford."""
    plain = models.convert(models.dense, "float32")
    content = models.behind(plain)
    for module in (inlining, reader, rewrite):
        monkeypatch.setattr(module, "LARGEST_FLATBUFFER", len(content) - 1)
    (tmp_path / "large.tflite").write_bytes(content)
    model = read(tmp_path / "large.tflite")
    assert model.outside_bytes == sum(extent.size for extent in read(plain).buffers) > 96 * 64 * 4
    (kernel,) = (tensor for tensor in model.main.tensors if tensor.is_constant)
    assert model.values(kernel).shape == (64, 96)
    for rewritten in (inlined, compact, normalized):
        with pytest.raises(ModelError, match=r"at most 2 GB, got one of [\d,]+ bytes\. Try quantizing"):
            rewritten(content)
