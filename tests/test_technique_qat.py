"""The technique: it trains from calibrated ranges, keeps what earlier steps gave, and measures it in the file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import accuracy, facts_of

from edgeopt import comparison, data, formats, frameworks, graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.evaluation import evaluate
from edgeopt.fake_quantization import layers, save_fake_quantized
from edgeopt.loading import load_model
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.schemes import SCHEMES, scheme
from edgeopt.steps import Training
from edgeopt.techniques import qat
from edgeopt.techniques.contract import Carried
from edgeopt.tflite import stored_weights
from edgeopt.tflite.reader import read
from edgeopt.training import averages
from edgeopt.vocabulary import Promise, Property, StepRecord

tf_keras = frameworks.load("tf_keras")
L = tf_keras.layers
STEP = qat.QAT(epochs=1, learning_rate=1e-4)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def model(digits: data.Dataset) -> Any:
    tf_keras.utils.set_random_seed(1)
    image = tf_keras.Input((8, 8, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(12, 3, use_bias=False, name="conv")(image)))
    x = L.Conv2D(16, 1, activation="relu", name="pointwise")(x)
    net = tf_keras.Model(image, L.Dense(10, activation="softmax", name="head")(L.Flatten()(x)))
    batch = digits.training.arrays()
    net.compile(tf_keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    net.fit(batch.inputs["x"], batch.labels, batch_size=32, epochs=2, verbose=0)
    return net


def _file(quantized: Any, digits: data.Dataset, folder: Path, name: str = "int8") -> Path:
    save_fake_quantized(quantized, folder / "model")
    converter = Converter(load_model(folder / "model"), ConvertOptions(calibration=digits.calibration))
    (folder / f"{name}.tflite").write_bytes(converter.to_bytes(scheme(name)))
    return folder / f"{name}.tflite"


def test_the_file_scores_what_the_trained_model_scores(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    before = [w.copy() for w in model.get_weights()]
    quantized, record = qat.apply(STEP, model, digits, Carried(tmp_path))
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert record.technique == "qat"
    assert len(record.history) == 1
    file = _file(quantized, digits, tmp_path)
    values = [accuracy(one, digits.validation) for one in (model, quantized)]
    values.append(evaluate(file, digits.validation).metric.value)
    # Digits are easy, the file may differ from its simulation in two of 359 samples.
    assert min(values) > 0.85
    assert values[1] >= values[0] - 0.02
    assert abs(values[2] - values[1]) <= 2 / 359
    (promise,) = qat.check(STEP, record, formats.facts(file))
    assert promise.kept


@pytest.fixture(scope="module")
def narrow(
    model: Any, digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[Any, StepRecord, Path]]:
    """By bits: the model trained for so many in its middle layer, the record, and its file."""

    @functools.cache
    def made(bits: int) -> tuple[Any, StepRecord, Path]:
        folder = tmp_path_factory.mktemp(f"int{bits}")
        step = qat.QAT(epochs=1, learning_rate=1e-3, weight_bits=bits)
        quantized, record = qat.apply(step, model, digits, Carried(folder, keep_8bit=("conv", "head")))
        return quantized, record, _file(quantized, digits, folder, f"int{bits}")

    return made


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_file_has_the_integers_that_were_trained(bits: int, narrow: Any, digits: data.Dataset) -> None:
    quantized, record, file = narrow(bits)
    ((_, kernel, rounded),) = layers.rounded_weights(quantized.get_layer(f"pointwise_int{bits}"))
    trained = rounded().numpy()
    scales = np.exp(quantized.get_layer(f"pointwise_int{bits}")._weight_vars[0][2]["scales"].numpy())
    most = 2 ** (bits - 1) - 1
    expected = np.clip(np.rint(kernel.numpy() / scales), -most, most)
    model = read(file)
    (stored,) = (layer for layer in stored_weights.layers(model) if layer.weight.dtype != "int8")
    assert stored.weight.dtype == "int4"  # no convolution takes two bits
    weights = stored_weights.stored_weights(model, stored)
    assert weights is not None
    np.testing.assert_allclose(weights.dequantized, np.moveaxis(trained, -1, 0), rtol=1e-5, atol=1e-7)
    # A channel that uses few of its integers may have a scale that is a multiple of the trained one.
    steps = np.rint(weights.scales / scales).astype(int)
    np.testing.assert_array_equal(weights.values * steps.reshape(-1, 1, 1, 1), np.moveaxis(expected, -1, 0))
    assert np.abs(weights.values).max() <= most
    score = evaluate(file, digits.validation).metric.value
    assert abs(score - accuracy(quantized, digits.validation)) <= 3 / 359
    integers, few = qat.check(STEP, record, formats.facts(file))
    assert (integers.kept, few.kept) == (True, True)
    assert few.kind == "weights below eight bits"
    assert (few.measured, few.of) == (12 * 16, 9 * 12 + 12 * 16 + 36 * 16 * 10)


def test_the_file_decides_as_the_trained_model_does(narrow: Any, digits: data.Dataset, tmp_path: Path) -> None:
    _, _, file = narrow(4)
    Converter(load_model(file.parent / "model"), ConvertOptions()).simulate(tmp_path / "trained.tflite")
    found = comparison.compare(tmp_path / "trained.tflite", file, digits.validation, isolate=False)
    assert found.agreement is not None
    assert found.agreement.value >= 0.99


def test_averages_of_normalizations_are_taken_anew_where_that_is_nearer(
    model: Any, narrow: Any, digits: data.Dataset
) -> None:
    assert sum("averages of normalizations" in note for note in narrow(2)[1].notes) == 1
    quantized, _, _ = narrow(4)
    (layer,) = averages.normalizations(quantized)
    others = {id(v): v.numpy() for v in quantized.variables if v is not layer.moving_mean}
    kept = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    momentum = layer.momentum
    x = digits.training.take(96).arrays().inputs["x"]
    seen = tf_keras.Model(quantized.inputs, layer.input)(x).numpy()
    averages.average_anew(quantized, [[x[:48]], [x[48:]]])
    halves = [seen[:48], seen[48:]]
    np.testing.assert_allclose(layer.moving_mean, np.mean([h.mean((0, 1, 2)) for h in halves], 0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, np.mean([h.var((0, 1, 2)) for h in halves], 0), rtol=1e-2)
    for variable in quantized.variables:
        if variable is not layer.moving_mean and variable is not layer.moving_variance:
            np.testing.assert_array_equal(variable, others[id(variable)])
    assert layer.momentum == momentum
    layer.moving_mean.assign(kept[0])
    layer.moving_variance.assign(kept[1])

    # Those of other samples than the model is for are worse: dropped, and that is said.
    noise = data.load(calibration=np.random.default_rng(0).normal(0, 9, (64, 8, 8, 1)).astype("float32"))
    (said,) = qat._averaged(quantized, model, replace(digits, training=noise.calibration), 0)
    assert said.startswith("averages of normalizations are those of training; taken anew: ")
    np.testing.assert_array_equal(layer.moving_mean, kept[0])
    np.testing.assert_array_equal(layer.moving_variance, kept[1])


def test_a_file_without_few_bits_breaks_the_promise(narrow: Any, digits: data.Dataset, tmp_path: Path) -> None:
    quantized, record, _ = narrow(4)
    _, few = qat.check(STEP, record, formats.facts(_file(quantized, digits, tmp_path, "int8")))
    assert (few.measured, few.kept) == (0, False)


def test_other_integers_than_those_trained_are_refused(narrow: Any, digits: data.Dataset) -> None:
    converter = Converter(load_model(narrow(4)[2].parent / "model"), ConvertOptions(calibration=digits.calibration))
    with pytest.raises(ConversionError, match=r"weights that int2 makes smaller, got only some .*\(trained so\)"):
        converter.to_bytes("int2")


def test_single_layers_have_bits_of_their_own(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    step = qat.QAT(epochs=1, weight_bits=4, layer_bits={"head": 3, "Conv2D": 8})
    quantized, record = qat.apply(step, model, digits, Carried(tmp_path, keep_8bit=("none",)))
    assert {"conv_int8", "pointwise_int8", "head_linear_int3"} <= {layer.name for layer in quantized.layers}
    # By themselves the first and the last layer stay, and what is between has too few weights.
    quantized, record = qat.apply(qat.QAT(epochs=1, weight_bits=4), model, digits, Carried(tmp_path / "auto"))
    assert {"conv_int8", "pointwise_int8", "head_linear_int8"} <= {layer.name for layer in quantized.layers}
    assert len(record.promises) == 1


def test_bits_that_no_file_stores_are_refused(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected 8, 4, 3, 2 bits as \S*weight_bits\S*, got 6: no file stores"):
        qat.QAT(weight_bits=6)
    with pytest.raises(ConfigError, match=r"Expected 8, 4, 3, 2 bits as \S*layer_bits\S*, got 5"):
        qat.QAT(layer_bits={"head": 5})
    step = qat.QAT(weight_bits=4, epochs=1)
    with pytest.raises(ConfigError, match=r"'pointwize', which no layer of the model has.*pointwise"):
        qat.apply(step, model, digits, Carried(tmp_path, keep_8bit=("pointwize",)))


def test_few_bits_train_at_a_larger_rate_where_nobody_says_one() -> None:
    narrow = qat.QAT(weight_bits=4)
    assert (qat.QAT().training().learning_rate, narrow.training().learning_rate) == (1e-4, 1e-3)
    assert narrow.training(Training(learning_rate=0.5)).learning_rate == 0.5
    assert qat.QAT(weight_bits=4, learning_rate=0.1).training().learning_rate == 0.1


def test_a_scheme_fits_that_holds_the_bits() -> None:
    fit = {bits: [n for n, row in SCHEMES.items() if qat.fits(qat.QAT(weight_bits=bits), row)] for bits in (8, 4, 3, 2)}
    assert fit == {
        8: ["int8", "int8-float-io"],
        4: ["int4"],
        3: ["int4", "int3"],
        2: ["int4", "int3", "int2"],
    }


def _coarse(model: Any) -> Any:
    """The model with half of its weights zero and few values in the rest."""
    coarse = graph.flatten(model)
    for layer in coarse.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            step = np.quantile(np.abs(kernel), 0.5) * 2
            layer.kernel.assign(np.clip(np.round(kernel / step), -4, 4) * step)
    return coarse


@pytest.mark.parametrize(
    ("properties", "bits"),
    [
        ({Property.SPARSE}, 8),
        ({Property.CLUSTERED}, 8),
        ({Property.SPARSE, Property.CLUSTERED}, 8),
        ({Property.SPARSE, Property.CLUSTERED}, 4),
    ],
)
def test_zeros_and_clusters_are_kept_in_the_file(
    properties: set[Property], bits: int, model: Any, digits: data.Dataset, tmp_path: Path
) -> None:
    carried = Carried(tmp_path, frozenset(properties), original=model, keep_8bit=("none",))
    step = qat.QAT(epochs=1, learning_rate=1e-4, weight_bits=bits)
    quantized, record = qat.apply(step, _coarse(model), digits, carried)
    measured = qat.check(step, record, formats.facts(_file(quantized, digits, tmp_path, f"int{bits}")))
    # One for integers, one for few bits, and one for each property of three kernels.
    assert len(measured) == 1 + (bits < 8) + 3 * len(properties)
    assert all(promise.kept for promise in measured), measured


def test_an_unknown_layer_is_refused_with_a_suggestion(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'pointwize', which no layer of the model has.*pointwise"):
        qat.apply(qat.QAT(spare=("pointwize",)), model, digits, Carried(tmp_path))


def test_a_broken_promise_is_seen(model: Any, digits: data.Dataset, tmp_path: Path) -> None:
    converter = Converter(_loaded(model, tmp_path), ConvertOptions(calibration=digits.calibration))
    file = facts_of(converter.to_bytes(scheme("int8")))
    record = StepRecord(
        "qat",
        promises=(
            Promise("kinds of operators that compute in floats", limit=0),
            Promise("zeros", "head/kernel", limit=5700, bound="least", of=5760),
            Promise("distinct weights in a channel", "head/kernel", limit=2, of=5760),
        ),
    )
    assert [promise.kept for promise in qat.check(STEP, record, file)] == [True, False, False]
    in_float = qat.check(STEP, record, facts_of(converter.to_bytes(scheme("float32"))))
    assert in_float[0].kept is None
    assert in_float[0].note == "a float file"


def _loaded(model: Any, folder: Path) -> Any:
    model.save(folder / "plain.h5")
    return load_model(folder / "plain.h5")


def test_the_prediction_promises_no_more_than_int8() -> None:
    from collections import Counter

    weights = (WeightFacts("dense", 100, 100, 100, 10),)
    told = qat.predict(STEP, ModelFacts("", "", 400, 110, 2, 0.0, weights, Counter({"Dense": 1, "LSTM": 1})))
    assert told.gain.startswith("size and speed of int8, with less loss of accuracy")
    assert "LSTM (1 layer)" in told.reason
    told = qat.predict(qat.QAT(weight_bits=4), ModelFacts("", "", 400, 110, 2, 0.0, weights, Counter({"Dense": 1})))
    assert told.gain.startswith("at best 100% of the weights in 4 bits")
