"""The training that all techniques share: what it learns from, how it stops, and that a killed one goes on."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import data, progress
from edgeopt.data import Dataset
from edgeopt.data.labels import class_numbers
from edgeopt.errors import ConfigError, DataError, EdgeoptError
from edgeopt.frameworks import load
from edgeopt.steps import DEFAULTS
from edgeopt.training import Hint, fit, probing, steps_per_epoch
from edgeopt.training import stream as streams
from edgeopt.training.augmentation import AUGMENTATIONS, augmented

QUICK = replace(DEFAULTS, epochs=2, batch_size=16, learning_rate=1e-2)


def vectors(samples: int = 96, *, seed: int = 0, **more: Any) -> Dataset:
    """Four classes of vectors of 6 numbers that can be told apart by their largest one."""
    rng = np.random.default_rng(seed)
    x = rng.random((samples, 6), np.float32)
    y = x[:, :4].argmax(1)
    x[np.arange(samples), y] += 1
    return data.load({"x_train": x, "y_train": y, "x_test": x[:8], "y_test": y[:8]}, **more)


def dense(units: int = 4, activation: str | None = "softmax", *, seed: int = 0, **more: Any) -> Any:
    """A model of two layers, the same one for the same seed."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, "relu", name="hidden", **more)(inputs)
    return keras.Model(inputs, keras.layers.Dense(units, activation, name="out")(hidden))


def flat(model: Any) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


# --- kinds of labels -------------------------------------------------------------------------------------------------


def values_of(x: np.ndarray) -> np.ndarray:
    return (x[:, :2] * [1.5, -0.5]).astype(np.float32)


def labelled(kind: str) -> Dataset:
    x = np.random.default_rng(1).random((96, 6), np.float32)
    if kind == "inputs":
        return data.load({"x_train": x, "x_test": x[:8]}, labels="inputs")
    labels = {"binary": (x[:, 0] > x[:, 1]).astype(np.int64), "values": values_of(x), "value": x[:, 0] * 1.5}[kind]
    return data.load({"x_train": x, "y_train": labels, "x_test": x[:8], "y_test": labels[:8]})


