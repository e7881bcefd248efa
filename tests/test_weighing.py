"""Weights of samples and of classes: read with the data, and heeded in training."""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils import class_weight

from edgeopt import data
from edgeopt.data import Dataset
from edgeopt.data import dataset as dataset_module
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.steps import DEFAULTS
from edgeopt.training import fit
from edgeopt.training import stream as streams
from edgeopt.training.weighing import class_weights

N = 64
X = np.random.default_rng(0).random((N, 6), np.float32)
Y = (np.arange(N) % 4 == 0).astype(np.int64)
W = np.where(Y == 1, 0.0, 1.0).astype(np.float32)
QUICK = replace(DEFAULTS, epochs=30, batch_size=16, learning_rate=0.05, teacher="none")


def dense(units: int = 2, activation: str | None = "softmax", places: tuple[int, ...] = ()) -> Any:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*places, 6))
    return keras.Model(inputs, keras.layers.Dense(units, activation)(inputs))


def given(**more: Any) -> Dataset:
    return data.load({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, **more})


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_weights_come_with_their_samples(compressed: bool, tmp_path: Path) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "d.npz", x_train=X, y_train=Y, w_train=np.arange(N), x_test=X, y_test=Y)
    part = data.load(tmp_path / "d.npz").training
    assert part.has_weights
    got = part.subset(np.array([5, 3])).arrays()
    assert got.weights is not None
    assert got.weights.tolist() == [5, 3]
    shuffled = next(part.batches(8, shuffle=True))
    assert shuffled.weights is not None
    np.testing.assert_array_equal(shuffled.inputs["x"], X[shuffled.weights.astype(int)])
    assert part.digest() != data.load({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}).training.digest()
    assert not data.load(tmp_path / "d.npz").validation.has_weights


def test_a_tf_data_dataset_may_give_weights(tmp_path: Path) -> None:
    np.savez(tmp_path / "given.npz", x=X, y=Y, w=np.arange(N))
    code = f"""
        import numpy as np
        import tensorflow as tf
        given = np.load({str(tmp_path / "given.npz")!r})
        def samples():
            return tf.data.Dataset.from_tensor_slices((given["x"], given["y"], given["w"])).batch(10)
        def short():
            yield given["x"], given["y"], given["w"][:3]
    """
    (tmp_path / "weighted_data.py").write_text(textwrap.dedent(code))
    sys.path.append(str(tmp_path))
    got = data.load("weighted_data:samples", validation_share=1.0).validation.arrays()
    assert got.weights is not None
    assert got.weights.tolist() == list(range(N))
    with pytest.raises(DataError, match=rf"a weight for each of {N} samples from weighted_data:short, got shape"):
        data.load("weighted_data:short")


@pytest.mark.parametrize("held", [True, False])
def test_samples_of_no_weight_teach_nothing(held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr(streams, "HOLD_BYTES", 0)
        monkeypatch.setattr(dataset_module, "HOLD_BYTES", 0)
    weighted, plain = dense(), dense()
    fit(weighted, given(w_train=W), QUICK, folder=tmp_path / "a")
    fit(plain, given(), QUICK, folder=tmp_path / "b")
    assert weighted.predict(X, verbose=0).argmax(axis=1).tolist() == [0] * N
    assert plain.predict(X, verbose=0)[:, 1].mean() == pytest.approx(Y.mean(), abs=0.1)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.where(Y == 1, -1.0, 1.0), "Expected weights of samples from 0, got -1. Try 0 for samples that are not to"),
        (np.full(N, np.nan), "Expected weights of samples from 0, got nan"),
        (
            np.ones((N, 2)),
            "Expected a number for each sample as w_train in the given arrays, got float64 of shape",
        ),
        (np.ones(3), "got different lengths: x_train has 64, y_train has 64, w_train has 3"),
    ],
)
def test_weights_that_are_none(weights: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        given(w_train=weights).training.arrays()


def test_a_lone_array_is_samples_whatever_its_name() -> None:
    assert data.load({"w": X}, validation_share=1.0).validation.arrays().inputs["x"].shape == X.shape
    loaded = data.load((X, Y, W), validation_share=1.0).validation.arrays()
    np.testing.assert_array_equal(loaded.weights, W)


# --- classes ---------------------------------------------------------------------------------------------------------


def test_balanced_is_scikit_learns() -> None:
    expected = class_weight.compute_class_weight("balanced", classes=np.arange(2), y=Y)
    assert class_weights("balanced", np.bincount(Y)) == pytest.approx(expected)
    assert class_weights("balanced", np.array([4, 0, 12])).tolist() == [pytest.approx(2), 1, pytest.approx(2 / 3)]
    assert class_weights("dog=3,0=2", np.ones(3), ("cat", "dog", "cow")).tolist() == [2, 3, 1]


def test_weights_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    file.write_text('{"dog": 3, "0": 2}')
    assert class_weights(str(file), np.ones(3), ("cat", "dog", "cow")).tolist() == [2, 3, 1]
    for content in ("[1, 2]", "{", "[" * 100_000):
        file.write_text(content)
        with pytest.raises(ConfigError, match=r"Expected a JSON object of weights by class in .*weights.json"):
            class_weights(str(file), np.ones(3))
    with pytest.raises(ConfigError, match=r"missing.json, got none \(.*No such file"):
        class_weights(str(tmp_path / "missing.json"), np.ones(3))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("even", "Expected balanced, or weights from 0 by class, as --class-weight, got 'even'"),
        ("cat=-1", "Expected balanced, or weights from 0 by class, as --class-weight, got 'cat=-1'"),
        ("cat=x", "as --class-weight, got 'cat=x'"),
        ("cta=2", "Expected a class in --class-weight, got 'cta'. Did you mean 'cat'?"),
        ("cat=0,dog=0", "Expected a class that counts in --class-weight, got 0 for all"),
    ],
)
def test_weights_of_no_class(said: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        class_weights(said, np.ones(2), ("cat", "dog"))


@pytest.mark.parametrize("units", [1, 2])
def test_balanced_classes_count_the_same(units: int, tmp_path: Path) -> None:
    model = dense(units, "sigmoid" if units == 1 else "softmax")
    done = fit(model, given(), replace(QUICK, class_weight="balanced"), folder=tmp_path)
    assert model.predict(X, verbose=0)[:, -1].mean() == pytest.approx(0.5, abs=0.1)  # a quarter of labels
    assert any("classes weighed 0.667, 2" in note for note in done.notes)


def test_classes_of_positions_are_weighed(tmp_path: Path) -> None:
    x = np.repeat(X[:, None], 3, axis=1)
    labels = np.repeat(Y[:, None], 3, axis=1)
    labels[:, 2] = -1  # nobody's
    dataset = data.load({"x_train": x, "y_train": labels, "x_test": x, "y_test": labels})
    model = dense(2, "softmax", (3,))
    fit(model, dataset, replace(QUICK, class_weight="1=0"), folder=tmp_path)
    assert set(model.predict(x, verbose=0).argmax(axis=-1).ravel()) == {0}


def test_numbers_have_no_classes_to_weigh(tmp_path: Path) -> None:
    dataset = data.load({"x_train": X, "y_train": X[:, :2], "x_test": X, "y_test": X[:, :2]})
    with pytest.raises(DataError, match="Expected one class for each sample or position to weigh, got regression"):
        fit(dense(2, None), dataset, replace(QUICK, class_weight="balanced"), folder=tmp_path)
