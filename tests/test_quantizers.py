"""Schemes and quantizers: a row says all that is needed, and a file that holds something else has failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt import data, frameworks
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.conversion.quantizers import QUANTIZERS, Quantizer, Source
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.loading import load_model
from edgeopt.schemes import SCHEMES, SMALLEST_DYNAMIC
from edgeopt.tflite.model import Tensor, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed
from edgeopt.vocabulary import Scheme

INPUTS, UNITS = 96, 64  # of models.dense
INT4 = replace(SCHEMES["dynamic"], name="dynamic-int4", weights="int4", maker="ai-edge-quantizer")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    """A float `.tflite` with one Dense, and samples for it."""
    path = tmp_path_factory.mktemp("dense") / "dense.tflite"
    path.write_bytes(models.convert(models.dense, "float32"))
    model = load_model(path)
    samples = np.zeros((4, *model.inputs[0].shape[1:]), np.float32)
    return Converter(model, ConvertOptions(calibration=data.load({"x_train": samples}).calibration))


def _weights(model: TFLiteModel, least: int = SMALLEST_DYNAMIC) -> list[tuple[str, int]]:
    """Dtype and number of scales of each constant with at least so many elements."""
    large = [t for t in model.main.tensors if t.is_constant and t.elements >= least]
    return [(t.dtype, len(t.quantization.scales) if t.quantization else _blocks(t)) for t in large]


def _blocks(tensor: Tensor) -> int:
    return tensor.elements // tensor.block_size if tensor.block_size else 0


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_is_one_that_its_maker_makes(scheme: Scheme) -> None:
    QUANTIZERS[scheme.maker].refuse(scheme)
    bits = {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int2": 2}[scheme.weights]
    assert scheme.weight_bits == (3 if scheme.name == "int3" else bits)


def test_every_stand_in_is_there() -> None:
    assert {q.without_graph for q in QUANTIZERS.values()} - {""} <= set(QUANTIZERS)


@pytest.mark.parametrize(
    ("granularity", "algorithm", "scales"),
    [
        ("tensor", "min-max", 1),
        ("channel", "min-max", UNITS),
        ("channel", "mse", UNITS),
        ("block:32", "min-max", UNITS * INPUTS // 32),
    ],
)
def test_a_row_says_bits_granularity_and_algorithm(
    dense: Converter, granularity: str, algorithm: str, scales: int
) -> None:
    row = replace(INT4, granularity=granularity, algorithm=algorithm)
    assert _weights(read(dense.to_bytes(row))) == [("int4", scales)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"maker": "tensorflow-static"},
            r"that tensorflow-static can make, with weights one of 'int8', got dynamic-int4",
        ),
        ({"granularity": "row"}, r"with granularity one of .*'block', got dynamic-int4 with 'row'\. Try another maker"),
        ({"algorithm": "oracle"}, r"with algorithm one of .*'mse', got dynamic-int4 with 'oracle'"),
        ({"maker": "ai-edge-quantiser"}, r"got 'ai-edge-quantiser'\. Did you mean 'ai-edge-quantizer'"),
    ],
)
def test_what_a_maker_cannot_make_is_refused(dense: Converter, changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dense.to_bytes(replace(INT4, **changed))


def test_a_quantizer_is_a_few_lines(dense: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(source: Source, scheme: Scheme) -> bytes:
        return QUANTIZERS["ai-edge-quantizer"].make(source, replace(scheme, granularity="tensor"))

    monkeypatch.setitem(QUANTIZERS, "mine", Quantizer("as ai-edge-quantizer, per tensor", halved))
    assert dense.convert(replace(INT4, maker="mine"), tmp_path / "mine.tflite") == ()
    assert _weights(read(tmp_path / "mine.tflite")) == [("int4", 1)]


@pytest.mark.parametrize("made", ["float32", "float16", "dynamic"])
def test_a_file_that_holds_other_weights_has_failed(
    dense: Converter, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = dense.to_bytes(made)
    monkeypatch.setitem(QUANTIZERS, "mine", Quantizer("other weights than asked for", lambda source, scheme: content))
    other = SCHEMES[made].weights
    with pytest.raises(ConversionError, match=rf"int4 weights of the scheme dynamic-int4, got {other} in 1 FULLY_C"):
        dense.to_bytes(replace(INT4, maker="mine"))


def test_integers_in_and_out_are_required(dense: Converter, monkeypatch: pytest.MonkeyPatch) -> None:
    content = dense.to_bytes("dynamic")
    monkeypatch.setitem(QUANTIZERS, "mine", Quantizer("dynamic range", lambda source, scheme: content))
    with pytest.raises(ConversionError, match=r"promises int8 inputs and outputs, .* Try --scheme int8-float-io"):
        dense.to_bytes(replace(SCHEMES["int8"], maker="mine"))
    with pytest.raises(
        ConversionError, match=r"int8 arithmetic of the scheme int8-float-io, got a file .* floats alone"
    ):
        dense.to_bytes(replace(SCHEMES["int8-float-io"], maker="mine"))


def test_what_stays_in_float_is_said(tmp_path: Path) -> None:
    """Weights under SMALLEST_DYNAMIC elements stay as they are in dynamic range: a small model does not change."""
    path = tmp_path / "small.tflite"
    path.write_bytes(models.convert(models.with_a_float_operator, "float32"))
    converter = Converter(load_model(path), ConvertOptions())
    assert converter.convert("dynamic", tmp_path / "m.tflite") == (
        f"dynamic changed no weights: the model has none of {SMALLEST_DYNAMIC} elements and more",
    )


# --- files of other writers ------------------------------------------------------------------------------------------


def _older(content: bytes) -> bytes:
    """Returns a file as converters before TensorFlow 2.4 wrote it: operators stand in the old one-byte field alone."""

    def change(model: Any, schema: Any) -> None:
        for code in model.operatorCodes:
            code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0

    return changed(content, change)


@pytest.mark.parametrize("form", ["old", "float16"])
@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8"])
def test_files_of_other_writers_are_understood(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(
        _older(models.convert(models.dense, "float32")) if form == "old" else models.convert(models.dense, "float16")
    )
    samples = np.random.default_rng(0).normal(size=(64, INPUTS)).astype(np.float32)
    calibration = data.load({"x_train": samples}).calibration
    content = Converter(load_model(path), ConvertOptions(calibration=calibration)).to_bytes(name)
    scales = {"dynamic": UNITS, "int8": UNITS}.get(name, 0)
    main = read(content).main
    assert [t.dtype for t in main.tensors if t.is_constant and t.elements == INPUTS * UNITS] == [SCHEMES[name].weights]
    assert {len(t.quantization.scales) for t in main.tensors if t.is_constant and t.quantization} == {scales} - {0}


def test_what_a_file_of_another_writer_does_not_need_any_more_is_gone(tmp_path: Path) -> None:
    """Its float16 weights lay beside the wider ones in every file that was made of it."""
    path = tmp_path / "half.tflite"
    path.write_bytes(models.convert(models.dense, "float16"))
    made = Converter(load_model(path), ConvertOptions())
    for name, size in (("float32", 4), ("dynamic", 1)):
        assert read(made.to_bytes(name)).size_bytes < INPUTS * UNITS * size + path.stat().st_size / 4, name


def _densified(content: bytes) -> bytes:
    """Returns a file whose sparse weights a DENSIFY writes out, as converters leave those without a sparse kernel."""

    def change(model: Any, schema: Any) -> None:
        (graph,) = model.subgraphs
        (reader,) = graph.operators
        dense, operator, code = schema.TensorT(), schema.OperatorT(), schema.OperatorCodeT()
        sparse = graph.tensors[reader.inputs[1]]
        dense.shape, dense.type, dense.name, dense.buffer = sparse.shape, sparse.type, b"dense", 0
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
        operator.opcodeIndex, operator.inputs, operator.outputs = 1, [reader.inputs[1]], [len(graph.tensors)]
        reader.inputs = [reader.inputs[0], len(graph.tensors), *reader.inputs[2:]]
        graph.tensors.append(dense)
        graph.operators.insert(0, operator)
        model.operatorCodes.append(code)

    return changed(content, change)


@pytest.mark.parametrize("densify", [False, True])
def test_sparse_weights_are_quantized_like_others(densify: bool, tmp_path: Path) -> None:
    content = models.convert(models.dense, "sparse", "pruned")
    path = tmp_path / "sparse.tflite"
    path.write_bytes(_densified(content) if densify else content)
    converter, pruned = Converter(load_model(path), ConvertOptions()), models.convert(models.dense, "float32", "pruned")
    (expected,) = (read(pruned).values(t) for t in read(pruned).main.tensors if t.is_constant)
    floats, integers = read(converter.to_bytes("float32")), read(converter.to_bytes("dynamic"))
    assert [operator.name for operator in floats.main.operators] == ["FULLY_CONNECTED"]
    (found,) = (floats.values(t) for t in floats.main.tensors if t.is_constant)
    np.testing.assert_array_equal(found, expected)
    assert _weights(integers) == [("int8", UNITS)]


def test_a_file_larger_than_the_one_it_was_made_of_says_so(tmp_path: Path) -> None:
    """Four of five blocks are zero, and a sparse encoding leaves them out."""
    path = tmp_path / "sparse.tflite"
    path.write_bytes(models.convert(models.dense, "sparse", "pruned"))
    converter = Converter(load_model(path), ConvertOptions())
    said = f"larger than sparse.tflite, of {path.stat().st_size:,} bytes, that it was made of"
    assert converter.convert("float16", tmp_path / "half.tflite") == (said,)
    assert converter.convert("float32", tmp_path / "float.tflite") == ()
    path.write_bytes(models.convert(models.dense, "float16"))
    assert Converter(load_model(path), ConvertOptions()).convert("dynamic", tmp_path / "dynamic.tflite") == ()


def test_a_table_that_is_looked_up_has_the_dtype_of_activations(tmp_path: Path) -> None:
    keras = frameworks.load("tf_keras")
    words = keras.layers.Input((6,), dtype="int32")
    keras.Model(words, keras.layers.Dense(4)(keras.layers.Embedding(100, 16)(words))).save(tmp_path / "words.h5")
    samples = np.random.default_rng(0).integers(0, 100, (64, 6)).astype("int32")
    options = ConvertOptions(calibration=data.load({"x_train": samples}).calibration)
    converter = Converter(load_model(tmp_path / "words.h5"), options)
    for name, dtype in (("int8", "int8"), ("int16x8", "int16"), ("dynamic", "int8"), ("float16", "float16")):
        assert [d for d, _ in _weights(read(converter.to_bytes(name)))] == [dtype], name


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Converter]:
    """A Dense of 768 x 768, from Keras and from a float `.tflite`: weights of more than 256 KiB in every scheme."""
    keras = frameworks.load("tf_keras")
    values = keras.layers.Input((768,))
    folder = tmp_path_factory.mktemp("wide")
    keras.Model(values, keras.layers.Dense(768)(values)).save(folder / "wide.h5")
    calibration = data.load({"x_train": np.random.default_rng(0).normal(size=(32, 768)).astype("f4")}).calibration
    options = ConvertOptions(calibration=calibration)
    from_keras = Converter(load_model(folder / "wide.h5"), options)
    from_keras.convert("float32", folder / "wide.tflite")
    return {"keras": from_keras, "tflite": Converter(load_model(folder / "wide.tflite"), options)}


@pytest.mark.parametrize("scheme", [*SCHEMES.values(), INT4], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("source", ["keras", "tflite"])
def test_every_buffer_of_a_large_model_is_inside(wide: dict[str, Converter], source: str, scheme: Scheme) -> None:
    model = read(wide[source].to_bytes(replace(scheme, keep_8bit=("none",))))
    assert model.outside_bytes == 0
    assert [dtype for dtype, _ in _weights(model, least=768 * 768)] == [scheme.weights]
    stored = 4 if scheme.name == "int3" else scheme.weight_bits
    scales = 768 * 768 // 32 * 2 if "block" in scheme.name else 0
    assert model.size_bytes < 768 * 768 * stored / 8 * 1.1 + scales
