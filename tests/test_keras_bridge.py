"""The bridge between the two Keras: every kind of layer and graph over and back, with equal outputs."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt import frameworks, graph, keras_bridge
from edgeopt.keras_bridge import configs, layers
from edgeopt.loading import proof

tf = frameworks.load("tensorflow")
keras = frameworks.load("keras")
tf_keras = frameworks.load("tf_keras")
L, ops = keras.layers, keras.ops


def scrambled(model, seed=3):
    """Moves every weight off its initial value, so that one that is not copied shows."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype.kind == "f":
            weight.assign(value + generator.uniform(0.05, 0.3, value.shape).astype(value.dtype))
    return model


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras3", "keras2"])
def test_an_adapted_normalization_keeps_its_statistics(library):
    samples = np.random.default_rng(0).normal([5000, 0.02, -40], [600, 0.004, 5], (64, 3)).astype(np.float32)
    layer = library.layers.Normalization()
    layer.adapt(samples)
    x = library.Input((3,))
    model = library.Model(x, library.layers.Dense(2)(layer(x)))
    bridged = keras_bridge.to_keras2(model)[0] if library is keras else model
    back = keras_bridge.to_keras3(bridged)
    for other in (bridged, back):
        np.testing.assert_allclose(other(samples), model(samples), atol=1e-4)


def over_and_back(model, *, kept_keras3=()):
    """Bridges a Keras 3 model to tf_keras and back, proves both, and returns the tf_keras one with the notes."""
    scrambled(model)
    bridged, notes = keras_bridge.to_keras2(model)
    assert graph.is_flat(bridged)
    proof.prove(model, bridged)
    proof.prove(bridged, keras_bridge.to_keras3(bridged))
    held = layers.classes().KerasLayer
    assert {layer.name for layer in bridged.layers if isinstance(layer, held)} == set(kept_keras3)
    return bridged, notes


def one(inputs, outputs):
    return keras.Model(inputs, outputs)


def kinds(model):
    return {type(layer).__name__ for layer in model.layers}


# --- layers -------------------------------------------------------------------------------------------------------


def test_convolutions_and_pools():
    x = keras.Input((12, 12, 4))
    outputs = [
        L.Conv2D(8, 3, groups=2, strides=2, padding="same")(x),
        L.SeparableConv2D(4, 3)(x),
        L.DepthwiseConv2D(3, depth_multiplier=2)(x),
        L.Conv2DTranspose(4, 3, strides=2, output_padding=1)(x),
        L.UpSampling2D(2, interpolation="bilinear")(x),
        L.AveragePooling2D(2)(x),
        L.MaxPooling2D(3, padding="same")(x),
        L.GlobalMaxPooling2D(keepdims=True)(x),
        L.Cropping2D(1)(x),
        L.ZeroPadding2D(((1, 0), (2, 1)))(x),
    ]
    over_and_back(one(x, outputs))


