"""Weights and biases that are put into a file are what runtimes compute with; layers of two files find one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.tflite.pairing import Pairing, pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed
from edgeopt.tflite.stored_weights import StoredWeights, layers, stored_bias, stored_weights, with_weights

INPUTS, UNITS = 96, 64  # of models.dense


def _low(values: np.ndarray, bits: int, axis: int | None) -> StoredWeights:
    """Weights by the largest of each channel, or of all."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    highest = 2 ** (bits - 1) - 1
    scales = np.atleast_1d(np.abs(values).max(axis=others if axis is not None else None) / highest).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    return StoredWeights(np.rint(values / scales.reshape(shape)).astype(np.int8), scales, bits, axis)


def _run(content: bytes, values: np.ndarray) -> np.ndarray:
    """Returns the first output of LiteRT's built-in kernels, as they stand in the file."""
    litert = frameworks.load("litert")
    kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], values.reshape(detail["shape"]).astype(detail["dtype"]))
    interpreter.invoke()
    result: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


def _integers(size: int) -> np.ndarray:
    return np.random.default_rng(5).integers(-128, 128, size)


def _paired(build: Any, scheme: str) -> Pairing:
    return pair_weights(models.convert(build, "float32"), models.convert(build, scheme))


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        (8, [-128, 5], [0x80, 0x05]),
        (4, [-8, 7, -1], [0x78, 0x0F]),
        (2, [-2, 1, 0, -1, 1], [0b11000110, 0b00000001]),
    ],
)
def test_the_first_number_stands_in_the_lowest_bits(bits: int, values: list[int], expected: list[int]) -> None:
    weights = StoredWeights(np.array(values, np.int8), np.ones(1, np.float32), bits)
    assert weights.packed.tolist() == expected


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_of_few_bits_are_read_as_they_were_written(bits: int) -> None:
    content = models.convert(models.dense, "int8")
    (layer,) = layers(read(content))
    values = np.random.default_rng(1).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (UNITS, INPUTS)).astype(np.int8)
    new = StoredWeights(values, np.linspace(0.1, 0.2, UNITS, dtype=np.float32), bits, 0)
    model = read(with_weights(content, {layer.weight.index: new}))
    (written,) = layers(model)
    assert (written.weight.dtype, written.weight.size_bytes) == (f"int{bits}", UNITS * INPUTS * bits // 8)
    found = stored_weights(model, written)
    assert found is not None
    assert found.axis == 0
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.scales, new.scales)


# --- what runtimes make of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_four_bits_compute_what_the_same_numbers_compute_in_eight(granularity: str) -> None:
    """On every kind of layer: convolution, depthwise, pointwise, dense."""
    pairing = _paired(models.cnn, "int8")
    content = models.convert(models.cnn, "int8")
    low = {
        pair.quantized.weight.index: _low(
            pairing.float_weights(pair), 4, pair.quantized.axis if granularity == "channel" else None
        )
        for pair in pairing.pairs
    }
    eight = {index: StoredWeights(new.values, new.scales, 8, new.axis) for index, new in low.items()}
    image = _integers(16 * 16 * 3)
    small = with_weights(content, low)
    outputs = _run(small, image)
    np.testing.assert_array_equal(outputs, _run(with_weights(content, eight), image))
    assert np.unique(outputs).size > 5
    assert {code.name: code.version for code in read(small).codes if "CONV" in code.name or "FULLY" in code.name} == {
        "CONV_2D": 7,
        "DEPTHWISE_CONV_2D": 7,
        "FULLY_CONNECTED": 10,
    }


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_layer_computes_what_numpy_computes(scheme: str) -> None:
    """Other weights, and a bias where there was none."""
    content = models.convert(models.dense, scheme)
    pairing = pair_weights(models.convert(models.dense, "float32"), content)
    ((pair,),) = (pairing.pairs,)
    weights = _low(pairing.float_weights(pair), 4, 0)
    bias = np.linspace(-3, 3, UNITS)
    changed_file = with_weights(content, {pair.quantized.weight.index: weights}, {pair.quantized.operator.index: bias})
    model = read(changed_file)
    (layer,) = layers(model)
    assert layer.bias is not None
    assert layer.bias.dtype == ("int64" if scheme == "int16x8" else "int32")
    (source,), (result,) = model.inputs, model.outputs
    if scheme == "int16x8":  # floats outside
        values = np.random.default_rng(6).uniform(-0.5, 0.5, INPUTS).astype(np.float32)
        expected = values @ weights.dequantized.T.astype(np.float64) + bias
        step = layers(model)[0].activations.quantization.scales[0]  # type: ignore[union-attr]
        allowed = step * np.abs(weights.dequantized).sum(axis=1) + 0.01
        assert (np.abs(_run(changed_file, values)[0] - expected) < allowed).all()
        return
    values = _integers(INPUTS)
    into, out = source.quantization, result.quantization
    assert into is not None
    assert out is not None
    real = into.scales[0] * (values - into.zero_points[0]) @ weights.dequantized.T.astype(np.float64) + bias
    expected = np.clip(np.rint(real / out.scales[0]) + out.zero_points[0], -128, 127)
    assert np.abs(_run(changed_file, values)[0] - expected).max() <= 1


