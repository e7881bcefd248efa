"""The Learner's arithmetic against plain NumPy, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import data
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.steps import DEFAULTS
from edgeopt.training import Hint, fit
from edgeopt.training.hints import Hints, attention_loss, attention_map, hint_loss
from edgeopt.training.imitation import Manner, as_logits, soft_target_losses, softened
from edgeopt.training.learner import Learner
from edgeopt.training.objective import Objective, objective
from edgeopt.training.teaching import answers, learner, teaching

RATE = 0.1
TRAINING = replace(
    DEFAULTS, augment="none", epochs=1, batch_size=12, learning_rate=RATE, optimizer="sgd", decay="constant", warmup=0.0
)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def samples(*, labels: bool = True) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 5)).astype(np.float32)
    arrays: dict[str, Any] = {"x_train": x, "x_test": x}
    if labels:
        arrays |= {"y_train": np.arange(12) % 3, "y_test": np.arange(12) % 3}
    return data.load(arrays)


def linear(seed: int, activation: str | None = None, units: int = 3) -> Any:
    keras = load("tf_keras")
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,), name="x")
    return keras.Model(inputs, keras.layers.Dense(units, activation, name="out")(inputs))


def logits_of(model: Any, x: np.ndarray) -> np.ndarray:
    kernel, bias = model.get_weights()
    return x @ kernel + bias


# --- the losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_are_t_squared_times_the_divergence(temperature: float) -> None:
    rng = np.random.default_rng(0)
    theirs, ours = rng.standard_normal((2, 7, 3)) * 3
    p, q = softmax(theirs / temperature), softmax(ours / temperature)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1).mean()
    assert np.mean(soft_target_losses(softened(theirs, temperature), ours, temperature)) == pytest.approx(expected)
    assert np.mean(soft_target_losses(p, theirs, temperature)) == pytest.approx(0, abs=1e-9)


def test_the_gradient_keeps_its_size_as_the_temperature_grows() -> None:
    """Hinton's reason for T²: at high T it tends to (z - v) / N, whatever T is."""
    tf = load("tensorflow")
    rng = np.random.default_rng(0)
    theirs, ours = (z - z.mean(-1, keepdims=True) for z in rng.standard_normal((2, 7, 3)))
    student = tf.constant(ours)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = tf.reduce_mean(soft_target_losses(softened(theirs, 1000.0), student, 1000.0))
    np.testing.assert_allclose(tape.gradient(loss, student), (ours - theirs) / 3 / 7, rtol=1e-2, atol=1e-5)


def test_probabilities_become_logits_that_soften_alike() -> None:
    z = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32) * 3
    np.testing.assert_allclose(
        softened(as_logits(softmax(z), probabilities=True), 3.0), softmax(z / 3.0), rtol=1e-4, atol=1e-6
    )
    never = as_logits(np.array([[1.0, 0.0]], np.float32), probabilities=True).numpy()
    assert np.isfinite(never).all()


def test_hints_are_the_squared_difference_over_the_teacher_s_mean_square() -> None:
    theirs, ours = np.random.default_rng(0).standard_normal((2, 4, 3, 3, 8))
    expected = ((theirs - ours) ** 2).mean() / (theirs**2).mean()
    assert float(hint_loss(theirs, ours)) == pytest.approx(expected)
    assert float(hint_loss(10 * theirs, 10 * ours)) == pytest.approx(expected)


def test_attention_is_where_the_energy_is() -> None:
    rng = np.random.default_rng(0)
    theirs, ours = rng.standard_normal((4, 3, 5, 8)), rng.standard_normal((4, 3, 5, 6))
    maps = []
    for features in (theirs, ours):
        energy = (features**2).sum(-1).reshape(4, 3 * 5)
        maps.append(energy / np.sqrt((energy**2).sum(-1, keepdims=True)))
    np.testing.assert_allclose(attention_map(theirs), maps[0], rtol=1e-6)
    expected = ((maps[0] - maps[1]) ** 2).sum(-1).mean()
    assert float(attention_loss(theirs, ours)) == pytest.approx(expected)
    # Channels in another order, and louder, are the same attention.
    assert float(attention_loss(theirs, 3 * theirs[..., ::-1])) == pytest.approx(0, abs=1e-9)


