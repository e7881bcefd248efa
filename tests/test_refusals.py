"""Models that converters refuse or die on: the layer and the way out are named, and never the tool's raw output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_models

from edgeopt import data, frameworks, workers
from edgeopt.conversion import Converter, ConvertOptions, IsolatedConverter
from edgeopt.conversion.converter import open_converter
from edgeopt.conversion.lowering import float_file_of, graph_of
from edgeopt.conversion.refusals import crash_in_words, gist, layer_in
from edgeopt.errors import ConversionError
from edgeopt.loading import load_model
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, store_floats
from edgeopt.tflite.stored_weights import layers

VOLUME = (4, 6, 6, 2)


def _saved(folder: Path, build: Callable[[Any, Any], Any]) -> tuple[Path, ConvertOptions]:
    keras = frameworks.load("keras")
    given = keras.Input(VOLUME)
    keras.Model(given, build(keras.layers, given)).save(folder / "volume.keras")
    samples = np.random.default_rng(0).normal(size=(64, *VOLUME)).astype("float32")
    return folder / "volume.keras", ConvertOptions(calibration=data.load({"x_train": samples}).calibration)


def _converter(folder: Path, build: Callable[[Any, Any], Any]) -> Converter:
    return open_converter(*_saved(folder, build))


def test_an_operator_without_a_kernel_is_named_with_its_layer(tmp_path: Path) -> None:
    converter = _converter(tmp_path, lambda layers, x: layers.MaxPooling3D(2, name="pooled")(x))
    for scheme in ("float32", "int8"):
        with pytest.raises(ConversionError) as caught:
            converter.to_bytes(scheme)
        assert str(caught.value) == (
            f"The converter refused to make {scheme}: TensorFlow Lite has no kernel of MaxPool3D (of 'pooled'), in any "
            "scheme. Try a model without."
        )


def test_weights_without_an_integer_form_are_named(tmp_path: Path) -> None:
    converter = _converter(tmp_path, lambda layers, x: layers.Conv3D(3, 2)(x))
    message = r"int8 weights of the scheme int8, got float32 in 1 CONV_3D: the quantizer has no such form of them\. Try"
    with pytest.raises(ConversionError, match=message):
        converter.to_bytes("int8")


def test_a_mask_has_no_int16_form_and_that_is_said(tmp_path: Path) -> None:
    keras = frameworks.load("tf_keras")
    words = keras.Input((6,), dtype="int32", name="words")
    masked = keras.layers.LSTM(4)(keras.layers.Embedding(20, 4, mask_zero=True)(words))
    keras.Model(words, keras.layers.Dense(3)(masked)).save(tmp_path / "masked.h5")
    samples = np.random.default_rng(0).integers(0, 20, (8, 6)).astype("int32")
    options = ConvertOptions(calibration=data.load({"x_train": samples}).calibration)
    converter = open_converter(tmp_path / "masked.h5", options)
    with pytest.raises(ConversionError, match=r"it wants a range of 'words', which is compared .* Try --scheme int8"):
        converter.to_bytes("int16x8")
    assert converter.to_bytes("int8")


def _film(layers: Any, x: Any) -> Any:
    return layers.Flatten()(layers.Bidirectional(layers.ConvLSTM2D(3, 2), name="film")(x))


def test_what_kills_the_converter_is_named(tmp_path: Path) -> None:
    path, options = _saved(tmp_path, _film)
    message = (
        r"The converter died \(.*\) making int8.*\. The model loops \(WHILE\) in 'film', which no quantizer takes\. "
        "Try: --scheme float16 or dynamic"
    )
    with IsolatedConverter(path, options) as converter:
        with pytest.raises(ConversionError, match=message):
            converter.convert("int8", tmp_path / "volume.tflite")
        converter.convert("float16", tmp_path / "volume.tflite")  # as it was told to try
    assert (tmp_path / "volume.tflite").exists()


@pytest.mark.parametrize(
    ("complaint", "words"),
    [
        ("", "it gave no reason. Try another --scheme."),
        (
            "Failed.\n<unknown>:0: error: 'tfl.add' op has bad types\n",
            "add has bad types. Try another --scheme.",
        ),
        (
            'error: loc(callsite(fused["List:", "Array@standard_gru"] at fused["PartitionedCall:", "gru/PartitionedCall'
            "@f\"])): 'tf.List' op requires a static shape",
            "List (of 'gru') requires a static shape. Try another --scheme.",
        ),
        (
            "Failed to parse the model: Didn't find op for builtin opcode 'DEQUANTIZE' version '9'. An older version",
            "it does not know DEQUANTIZE in version 9. Try the model that this file was made from.",
        ),
        ("x" * 1000, "x" * 300 + ". Try another --scheme."),
        (
            "'tf.StridedSlice' op is neither a custom op nor a flex op",
            "TensorFlow Lite has no kernel of StridedSlice for sizes that are left free, as the model uses it. Try",
        ),
        (
            "'tf.Qr' op is neither a custom op nor a flex op",
            "TensorFlow Lite has no kernel of Qr, in any scheme. Try a m",
        ),
    ],
)
def test_a_complaint_in_short(complaint: str, words: str) -> None:
    assert gist(complaint).startswith(words)


def test_a_layer_in_the_name_of_a_tensor() -> None:
    assert layer_in("functional_1/film/while;other") == "film"
    assert layer_in("Identity") == "Identity"


def test_a_crash_without_a_loop_names_what_there_is() -> None:
    log = "I0000 all is well\nCheck failed: rank == 2\nlast line of no meaning"
    words = crash_in_words("int8", workers.WorkerCrashed("abort", log), loops=(), operators=("SVDF", "ADD"))
    assert words == (
        "The converter died (abort) making int8; it wrote: Check failed: rank == 2. It holds SVDF, ADD. "
        "Try: --scheme dynamic or float16."
    )
    words = crash_in_words("int8", workers.WorkerCrashed("abort", "last line"), loops=(), operators=())
    assert "making int8, without a reason. Not even its float form could be made. Try: " in words


def test_tables_are_saved_with_the_graph_that_looks_them_up(tmp_path: Path) -> None:
    layers = frameworks.load("tf_keras").layers
    word = layers.Input((1,), dtype="string", name="word")
    table = layers.StringLookup(vocabulary=["up", "down"])(word)
    embedded = layers.Flatten()(layers.Embedding(3, 4)(table))
    frameworks.load("tf_keras").Model(word, layers.Dense(2)(embedded)).save(tmp_path / "word.keras")
    graph = graph_of(load_model(tmp_path / "word.keras"), tmp_path / "graph", batch_size=1)
    assert "HASHTABLE_FIND" in {code.name for code in read(float_file_of(graph).content).codes}


def test_weights_that_are_no_numbers_are_no_integers_either(tmp_path: Path) -> None:
    content = runtime_models.models()["float32"].read_bytes()
    weight = layers(read(content))[0].weight
    values = read(content).values(weight).astype(np.float32)
    values.flat[[1, 5]] = np.nan, np.inf

    def change(model: Any, schema: Any) -> None:
        store_floats(model, schema, model.subgraphs[0].tensors[weight.index], values)

    (tmp_path / "broken.tflite").write_bytes(changed(content, change))
    converter = Converter(load_model(tmp_path / "broken.tflite"), ConvertOptions())
    for scheme in ("dynamic", "int4-weights"):
        with pytest.raises(
            ConversionError,
            match=rf"Expected weights to make integers of, got 2 that are NaN or infinite among the {values.size} of .*"
            r"Try a checkpoint of before its training broke",
        ):
            converter.convert(scheme, tmp_path / "out.tflite")
    converter.convert("float32", tmp_path / "out.tflite")