@pytest.mark.parametrize(
    ("dataset", "model"),
    [
        (vectors(), lambda: dense()),
        (vectors(), lambda: dense(activation=None)),
        (vectors(), lambda: dense(units=7)),
        (labelled("binary"), lambda: dense(1, "sigmoid")),
        (labelled("binary"), lambda: dense(1, None)),
        (labelled("binary"), lambda: dense(2, "softmax")),
        (labelled("values"), lambda: dense(2, None)),
        (labelled("value"), lambda: dense(1, None)),
        (labelled("inputs"), lambda: dense(6, None)),
    ],
    ids=["classes", "logits", "more-outputs", "binary", "binary-logits", "two-classes", "values", "value", "inputs"],
)
def test_every_kind_of_labels_is_learned(dataset: Dataset, model: Callable[[], Any], tmp_path: Path) -> None:
    done = fit(model(), dataset, replace(QUICK, epochs=20, learning_rate=3e-2), folder=tmp_path)
    losses = [row["loss"] for row in done.history]
    assert len(losses) == 20
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_that_of_logits_where_outputs_are_logits(tmp_path: Path) -> None:
    """Softmax and logits are two spellings of one model: the same steps follow."""
    losses = []
    for activation in ("softmax", None):
        model = dense(activation=activation)
        losses.append([row["loss"] for row in fit(model, vectors(), QUICK, folder=tmp_path / str(activation)).history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("dataset", "model", "match"),
    [
        (
            lambda: data.load({"x": np.ones((8, 6), np.float32)}),
            lambda: dense(),
            "Expected labels to train on, got samples without. Try data with y_train, or a teacher, and alpha: 1",
        ),
        (
            lambda: vectors(),
            lambda: dense(3),
            "Expected an output for each of 4 classes, got a model with 3. Try data with the model's own classes",
        ),
        (
            lambda: labelled("values"),
            lambda: dense(3, None),
            "Expected values of the shape of the model's output, 3, got 2. Try labels made for this model",
        ),
        (
            lambda: data.load({"x": np.ones((8, 6), np.float32), "y": np.arange(8) % 2}, validation_share=1),
            lambda: dense(2),
            "Expected training samples, got none. Try --train-data, or data with a train split",
        ),
    ],
    ids=["none", "classes", "values", "samples"],
)
def test_labels_that_do_not_fit_are_refused(
    dataset: Callable[[], Dataset], model: Callable[[], Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=match):
        fit(model(), dataset(), QUICK, folder=tmp_path)


def two_headed(*, backwards: bool = False) -> Any:
    """Two inputs of 3 and 2 numbers, two outputs."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(3)
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    x = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()([left, right]))
    outputs = [keras.layers.Dense(4, "softmax", name="kind")(x), keras.layers.Dense(2, name="place")(x)]
    return keras.Model([right, left] if backwards else [left, right], outputs)


def two_sided() -> Dataset:
    rng = np.random.default_rng(0)
    left, right = rng.random((64, 3), np.float32), rng.random((64, 2), np.float32)
    return data.load({"x_train_left": left, "x_train_right": right, "x_test_left": left, "x_test_right": right})


def test_several_inputs_and_outputs_are_learned_from_a_teacher_alone(tmp_path: Path) -> None:
    teacher, student = two_headed(backwards=True), two_headed()
    student.set_weights([0.1 * w for w in student.get_weights()])
    training = replace(QUICK, epochs=40, alpha=1.0)
    done = fit(student, two_sided(), training, teachers=[teacher], folder=tmp_path)
    assert done.history[-1]["loss"] < 0.1 * done.history[0]["loss"]

    one_of_two = {"x_left": np.ones((8, 3)), "x_right": np.ones((8, 2)), "y": np.arange(8) % 2}
    with pytest.raises(
        DataError,
        match=r"Expected labels for each of the outputs \S+, \S+, got one array for all.*--output-name .*alpha: 1",
    ):
        fit(two_headed(), data.load(one_of_two), QUICK, teachers=[teacher], folder=tmp_path / "labels")


# --- the stream ------------------------------------------------------------------------------------------------------


def rows(found: Any, count: int) -> np.ndarray:
    """Returns the first input of `count` batches, flat rows."""
    return np.concatenate([np.reshape(x, (len(x), -1)) for x, _ in found.take(count).as_numpy_iterator()])


@pytest.mark.parametrize("held", [True, False])
def test_an_epoch_has_each_sample_once_and_the_next_one_another_order(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = vectors(48).training
    if not held:
        monkeypatch.setattr(streams, "HOLD_BYTES", 0)
    two = rows(streams.stream(part, batch_size=16, seed=5), 6)
    everything = part.arrays().inputs["x"]
    for epoch in (two[:48], two[48:]):
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(everything, axis=0))
    assert not np.array_equal(two[:48], two[48:])
    np.testing.assert_array_equal(two, rows(streams.stream(part, batch_size=16, seed=5), 6))
    np.testing.assert_array_equal(two[48:], rows(streams.stream(part, batch_size=16, seed=5, first_epoch=1), 3))
    assert not np.array_equal(two, rows(streams.stream(part, batch_size=16, seed=6), 6))


@pytest.mark.parametrize("held", [True, False])
def test_labels_stay_with_their_samples(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr(streams, "HOLD_BYTES", 0)
    found = streams.stream(vectors(40).training, batch_size=8, targets=[streams.Target()])
    for x, (y,) in found.take(5).as_numpy_iterator():
        np.testing.assert_array_equal(y, x.argmax(1))


def test_a_part_that_is_too_large_is_never_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(streams, "HOLD_BYTES", 0)
    monkeypatch.setattr(type(vectors().training), "arrays", lambda _: pytest.fail("all samples were held at once"))
    done = fit(dense(), vectors(), replace(QUICK, epochs=10), teachers=[dense(seed=4)], folder=tmp_path)
    assert done.history[-1]["loss"] < done.history[0]["loss"]


def test_fewer_samples_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    assert steps_per_epoch(5, 64) == 1
    assert steps_per_epoch(130, 64) == 130 // 64
    done = fit(dense(), vectors(5), replace(QUICK, epochs=3, batch_size=64), folder=tmp_path)
    assert len(done.history) == 3


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"none"}))
def test_augmentation_repeats_with_its_seed_and_keeps_the_shape(name: str) -> None:
    x = np.random.default_rng(0).random((6, 16, 12, 1), np.float32)
    once, again, other = (augmented(name, x, np.asarray(seed, np.int64)).numpy() for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(once, again)
    assert once.shape == x.shape
    assert not np.array_equal(once, other)


def test_vectors_cannot_be_augmented(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Expected images or spectrograms to augment, got samples \(6,\). Try augment"
    ):
        fit(dense(), vectors(), replace(QUICK, augment="image"), folder=tmp_path)


def test_what_is_reconstructed_is_augmented_as_the_input_is() -> None:
    x = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
    part = data.load({"x_train": x, "x_test": x}, labels="inputs").training
    found = streams.stream(part, batch_size=8, augment="image", targets=[streams.Target(given_back=0)])
    for inputs, (targets,) in found.take(2).as_numpy_iterator():
        np.testing.assert_array_equal(inputs, targets)
        assert not any(np.array_equal(sample, original) for sample in inputs[:1] for original in x)


# --- optimizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_the_rate_rises_to_its_peak_and_falls_as_said(decay: str) -> None:
    from edgeopt.training.optimizers import WarmupDecay

    steps, warmup = 100, 10
    schedule = WarmupDecay(2e-3, warmup, steps, decay)
    rates = np.array([float(schedule(step)) for step in range(steps + 1)])
    np.testing.assert_allclose(rates[:warmup], [2e-3 * (step + 1) / (warmup + 1) for step in range(warmup)], rtol=1e-5)
    done = np.arange(steps - warmup + 1) / (steps - warmup)
    expected = {"cosine": (1 + np.cos(np.pi * done)) / 2, "linear": 1 - done, "constant": np.ones_like(done)}[decay]
    np.testing.assert_allclose(rates[warmup:], 2e-3 * expected, atol=1e-9, rtol=1e-4)
    assert WarmupDecay.from_config(schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_learns(optimizer: str, tmp_path: Path) -> None:
    training = replace(QUICK, epochs=20, optimizer=optimizer, learning_rate=5e-2)
    done = fit(dense(), vectors(), training, folder=tmp_path)
    assert done.history[-1]["loss"] < 0.7 * done.history[0]["loss"]
    assert done.history[-1]["learning_rate"] < done.history[0]["learning_rate"]


def test_weight_decay_shrinks_kernels_and_nothing_else() -> None:
    from edgeopt.training.optimizers import optimizer_for, schedule_for

    tf = load("tensorflow")
    kernel, bias = tf.Variable(np.ones((2, 2), np.float32)), tf.Variable(np.ones(2, np.float32))
    training = replace(DEFAULTS, optimizer="adamw", weight_decay=0.5, learning_rate=0.1, decay="constant", warmup=0.0)
    optimizer = optimizer_for(training, schedule_for(training, 0.1, 10), [kernel, bias])
    optimizer.apply_gradients([(0 * kernel, kernel), (0 * bias, bias)])
    np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(bias, np.ones(2))


def test_weight_decay_of_an_optimizer_that_has_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected optimizer adamw with weight_decay 0.1, got sgd. Try optimizer"):
        fit(dense(), vectors(), replace(QUICK, optimizer="sgd", weight_decay=0.1), folder=tmp_path)


def test_the_model_s_own_penalties_count_with_a_teacher_and_without(tmp_path: Path) -> None:
    keras = load("tf_keras")
    for name, teachers in (("alone", []), ("taught", [dense(seed=4)])):
        losses = []
        for penalty in (None, keras.regularizers.L2(0.5)):
            model = dense(kernel_regularizer=penalty)
            at_first = float(np.square(model.get_weights()[0]).sum())
            training = replace(QUICK, epochs=1, batch_size=96, learning_rate=1e-6)
            done = fit(model, vectors(), training, teachers=teachers, folder=tmp_path / f"{name}-{penalty is None}")
            losses.append(done.history[0]["loss"])
        assert losses[1] - losses[0] == pytest.approx(0.5 * at_first, rel=1e-3)


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_neighbouring_seeds_share_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    part = vectors().training

    def epochs(seed: int, count: int) -> list[bytes]:
        drawn = streams.stream(part, batch_size=len(part), seed=seed).take(count)
        return [np.asarray(inputs).tobytes() for inputs, _ in drawn]

    for hold in (streams.HOLD_BYTES, 0):  # held, and read anew each epoch
        monkeypatch.setattr(streams, "HOLD_BYTES", hold)
        several = [order for seed in (0, 1, 2) for order in epochs(seed, 3)]
        assert len(set(several)) == 9


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    def trained(seed: int, folder: str) -> np.ndarray:
        model = dense()
        fit(model, vectors(), QUICK, folder=tmp_path / folder, seed=seed)
        return flat(model)

    first = trained(1, "a")
    np.testing.assert_array_equal(first, trained(1, "b"))
    assert not np.array_equal(first, trained(2, "c"))


# --- stopping --------------------------------------------------------------------------------------------------------


class Poison:
    """Makes the weights NaN before an epoch."""

    def __new__(cls, epoch: int) -> Any:
        class Callback(load("tf_keras").callbacks.Callback):
            def on_epoch_begin(self, number: int, logs: Any = None) -> None:
                if number == epoch:
                    self.good = self.model.get_weights()
                    self.model.set_weights([math.nan * w for w in self.good])

        return Callback()


def test_nan_stops_with_the_last_good_weights_and_is_not_gone_on_with(tmp_path: Path) -> None:
    model, poison = dense(), Poison(2)
    training = replace(QUICK, epochs=5)
    done = fit(model, vectors(), training, callbacks=[poison], folder=tmp_path)
    assert len(done.history) == 2
    assert done.notes[:-1] == (
        "the loss turned NaN in epoch 3 of 5: stopped with the weights of epoch 2; try learning_rate 0.001",
    )
    for weight, good in zip(model.get_weights(), poison.good):
        np.testing.assert_array_equal(weight, good)

    again = dense(seed=9)
    repeated = fit(again, vectors(), training, folder=tmp_path)
    np.testing.assert_array_equal(flat(again), flat(model))
    assert (repeated.history, repeated.notes) == (done.history, done.notes)


def test_nan_in_the_first_epoch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"Expected pruning to converge, got a loss that is no number in epoch 1 at learning_rate: 0.01. Try 0.0",
    ):
        fit(dense(), vectors(), QUICK, callbacks=[Poison(0)], folder=tmp_path, what="pruning")


def test_early_stopping_keeps_the_best_weights_and_is_not_gone_on_with(tmp_path: Path) -> None:
    """With a rate this high the loss on held-out samples gets worse at once and stays so."""
    model = dense()
    training = replace(QUICK, epochs=40, patience=3, learning_rate=3.0, optimizer="sgd", decay="constant", warmup=0.0)
    done = fit(model, vectors(), training, folder=tmp_path)
    watched = [row["watched_loss"] for row in done.history]
    best = int(np.argmin(watched))
    assert len(watched) == best + 1 + 3 < 40
    words = f"stopped after epoch {len(watched)}: the weights are those of epoch {best + 1}, the best on held-out"
    assert done.notes[0].startswith(words)

    again = dense(seed=9)
    repeated = fit(again, vectors(), training, folder=tmp_path)
    np.testing.assert_array_equal(flat(again), flat(model))
    assert (repeated.history, repeated.notes) == (done.history, done.notes)


def test_early_stopping_watches_training_samples_that_are_not_trained_on(tmp_path: Path) -> None:
    from edgeopt.training.course import HELD_OUT
    from edgeopt.training.loop import _samples

    part = vectors(50).training
    training, watched = _samples(dense(), vectors(50), replace(QUICK, patience=1), 3)
    assert watched is not None
    assert len(watched) == HELD_OUT * 50
    both = np.concatenate([training.arrays().inputs["x"], watched.arrays().inputs["x"]])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(part.arrays().inputs["x"], axis=0))
    with pytest.raises(
        DataError, match=r"Expected samples to train on and to watch for early stopping, got 1. Try wit"
    ):
        fit(dense(1, None), labelled_once(), replace(QUICK, patience=1), folder=tmp_path)


def test_early_stopping_watches_the_tuning_part_where_there_is_one() -> None:
    from edgeopt.training.loop import _samples

    x, y = np.arange(60, dtype=np.float32).reshape(10, 6), np.arange(10) % 4
    dataset = data.load({"x_train": x, "y_train": y, "x_val": x + 1, "y_val": y, "x_test": x + 2, "y_test": y})
    training, watched = _samples(dense(), dataset, replace(QUICK, patience=1), 3)
    assert watched is not None
    assert (len(training), watched.table) == (10, dataset.tuning.table)


def labelled_once() -> Dataset:
    x = np.ones((1, 6), np.float32)
    return data.load({"x_train": x, "y_train": np.full(1, 0.5), "x_test": x, "y_test": np.full(1, 0.5)})


def test_weights_before_the_settled_epoch_are_not_the_best(tmp_path: Path) -> None:
    training = replace(QUICK, epochs=6, patience=5, learning_rate=3.0, optimizer="sgd", decay="constant", warmup=0.0)
    done = fit(dense(), vectors(), training, folder=tmp_path, settled_epoch=4, seed=11)
    watched = [row["watched_loss"] for row in done.history]
    assert len(watched) == 6
    assert min(watched[:4]) < min(watched[4:])
    if watched[4] < watched[5]:
        assert done.notes[:-1] == ("the weights are those of epoch 5, the best on held-out samples",)
    else:
        assert done.notes[:-1] == ()


# --- what is told ----------------------------------------------------------------------------------------------------


def logged(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yields tag, step and value of every scalar in TensorBoard's event files."""
    tf = load("tensorflow")
    for file in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                yield value.tag, event.step, float(tf.make_ndarray(value.tensor))


def test_tensorboard_shows_each_epoch(tmp_path: Path) -> None:
    done = fit(dense(), vectors(), replace(QUICK, epochs=3, patience=3), folder=tmp_path)
    found = {(tag, step): value for tag, step, value in logged(tmp_path / "logs")}
    assert {tag for tag, _ in found} == {"loss", "accuracy", "learning_rate", "watched_loss"}
    for epoch, row in enumerate(done.history):
        for tag, value in row.items():
            assert found[tag, epoch] == pytest.approx(value, rel=1e-6)


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.training import callbacks

    monkeypatch.setattr(callbacks, "NEWS_SECONDS", 0.0)
    news: list[progress.News] = []
    with progress.listening(news.append):
        fit(dense(), vectors(96), QUICK, folder=tmp_path, what="pruning")
    told = [one for one in news if isinstance(one, progress.Progress) and one.task == "pruning"]
    batches = 96 // 16
    # After each batch, and once more at the end of each epoch.
    assert [one.done for one in told] == [*range(1, batches + 1), batches, *range(batches + 1, 2 * batches + 1), 12]
    assert {one.total for one in told} == {2 * batches}
    assert re.fullmatch(r"epoch 2 of 2, loss [\d.e-]+, accuracy \d+\.\d%", told[-1].detail)


# --- going on after a kill -------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_training as t
from edgeopt.training import callbacks
callbacks.CHECKPOINT_SECONDS = 0.0
t.fit(t.dense(), t.vectors(), t.LONG, folder=Path({folder!r}))
"""
EPOCHS = 100
LONG = replace(QUICK, epochs=EPOCHS, patience=EPOCHS)


def epochs_behind(folder: Path) -> int:
    try:
        return len(json.loads((folder / "training.json").read_text())["history"])
    except OSError:
        return 0


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 300
        while epochs_behind(folder) < 3 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    behind = epochs_behind(folder)
    assert 3 <= behind < EPOCHS

    seen: list[int] = []
    model, whole = dense(), dense()
    done = fit(model, vectors(), LONG, callbacks=[Noting(seen)], folder=folder)
    assert seen == list(range(behind, EPOCHS))
    assert len(done.history) == EPOCHS
    assert not any("anew" in note for note in done.notes)
    uninterrupted = fit(whole, vectors(), LONG, folder=tmp_path / "whole")
    np.testing.assert_allclose(flat(model), flat(whole), rtol=1e-4, atol=1e-5)
    losses = [[row["watched_loss"] for row in one.history] for one in (done, uninterrupted)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)

    seen.clear()
    once_more = fit(dense(seed=9), vectors(), LONG, callbacks=[Noting(seen)], folder=folder)
    assert seen == []
    assert once_more.history == done.history


class Noting:
    """Notes the epochs that are trained."""

    def __new__(cls, seen: list[int]) -> Any:
        class Callback(load("tf_keras").callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                seen.append(epoch)

        return Callback()


def test_another_training_in_the_folder_is_not_gone_on_with(tmp_path: Path) -> None:
    fit(dense(), vectors(), QUICK, folder=tmp_path)
    seen: list[int] = []
    done = fit(dense(), vectors(), replace(QUICK, learning_rate=2e-2), callbacks=[Noting(seen)], folder=tmp_path)
    assert seen == [0, 1]
    assert done.notes[:-1] == ("what was begun here was another training: started anew",)


@pytest.mark.parametrize("damage", ["state", "checkpoint", "best"])
def test_a_damaged_state_is_not_gone_on_with_and_leaves_no_trace(damage: str, tmp_path: Path) -> None:
    training = replace(QUICK, patience=2)
    whole = dense()
    fit(whole, vectors(), training, folder=tmp_path / "whole")
    folder = tmp_path / "damaged"
    fit(dense(), vectors(), training, folder=folder)
    pattern = {"state": "training.json", "checkpoint": "epoch-*.data*", "best": "best-*.npz"}[damage]
    (file,) = folder.glob(pattern)
    file.write_bytes(file.read_bytes()[:40])
    model = dense()
    done = fit(model, vectors(), training, folder=folder)
    assert done.notes[0] == "what was begun here cannot be read: started anew"
    np.testing.assert_array_equal(flat(model), flat(whole))


def test_only_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.training import callbacks

    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)
    fit(dense(), vectors(), replace(QUICK, epochs=5), folder=tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["epoch-5.data-00000-of-00001", "epoch-5.index", "logs", "training.json"]


# --- several devices -------------------------------------------------------------------------------------------------

MIRRORED = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, {tests!r})
from edgeopt.frameworks import load
tf = load("tensorflow")
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_training as t
training = t.replace(t.QUICK, epochs=6, patience=6)
hints = [t.Hint("hidden", "hidden")]
for teachers, hints in (([], []), ([t.dense(seed=4)], []), ([t.dense(seed=4)], hints)):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = t.dense()
        done = t.fit(model, t.vectors(), training, teachers=teachers, hints=hints, folder=Path(tempfile.mkdtemp()))
    alone = t.dense()
    one = t.fit(alone, t.vectors(), training, teachers=teachers, hints=hints, folder=Path(tempfile.mkdtemp()))
    print([row["loss"] for row in done.history])
    print([row["loss"] for row in one.history])
"""


def test_two_devices_train_as_one_does() -> None:
    code = MIRRORED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(losses) == 6
    for mirrored, alone in zip(losses[::2], losses[1::2]):
        np.testing.assert_allclose(mirrored, alone, rtol=2e-2)
        assert mirrored[-1] < mirrored[0]


# --- recovery --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recoverable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.h5"
    dense(seed=4).save(path)
    return path


def test_a_recovery_learns_from_whom_it_says(recoverable: Path, tmp_path: Path) -> None:
    from edgeopt.techniques import Carried
    from edgeopt.techniques.recovery import recovery_teachers

    before, original = dense(seed=1), dense(seed=2)
    carried = Carried(tmp_path)
    assert recovery_teachers(carried, DEFAULTS, before) == (before,)
    assert recovery_teachers(replace(carried, original=original), DEFAULTS, before) == (original,)
    assert recovery_teachers(carried, replace(DEFAULTS, teacher="none"), before) == ()
    assert recovery_teachers(carried, replace(DEFAULTS, alpha=0.0), before) == ()
    (found,) = recovery_teachers(carried, replace(DEFAULTS, teacher=str(recoverable)), before)
    np.testing.assert_allclose(flat(found), flat(dense(seed=4)))
    with pytest.raises(EdgeoptError, match=r"nobody.keras"):
        recovery_teachers(carried, replace(DEFAULTS, teacher=str(tmp_path / "nobody.keras")), before)


def test_a_teacher_that_cannot_be_trained_here_is_named(tmp_path: Path) -> None:
    from edgeopt.errors import ModelError
    from edgeopt.techniques import Carried
    from edgeopt.techniques.recovery import open_model

    tf = load("tensorflow")
    file = tmp_path / "teacher.tflite"
    file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(dense()).convert())
    with pytest.raises(ModelError, match=r"Expected a Keras model that training can run, got .*teacher.tflite .*Try"):
        open_model(str(file), Carried(tmp_path))


def test_hints_without_a_teacher_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a teacher to take hints from, got none. Try without hints"):
        fit(dense(), vectors(), QUICK, hints=[Hint("hidden", "hidden")], folder=tmp_path)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_class_numbers_that_are_stored_as_floats_are_trained_as_classes(shape: tuple[int, ...], tmp_path: Path) -> None:
    whole = vectors()
    classes = whole.training.arrays().labels
    x = whole.training.arrays().inputs["x"]
    assert classes is not None
    assert classes.max() > 1  # 0 and 1 alone are told from values anyway
    floats = data.load({"x_train": x, "y_train": classes.astype(np.float32).reshape(shape), "x_test": x[:4]})
    models = [dense(), dense()]
    done = [fit(m, d, QUICK, folder=tmp_path / str(i)) for i, (m, d) in enumerate(zip(models, (whole, floats)))]
    assert done[0].history[0].keys() == done[1].history[0].keys() >= {"accuracy"}
    for a, b in zip(*(m.get_weights() for m in models)):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "outputs", "fits"),
    [
        ([0.0, 2.0, 1.0], (3,), True),
        ([[0.0], [2.0]], (3,), True),
        ([0.0, 3.0], (3,), False),
        ([0.5, 1.0], (3,), False),
        ([-1.0, 1.0], (3,), False),
        ([0.0, 1.0], (1,), False),
        ([[0.0, 1.0], [1.0, 0.0]], (3,), False),
        ([np.nan, 1.0], (3,), False),
        ([np.inf, 1.0], (3,), False),
        ([[0.0, 1.0], [1.0, 2.0]], (2, 3), True),
        ([[[0.0], [1.0]], [[1.0], [2.0]]], (2, 3), True),
    ],
)
def test_which_numbers_are_classes(labels: Any, outputs: tuple[int, ...], fits: bool) -> None:
    found = class_numbers(np.asarray(labels, np.float32), outputs)
    assert (found is not None) is fits
    if found is not None:
        np.testing.assert_array_equal(found, np.reshape(labels, (len(labels), *outputs[:-1])))


