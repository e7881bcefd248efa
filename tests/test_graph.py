"""The graph walker: flattening, cloning with replaced layers, names, sharing, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt import frameworks, graph
from edgeopt.errors import ModelError

tf = frameworks.load("tensorflow")
tf_keras = frameworks.load("tf_keras")
L = tf_keras.layers


def scrambled(model):
    """Gives every weight a value that no initializer would, so that one left behind shows."""
    generator = np.random.default_rng(3)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def backbone(name="backbone"):
    image = tf_keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="conv")(image)
    return tf_keras.Model(image, L.BatchNormalization(name="norm")(x), name=name)


@pytest.fixture(scope="module")
def nested():
    """A backbone called twice, once in inference; a Sequential head; a name that clashes with the outer one's."""
    image = tf_keras.Input((8, 8, 3), name="image")
    shared = backbone()
    x = L.Add()([shared(image, training=False), shared(image * 2.0 + 1.0)])
    x = L.Conv2D(4, 1, name="conv")(x)
    head = tf_keras.Sequential([L.Flatten(), L.Dense(3, name="dense")], name="head")
    return scrambled(tf_keras.Model(image, head(x)))


def test_flatten_inlines_nested_models_and_keeps_their_outputs_and_sharing(nested):
    flat = graph.flatten(nested)
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(flat(x), nested(x))
    assert graph.is_flat(flat)
    assert not graph.is_flat(nested)
    assert flat.count_params() == nested.count_params()
    assert [len(layer.inbound_nodes) for layer in flat.layers if "norm" in layer.name] == [2]


def test_names_are_kept_and_a_clash_gets_the_nested_models_name(nested):
    names = [layer.name for layer in graph.flatten(nested).layers]
    assert len(set(names)) == len(names)
    assert {"image", "conv", "backbone_conv", "norm", "dense"} <= set(names)


def test_training_false_on_a_nested_model_reaches_its_layers():
    image = tf_keras.Input((8, 8, 3))
    flat = graph.flatten(tf_keras.Model(image, backbone()(image, training=False)))
    before = flat.get_layer("norm").moving_mean.numpy()
    flat(np.ones((2, 8, 8, 3), "float32"), training=True)
    np.testing.assert_array_equal(flat.get_layer("norm").moving_mean.numpy(), before)


def test_rebuild_replaces_layers_and_leaves_the_model_as_it_was(nested):
    def without_norm(layer):
        if isinstance(layer, L.BatchNormalization):
            return graph.Replacement(lambda x, **_: x)
        if isinstance(layer, L.Dense):
            kernel, bias = layer.get_weights()
            return graph.Replacement(L.Dense(3, name="twice"), [kernel * 2, bias * 2])
        return None

    before = [w.copy() for w in nested.get_weights()]
    rebuilt = graph.rebuild(nested, without_norm)
    assert not any(isinstance(layer, L.BatchNormalization) for layer in rebuilt.layers)
    dense = nested.get_layer("head").get_layer("dense")
    np.testing.assert_array_equal(rebuilt.get_layer("twice").get_weights()[0], dense.get_weights()[0] * 2)
    for weight, old in zip(nested.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_several_inputs_and_outputs_by_dict_are_named_by_their_keys():
    a, b = tf_keras.Input((4,)), tf_keras.Input((4,))
    model = tf_keras.Model({"left": a, "right": b}, {"sum": a + b, "difference": a - b})
    flat = graph.flatten(model)
    assert flat.input_names == ["left", "right"]
    assert [name for name, _ in graph.output_names(model)] == ["difference", "sum"]
    left, right = np.full((1, 4), 5.0, "float32"), np.full((1, 4), 2.0, "float32")
    difference, total = flat({"left": left, "right": right})
    np.testing.assert_array_equal(difference, left - right)
    np.testing.assert_array_equal(total, left + right)


def test_a_mixed_policy_becomes_float32_with_the_same_weights():
    image = tf_keras.Input((8, 8, 3))
    x = L.Conv2D(2, 3, dtype="mixed_float16")(image)
    model = tf_keras.Model(image, L.Dense(2, dtype="float32")(L.Flatten(dtype="mixed_float16")(x)))
    assert graph.policies(model) == {"mixed_float16"}
    flat = graph.flatten(model, as_float32=True)
    assert graph.policies(flat) == set()
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(flat(x), model(x), atol=1e-2)


def test_the_states_of_a_recurrent_layer_stay_connected():
    a, b = tf_keras.Input((5, 3)), tf_keras.Input((4, 3))
    _, h = L.SimpleRNN(2, return_state=True)(a)
    model = scrambled(tf_keras.Model([a, b], L.SimpleRNN(2)(b, initial_state=[h])))
    generator = np.random.default_rng(0)
    inputs = [generator.random((2, 5, 3)).astype("float32"), generator.random((2, 4, 3)).astype("float32")]
    np.testing.assert_array_equal(graph.flatten(model)(inputs), model(inputs))


def test_a_subclassed_model_has_no_graph():
    class Own(tf_keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match=r"Expected a functional or Sequential model, got 'own', a Own whose graph"):
        graph.flatten(Own(name="own"))
    assert not graph.is_flat(Own())


def test_weights_of_another_layer_are_refused():
    dense = L.Dense(3)
    dense.build((None, 2))
    with pytest.raises(ModelError, match=r"shapes \[\(2, 3\), \(3,\)\] for layer '\w+', got \[\(2, 2\)\]"):
        graph.set_weights(dense, [np.zeros((2, 2))])


@pytest.mark.parametrize(
    ("name", "legal"),
    [("conv 1", "conv_1"), ("_x", "layer_x"), ("a/b", "a_b"), ("größe", "gr__e"), ("ok-1.2", "ok-1.2")],
)
def test_legal_names(name, legal):
    assert graph.legal_name(name) == legal
