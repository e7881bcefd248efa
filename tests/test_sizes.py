"""Sizes that a model leaves free: as the data are, as --shape says, or told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeopt import convert, data, frameworks
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.conversion.converter import open_converter
from edgeopt.errors import ConfigError, ConversionError, DataError
from edgeopt.tflite.reader import read
from edgeopt.units import parse_shapes

PICTURES = np.random.default_rng(0).random((64, 12, 10, 3)).astype("float32")


@pytest.fixture(scope="module")
def upscaling(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A super-resolution net of free height and width, as Keras 3 and as a float `.tflite`."""
    keras = frameworks.load("keras")
    picture = keras.Input((None, None, 3), name="picture")
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu")(picture)
    x = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.UpSampling2D(2)(x))
    folder = tmp_path_factory.mktemp("upscaling")
    keras.Model(picture, x).save(folder / "free.keras")
    open_converter(folder / "free.keras", ConvertOptions()).convert("float32", folder / "free.tflite")
    return {"keras": folder / "free.keras", "tflite": folder / "free.tflite"}


def _converter(path: Path, **options: object) -> Converter:
    return open_converter(path, ConvertOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["keras", "tflite"])
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_free_sizes_are_those_of_the_data(upscaling: dict[str, Path], source: str, scheme: str, tmp_path: Path) -> None:
    converter = _converter(upscaling[source], calibration=data.load({"x_train": PICTURES}).calibration)
    notes = converter.summary().notes
    assert "free sizes of 'picture' fixed: 12x10x3 a sample, as the data are; --shape fixes another" in notes
    file = read(converter.to_bytes(scheme))
    assert [spec.shape for spec in (*file.inputs, *file.outputs)] == [(1, 12, 10, 3), (1, 24, 20, 3)]
    assert (1, 12, 10, 12) in [tensor.shape for tensor in file.main.tensors]  # and what lies between them


def test_a_shape_that_is_said_goes_before_the_data(upscaling: dict[str, Path]) -> None:
    part = data.load({"x_train": PICTURES}).calibration
    shapes = parse_shapes(["picture=1,8,8,3"])
    with pytest.raises(DataError, match=r"Expected \(8, 8, 3\) per sample as input 'picture', got \(12, 10, 3\)"):
        _converter(upscaling["keras"], calibration=part, shapes=shapes).to_bytes("int8")
    converter = _converter(upscaling["keras"], shapes=parse_shapes(["1,8,8,3"]))
    assert "free sizes of 'picture' fixed: 8x8x3 a sample, as --shape says" in converter.summary().notes
    assert read(converter.to_bytes("float16")).outputs[0].shape == (1, 16, 16, 3)


def test_sizes_that_stay_free_are_told(upscaling: dict[str, Path]) -> None:
    for path in upscaling.values():
        converter = _converter(path)
        assert any("sizes of 'picture' stay free (anyxanyx3)" in note for note in converter.summary().notes)
        assert read(converter.to_bytes("float32")).inputs[0].shape == (1, None, None, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pictures=1,8,8,3", r"one of the inputs picture, got one for 'pictures'\. Try --shape picture=1,64,64,3"),
        ("1,8,8", r"Expected a shape like anyxanyxanyx3 for the input 'picture', got 1x8x8\. Try the same number"),
        ("1,8,8,4", r"Expected a shape like anyxanyxanyx3 for the input 'picture', got 1x8x8x4"),
        ("1x8x8x3", r"Expected a shape such as 1,64,64,3 or NAME=1,64,64,3, the batch first, got '1x8x8x3'"),
        ("picture=", r"the batch first, got 'picture='"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(upscaling: dict[str, Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _converter(upscaling["keras"], shapes=parse_shapes([text]))


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_batches_of_several(upscaling: dict[str, Path], scheme: str, tmp_path: Path) -> None:
    result = convert(upscaling["keras"], tmp_path / "b.tflite", scheme=scheme, data={"x_train": PICTURES}, batch_size=4)
    assert result.inputs[0].shape == (4, 12, 10, 3)
    assert [row.matches_reference for row in result.runtimes] == [True]


def test_fewer_samples_than_a_batch_are_refused(upscaling: dict[str, Path]) -> None:
    part = data.load({"x_train": PICTURES}).calibration.head(3)
    with pytest.raises(DataError, match=r"one batch of 4 samples to calibrate with, got 3\. Try .* smaller --batch-si"):
        _converter(upscaling["keras"], calibration=part, batch_size=4).to_bytes("int8")


def test_sizes_that_are_free_are_the_first_thing_to_try(tmp_path: Path) -> None:
    keras = frameworks.load("tf_keras")
    picture = keras.Input((None, None, 3), name="picture")
    x = keras.layers.Conv2DTranspose(3, 3, strides=3)(keras.layers.MaxPooling2D(3)(picture))
    model = keras.Model(picture, keras.layers.Concatenate()([x, picture]))  # 64 is no multiple of 3
    converter = frameworks.load("tensorflow").lite.TFLiteConverter.from_keras_model(model)
    (tmp_path / "thirds.tflite").write_bytes(converter.convert())
    message = r"does not run in sizes of 64, .* Try --shape picture=1,N,N,3, or --data, whose sizes are taken\."
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / "thirds.tflite", tmp_path / "out.tflite", scheme="float16")
    result = convert(tmp_path / "thirds.tflite", tmp_path / "out.tflite", scheme="float16", shapes={"": (1, 9, 9, 3)})
    assert result.outputs[0].shape[1:] == (9, 9, 3 + 3)
