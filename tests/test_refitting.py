"""Making up for a cut without training: what layers read, which channels they miss least, re-fits, statistics."""

from __future__ import annotations

import itertools
from typing import Any

import ds_cnn
import numpy as np
import pytest
from test_shrinking import farthest, image, keras, outputs, randomised, samples, transformer

from edgeopt import keras_bridge
from edgeopt.errors import DataError
from edgeopt.shrinking import Channels, Refitter, refitting, shrink
from edgeopt.shrinking.moments import Moments, Pairs, best_ridge, without
from edgeopt.shrinking.ordering import order
from edgeopt.shrinking.readers import Reader, columns, readers

SAMPLES = 96


def inputs_of(model: Any, count: int = SAMPLES) -> list[np.ndarray]:
    return samples(model, count)


def made_up_for(model: Any, cut: dict[str, np.ndarray], *, refit: bool = True) -> Any:
    """Returns the smaller model."""
    channels = Channels(model)
    made = Refitter(channels, inputs_of(model)).fit(channels, cut, refit=refit)
    smaller = shrink(made.channels, cut)
    # What is delivered answers as what was measured.
    assert farthest(list(made.answers), outputs(smaller, inputs_of(model))) < 1e-4
    return smaller


def repeated(model: Any, layer: str, count: int) -> Any:
    """Makes the last `count` channels of a convolution multiples of its first ones."""
    one = model.get_layer(layer)
    kernel, bias = one.get_weights()
    kernel[..., -count:] = kernel[..., :count] * 2
    bias[-count:] = bias[:count] * 2
    one.set_weights([kernel, bias])
    return model


# --- what layers read -------------------------------------------------------------------------------------------------