def test_biases_follow_the_scale_of_the_weights() -> None:
    pairing = _paired(models.cnn, "int8")
    low = {p.quantized.weight.index: _low(pairing.float_weights(p), 4, p.quantized.axis) for p in pairing.pairs}
    model = read(with_weights(models.convert(models.cnn, "int8"), low))
    for before, after in zip(pairing.pairs, layers(model)):
        real, bias = pairing.float_bias(before), stored_bias(model, after)
        assert real is not None
        assert bias is not None
        assert after.bias is not None
        step = np.array(after.bias.quantization.scales)  # type: ignore[union-attr]
        activations = after.activations.quantization
        assert activations is not None
        np.testing.assert_allclose(step, activations.scales[0] * low[after.weight.index].scales, rtol=1e-6)
        # Rounded twice: when the file was made, and now.
        assert (np.abs(bias - real) <= step).all()


def twins() -> Any:
    """Two Dense layers of one shape with the same bias; the second kernel is the first, turned."""
    keras = frameworks.load("tf_keras")
    values = keras.layers.Input((8,), batch_size=1)
    model = keras.Model(values, keras.layers.Dense(8)(keras.layers.Dense(8, activation="relu")(values)))
    kernel, bias = np.random.default_rng(7).normal(size=(8, 8)), np.linspace(-1, 1, 8)
    model.set_weights([kernel, bias, kernel.T, bias])
    return model


def _shared(position: int) -> Callable[[Any, Any], None]:
    """Makes the second layer read the first one's operand at `position`."""

    def change(model: Any, schema: Any) -> None:
        first, second = model.subgraphs[0].operators
        second.inputs = [*second.inputs[:position], first.inputs[position], *second.inputs[position + 1 :]]

    return change


def test_a_bias_of_two_layers_is_parted_when_one_changes() -> None:
    content = changed(models.convert(twins, "float32"), _shared(2))
    first, second = layers(read(content))
    assert first.bias == second.bias
    model = read(with_weights(content, {}, {first.operator.index: np.full(8, 2.0)}))
    first, second = layers(model)
    np.testing.assert_array_equal(stored_bias(model, first), np.full(8, 2.0))
    np.testing.assert_allclose(stored_bias(model, second), np.linspace(-1, 1, 8), rtol=1e-6)


