"""Equalization as such: which channels may be scaled, that the function stays, and how even ranges become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mobilenet_v2
import numpy as np
import pytest
import resnet8

from bench.uneven import mobilenet_v1, undo
from edgeopt import graph
from edgeopt.equalizing import (
    Scaling,
    absorb,
    answers,
    clipping,
    factors,
    folded,
    judged,
    prepared,
    solve,
    spread,
    unevenness,
)
from edgeopt.equalizing.solving import LIMIT
from edgeopt.frameworks import load
from edgeopt.keras_bridge import relative_difference


def layers() -> Any:
    return load("tf_keras").layers


def model_of(shape: tuple[int, ...], build: Callable[[Any], Any]) -> Any:
    """A model whose numbers are all drawn, so that a wrong scale of any shows."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(1)
    image = keras.Input(shape, name="image")
    return drawn(keras.Model(image, build(image)))


def drawn(model: Any) -> Any:
    rng = np.random.default_rng(0)
    for layer in model.layers:
        values = [
            rng.uniform(0.3, 1.5, w.shape) if "variance" in v.name or "gamma" in v.name else w
            for v, w in zip(layer.weights, layer.get_weights())
        ]
        values = [
            rng.normal(0, 0.3, w.shape) if w.ndim == 1 and "gamma" not in v.name and "variance" not in v.name else w
            for v, w in zip(layer.weights, values)
        ]
        layer.set_weights(values)
    return model