READERS = {
    "conv": lambda layers, x: layers.Conv2D(5, 3, padding="same", strides=2, name="it")(x),
    "dilated": lambda layers, x: layers.Conv2D(5, (3, 2), dilation_rate=2, name="it")(x),
    "even and strided": lambda layers, x: layers.Conv2D(5, (2, 4), strides=(3, 2), padding="same", name="it")(x),
    "dense": lambda layers, x: layers.Dense(5, name="it")(x),
    "transposed": lambda layers, x: layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="it")(x),
    "separable": lambda layers, x: layers.SeparableConv2D(5, 3, depth_multiplier=2, name="it")(x),
    "causal": lambda layers, x: layers.Conv1D(5, 3, padding="causal", dilation_rate=2, name="it")(
        layers.Reshape((36, 6))(x)
    ),
    "3-d": lambda layers, x: layers.Conv3D(5, (1, 3, 2), name="it")(layers.Reshape((1, 6, 6, 6))(x)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_computes_its_columns_times_its_matrix(name: str) -> None:
    layers = keras().layers
    x = layers.Input((6, 6, 6))
    y = READERS[name](layers, x)
    model = randomised(keras().Model(x, y))
    layer = model.get_layer("it")
    reader = next(one for one in readers(Channels(model)) if one.name == "it")
    value = np.random.default_rng(0).normal(size=(4, 6, 6, 6)).astype("float32")
    given = value.reshape(4, *layer.input_shape[1:])
    read = np.asarray(columns(layer, given.shape)(given, None))
    computed = read @ reader.matrix() + layer.bias.numpy()
    np.testing.assert_allclose(computed, np.asarray(layer(given)).reshape(-1, 5), atol=1e-4)
    places = np.array([[0, 1], [2, 3], [1, 1], [3, 0]])
    some = np.asarray(columns(layer, given.shape)(given, places))
    np.testing.assert_allclose(
        some, np.take_along_axis(read.reshape(4, -1, read.shape[1]), places[..., None], 1).reshape(some.shape)
    )


def test_readers_know_units_biases_and_normalizations() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(4, 3, name="first")(x)
        y = layers.BatchNormalization(name="bn")(layers.Conv2D(6, (1, 2), use_bias=False, name="second")(x))
        return layers.Conv2D(6, 3, groups=2, name="grouped")(y)

    channels = Channels(image(body))
    found = {reader.name: reader for reader in readers(channels)}
    assert set(found) == {"first", "second", "head"}
    assert (found["first"].units == -1).all(), "the model's input cannot go"
    np.testing.assert_array_equal(found["second"].units, np.tile(channels.makers["first"], 2))
    assert found["second"].bias is None
    assert found["second"].normalized.name == "bn"
    assert found["first"].normalized is None


# --- the order --------------------------------------------------------------------------------------------------------


def moments_of(x: np.ndarray, layer: Any, units: np.ndarray, name: str = "it") -> Moments:
    reader = Reader(layer, name, (0,), 0, -1, units, 1, None)
    return Moments(reader, ((np.arange(x.shape[1]), x.T @ x / len(x)),), x.mean(0), len(x))


def dense(weights: np.ndarray) -> Any:
    layer = keras().layers.Dense(weights.shape[1])
    layer.build((None, len(weights)))
    layer.set_weights([weights, np.zeros(weights.shape[1])])
    return layer


def lost(one: Moments, kept: np.ndarray) -> float:
    """Returns what a re-fit leaves of what a reader computes, with the ridge's share: what `order` counts."""
    made, _ = without(one, kept)
    change = made - one.reader.matrix()
    ((_, gram),) = one.centred()
    held = gram + np.eye(len(gram)) * (1e-3 * gram.diagonal().mean())
    return float((change * (held @ change)).sum() / (one.reader.matrix() * (gram @ one.reader.matrix())).sum())


@pytest.mark.parametrize("width", [1, 3])
def test_each_unit_that_goes_is_the_one_that_brute_force_would_take(width: int) -> None:
    rng = np.random.default_rng(0)
    group = Channels(image(lambda layers, x: layers.Conv2D(6, 3, name="conv")(x))).groups[0]
    units = np.tile(group.units, width)
    several = [
        moments_of(
            rng.normal(size=(300, 6 * width)) @ rng.normal(size=(6 * width, 6 * width)),
            dense(rng.normal(size=(6 * width, 4))),
            units,
        )
        for _ in range(2)
    ]
    gone, losses = order(group, several, fewest=2)
    kept = np.ones(7, bool)
    for number, place in enumerate(gone[:4]):
        tried = {}
        for other in np.flatnonzero(kept[:6]):
            without_it = kept.copy()
            without_it[other] = False
            tried[int(other)] = sum(lost(one, without_it) for one in several)
        assert min(tried, key=tried.__getitem__) == place
        assert losses[number] == pytest.approx(tried[int(place)], rel=1e-6)
        kept[place] = False
    assert sorted(gone) == list(range(6))


def test_the_best_pair_goes_where_greed_finds_it_and_many_go_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    group = Channels(image(lambda layers, x: layers.Conv2D(80, 1, name="conv")(x))).groups[0]
    x = rng.normal(size=(500, 80))
    x[:, 40:] = x[:, :40] @ rng.normal(size=(40, 40)) + 0.1 * rng.normal(size=(500, 40))
    one = moments_of(x, dense(rng.normal(size=(80, 8))), group.units)
    gone, losses = order(group, [one], fewest=10)
    assert (np.diff(losses) >= 0).all()
    # More removals than the inverse waits for: what is counted is still what a re-fit of all at once leaves.
    kept = np.ones(81, bool)
    kept[gone[:70]] = False
    assert losses[69] == pytest.approx(lost(one, kept), rel=1e-5)
    pairs = {
        pair: lost(one, np.isin(np.arange(81), pair, invert=True)) for pair in itertools.combinations(range(12), 2)
    }
    assert min(pairs.values()) >= losses[1] - 1e-9


# --- the re-fit -------------------------------------------------------------------------------------------------------


def test_channels_that_others_make_up_for_cost_nothing() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
        return layers.Conv2D(6, 3, padding="same", activation="relu", name="after")(layers.MaxPooling2D()(x))

    model = repeated(randomised(image(body, shape=(12, 12, 3))), "conv", 3)
    channels = Channels(model)
    refitter = Refitter(channels, inputs_of(model))
    group = next(g for g in channels.groups if g.name == "conv")
    gone, losses = order(group, [refitter.moments["after"]], ridge=1e-9)
    assert losses[2] < 1e-6 < losses[3]
    pairs = [{int(p) % 5 if p >= 5 else int(p)} for p in gone[:3]]
    assert len(set().union(*pairs)) == 3, "one of each pair"
    cut = {"conv": np.sort(gone[3:])}
    bare = shrink(channels, cut)
    whole, inputs = outputs(model, inputs_of(model)), inputs_of(model)
    assert farthest(whole, outputs(bare, inputs)) > 0.05
    assert farthest(whole, outputs(made_up_for(model, cut), inputs)) < 2e-3  # the ridge's share
    made = Refitter(channels, inputs_of(model))
    exact, _ = without(made.moments["after"], channels.kept(cut), ridge=1e-10)
    after = model.get_layer("after")
    smaller = shrink(channels, cut)
    layer = smaller.get_layer("after")
    rows = channels.kept(cut)[made.moments["after"].reader.units]
    layer.set_weights([exact[rows].reshape(layer.kernel.shape), after.bias.numpy()])
    assert farthest(whole, outputs(smaller, inputs)) < 1e-4


def test_nothing_changes_where_nothing_is_cut() -> None:
    model = randomised(keras_bridge.to_keras2(ds_cnn.build())[0])
    channels = Channels(model)
    made = Refitter(channels, inputs_of(model, 4)).fit(channels, {})
    for now, then in zip(made.channels.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)
    assert made.notes == ()


KINDS = {
    "residual": lambda layers, x: layers.ReLU()(layers.Add()([x, layers.Conv2D(10, 3, padding="same")(x)])),
    "depthwise": lambda layers, x: layers.Conv2D(6, 1)(
        layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x)))
    ),
    "concatenated": lambda layers, x: layers.Conv2D(6, 1)(layers.Concatenate()([x, layers.Conv2D(4, 1)(x), x])),
    "flattened": lambda layers, x: layers.Dense(6)(layers.Flatten()(layers.AveragePooling2D(3)(x))),
    "grouped": lambda layers, x: layers.Conv2D(6, 1)(layers.Conv2D(10, 3, groups=5)(x)),
    "separable": lambda layers, x: layers.SeparableConv2D(7, 3, depth_multiplier=2)(x),
    "transposed": lambda layers, x: layers.Conv2DTranspose(7, 3, strides=2)(x),
    "1-d": lambda layers, x: layers.GlobalAveragePooling1D()(layers.Conv1D(7, 3)(layers.Reshape((100, 10))(x))),
    "gated": lambda layers, x: layers.Conv2D(6, 1)(
        layers.Multiply()([x, layers.Dense(10, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))])
    ),
    "recurrent": lambda layers, x: layers.LSTM(6)(layers.Reshape((100, 10))(x)),
    "normalized over channels": lambda layers, x: layers.Conv2D(6, 1)(layers.LayerNormalization()(x)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_re_fit_loses_less_than_the_bare_cut(kind: str) -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(10, 3, name="cut")(x)))
        return KINDS[kind](layers, x)

    model = randomised(image(body, shape=(12, 12, 3)))
    cut = {g.name: np.arange(1, g.size) for g in Channels(model).groups if "cut" in g.layers}
    whole, inputs = outputs(model, inputs_of(model)), inputs_of(model)

    def error(smaller: Any) -> float:
        return float(np.square(outputs(smaller, inputs)[0] - whole[0]).mean())

    assert error(made_up_for(model, cut)) < 0.9 * error(shrink(Channels(model), cut))