def test_sequences_and_volumes():
    s, v = keras.Input((16, 4)), keras.Input((4, 8, 8, 2))
    outputs = [
        L.Conv1D(4, 3, padding="causal", dilation_rate=2)(s),
        L.SeparableConv1D(4, 3)(s),
        L.DepthwiseConv1D(3)(s),
        L.Conv1DTranspose(3, 3)(s),
        L.MaxPooling1D(2)(s),
        L.ZeroPadding1D(1)(s),
        L.GlobalAveragePooling1D()(s),
        L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")(s),
        L.Attention()([s, s]),
        L.Dot(2)([s, s]),
        L.Permute((2, 1))(s),
        L.RepeatVector(2)(L.Flatten()(s)),
        L.Conv3D(2, 2)(v),
        L.TimeDistributed(L.Conv2D(2, 3))(v),
    ]
    over_and_back(one([s, v], outputs))


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras3", "keras2"])
def test_what_works_on_the_last_axis_needs_no_wrapper_for_steps(library):
    layers, t = library.layers, library.layers.TimeDistributed
    s = library.Input((7, 4))
    x = t(layers.Dense(5, activation="relu"), name="each")(s)
    x = t(layers.Dropout(0.1))(t(layers.LayerNormalization())(t(layers.BatchNormalization())(x)))
    x = t(layers.Flatten())(t(layers.Conv1D(2, 3), name="kept")(layers.Reshape((7, 5, 1))(x)))
    model = scrambled(library.Model(s, t(layers.Dense(3, activation="softmax"))(x)))
    standard = keras_bridge.standard_form
    bridged = keras_bridge.to_keras2(model)[0] if library is keras else graph.rebuild(model, standard)
    kinds = [type(layer).__name__ for layer in bridged.layers if layer.name != "kept"]
    assert kinds.count("TimeDistributed") == 1  # of Flatten
    assert type(bridged.get_layer("each")).__name__ == "Dense"
    x = np.random.default_rng(0).random((2, 7, 4)).astype("float32")
    np.testing.assert_allclose(np.asarray(model(x)), np.asarray(bridged(x)), atol=1e-6)


def test_what_a_layer_adds_to_the_loss_is_added_over_there_too():
    @keras.saving.register_keras_serializable("tests")
    class Small(keras.layers.Layer):
        def call(self, x):
            self.add_loss(ops.mean(ops.square(x)))
            return x

    x = keras.Input((4,))
    model = scrambled(keras.Model(x, Small()(L.Dense(3)(x))))
    bridged, _ = keras_bridge.to_keras2(model)
    for _ in range(2):  # a call's losses are of that call alone
        value = np.random.default_rng(0).random((5, 4)).astype("float32")
        expected = np.square(model(value)).mean()
        bridged(value)
        assert [float(loss) for loss in bridged.losses] == pytest.approx([expected])


def test_recurrent_layers_and_their_states():
    a, b = keras.Input((6, 4)), keras.Input((5, 4))
    _, h, c = L.LSTM(3, return_state=True)(a)
    over_and_back(one([a, b], [L.LSTM(3, return_sequences=True)(b, initial_state=[h, c]), L.GRU(3)(a)]))


@pytest.mark.slow
def test_more_recurrent_layers():
    a, v = keras.Input((6, 4)), keras.Input((3, 8, 8, 2))
    outputs = [
        L.GRU(3, reset_after=False, go_backwards=True)(a),
        L.Bidirectional(L.GRU(2, return_sequences=True), merge_mode="sum")(a),
        L.RNN(L.StackedRNNCells([L.LSTMCell(3), L.SimpleRNNCell(2)]))(a),
        L.ConvLSTM2D(2, 3)(v),
    ]
    over_and_back(one([a, v], outputs))


