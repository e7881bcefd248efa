"""Conversion: every scheme from one lowering, equal to TFLiteConverter's own, with truthful versions and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scored_models

from edgeopt import data, frameworks, parity, runtimes, workers
from edgeopt.conversion import ConvertOptions, IsolatedConverter, convert_for, isolation
from edgeopt.conversion.converter import open_converter
from edgeopt.conversion.quantizers import tensorflow_graph
from edgeopt.data import Part
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.evaluation import evaluate
from edgeopt.runtimes import RUNTIMES, parse, refusals
from edgeopt.schemes import SCHEMES
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import normalized

# The digits net has Dense rows of 72 numbers, which no group divides.
MADE = [name for name in SCHEMES if "block" not in name]
# What is left of probabilities of 0 and 1 after so many bits.
TOLERANCES = {"float32": 1e-6, "int4": 0.5, "int4x16": 0.5, "int4-weights": 0.5}


@pytest.fixture(scope="module")
def keras_file() -> Path:
    return scored_models.models()["keras2"]


@pytest.fixture(scope="module")
def converted(keras_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits net in every scheme, from Keras."""
    return _every_scheme(keras_file, tmp_path_factory.mktemp("from_keras"))


@pytest.fixture(scope="module")
def requantized(converted: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """... and from its float `.tflite`."""
    return _every_scheme(converted["float32"], tmp_path_factory.mktemp("from_tflite"))


def _every_scheme(model: Path, folder: Path) -> dict[str, Path]:
    options = ConvertOptions(calibration=scored_models.digits().calibration)
    files = {name: folder / f"{name}.tflite" for name in MADE}
    with IsolatedConverter(model, options) as converter:
        for name, file in files.items():
            # All layers, for the net is a small one.
            converter.convert(replace(SCHEMES[name], keep_8bit=("none",)), file)
    return files


def _stored_weights(model: TFLiteModel) -> set[str]:
    """Dtypes of the constants with at least 1024 elements: what schemes speak of."""
    return {t.dtype for t in model.subgraphs[0].tensors if t.is_constant and t.elements >= 1024}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("source", ["converted", "requantized"])
def test_a_scheme_is_what_its_row_says(name: str, source: str, request: pytest.FixtureRequest) -> None:
    scheme, file = SCHEMES[name], request.getfixturevalue(source)[name]
    model = read(file)
    assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == [scheme.inputs] * 2
    # No convolution takes int2: its four values are stored in four bits.
    assert _stored_weights(model) - ({"int4"} if scheme.weights == "int2" else set()) == {scheme.weights}
    computed = {t.dtype for i in model.subgraphs[0].operators for t in [model.subgraphs[0].tensors[i.outputs[0]]]}
    if scheme.needs_calibration:
        assert scheme.activations in computed
        assert ("float32" in computed) == (scheme.inputs == "float32")  # nothing but the last DEQUANTIZE
    else:
        assert "float32" in computed
        assert "int8" not in computed


def test_one_scale_for_all_weights_of_a_layer(converted: dict[str, Path]) -> None:
    for name, per_channel in (("int8", True), ("int8-per-tensor", False)):
        main = read(converted[name]).main
        weights = [main.operand(o, 1) for o in main.operators if o.name in ("CONV_2D", "FULLY_CONNECTED")]
        assert {tensor is not None and tensor.is_per_channel for tensor in weights} == {per_channel}


@pytest.mark.parametrize("source", ["converted", "requantized"])
def test_signature_and_batch_are_kept(source: str, request: pytest.FixtureRequest) -> None:
    for file in request.getfixturevalue(source).values():
        model = read(file)
        assert model.inputs[0].shape[0] == 1
        assert [s.key for s in model.signatures] == ["serving_default"]


@pytest.mark.parametrize("name", [name for name in MADE if SCHEMES[name].weight_bits >= 4])
def test_every_file_computes_what_the_model_computes(
    name: str, converted: dict[str, Path], requantized: dict[str, Path]
) -> None:
    samples = scored_models.digits().validation.head(32)
    expected = _outputs(converted["float32"], samples)
    for files in (converted, requantized):
        np.testing.assert_allclose(_outputs(files[name], samples), expected, atol=TOLERANCES.get(name, 0.08))


def _outputs(file: Path, samples: Part) -> np.ndarray:
    (values,) = parity.run_here(file, RUNTIMES["litert-builtin"], samples, count=len(samples)).values.values()
    return np.concatenate(values)


def test_int8_is_the_converters_own(keras_file: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    by_hand = tmp_path / "by_hand.tflite"
    with workers.Worker() as worker:
        worker.call("test_conversion:convert_by_hand", keras_file, by_hand)
    ours, theirs = (_constants(read(normalized(f.read_bytes()))) for f in (converted["int8"], by_hand))
    assert ours == theirs
    samples = scored_models.digits().validation.head(64)
    assert np.array_equal(_outputs(converted["int8"], samples), _outputs(by_hand, samples))


def _constants(model: TFLiteModel) -> list[tuple[object, ...]]:
    """Shape, dtype, scales and bytes of each constant, whatever the converter calls it."""
    return sorted(
        (t.shape, t.dtype, t.quantization.scales if t.quantization else (), model.stored_values(t).tobytes())
        for t in model.subgraphs[0].tensors
        if t.is_constant
    )


def convert_by_hand(model_file: Path, output: Path) -> None:
    """Runs in a worker: the usual script."""
    tf, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
    part = scored_models.digits().calibration

    def representative_dataset() -> Iterator[list[np.ndarray]]:
        for batch in part.batches(1):
            yield [batch.inputs["x"]]

    converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(model_file))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    output.write_bytes(converter.convert())


def test_versions_are_truthful_from_a_tflite_too(converted: dict[str, Path], requantized: dict[str, Path]) -> None:
    for name in MADE:
        ours, theirs = ({(c.name, c.version) for c in read(files[name]).codes} for files in (converted, requantized))
        assert ours == theirs, name


def test_integers_need_samples(keras_file: Path, tmp_path: Path) -> None:
    with (
        IsolatedConverter(keras_file, ConvertOptions()) as converter,
        pytest.raises(ConfigError, match=r"int8 sets activation ranges from real samples, and got none\. Try --data"),
    ):
        converter.convert("int8", tmp_path / "m.tflite")
    assert not any(tmp_path.iterdir())


def test_a_free_batch(keras_file: Path, tmp_path: Path) -> None:
    with IsolatedConverter(keras_file, ConvertOptions(batch_size=None)) as converter:
        converter.convert("float32", tmp_path / "m.tflite")
    assert read(tmp_path / "m.tflite").inputs[0].shape[0] is None


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crafted")
    with workers.Worker() as worker:
        worker.call("test_conversion:craft", folder)
    return folder


def craft(folder: Path) -> None:
    """Runs in a worker: wide.h5 has a Dense of 64 x 32 weights; two.keras takes two inputs, one of whole numbers."""
    keras = frameworks.load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    wide = keras.Sequential([layers.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(4)])
    wide.save(folder / "wide.h5")

    keras3 = frameworks.load("keras")
    image, place = keras3.Input((8, 8, 1), name="image"), keras3.Input((2,), dtype="int32", name="place")
    x = keras3.layers.Flatten()(keras3.layers.Conv2D(4, 3, activation="relu")(image))
    y = keras3.layers.Flatten()(keras3.layers.Embedding(5, 3)(place))
    merged = keras3.layers.Concatenate()([x, y])
    keras3.Model({"place": place, "image": image}, keras3.layers.Dense(2, name="out")(merged)).save(
        folder / "two.keras"
    )


def test_a_promise_to_an_old_runtime_is_kept(crafted: Path, tmp_path: Path) -> None:
    promise = parse("tflite-runtime==2.14")
    file = tmp_path / "wide.tflite"
    with IsolatedConverter(crafted / "wide.h5", ConvertOptions()) as converter:
        converter.convert("dynamic", file)
        (reason,) = refusals(file, promise)
        assert reason.startswith("FULLY_CONNECTED version 12 needs TensorFlow Lite 2.17")
        notes = convert_for(converter, SCHEMES["dynamic"], file, promises=[promise])
    assert refusals(file, promise) == ()
    assert notes == (
        "Dense layers have one scale for all their weights, not one per channel, because of tflite-runtime 2.14",
    )
    if not runtimes.available(RUNTIMES["tflite-runtime"]).available:
        pytest.skip("tflite-runtime is not installed: the promise was checked by versions alone")
    (row,) = parity.check(file, [promise])
    assert row.loads
    assert row.matches_reference


def test_a_promise_from_a_tflite_is_kept(crafted: Path, tmp_path: Path) -> None:
    promise = parse("tflite-runtime==2.14")
    floating, file = tmp_path / "float.tflite", tmp_path / "wide.tflite"
    with IsolatedConverter(crafted / "wide.h5", ConvertOptions()) as converter:
        converter.convert("float32", floating)
    with IsolatedConverter(floating, ConvertOptions()) as converter:
        assert convert_for(converter, SCHEMES["dynamic"], file, promises=[promise])
    assert refusals(file, promise) == ()


def test_several_inputs_are_fed_by_name(crafted: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "x_train_image": generator.random((64, 8, 8, 1), np.float32),
        "x_train_place": generator.integers(0, 5, (64, 2)).astype(np.int32),
        "y_train": generator.integers(0, 2, 64),
    }
    dataset = data.load(arrays)
    with IsolatedConverter(crafted / "two.keras", ConvertOptions(calibration=dataset.calibration)) as converter:
        assert {spec.name for spec in converter.summary().inputs} == {"image", "place"}
        converter.convert("int8-float-io", tmp_path / "two.tflite")
        converter.convert("float32", tmp_path / "float.tflite")
    specs = {spec.name: spec.dtype for spec in read(tmp_path / "two.tflite").inputs}
    assert specs == {"image": "float32", "place": "int32"}
    ours, theirs = (
        parity.run_here(tmp_path / name, RUNTIMES["litert-builtin"], dataset.calibration, count=4).values
        for name in ("two.tflite", "float.tflite")
    )
    assert parity.relative_difference(ours, theirs) < 0.1


def test_a_score_survives_int8(converted: dict[str, Path]) -> None:
    part = scored_models.digits().validation
    floating, integer = (evaluate(converted[name], part, isolate=False) for name in ("float32", "int8"))
    assert integer.metric.value > floating.metric.value - 0.03


def test_a_worker_is_renewed_before_it_has_leaked_much(
    converted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "RENEW_AFTER", 2)
    with IsolatedConverter(converted["float32"], ConvertOptions()) as converter:
        pids = []
        for _ in range(3):
            converter.convert("float32", tmp_path / "m.tflite")
            pids.append(converter._worker.call("os:getpid"))
    assert pids[0] == pids[1] != pids[2]


def test_a_crash_while_loading_or_simulating_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(*_: object) -> None:
        raise workers.WorkerCrashed("abort", "")

    monkeypatch.setattr(workers.Worker, "create", crashes)
    with IsolatedConverter(tmp_path / "{}.keras", ConvertOptions()) as converter:
        with pytest.raises(ConversionError, match=r"Loading .*\{\}\.keras ended the process: abort\."):
            converter.summary()
        with pytest.raises(ConversionError, match=r"Writing what .* simulates ended the process: abort\."):
            converter.simulate(tmp_path / "simulation.tflite")


def test_the_schemes_of_one_graph_read_it_once(keras_file: Path) -> None:
    converter = open_converter(keras_file, ConvertOptions())
    before = tensorflow_graph._opened.cache_info().misses
    first, *_ = [converter.to_bytes(name) for name in ("float16", "dynamic", "float32", "float16")]
    assert tensorflow_graph._opened.cache_info().misses == before + 1
    # What one scheme says is not said of the next.
    assert converter.to_bytes("float16") == first
    assert _stored_weights(read(converter.to_bytes("float32"))) == {"float32"}