# --- the learning rate -----------------------------------------------------------------------------------------------


def curve(best: float, *, noise: float = 0.01) -> Callable[[float], np.ndarray]:
    """Returns losses of 400 samples that are least at a rate; what a sample adds is the same at every rate."""
    own = np.random.default_rng(0).random(400)
    tried: list[float] = []

    def losses_at(rate: float) -> np.ndarray:
        tried.append(rate)
        return own + math.log10(rate / best) ** 2 + noise * np.random.default_rng(len(tried)).standard_normal(400)

    losses_at.tried = tried  # type: ignore[attr-defined]
    return losses_at


@pytest.mark.parametrize(
    ("best", "chosen", "trials"),
    [
        (1e-3, 1e-3, [1e-3, 3e-4, 3e-3]),
        (1e-4, 1e-4, [1e-3, 3e-4, 1e-4, 3e-5]),
        (1e-6, 3e-5, [1e-3, 3e-4, 1e-4, 3e-5]),  # no more than four
        (3e-3, 3e-3, [1e-3, 3e-4, 3e-3, 1e-2]),
    ],
)
def test_rates_are_climbed_from_the_default(best: float, chosen: float, trials: list[float]) -> None:
    losses_at = curve(best)
    found = probing.choose(1e-3, losses_at)
    assert found.rate == chosen
    assert losses_at.tried == trials  # type: ignore[attr-defined]
    assert [rate for rate, _ in found.tried] == trials
    said = "the default" if chosen == 1e-3 else "instead of 0.001"
    assert found.words(1e-3).startswith(f"learning rate {chosen:g}")
    assert said in found.words(1e-3)