def test_masks_of_an_embedding_reach_what_comes_after():
    words = keras.Input((7,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True)(words)
    y = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    attended = L.LayerNormalization()(L.MultiHeadAttention(2, 3)(x, x))
    model = one(words, [L.GRU(2)(y), L.GlobalAveragePooling1D()(attended), L.GlobalAveragePooling1D()(x + 1.0)])
    bridged, _ = over_and_back(model)
    assert "not_equal" not in {layer.name for layer in bridged.layers}
    x = np.array([[1, 2, 3, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]])
    for a, b in zip(model(x), bridged(x)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_mask_that_the_user_gives_is_kept():
    x, m = keras.Input((5, 3)), keras.Input((5,), dtype="bool")
    over_and_back(one([x, m], L.GRU(2)(x, mask=m)))


def test_multi_head_attention_with_masks_and_keywords():
    x, m = keras.Input((6, 8)), keras.Input((6, 6), dtype="bool")
    y = L.LayerNormalization()(L.MultiHeadAttention(2, 4)(x, x, attention_mask=m) + x)
    z, scores = L.MultiHeadAttention(2, 4, use_bias=False)(
        query=y, value=x, use_causal_mask=True, return_attention_scores=True
    )
    bridged, _ = over_and_back(one([x, m], [z, scores]))
    assert "MultiHeadAttention" in kinds(bridged)


def test_normalizations():
    x = keras.Input((8, 8, 6))
    outputs = [
        L.BatchNormalization(axis=-1, scale=False)(x),
        L.LayerNormalization(axis=[2, 3], center=False)(x),
        L.GroupNormalization(2)(x),
        L.UnitNormalization()(x),
        L.LayerNormalization(rms_scaling=True, name="scaled")(x),
        L.RMSNormalization(name="rms")(x),
        L.SpectralNormalization(L.Conv2D(4, 3), name="spectral")(x),
    ]
    _, notes = over_and_back(one(x, outputs), kept_keras3=["rms", "spectral", "scaled"])
    reason = "layer 'scaled' stays a Keras 3 layer inside tf_keras: its option rms_scaling=True has no equal"
    assert any(note.startswith(reason) for note in notes)


ACTIVATIONS = [
    *("silu", "swish", "hard_silu", "hard_swish", "hard_sigmoid", "gelu", "relu6", "leaky_relu", "log_softmax"),
    *("mish", "celu", "selu", "elu", "exponential", "softplus", "softsign", "glu", "tanh_shrink", "sparsemax"),
]


def test_activations_renamed_and_new():
    x = keras.Input((8,))
    outputs = [L.Dense(6, activation=name)(x) for name in ACTIVATIONS]
    outputs += [L.Activation(name)(x) for name in ("relu6", "leaky_relu", "hard_silu", "silu")]
    outputs += [L.LeakyReLU(0.1)(x), L.PReLU()(x), L.ReLU(6.0, negative_slope=0.1, threshold=0.2)(x)]
    outputs += [L.Dense(3, activation=L.LeakyReLU(0.2))(x), ops.gelu(x, approximate=True)]
    outputs += [L.LSTM(3, recurrent_activation="hard_sigmoid")(L.Reshape((2, 4))(x))]
    over_and_back(one(x, outputs))


def test_preprocessing_layers():
    x = keras.Input((20, 20, 3))
    y = L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])(x)
    y = L.Rescaling([0.5, 1.0, 2.0], offset=-1.0)(y)
    y = L.CenterCrop(12, 12)(L.Resizing(16, 16)(y))
    y = L.RandomRotation(0.1, name="turn")(L.RandomFlip(name="flip")(y))
    over_and_back(one(x, L.Conv2D(2, 3)(y)), kept_keras3=["flip", "turn"])


def test_an_adapted_normalization_brings_its_statistics():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (100, 4)))
    x = keras.Input((4,))
    bridged, _ = keras_bridge.to_keras2(one(x, layer(x)))
    np.testing.assert_allclose(bridged(np.full((1, 4), 3.0, "float32")), np.zeros((1, 4)), atol=0.5)
    proof.prove(one(x, layer(x)), bridged)


# --- graphs -------------------------------------------------------------------------------------------------------


def test_operations_become_standard_layers_where_there_are_some():
    x = keras.Input((8, 8, 4))
    y = ops.relu(ops.add(x, x))
    y = ops.concatenate([y, x * x], axis=-1)
    z = ops.softmax(ops.reshape(ops.mean(y, axis=(1, 2)), (-1, 2, 4)))
    bridged, _ = over_and_back(one(x, [z, ops.transpose(y, (0, 3, 1, 2)), ops.expand_dims(z, 1), ops.hard_silu(y)]))
    assert "KerasOperation" not in kinds(bridged)
    assert {"Add", "Multiply", "Concatenate", "GlobalAveragePooling2D", "Reshape", "Permute"} <= kinds(bridged)


