"""What training minimizes: the loss a model was compiled with, its task's own, or one that is said; of any output."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.data import load as load_data
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.loading import load_model, save_keras3
from edgeopt.loading.compiled import compiled
from edgeopt.steps import DEFAULTS, Training
from edgeopt.tasks import TASKS
from edgeopt.tasks.losses import LOSSES, Compiled, Goal, LossSpec, by_output, canonical, said
from edgeopt.training import fit
from edgeopt.training.imitation import Manner, as_odds, soft_odds_losses
from edgeopt.training.losses import keras_loss, own_loss
from edgeopt.training.objective import Objective, objective, spread_of

RANDOM = np.random.default_rng(0)
ALONE = replace(DEFAULTS, epochs=1, batch_size=16, alpha=0.0)
X = RANDOM.random((32, 6), np.float32)
PICTURES = RANDOM.random((32, 4, 4, 1), np.float32)


def model_of(shape: tuple[int | None, ...], *heads: tuple[str, int, str | None]) -> Any:
    """A dense layer for each head, over the last axis."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, name="x")
    return keras.Model(x, [keras.layers.Dense(units, activation, name=name)(x) for name, units, activation in heads])


def aims_of(model: Any, arrays: dict[str, Any], training: Training = ALONE, **said_of: Any) -> Objective:
    part = load_data(arrays, validation_share=0.0).training
    names = tuple(name.split("/")[0] for name in model.output_names)
    return objective(model, part, training, Goal(names, **said_of), taught=False)


def mean_of(model: Any, aims: Objective, arrays: dict[str, Any]) -> float:
    """The loss of all samples."""
    tf = load("tensorflow")
    batch = load_data(arrays, validation_share=0.0).training.arrays()
    targets = [aim.target.spread(tf.constant(aim.target.of(batch))) for aim in aims.aims]
    return float(aims.mean(targets, tf.nest.flatten(model(batch.inputs["x"]))))


def crossentropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -np.log(np.take_along_axis(probabilities, labels[..., None], axis=-1)[..., 0])


# --- which loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TASKS.values(), ids=list(TASKS))
def test_the_losses_of_tasks_are_there(row: Any) -> None:
    assert {row.loss, row.one_unit_loss} - {""} <= set(LOSSES)


@pytest.mark.parametrize("row", [row for row in LOSSES.values() if row.kind], ids=lambda row: row.name)
def test_every_loss_gives_a_number_for_each_sample(row: Any) -> None:
    tf = load("tensorflow")
    targets = np.eye(3, dtype=np.float32)[RANDOM.integers(0, 3, (5, 2))]
    outputs = tf.nn.softmax(RANDOM.random((5, 2, 3), np.float32))
    found = keras_loss(LossSpec(row.name), from_logits=False, smoothing=0.0, places=1)(targets, outputs)
    assert found.shape[0] == 5
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mse", "mean_squared_error"),
        ("MSE", "mean_squared_error"),
        ("MeanSquaredError", "mean_squared_error"),
        ("SparseCategoricalCrossentropy", "categorical_crossentropy"),
        ("Keras>Huber", "huber"),
        ("KLDivergence", "kl_divergence"),
        ("my_loss", "my_loss"),
    ],
)
def test_a_loss_has_many_names(written: str, meant: str) -> None:
    assert canonical(written) == meant