# --- one step of training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("outputs", ["softmax", None], ids=["probabilities", "logits"])
def test_one_step_is_what_numpy_computes(alpha: float, teachers: int, outputs: str | None, tmp_path: Path) -> None:
    """Plain gradient descent on one batch of everything, momentum not yet at work but for Nesterov's look ahead."""
    temperature, momentum = 2.0, 0.9
    student = linear(0, outputs)
    wise = [linear(seed, outputs) for seed in range(1, teachers + 1)]
    x, labels = samples().training.arrays().inputs["x"], samples().training.ids()
    kernel, bias = student.get_weights()
    z = logits_of(student, x)
    p = np.mean([softmax(logits_of(teacher, x) / temperature) for teacher in wise], axis=0)
    q = softmax(z / temperature)
    truth = np.eye(3)[labels]
    soft = temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1).mean()
    hard = -(truth * np.log(softmax(z))).sum(-1).mean()
    gradient = (alpha * temperature * (q - p) + (1 - alpha) * (softmax(z) - truth)) / len(x)

    training = replace(TRAINING, alpha=alpha, temperature=temperature)
    done = fit(student, samples(), training, teachers=wise, folder=tmp_path)
    assert done.history[0]["teacher_loss"] == pytest.approx(soft, rel=1e-4)
    assert done.history[0]["loss"] == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-4)
    step = RATE * (1 + momentum)
    new_kernel, new_bias = student.get_weights()
    np.testing.assert_allclose(new_kernel, kernel - step * x.T @ gradient, atol=1e-5)
    np.testing.assert_allclose(new_bias, bias - step * gradient.sum(0), atol=1e-5)