def test_what_chance_may_explain_is_no_reason_to_leave_the_default() -> None:
    assert probing.choose(1e-3, curve(3e-4, noise=100.0)).rate == 1e-3
    nan = np.full(400, np.nan)
    assert probing.choose(1e-3, lambda rate: nan if rate > 5e-4 else np.ones(400)).rate == 3e-4
    assert probing.choose(1e-3, lambda rate: nan).rate == 1e-3


def tall(count: int, *, distance: float) -> tuple[Any, Dataset]:
    """Returns a linear model with normalized outputs whose weights are so far from the best ones, and its data."""
    keras = load("tf_keras")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 8)).astype(np.float32)
    right = rng.standard_normal((8, 1)).astype(np.float32)
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.set_weights([right + distance])
    noisy = x @ right + rng.standard_normal((count, 1)).astype(np.float32)
    values = {"x_train": x, "y_train": noisy, "x_val": x[:300], "y_val": x[:300] @ right, "x_test": x, "y_test": noisy}
    return model, data.load(values, labels="values")


@pytest.mark.parametrize(("distance", "rate"), [(3.0, "above"), (0.0, "below")], ids=["far", "there"])
def test_who_is_far_from_the_goal_takes_large_steps_and_who_is_there_small_ones(
    distance: float, rate: str, tmp_path: Path
) -> None:
    training = replace(DEFAULTS, epochs=8, batch_size=8, learning_rate=1e-2, alpha=0.0)
    model, dataset = tall(1600, distance=distance)
    done = fit(model, dataset, training, folder=tmp_path, free_rate=True)
    chosen = float(re.match(r"learning rate ([\d.e-]+) instead of 0.01", done.notes[0])[1])  # type: ignore[index]
    assert chosen > 1e-2 if rate == "above" else chosen < 1e-2
    assert max(row["learning_rate"] for row in done.history) <= chosen * (1 + 1e-6)
    assert len(done.history) == 8