def test_what_is_said_of_losses() -> None:
    assert by_output(["mse", "left=mine:loss"], "--loss") == {"": "mse", "left": "mine:loss"}
    with pytest.raises(ConfigError, match="one --loss for left, got mse and mae"):
        by_output(["left=mse", "left=mae"], "--loss")
    with pytest.raises(ConfigError, match="Expected --loss NAME or --loss OUTPUT=NAME, got 'left='"):
        by_output(["left="], "--loss")
    with pytest.raises(ConfigError, match=r"Expected a loss, got 'hubber'. Did you mean 'huber'"):
        said("hubber")
    with pytest.raises(ConfigError, match=r"--loss for one of the outputs out, got 'uot'\. Did you mean 'out'"):
        aims_of(model_of((6,), ("out", 3, None)), {"x": X, "y": X[:, :3]}, replace(ALONE, loss=("uot=mse",)))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"loss": "mse"}, Compiled({"": LossSpec("mean_squared_error")})),
        (
            {"loss": {"class_name": "Huber", "config": {"delta": 2.0, "name": "huber"}}, "loss_weights": None},
            Compiled({"": LossSpec("huber", {"delta": 2.0})}),
        ),
        (
            {"loss": {"a": "mae", "b": {"class_name": "function", "config": "mine"}}, "loss_weights": {"a": 2}},
            Compiled({"a": LossSpec("mean_absolute_error"), "b": LossSpec("mine")}, {"a": 2.0}),
        ),
        (
            {"loss": ["mse", None], "loss_weights": [0.5, 1]},
            Compiled({"0": LossSpec("mean_squared_error")}, {"0": 0.5, "1": 1.0}),
        ),
        ({"loss": {"class_name": "__lambda__", "config": {"value": "4wAA"}}}, Compiled({"": LossSpec("__lambda__")})),
        ({"loss": None}, None),
        ({"loss": 7, "loss_weights": float("nan")}, None),
        ("nonsense", None),
        (None, None),
    ],
)  # fmt: skip
def test_what_a_file_says_of_losses(config: Any, expected: Compiled | None) -> None:
    assert compiled(config) == expected


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_losses_come_from_files_of_either_keras(library: str, suffix: str, tmp_path: Path) -> None:
    keras = load(library)
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(3, name="a")(x), keras.layers.Dense(1, name="b")(x)])
    losses = [keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), "mae"]
    model.compile("adam", loss=losses, loss_weights=[1.0, 0.25])
    model.save(tmp_path / f"model{suffix}")
    found = load_model(tmp_path / f"model{suffix}").compiled
    assert found is not None
    first = found.losses["0"]
    assert (first.name, first.settings["from_logits"], first.settings["label_smoothing"]) == (
        "categorical_crossentropy",
        True,
        0.1,
    )
    assert found.losses["1"].name == "mean_absolute_error"
    assert found.weights == {"0": 1.0, "1": 0.25}