def samples(model: Any, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(0, 1, (count, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]


def convolution(filters: int, size: int = 3, name: str | None = None, **options: Any) -> Any:
    return layers().Conv2D(filters, size, padding="same", name=name, **options)


def residual(x: Any) -> Any:
    x = layers().ReLU()(convolution(6, name="stem")(x))
    y = layers().ReLU()(convolution(6, name="inner")(x))
    return convolution(3, name="head")(layers().ReLU()(layers().Add()([x, convolution(6, name="outer")(y)])))


def concatenated(x: Any) -> Any:
    one, other = convolution(4, name="one", activation="relu")(x), convolution(3, name="other")(x)
    x = layers().Concatenate()([one, layers().LeakyReLU()(other)])
    return layers().Dense(3)(layers().Flatten()(layers().MaxPooling2D()(x)))


def separable(x: Any) -> Any:
    x = layers().PReLU(shared_axes=[1, 2])(layers().SeparableConv2D(6, 3, depth_multiplier=2, use_bias=True)(x))
    x = layers().ReLU()(layers().Conv2DTranspose(4, 2, strides=2)(x))
    x = layers().DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    return layers().Dense(3)(layers().Dense(7, activation="relu")(layers().GlobalAveragePooling2D()(x)))


def shared(x: Any) -> Any:
    twice = convolution(5, name="twice")
    x = layers().ReLU()(twice(layers().ReLU()(twice(convolution(5, name="stem", activation="relu")(x)))))
    return convolution(2, name="head")(x)


def normalized_first(x: Any) -> Any:
    x = convolution(6, name="stem")(x)
    y = layers().ReLU()(layers().BatchNormalization(name="own", scale=False)(x))
    return convolution(2, name="head")(layers().Concatenate()([y, layers().ReLU()(x)]))


def in_groups(x: Any) -> Any:
    x = layers().ReLU()(convolution(8, name="stem")(x))
    x = layers().ReLU()(convolution(8, name="grouped", groups=2)(x))
    return convolution(2, name="head")(x)


def computed(x: Any) -> Any:
    tf = load("tensorflow")
    x = tf.nn.relu(convolution(4, name="stem")(x)) * 2.0
    y = x + convolution(4, name="branch")(x)
    return convolution(2, name="head")(tf.nn.relu(y))


def channels_first(x: Any) -> Any:
    x = layers().Permute((3, 1, 2))(layers().ReLU()(convolution(4, name="stem")(x)))
    return convolution(2, name="head")(layers().Permute((2, 3, 1))(x))


GRAPHS = (
    residual,
    concatenated,
    separable,
    shared,
    normalized_first,
    in_groups,
    computed,
    channels_first,
)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_any_scales_leave_the_function(build: Callable[[Any], Any]) -> None:
    model = prepared(model_of((8, 8, 3), build))
    inputs = samples(model)
    before = answers(model, inputs)
    scaling = Scaling(model)
    assert scaling.units
    scales = np.append(np.exp(np.random.default_rng(2).normal(0, 2, scaling.units)), 1.0)
    weights = [np.array(w) for w in model.get_weights()]
    scaling.apply(scales)
    assert any(not np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert max(map(relative_difference, before, answers(model, inputs))) < 1e-5


@pytest.mark.parametrize("make", [resnet8.build, mobilenet_v2.build], ids=["resnet8", "mobilenet_v2"])
def test_real_networks(make: Callable[..., Any]) -> None:
    model = drawn(graph.flatten(make()))
    ready = prepared(model, clipping(graph.flat_calls(model)))
    inputs = samples(ready, 2)
    before = answers(ready, inputs)
    scaling = Scaling(ready)
    solution = solve(scaling.kernels, scaling.units)
    assert solution.settled
    scaling.apply(solution.scales)
    assert max(map(relative_difference, before, answers(ready, inputs))) < 1e-5
    assert not scaling.left()


def test_a_residual_join_has_one_scale_and_both_sides_have_it() -> None:
    scaling = Scaling(model_of((8, 8, 3), residual))
    made = {kernel.layer: set(kernel.made.ravel()) for kernel in scaling.kernels}
    read = {kernel.layer: set(kernel.given.ravel()) for kernel in scaling.kernels}
    assert made["stem"] == made["outer"] == read["inner"] == read["head"]
    assert made["inner"] == read["outer"]
    assert made["stem"].isdisjoint(made["inner"])


def test_a_known_factor_is_undone() -> None:
    model = drawn(mobilenet_v1((8, 8, 1), 10, width=6))
    scaling = Scaling(graph.flatten(model))
    expected = solve(scaling.kernels, scaling.units)
    uneven = graph.flatten(model)
    undo(uneven, 1000.0)
    inputs = samples(model)
    assert max(map(relative_difference, answers(model, inputs), answers(uneven, inputs))) < 1e-5
    other = Scaling(uneven)
    assert max(unevenness(kernel, np.ones(other.units + 1)) for kernel in other.kernels) > 10
    solution = solve(other.kernels, other.units)
    for one, two in zip(scaling.kernels, other.kernels):
        ours, theirs = two.scaled(solution.scales), one.scaled(expected.scales)
        assert np.allclose(ours / ours.max(), theirs / theirs.max(), atol=0.05)


def test_both_layers_of_a_pair_end_with_the_same_share() -> None:
    model = model_of((8, 8, 3), lambda x: convolution(2)(layers().ReLU()(convolution(6)(x))))
    scaling = Scaling(model)
    solution = solve(scaling.kernels, scaling.units)
    first, second = (kernel.scaled(solution.scales) for kernel in scaling.kernels)
    ratio = first.max(axis=(0, 1, 2)) / second.max(axis=(0, 1, 3))
    assert ratio.max() / ratio.min() < 1.05


def test_channels_without_weights_are_left_and_nothing_is_infinite() -> None:
    model = model_of((8, 8, 3), lambda x: convolution(2, name="b")(layers().ReLU()(convolution(6, name="a")(x))))
    first, second = model.get_layer("a"), model.get_layer("b")
    kernel, bias = first.get_weights()
    kernel[..., 0], kernel[..., 1] = 0.0, 1e-30
    first.set_weights([kernel, bias])
    after, end = second.get_weights()
    after[:, :, 0], after[:, :, 2] = 0.0, 0.0
    second.set_weights([after, end])
    inputs, scaling = samples(model), Scaling(model)
    before = answers(model, inputs)
    solution = solve(scaling.kernels, scaling.units)
    assert np.isfinite(solution.scales).all()
    assert 1 / LIMIT <= solution.scales.min() <= solution.scales.max() <= LIMIT
    assert solution.scales[scaling.kernels[0].made.ravel()[0]] == 1.0
    scaling.apply(solution.scales)
    assert max(map(relative_difference, before, answers(model, inputs))) < 1e-5
    assert (first.get_weights()[0][..., 0] == 0).all()


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: layers().Activation("swish", name="act")(x), "the activation swish of act does not keep a scale"),
        (lambda x: layers().Activation("sigmoid", name="act")(x), "the activation sigmoid of act does not keep a"),
        (lambda x: layers().ReLU(6.0, name="act")(x), "act, which clips at 6, does not keep a scale"),
        (lambda x: layers().ReLU(threshold=0.5, name="act")(x), "act, with a threshold, does not keep a scale"),
        (lambda x: layers().Softmax(name="act")(x), r"act (Softmax) does not keep a scale"),
        (lambda x: layers().LayerNormalization(name="act")(x), r"act (LayerNormalization) does not keep a scale"),
        (lambda x: layers().Multiply(name="act")([x, x]), r"act (Multiply) does not keep a scale"),
        (lambda x: layers().Rescaling(1.0, offset=1.0, name="act")(x), r"act (Rescaling) does not keep a scale"),
        (lambda x: x + 1.0, r"(__operators__.add) does not keep a scale"),
        (lambda x: layers().Lambda(lambda y: y, name="act")(x), "read by act (Lambda), of which is not known"),
    ],
)
def test_what_stands_between_two_layers_is_said(between: Callable[[Any], Any], reason: str) -> None:
    model = model_of((4, 4, 3), lambda x: convolution(2, name="b")(between(convolution(3, name="a")(x))))
    scaling = Scaling(model)
    assert scaling.units == 0
    (pair, *_) = scaling.left()
    assert (pair.maker, pair.reader) == ("a", "b")
    assert reason in pair.reason


