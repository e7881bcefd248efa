"""What is said to be refused is refused by the converter itself, and what is not is made: all is converted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import loaded_of

from edgeopt import data, runtimes
from edgeopt.advice import advice, of_scheme, of_technique
from edgeopt.conversion import Converter, ConvertOptions, unconvertible
from edgeopt.conversion.converter import open_converter
from edgeopt.errors import ConversionError, ModelError
from edgeopt.frameworks import load
from edgeopt.inspection import inspect_file
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, technique
from edgeopt.vocabulary import Scheme
from edgeopt.workshop import survey

keras = load("tf_keras")
L = keras.layers
VOLUME, STEPS = (4, 4, 4, 2), (8, 4)
# Layer → the shape and dtype that it takes, and how it is made.
LAYERS: dict[str, tuple[tuple[int, ...], str, Any]] = {
    "CategoryEncoding": ((6,), "int64", lambda: L.CategoryEncoding(8, output_mode="multi_hot")),
    "Hashing": ((6,), "int64", lambda: L.Hashing(5)),
    "IntegerLookup": ((6,), "int64", lambda: L.IntegerLookup(vocabulary=[3, 4, 5], output_mode="multi_hot")),
    "StringLookup": ((6,), "string", lambda: L.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")),
    "TextVectorization": ((1,), "string", lambda: L.TextVectorization(vocabulary=["a", "b"], output_mode="multi_hot")),
    "AveragePooling3D": (VOLUME, "float32", L.AveragePooling3D),
    "MaxPooling3D": (VOLUME, "float32", L.MaxPooling3D),
    "Conv3D": (VOLUME, "float32", lambda: L.Conv3D(4, 3)),
    "Conv3DTranspose": (VOLUME, "float32", lambda: L.Conv3DTranspose(4, 3)),
    "LocallyConnected1D": (STEPS, "float32", lambda: L.LocallyConnected1D(4, 3)),
    "PReLU": (STEPS, "float32", L.PReLU),
    "LayerNormalization": (STEPS, "float32", L.LayerNormalization),
    "GroupNormalization": (STEPS, "float32", lambda: L.GroupNormalization(groups=2)),
    "ThresholdedReLU": (STEPS, "float32", L.ThresholdedReLU),
    "GlobalMaxPooling3D": (VOLUME, "float32", L.GlobalMaxPooling3D),
}
TRIED = ("float32", "int8", "int16x8")


def test_every_refusal_is_tried() -> None:
    said = {kind for refusal in unconvertible.REFUSALS for kind in refusal.kinds}
    assert said <= {*LAYERS, "LookupTableFindV2"}  # of SavedModels, below


@pytest.fixture(scope="module", params=LAYERS)
def converter(request: pytest.FixtureRequest) -> tuple[str, Converter, Any]:
    shape, dtype, make = LAYERS[request.param]
    inputs = keras.Input(shape, dtype=dtype, name="x")
    model = keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(make()(inputs))))
    if dtype == "float32":
        samples = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
        calibration = data.load({"x_train": samples, "x_test": samples}).calibration
    else:
        calibration = None
    return request.param, Converter(loaded_of(model), ConvertOptions(calibration=calibration)), model


@pytest.mark.parametrize("name", TRIED)
def test_the_converter_agrees(
    converter: tuple[str, Converter, Any], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, converter_of, model = converter
    scheme = SCHEMES[name]
    if scheme.needs_calibration and model.inputs[0].dtype != "float32":
        pytest.skip("calibrated on floats here, and refused as float32 already")
    words = unconvertible.unconvertible([kind, "Dense"], scheme)
    told = of_scheme(scheme, KerasCount(model).facts(""))
    assert (told.possible is False) is bool(words)
    if not words:
        assert converter_of.to_bytes(scheme)
        return
    assert words in told.reason
    everywhere = all(unconvertible.unconvertible([kind], each) for each in SCHEMES.values())
    assert (of_technique("prune", KerasCount(model).facts("")).possible is False) is everywhere
    named = f"Expected layers that a .tflite in {name} can hold, got {kind}: "
    by_us = unconvertible.unconvertible([kind], scheme, dying=True)
    with pytest.raises(ConversionError, match=named if by_us else ""):
        converter_of.to_bytes(scheme)
    monkeypatch.setattr(unconvertible, "REFUSALS", ())
    # An AssertionError is TensorFlow's own word for tables that it cannot export; a ModelError is LiteRT's.
    with pytest.raises((ConversionError, AssertionError, ModelError)):
        _run(converter_of, scheme, tmp_path)


def _run(converter: Converter, scheme: Scheme, folder: Path) -> None:
    """Runs what is made in a process of its own, which it may end."""
    (folder / "m.tflite").write_bytes(converter.to_bytes(scheme))
    session = runtimes.isolated(folder / "m.tflite", runtimes.RUNTIMES["litert-builtin"])
    session.run({spec.name: np.ones(spec.shape, spec.dtype) for spec in session.inputs})


def model_of_texts(library: str) -> Any:
    its = load(library)
    table = its.layers.TextVectorization(max_tokens=50, output_sequence_length=8)
    table.adapt(["the cat sat", "a dog ran"])
    inside = its.Input((), dtype="string", name="text")
    looked_up = its.Model(inside, table(inside), name="nested")
    text = its.Input((), dtype="string", name="text")
    embedded = its.layers.Flatten()(its.layers.Embedding(50, 8)(looked_up(text)))
    return its.Model(text, its.layers.Dense(2)(embedded))


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("form", ["texts.keras", "texts"])
def test_files_that_begin_with_a_table_get_a_verdict(library: str, form: str, tmp_path: Path) -> None:
    model, path = model_of_texts(library), tmp_path / form
    if library == "keras" and not path.suffix:
        model.export(path, verbose=False)
    else:
        model.save(path)
    kind = "TextVectorization" if path.suffix else "LookupTableFindV2"
    words = f"{kind}: texts and tables run outside the .tflite: let the app do this, and cut the model behind it"
    verdicts = advice(inspect_file(path).facts)
    assert {verdict.possible for verdict in verdicts} == {False}
    assert all(words in verdict.reason for verdict in verdicts)
    with pytest.raises(ConversionError, match=f"Expected layers that a .tflite in float32 can hold, got {words}."):
        open_converter(path, ConvertOptions()).to_bytes("float32")
    with pytest.raises(ConversionError, match=f"Expected layers that some .tflite can hold, got {words}."):
        survey(path)


def test_training_in_int8_is_not_begun_on_a_model_with_a_table(tmp_path: Path) -> None:
    row = technique("qat")
    digits = data.load("digits")
    with pytest.raises(ConversionError, match=r"Expected layers that some \.tflite can hold, got TextVectorization: "):
        row.apply(row.typical, keras.Sequential(model_of_texts("tf_keras").layers[1].layers), digits, Carried(tmp_path))