def test_layers_used_twice_and_several_outputs_are_re_fitted_too() -> None:
    layers = keras().layers
    one, two = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    stem, shared = layers.Conv2D(6, 1, activation="relu", name="stem"), layers.Conv2D(8, 3, name="shared")
    a, b = shared(stem(one)), shared(stem(two))
    heads = [layers.Dense(3, name=f"head_{n}")(layers.GlobalMaxPooling2D()(v)) for n, v in enumerate((a, b))]
    model = repeated(randomised(keras().Model([one, two], heads)), "stem", 2)
    cut = {"stem": np.arange(4)}
    whole, inputs = outputs(model, inputs_of(model)), inputs_of(model)
    assert farthest(whole, outputs(made_up_for(model, cut), inputs)) < 5e-3
    assert farthest(whole, outputs(shrink(Channels(model), cut), inputs)) > 0.05


def test_attention_heads_and_their_blocks_are_cut_and_the_rest_re_fitted() -> None:
    model = randomised(transformer())
    cut = {"mha_0": np.array([0, 2, 3]), "mlp_1": np.arange(20), "embedding": np.arange(1, 16)}
    smaller = made_up_for(model, cut)
    assert smaller.get_layer("mlp_1").units == 20


@pytest.mark.parametrize("few", [1, 3])
def test_few_samples_and_dead_channels_are_held_by_the_ridge_and_told(few: int) -> None:
    layers = keras().layers
    x = layers.Input((20,))
    y = layers.Dense(30, activation="relu", name="wide")(x)
    model = randomised(keras().Model(x, layers.Dense(4, name="head")(y)))
    wide = model.get_layer("wide")
    kernel, bias = wide.get_weights()
    kernel[:, 5:9], bias[5:9] = 0, -1  # never above zero
    wide.set_weights([kernel, bias])
    channels = Channels(model)
    gone, _ = order(channels.groups[0], [Refitter(channels, inputs_of(model)).moments["head"]])
    assert set(gone[:4]) == {5, 6, 7, 8}
    refitter = Refitter(channels, inputs_of(model, few))
    gone, losses = order(channels.groups[0], [refitter.moments["head"]])
    assert np.isfinite(losses).all()
    made = refitter.fit(channels, {"wide": np.sort(gone[10:])})
    assert all(np.isfinite(answer).all() for answer in made.answers)
    (note,) = made.notes
    assert note.startswith(f"head: {few} positions of samples for 20 weights of each output: held to what they were")


