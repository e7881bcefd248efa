"""Biases corrected by what batch normalizations know: right where it can be worked out, nearer where it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import loaded_of
from scipy.stats import norm

from bench.uneven import undo
from edgeopt import data, formats, graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Dataset
from edgeopt.errors import ModelError
from edgeopt.frameworks import load
from edgeopt.repairing import biases, closeness
from edgeopt.repairing.expectations import Expected, expectations, inputs_of
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, correct_bias

FEW = 8


def reached(body: Any, inputs: Any = ()) -> list[Expected]:
    """What reaches the layers of a network behind normalizations of 3 channels, told by name."""
    layers = load("tf_keras").layers
    given = layers.Input((4, 4, 3))
    norms = [layers.BatchNormalization(), layers.BatchNormalization()]
    tensors = [one(given) for one in norms]
    model = load("tf_keras").Model(given, body(layers, *tensors))
    norms[0].set_weights([GAMMA, BETA, np.zeros(3), np.ones(3)])
    norms[1].set_weights([np.full(3, 2.0), np.ones(3), np.zeros(3), np.ones(3)])
    return list(expectations(model, inputs))


GAMMA, BETA = np.array([1.0, -0.5, 2.0]), np.array([0.0, 1.0, -1.0])
# Nagel et al. (arXiv 1906.04721), equation 19, with nothing above.
RECTIFIED = np.abs(GAMMA) * norm.pdf(BETA / GAMMA) + BETA * norm.cdf(BETA / np.abs(GAMMA))


@pytest.mark.parametrize(
    ("body", "mean"),
    [
        (lambda layers, x, y: layers.Dense(2)(x), BETA),
        (lambda layers, x, y: layers.Conv2D(2, 3)(layers.ReLU()(x)), RECTIFIED),
        (lambda layers, x, y: layers.DepthwiseConv2D(3)(layers.Activation("relu")(x)), RECTIFIED),
        (lambda layers, x, y: layers.Conv2D(2, 1)(layers.Add()([x, y])), BETA + 1),
        (lambda layers, x, y: layers.Conv2D(2, 1)(layers.Concatenate()([x, y])), np.append(BETA, np.ones(3))),
        (lambda layers, x, y: layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.ReLU()(x))), RECTIFIED),
        (lambda layers, x, y: layers.Dense(2)(layers.Flatten()(x)), np.tile(BETA, 16)),
        (lambda layers, x, y: layers.Dense(2)(layers.MaxPooling2D()(x)), None),
        (lambda layers, x, y: layers.Dense(2)(layers.Softmax()(x)), None),
        (lambda layers, x, y: layers.Dense(2)(layers.Activation("softmax")(x)), None),
        (lambda layers, x, y: layers.Dense(2)(layers.Concatenate(axis=1)([x, y])), None),
    ],
)
def test_what_follows_a_normalization(body: Any, mean: np.ndarray | None) -> None:
    found = reached(body)
    if mean is None:
        assert found == []
    else:
        assert found[0].inputs == pytest.approx(mean, abs=0.01)


def test_a_layer_without_a_normalization_of_its_own_and_samples_before_the_first() -> None:
    found = reached(lambda layers, x, y: layers.Dense(2)(layers.Conv2D(5, 3, activation="relu6")(x)))
    kernel = found[0].kernel
    mean, deviation = (kernel * BETA).sum((1, 2, 3)), np.sqrt((kernel**2 * GAMMA**2).sum((1, 2, 3)))
    values = np.random.default_rng(0).normal(mean, deviation, (100_000, 5))
    assert found[1].inputs == pytest.approx(np.clip(values, 0, 6).mean(0), abs=0.02)

    layers = load("tf_keras").layers
    given = layers.Input((4, 4, 2))
    model = load("tf_keras").Model(given, layers.Conv2D(3, 1)(layers.Rescaling(2.0, 1.0)(given)))
    assert expectations(model) == ()
    (first,) = expectations(model, [np.full((2, 4, 4, 2), [0.5, 3.0], np.float32)])
    assert first.inputs == pytest.approx([2 * 0.5 + 1, 2 * 3.0 + 1])


def test_weights_are_told_up_to_a_factor_for_each_output() -> None:
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(4, 3, 3, 2)) for _ in range(2)]
    known = [Expected(kernel, 0, np.full(2, float(number))) for number, kernel in enumerate(kernels)]
    factors = np.array([1.0, -3.0, 0.1, 1e-4]).reshape(-1, 1, 1, 1)
    assert inputs_of(known, kernels[1] * factors) == pytest.approx([1, 1])
    assert inputs_of(known, rng.normal(size=(4, 3, 3, 2))) is None
    assert inputs_of(known, kernels[1][:3]) is None
    # One layer in two places gets two things.
    assert inputs_of([*known, replace(known[1], inputs=np.zeros(2))], kernels[1]) is None


def test_padding_counts_for_nothing(tmp_path: Path) -> None:
    """Of constant pictures, whose means are what reaches every weight but at the edges, all that is lost comes back."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    given = keras.layers.Input((5, 6, 2))
    x = keras.layers.Conv2D(8, 3, padding="same", strides=2, use_bias=False, name="a")(given)
    model = keras.Model(given, keras.layers.GlobalAveragePooling2D()(x))
    files = _files(model, data.load({"x_train": np.ones((20, 5, 6, 2), np.float32)}), "int4-weights", tmp_path)
    level = np.array([1.0, 0.25], np.float32)
    content, (correction,) = biases.corrected_by(*files, lambda weights: level.astype(np.float64))
    made = tmp_path / "made.tflite"
    made.write_bytes(content)
    x = np.broadcast_to(level, (4, 5, 6, 2)).astype(np.float32)
    part = data.bind(data.load({"x_train": x}).training, formats.facts(files[0]).inputs)
    change = closeness.compared(files[0], part, before=files[1], after=made)
    assert correction.off.any()
    assert change.after < change.before / 1000