def test_a_fused_activation_and_groups_are_said_too() -> None:
    fused = model_of((4, 4, 3), lambda x: convolution(2, name="b")(convolution(3, name="a", activation="tanh")(x)))
    (pair,) = Scaling(fused).left()
    assert pair.reason == "the activation tanh of a does not keep a scale"
    (pair,) = Scaling(model_of((4, 4, 3), in_groups)).left()
    assert (pair.maker, pair.reader, pair.reason) == ("stem", "grouped", "grouped reads them in 2 groups")


def test_normalizations_are_judged_as_conversion_folds_them() -> None:
    def build(x: Any) -> Any:
        x = convolution(4, name="a", use_bias=False)(x)
        return convolution(2, name="b")(layers().ReLU()(layers().BatchNormalization(name="n")(x)))

    model = model_of((4, 4, 3), build)
    (key,) = folded(graph.flat_calls(model))
    assert key == id(model.get_layer("a"))
    kernel, norm = model.get_layer("a").get_weights()[0], model.get_layer("n")
    gamma, _, _, variance = norm.get_weights()
    assert np.allclose(factors(norm), gamma / np.sqrt(variance + norm.epsilon))
    ranges = np.abs(kernel).max(axis=(0, 1, 2)) * gamma / np.sqrt(variance + norm.epsilon)
    scaling = Scaling(model)
    first = next(one for one in scaling.kernels if one.layer == "a")
    assert unevenness(first, np.ones(scaling.units + 1)) == pytest.approx(
        ranges.max() / np.exp(np.log(ranges).mean()), rel=1e-5
    )
    # The convolution that something else reads, too, is computed as it is.
    assert not folded(graph.flat_calls(model_of((4, 4, 3), normalized_first)))


def test_spread_is_of_channels_that_live() -> None:
    assert spread(np.array([8.0, 2.0, 0.0, 8.0 * 2.0**-30])) == pytest.approx(8 / 4)
    assert spread(np.zeros(3)) == 1.0


