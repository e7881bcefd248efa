"""Fake quantization: whatever layers a model has, it trains, converts to int8 throughout and agrees with its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import comparison, data, frameworks, graph, parity, runtimes
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.errors import ConfigError
from edgeopt.fake_quantization import channels_of, is_fake_quantized, prepare, save_fake_quantized
from edgeopt.loading import load_model
from edgeopt.runtimes import RUNTIMES, open_session
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.schemes import scheme
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Property

tf = frameworks.load("tensorflow")
keras = frameworks.load("tf_keras")
L = keras.layers

PICTURE, SERIES, WORDS = (8, 8, 3), (12, 4), (6,)


def _picture(body: Callable[[Any], Any], shape: tuple[int, ...] = PICTURE) -> Any:
    image = keras.Input(shape, name="image")
    return keras.Model(image, L.Dense(4, activation="softmax", name="head")(L.Flatten()(body(image))))


def _excited(x: Any) -> Any:
    x = L.Conv2D(8, 3, activation="relu")(x)
    gate = L.Dense(8, activation="sigmoid")(L.GlobalAveragePooling2D()(x))
    return L.Multiply()([x, L.Reshape((1, 1, 8))(gate)])


def _attended(x: Any) -> Any:
    x = L.Dense(8)(L.LayerNormalization()(x))
    return L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])


def _preactivated(x: Any) -> Any:
    return L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization(name="first")(x)))


def _shared() -> Any:
    left, right = keras.Input(PICTURE, name="left"), keras.Input(PICTURE, name="right")
    conv = L.Conv2D(4, 3, activation="relu", name="conv")
    both = L.Concatenate()([conv(left), conv(right)])
    return keras.Model([left, right], L.Dense(4, activation="softmax")(L.Flatten()(both)))


def _words() -> Any:
    tokens = keras.Input(WORDS, dtype="int32", name="tokens")
    x = L.GlobalAveragePooling1D()(L.Embedding(20, 8)(tokens))
    return keras.Model(tokens, L.Dense(4, activation="softmax")(x))


def _transposed(x: Any) -> Any:
    return L.BatchNormalization()(L.Conv2DTranspose(4, 3, strides=2, padding="same")(x))


MODELS: dict[str, Callable[[], Any]] = {
    "conv1d": lambda: _picture(lambda x: L.ReLU()(L.BatchNormalization()(L.Conv1D(8, 3)(x))), SERIES),
    "separable": lambda: _picture(lambda x: L.BatchNormalization()(L.SeparableConv2D(8, 3)(x))),
    "transposed": lambda: _picture(_transposed),
    "squeeze and excite": lambda: _picture(_excited),
    "rescaling": lambda: _picture(lambda x: L.Conv2D(8, 3)(L.Rescaling(2.0, offset=-1.0)(x))),
    "normalization": lambda: _picture(
        lambda x: L.Conv2D(8, 3)(L.Normalization(mean=[0.5] * 3, variance=[0.1, 0.2, 0.3])(x))
    ),
    "attention": lambda: _picture(_attended, SERIES),
    "batchnorm first": lambda: _picture(_preactivated),
    "batchnorm of a series": lambda: _picture(lambda x: L.BatchNormalization()(x), SERIES),
    "prelu": lambda: _picture(lambda x: L.PReLU(shared_axes=[1, 2])(L.Conv2D(8, 3)(x))),
    "swish": lambda: _picture(lambda x: L.Conv2D(8, 3, activation="swish")(x)),
    "gelu": lambda: _picture(lambda x: L.Activation("gelu")(L.DepthwiseConv2D(3, depth_multiplier=2)(x))),
    "hard swish": lambda: _picture(lambda x: L.Multiply()([x, L.ReLU(6.0)(x + 3.0) / 6.0])),
    "pools": lambda: _picture(lambda x: L.AveragePooling2D()(L.MaxPooling2D()(L.ZeroPadding2D(4)(x)))),
    "lstm": lambda: _picture(lambda x: L.LSTM(8, unroll=True)(x), SERIES),
    "gru": lambda: _picture(lambda x: L.GRU(8)(x), SERIES),
    "both ways": lambda: _picture(lambda x: L.Bidirectional(L.SimpleRNN(4))(x), SERIES),
    "embedding": _words,
    "shared layer, two inputs": _shared,
}
# Of the largest output. Inside these the converter rounds what training did not see.
TOLERANCE = {"attention": 0.1, "lstm": 0.1}


@dataclass(frozen=True)
class Made:
    """A model on its way: float, fake-quantized after an epoch, its SavedModel, int8 file and simulation."""

    before: Any
    model: Any
    layers: dict[str, Any]
    file: Path
    simulation: Path
    part: data.Dataset


def _data(model: Any) -> data.Dataset:
    chaos = np.random.default_rng(0)
    inputs = {
        name: (
            chaos.integers(0, 20, (64, *t.shape[1:])).astype("int32")
            if t.dtype.is_integer
            else chaos.random((64, *t.shape[1:]), np.float32)
        )
        for name, t in graph.input_names(model)
    }
    return data.load((inputs, np.arange(64) % 4), calibration_samples=32, validation_share=0.5)


def _batches(part: data.Part) -> list[list[np.ndarray]]:
    return [[batch.inputs[spec.name] for spec in part.specs] for batch in part.batches(16)]


def _trained(model: Any, dataset: data.Dataset, steps: int = 4) -> None:
    batch = dataset.training.arrays()
    inputs = [batch.inputs[spec.name] for spec in dataset.training.specs]
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(inputs, batch.labels, batch_size=8, steps_per_epoch=steps, verbose=0)


def _made(name: str, folder: Path) -> Made:
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    dataset = _data(model)
    _trained(model, dataset)
    prepared = prepare(model, _batches(dataset.calibration))
    _trained(prepared.model, dataset)
    save_fake_quantized(prepared.model, folder / "model")
    converter = Converter(load_model(folder / "model"), ConvertOptions(calibration=dataset.calibration))
    (folder / "int8.tflite").write_bytes(converter.to_bytes(scheme("int8")))
    converter.simulate(folder / "simulation.tflite")
    return Made(
        model,
        prepared.model,
        {change.layer: change for change in prepared.layers},
        folder / "int8.tflite",
        folder / "simulation.tflite",
        dataset,
    )


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Made]:
    return request.param, _made(request.param, tmp_path_factory.mktemp("fake-quantized"))


def _outputs(file: Path, part: data.Part) -> np.ndarray:
    session = open_session(file, RUNTIMES["litert-builtin"])
    rows = []
    for batch in data.bind(part, session.inputs).batches(1):
        (value,) = session.run({s.name: quantize(batch.inputs[s.name], s) for s in session.inputs}).values()
        rows.append(dequantize(value, session.outputs[0])[0])
    session.close()
    return np.array(rows)


def _expected(model: Any, part: data.Part) -> np.ndarray:
    return np.concatenate([model.predict_on_batch(batch) for batch in _batches(part)])


def test_the_file_computes_what_the_model_simulates(made: tuple[str, Made]) -> None:
    name, it = made
    assert is_fake_quantized(it.model)
    assert not is_fake_quantized(it.before)
    part = it.part.validation
    expected = _expected(it.model, part)
    np.testing.assert_allclose(_outputs(it.simulation, part), expected, atol=2e-3)
    np.testing.assert_allclose(_outputs(it.file, part), expected, atol=TOLERANCE.get(name, 0.03))


def test_the_file_is_integer_throughout(made: tuple[str, Made]) -> None:
    name, it = made
    graph_of = read(it.file).main
    floats = {o.name for o in graph_of.operators if any(graph_of.tensors[i].is_float for i in o.outputs)}
    # TensorFlow's quantizer leaves the first SPLIT of an unrolled LSTM in float in one run of four, on the same bytes,
    # whether they were trained for int8 or not.
    assert floats <= ({"DEQUANTIZE", "SPLIT"} if name == "lstm" else set())


def test_every_layer_is_reported(made: tuple[str, Made]) -> None:
    _, it = made
    assert set(it.layers) == {call.layer.name for call in graph.own_calls(it.before)}
    assert all(bool(change.done) != bool(change.reason) for change in it.layers.values())


def test_the_models_cover_every_way_to_take_part(tmp_path: Path) -> None:
    # The reasons are a user's only explanation: each kind of layer has its own words.
    words = {
        "batchnorm first": ("first", "made a depthwise 1x1 convolution"),
        "lstm": ("lstm", "its steps have no int8 form"),
        "attention": ("layer_normalization", "trains no LayerNormalization in int8"),
        "conv1d": ("batch_normalization", "folded into conv1d"),
        "pools": ("max_pooling2d", "in its input's range"),
    }
    for name, (layer, expected) in words.items():
        model = MODELS[name]()
        dataset = _data(model)
        changes = prepare(model, _batches(dataset.calibration)).layers
        found = next(c for c in changes if c.layer.rstrip("_0123456789") == layer)
        assert expected in found.done + found.reason


def test_calibrated_ranges_start_where_the_float_model_is() -> None:
    model = MODELS["squeeze and excite"]()
    dataset = _data(model)
    _trained(model, dataset)
    prepared = prepare(model, _batches(dataset.calibration))
    part = dataset.validation
    np.testing.assert_allclose(_expected(prepared.model, part), _expected(model, part), atol=0.02)


def test_what_is_spared_stays_float_and_becomes_int8_after_training(tmp_path: Path) -> None:
    model = MODELS["swish"]()
    dataset = _data(model)
    prepared = prepare(model, _batches(dataset.calibration), spared={"head"})
    assert next(c for c in prepared.layers if c.layer == "head").reason == "spared: quantized after training"
    kernel = prepared.model.get_layer("head_linear").kernel
    assert isinstance(kernel, tf.Variable)
    np.testing.assert_array_equal(kernel, model.get_layer("head").kernel)
    save_fake_quantized(prepared.model, tmp_path / "model")
    converter = Converter(load_model(tmp_path / "model"), ConvertOptions(calibration=dataset.calibration))
    tensors = read(converter.to_bytes(scheme("int8"))).main.tensors
    assert not any(t.is_float for t in tensors)


def _padded(masking: str) -> tuple[Any, np.ndarray]:
    """A model whose mask comes with a tensor, and samples whose last steps it leaves out."""
    chaos = np.random.default_rng(0)
    if masking == "Masking":
        samples = chaos.normal(size=(16, 6, 4)).astype(np.float32)
        x = inputs = keras.Input((6, 4), name="x")
        x = L.Masking(0.0)(x)
    else:
        samples = chaos.integers(1, 20, (16, 6)).astype(np.int32)
        x = inputs = keras.Input((6,), dtype="int32", name="x")
        x = L.Embedding(20, 4, mask_zero=True)(x)
    samples[:, 3:] = 0
    x = L.Dense(8, activation="relu")(x)
    x = L.LSTM(5, unroll=True)(x) if masking == "Embedding, LSTM" else L.GlobalAveragePooling1D()(x)
    return graph.flatten(keras.Model(inputs, L.Dense(3, activation="softmax")(x))), samples


@pytest.mark.parametrize("masking", ["Masking", "Embedding", "Embedding, LSTM"])
def test_masks_pass_through_what_rounds(masking: str, tmp_path: Path) -> None:
    model, samples = _padded(masking)
    prepared = prepare(model, [[samples]]).model
    expected = model(samples).numpy()
    np.testing.assert_allclose(prepared(samples, training=False), expected, atol=0.01)
    prepared.compile("sgd", "sparse_categorical_crossentropy")
    prepared.fit(samples, np.arange(16) % 3, epochs=1, verbose=0)
    trained = prepared(samples, training=False).numpy()
    save_fake_quantized(prepared, tmp_path / "model")
    saved = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    (found,) = saved(tf.constant(samples)).values()
    np.testing.assert_allclose(found, trained, atol=1e-5)


def test_a_batchnorm_made_a_convolution_computes_the_same() -> None:
    model = MODELS["batchnorm first"]()
    generator = np.random.default_rng(2)
    norm = model.get_layer("first")
    norm.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()])
    dataset = _data(model)
    prepared = prepare(model, _batches(dataset.calibration), spared={layer.name for layer in model.layers} - {"first"})
    scale = prepared.model.get_layer("first_int8").layer
    x = generator.random((2, *PICTURE)).astype("float32")
    twin = L.DepthwiseConv2D(1)
    twin.build(x.shape)
    twin.set_weights([prepared.model.get_layer("first_int8")._weight_vars[0][0].numpy(), scale.bias.numpy()])
    np.testing.assert_allclose(twin(x), norm(x, training=False), atol=1e-5)


def _coarse(weights: np.ndarray) -> np.ndarray:
    """Returns weights with seven values at most, 0 among them."""
    step = np.abs(weights).max() / 3 or 1.0
    return np.round(weights / step) * step


@pytest.mark.parametrize("name", ["conv1d", "separable", "attention", "embedding", "transposed", "lstm"])
def test_zeros_and_equal_weights_stay(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    for layer in model.layers:
        layer.set_weights([_coarse(w) if w.ndim > 1 else w for w in layer.get_weights()])
    dataset = _data(model)
    before = [w.numpy() for w in model.weights if w.shape.rank > 1]
    keep = {Property.SPARSE, Property.CLUSTERED}
    prepared = prepare(model, _batches(dataset.calibration), keep=keep)
    _trained(prepared.model, dataset)
    after = [w.numpy() for w in prepared.model.weights if w.shape.rank > 1]
    assert [new.shape for new in after] == [old.shape for old in before]
    moved = 0
    for old, new in zip(before, after):
        assert not new[old == 0].any()
        for value in np.unique(old):
            assert np.ptp(new[old == value]) <= 1e-6
        moved += not np.array_equal(old, new)
    assert moved


def test_the_file_has_the_models_zeros_and_distinct_weights(tmp_path: Path) -> None:
    model = MODELS["separable"]()
    head = model.get_layer("head")
    kernel, bias = head.get_weights()
    kernel = np.round(kernel * 6) / 6
    head.set_weights([kernel, bias])
    distinct = max(len(np.unique(row)) for row in channels_of(head, "kernel"))
    dataset = _data(model)
    prepared = prepare(model, _batches(dataset.calibration), keep={Property.SPARSE, Property.CLUSTERED})
    _trained(prepared.model, dataset)
    save_fake_quantized(prepared.model, tmp_path / "model")
    converter = Converter(load_model(tmp_path / "model"), ConvertOptions(calibration=dataset.calibration))
    file = read(converter.to_bytes(scheme("int8")))
    (dense,) = (o for o in file.main.operators if o.name == "FULLY_CONNECTED")
    stored = file.stored_values(file.main.tensors[dense.inputs[1]]).reshape(kernel.T.shape)
    assert not stored[kernel.T == 0].any()
    assert max(len(np.unique(row)) for row in stored) <= distinct


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int16x8"])
def test_other_schemes_compute_with_the_rounded_weights(name: str, tmp_path: Path) -> None:
    it = _made("swish", tmp_path)
    converter = Converter(load_model(tmp_path / "model"), ConvertOptions(calibration=it.part.calibration))
    (tmp_path / "other.tflite").write_bytes(converter.to_bytes(scheme(name)))
    assert "FAKE_QUANT" not in {o.name for o in read(tmp_path / "other.tflite").main.operators}
    part = it.part.validation
    np.testing.assert_allclose(_outputs(tmp_path / "other.tflite", part), _expected(it.model, part), atol=0.03)


def test_trained_ranges_are_in_the_file(tmp_path: Path) -> None:
    it = _made("batchnorm first", tmp_path)
    wrapper = it.model.get_layer("image_range")
    low, high = (float(v) for v in wrapper._output_quantizer_vars.values())
    found = read(it.file).inputs[0].quantization
    assert found is not None
    np.testing.assert_allclose(found.scales[0], (high - low) / 255, rtol=1e-4)


def test_a_gap_is_traced_to_its_tensor(tmp_path: Path) -> None:
    it = _made("separable", tmp_path)
    errors = comparison.layer_errors_here(
        it.simulation, it.part.validation, RUNTIMES["litert-builtin"], b=it.file, samples=8
    )
    assert len(errors) >= 3
    # The same grids on both sides: what is left is a rare step of the last bit.
    assert all(error.sqnr_db > 35 for error in errors)


def test_a_model_that_rounds_nothing_has_no_simulation(tmp_path: Path) -> None:
    MODELS["swish"]().save(tmp_path / "plain.h5")
    converter = Converter(load_model(tmp_path / "plain.h5"), ConvertOptions())
    with pytest.raises(ConfigError, match=r"Expected a fake-quantized model.* Try edgeopt qat first"):
        converter.simulate(tmp_path / "simulation.tflite")


@pytest.mark.parametrize("runtime", ["tflite-runtime", "tflm"])
def test_the_file_runs_elsewhere(runtime: str, tmp_path: Path) -> None:
    found = runtimes.available(RUNTIMES[runtime])
    if not found.available:
        pytest.skip(found.reason)
    it = _made("batchnorm first", tmp_path)
    (ours,), (theirs,) = (
        parity.run_here(it.file, RUNTIMES[r], it.part.validation, count=8).values.values()
        for r in ("litert-builtin", runtime)
    )
    np.testing.assert_allclose(ours, theirs, atol=2 / 256)