@pytest.fixture(scope="module")
def few() -> Dataset:
    found = data.load("digits")
    return replace(found, calibration=found.calibration.head(FEW))


def test_next_to_no_samples_recover_most_of_what_many_do(depthwise: Any, few: Dataset, tmp_path: Path) -> None:
    model = graph.flatten(depthwise)
    undo(model, 30.0)
    model.save(tmp_path / "uneven.h5")
    float_file, quantized = _files(model, few, "int4", tmp_path)
    specs = formats.facts(float_file).inputs
    carried = Carried(tmp_path, converted=quantized, source=tmp_path / "uneven.h5")
    output, record = correct_bias.apply(
        correct_bias.CorrectBias(), float_file, SCHEMES["int4"], data.bind(few.calibration, specs), carried
    )
    assert "by the statistics of the model's batch normalizations" in record.notes
    assert record.promises[0].kept
    assert sum(bool(layer.done) for layer in record.layers) == len(record.layers), "the first by samples"
    many = data.bind(data.load("digits").training.head(200), specs)
    content, _ = biases.corrected(float_file, quantized, many, tmp_path)
    (tmp_path / "many.tflite").write_bytes(content)
    held = data.bind(few.validation, specs)
    ours = closeness.compared(float_file, held, before=quantized, after=output)
    theirs = closeness.compared(float_file, held, before=quantized, after=tmp_path / "many.tflite")
    assert ours.nearer
    assert ours.before - ours.after > 0.8 * (theirs.before - theirs.after)


def test_a_model_without_normalizations_is_refused(few: Dataset, tmp_path: Path) -> None:
    layers = load("tf_keras").layers
    given = layers.Input((8, 8, 1), name="image")
    model = load("tf_keras").Model(given, layers.Dense(10)(layers.Flatten()(layers.Conv2D(4, 3)(given))))
    model.save(tmp_path / "plain.h5")
    float_file, quantized = _files(model, few, "int8", tmp_path)
    carried = Carried(tmp_path, converted=quantized, source=tmp_path / "plain.h5")
    part = data.bind(few.calibration, formats.facts(float_file).inputs)
    step = correct_bias.CorrectBias(by="batchnorm")
    with pytest.raises(ModelError, match=r"Expected .* batch normalizations .*, got none\. Try .*by.*samples"):
        correct_bias.apply(step, float_file, SCHEMES["int8"], part, carried)


def _files(model: Any, dataset: Dataset, scheme: str, folder: Path) -> tuple[Path, Path]:
    """The model in float32, and in a scheme with no layer at 8 bits."""
    dataset = data.bind(dataset, graph.input_specs(model))
    converter = Converter(loaded_of(model), ConvertOptions(calibration=dataset.calibration))
    paths = folder / "float32.tflite", folder / f"{scheme}.tflite"
    for path, one in zip(paths, (SCHEMES["float32"], replace(SCHEMES[scheme], keep_8bit=()))):
        path.write_bytes(converter.to_bytes(one))
    return paths