def clipped(x: Any) -> Any:
    x = layers().ReLU(6.0, name="free")(convolution(4, name="a")(x))
    x = layers().ReLU(6.0, name="needed")(convolution(4, name="b")(x))
    return convolution(2, name="c")(x)


def test_clipping_goes_where_it_clips_nothing_that_matters() -> None:
    model = model_of((4, 4, 3), clipped)
    kernel, _ = model.get_layer("b").get_weights()
    model.get_layer("b").set_weights([kernel * 50, np.full(4, 5.0)])
    inputs = samples(model)
    before = answers(model, inputs)
    found = judged(model, inputs, 0.01)
    assert found.harmless == {"free"}
    assert found.needed["needed"] > 0.1
    assert found.moved <= 0.01
    everything = judged(model, inputs, 1e9)
    assert everything.harmless == {"free", "needed"}
    assert everything.moved == pytest.approx(found.needed["needed"])
    # Judging leaves the model as it was.
    assert all(map(np.array_equal, before, answers(model, inputs)))
    ready = prepared(model, found.harmless)
    assert ready.get_layer("free").max_value is None
    assert ready.get_layer("needed").max_value == 6.0
    assert max(map(relative_difference, before, answers(ready, inputs))) < 1e-6


def test_clipping_inside_of_layers_and_as_a_function() -> None:
    tf = load("tensorflow")

    def build(x: Any) -> Any:
        x = convolution(4, name="a", activation=tf.nn.relu6)(x)
        return convolution(2, name="c")(tf.nn.relu6(convolution(4, name="b")(x)))

    model = model_of((4, 4, 3), build)
    inputs = [batch * 100 for batch in samples(model)]
    names = set(clipping(graph.flat_calls(model)))
    found = judged(model, inputs, 1e9)
    assert "a" in names
    assert found.harmless == names
    assert len(names) == 2
    unbound = answers(prepared(model, names), inputs)
    assert max(map(relative_difference, unbound, answers(model, inputs, clipping(graph.flat_calls(model))))) < 1e-6
    assert max(map(relative_difference, unbound, answers(model, inputs))) > 0.1


def high(x: Any, padding: str = "valid") -> Any:
    x = layers().Conv2D(4, 3, name="a", activation="relu")(x)
    x = layers().Conv2D(3, 3, padding=padding, name="b", use_bias=False)(x)
    x = layers().ReLU()(layers().BatchNormalization(name="n")(x))
    return layers().Dense(2, name="c")(layers().GlobalAveragePooling2D()(x))


def test_high_biases_move_on() -> None:
    model = model_of((8, 8, 3), high)
    kernel, _ = model.get_layer("a").get_weights()
    model.get_layer("a").set_weights([kernel * 0.1, np.array([9.0, 0.0, 7.0, -9.0])])
    _, _, mean, variance = model.get_layer("n").get_weights()
    model.get_layer("n").set_weights([np.full(3, 0.1), np.array([5.0, -5.0, 0.2]), mean + 4, variance * 900])
    inputs = samples(model)
    before = answers(model, inputs)
    first, second = absorb(Scaling(model), inputs)
    assert (first.layer, first.channels) == ("a", 2)
    assert first.share > 0.5
    assert model.get_layer("a").get_weights()[1][0] < 9.0 - 5.0
    # beta - 3 |gamma| where the normalization's statistics say less than the samples.
    assert (second.layer, second.channels) == ("n", 1)
    assert model.get_layer("n").get_weights()[1][0] >= 3 * 0.1 - 1e-6
    assert max(map(relative_difference, before, answers(model, inputs))) < 1e-5


def test_no_bias_moves_where_zeros_stand_beside_what_is_read() -> None:
    model = model_of((8, 8, 3), lambda x: high(x, padding="same"))
    kernel, _ = model.get_layer("a").get_weights()
    model.get_layer("a").set_weights([kernel * 0.1, np.full(4, 9.0)])
    scaling = Scaling(model)
    assert "a" not in {one.layer for one in absorb(scaling, samples(model))}