def test_other_operations_keep_their_arguments():
    x = keras.Input((8, 6))
    y = 1 - (x * 2 + 1)
    parts = ops.split(y, 2, axis=1)
    outputs = [
        x[:, 0],
        x[..., 1:5:2],
        ops.matmul(parts[0], ops.transpose(parts[1], (0, 2, 1))),
        ops.where(y > 0, y, 0.1 * y),
        ops.cast(y > 0, "float32"),
        ops.stack([y, x], axis=1),
        ops.max(y, axis=-1, keepdims=True),
        ops.clip(y, -0.5, 0.5) / 3,
        ops.add(y, np.arange(6, dtype="float32")),
    ]
    over_and_back(one(x, outputs))


def test_shared_layers_several_inputs_and_dicts():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    dense = L.Dense(4, name="shared")
    model = keras.Model({"a": a, "b": b}, {"sum": dense(a) + dense(b), "twice": dense(dense(a) @ ops.ones((4, 8)))})
    bridged, _ = over_and_back(model)
    assert len(bridged.get_layer("shared").inbound_nodes) == 4
    assert bridged.input_names == ["a", "b"]


def test_nested_models_and_a_frozen_backbone():
    image = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, name="conv")(image))
    backbone = keras.Model(image, x, name="backbone")
    backbone.trainable = False
    outer = keras.Input((8, 8, 3))
    head = keras.Sequential([L.GlobalAveragePooling2D(), L.Dense(3)])
    y = backbone(outer, training=False)
    bridged, _ = over_and_back(one(outer, head(y + backbone(outer * 0.5))))
    assert len(bridged.get_layer("conv").inbound_nodes) == 2
    assert not bridged.get_layer("conv").trainable
    assert len(bridged.trainable_variables) == 2


def test_names_that_are_taken_are_not_given_twice():
    x = keras.Input((4,))
    y = L.Dense(3, activation="hard_silu", name="a")(L.Dense(3, name="a_activation")(x))
    bridged, _ = over_and_back(one(x, y))
    assert [layer.name for layer in bridged.layers[1:]] == ["a_activation", "a", "a_activation_1"]


def test_low_precision_becomes_float32():
    x = keras.Input((8,))
    y = L.Dense(4, dtype="mixed_bfloat16")(x)
    bridged, _ = keras_bridge.to_keras2(one(x, L.Dense(2, dtype="bfloat16")(y)))
    assert {layer.compute_dtype for layer in bridged.layers} == {"float32"}
    assert {weight.dtype for weight in bridged.weights} == {tf.float32}


def test_names_that_tensorflow_refuses_are_made_legal():
    x = keras.Input((4,), name="my input")
    bridged, _ = keras_bridge.to_keras2(one(x, L.Dense(2, name="größe 1")(x)))
    assert [layer.name for layer in bridged.layers] == ["my_input", "gr__e_1"]


# --- what keras.applications define for themselves ------------------------------------------------------------------


def test_layer_scale_and_stochastic_depth_become_standard_layers():
    from keras.src.applications.convnext import LayerScale, StochasticDepth

    x = keras.Input((6, 6, 4))
    bridged, _ = over_and_back(one(x, StochasticDepth(0.3)(LayerScale(0.5, 4)(x))))
    assert kinds(bridged) == {"InputLayer", "DepthwiseConv2D", "Dropout"}
    kept = bridged(np.ones((200, 6, 6, 4), "float32"), training=True).numpy().any(axis=(1, 2, 3)).mean()
    assert 0.55 < kept < 0.85, "whole samples survive with a probability of 0.7"


