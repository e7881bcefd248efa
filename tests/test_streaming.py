"""Models that read step by step: equal to the whole in float and int8, told where they cannot, and run as samples."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c99_build import require_gcc

from edgeopt import benchmarking, data, evaluation, frameworks
from edgeopt.api.convert import Conversion, convert
from edgeopt.api.export import export
from edgeopt.conversion import ConvertOptions
from edgeopt.conversion.converter import open_converter
from edgeopt.conversion.streaming import streamed
from edgeopt.conversion.streaming.states import noted
from edgeopt.errors import ConfigError, ConversionError, ModelError
from edgeopt.loading import load_model
from edgeopt.runtimes import RUNTIMES, open_session
from edgeopt.runtimes.numbers import quantize
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import with_metadata
from edgeopt.tflite.stream import ENTRY, Stream, stream_of

FRAMES, BANDS = 20, 6
SAMPLES = np.random.default_rng(0).normal(size=(40, FRAMES, BANDS)).astype("float32")


def _valid(layers: Any, x: Any) -> Any:
    x = layers.Conv1D(8, 5, strides=2)(layers.Conv1D(8, 3, activation="relu")(x))
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


def _causal(layers: Any, x: Any) -> Any:
    x = layers.BatchNormalization()(layers.Conv1D(8, 3, padding="causal", activation="relu")(x))
    return layers.Dense(3)(layers.Conv1D(8, 3, dilation_rate=2, padding="causal")(x))


def _same(layers: Any, x: Any) -> Any:
    x = layers.Conv1D(8, 5, padding="same", strides=2)(layers.Conv1D(8, 3, padding="same", activation="relu")(x))
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.SeparableConv1D(8, 4, padding="same")(x)))


def _residual(layers: Any, x: Any) -> Any:
    near = layers.Conv1D(6, 3, padding="same", activation="relu")(x)
    both = layers.Add()([near, layers.Conv1D(6, 5, padding="same")(near)])
    return layers.Dense(3)(layers.Concatenate()([both, layers.Conv1D(4, 1)(x)]))


def _recurrent(layers: Any, x: Any) -> Any:
    x = layers.GRU(5, return_sequences=True)(layers.Conv1D(8, 4, strides=2, activation="relu")(x))
    return layers.Dense(3)(layers.LSTM(4)(x))


def _late_recurrent(layers: Any, x: Any) -> Any:
    return layers.Dense(3)(layers.LSTM(5, return_sequences=True)(layers.Conv1D(8, 3, padding="same")(x)))


def _padded(layers: Any, x: Any) -> Any:
    x = layers.ZeroPadding1D(1)(layers.Conv1D(4, 3)(layers.ZeroPadding1D((2, 0))(x)))
    return layers.Dense(2)(layers.Flatten()(layers.MaxPooling1D(2)(layers.Conv1D(4, 3)(x))))


def _ds_cnn(layers: Any, x: Any) -> Any:
    x = layers.ReLU()(layers.Conv2D(4, (10, 4), strides=2, padding="same")(layers.Reshape((FRAMES, BANDS, 1))(x)))
    x = layers.Conv2D(4, 1, activation="relu")(layers.DepthwiseConv2D(3, padding="same", activation="relu")(x))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def _both_ways(layers: Any, x: Any) -> Any:
    return layers.Dense(2)(layers.Bidirectional(layers.GRU(3))(layers.Conv1D(8, 3)(x)))


def _joined(layers: Any, x: Any) -> Any:
    """Two answers that are there at different times, and one for each position."""
    x = layers.Conv1D(8, 3, padding="causal", activation="relu")(x)
    memory, mean = layers.GRU(5)(layers.Conv1D(4, 4, strides=2, padding="same")(x)), layers.GlobalAveragePooling1D()(x)
    return [layers.Dense(3)(x), layers.Dense(2)(layers.Concatenate()([memory, mean]))]


def _convolutional_memory(layers: Any, x: Any) -> Any:
    return layers.Flatten()(layers.ConvLSTM1D(2, 3, padding="same")(layers.Reshape((FRAMES, BANDS, 1))(x)))


def _cropped(layers: Any, x: Any) -> Any:
    x = layers.Cropping1D((2, 3))(layers.Conv1D(8, 3, padding="same")(x))
    return layers.Conv1D(3, 3, padding="same")(x)


Build = Callable[[Any, Any], Any]


def _saved(folder: Path, build: Build, *, frames: int | None = FRAMES) -> Path:
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(1)
    given = keras.layers.Input((frames, BANDS), name="bands")
    model = keras.Model(given, build(keras.layers, given))
    # No bias at zero, no statistics of nothing: padding is told from what padding becomes.
    random = np.random.default_rng(2)
    model.set_weights([np.abs(random.normal(size=w.shape)) * 0.5 + 0.1 for w in model.get_weights()])
    path = folder / f"{build.__name__}.keras"
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("build", "step"),
    [
        *((build, 0) for build in (_valid, _causal, _residual, _recurrent, _padded, _ds_cnn, _both_ways, _joined)),
        *((build, 4) for build in (_same, _late_recurrent, _ds_cnn, _joined, _convolutional_memory, _cropped)),
    ],
)
def test_steps_give_what_the_whole_gives(build: Build, step: int, tmp_path: Path) -> None:
    # streamed() itself holds the two against one another, on samples without zeros.
    found = streamed(load_model(_saved(tmp_path, build)), step=step)
    assert found.stream.step == (step or found.stream.step)
    assert found.stream.tail >= 0
    assert any("proven in float" in note for note in found.notes)


def test_a_layer_that_looks_ahead_says_by_how_much(tmp_path: Path) -> None:
    found = streamed(load_model(_saved(tmp_path, _same)), step=0)
    told = " ".join(found.notes)
    # One of 3 positions is ahead; of 5 that move by two frames three, as one is before; of 4 two, of two frames each.
    assert re.search(rf"'conv1d\w*' by 1, 'conv1d\w*' by 3, 'separable\w*' by {2 * 2}; its answer", told)
    assert "comes 8 frames after" in told
    assert found.stream.valid == "valid"
    assert found.stream.tail > 0


def test_a_proof_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeopt.conversion.streaming as streaming

    walked = streaming._walked

    def off(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        return {name: values + 0.01 for name, values in walked(*args, **kwargs).items()}

    monkeypatch.setattr(streaming, "_walked", off)
    with pytest.raises(ConversionError, match=r"Expected the same outputs step by step, within 1e-05 .* difference of"):
        streamed(load_model(_saved(tmp_path, _causal)), step=0)


def _masked(layers: Any, x: Any) -> Any:
    return layers.Dense(2)(layers.GRU(3)(layers.Masking()(x)))


def _mixed(layers: Any, x: Any) -> Any:
    return layers.Dense(2)(layers.Permute((2, 1))(x))


def _backwards(layers: Any, x: Any) -> Any:
    return layers.Dense(2)(layers.Bidirectional(layers.GRU(3))(x))


@pytest.mark.parametrize(
    ("build", "frames", "settings", "error", "words"),
    [
        (_masked, FRAMES, {}, ConversionError, r"got 'masking.*' \(Masking\), which masks padding"),
        (
            _backwards,
            FRAMES,
            {},
            ConversionError,
            r"got 'bidirectional.*' .* first: its backward half begins at the end",
        ),
        (_mixed, FRAMES, {}, ConversionError, r"got 'dense.*' \(Dense\) first: it mixes them"),
        (_valid, FRAMES, {"step": 3}, ConfigError, r"multiple of 2 frames.*got 3. Try --stream 4"),
        (_valid, FRAMES, {"axis": 3}, ConfigError, r"--time-axis from 1 to 2.*got 3"),
        (_valid, None, {}, ConfigError, r"got any: 'global_average_pooling1d.*' needs all positions.*Try --shape"),
    ],
)
def test_what_cannot_be_cut_into_steps(
    build: Build, frames: int | None, settings: dict[str, int], error: type[Exception], words: str, tmp_path: Path
) -> None:
    model = load_model(_saved(tmp_path, build, frames=frames))
    with pytest.raises(error, match=words):
        streamed(model, **{"step": 0, **settings})


def test_a_model_of_two_inputs_is_no_stream(tmp_path: Path) -> None:
    model = load_model(_saved(tmp_path, _valid))
    with pytest.raises(ConversionError, match=r"Expected one input of frames for a stream, got bands, bands"):
        streamed(replace(model, inputs=model.inputs * 2), step=0)
    with pytest.raises(
        ConversionError, match=r"Expected a model whose layers can be cut into steps, got .*holds no la"
    ):
        streamed(replace(model, keras=None), step=0)


def test_any_number_of_frames_stays_free(tmp_path: Path) -> None:
    path = _saved(tmp_path, _recurrent, frames=None)
    converter = open_converter(path, ConvertOptions(stream=0))
    converter.convert("float32", tmp_path / "steps.tflite")
    session = open_session(tmp_path / "steps.tflite", RUNTIMES["litert"])
    whole = load_model(path).keras
    for frames in (12, 30):
        sample = SAMPLES[:1].repeat(2, axis=1)[:, :frames]
        session.reshape({"bands": sample.shape})
        (got,) = session.run({"bands": sample}).values()
        np.testing.assert_allclose(got, np.asarray(whole(sample)), rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match=r"Expected samples of 64, or whole steps of 2 more or less frames .* got 13"):
        session.reshape({"bands": (1, 13, BANDS)})


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Conversion]:
    folder = tmp_path_factory.mktemp("int8")
    path = _saved(folder, _ds_cnn)
    labels = np.argmax(np.asarray(load_model(path).keras(SAMPLES)), axis=1)
    given = {"x_train": SAMPLES, "y_train": labels, "x_test": SAMPLES, "y_test": labels}
    np.savez(folder / "data.npz", **given)
    return folder, convert(path, folder / "steps.int8.tflite", scheme="int8", stream=0, data=folder / "data.npz")


def test_int8_states_come_out_as_they_go_in(int8: tuple[Path, Conversion]) -> None:
    _, made = int8
    stream, outputs = made.stream, {spec.name: spec for spec in made.outputs}
    assert stream is not None
    assert len(stream.states) >= 3
    inputs = {spec.name: spec for spec in made.inputs}
    for before, after in stream.states:
        assert (inputs[before].dtype, inputs[before].quantization) == ("int8", outputs[after].quantization)


def test_the_command_tells_how_far_int8_steps_lie_from_the_float_whole(int8: tuple[Path, Conversion]) -> None:
    _, made = int8
    assert made.fidelity is not None
    (output,) = made.fidelity.outputs
    assert output.sqnr_db > 25
    assert made.fidelity.samples == len(SAMPLES)
    assert any("MACs a step" in note for note in made.notes)


def test_a_file_of_steps_is_scored_and_timed_by_samples(int8: tuple[Path, Conversion]) -> None:
    folder, made = int8
    score = evaluation.evaluate(made.file, data.load(folder / "data.npz").validation)
    assert score.samples == len(SAMPLES)
    assert score.metric.value == pytest.approx(made.fidelity.metric.value)  # type: ignore[union-attr]
    (row,) = benchmarking.benchmark([made.file], runs=5, profile=True).rows
    assert any("one step of 2 frames; a sample of 20 takes" in note for note in row.notes)
    assert row.operators


def test_steps_begin_anew_with_each_sample(int8: tuple[Path, Conversion]) -> None:
    _, made = int8
    sessions = [open_session(made.file, RUNTIMES[name]) for name in ("litert", "litert-builtin")]
    (spec,) = sessions[0].inputs
    given = [np.full(spec.shape, value, np.int8) for value in (90, -70)]
    first, _, again = (sessions[0].run({"bands": given[i]}) for i in (0, 1, 0))
    (other,) = sessions[1].run({"bands": given[0]}).values()
    (one,), (two,) = first.values(), again.values()
    np.testing.assert_array_equal(one, two)
    assert np.abs(one.astype(int) - other).max() <= 2
    with pytest.raises(ModelError, match=r"Expected samples of 20 frames for 'bands', got 22"):
        sessions[0].reshape({"bands": (1, 22, BANDS)})
    with pytest.raises(ModelError, match=r"takes \[1, 20, 6\] as the input 'bands'"):
        sessions[0].reshape({"bands": (1, 20, BANDS + 1)})


@pytest.mark.parametrize(
    "change",
    [
        {"axis": "1"},
        {"step": 3},
        {"steps": 1 << 30},
        {"states": [["bands", "bands"]]},
        {"outputs": {"nothing": {}}},
        {"frames": 10**9},
        {"more": 1},
    ],
)
def test_metadata_that_contradicts_the_file_is_refused(int8: tuple[Path, Conversion], change: dict[str, Any]) -> None:
    _, made = int8
    content = made.file.read_bytes()
    model = read(content)
    said = {**json.loads(model.buffer(model.metadata[ENTRY]).tobytes()), **change}
    with pytest.raises(ModelError, match=r"Expected inputs and outputs as the file's metadata edgeopt.stream say"):
        stream_of(read(with_metadata(content, ENTRY, json.dumps(said).encode())))
    with pytest.raises(ModelError, match=r"metadata edgeopt.stream"):
        stream_of(read(with_metadata(content, ENTRY, b"{")))


def test_a_state_that_changes_its_scale_is_a_defect(int8: tuple[Path, Conversion]) -> None:
    _, made = int8
    assert made.stream is not None
    (before, _), *_ = made.stream.states
    wrong: Stream = replace(made.stream, states=((before, next(iter(made.stream.outputs))),))
    with pytest.raises(ConversionError, match=rf"Expected the state '{before}' to come out as it goes in, got int8"):
        noted(made.file.read_bytes(), wrong)


def test_steps_are_a_tflite_files_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a .tflite as what reads step by step, got .*x.onnx"):
        convert(tmp_path / "x.keras", tmp_path / "x.onnx", stream=0)


_MAIN = """
#include <stdio.h>
#include "steps_stream.h"

