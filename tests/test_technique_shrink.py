"""The technique shrink: budgets kept in the file that ships, rounds, searches, records and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import compressed_models
import digits_cnn
import numpy as np
import pytest
from click.testing import CliRunner

from edgeopt import conversion, data, formats, graph, keras_bridge
from edgeopt.cli import cli
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.loading import LoadedModel
from edgeopt.shrinking import Channels, Chooser, Chosen, Probe, Sensitivity, blocks, budget, drop, masked, shrink
from edgeopt.shrinking.channels import COUNTS
from edgeopt.shrinking.choosing import spread
from edgeopt.shrinking.criteria import l1, l2, median, scores
from edgeopt.shrinking.probing import distance
from edgeopt.steps import DEFAULTS, Training
from edgeopt.techniques import TECHNIQUES, Carried, Need
from edgeopt.techniques import shrink as shrink_module
from edgeopt.techniques.prune import Prune
from edgeopt.techniques.shrink import Shrink, apply, check, coarse_words, epochs_of_rounds, predict
from edgeopt.training import fit
from edgeopt.vocabulary import TensorSpec


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def model(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small residual network that has learned something."""
    trained, _ = keras_bridge.to_keras2(digits_cnn.build())
    training = Training(epochs=2, learning_rate=8e-3).over(DEFAULTS)
    fit(trained, digits, training, folder=tmp_path_factory.mktemp("trained"))
    return trained


@pytest.fixture(scope="module")
def inputs(digits: Dataset) -> list[np.ndarray]:
    return [digits.training.take(128).arrays().inputs["x"]]


@pytest.fixture(scope="module")
def channels(model: Any) -> Channels:
    return Channels(model)


@pytest.fixture(scope="module")
def probe(channels: Channels, inputs: list[np.ndarray]) -> Probe:
    return Probe(channels, inputs)


def in_file(model: Any, tmp_path: Path, scheme: str = "float32", calibration: Any = None) -> Any:
    specs = [
        tuple(TensorSpec(name, tuple(t.shape), graph.dtype_name(t)) for name, t in named)
        for named in (graph.input_names(model), graph.output_names(model))
    ]
    loaded = LoadedModel(tmp_path / "model.keras", "keras2", specs[0], specs[1], model)
    options = conversion.ConvertOptions(calibration=calibration)
    conversion.Converter(loaded, options).convert(scheme, tmp_path / f"{scheme}.tflite")
    return formats.facts(tmp_path / f"{scheme}.tflite")


def accuracy(model: Any, digits: Dataset) -> float:
    return compressed_models.accuracy(model, digits.validation)


# --- scores and losses ------------------------------------------------------------------------------------------------


