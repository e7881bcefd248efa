"""Structured pruning: what goes together, surgery against masks, costs without building, and what may never go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import autoencoder
import digits_cnn
import ds_cnn
import mobilenet_v2
import numpy as np
import pytest
import resnet8
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt import graph, keras_bridge
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.shrinking import CHANNELS, HEADS, Channels, blocks, drop, joints, masked, shrink

Cut = dict[str, np.ndarray]


def keras() -> Any:
    return load("tf_keras")


def randomised(model: Any, seed: int = 0) -> Any:
    """Moves what a fresh model holds ones and zeros in, so that a wrong slice of it shows."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = [
            rng.uniform(0.5, 1.5, w.shape).astype("float32") if w.ndim < 2 and w.dtype == np.float32 else w
            for w in layer.get_weights()
        ]
        layer.set_weights(values)
    return model


def random_cut(channels: Channels, seed: int = 0) -> Cut:
    rng = np.random.default_rng(seed)
    return {
        g.name: np.sort(rng.choice(g.size, max(1, int(g.size * rng.uniform(0.3, 0.9))), replace=False))
        for g in channels.groups
    }


def samples(model: Any, count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        rng.normal(0, 1, (count, *(d or 6 for d in t.shape[1:]))).astype("float32")
        if t.dtype.is_floating
        else rng.integers(0, 10, (count, *(d or 6 for d in t.shape[1:])))
        for t in model.inputs
    ]


def outputs(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(each) for each in graph.leaves(result)]


def farthest(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max() / (np.ptp(a) + 1e-9)) for a, b in zip(some, others, strict=True))


def proven(model: Any, *, seed: int = 0) -> tuple[Channels, Any]:
    """Cuts at random, and asserts that outputs, MACs and parameters are those that were foretold."""
    randomised(model)
    channels = Channels(model)
    assert channels.groups
    cut = random_cut(channels, seed)
    smaller = shrink(channels, cut)
    inputs = samples(model)
    expected = masked(channels, cut)(*inputs)
    assert farthest(expected, outputs(smaller, inputs)) < 1e-4
    assert farthest(expected, outputs(model, inputs)) > 1e-3, "the cut changes nothing: the proof proves nothing"
    foretold = channels.cost(channels.sizes(cut))
    assert channels.cost().parameters == model.count_params()
    assert foretold.parameters == smaller.count_params()
    assert foretold.macs == Channels(smaller).cost().macs < channels.cost().macs
    return channels, smaller


def group_of(channels: Channels, layer: str) -> Any:
    return next(group for group in channels.groups if layer in group.layers)


def image(build: Any, shape: tuple[int, ...] = (8, 8, 3), classes: int = 4) -> Any:
    """Returns a model whose body `build(layers, x)` makes features of an image, with a head on top."""
    layers = keras().layers
    inputs = layers.Input(shape)
    x = build(layers, inputs)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return keras().Model(inputs, layers.Dense(classes, name="head")(x))


# --- reference models and families ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "groups"),
    [
        (resnet8.build, 3 + 3),  # each stack: what its blocks add to, and the channels inside of its block
        (ds_cnn.build, 1 + 4),  # a depthwise convolution's channels are those before it
        (digits_cnn.build, 3),
        (lambda: mobilenet_v2.build((32, 32, 3)), 1 + 6 + 16 + 1),  # stem, stages (two are added), expansions, last
        (autoencoder.build, 9),
    ],
)
def test_reference_models_are_cut_anywhere_but_at_their_outputs(build: Any, groups: int) -> None:
    model, _ = keras_bridge.to_keras2(build())
    channels, _ = proven(model)
    assert len(channels.groups) == groups
    (last,) = channels.untouchable
    assert channels.untouchable[last] == f"they are the model's output {graph.output_names(model)[0][0]}"


FAMILIES = ["MobileNetV3Small", "VGG16"]
SLOW_FAMILIES = [
    *(
        "ResNet50",
        "ResNet50V2",
        "ResNetRS50",
        "RegNetX002",
        "MobileNet",
        "MobileNetV2",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "DenseNet121",
    ),
    *("Xception", "InceptionV3", "InceptionResNetV2", "NASNetMobile", "ConvNeXtTiny", "RegNetY002"),
]