def test_trials_leave_no_trace_and_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        probing, "choose", lambda default, losses_at: probing.Choice(3e-3, ((3e-3, float(losses_at(3e-3).mean())),))
    )
    monkeypatch.setattr("edgeopt.training.loop.choose", probing.choose)
    training = replace(DEFAULTS, epochs=8, batch_size=8, learning_rate=1e-2, alpha=0.0)
    tried, plain = (tall(1600, distance=1.0)[0] for _ in range(2))
    _, dataset = tall(1600, distance=1.0)
    done = fit(tried, dataset, training, folder=tmp_path / "tried", free_rate=True)
    fit(plain, dataset, replace(training, learning_rate=3e-3), folder=tmp_path / "plain")
    np.testing.assert_array_equal(flat(tried), flat(plain))

    def never(*_: object) -> None:
        raise AssertionError("it was chosen already")

    monkeypatch.setattr("edgeopt.training.loop.choose", never)
    (tmp_path / "tried" / "training.json").unlink()  # killed before its first epoch was over
    again, _ = tall(1600, distance=1.0)
    repeated = fit(again, dataset, training, folder=tmp_path / "tried", free_rate=True)
    assert repeated.notes == done.notes
    np.testing.assert_array_equal(flat(again), flat(tried))


def test_too_short_a_training_takes_the_default(tmp_path: Path) -> None:
    done = fit(dense(), vectors(), QUICK, folder=tmp_path, free_rate=True)
    assert done.notes[:-1] == ()


def test_weights_that_were_better_before_training_stay(tmp_path: Path) -> None:
    """Trained on wrong answers, it forgets the right ones."""
    model, dataset = tall(400, distance=0.0)
    before = flat(model)
    wrong = replace(DEFAULTS, epochs=2, batch_size=8, learning_rate=1e-1, alpha=0.0)
    done = fit(model, dataset, wrong, folder=tmp_path)
    np.testing.assert_array_equal(flat(model), before)
    assert done.notes[:-1] == (
        "the weights are those of before training, which made it worse, the best on held-out samples",
    )


def test_averages_of_batch_normalization_keep_pace_with_a_trial() -> None:
    keras = load("tf_keras")
    model = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization(momentum=0.99)])
    with probing._time_compressed(model, 0.05):
        assert model.layers[-1].momentum == pytest.approx(0.99**20)
    assert model.layers[-1].momentum == 0.99