def test_criteria_by_hand() -> None:
    filters = np.array([[3.0, -4.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(l1(filters), [7, 1, 0])
    np.testing.assert_allclose(l2(filters), [5, 1, 0])
    np.testing.assert_allclose(median(filters), [np.hypot(3, 5) + 5, np.hypot(3, 5) + 1, 5 + 1])


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm", "median", "taylor"])
def test_a_channel_that_does_nothing_is_worth_least(model: Any, inputs: list[np.ndarray], criterion: str) -> None:
    dull = graph.flatten(model)
    channels = Channels(dull)
    group = next(g for g in channels.groups if len(g.layers) == 1)
    for use in channels.uses.values():
        values = use.layer.get_weights()
        for value, axes in zip(values, use.weights, strict=True):
            for axis, ids in enumerate(axes):
                if ids is not None:
                    np.moveaxis(value, axis, 0)[ids == group.units[3]] = 0
        use.layer.set_weights(values)
    found = scores(channels, criterion, Probe(channels, inputs))[group.name]
    # The median's distance of one zero filter among many is only small.
    assert found.argmin() == 3 or (criterion == "median" and found[3] < np.median(found))
    assert (found >= 0).all()


def test_tied_layers_count_alike(model: Any) -> None:
    louder = graph.flatten(model)
    channels = Channels(louder)
    group = next(g for g in channels.groups if len(g.layers) > 1)
    before = scores(channels, "l1")[group.name]
    layer = louder.get_layer(group.layers[0])
    layer.set_weights([100 * w for w in layer.get_weights()])
    np.testing.assert_allclose(scores(Channels(louder), "l1")[group.name], before, rtol=1e-5)


def test_what_a_cut_loses_is_measured_with_masks(
    channels: Channels, probe: Probe, inputs: list[np.ndarray], model: Any
) -> None:
    group = channels.groups[-1]
    cut = {group.name: np.arange(group.size // 2)}
    before, after = np.asarray(model(inputs[0])), np.asarray(shrink(channels, cut)(inputs[0]))
    divergence = (before * (np.log(before + 1e-7) - np.log(after + 1e-7))).sum(-1).mean()
    assert probe.loss(cut) == pytest.approx(divergence, rel=1e-3)
    np.testing.assert_allclose(masked(channels, cut)(inputs[0])[0], after, atol=1e-5)
    assert probe.loss({}) == pytest.approx(0, abs=1e-6)


def test_fisher_foretells_what_single_channels_lose(channels: Channels, probe: Probe) -> None:
    group = channels.groups[-1]
    measured = [probe.loss({group.name: np.delete(np.arange(group.size), i)}) for i in range(0, group.size, 3)]
    foretold = probe.fisher()[group.units[::3]]
    ranks = [np.argsort(np.argsort(values)) for values in (measured, foretold)]
    assert np.corrcoef(*ranks)[0, 1] > 0.7


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_models_without_class_probabilities_are_measured_too(activation: str | None) -> None:
    layers = load("tf_keras").layers
    x = layers.Input((5,))
    y = layers.Dense(3, activation=activation)(layers.Dense(8, activation="relu", name="hidden")(x))
    channels = Channels(load("tf_keras").Model(x, y))
    probe = Probe(channels, [np.random.default_rng(0).normal(size=(64, 5)).astype("float32")])
    assert probe.loss({"hidden": np.arange(2)}) > probe.loss({"hidden": np.arange(7)}) >= 0
    assert probe.fisher().shape == (8,)
    assert probe.fisher().max() > 0


def test_a_probe_needs_samples(channels: Channels) -> None:
    with pytest.raises(DataError, match="Expected samples to measure channels on, got none"):
        Probe(channels, [np.zeros((0, 8, 8, 1), "float32")])


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_sizes_are_multiples_where_they_can_be(channels: Channels) -> None:
    group = replace(channels.groups[0], units=np.arange(36))
    assert budget.allowed(group, 8) == [36, 32, 24, 16, 8]
    assert budget.allowed(replace(group, units=np.arange(8)), 8) == [8]
    # Groups of 4 channels: two of them make a multiple of 8.
    assert budget.allowed(replace(group, units=np.arange(7), width=4), 8) == [7, 6, 4, 2]
    # An eighth stays.
    assert budget.allowed(replace(group, units=np.arange(16)), 1)[-1] == 16 // 8


def test_losses_between_measured_sizes_are_drawn_straight_and_never_fall() -> None:
    one = Sensitivity("conv", (16, 12, 8), (0.0, 0.4, 0.3))
    assert one.at(16) == 0
    assert one.at(14) == pytest.approx(0.2)
    assert one.at(8) == pytest.approx(0.4)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("by_sensitivity", [True, False])
def test_budgets_are_met_and_used(model: Any, inputs: list[np.ndarray], count: str, by_sensitivity: bool) -> None:
    chooser = Chooser(model, inputs, criterion="l1", kinds=("channels",), multiple_of=4, by_sensitivity=by_sensitivity)
    limit = 0.6 * getattr(chooser.channels.cost(), count)
    chosen = chooser.within(count, limit)
    assert 0.8 * limit < getattr(Channels(shrink(chosen.channels, chosen.cut)).cost(), count) <= limit
    assert all(len(kept) % 4 == 0 for kept in chosen.cut.values())
    assert len(chooser.sensitivities) == (len(chooser.channels.groups) if by_sensitivity else 0)


def test_a_search_for_a_cut_that_was_killed_goes_on_where_it_was(
    model: Any, inputs: list[np.ndarray], tmp_path: Path
) -> None:
    file, few = tmp_path / "step" / "tried.json", [values[:16] for values in inputs]

    def chosen(most: int) -> tuple[int, Any]:
        computed = 0

        def remember(key: str, compute: Callable[[], float]) -> float:
            def counted() -> float:
                nonlocal computed
                if computed == most:
                    raise KeyboardInterrupt
                computed += 1
                return compute()

            return shrink_module._remembered(file, key, counted)

        asked: dict[str, Any] = {"criterion": "l1", "kinds": ("channels",), "multiple_of": 8, "tries": 1}
        try:
            chooser = Chooser(model, few, remember=remember, **asked)
            found = chooser.within("macs", 0.6 * chooser.channels.cost().macs)
        except KeyboardInterrupt:
            return computed, None
        return computed, {name: kept.tolist() for name, kept in found.cut.items()}

    assert chosen(2) == (2, None)
    computed, cut = chosen(10**6)
    assert computed == len(json.loads(file.read_text())) - 2
    assert chosen(0) == (0, cut)


def test_what_loses_less_is_cut_more(model: Any, inputs: list[np.ndarray]) -> None:
    chooser = Chooser(model, inputs, criterion="l1", kinds=("channels",))
    groups = chooser.channels.groups
    losses = {g.name: Sensitivity(g.name, (g.size, 1), (0.0, 1.0)) for g in groups}
    spare = groups[0].name
    losses[spare] = Sensitivity(spare, (groups[0].size, 1), (0.0, 1000.0))
    total = chooser.channels.cost().macs
    sizes = budget.within(chooser.channels, 0.7 * total, count="macs", groups=groups, multiple_of=1, losses=losses)
    assert sizes[0] == groups[0].size
    assert (sizes[1:] < [g.size for g in groups[1:]]).any()


def test_no_group_becomes_the_neck_of_the_bottle(model: Any, inputs: list[np.ndarray]) -> None:
    chooser = Chooser(model, inputs, criterion="l1", kinds=("channels",))
    groups, total = chooser.channels.groups, chooser.channels.cost().macs
    losses = {g.name: Sensitivity(g.name, (g.size, 1), (0.0, 1.0)) for g in groups}
    free = groups[-1].name
    losses[free] = Sensitivity(free, (groups[-1].size, 1), (0.0, 0.0))
    asked = {"count": "macs", "groups": groups, "multiple_of": 1}
    alike = budget.within(chooser.channels, 0.5 * total, **asked)
    sizes = budget.within(chooser.channels, 0.5 * total, losses=losses, **asked)
    # What loses nothing alone is cut most, and all the same to no less than half of what an even cut leaves.
    assert sizes[-1] == min(sizes)
    assert 0.5 * alike[-1] <= sizes[-1] + 1 < alike[-1]


def test_every_size_that_a_group_may_have_was_measured(model: Any, inputs: list[np.ndarray]) -> None:
    chooser = Chooser(model, inputs, criterion="l1", kinds=("channels",))
    for group, measured in zip(chooser.channels.groups, chooser.sensitivities, strict=True):
        assert min(measured.sizes) <= budget.allowed(group, 1)[-1] == group.size // 8


def test_a_budget_out_of_reach_says_what_can_be_had(model: Any, inputs: list[np.ndarray]) -> None:
    chooser = Chooser(model, inputs, criterion="l1", kinds=("channels",), multiple_of=16)
    with pytest.raises(
        ConfigError, match=r"Expected to get down to 10 macs, got [0-9,]+ with every group .* multiple_of: 8"
    ):
        chooser.within("macs", 10)


def test_blocks_go_where_channels_do_not_do(model: Any, inputs: list[np.ndarray]) -> None:
    silent = graph.flatten(model)
    channels = Channels(silent)
    # The first block's branch ends in a normalization: without scale and shift it adds nothing.
    adds = next(c for c in channels.calls if type(c.layer).__name__ == "Add")
    makers = {id(t): c for c in channels.calls for t in c.outputs}
    norm = next(makers[id(t)].layer for t in adds.args[0] if type(makers[id(t)].layer).__name__ == "BatchNormalization")
    norm.set_weights([np.zeros_like(w) if i < 2 else w for i, w in enumerate(norm.get_weights())])
    (block,) = blocks(silent)
    # Beside the block a group may go that is too small for the budget.
    asked = {*block.layers, next(g for g in channels.groups if len(g.layers) == 1).name}
    chooser = Chooser(silent, inputs, criterion="l1", kinds=("channels", "blocks"), multiple_of=4, layers=asked)
    chosen = chooser.within("macs", 0.3 * chooser.channels.cost().macs)
    assert chosen.dropped == (adds.name,)
    whole, smaller = np.asarray(silent(inputs[0])), np.asarray(drop(silent, chosen.dropped)(inputs[0]))
    np.testing.assert_allclose(whole, smaller, atol=1e-4)


def test_the_spread_is_searched_among_few_cuts_and_the_best_is_taken() -> None:
    goal = np.array([3, 1, 4])
    asked: list[tuple[int, ...]] = []

    def loss(sizes: np.ndarray) -> float:
        asked.append(tuple(sizes))
        return float(np.square(sizes - goal).sum())

    def neighbours(sizes: np.ndarray) -> list[np.ndarray]:
        return [sizes + np.eye(3, dtype=int)[i] - np.eye(3, dtype=int)[j] for i in range(3) for j in range(3) if i != j]

    first = [np.array([8, 0, 0]), np.array([0, 8, 0]), np.array([8, 0, 0])]
    lost, best = spread(first, loss, neighbours, tries=40)
    assert lost == 0
    np.testing.assert_array_equal(best, goal)
    assert len(asked) == len(set(asked)) <= 2 + 40
    asked.clear()
    lost, _ = spread(first, loss, neighbours, tries=3)
    assert len(asked) == 2 + 3
    assert lost == min(np.square(np.array(sizes) - goal).sum() for sizes in asked)


def test_exchanges_spend_what_the_budget_leaves(model: Any, inputs: list[np.ndarray]) -> None:
    channels = Channels(model)
    losses = {g.name: Sensitivity(g.name, (g.size, 1), (0.0, 1.0)) for g in channels.groups}
    limit = 0.6 * channels.cost().macs
    asked: dict[str, Any] = {"count": "macs", "groups": channels.groups, "multiple_of": 8, "losses": losses}
    sizes = budget.within(channels, limit, **asked)
    others = budget.exchanges(channels, sizes, limit, **asked)
    assert others
    for other in others:
        assert channels.cost(other).macs <= limit
        assert (other > sizes).any()
        assert (other < sizes).any()


def test_a_cut_is_judged_by_the_model_that_makes_up_for_it(model: Any, inputs: list[np.ndarray]) -> None:
    asked: dict[str, Any] = {"criterion": "reconstruction", "kinds": ("channels",), "tries": 0}
    refitted, bare = Chooser(model, inputs, **asked), Chooser(model, inputs, refit=False, **asked)
    for one, other in zip(refitted.sensitivities, bare.sensitivities, strict=True):
        assert one.sizes == other.sizes
        assert sum(one.losses) < sum(other.losses)


# --- the technique ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halved(model: Any, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    step = Shrink(macs=0.5, rounds=2, epochs=3)
    before = [w.copy() for w in model.get_weights()]
    smaller, record = apply(step, model, digits, Carried(tmp_path_factory.mktemp("halved")))
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    return step, smaller, record


@pytest.fixture(scope="module")
def untrained(model: Any, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A quarter of the MACs gone without training, from samples without labels that calibrate."""
    samples = data.load(calibration=digits.training.take(200).arrays().inputs["x"])
    assert not samples.training.has_labels
    step = Shrink(macs=0.75, epochs=0)
    return step, *apply(step, model, samples, Carried(tmp_path_factory.mktemp("untrained")))


def test_a_quarter_of_the_macs_goes_without_training_and_without_labels(
    untrained: Any, model: Any, digits: Dataset, tmp_path: Path
) -> None:
    step, smaller, record = untrained
    assert all(promise.kept for promise in check(step, record, in_file(smaller, tmp_path)))
    assert record.history == ()
    assert accuracy(smaller, digits) > accuracy(model, digits) - 0.03
    bare, _ = apply(replace(step, refit=False, criterion="l1"), model, digits, Carried(tmp_path / "bare"))
    inputs = digits.validation.arrays().inputs["x"]
    whole, refitted, cut = (np.asarray(one(inputs)) for one in (model, smaller, bare))
    assert distance([whole], [refitted]) < 0.2 * distance([whole], [cut])


def test_without_an_epoch_samples_of_any_kind_do() -> None:
    row = TECHNIQUES["shrink"]
    assert row.needs_of(Shrink(macs=0.5).training()) == (Need.TRAINING, Need.LABELS)
    assert row.needs_of(Shrink(macs=0.5, alpha=1.0).training()) == (Need.TRAINING,)
    # What the recipe says of all its trainings does not make one of none.
    assert row.needs_of(Shrink(macs=0.5, epochs=0).training(Training(epochs=7))) == (Need.CALIBRATION,)
    with pytest.raises(ConfigError, match="Expected at least 1 and at most 100000 as epochs, got 0"):
        Prune(sparsity=0.5, epochs=0)


def test_the_command_shrinks_without_labels(model: Any, digits: Dataset, tmp_path: Path) -> None:
    model.save(tmp_path / "model.h5")
    np.savez(tmp_path / "samples.npz", x=digits.training.take(100).arrays().inputs["x"])
    words = ["shrink", str(tmp_path / "model.h5"), "--data", str(tmp_path / "samples.npz"), "--macs", "0.8"]
    done = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "small.tflite"), "--epochs", "0"])
    assert done.exit_code == 0, done.output
    assert "multiply-accumulates: promised at most" in done.output
    with pytest.raises(DataError, match=r"Expected labels for shrink, got samples without"):
        CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "other.tflite")], catch_exceptions=False)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_half_the_macs_are_gone_from_the_file(
    halved: Any, model: Any, digits: Dataset, tmp_path: Path, scheme: str
) -> None:
    step, smaller, record = halved
    file = in_file(smaller, tmp_path, scheme, digits.calibration)
    promises = check(step, record, file)
    assert [promise.kept for promise in promises] == [True, True]
    macs = Channels(model).cost().macs
    assert (promises[0].limit, promises[0].of) == (macs / 2, macs)
    assert promises[0].measured == Channels(smaller).cost().macs


def test_a_share_of_the_bytes_is_counted_in_the_int8_file(model: Any, digits: Dataset, tmp_path: Path) -> None:
    step = Shrink(bytes=0.5, epochs=1)
    smaller, record = apply(step, model, digits, Carried(tmp_path / "work"))
    *_, stored = check(step, record, in_file(smaller, tmp_path, "int8", digits.calibration))
    assert (stored.kind, stored.kept) == ("bytes of int8 weights, biases and scales", True)
    counted = Channels(smaller).cost().bytes
    assert stored.measured == pytest.approx(counted, rel=0.02)
    *_, unknown = check(step, record, in_file(smaller, tmp_path))
    assert unknown.kept is None


def test_promises_that_are_not_kept_say_so(halved: Any, model: Any, tmp_path: Path) -> None:
    step, _, record = halved
    assert [promise.kept for promise in check(step, record, in_file(model, tmp_path))] == [False, False]


def test_recovery_brings_the_accuracy_back(halved: Any, model: Any, digits: Dataset) -> None:
    assert accuracy(halved[1], digits) > accuracy(model, digits) - 0.03


def test_what_is_left_imitates_the_whole_model_where_branches_join(
    halved: Any, model: Any, digits: Dataset, tmp_path: Path
) -> None:
    assert all("hint_loss" in row for row in halved[2].history)
    # A layer of another size in the teacher, here the model before an earlier cut, gives no hint.
    channels = Channels(model)
    smaller = shrink(channels, {group.name: np.arange(group.size // 2) for group in channels.groups})
    few, step = replace(digits, training=digits.training.take(64)), Shrink(width=0.8, multiple_of=1, epochs=1)
    for name, original, expected in (("itself", None, True), ("before", model, False)):
        _, record = apply(step, smaller, few, Carried(tmp_path / name, original=original))
        assert ("hint_loss" in record.history[0]) == expected
    alone = replace(step, teacher="none")
    _, record = apply(alone, smaller, few, Carried(tmp_path / "alone"))
    assert "hint_loss" not in record.history[0]


def test_the_record_says_what_became_of_every_layer(halved: Any, model: Any) -> None:
    _, smaller, record = halved
    changes = {change.layer: change for change in record.layers}
    for call in Channels(model).calls:
        if type(call.layer).__name__ not in ("Conv2D", "Dense"):
            continue
        change, kernel = changes[call.name], smaller.get_layer(call.name).kernel
        before, after = call.layer.kernel.shape[-1], kernel.shape[-1]
        assert change.done == (f"{before} → {after} channels" if after != before else "")
        assert bool(change.reason) == (after == before)
        assert after % 8 == 0 or after == 10
    assert any(change.done for change in record.layers)
    assert {row["round"] for row in record.history} == {1.0, 2.0}
    assert len(record.history) == 3
    assert sum("alone: " in note for note in record.notes) == len(Channels(model).groups)


def test_layers_with_one_multiple_to_cut_to_are_named(channels: Channels) -> None:
    cut = Chosen((), channels, {group.name: np.arange(16) for group in channels.groups})
    narrow = ", ".join(f"{group.name} (16 of 32)" for group in channels.groups if group.size == 32)
    assert narrow
    assert coarse_words(Shrink(macs=0.5, multiple_of=16), cut) == [
        f"cut to the only multiple of 16 there is: {narrow}; multiple_of 8 may lose less, and runtimes that compute "
        "16 channels at a time are slower with it"
    ]
    assert coarse_words(Shrink(macs=0.5), cut) == []
    assert coarse_words(Shrink(macs=0.5, multiple_of=16), Chosen((), channels, {})) == []


def test_a_killed_run_goes_on_with_the_cut_it_had_decided(model: Any, digits: Dataset, tmp_path: Path) -> None:
    channels = Channels(model)
    decided = {group.name: list(range(1, group.size)) for group in channels.groups}
    (tmp_path / "cut.json").write_text(json.dumps({"dropped": [], "cut": decided}))
    smaller, _ = apply(Shrink(width=0.5, epochs=1), model, digits, Carried(tmp_path))
    assert [g.size for g in Channels(smaller).groups] == [g.size - 1 for g in channels.groups]


def test_width_halves_every_group_that_may_go(model: Any, digits: Dataset, tmp_path: Path) -> None:
    spared = Channels(model).groups[0].layers[0]
    step = Shrink(width=0.5, epochs=1, spare=(spared,), criterion="median")
    smaller, record = apply(step, model, digits, Carried(tmp_path))
    groups = Channels(model).groups
    left = {g.name: g.size for g in Channels(smaller).groups}
    assert left == {g.name: g.size if spared in g.layers else g.size // 2 for g in groups}
    reasons = {change.layer: change.reason for change in record.layers}
    assert reasons[spared] == f"not asked for: {spared}"
    assert reasons[groups[0].layers[1]] == f"not asked for: {spared} (they go together)"


@pytest.mark.slow
def test_latency_is_searched_and_timed(model: Any, digits: Dataset, tmp_path: Path) -> None:
    step = Shrink(latency=0.8, epochs=1, multiple_of=4)
    smaller, record = apply(step, model, digits, Carried(tmp_path))
    assert Channels(smaller).cost().macs < Channels(model).cost().macs
    promise = record.promises[-1]
    assert (promise.kind, promise.unit) == ("latency", "ms")
    assert promise.of is not None
    assert promise.limit == pytest.approx(0.8 * promise.of)
    assert "% of the MACs take" in record.notes[0]
    assert check(step, record, in_file(smaller, tmp_path))[-1] == promise


def test_a_transformer_s_heads_and_blocks_count_in_the_file(tmp_path: Path) -> None:
    layers = load("tf_keras").layers
    x = tokens = layers.Input((6, 16))
    for number in range(2):
        x = layers.Add()([x, layers.MultiHeadAttention(4, 4, name=f"mha_{number}")(x, x)])
        y = layers.Dense(32, activation="relu", name=f"mlp_{number}")(x)
        x = layers.Add()([x, layers.Dense(16, name=f"back_{number}")(y)])
    head = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    model = load("tf_keras").Model(tokens, head)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "tokens.npz", x=rng.normal(size=(80, 6, 16)).astype("float32"), y=(np.arange(80) % 3).astype("int64")
    )
    step = Shrink(macs=0.5, units=("channels", "heads", "blocks"), multiple_of=4, epochs=1)
    smaller, record = apply(step, model, data.load(str(tmp_path / "tokens.npz")), Carried(tmp_path))
    assert all(promise.kept for promise in check(step, record, in_file(smaller, tmp_path)))
    done = {change.layer: change.done for change in record.layers}
    assert any("heads" in words or "gone with its block" in words for words in done.values())


# --- what may be said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "Expected one of macs, parameters, bytes, width, latency as the share to keep, got none"),
        ({"macs": 0.5, "width": 0.5}, "got macs and width"),
        (
            {"macs": 0.5, "units": ("channel",)},
            r"Expected units of channels, heads, blocks, got 'channel'\. Did you mean",
        ),
        ({"macs": 0.5, "units": ()}, "Expected some of channels, heads, blocks as units, got none"),
        ({"width": 0.5, "units": ("blocks",)}, "Expected a budget of macs, parameters or latency"),
        ({"macs": 0.5, "units": ("blocks",), "by_sensitivity": False}, "and by_sensitivity with units: blocks"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Shrink(**said)


def test_epochs_are_divided_over_the_rounds() -> None:
    assert epochs_of_rounds(7, 1) == [7]
    assert epochs_of_rounds(12, 3) == [3, 3, 6]
    assert epochs_of_rounds(3, 3) == [1, 1, 1]
    assert epochs_of_rounds(0, 2) == [0, 0]
    with pytest.raises(ConfigError, match=r"Expected at least one epoch for each of 3 rounds, got 2\. Try epochs: 6"):
        epochs_of_rounds(2, 3)


def test_predictions_say_what_gets_smaller(model: Any) -> None:
    from edgeopt.inspection.keras_layers import KerasCount

    facts = KerasCount(model).facts("")
    assert facts.macs == Channels(model).cost().macs
    assert predict(Shrink(macs=0.5), facts).gain == f"50% of the {facts.macs:,} MACs, and smaller files"
    alone, several = (predict(Shrink(macs=0.5, rounds=rounds), facts) for rounds in (1, 3))
    assert alone == several, "rounds are not shown to lose less"
    assert "no training" in predict(Shrink(macs=0.5, epochs=0), facts).reason
    assert "no multiples of 8" in predict(Shrink(width=0.9, multiple_of=2), facts).reason
