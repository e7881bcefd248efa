"""Layers are chosen by name, kind or glob, and a word that means none is refused."""

from __future__ import annotations

from typing import Any

import compressed_models
import pytest

from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.techniques.selection import is_named, kernel_name, kernels, select_layers


@pytest.fixture(scope="module")
def model() -> Any:
    return compressed_models.cnn()


def names(layers: list[Any]) -> list[str]:
    return [layer.name for layer in layers]


def test_all_layers_are_meant_without_a_word_in_the_order_of_their_calls(model: Any) -> None:
    assert names(select_layers(model)) == [layer.name for layer in model.layers if layer.name != "image"]


@pytest.mark.parametrize(
    ("layers", "spare", "expected"),
    [
        (("point",), (), ["point"]),
        (("Dense",), (), ["hidden", "scores"]),
        (("s*",), (), ["stem", "scores"]),
        (("Conv2D", "Dense"), ("scores",), ["stem", "point", "hidden"]),
        (("Conv2D", "point"), (), ["stem", "point"]),
    ],
)
def test_words_are_names_kinds_and_globs(
    model: Any, layers: tuple[str, ...], spare: tuple[str, ...], expected: list[str]
) -> None:
    assert names(select_layers(model, layers, spare)) == expected


def test_a_layer_that_is_called_twice_is_there_once() -> None:
    layers = load("tf_keras").layers
    shared = layers.Dense(4, name="shared")
    inputs = layers.Input((4,))
    model = load("tf_keras").Model(inputs, shared(shared(inputs)))
    assert names(select_layers(model)) == ["shared"]


@pytest.mark.parametrize("key", ["layers", "spare"])
def test_an_unknown_word_is_refused_with_a_suggestion(model: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=f"names, kinds or globs of layers as {key}, got 'hiden'.*mean 'hidden'"):
        select_layers(model, **{key: ("hiden",)})


def test_sparing_everything_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="some layers to be left, got layers: Dense and spare: hidden scores"):
        select_layers(model, ("Dense",), ("hidden", "scores"))


def test_a_layer_is_named_by_itself_its_kind_or_a_glob(model: Any) -> None:
    point = model.get_layer("point")
    assert [is_named(point, (word,)) for word in ("point", "Conv2D", "po*", "conv2d", "Dense")] == [True] * 3 + [
        False
    ] * 2


def test_kernels_are_the_weights_that_inputs_are_multiplied_with(model: Any) -> None:
    keras = load("tf_keras")
    assert [kernel_name(k) for k in kernels(model.get_layer("depth"))] == ["depthwise_kernel"]
    assert kernels(model.get_layer("norm")) == []
    inputs = keras.layers.Input((5, 8))
    attention = keras.layers.MultiHeadAttention(2, 4)
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(3))
    recurrent(attention(inputs, inputs))
    assert [kernel_name(k) for k in kernels(attention)] == ["kernel"] * 4
    assert [kernel_name(k) for k in kernels(recurrent)] == ["kernel", "recurrent_kernel"] * 2