def test_a_model_that_was_made_of_another_is_compiled_as_that_was(tmp_path: Path) -> None:
    keras = load("keras")
    x = keras.Input((4,))
    model = keras.Model(x, {"a": keras.layers.Dense(3, name="a")(x), "b": keras.layers.Dense(1, name="b")(x)})
    losses = {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mae"}
    model.compile("adam", loss=losses, loss_weights={"a": 2.0, "b": 0.25})
    model.save(tmp_path / "model.keras")
    first = load_model(tmp_path / "model.keras")
    save_keras3(first.keras, tmp_path / "again.keras", like=first)
    again = load_model(tmp_path / "again.keras")
    for loaded in (first, again):
        assert loaded.compiled is not None
        told = [loaded.compiled.loss(spec.name, index) for index, spec in enumerate(loaded.outputs)]
        assert [(one.name, one.settings.get("sparse"), one.settings.get("from_logits")) for one in told if one] == [
            ("categorical_crossentropy", True, True),
            ("mean_absolute_error", None, None),
        ]
        assert [loaded.compiled.weight(spec.name, n) for n, spec in enumerate(loaded.outputs)] == [2.0, 0.25]


def test_the_loss_is_the_one_said_else_the_compiled_one_else_the_task_s() -> None:
    model, arrays = model_of((6,), ("out", 3, None)), {"x": X, "y": X[:, :3]}
    held = Compiled({"": LossSpec("mean_absolute_error")})
    errors = np.asarray(model(X)) - X[:, :3]
    expected = {
        "scaled squared error, the own one of regression: the model's file holds none": np.mean(
            errors**2 / X[:, :3].var(axis=0)
        ),
        "mean absolute error, as the model was compiled with": np.abs(errors).mean(),
        "log cosh, as was said": np.log(np.cosh(errors)).mean(),
    }
    settings = [(ALONE, None), (ALONE, held), (replace(ALONE, loss=("log_cosh",)), held)]
    for (training, files_own), (words, value) in zip(settings, expected.items()):
        aims = aims_of(model, arrays, training, compiled=files_own)
        assert aims.notes == (f"loss: {words}",)
        assert mean_of(model, aims, arrays) == pytest.approx(value, rel=1e-4)


def test_targets_are_measured_in_their_own_spread() -> None:
    values = RANDOM.random((50, 2)) * [1.0, 1000.0]
    np.testing.assert_allclose(spread_of(values), values.var(axis=0))
    assert spread_of(np.ones((9, 2)) * [2, 0]).tolist() == [2**2, 1]
    assert spread_of(RANDOM.random((9, 4, 4, 1))).shape == (1,)


# --- of places and labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["numbers", "floats", "one-hot"])
def test_each_place_counts_but_those_left_out(form: str) -> None:
    model, labels = model_of((4, 4, 1), ("mask", 3, "softmax")), RANDOM.integers(-1, 3, (32, 4, 4))
    given = {"numbers": labels, "floats": labels[..., None].astype(np.float32)}
    given["one-hot"] = np.eye(4, dtype=np.float32)[labels][..., :3]
    arrays = {"x": PICTURES, "y": given[form]}
    losses = crossentropy(np.asarray(model(PICTURES)), np.maximum(labels, 0))
    found = mean_of(model, aims_of(model, arrays), arrays)
    assert found == pytest.approx(losses[labels >= 0].mean(), rel=1e-4)


def test_one_unit_tells_two_classes_of_each_place() -> None:
    model, labels = model_of((4, 4, 1), ("mask", 1, "sigmoid")), RANDOM.integers(-1, 2, (32, 4, 4))
    p = np.asarray(model(PICTURES))[..., 0]
    losses = -np.where(labels == 1, np.log(p), np.log(1 - p))
    arrays = {"x": PICTURES, "y": labels}
    found = mean_of(model, aims_of(model, arrays), arrays)
    assert found == pytest.approx(losses[labels >= 0].mean(), rel=1e-4)


def test_several_labels_at_once_have_an_odds_each() -> None:
    model, labels = model_of((6,), ("out", 3, None)), RANDOM.integers(0, 2, (32, 3))
    p = 1 / (1 + np.exp(-np.asarray(model(X))))
    expected = -np.where(labels == 1, np.log(p), np.log(1 - p)).mean()
    arrays = {"x": X, "y": labels}
    aims = aims_of(model, arrays)
    assert aims.tasks[0] is TASKS["multi-label"]
    assert mean_of(model, aims, arrays) == pytest.approx(expected, rel=1e-4)


def test_an_autoencoder_learns_its_input_whatever_its_labels_say() -> None:
    aims = aims_of(model_of((6,), ("out", 6, None)), {"x": X, "y": np.arange(32) % 2})
    assert aims.tasks[0] is TASKS["anomaly"]
    assert aims.targets[0].given_back == 0


def test_keras_mark_of_padding_counts_nothing(tmp_path: Path) -> None:
    keras, tf = load("tf_keras"), load("tensorflow")
    x = keras.Input((5,), dtype="int32", name="x")
    model = keras.Model(
        x, keras.layers.Dense(3, "softmax", name="tags")(keras.layers.Embedding(9, 4, mask_zero=True)(x))
    )
    tokens, labels = RANDOM.integers(0, 3, (32, 5)).astype(np.int32), RANDOM.integers(0, 3, (32, 5))
    losses = crossentropy(np.asarray(model(tokens)), labels)
    aims = aims_of(model, {"x": tokens, "y": labels})
    found = aims.mean([tf.one_hot(labels, 3)], [model(tokens)])
    assert float(found) == pytest.approx(losses[tokens > 0].mean(), rel=1e-4)


# --- several outputs -------------------------------------------------------------------------------------------------


def test_outputs_add_up_by_their_weights() -> None:
    model = model_of((6,), ("kind", 2, "softmax"), ("size", 3, None))
    labels, values = np.arange(32) % 2, X[:, :3]
    held = Compiled({"kind": LossSpec("categorical_crossentropy"), "1": LossSpec("mean_squared_error")}, {"size": 0.5})
    arrays = {"x": X, "y_kind": labels, "y_size": values}
    kinds, sizes = (np.asarray(output) for output in model(X))
    expected = crossentropy(kinds, labels).mean() + 0.5 * ((sizes - values) ** 2).mean()
    assert mean_of(model, aims_of(model, arrays, compiled=held), arrays) == pytest.approx(expected, rel=1e-4)


def test_one_output_s_labels_train_it_alone_where_that_is_said(tmp_path: Path) -> None:
    heads = (("kind", 2, "softmax"), ("size", 3, None))
    model, teacher = model_of((6,), *heads), model_of((6,), *heads)
    teacher.set_weights([w + 1 for w in teacher.get_weights()])
    data, goal = load_data({"x": X, "y_kind": np.arange(32) % 2}), Goal(("kind", "size"))
    with pytest.raises(DataError, match=r"Expected labels for size too, got them for kind alone.*--loss kind=NAME: it"):
        fit(model, data, ALONE, goal=goal, folder=tmp_path)
    chosen = replace(ALONE, alpha=0.5, epochs=60, learning_rate=0.05, loss=("kind=categorical_crossentropy",))
    fit(model, data, chosen, teachers=[teacher], goal=goal, folder=tmp_path)
    ours, theirs = np.asarray(model(X)[1]), np.asarray(teacher(X)[1])
    assert np.abs(ours - theirs).mean() < 0.2 * np.abs(theirs - theirs.mean(axis=0)).mean() + 0.2
    with pytest.raises(DataError, match=r"for the outputs kind, size, got some for 'sice'\. Did you mean 'size'"):
        fit(model, load_data({"x": X, "y_sice": X}), ALONE, goal=goal, folder=tmp_path)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_odds_are_imitated_by_their_divergence(temperature: float) -> None:
    theirs, ours = RANDOM.standard_normal((2, 7, 3)).astype(np.float32)
    p, q = (1 / (1 + np.exp(-z / temperature)) for z in (theirs, ours))
    expected = temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1)
    np.testing.assert_allclose(soft_odds_losses(p, ours, temperature), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(as_odds(1 / (1 + np.exp(-theirs)), probabilities=True), theirs, rtol=1e-3, atol=1e-4)


def test_directions_are_imitated_whatever_their_length() -> None:
    vectors = RANDOM.standard_normal((4, 8)).astype(np.float32)
    manner = Manner("directions")
    np.testing.assert_allclose(manner.losses(vectors, 3 * vectors), 0, atol=1e-6)
    np.testing.assert_allclose(manner.losses(vectors, -vectors), 2, atol=1e-6)


# --- losses of one's own ---------------------------------------------------------------------------------------------

OWN = """
import tensorflow as tf
def each(labels, outputs):
    return tf.reduce_mean(tf.abs(tf.cast(labels, tf.float32) - outputs), axis=-1)
def coupled(labels, outputs):
    there = tf.cast(labels["there"], tf.float32)
    off = tf.reduce_mean(tf.abs(labels["place"] - outputs["place"]), axis=-1)
    return tf.abs(there - outputs["there"][:, 0]) + there * off
def decoded(labels, outputs):
    return tf.abs(outputs["there"] - labels[:, :1]) + tf.abs(outputs["place"] - labels[:, 1:])
def whole_of_all(labels, outputs):
    return tf.reduce_mean(outputs["there"])
def whole(labels, outputs):
    return tf.reduce_mean(tf.abs(labels - outputs))
def failing(labels, outputs):
    return tf.reshape(labels, [7, 7])
value = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "own_losses.py"


def test_a_function_of_one_s_own_is_minimized(own: Path) -> None:
    model, arrays = model_of((6,), ("out", 3, None)), {"x": X, "y": X[:, :3]}
    aims = aims_of(model, arrays, replace(ALONE, loss=("own_losses:each",)))
    expected = np.abs(np.asarray(model(X)) - X[:, :3]).mean()
    assert mean_of(model, aims, arrays) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("own_losses:whole", "own_losses:whole to give a number for each of 32 samples, got one number for the batch"),
        ("own_losses:failing", r"The loss own_losses:failing failed on labels \(32, 3\) and outputs \(32, 3\)"),
        ("own_losses:missing", "Expected a loss as module:function, got 'own_losses:missing'"),
        ("own_losses:value", "Expected 'own_losses:value' to name a function, got int"),
    ],
)
def test_a_function_that_is_no_loss_is_refused(own: Path, loss: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        aims_of(model_of((6,), ("out", 3, None)), {"x": X, "y": X[:, :3] + 1}, replace(ALONE, loss=(loss,)))


def _two_heads() -> tuple[Any, dict[str, np.ndarray]]:
    labels = {"y_there": (X[:, :1] > 0.5).astype("uint8"), "y_place": X[:, 1:3]}
    return model_of((6,), ("there", 1, None), ("place", 2, None)), {"x": X, **labels}


def test_a_function_of_all_heads_gets_labels_and_outputs_by_name(own: Path, tmp_path: Path) -> None:
    model, arrays = _two_heads()
    chosen = replace(ALONE, loss=("own_losses:coupled",), alpha=0.1, epochs=40, learning_rate=0.05)
    aims = aims_of(model, arrays, chosen)
    assert aims.notes == ("loss of there, place together: own_losses:coupled, as was said",)
    there, place = (np.asarray(output) for output in model(X))
    seen, off = arrays["y_there"][:, 0], np.abs(arrays["y_place"] - place).mean(axis=-1)
    first = np.mean(np.abs(seen - there[:, 0]) + seen * off)
    assert mean_of(model, aims, arrays) == pytest.approx(first, rel=1e-4)
    # Beside a teacher, who answers for each head, and with samples that count unlike.
    named = {re.sub("^([xy])", r"\1_train", name): array for name, array in arrays.items()}
    data = load_data({**named, "w_train": np.linspace(0.5, 1.5, 32).astype("float32")})
    fit(model, data, chosen, teachers=[_two_heads()[0]], goal=Goal(("there", "place")), folder=tmp_path)
    assert mean_of(model, aims, arrays) < 0.7 * first


def test_labels_of_no_head_alone_reach_the_function_as_they_are(own: Path) -> None:
    model, labels = _two_heads()[0], X[:, :3]
    aims = aims_of(model, {"x": X, "y": labels}, replace(ALONE, loss=("own_losses:decoded",)))
    there, place = (np.asarray(output) for output in model(X))
    expected = np.abs(there - labels[:, :1]) + np.abs(place - labels[:, 1:])
    assert mean_of(model, aims, {"x": X, "y": labels}) == pytest.approx(expected.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            ("own_losses:each",),
            r"failed on labels {there: \(32,\), place: \(32, 2\)} and outputs {there.*OUTPUT=own_los",
        ),
        (
            ("own_losses:whole_of_all",),
            "own_losses:whole_of_all to give a number for each of 32 samples, got one number",
        ),
        (("own_losses:coupled", "there=mse"), "Expected own_losses:coupled alone as --loss, .* got another for there"),
    ],
)
def test_a_function_that_takes_one_head_is_not_one_of_all(own: Path, loss: tuple[str, ...], words: str) -> None:
    model, arrays = _two_heads()
    with pytest.raises(ConfigError, match=words):
        aims_of(model, arrays, replace(ALONE, loss=loss))


def test_a_function_of_all_heads_wants_labels_that_are_theirs(own: Path) -> None:
    model, chosen = _two_heads()[0], replace(ALONE, loss=("own_losses:coupled",))
    with pytest.raises(DataError, match="Expected labels to train on, got samples without"):
        aims_of(model, {"x": X}, chosen)
    with pytest.raises(DataError, match=r"for the outputs there, place, got some for 'plase'\. Did you mean 'place'"):
        aims_of(model, {"x": X, "y_plase": X}, chosen)


def test_a_compiled_loss_gets_labels_as_keras_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tf, seen = load("tensorflow"), []

    def distance(labels: Any, outputs: Any) -> Any:
        seen.append((labels.dtype, tuple(labels.shape)))
        return tf.reduce_mean((labels - outputs) ** 2, axis=-1)

    monkeypatch.setitem(load("keras").saving.get_custom_objects(), "distance_of_mine", distance)
    loss = own_loss(LossSpec("distance_of_mine"))
    loss(tf.constant([0, 1]), np.float32([[0.5], [0.5]]))
    loss(tf.constant([2, 1]), tf.constant([[0.5, 0.1, 0.2], [0.5, 0.1, 0.2]])[..., :2])
    assert seen == [(tf.float32, (2, 1)), (tf.float32, (2,))]


@pytest.mark.parametrize("registered", [False, True])
def test_the_code_of_a_compiled_loss_is_the_user_s_to_bring(own: Path, tmp_path: Path, registered: bool) -> None:
    keras = load("keras")
    from own_losses import each  # type: ignore[import-not-found]

    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="out")(x))
    # As it is, and registered, whose package the file says before its name.
    model.compile("sgd", loss=keras.saving.register_keras_serializable("mine")(each) if registered else each)
    model.save(tmp_path / "model.keras")
    for library in (keras, load("tf_keras")):
        objects = library.saving.get_custom_objects()
        for key in [key for key in objects if key.rpartition(">")[2] == "each"]:
            del objects[key]
    found = load_model(tmp_path / "model.keras")
    arrays = {"x": X, "y": X[:, :3]}
    with pytest.raises(ConfigError, match=r"the loss 'each' that the model was compiled with, got no code.*--custom-"):
        aims_of(found.keras, arrays, compiled=found.compiled)
    found = load_model(tmp_path / "model.keras", custom_objects=own)
    (note,) = aims_of(found.keras, arrays, compiled=found.compiled).notes
    assert note == f"loss: {'mine>' * registered}each, as the model was compiled with"


def test_labels_of_another_size_than_the_output() -> None:
    with pytest.raises(DataError, match=r"0..2 for 4x4 places of output mask, got int64 4x4 from 0 to 3. Try labels"):
        aims_of(model_of((4, 4, 1), ("mask", 3, "softmax")), {"x": PICTURES, "y": np.arange(512).reshape(32, 4, 4) % 4})
    with pytest.raises(DataError, match="shape of the model's output, 4x4x3, got 5x5"):
        aims_of(model_of((4, 4, 1), ("mask", 3, "softmax")), {"x": PICTURES, "y": np.zeros((32, 5, 5), int)})


def test_raw_heads_need_a_loss() -> None:
    arrays = {"x": X, "y": X[:, :3]}
    with pytest.raises(ConfigError, match="Expected a loss for the output out, whose labels are not in its shape, got"):
        aims_of(model_of((6,), ("out", 3, None)), arrays, tasks={"": "detection"})


def test_an_embedding_learns_from_a_teacher_alone() -> None:
    with pytest.raises(DataError, match="outputs that learn from their teacher alone"):
        aims_of(model_of((6,), ("out", 3, None)), {"x": X, "y": np.arange(32) % 3}, tasks={"": "embedding"})