@pytest.mark.parametrize("name", FAMILIES + [pytest.param(n, marks=pytest.mark.slow) for n in SLOW_FAMILIES])
def test_every_family_of_keras_applications_shrinks_as_masked(name: str) -> None:
    size = 75 if name.startswith("Inception") or name == "Xception" else 32
    model = getattr(keras().applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    channels, _ = proven(model)
    made = np.concatenate(list(channels.makers.values()))
    assert (made < 0).sum() == 10, "all but the ten classes may go"
    keras().backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny"])
def test_models_of_keras_3_shrink_with_their_stand_ins(name: str) -> None:
    theirs = getattr(load("keras").applications, name)(weights=None, input_shape=(32, 32, 3), classes=10)
    model, _ = keras_bridge.to_keras2(theirs)
    proven(model)


# --- what goes together -----------------------------------------------------------------------------------------------


def test_both_sides_of_a_residual_addition_go_together() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
        y = layers.Conv2D(12, 3, padding="same", activation="relu", name="inside")(x)
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", name="back")(y))
        return layers.ReLU()(layers.Add()([x, y]))

    channels, _ = proven(image(body))
    assert [set(g.layers) for g in channels.groups] == [{"stem", "back"}, {"inside"}]
    assert [g.size for g in channels.groups] == [8, 12]


def test_what_is_added_to_the_input_is_untouchable() -> None:
    def body(layers: Any, x: Any) -> Any:
        y = layers.Conv2D(6, 3, padding="same", name="inside")(x)
        return layers.Add(name="joined")([x, layers.Conv2D(3, 3, padding="same", name="back")(y)])

    channels, _ = proven(image(body))
    assert [g.name for g in channels.groups] == ["inside"]
    assert channels.untouchable["back"] == "joined by joined (Add) with what is untouchable"


def test_squeeze_and_excite_gates_go_with_what_they_scale() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(8, 3, name="wide")(x)
        y = layers.GlobalAveragePooling2D()(x)
        y = layers.Dense(4, activation="relu", name="squeeze")(layers.Reshape((1, 1, 8))(y))
        y = layers.Dense(8, activation="sigmoid", name="excite")(y)
        spatial = layers.Conv2D(1, 1, activation="sigmoid", name="where")(x)
        return layers.Multiply()([layers.Multiply()([x, y]), spatial])

    channels, _ = proven(image(body))
    assert set(group_of(channels, "wide").layers) == {"wide", "excite"}
    assert group_of(channels, "squeeze").size == 4
    assert "single channel" in channels.untouchable["where"]


def test_concatenation_of_cut_and_uncut_channels() -> None:
    def body(layers: Any, x: Any) -> Any:
        a, b = layers.Conv2D(4, 1, name="a")(x), layers.Conv2D(6, 1, name="b")(x)
        y = layers.BatchNormalization()(layers.Concatenate()([a, x, b]))
        return layers.Conv2D(5, 3, name="c")(layers.Concatenate()([y, b]))

    channels, smaller = proven(image(body))
    assert {g.name: g.size for g in channels.groups} == {"a": 4, "b": 6, "c": 5}
    cut = {"b": np.array([0, 5])}
    smaller = shrink(channels, cut)
    assert smaller.get_layer("c").kernel.shape[2] == 4 + 3 + 2 + 2


def test_flatten_before_dense_takes_every_place_of_a_channel() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(6, 3, name="conv")(x)
        return layers.Dense(5, activation="relu", name="dense")(layers.Flatten()(x))

    channels, _ = proven(image(body))
    smaller = shrink(channels, {"conv": np.array([1, 4])})
    assert smaller.get_layer("dense").kernel.shape == (6 * 6 * 2, 5)


def test_a_layer_used_twice_is_cut_once_for_both() -> None:
    layers = keras().layers
    one, two = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    stem, shared = layers.Conv2D(6, 1, name="stem"), layers.Conv2D(8, 3, name="shared")
    other = layers.Conv2D(6, 1, name="other")
    a, b = shared(stem(one)), shared(other(two))
    head = layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Subtract()([a, b])))
    channels, smaller = proven(keras().Model([one, two], head))
    assert set(group_of(channels, "stem").layers) == {"stem", "other"}
    calls = [call.name for call in graph.flat_calls(smaller)]
    assert calls.count("shared") == 2


