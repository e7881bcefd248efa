"""Students: from a file, narrower or shallower, that answer as their teacher does, and are as small in the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import compressed_models
import numpy as np
import pytest

from edgeopt import data
from edgeopt.choices import from_mapping
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, ModelError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.steps import DEFAULTS
from edgeopt.techniques import Carried, distill
from edgeopt.techniques.distill import Distill
from edgeopt.training import fit

CLASSES = 4


def stripes() -> Dataset:
    """Pictures of 8x8 with a bright stripe in one of four places."""
    rng = np.random.default_rng(0)
    y = np.arange(320) % CLASSES
    x = rng.random((320, 8, 8, 1), np.float32)
    for picture, place in zip(x, y):
        picture[2 * place : 2 * place + 2] += 0.6
    return data.load({"x_train": x[:256], "y_train": y[:256], "x_test": x[256:], "y_test": y[256:]})


def network(*, seed: int = 0) -> Any:
    """Three residual blocks of 16 channels, of which the last adds next to nothing, and a classifier."""
    keras = load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 1), name="x")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    for index in range(3):
        y = layers.Conv2D(24, 3, padding="same", activation="relu", name=f"wide_{index}")(x)
        y = layers.Conv2D(16, 1, name=f"narrow_{index}")(y)
        x = layers.Add(name=f"add_{index}")([x, y])
    x = layers.Flatten(name="flatten")(layers.AveragePooling2D(2, name="pool")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax", name="out")(x))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = network()
    fit(model, stripes(), replace(DEFAULTS, epochs=8, learning_rate=3e-3), folder=tmp_path_factory.mktemp("teacher"))
    # What a block adds is small, so its absence should be felt least.
    weak = model.get_layer("narrow_1")
    weak.set_weights([1e-4 * w for w in weak.get_weights()])
    assert accuracy(model) > 0.95
    return model


def accuracy(model: Any) -> float:
    return compressed_models.accuracy(model, stripes().validation)


def parameters(stem: int, wide: int, blocks: int) -> int:
    """Numbers in `network` with so many channels and blocks."""
    block = 9 * stem * wide + wide + wide * stem + stem
    return 9 * stem + 4 * stem + blocks * block + 4 * 4 * stem * CLASSES + CLASSES


def macs(stem: int, wide: int, blocks: int) -> int:
    return 64 * (9 * stem + blocks * (9 * stem * wide + wide * stem)) + 16 * stem * CLASSES


def converted(model: Any, *, integer: bool) -> Any:
    tf = load("tensorflow")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integer:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        x = stripes().calibration.take(32).arrays().inputs["x"]
        converter.representative_dataset = lambda: ([sample[None]] for sample in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return compressed_models.facts_of(converter.convert())


# --- students --------------------------------------------------------------------------------------------------------


def test_a_narrow_student_learns_and_is_as_small_in_the_file(teacher: Any, tmp_path: Path) -> None:
    before = [w.copy() for w in teacher.get_weights()]
    step = Distill(width=0.5, epochs=8, learning_rate=3e-3)
    student, record = distill.apply(step, teacher, stripes(), Carried(tmp_path))
    for now, then in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    # 24 * 0.5 lies between the multiples 8 and 16; the smaller one is taken.
    assert {layer.name: layer.filters for layer in student.layers if hasattr(layer, "filters")} == {
        **{"stem": 8},
        **{f"wide_{i}": 8 for i in range(3)},
        **{f"narrow_{i}": 8 for i in range(3)},
    }
    assert student.count_params() == parameters(8, 8, 3)
    assert accuracy(student) > 0.9
    assert len(record.history) == 8
    assert record.settings == {"width": 0.5, "epochs": 8, "learning_rate": 3e-3}
    done = {change.layer: change.done for change in record.layers}
    assert done["stem"] == "16 → 8 channels"
    assert done["wide_0"] == "24 → 8 channels"
    (kept,) = [change for change in record.layers if change.layer == "out"]
    assert (kept.done, "the model's output" in kept.reason) == ("", True)

    promised = {promise.kind: (promise.limit, promise.of) for promise in record.promises}
    assert promised == {
        "multiply-accumulates": (macs(8, 8, 3), macs(16, 24, 3)),
        "parameters": (parameters(8, 8, 3), parameters(16, 24, 3)),
    }
    for integer in (False, True):
        measured = {p.kind: p for p in distill.check(step, record, converted(student, integer=integer))}
        assert measured["multiply-accumulates"].measured == macs(8, 8, 3)
        assert all(promise.kept for promise in measured.values())
        broken = distill.check(step, record, converted(teacher, integer=integer))
        assert not any(promise.kept for promise in broken)


def test_a_student_of_fewer_macs_stays_within_them(teacher: Any, tmp_path: Path) -> None:
    step = Distill(macs=0.6, epochs=1)
    student, record = distill.apply(step, teacher, stripes(), Carried(tmp_path))
    total = sum(row.macs or 0 for row in KerasCount(student).rows)
    assert 0.3 * macs(16, 24, 3) < total <= 0.6 * macs(16, 24, 3)
    assert record.promises[0].limit == total


def test_a_shallow_student_lacks_the_blocks_that_are_needed_least(teacher: Any, tmp_path: Path) -> None:
    step = Distill(depth=0.7, epochs=1)
    student, record = distill.apply(step, teacher, stripes(), Carried(tmp_path))
    assert student.count_params() == parameters(16, 24, 2)
    names = {layer.name for layer in student.layers}
    assert not names & {"wide_1", "narrow_1", "add_1"}
    assert {"wide_0", "wide_2"} <= names
    assert [bool(change.done) for change in record.layers] == [False, True, False]
    assert record.layers[1].done == "left out with wide_1, narrow_1"


def test_depth_0_leaves_every_block_out(teacher: Any, tmp_path: Path) -> None:
    student, _ = distill.apply(Distill(depth=0.0, epochs=1), teacher, stripes(), Carried(tmp_path))
    assert student.count_params() == parameters(16, 24, 0)


def small() -> Any:
    keras = load("tf_keras")
    keras.utils.set_random_seed(5)
    inputs = keras.Input((8, 8, 1), name="x")
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="out")(keras.layers.Flatten()(x)))


def test_a_student_from_a_file_starts_with_its_weights_and_may_give_logits(teacher: Any, tmp_path: Path) -> None:
    small().save(tmp_path / "student.h5")
    step = Distill(student=str(tmp_path / "student.h5"), epochs=1, learning_rate=1e-9)
    student, record = distill.apply(step, teacher, stripes(), Carried(tmp_path / "still"))
    for now, then in zip(student.get_weights(), small().get_weights()):
        np.testing.assert_allclose(now, then, atol=1e-6)
    assert (record.promises[1].limit, record.promises[1].of) == (small().count_params(), parameters(16, 24, 3))
    student, _ = distill.apply(
        replace(step, epochs=15, batch_size=16, learning_rate=3e-3), teacher, stripes(), Carried(tmp_path / "trained")
    )
    assert accuracy(student) > 0.9


def test_more_teachers_hints_and_attention_are_learned_from(teacher: Any, tmp_path: Path) -> None:
    teacher.save(tmp_path / "other.h5")
    step = Distill(
        width=0.5,
        epochs=2,
        teachers=(str(tmp_path / "other.h5"),),
        hints={"stem_relu": "stem_relu"},
        attention={"add_2": "add_2"},
        hint_weight=0.5,
    )
    _, record = distill.apply(step, teacher, stripes(), Carried(tmp_path / "work"))
    assert record.history[1]["hint_loss"] < record.history[0]["hint_loss"]
    assert record.settings["attention"] == {"add_2": "add_2"}
    json.dumps(record.settings)


def test_without_labels_the_teacher_teaches_alone(teacher: Any, tmp_path: Path) -> None:
    x = stripes().training.arrays().inputs["x"]
    unlabelled = data.load({"x_train": x, "x_test": x[:8]})
    step = Distill(width=0.5, epochs=8, batch_size=16, learning_rate=3e-3, alpha=1.0)
    student, _ = distill.apply(step, teacher, unlabelled, Carried(tmp_path))
    assert accuracy(student) > 0.9


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({}, r"Expected one way to a student \(student, width, macs or depth\), got none. Try width: 0.5"),
        ({"width": 0.5, "depth": 0.5}, "Expected one way to a student .*, got width and depth"),
        ({"width": 0.5, "teacher": "other.keras"}, "Expected the model itself to be the teacher, got teacher other"),
    ],
    ids=["none", "two", "teacher"],
)
def test_contradictions_are_refused_before_any_model(said: dict[str, Any], match: str, tmp_path: Path) -> None:
    step = Distill(**said)
    with pytest.raises(ConfigError, match=match):
        distill.validate(step, step.training())
    with pytest.raises(ConfigError, match=match):
        distill.apply(step, None, stripes(), Carried(tmp_path))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"width": 1.0}, r"Expected more than 0 and less than 1 as width, got 1.0. Try 0.5"),
        ({"depth": 1.0}, r"Expected at least 0 and less than 1 as depth, got 1.0. Try 0.5"),
        ({"hints": ["a"]}, "Expected names with a value each as hints"),
        ({"with": 0.5}, "Unknown key 'with' at steps.0.*Did you mean 'width'"),
    ],
    ids=["width", "depth", "hints", "key"],
)
def test_values_out_of_their_limits_are_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        from_mapping(Distill, said, "steps[0].distill")


def test_a_model_without_residual_blocks_cannot_be_shallower(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Expected residual blocks to leave out, got a model whose layers all .* Try"
    ):
        distill.apply(Distill(depth=0.5), small(), stripes(), Carried(tmp_path))


def test_a_model_without_channels_to_cut_cannot_be_narrower(tmp_path: Path) -> None:
    keras = load("tf_keras")
    inputs = keras.Input((8, 8, 1), name="x")
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="out")(keras.layers.Flatten()(inputs)))
    with pytest.raises(
        ConfigError, match=r"Expected layers with channels to leave out, got .*out: they are the model's"
    ):
        distill.apply(Distill(width=0.5), model, stripes(), Carried(tmp_path))


def test_a_student_of_other_classes_or_of_no_layers_is_refused(teacher: Any, tmp_path: Path) -> None:
    keras = load("tf_keras")
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(inputs))).save(tmp_path / "seven.h5")
    with pytest.raises(ConfigError, match=r"Expected a student whose outputs are the teacher's, \['4'\], got \['7'\]"):
        distill.apply(Distill(student=str(tmp_path / "seven.h5")), teacher, stripes(), Carried(tmp_path / "a"))
    lite = tmp_path / "student.tflite"
    lite.write_bytes(load("tensorflow").lite.TFLiteConverter.from_keras_model(small()).convert())
    with pytest.raises(ModelError, match=r"Expected a Keras model that training can run, got .*student.tflite"):
        distill.apply(Distill(student=str(lite)), teacher, stripes(), Carried(tmp_path / "b"))


# --- predictions -----------------------------------------------------------------------------------------------------


def test_predictions_are_near_what_comes(teacher: Any) -> None:
    facts = KerasCount(teacher).facts("")
    told = distill.predict(Distill(width=0.5), facts)
    # No depthwise layers: all costs go with the square.
    assert told.gain.startswith(f"about 25% of the {macs(16, 24, 3):,} multiply-accumulates")
    assert "starts far below the teacher" in told.reason
    assert distill.predict(Distill(macs=0.6), facts).gain.startswith(f"60% of the {macs(16, 24, 3):,} multiply-accum")
    assert distill.predict(Distill(depth=0.5), facts).gain.startswith("at most 50% of the residual blocks")
    assert "student.keras" in distill.predict(Distill(student="student.keras"), facts).gain


@pytest.mark.slow
@pytest.mark.shared
def test_a_student_of_real_sounds_comes_near_its_teacher(shared: Path, tmp_path: Path) -> None:
    import ds_cnn
    import training

    from edgeopt.loading import load_model

    dataset = data.load(str(shared / "data" / "fsdd_logmel.npz"))
    settings = training.Training(epochs=10, learning_rate=4e-3)
    training.fit(ds_cnn.build, dataset, settings).save(tmp_path / "teacher.keras")
    teacher = load_model(tmp_path / "teacher.keras").keras
    student, _ = distill.apply(Distill(width=0.5, epochs=10), teacher, dataset, Carried(tmp_path))
    reached = [compressed_models.accuracy(model, dataset.validation) for model in (student, teacher)]
    assert reached[0] > reached[1] - 0.02