# --- layers of the user's -------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("test_bridge")
class Gate(keras.layers.Layer):
    """A custom layer with a sublayer, a state, and a different way in training."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = L.Dense(units)
        self.norm = L.BatchNormalization()

    def call(self, x, training=None):
        return ops.sigmoid(self.norm(self.dense(x), training=training)) * (2.0 if training else 1.0)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.fixture(scope="module")
def gated():
    x = keras.Input((5,))
    gate = Gate(4, name="gate")
    y = gate(x)
    model = one(x, [L.Dense(2, name="out")(y), gate(x * 2.0)])
    return model, over_and_back(model, kept_keras3=["gate"])[0]


def test_a_custom_layer_trains_inside_tf_keras_and_leaves_the_original_alone(gated):
    model, bridged = gated
    original = [np.array(w) for w in model.get_layer("gate").weights]
    bridged.compile("sgd", "mse")
    before = [w.numpy() for w in bridged.get_layer("gate").weights]
    generator = np.random.default_rng(0)
    y = [generator.random((32, 2)), generator.random((32, 4))]
    bridged.fit(generator.random((32, 5)), y, verbose=0)
    after = [w.numpy() for w in bridged.get_layer("gate").weights]
    assert len(after) == 2 + 4
    changed = [(a != b).any() for a, b in zip(before, after)]
    assert sum(changed) >= 5, "all but the bias before the BatchNormalization, which may not move"
    for weight, old in zip(model.get_layer("gate").weights, original):
        np.testing.assert_array_equal(np.array(weight), old)


def test_gradients_of_a_custom_layer_are_those_of_keras_3():
    x = keras.Input((5,))
    model = scrambled(one(x, Gate(4)(x)))
    bridged, _ = keras_bridge.to_keras2(model)
    data = np.random.default_rng(1).random((8, 5)).astype("float32")
    gradients = []
    for network in (model, bridged):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.convert_to_tensor(network(data, training=True)) ** 2)
        variables = [getattr(v, "value", v) if network is model else v for v in network.trainable_variables]
        gradients.append(tape.gradient(loss, variables))
    for ours, theirs in zip(*gradients):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_stand_ins_are_saved_and_read_back(gated, suffix, tmp_path):
    _, bridged = gated
    x = tf_keras.Input((5,))
    y = layers.classes().KerasActivation("hard_sigmoid")(bridged(x)[1])
    model = graph.flatten(tf_keras.Model(x, y))
    model.save(tmp_path / f"model.{suffix}")
    read = tf_keras.models.load_model(tmp_path / f"model.{suffix}", compile=False)
    data = np.random.default_rng(1).normal(0, 3, (8, 5)).astype("float32")
    np.testing.assert_array_equal(read(data), model(data))


def test_hard_silu_becomes_one_operator_in_the_file():
    x = keras.Input((4, 4, 3))
    bridged, _ = keras_bridge.to_keras2(one(x, L.Conv2D(2, 3, activation="hard_silu")(x)))
    content = tf.lite.TFLiteConverter.from_keras_model(bridged).convert()
    from edgeopt.tflite.reader import read

    assert [operator.name for operator in read(content).main.operators] == ["CONV_2D", "HARD_SWISH"]


# --- from Keras 2 to Keras 3 ----------------------------------------------------------------------------------------


def test_tensorflow_functions_and_keras_2_activations_reach_keras_3():
    K2 = tf_keras.layers
    x = tf_keras.Input((8, 6))
    y = tf.nn.relu6(x * 2.0 + 1.0) / 3.0
    y = tf.concat([y, tf.expand_dims(tf.reduce_mean(x, axis=1), 1)], axis=1)[:, 1:, ::2]
    y = K2.Conv1D(4, 3, activation="hard_sigmoid")(K2.LeakyReLU(0.2)(tf.clip_by_value(y, -0.3, 0.3)))
    outputs = [
        K2.Dense(2, activation="swish")(y),
        K2.ThresholdedReLU(0.1)(x),
        tf.reshape(x, (-1, 48)),
        x - y[:, :1, :1],
    ]
    model = scrambled(tf_keras.Model(x, outputs))
    proof.prove(model, keras_bridge.to_keras3(model))


# --- what cannot be bridged -----------------------------------------------------------------------------------------


def test_layers_without_a_form_in_tf_keras_are_named_one_by_one():
    words = keras.Input((1,), dtype="string")
    a = L.StringLookup(vocabulary=["a", "b"], name="lookup")(words)
    b = L.Hashing(3, name="hash")(words)
    with pytest.raises(keras_bridge.Unbridgeable, match=r"got 2 in the model") as caught:
        keras_bridge.to_keras2(one(words, [a, b]))
    assert {p.layer for p in caught.value.problems} == {"lookup", "hash"}
    assert "\n  lookup: it works on texts or tables, which run outside the .tflite" in str(caught.value)


def test_a_custom_layer_that_cannot_be_made_anew_is_named():
    class Fixed(keras.layers.Layer):
        def __init__(self, size):
            super().__init__(name="fixed")
            self.size = size

        def call(self, x):
            return x * self.size

    x = keras.Input((4,))
    with pytest.raises(keras_bridge.Unbridgeable, match=r"\n  fixed: .*Fixed"):
        keras_bridge.to_keras2(one(x, Fixed(2.0)(x)))


def test_a_subclassed_model_cannot_be_bridged():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(keras_bridge.Unbridgeable, match=r"own: Own is a subclassed model: its graph is in its code"):
        keras_bridge.to_keras2(Own(name="own"))


def test_weights_that_keras_quantized_are_refused():
    x = keras.Input((4,))
    model = one(x, L.Dense(2, name="dense")(x))
    model.quantize("int8")
    with pytest.raises(keras_bridge.Unbridgeable, match=r"dense: its weights are already quantized"):
        keras_bridge.to_keras2(model)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: tf.math.erf(x), r"the TensorFlow function tf.math.erf has no Keras 3 operation"),
        (lambda x: tf_keras.layers.Lambda(lambda y: y)(x), r"a Lambda holds Python code"),
        (lambda x: tf_keras.layers.GRU(2, recurrent_activation="hard_sigmoid")(x), r"hard_sigmoid, clip\(0.2 x"),
        (lambda x: tf_keras.layers.LocallyConnected1D(2, 2)(x), r"Keras 3 has no LocallyConnected1D"),
    ],
)
def test_what_keras_3_lacks_is_said(make, reason):
    x = tf_keras.Input((4, 3))
    with pytest.raises(keras_bridge.Unbridgeable, match=reason):
        keras_bridge.to_keras3(tf_keras.Model(x, make(x)))


def test_an_option_without_an_equal_is_unfit():
    with pytest.raises(configs.Unfit, match=r"its option pad_to_aspect_ratio=True has no equal"):
        configs.to_keras2("Resizing", L.Resizing(4, 4, pad_to_aspect_ratio=True).get_config(), [])


def test_the_first_difference_names_the_layer():
    x = keras.Input((4,))
    model = scrambled(one(x, L.Dense(3, name="last")(L.Dense(3, name="middle")(L.Dense(3, name="first")(x)))))
    bridged, _ = keras_bridge.to_keras2(model)
    kernel, bias = bridged.get_layer("middle").get_weights()
    bridged.get_layer("middle").set_weights([kernel, bias + 1.0])
    data = [np.ones((2, 4), "float32")]
    name, difference = keras_bridge.first_difference(model, bridged, data, tolerance=1e-5)
    assert name == "middle"
    assert difference > 0.1


@pytest.mark.parametrize(
    ("value", "other", "difference"),
    [
        ([0.0, 2.0, 4.0], [0.0, 2.0, 4.0], 0.0),
        ([0.0, 2.0, 4.0], [0.0, 2.0, 5.0], 1 / 4),
        ([0.0, np.nan], [0.0, np.nan], 0.0),
        ([0.0, 1.0], [0.0, np.nan], np.inf),
        ([0.0, 1.0], [0.0, 1.0, 2.0], np.inf),
    ],
)
def test_relative_difference(value, other, difference):
    assert keras_bridge.relative_difference(np.array(value), np.array(other)) == difference