def test_a_layer_used_on_the_input_too_reads_what_is_untouchable() -> None:
    layers = keras().layers
    inputs = layers.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.Conv2D(6, 1, name="free")(shared(shared(inputs)))
    channels, _ = proven(keras().Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    assert [g.name for g in channels.groups] == ["free"]
    assert "used elsewhere" in channels.untouchable["shared"]


def test_grouped_convolutions_lose_whole_groups() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(12, 1, name="before")(x)
        return layers.Conv2D(8, 3, groups=4, name="grouped")(x)

    channels, _ = proven(image(body))
    group = group_of(channels, "grouped")
    assert (group.size, group.width, set(group.layers)) == (4, 3, {"before", "grouped"})
    smaller = shrink(channels, {group.name: np.array([0, 2])})
    assert smaller.get_layer("grouped").groups == 2
    assert smaller.get_layer("grouped").kernel.shape == (3, 3, 12 // 4, 8 // 2)


def test_channels_that_are_shuffled_go_by_columns() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(12, 1, name="before")(x)
        x = layers.Reshape((8, 8, 3, 4))(x)
        x = layers.Reshape((8, 8, 12))(layers.Permute((1, 2, 4, 3))(x))
        return layers.Conv2D(5, 3, name="after")(x)

    channels, _ = proven(image(body))
    assert group_of(channels, "before").size == 12 // 3


LAYERS = {
    "separable": lambda layers, x: layers.SeparableConv2D(7, 3, depth_multiplier=2, name="it")(x),
    "depthwise": lambda layers, x: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x),
    "transposed": lambda layers, x: layers.Conv2DTranspose(7, 3, strides=2, name="it")(x),
    "prelu": lambda layers, x: layers.PReLU()(x),
    "prelu shared": lambda layers, x: layers.PReLU(shared_axes=[1, 2])(x),
    "layer normalization": lambda layers, x: layers.LayerNormalization()(x),
    "group normalization": lambda layers, x: layers.GroupNormalization(5)(x),
    "unit normalization": lambda layers, x: layers.UnitNormalization()(x),
    "pooling and padding": lambda layers, x: layers.ZeroPadding2D(1)(layers.MaxPooling2D()(layers.Cropping2D(1)(x))),
    "resizing": lambda layers, x: layers.UpSampling2D()(layers.Resizing(4, 4)(x)),
    "maximum": lambda layers, x: layers.Maximum()([x, layers.Conv2D(10, 1)(x), layers.Average()([x, x])]),
    "kept dimensions": lambda layers, x: layers.Multiply()([x, layers.GlobalMaxPooling2D(keepdims=True)(x)]),
    "activation": lambda layers, x: layers.Activation("sigmoid")(layers.Rescaling(2.0, 1.0)(x)),
    "operators": lambda layers, x: load("tensorflow").nn.relu6(x + 3.0) * (1 / 6) + x,
    "rows": lambda layers, x: layers.Dense(6)(layers.GlobalAveragePooling1D()(layers.Reshape((36, 10))(x))),
    "sequence": lambda layers, x: layers.LSTM(6)(layers.Conv1D(7, 3)(layers.Reshape((36, 10))(x))),
    "both ways": lambda layers, x: layers.Bidirectional(layers.GRU(4))(layers.Reshape((36, 10))(x)),
    "film": lambda layers, x: layers.GlobalMaxPooling1D()(
        layers.ConvLSTM1D(3, 3, padding="same")(layers.Reshape((6, 6, 10))(x))
    ),
    "repeated": lambda layers, x: layers.Conv1D(4, 2)(layers.RepeatVector(3)(layers.GlobalMaxPooling2D()(x))),
    "mixer": lambda layers, x: layers.GlobalMaxPooling1D()(
        layers.Permute((2, 1))(layers.Dense(9)(layers.Permute((2, 1))(layers.Reshape((36, 10))(x))))
    ),
    "3-d": lambda layers, x: layers.GlobalMaxPooling3D()(layers.Conv3D(4, (1, 3, 3))(layers.Reshape((1, 6, 6, 10))(x))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_behind_a_cut_one_computes_as_masked(name: str) -> None:
    def body(layers: Any, x: Any) -> Any:
        x = LAYERS[name](layers, layers.Conv2D(10, 3, name="cut")(x))
        return layers.Flatten()(x) if len(x.shape) == 3 else x

    channels, _ = proven(image(body))
    assert "cut" in {layer for group in channels.groups for layer in group.layers}


UNTOUCHABLE = {
    "softmax": (lambda layers, x: layers.Softmax()(x), "mixes what is on that axis"),
    "softmax activation": (lambda layers, x: layers.Activation("softmax")(x), "softmax"),
    "mean of channels": (lambda layers, x: x - load("tensorflow").reduce_mean(x, -1, keepdims=True), "reduce_mean"),
    "constant": (lambda layers, x: x * np.arange(1.0, 11.0, dtype="float32"), "a constant for each"),
    "unknown": (lambda layers, x: layers.LocallyConnected2D(4, 3)(x), "not known"),
    "dot": (lambda layers, x: layers.Flatten()(layers.Dot(-1)([layers.Reshape((36, 10))(x)] * 2)), "not known"),
    "space": (lambda layers, x: layers.Conv2D(4, 3)(layers.Permute((3, 1, 2))(x)), "mixes what is on that axis"),
}


@pytest.mark.parametrize("name", UNTOUCHABLE)
def test_what_mixes_channels_makes_them_untouchable_and_says_so(name: str) -> None:
    build, words = UNTOUCHABLE[name]

    def body(layers: Any, x: Any) -> Any:
        return build(layers, layers.Conv2D(10, 3, name="whole")(layers.Conv2D(6, 1, name="free")(x)))

    channels, _ = proven(image(body))
    assert "free" in {layer for group in channels.groups for layer in group.layers}
    assert words in channels.untouchable["whole"]


def test_recurrent_layers_are_left_whole_and_say_so() -> None:
    layers = keras().layers
    inputs = layers.Input((12, 4))
    x = layers.GRU(6, name="gru")(layers.Conv1D(8, 3, name="conv")(inputs))
    channels, _ = proven(keras().Model(inputs, layers.Dense(3)(x)))
    assert "through time" in channels.untouchable["gru"]
    assert group_of(channels, "conv").size == 8


@pytest.mark.parametrize("sequences", [True, False])
def test_what_recurrent_layers_compute_is_what_is_counted(sequences: bool) -> None:
    layers = keras().layers
    inputs = layers.Input((5, 6, 2))
    x = layers.ConvLSTM1D(4, 3, padding="same", return_sequences=sequences)(inputs)
    x = layers.Reshape((-1, 4))(x)
    model = keras().Model(inputs, layers.Bidirectional(layers.LSTM(3))(x))
    assert Channels(model).cost().macs == sum(row.macs or 0 for row in KerasCount(model).rows)


def test_inputs_and_all_outputs_stay() -> None:
    layers = keras().layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="features")(inputs)
    y = layers.Conv2D(5, 3, name="inside")(x)
    channels = Channels(keras().Model(inputs, {"a": x, "b": layers.Dense(2, name="head")(layers.Flatten()(y))}))
    assert [g.name for g in channels.groups] == ["inside"]
    assert channels.untouchable == {
        "features": "they are the model's output a",
        "head": "they are the model's output b",
    }


# --- attention --------------------------------------------------------------------------------------------------------


def transformer(heads: int = 4, width: int = 16, depth: int = 2) -> Any:
    layers = keras().layers
    inputs = layers.Input((6,), dtype="int32")
    x = layers.Embedding(10, width, name="embedding")(inputs)
    for number in range(depth):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, 5, value_dim=3, name=f"mha_{number}")(y, y)])
        y = layers.Dense(24, activation="gelu", name=f"mlp_{number}")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"added_{number}")([x, layers.Dense(width, name=f"back_{number}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras().Model(inputs, layers.Dense(3, name="head")(x))


def test_a_transformer_loses_heads_hidden_units_and_model_width() -> None:
    channels, smaller = proven(transformer())
    assert {g.name: (g.kind, g.size) for g in channels.groups} == {
        "embedding": (CHANNELS, 16),
        **{f"mha_{n}": (HEADS, 4) for n in range(2)},
        **{f"mlp_{n}": (CHANNELS, 24) for n in range(2)},
    }
    smaller = shrink(channels, {"mha_0": np.array([1, 3])})
    assert smaller.get_layer("mha_0").get_config()["num_heads"] == 2
    expected = np.asarray(channels.model.get_layer("mha_0")._query_dense.kernel)[:, [1, 3]]
    np.testing.assert_array_equal(smaller.get_layer("mha_0")._query_dense.kernel, expected)


def test_attention_that_gives_its_scores_away_is_untouchable() -> None:
    layers = keras().layers
    inputs = layers.Input((6, 8))
    x = layers.Dense(8, name="before")(layers.Dense(7, name="free")(inputs))
    y, weights = layers.MultiHeadAttention(2, 4, name="mha")(x, x, return_attention_scores=True)
    channels, _ = proven(keras().Model(inputs, [layers.GlobalMaxPooling1D()(y), weights]))
    assert [g.name for g in channels.groups] == ["free"]
    assert "mha" in channels.untouchable["before"]


def test_a_shrunken_model_saves_loads_and_trains(tmp_path: Path) -> None:
    _, smaller = proven(transformer())
    smaller.compile("sgd", "mse")
    smaller.fit(samples(smaller)[0], np.zeros((2, 3)), verbose=0)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras().models.load_model(tmp_path / "smaller.keras")
    inputs = samples(smaller)
    assert farthest(outputs(smaller, inputs), outputs(loaded, inputs)) < 1e-6


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_residual_branches_are_found_and_dropped() -> None:
    model = randomised(transformer())
    found = blocks(model)
    assert [block.layers[-1] for block in found] == ["mha_0", "back_0", "mha_1", "back_1"]
    inputs = samples(model)
    smaller = drop(model, ["added_0"])
    assert {layer.name for layer in model.layers} - {layer.name for layer in smaller.layers} >= {"mlp_0", "back_0"}
    # A branch that adds nothing is the same as none.
    silent = graph.flatten(model)
    for layer in (silent.get_layer("back_0"),):
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    assert farthest(outputs(silent, inputs), outputs(smaller, inputs)) < 1e-5


def test_joints_are_where_branches_are_added_with_what_stays_of_their_channels() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
        y = layers.DepthwiseConv2D(3, padding="same")(x)
        y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", name="back")(y))
        x = layers.ReLU(name="end")(layers.Add()([x, y]))
        y = layers.Conv2D(6, 1, name="linear")(layers.Conv2D(5, 3, padding="same", name="inside")(x))
        return layers.Add(name="sum")([x, y])

    channels = Channels(image(body))
    (stream,) = (group.name for group in channels.groups if "stem" in group.layers)
    first = {"inside": np.array([0, 1]), stream: np.array([0, 2, 3, 5])}
    once = joints(channels, first)
    assert once == {"end": (0, 2, 3, 5), "sum": (0, 2, 3, 5)}
    smaller = Channels(shrink(channels, first))
    (stream,) = (group.name for group in smaller.groups if "stem" in group.layers)
    assert joints(smaller, {stream: np.array([1, 3])}, once) == {"end": (2, 5), "sum": (2, 5)}


def test_an_activation_behind_two_additions_is_no_joint() -> None:
    def body(layers: Any, x: Any) -> Any:
        shared = layers.ReLU(name="shared")
        for name in ("first", "second"):
            x = layers.Conv2D(6, 1, name=name)(x)
            x = shared(layers.Add(name=f"{name}_sum")([x, layers.Conv2D(6, 3, padding="same")(x)]))
        return layers.Add(name="last")([x, layers.Conv2D(6, 3, padding="same")(x)])

    assert joints(Channels(image(body)), {}) == {"last": tuple(range(6))}


def test_what_is_added_without_known_channels_is_no_joint() -> None:
    def body(layers: Any, x: Any) -> Any:
        x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
        flat = layers.Flatten()(x)
        return layers.Add(name="pixels")([flat, layers.Activation("tanh")(flat)])

    assert joints(Channels(image(body)), {}) == {}


def test_only_blocks_beside_an_identity_can_go() -> None:
    model, _ = keras_bridge.to_keras2(resnet8.build())
    assert len(blocks(model)) == 1, "the other two stacks have a convolution on the way past"
    with pytest.raises(ConfigError, match="Expected a residual block, got 'added'"):
        drop(model, ["added"])


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_cuts_that_cannot_be_are_refused() -> None:
    channels = Channels(image(lambda layers, x: layers.Conv2D(6, 3, name="conv")(x)))
    with pytest.raises(ConfigError, match=r"Expected a group of channels, got 'convv'\. Did you mean 'conv'"):
        shrink(channels, {"convv": np.array([0])})
    for places in ([], [6], [-1, 2]):
        with pytest.raises(ConfigError, match="Expected at least one of 0 to 5 to keep of conv"):
            shrink(channels, {"conv": np.array(places)})


def test_the_model_itself_stays_as_it_is() -> None:
    model = image(lambda layers, x: layers.Conv2D(6, 3, name="conv")(x))
    before = [w.copy() for w in model.get_weights()]
    shrink(Channels(model), {"conv": np.array([2])})
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


# --- anything ---------------------------------------------------------------------------------------------------------


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """Random graphs of maps of one size: each step takes earlier tensors, and all that nobody read is joined."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ("conv", "depthwise", "bn", "add", "multiply", "concat", "pool", "se", "relu", "shared")
                ),
                st.integers(0, 9),
                st.integers(0, 9),
                st.integers(2, 6),
            ),
            min_size=2,
            max_size=9,
        )
    )

    def body(layers: Any, x: Any) -> Any:
        shared: dict[int, Any] = {}
        made = [x, layers.Conv2D(4, 3, padding="same")(x)]
        for kind, first, second, width in steps:
            a, b = made[first % len(made)], made[second % len(made)]
            if kind == "conv":
                y = layers.Conv2D(width, 3, padding="same", activation="relu")(a)
            elif kind == "depthwise":
                y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + width % 2)(a)
            elif kind == "bn":
                y = layers.BatchNormalization()(a)
            elif kind in ("add", "multiply"):
                b = b if b.shape[-1] == a.shape[-1] else layers.Conv2D(a.shape[-1], 1)(b)
                y = (layers.Add if kind == "add" else layers.Multiply)()([a, b])
            elif kind == "concat":
                y = layers.Concatenate()([a, b])
            elif kind == "pool":
                y = layers.MaxPooling2D(3, strides=1, padding="same")(a)
            elif kind == "se":
                gate = layers.Dense(a.shape[-1], activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(a))
                y = layers.Multiply()([a, gate])
            elif kind == "shared":
                y = shared.setdefault(a.shape[-1], layers.Conv2D(width, 1))(a)
            else:
                y = layers.ReLU()(a)
            made.append(y)
        return layers.Conv2D(3, 1)(layers.Concatenate()(made))

    return body


@settings(max_examples=15, deadline=None, derandomize=True)
@given(body=bodies(), seed=st.integers(0, 99))
def test_random_graphs_shrink_as_masked(body: Any, seed: int) -> None:
    proven(image(body, shape=(5, 5, 2)), seed=seed)
