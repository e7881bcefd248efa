"""Pruning reaches its sparsity in the Keras model and in the converted files, and says what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import compressed_models
import numpy as np
import pytest

from edgeopt import graph
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.steps import DEFAULTS
from edgeopt.techniques import in_file, prune, prune_sensitivity
from edgeopt.techniques.contract import Carried
from edgeopt.techniques.prune import Prune, validate
from edgeopt.techniques.prune_masks import Goal, renewals, zeros_of
from edgeopt.vocabulary import Promise, StepRecord

# Weights of `compressed_models.cnn`, by layer.
SIZES = {"stem": 3 * 3 * 1 * 8, "point": 8 * 16, "hidden": 3 * 3 * 16 * 32, "scores": 32 * 10}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return compressed_models.digits()


@pytest.fixture(scope="module")
def model() -> Any:
    return compressed_models.cnn()


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., tuple[Any, StepRecord]]:
    def run(model: Any, epochs: int = 2, **choices: Any) -> tuple[Any, StepRecord]:
        return prune.apply(Prune(epochs=epochs, batch_size=32, **choices), model, dataset, Carried(tmp_path))

    return run


@pytest.fixture(scope="module")
def pruned(model: Any, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StepRecord]:
    step = Prune(sparsity=0.8, epochs=2, end_epoch=1.5, batch_size=32, layer_sparsity={"scores": 0.5})
    return prune.apply(step, model, dataset, Carried(tmp_path_factory.mktemp("pruned")))


def change(record: StepRecord, layer: str) -> Any:
    return next(change for change in record.layers if change.layer == layer)


def test_every_layer_reaches_its_sparsity_and_the_rest_is_left_alone(model: Any, pruned: Any) -> None:
    result, record = pruned
    found = {name: compressed_models.sparsity(result.get_layer(name).kernel) for name in SIZES}
    assert found == pytest.approx({"stem": 0.8, "point": 0.8, "hidden": 0.8, "scores": 0.5}, abs=0.01)
    assert compressed_models.sparsity(result.get_layer("depth").depthwise_kernel) == 0
    assert change(record, "hidden").done == "80.0% of 4,608 weights zero"
    assert change(record, "depth").reason.startswith("depthwise kernels are few and fragile")
    assert all(promise.kept for promise in record.promises)
    assert record.history[-1]["sparsity"] > record.history[0]["sparsity"] > 0


def test_the_architecture_stays_and_the_model_that_came_in_is_as_it_was(model: Any, pruned: Any) -> None:
    result, _ = pruned
    assert [(type(a), a.name) for a in result.layers] == [(type(b), b.name) for b in model.layers]
    assert graph.is_flat(result)
    assert compressed_models.sparsity(model.get_layer("hidden").kernel) == 0


@pytest.mark.parametrize("scheme", ["float32", "int8", "float16"])
def test_zeros_are_in_the_file(pruned: Any, dataset: Dataset, scheme: str) -> None:
    result, record = pruned
    file = compressed_models.converted(result, scheme, dataset)
    promises = prune.check(Prune(), record, file)
    assert [promise.kept for promise in promises] == [True] * len(SIZES)
    zeros = SIZES["hidden"] - round(SIZES["hidden"] * 0.2)
    hidden = promises[2]
    assert (hidden.subject, hidden.limit, hidden.of) == ("hidden/kernel", zeros, SIZES["hidden"])
    assert hidden.measured is not None
    assert hidden.measured >= zeros


def test_a_file_without_the_zeros_breaks_the_promise(model: Any, pruned: Any, dataset: Dataset) -> None:
    promises = prune.check(Prune(), pruned[1], compressed_models.converted(model, "float32", dataset))
    assert [promise.kept for promise in promises] == [False] * len(SIZES)


def test_a_kernel_that_cannot_be_told_is_vouched_for_by_all_weights(pruned: Any, dataset: Dataset) -> None:
    result, record = pruned
    file = compressed_models.converted(result, "float32", dataset)

    def checked(zeros: int, weights: int) -> Promise:
        lost = Promise("zeros", "gone/kernel", limit=zeros, bound="least", of=weights)
        return prune.check(Prune(), replace(record, promises=(lost,)), file)[0]

    assert checked(100, 200).kept
    broken = checked(9000, 201)
    assert broken.kept is False
    assert broken.measured is None
    assert broken.note == "its tensor cannot be told in the file: the zeros of all weights stand for it"


def test_a_kernel_that_only_training_used_has_nothing_to_keep(pruned: Any, dataset: Dataset) -> None:
    result, record = pruned
    gone = replace(record.promises[0], subject="log_var/kernel", of=1234.0, limit=617.0)
    file = compressed_models.converted(result, "float32", dataset)
    *others, found = prune.check(Prune(), replace(record, promises=(*record.promises, gone)), file)
    assert (found.kept, found.note) == (None, "it is not in the file: no output needs it")
    assert all(promise.kept for promise in others)


def test_n_of_m_holds_along_the_inputs_in_the_file(model: Any, dataset: Dataset, run: Any) -> None:
    result, record = run(model, epochs=1, pattern="2:4")
    assert "needs more than 2 inputs, and it has 1" in change(record, "stem").reason
    assert compressed_models.sparsity(result.get_layer("hidden").kernel) == 0.5
    for scheme in ("float32", "int8"):
        promises = prune.check(Prune(), record, compressed_models.converted(result, scheme, dataset))
        assert [p.measured for p in promises if p.kind == "most weights left"] == [2] * 3
        assert all(promise.kept for promise in promises)


def test_a_file_with_zeros_elsewhere_breaks_the_pattern(pruned: Any, dataset: Dataset) -> None:
    result, record = pruned
    zeros = Promise("zeros", "hidden/kernel", limit=1000, bound="least", of=SIZES["hidden"])
    left = Promise("most weights left", "hidden/kernel", limit=2, of=4)
    asked = replace(record, promises=(zeros, left))
    enough, broken = prune.check(Prune(), asked, compressed_models.converted(result, "float32", dataset))
    assert enough.kept
    assert broken.kept is False
    assert (broken.measured or 0) > 2


def test_blocks_are_of_outputs_by_inputs_and_for_dense_layers(model: Any, dataset: Dataset, run: Any) -> None:
    result, record = run(model, epochs=1, pattern="1x16", sparsity=0.75)
    kernel = result.get_layer("hidden").kernel.numpy()
    blocks = kernel.reshape(-1, 16, kernel.shape[1])
    empty = (blocks == 0).all(axis=1)
    assert empty.mean() == pytest.approx(0.75, abs=0.01)
    assert (blocks != 0).any(axis=1).mean() == pytest.approx(0.25, abs=0.01)
    assert "blocks are for kernels of two axes" in change(record, "point").reason
    promises = prune.check(Prune(), record, compressed_models.converted(result, "float32", dataset))
    assert all(promise.kept for promise in promises)


def test_a_dense_layer_of_one_block_is_left_alone(model: Any, run: Any) -> None:
    _, record = run(model, epochs=1, pattern="16x4")
    assert change(record, "scores").reason == "its 32 inputs and 10 outputs are too few for blocks"


def test_zeros_that_are_there_stay_where_they_are(pruned: Any, run: Any) -> None:
    first, _ = pruned
    second, record = run(first, epochs=1, sparsity=0.6)
    for name, least in (("hidden", 0.8), ("scores", 0.6)):
        before, after = first.get_layer(name).kernel.numpy(), second.get_layer(name).kernel.numpy()
        assert (after[before == 0] == 0).all()
        assert compressed_models.sparsity(after) >= least - 0.01
    assert all(promise.kept for promise in record.promises)


def test_a_depthwise_kernel_is_pruned_when_its_kind_is_named(model: Any, dataset: Dataset, run: Any) -> None:
    result, record = run(model, epochs=1, layers=("DepthwiseConv2D", "scores"), schedule="constant")
    assert compressed_models.sparsity(result.get_layer("depth").depthwise_kernel) == 0.5
    assert change(record, "hidden").reason == "it was not asked for"
    promises = prune.check(Prune(), record, compressed_models.converted(result, "int8", dataset))
    assert [promise.kept for promise in promises] == [True, True]


def test_a_tiny_layer_is_left_alone_unless_it_is_named_or_measured(dataset: Dataset) -> None:
    layers = load("tf_keras").layers
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(2, 1, name="tiny")(x))
    model = load("tf_keras").Model(inputs, layers.Dense(10, name="scores")(x))
    share = 2 / (2 + 8 * 8 * 2 * 10)
    _, changes, _ = prune._goals(Prune(), model, dataset, 0)
    assert changes[0].reason.startswith(f"it has {share:.1%} of the weights: zeros there save nothing")
    for choices in ({"layers": ("*",)}, {"layer_sparsity": {"tiny": 0.5}}, {"by_sensitivity": True}):
        goals, _, _ = prune._goals(Prune(**choices), model, dataset, 0)
        assert [goal.kernel.name for goal in goals] == ["tiny/kernel:0", "scores/kernel:0"]


def test_spared_layers_are_told(model: Any, run: Any) -> None:
    result, record = run(model, epochs=1, spare=("stem",))
    assert change(record, "stem").reason == "it is spared"
    assert compressed_models.sparsity(result.get_layer("stem").kernel) == 0


def test_layers_of_any_kind_shared_and_with_several_inputs(dataset: Dataset, run: Any) -> None:
    layers = load("tf_keras").layers
    x = inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Reshape((8, 8))(x)
    x = layers.Conv1D(8, 3, padding="same", name="conv")(x)
    shared = layers.Dense(8, name="shared")
    x = shared(shared(layers.Masking()(x)))
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(6, name="memory", unroll=True)(x)
    model = load("tf_keras").Model(inputs, layers.Dense(10, name="scores")(x))
    result, record = run(model, epochs=2, sparsity=0.5, end_epoch=1.5)
    assert all(promise.kept for promise in record.promises)
    kernels = {promise.subject for promise in record.promises}
    assert {"attention/query/kernel", "memory/lstm_cell/recurrent_kernel"} <= kernels
    assert change(record, "attention").done == f"50.0% of {4 * 8 * 2 * 4} weights zero"
    file = compressed_models.converted(result, "float32", dataset)
    assert all(promise.kept for promise in prune.check(Prune(), record, file))


def test_sensitivity_spreads_the_sparsity_and_is_told(model: Any, run: Any) -> None:
    result, record = run(model, epochs=1, sparsity=0.6, by_sensitivity=True, layer_sparsity={"scores": 0.25})
    found = {name: compressed_models.sparsity(result.get_layer(name).kernel) for name in SIZES}
    assert found["scores"] == 0.25
    free = {name: size for name, size in SIZES.items() if name != "scores"}
    total = sum(found[name] * size for name, size in free.items()) / sum(free.values())
    assert total == pytest.approx(0.6, abs=0.02)
    assert len({round(found[name], 2) for name in free}) > 1
    told = [note.split(":")[0] for note in record.notes if note.startswith("sensitivity")]
    assert told == [f"sensitivity of {name}" for name in free]


def test_measuring_sensitivity_leaves_the_weights_as_they_were(model: Any, dataset: Dataset) -> None:
    kernel = model.get_layer("hidden").kernel
    before = kernel.numpy()
    losses = prune_sensitivity.measure(model, {"hidden": [kernel]}, dataset.training)
    assert np.array_equal(kernel.numpy(), before)
    assert losses["hidden"][0] < losses["hidden"][-1]


def test_the_layer_that_loses_less_gets_more_zeros_up_to_what_was_measured() -> None:
    losses = {"robust": (0.0,) * 6, "fragile": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}
    sizes = {"robust": 100, "fragile": 100}
    assert prune_sensitivity.spread(losses, sizes, 0.4) == pytest.approx({"robust": 0.8, "fragile": 0.0}, abs=0.16)
    spread = prune_sensitivity.spread(losses, sizes, 0.6)
    assert spread["robust"] == pytest.approx(prune_sensitivity.HIGHEST)
    assert sum(spread.values()) / 2 == pytest.approx(0.6, abs=0.01)


def test_early_stopping_waits_for_the_goal(dataset: Dataset, tmp_path: Path) -> None:
    trained = compressed_models.cnn()
    trained.compile("adam", "sparse_categorical_crossentropy")
    everything = dataset.training.arrays()
    trained.fit(next(iter(everything.inputs.values())), everything.labels, epochs=10, verbose=0)
    # Nothing is learned, so that every further zero makes it worse: the first epoch would be the best.
    step = Prune(sparsity=0.95, epochs=4, end_epoch=4, batch_size=32, learning_rate=1e-9, patience=1)
    result, record = prune.apply(step, trained, dataset, Carried(tmp_path))
    assert compressed_models.sparsity(result.get_layer("hidden").kernel) == pytest.approx(0.95, abs=0.01)
    assert all(promise.kept for promise in record.promises)


def test_a_killed_run_goes_on_with_its_zeros(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    step = Prune(sparsity=0.8, epochs=2, batch_size=32)
    whole, _ = prune.apply(step, model, dataset, Carried(tmp_path))
    again, record = prune.apply(step, model, dataset, Carried(tmp_path))
    assert len(record.history) == 2
    for before, after in zip(whole.get_weights(), again.get_weights()):
        assert np.array_equal(before, after)


def test_renewals_end_at_the_goal() -> None:
    assert (renewals(0, 10).begin, renewals(0, 10).end) == (1, 10)
    found = renewals(7, 1234)
    assert found.every == (1234 - 7) // 100
    assert found.end == 7 + (1234 - 7) // found.every * found.every
    assert found.at(found.end)
    assert not found.at(found.end + found.every)


def test_zeros_are_counted_as_they_are_made() -> None:
    kernel = load("tensorflow").Variable(np.ones((3, 3, 6, 5), np.float32))
    assert zeros_of(Goal(kernel, 0.8)) == 270 - round(270 * 0.2)
    # Of 6 inputs, 4 lose two and the 2 left over none.
    assert zeros_of(Goal(kernel, 0.5, n_of_m=(2, 4))) == 3 * 3 * 5 * 2
    dense = load("tensorflow").Variable(np.ones((32, 10), np.float32))
    assert zeros_of(Goal(dense, 0.75, block=(16, 1))) == 320 - 5 * 16


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"begin_epoch": 1, "begin_step": 3}, "begin_epoch or begin_step, got both"),
        ({"schedule": "constant", "end_epoch": 3}, "no end for a constant schedule"),
        ({"pattern": "4:2"}, "N:M, N zeros in every M inputs, or blocks RxC as pattern, got '4:2'"),
        ({"pattern": "1x1"}, "or blocks RxC as pattern, got '1x1'. Try 2:4 or 1x16"),
        ({"pattern": "2:4", "end_step": 3}, "no end for the pattern 2:4, which is set at once"),
        ({"pattern": "2:4", "by_sensitivity": True}, "one sparsity for every layer, that of the pattern 2:4"),
        ({"pattern": "2:4", "sparsity": 0.8}, "no sparsity beside the pattern 2:4, which makes it 50%, got 0.8"),
        ({"for_xnnpack": True, "sparsity": 0.5}, "sparsity of more than 0.67 with for_xnnpack"),
        ({"for_xnnpack": True, "sparsity": 0.8, "pattern": "1x16"}, "no pattern with for_xnnpack"),
    ],
)
def test_choices_that_contradict_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prune(**choices)


@pytest.mark.parametrize(
    ("choices", "steps", "message"),
    [
        ({"end_epoch": 12}, None, "got end_epoch: 12, which lies after the 10 epochs"),
        ({"begin_epoch": 10}, None, "got begin_epoch: 10, which lies after the 10 epochs"),
        ({"end_step": 41}, 4, r"got end_step: 41, which lies after the 40 steps of it \(10 epochs of 4\)"),
        ({"begin_epoch": 3, "end_epoch": 2}, None, "end after it begins, at 3, got an end at 2 epochs"),
        ({"begin_epoch": 3, "end_step": 8}, 4, "end after it begins, at 12, got an end at 8 steps"),
    ],
)
def test_a_schedule_must_fit_the_training(choices: dict[str, Any], steps: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Prune(**choices), DEFAULTS, steps)


def test_a_schedule_in_steps_is_looked_at_when_they_are_known(model: Any, run: Any) -> None:
    validate(Prune(end_step=10_000), DEFAULTS)
    with pytest.raises(ConfigError, match=f"got end_step: 10000, which lies after the {320 // 32} steps"):
        run(model, epochs=1, end_step=10_000)


def test_a_model_that_xnnpack_cannot_run_sparse_is_refused(model: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match=r"XNNPACK runs on its sparse kernels, got one that it does not.*Could not"):
        run(model, sparsity=0.8, for_xnnpack=True)


def test_for_xnnpack_takes_the_pointwise_convolutions_alone(dataset: Dataset) -> None:
    layers = load("tf_keras").layers
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, strides=2, name="head")(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2D(16, 1, name="point")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    model = load("tf_keras").Model(inputs, layers.Dense(10, name="scores")(layers.Flatten()(x)))
    goals, changes, _ = prune._goals(Prune(sparsity=0.8, for_xnnpack=True), model, dataset, 0)
    assert [goal.kernel.name for goal in goals] == ["point/kernel:0"]
    assert changes[0].reason == "XNNPACK's sparse kernels are for 1x1 convolutions"


def test_a_sparsity_for_an_unknown_layer_is_refused(model: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match=r"as layer_sparsity, got 'scorse', which no layer .* mean 'scores'"):
        run(model, layer_sparsity={"scorse": 0.9})


def test_a_model_without_kernels_is_refused(model: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match="layers to prune, got none: it has no kernels; it was not asked for"):
        run(model, layers=("norm",))


def test_tensors_are_found_by_name_or_as_the_only_one_of_their_size(pruned: Any, dataset: Dataset) -> None:
    file = compressed_models.converted(pruned[0], "float32", dataset)
    sought = [in_file.Sought("hidden/kernel", SIZES["hidden"]), in_file.Sought("renamed/kernel", SIZES["scores"])]
    found, everything = in_file.find(file, sought)
    assert [tensor.shape for tensor in found if tensor] == [(32, SIZES["hidden"] // 32), (10, 32)]
    assert len(everything) == len(SIZES) + 1


def test_the_prediction_says_what_will_and_what_will_not_be(model: Any) -> None:
    facts = KerasCount(model).facts("")
    told = prune.predict(Prune(sparsity=0.8), facts)
    assert told.gain.startswith("at 80 % zeros the gzipped int8 weights shrink to about")
    assert "a pruned file is as large as before" in told.reason
    assert "so no faster" in told.reason
    shrunk = {s: prune.predict(Prune(sparsity=s), facts).gain.split("about ")[1].split("%")[0] for s in (0.5, 0.9)}
    assert int(shrunk[0.9]) < int(shrunk[0.5]) < 100
    assert "1.2 to 2.4 times" in prune.predict(Prune(sparsity=0.8, for_xnnpack=True), facts).reason