def test_weights_of_two_layers_change_for_both_and_the_bytes_of_others_stay() -> None:
    """The first layer's weights serve both layers; a third tensor shares their bytes."""

    def share(model: Any, schema: Any) -> None:
        _shared(1)(model, schema)
        first = model.subgraphs[0].operators[0]
        other = schema.TensorT()
        other.name, other.type = "other", schema.TensorType.INT8
        other.shape, other.buffer = np.array([8, 8], np.int32), model.subgraphs[0].tensors[first.inputs[1]].buffer
        model.subgraphs[0].tensors.append(other)

    before = read(changed(models.convert(twins, "int8"), share))
    first, second = layers(before)
    assert first.weight == second.weight
    new = StoredWeights(np.eye(8, dtype=np.int8), np.full(8, 0.5, np.float32), 4, 0)
    after = read(with_weights(before.content.tobytes(), {first.weight.index: new}))
    for was, layer in zip((first, second), layers(after)):
        found = stored_weights(after, layer)
        assert found is not None
        np.testing.assert_array_equal(found.dequantized, 0.5 * np.eye(8))
        activations = layer.activations.quantization
        assert activations is not None
        assert layer.bias is not None
        assert layer.bias.quantization is not None
        assert set(layer.bias.quantization.scales) == {np.float32(activations.scales[0]) * np.float32(0.5)}
        assert was.bias is not None
        assert layer.bias.index == was.bias.index
    np.testing.assert_array_equal(after.values(after.main.tensors[-1]), before.values(before.main.tensors[-1]))


def test_a_file_that_is_written_anew_does_not_grow() -> None:
    content = models.convert(models.cnn, "int8")
    model = read(content)
    same = {layer.weight.index: stored_weights(model, layer) for layer in layers(model)}
    assert len(same) == 4
    rewritten = with_weights(content, {index: weights for index, weights in same.items() if weights is not None})
    assert len(rewritten) <= len(content)
    np.testing.assert_array_equal(*(_run(c, _integers(16 * 16 * 3)) for c in (content, rewritten)))