int main(void) {
    static STEPS_INPUT_TYPE frames[STEPS_INPUT_SIZE];
    int pass, step, i, heard, left;
    for (pass = 0; pass < 2; pass++) {
        rewind(stdin);
        steps_stream_reset();
        left = FRAMES;
        for (step = 0; step < STEPS_STREAM_STEPS; step++) {
            for (i = 0; i < STEPS_INPUT_SIZE; i++) {
                frames[i] = ZERO;
            }
            heard = left < STEPS_STREAM_FRAMES ? left : STEPS_STREAM_FRAMES;
            if (heard > 0 && fread(frames, STEPS_INPUT_BYTES / STEPS_STREAM_FRAMES, heard, stdin) < 1) {
                return 1;
            }
            left -= heard;
            steps_stream_step(frames, heard > 0 ? heard : 0);
        }
    }
    fwrite(steps_output(OUTPUT), 1, STEPS_OUTPUT_BYTES, stdout);
    return 0;
}
"""


def test_exported_c99_carries_the_states(int8: tuple[Path, Conversion], tmp_path: Path) -> None:
    folder, made = int8
    gcc = require_gcc()
    exported = export("micro", made.file, tmp_path / "c", name="steps", data=folder / "data.npz", runtime="c99")
    session = open_session(made.file, RUNTIMES["litert"])
    (spec,), (output,) = session.inputs, session.outputs
    sample = quantize(SAMPLES[:1], spec)
    names = [[one.name for one in specs] for specs in (made.inputs, made.outputs)]
    given, got = names[0].index("bands"), names[1].index(output.name)
    text = _MAIN.replace("STEPS_INPUT_", f"STEPS_INPUT_{given}_").replace("STEPS_OUTPUT_", f"STEPS_OUTPUT_{got}_")
    (tmp_path / "main.c").write_text(text)
    (tmp_path / "frames").write_bytes(sample.tobytes())
    sources = [str(tmp_path / "c" / name) for name in exported.files if name.startswith("src/") and name.endswith(".c")]
    assert spec.quantization is not None
    said = [f"-DFRAMES={FRAMES}", f"-DOUTPUT={got}", f"-DZERO={spec.quantization.zero_points[0]}"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{tmp_path / 'c' / 'include'}"]
    program = str(tmp_path / "program")
    subprocess.run([gcc, *flags, *said, str(tmp_path / "main.c"), *sources, "-lm", "-o", program], check=True)
    with (tmp_path / "frames").open("rb") as frames:
        found = subprocess.run([program], stdin=frames, stdout=subprocess.PIPE, check=True).stdout
    wanted = session.run({"bands": sample})[output.name]
    # XNNPACK rounds once where TFLM rounds twice; the states carry that on.
    assert np.abs(np.frombuffer(found, np.int8).astype(int) - wanted.ravel()).max() <= 3
    assert exported.facts["self_test"]
    assert "steps_stream_step(frames, STEPS_STREAM_FRAMES);" in (tmp_path / "c" / "README.md").read_text()