def test_samples_are_needed() -> None:
    channels = Channels(image(lambda layers, x: layers.Conv2D(6, 3, name="conv")(x)))
    with pytest.raises(DataError, match="Expected samples to re-fit layers on, got none"):
        Refitter(channels, [np.zeros((0, 8, 8, 3), "float32")])


def test_large_matrices_are_kept_in_blocks_and_samples_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
        return layers.Conv2D(6, 3, name="after")(x)

    model = repeated(randomised(image(body, shape=(12, 12, 3))), "conv", 3)
    channels, whole = Channels(model), outputs(model, inputs_of(model))
    cut = {"conv": np.arange(5)}
    bare = farthest(whole, outputs(shrink(channels, cut), inputs_of(model)))
    monkeypatch.setattr(refitting, "_BLOCKS", (24,))
    refitter = Refitter(channels, inputs_of(model))
    assert [len(rows) for rows, _ in refitter.moments["after"].blocks] == [24] * 3
    # Rows beyond a block are re-fitted block by block: a window's place apart from the others.
    made = shrink(refitter.fit(channels, cut).channels, cut)
    assert farthest(whole, outputs(made, inputs_of(model))) < 0.3 * bare
    monkeypatch.setattr(refitting, "_MOMENTS_BYTES", 1000)
    assert Refitter(channels, inputs_of(model)).moments == {}, "too large even in blocks: left as they are"
    monkeypatch.setattr(refitting, "_HELD_BYTES", 4 * 10 * 12 * 12 * 3)
    assert Refitter(channels, inputs_of(model)).samples == 2


# --- statistics -------------------------------------------------------------------------------------------------------


def test_normalizations_get_the_statistics_of_the_samples() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, name="conv")(x)
        x = layers.ReLU()(layers.BatchNormalization(name="first")(x))
        x = layers.BatchNormalization(name="second")(layers.DepthwiseConv2D(3)(x))
        return layers.Conv2D(4, 1)(x)

    model = randomised(image(body, shape=(12, 12, 3)))
    cut = {"conv": np.array([0, 2, 3, 7])}
    smaller = made_up_for(model, cut, refit=False)
    # What was not reached by the cut keeps what it was trained with: the first normalization's inputs are as they were.
    kept = model.get_layer("first").get_weights()[2][cut["conv"]]
    np.testing.assert_array_equal(smaller.get_layer("first").get_weights()[2], kept)
    deeper = keras().Model(smaller.input, smaller.get_layer("second").input)
    seen = np.asarray(deeper(inputs_of(model)[0]))
    whole = model.get_layer("second").get_weights()
    np.testing.assert_array_equal(smaller.get_layer("second").get_weights()[2], whole[2][cut["conv"]])
    assert seen.shape[-1] == 4


def test_statistics_behind_a_cut_are_those_of_what_arrives() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, activation="relu", name="cut")(x)
        return layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Conv2D(5, 3, name="after")(x)))

    model = randomised(image(body, shape=(12, 12, 3)))
    smaller = made_up_for(model, {"cut": np.array([0, 2, 3])}, refit=False)
    seen = np.asarray(keras().Model(smaller.input, smaller.get_layer("bn").input)(inputs_of(model)[0]))
    _, _, mean, variance = smaller.get_layer("bn").get_weights()
    np.testing.assert_allclose(mean, seen.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, seen.var((0, 1, 2)), rtol=1e-4)
    before = model.get_layer("bn").get_weights()[2]
    assert np.abs(mean / before - 1).max() > 0.01, "they were others before"


def test_the_ridge_is_chosen_on_samples_that_are_not_fitted() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 2))

    def half(count: int, noise: float) -> Pairs:
        made = Pairs(40, 2)
        x = rng.normal(size=(count, 40))
        made.add(x, x @ true + noise * rng.normal(size=(count, 2)))
        return made

    many = best_ridge((half(2000, 0.0), half(2000, 0.0)), np.zeros((40, 2)), shifts=True)
    few = best_ridge((half(45, 20.0), half(45, 20.0)), np.zeros((40, 2)), shifts=True)
    assert many == 1e-3
    assert few == 1.0
    assert best_ridge((half(5, 1.0), Pairs(40, 2)), np.zeros((40, 2)), shifts=False) == 1.0