# --- what is refused -------------------------------------------------------------------------------------------------

ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("values", "scales", "bits", "axis", "message"),
    [
        ([1], ONE, 3, None, "weights of 2, 4 or 8 bits, got 3. Try 4 bits"),
        ([-9, 3], ONE, 4, None, "4 bits from -8 to 7, got some from -9 to 3"),
        ([1, 1], ONE, 4, 0, r"Expected 2 scales above 0 for weights of shape \(2,\), got \[1.0\]"),
        ([1], 0 * ONE, 4, None, "Expected 1 scales above 0"),
        ([1], np.nan * ONE, 4, None, "Expected 1 scales above 0"),
    ],
)
def test_weights_that_are_none(
    values: list[int], scales: np.ndarray, bits: int, axis: int | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        StoredWeights(np.array(values, np.int8), scales, bits, axis)


def test_what_does_not_fit_a_file_is_refused() -> None:
    content = models.convert(models.cnn, "int8")
    model = read(content)
    layer = layers(model)[-1]
    weights = stored_weights(model, layer)
    assert weights is not None
    with pytest.raises(ModelError, match=r"tensors that CONV_2D, .* compute with, got \[0\]"):
        with_weights(content, {0: weights})
    with pytest.raises(ModelError, match=r"weights of shape \(10, 160\) for '.*', got \(160, 10\)"):
        with_weights(content, {layer.weight.index: StoredWeights(weights.values.T, ONE, 8)})
    with pytest.raises(ModelError, match=r"10 biases for '.*', got \(3,\) for operator"):
        with_weights(content, {}, {layer.operator.index: np.zeros(3)})
    with pytest.raises(ModelError, match=r"an operator with weights, got \(3,\) for operator 99"):
        with_weights(content, {}, {99: np.zeros(3)})
    with pytest.raises(ModelError, match=r"biases of '.*' that fit into int32, got .* steps\. Try larger scales"):
        with_weights(content, {}, {layer.operator.index: np.full(10, 1e9)})


def test_weights_that_others_read_too_are_refused() -> None:
    def share(model: Any, schema: Any) -> None:
        graph = model.subgraphs[0]
        first = graph.operators[0]
        reader, code = schema.OperatorT(), schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
        reader.inputs, reader.outputs = [first.inputs[1]], [len(graph.tensors)]
        reader.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        copy = schema.TensorT()
        copy.name, copy.type, copy.shape = "copy", schema.TensorType.INT8, np.array([8, 8], np.int32)
        graph.tensors.append(copy)
        graph.operators.append(reader)

    content = changed(models.convert(twins, "int8"), share)
    model = read(content)
    (first, _) = layers(model)
    weights = stored_weights(model, first)
    assert weights is not None
    with pytest.raises(ModelError, match=r"weights that layers alone read, got '.*', which RESHAPE reads, too"):
        with_weights(content, {first.weight.index: weights})


def test_a_bias_needs_integers_that_are_known() -> None:
    def shift(model: Any, schema: Any) -> None:
        model.subgraphs[0].tensors[weight].quantization.zeroPoint = np.full(8, 3)

    def forget(model: Any, schema: Any) -> None:
        model.subgraphs[0].tensors[activations].quantization = None

    content = models.convert(twins, "int8")
    (first, _) = layers(read(content))
    weight, activations = first.weight.index, first.activations.index
    with pytest.raises(ModelError, match=r"symmetric integers in '.*', got others"):
        with_weights(changed(content, shift), {}, {first.operator.index: np.zeros(8)})
    with pytest.raises(ModelError, match=r"a scale of what '.*' reads, got none"):
        with_weights(changed(content, forget), {}, {first.operator.index: np.zeros(8)})


# --- which layer is which --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [models.cnn, models.upsampling, twins], ids=lambda build: build.__name__)
@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_layers_find_one_another(build: Any, scheme: str) -> None:
    pairing = _paired(build, scheme)
    assert not pairing.alone
    assert [p.floating.operator.name for p in pairing.pairs] == [
        layer.operator.name for layer in layers(pairing.quantized)
    ]
    for pair in pairing.pairs:
        stored, weights = pairing.stored(pair), pairing.float_weights(pair)
        assert pair.likeness > 0.99
        step = stored.along(weights.ndim)
        assert (np.abs(stored.dequantized - weights) <= 0.501 * step).all()


def test_layers_are_told_by_what_they_hold_where_their_order_is_another() -> None:
    """Of two Dense layers the float file holds the second first."""

    def swap(model: Any, schema: Any) -> None:
        first, second = model.subgraphs[0].operators
        one, other = first.inputs, second.inputs
        first.inputs, second.inputs = [one[0], other[1], one[2]], [other[0], one[1], other[2]]

    pairing = pair_weights(changed(models.convert(twins, "float32"), swap), models.convert(twins, "int8"))
    assert [pair.floating.operator.index for pair in pairing.pairs] == [1, 0]


def test_equal_layers_are_told_by_their_order() -> None:
    pairing = pair_weights(*(changed(models.convert(twins, s), _shared(1)) for s in ("float32", "int8")))
    assert [(p.floating.operator.index, p.quantized.operator.index) for p in pairing.pairs] == [(0, 0), (1, 1)]


def test_a_layer_without_counterpart_is_said() -> None:
    def other(model: Any, schema: Any) -> None:
        weight = model.subgraphs[0].tensors[model.subgraphs[0].operators[1].inputs[1]]
        drawn = np.random.default_rng(11).normal(size=64).astype(np.float32)
        model.buffers[weight.buffer].data = np.frombuffer(drawn.tobytes(), np.uint8)

    floating = models.convert(twins, "float32")
    pairing = pair_weights(changed(floating, other), models.convert(twins, "int8"))
    assert [pair.floating.operator.index for pair in pairing.pairs] == [0]
    assert list(pairing.alone.values()) == ["no FULLY_CONNECTED of the float file has such weights"]
    pairing = pair_weights(floating, floating)
    assert (pairing.pairs, set(pairing.alone.values())) == (
        (),
        {"its float32 weights are no symmetric integers of 2, 4 or 8 bits"},
    )
