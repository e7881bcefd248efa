"""Recurrent layers in integers: unrolled where a quantizer dies on their loops, equal to them, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import data, frameworks
from edgeopt.conversion import ConvertOptions, IsolatedConverter
from edgeopt.conversion.converter import Converter, open_converter
from edgeopt.conversion.unrolling import unrolled
from edgeopt.errors import ConversionError
from edgeopt.loading import load_model
from edgeopt.parity import run_here
from edgeopt.runtimes import RUNTIMES
from edgeopt.tflite.reader import read

STEPS, FEATURES = 6, 4
SAMPLES = np.random.default_rng(0).normal(size=(64, STEPS, FEATURES)).astype("float32")


def _gru(layers: Any, steps: Any) -> Any:
    return layers.GRU(8, name="memory")(steps)


def _simple(layers: Any, steps: Any) -> Any:
    return layers.TimeDistributed(layers.Dense(3))(layers.SimpleRNN(8, return_sequences=True, name="memory")(steps))


def _both_ways(layers: Any, steps: Any) -> Any:
    return layers.Bidirectional(layers.GRU(5), name="memory")(steps)


def _cell(layers: Any, steps: Any) -> Any:
    return layers.RNN(layers.GRUCell(5), name="memory")(steps)


def _lstm(layers: Any, steps: Any) -> Any:
    return layers.LSTM(5, name="memory")(steps)


def _saved(folder: Path, build: Callable[[Any, Any], Any], library: str, steps: int | None = STEPS) -> Path:
    keras = frameworks.load(library)
    keras.utils.set_random_seed(0)
    given = keras.layers.Input((steps, FEATURES), name="steps")
    path = folder / f"{build.__name__}.keras"
    keras.Model(given, keras.layers.Dense(3)(build(keras.layers, given))).save(path)
    return path


def _converter(path: Path) -> Converter:
    return open_converter(path, ConvertOptions(calibration=data.load({"x_train": SAMPLES}).calibration))


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", [_gru, _simple, _both_ways, _cell])
def test_loops_become_int8(build: Callable[[Any, Any], Any], library: str, tmp_path: Path) -> None:
    converter = _converter(_saved(tmp_path, build, library))
    assert "unrolled, as no quantizer takes its loop: 'memory'" in converter.convert("int8-float-io", tmp_path / "i")
    assert converter.convert("float32", tmp_path / "f") == ()
    assert {"WHILE"} & {code.name for code in read(tmp_path / "f").codes}  # in float they stay
    assert not {"WHILE"} & {code.name for code in read(tmp_path / "i").codes}
    expected, values = (_outputs(tmp_path / name) for name in ("f", "i"))
    assert np.abs(values - expected).max() < 0.06 * np.ptp(expected)


def test_the_fused_lstm_is_unrolled_for_16x8_alone(tmp_path: Path) -> None:
    converter = _converter(_saved(tmp_path, _lstm, "keras"))
    assert converter.convert("int8-float-io", tmp_path / "i") == ()
    (note,) = converter.convert("int16x8", tmp_path / "x")
    assert note.startswith("unrolled")
    assert np.abs(_outputs(tmp_path / "x") - _outputs(tmp_path / "i")).max() < 0.1


def _quiet(layers: Any, steps: Any) -> Any:
    small = frameworks.load("keras").initializers.RandomNormal(stddev=0.02)
    return layers.LSTM(5, kernel_initializer=small, recurrent_initializer=small, name="memory")(steps)


def test_a_fused_lstm_whose_cells_hardly_move_computes_as_in_float(tmp_path: Path) -> None:
    """The integer kernel looks tanh of cells up that reach from -1 to 1 at least, and computes anything of less."""
    converter = _converter(_saved(tmp_path, _quiet, "keras"))
    for scheme, name in (("float32", "f"), ("int8-float-io", "i")):
        converter.convert(scheme, tmp_path / name)
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in {code.name for code in read(tmp_path / "i").codes}
    expected, values = (_outputs(tmp_path / name) for name in ("f", "i"))
    assert np.abs(values - expected).max() < 0.06 * np.ptp(expected)


def _outputs(file: Path) -> np.ndarray:
    part = data.load({"x_train": SAMPLES}).calibration
    (values,) = run_here(file, RUNTIMES["litert-builtin"], part, count=16).values.values()
    return np.concatenate(values)


def test_free_time_steps_are_those_of_the_data(tmp_path: Path) -> None:
    converter = _converter(_saved(tmp_path, _gru, "keras", steps=None))
    assert any(f"fixed: {STEPS}x{FEATURES} a sample, as the data are" in note for note in converter.summary().notes)
    converter.convert("int8", tmp_path / "i")
    assert read(tmp_path / "i").inputs[0].shape == (1, STEPS, FEATURES)


def test_time_steps_that_stay_free_are_refused_in_words(tmp_path: Path) -> None:
    model = load_model(_saved(tmp_path, _gru, "keras", steps=None))
    message = r"fixed time steps, .* loop of 'memory' .* Try --shape steps=1,N,4, data of one length, or --scheme"
    with pytest.raises(ConversionError, match=message):
        unrolled(model)


def test_what_holds_no_layers_stays_as_it_is(tmp_path: Path) -> None:
    _converter(_saved(tmp_path, _gru, "keras")).convert("float32", tmp_path / "loop.tflite")
    assert unrolled(load_model(tmp_path / "loop.tflite")) is None
    options = ConvertOptions(calibration=data.load({"x_train": SAMPLES}).calibration)
    with IsolatedConverter(tmp_path / "loop.tflite", options) as converter, pytest.raises(ConversionError) as caught:
        converter.convert("int8", tmp_path / "i")
    assert "WHILE" in str(caught.value)


def test_tokens_of_an_input_of_floats_are_unrolled(tmp_path: Path) -> None:
    """As Input((STEPS,)) makes it: what proves the steps equal to the loop are numbers that the embedding has."""
    keras = frameworks.load("keras")
    words = keras.Input((STEPS,))
    keras.Model(words, keras.layers.GRU(2)(keras.layers.Embedding(3, 2)(words))).save(tmp_path / "m.keras")
    assert unrolled(load_model(tmp_path / "m.keras")) is not None


@pytest.mark.parametrize("sequences", [True, False])
def test_padded_steps_are_left_out_both_ways(sequences: bool, tmp_path: Path) -> None:
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(0)
    given = keras.Input((STEPS,), dtype="int32", name="tokens")
    told = keras.layers.Embedding(9, FEATURES, mask_zero=True)(given)
    told = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=sequences), name="memory")(told)
    keras.Model(given, keras.layers.Dense(3)(told)).save(tmp_path / "tags.keras")
    model = load_model(tmp_path / "tags.keras")
    steps = unrolled(model)
    assert steps is not None
    tokens = np.random.default_rng(0).integers(0, 9, (16, STEPS)).astype(np.int32)
    tokens[:8, 3:] = 0
    np.testing.assert_allclose(steps.keras(tokens), model.keras(tokens), atol=1e-6)


def _convolutional(layers: Any, steps: Any) -> Any:
    rows = layers.Reshape((STEPS, FEATURES, 1))(steps)
    return layers.Flatten()(layers.ConvLSTM1D(2, 3, padding="same", return_sequences=True, name="memory")(rows))


def test_a_convolutional_lstm_becomes_int8(tmp_path: Path) -> None:
    converter = _converter(_saved(tmp_path, _convolutional, "keras"))
    assert "unrolled, as no quantizer takes its loop: 'memory'" in converter.convert("int8-float-io", tmp_path / "i")
    converter.convert("float32", tmp_path / "f")
    expected, values = (_outputs(tmp_path / name) for name in ("f", "i"))
    assert np.abs(values - expected).max() < 0.06 * np.ptp(expected)