def test_values_are_imitated_by_their_squared_difference(tmp_path: Path) -> None:
    student, teacher = linear(0), linear(1)
    x = samples().training.arrays().inputs["x"]
    expected = ((logits_of(teacher, x) - logits_of(student, x)) ** 2).mean()
    training = replace(TRAINING, alpha=1.0)
    done = fit(student, samples(labels=False), training, teachers=[teacher], folder=tmp_path)
    assert done.history[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_history_s_loss_is_the_mean_over_the_epoch(tmp_path: Path) -> None:
    """At no rate to speak of, three batches have the mean loss of one."""
    losses = []
    for size in (4, 12):
        training = replace(TRAINING, batch_size=size, learning_rate=1e-9)
        done = fit(linear(0), samples(), training, teachers=[linear(1)], folder=tmp_path / str(size))
        losses.append(done.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# --- teachers --------------------------------------------------------------------------------------------------------


def test_answers_beforehand_are_those_asked_for_in_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.training import stream as streams

    part = samples().training
    weights = []
    for hold in (2**30, 0):
        monkeypatch.setattr(streams, "HOLD_BYTES", hold)
        student = linear(0)
        aim = objective(student, part, TRAINING, taught=True)
        trainee, found = learner(student, part, TRAINING, [linear(1)], aim, hints=(), hint_weight=1.0)
        assert (trainee.told, len(found)) == (bool(hold), int(bool(hold)))
        fit(student, samples(), TRAINING, teachers=[linear(1)], folder=tmp_path / str(hold))
        weights.append(student.get_weights())
    for cached, live in zip(*weights):
        np.testing.assert_allclose(cached, live, atol=1e-6)


def test_answers_are_in_the_part_s_order() -> None:
    part, teacher = samples().training, linear(1)
    part = part.subset(np.array([7, 2, 2, 5]))
    teach = teaching([teacher], manners=[Manner("distributions", temperature=2.0)], probabilities=[[False]])
    (found,) = answers(teach, part)
    np.testing.assert_allclose(found, softmax(logits_of(teacher, part.arrays().inputs["x"]) / 2.0), rtol=1e-5)


def test_teachers_stay_as_they_are_and_are_no_part_of_the_student(tmp_path: Path) -> None:
    student, teacher = linear(0), linear(1)
    before = [w.copy() for w in teacher.get_weights()]
    for batch_size, hints in ((4, []), (6, [Hint("out", "out")])):
        training = replace(TRAINING, batch_size=batch_size)
        fit(student, samples(), training, teachers=[teacher], hints=hints, folder=tmp_path / str(batch_size))
    for now, then in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    assert [w.name for w in student.weights] == ["out/kernel:0", "out/bias:0"]


@pytest.mark.parametrize(
    ("teacher", "match"),
    [
        (lambda: linear(1, units=4), r"Expected a student whose outputs are the teacher's, \['4'\], got \['3'\]. Try"),
        (lambda: wide(), r"Expected a student whose inputs are the teacher's, \['6'\], got \['5'\]. Try a student"),
    ],
    ids=["outputs", "inputs"],
)
def test_a_teacher_of_another_task_is_refused(teacher: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        fit(linear(0), samples(), TRAINING, teachers=[teacher()], folder=tmp_path)


def wide() -> Any:
    keras = load("tf_keras")
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


# --- hints -----------------------------------------------------------------------------------------------------------


def pictures() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((16, 8, 8, 1), np.float32)
    return data.load({"x_train": x, "y_train": np.arange(16) % 3, "x_test": x[:4], "y_test": np.arange(4) % 3})


def convolutional(seed: int, channels: Sequence[int], *, strides: int = 1) -> Any:
    keras = load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 1), name="x")
    for index, count in enumerate(channels):
        x = layers.Conv2D(count, 3, strides=strides, padding="same", activation="relu", name=f"conv_{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))


def features(model: Any, layer: str, x: np.ndarray) -> np.ndarray:
    return load("tf_keras").Model(model.inputs, model.get_layer(layer).output)(x).numpy()


def trained(student: Any, teacher: Any, hints: Sequence[Hint], folder: Path, **more: Any) -> dict[str, float]:
    training = replace(TRAINING, batch_size=16, learning_rate=1e-6)
    done = fit(student, pictures(), training, teachers=[teacher], hints=hints, folder=folder, **more)
    return done.history[0]


def test_the_loss_with_hints_is_what_numpy_computes(tmp_path: Path) -> None:
    student, teacher = convolutional(0, (4, 6)), convolutional(1, (4, 8))
    x = pictures().training.arrays().inputs["x"]
    hints = [Hint("conv_0", "conv_0"), Hint("conv_1", "conv_1", attention=True)]
    theirs, ours = features(teacher, "conv_0", x), features(student, "conv_0", x)
    expected = ((theirs - ours) ** 2).mean() / (theirs**2).mean()
    energies = [(features(m, "conv_1", x).astype(np.float64) ** 2).sum(-1).reshape(16, 64) for m in (teacher, student)]
    one, other = (e / np.linalg.norm(e, axis=-1, keepdims=True) for e in energies)
    expected += ((one - other) ** 2).sum(-1).mean()

    without = trained(convolutional(0, (4, 6)), teacher, [], tmp_path / "without")
    row = trained(student, teacher, hints, tmp_path / "with", hint_weight=3.0)
    assert row["hint_loss"] == pytest.approx(expected, rel=1e-3)
    assert row["loss"] == pytest.approx(without["loss"] + 3.0 * expected, rel=1e-3)


def test_adapters_bring_channels_together_are_trained_and_no_part_of_the_student(tmp_path: Path) -> None:
    student, teacher = convolutional(0, (4,)), convolutional(1, (6,))
    hints = Hints([Hint("conv_0", "conv_0"), Hint("pool", "pool"), Hint("out", "out")], student, teacher)
    assert [tuple(w.shape) for adapter in hints.adapters for w in adapter.weights] == [(4, 6), (6,), (4, 6), (6,)]

    x = pictures().training.arrays().inputs["x"]
    outputs, found = hints.run(x)
    kernel, bias = hints.adapters[0].get_weights()
    adapted = features(student, "conv_0", x) @ kernel + bias
    theirs = features(teacher, "conv_0", x)
    expected = ((theirs - adapted) ** 2).mean() / (theirs**2).mean()
    alone = Hints([Hint("conv_0", "conv_0")], student, teacher)
    alone.adapters[0].set_weights([kernel, bias])
    assert float(alone.loss(alone.told(x)[1], alone.run(x)[1])) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(outputs[0], student(x), atol=1e-6)
    assert len(found) == 3

    trainee = Learner(
        student,
        Objective((), (None,), ("out",)),
        hints.told,
        manners=[Manner("distributions", probabilities=True)],
        alpha=1.0,
        hints=hints,
    )
    trainee.compile(load("tf_keras").optimizers.SGD(0.5))
    trainee.fit(x, np.zeros(16), epochs=1, batch_size=16, verbose=0)
    assert not np.array_equal(hints.adapters[0].get_weights()[0], kernel)
    assert len(student.trainable_weights) == 4
    assert len(trainee.trainable_variables) == 4 + 4


def test_a_student_with_some_of_the_teacher_s_channels_imitates_these(tmp_path: Path) -> None:
    student, teacher = convolutional(0, (3,)), convolutional(1, (6,))
    x = pictures().training.arrays().inputs["x"]
    ours, theirs = features(student, "conv_0", x), features(teacher, "conv_0", x)[..., [4, 0, 5]]
    hint = Hint("conv_0", "conv_0", channels=(4, 0, 5))
    assert Hints([hint], student, teacher).adapters == []
    row = trained(student, teacher, [hint], tmp_path)
    assert row["hint_loss"] == pytest.approx(((theirs - ours) ** 2).mean() / (theirs**2).mean(), rel=1e-3)


def test_maps_of_another_size_are_resized_to_the_teacher_s(tmp_path: Path) -> None:
    tf = load("tensorflow")
    student, teacher = convolutional(0, (4,), strides=2), convolutional(1, (4,))
    x = pictures().training.arrays().inputs["x"]
    ours = tf.image.resize(features(student, "conv_0", x), (8, 8)).numpy()
    theirs = features(teacher, "conv_0", x)
    row = trained(student, teacher, [Hint("conv_0", "conv_0")], tmp_path)
    assert row["hint_loss"] == pytest.approx(((theirs - ours) ** 2).mean() / (theirs**2).mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("hint", "match"),
    [
        (Hint("conv_9", "conv_0"), r"Expected a layer of the student, got 'conv_9'. Did you mean 'conv_0'"),
        (Hint("conv_0", "konv_0"), r"Expected a layer of the teacher, got 'konv_0'. Did you mean 'conv_0'"),
        (Hint("conv_0", "pool"), r"Expected layers whose features can be compared, got conv_0 \(8, 8, 4\) and pool"),
        (Hint("pool", "pool", attention=True), r"Expected layers with maps or steps to attend to, got pool \(4,\)"),
    ],
    ids=["student", "teacher", "rank", "attention"],
)
def test_hints_that_make_no_sense_are_refused(hint: Hint, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        trained(convolutional(0, (4,)), convolutional(1, (4,)), [hint], tmp_path)


def test_a_layer_with_several_outputs_is_no_hint() -> None:
    keras = load("tf_keras")
    inputs = keras.Input((4, 3))
    sequence, state = keras.layers.SimpleRNN(5, return_sequences=True, return_state=True, name="rnn")(inputs)
    model = keras.Model(inputs, [sequence, state])
    with pytest.raises(ConfigError, match=r"Expected a layer with one output as a hint, got 'rnn' with 2. Try another"):
        Hints([Hint("rnn", "rnn")], model, model)


def test_students_learn_to_imitate_what_they_are_hinted_at(tmp_path: Path) -> None:
    for name, attention in (("hints", False), ("attention", True)):
        training = replace(DEFAULTS, epochs=25, batch_size=8, learning_rate=1e-2)
        done = fit(
            convolutional(0, (4, 4)),
            pictures(),
            training,
            teachers=[convolutional(1, (4, 6))],
            hints=[Hint("conv_1", "conv_1", attention)],
            hint_weight=10.0,
            folder=tmp_path / name,
        )
        assert done.history[-1]["hint_loss"] < 0.5 * done.history[0]["hint_loss"]


# --- under wrappers --------------------------------------------------------------------------------------------------


def test_a_student_under_pruning_wrappers_is_pruned_while_it_learns(tmp_path: Path) -> None:
    tfmot = load("tfmot")
    student = convolutional(0, (4, 8))
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, 0, 4, frequency=1)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(student, pruning_schedule=schedule)
    training = replace(DEFAULTS, epochs=6, batch_size=8, learning_rate=1e-3)
    done = fit(
        wrapped,
        pictures(),
        training,
        teachers=[convolutional(1, (4, 6))],
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        hints=[Hint("conv_1", "conv_1")],
        folder=tmp_path,
    )
    assert len(done.history) == 6
    kernel = tfmot.sparsity.keras.strip_pruning(wrapped).get_layer("conv_1").get_weights()[0]
    assert (kernel == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_a_fake_quantized_student_learns_from_a_float_teacher(tmp_path: Path) -> None:
    tfmot = load("tfmot")
    with tfmot.quantization.keras.quantize_scope():
        wrapped = tfmot.quantization.keras.quantize_model(convolutional(0, (4, 8)))
    before = [w.copy() for w in wrapped.get_weights()]
    training = replace(DEFAULTS, epochs=20, batch_size=8, learning_rate=1e-2)
    done = fit(wrapped, pictures(), training, teachers=[convolutional(1, (4, 6))], folder=tmp_path)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert any(not np.array_equal(now, then) for now, then in zip(wrapped.get_weights(), before))
