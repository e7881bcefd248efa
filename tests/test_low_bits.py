"""Schemes below eight bits: what is stored, what stays at eight bits and why, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models
import tflite_mutations

from edgeopt import data, formats, frameworks, parity
from edgeopt.advice import advice, of_scheme
from edgeopt.comparison import layer_errors
from edgeopt.conversion import Converter, ConvertOptions, eight_bits
from edgeopt.errors import ConfigError, ConversionError, ModelError
from edgeopt.inspection import inspect_file
from edgeopt.loading import load_model
from edgeopt.runtimes import parse
from edgeopt.schemes import BLOCKS, SCHEMES
from edgeopt.tflite import op_versions, rewrite
from edgeopt.tflite.pairing import pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import layers, stored_weights, with_weights
from edgeopt.tflite.weight_grid import limits, nearest
from edgeopt.tflite.weights import weigh
from edgeopt.vocabulary import Scheme

# Of `cnn` below, in the order in which it computes.
FIRST, DEPTHWISE, POINTWISE, CONV, LAST = 3 * 3 * 3 * 8, 3 * 3 * 8, 8 * 160, 160 * 12, 12 * 10


def cnn() -> Any:
    """Conv2D 3 → 8, depthwise, 1x1 8 → 160, 1x1 160 → 12, Dense 12 → 10, all biased."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(3)
    said = {"bias_initializer": "normal", "activation": "relu"}
    image = keras.layers.Input((8, 8, 3), batch_size=1, name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", name="first", **said)(image)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise", **said)(x)
    x = keras.layers.Conv2D(160, 1, name="pointwise", **said)(x)
    x = keras.layers.Conv2D(12, 1, name="conv", **said)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="classes", bias_initializer="normal")(x))


def _converter(build: Any, folder: Path) -> Converter:
    path = folder / f"{build.__name__}.tflite"
    path.write_bytes(models.convert(build, "float32"))
    model = load_model(path)
    shape = [size or 1 for size in model.inputs[0].shape[1:]]
    samples = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    return Converter(model, ConvertOptions(calibration=data.load({"x_train": samples}).calibration))


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    return _converter(cnn, tmp_path_factory.mktemp("cnn"))


def _dtypes(content: bytes) -> list[str]:
    """Dtype of each layer's weights, in the order in which it computes."""
    return [layer.weight.dtype for layer in layers(read(content))]


def _scheme(name: str, *keep: str) -> Scheme:
    return replace(SCHEMES[name], keep_8bit=keep or ("auto",))


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keep", "dtypes"),
    [
        ("int4", (), ["int8", "int8", "int4", "int4", "int8"]),
        ("int4", ("none",), ["int4"] * 5),
        ("int4", ("conv",), ["int4", "int4", "int4", "int8", "int4"]),
        ("int4", ("auto", "p*"), ["int8", "int8", "int8", "int4", "int8"]),
        ("int4-weights", ("none",), ["int4"] * 5),
        # LiteRT has no right kernel of int16 x int4 depthwise convolutions.
        ("int4x16", ("none",), ["int4", "int8", "int4", "int4", "int4"]),
        ("int3", ("none",), ["int4"] * 5),
        # Dense kernels alone take two bits.
        ("int2", ("none",), ["int4", "int4", "int4", "int4", "int2"]),
    ],
)
def test_layers_have_the_bits_that_were_said(
    converter: Converter, name: str, keep: tuple[str, ...], dtypes: list[str]
) -> None:
    content = converter.to_bytes(_scheme(name, *keep))
    assert _dtypes(content) == dtypes
    least, greatest = limits(SCHEMES[name].weight_bits)
    model = read(content)
    for layer in layers(model):
        stored = stored_weights(model, layer)
        assert stored is not None
        if layer.weight.dtype != "int8":
            assert least <= stored.values.min()
            assert stored.values.max() <= greatest


def test_half_of_the_weights_is_saved(converter: Converter) -> None:
    """Bytes of weights, as a sum over layers."""
    eight, four = (weigh(read(converter.to_bytes(_scheme(name, "none")))).bytes_by_kind for name in ("int8", "int4"))
    assert eight["weights"] == FIRST + DEPTHWISE + POINTWISE + CONV + LAST
    assert four["weights"] == (FIRST + DEPTHWISE + POINTWISE + CONV + LAST) // 2
    assert four["biases"] == eight["biases"]


@pytest.mark.parametrize("name", ["int4", "int4x16", "int4-weights"])
def test_four_bits_are_as_near_to_the_float_model_as_four_bits_can_be(converter: Converter, name: str) -> None:
    """Each weight is the nearest on its grid."""
    floating = converter.to_bytes("float32")
    content = converter.to_bytes(_scheme(name, "none"))
    pairing = pair_weights(floating, content)
    assert not pairing.alone
    for pair in pairing.pairs:
        stored, weights = pairing.stored(pair), pairing.float_weights(pair)
        if pair.quantized.weight.dtype == "int4":
            best = nearest(weights, 4, axis=pair.quantized.axis, algorithm="mse")
            np.testing.assert_array_equal(stored.values, best.values)
            np.testing.assert_array_equal(stored.scales, best.scales)


@pytest.mark.parametrize(("bits", "least"), [(2, 0.5), (3, 0.8), (4, 0.94), (8, 0.999)])
def test_scales_of_least_error(bits: int, least: float) -> None:
    """Against min-max, whose error they never exceed, on a heavy-tailed channel, a narrow one, and one of zeros."""
    random = np.random.default_rng(1)
    weights = np.stack([random.standard_t(3, 512), 1e-4 * random.normal(size=512), np.zeros(512)]).astype(np.float32)
    errors = {}
    for algorithm in ("mse", "min-max"):
        found = nearest(weights, bits, axis=0, algorithm=algorithm)
        assert (found.scales > 0).all()
        assert not found.values[2].any()
        errors[algorithm] = np.square(found.dequantized - weights).sum(axis=1)
    assert (errors["mse"] <= errors["min-max"] + 1e-12).all()
    assert (1 - errors["mse"][:2] / np.square(weights[:2]).sum(axis=1) > least).all()


def test_one_scale_for_all_and_scales_that_a_bias_asks_for() -> None:
    weights = np.array([[1.0, -0.5], [0.25, 0.125]], np.float32)
    whole = nearest(weights, 4, axis=None, algorithm="min-max")
    assert whole.scales.tolist() == [np.float32(1 / 7)]
    raised = nearest(weights, 4, axis=0, algorithm="min-max", least_scales=np.array([0.0, 0.5]))
    assert raised.scales.tolist() == [np.float32(1 / 7), 0.5]
    with pytest.raises(ConfigError, match="Expected an algorithm for the scales of weights, got 'oracle'"):
        nearest(weights, 4, axis=0, algorithm="oracle")


def test_a_large_bias_beside_small_weights_fits(tmp_path: Path) -> None:
    """A channel of nearly nothing with a bias of 100: of its own scale the bias would take more than four bytes."""

    def lopsided() -> Any:
        keras = frameworks.load("tf_keras")
        values = keras.layers.Input((64,), batch_size=1)
        x = keras.layers.Dense(64, name="a")(values)
        model = keras.Model(values, keras.layers.Dense(64, name="b")(x))
        kernel, bias = np.random.default_rng(2).normal(size=(64, 64)), np.zeros(64)
        kernel[:, 5], bias[5] = kernel[:, 5] * 1e-12, 100
        model.set_weights([kernel, bias, kernel.T, np.zeros(64)])
        return model

    content = _converter(lopsided, tmp_path).to_bytes(_scheme("int4", "none"))
    model = read(content)
    bias = model.values(layers(model)[0].bias).astype(np.float64)
    assert np.abs(bias).max() < 2**31 - 1
    np.testing.assert_allclose(bias[5] * layers(model)[0].bias.quantization.scales[5], 100, rtol=0.01)


# --- what stays, and what is said ------------------------------------------------------------------------------------


def test_what_stays_is_said_with_its_reason(converter: Converter, tmp_path: Path) -> None:
    file = tmp_path / "m.tflite"
    assert converter.convert("int4", file) == (
        "weights that stay at eight bits: first (first layer), depthwise (depthwise), classes (last layer)",
    )
    assert converter.convert(_scheme("int4", "none"), file) == ()
    assert converter.convert(_scheme("int4", "conv"), file) == ("weights that stay at eight bits: conv (as asked)",)
    assert converter.convert(_scheme("int2", "none"), file) == (
        "weights of 2 bits stored as int4, for want of kernels: 3 CONV_2D, 1 DEPTHWISE_CONV_2D",
    )
    assert converter.convert(_scheme("int4x16", "none"), file) == (
        "weights that stay at eight bits: depthwise (no kernel for DEPTHWISE_CONV_2D with int16 activations)",
    )


def test_small_layers_and_shared_weights_stay(tmp_path: Path) -> None:
    def shared() -> Any:
        keras = frameworks.load("tf_keras")
        values = keras.layers.Input((40,), batch_size=1)
        twice, small = keras.layers.Dense(40, name="twice"), keras.layers.Dense(20, name="small")
        wide = keras.layers.Dense(40, name="wide")(small(twice(values)))
        return keras.Model(values, keras.layers.Dense(4, name="last")(twice(wide)))

    converter = _converter(shared, tmp_path)
    stay = eight_bits.kept(read(converter.to_bytes("int8")), _scheme("int4"))
    assert stay == {
        0: "first layer",
        1: "under 1,024 weights",
        2: "under 1,024 weights",
        3: "shares its weights with one: first layer",
        4: "last layer",
    }
    with pytest.raises(
        ConversionError,
        match=r"weights that int4 makes smaller, got only some that stay at eight bits \(.*\)\. "
        r"Try --scheme int8, or --keep-8bit none",
    ):
        converter.to_bytes("int4")
    content = converter.to_bytes(_scheme("int4", "none"))
    assert _dtypes(content) == ["int4"] * 5
    assert len({layer.weight.index for layer in layers(read(content))}) == 4


def test_layers_that_no_kernel_takes_stay(tmp_path: Path) -> None:
    converter = _converter(models.upsampling, tmp_path)
    with pytest.raises(ConversionError, match=r"\(no kernel for TRANSPOSE_CONV with int8 activations\)"):
        converter.to_bytes(_scheme("int4", "none"))


def test_names_that_no_layer_has(converter: Converter) -> None:
    with pytest.raises(ConfigError, match=r"auto, none, or names .* as keep_8bit, got 'pointwize', .*mean 'pointwise'"):
        converter.to_bytes(_scheme("int4", "pointwize"))


# --- what is foretold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["int4", "int4x16", "int4-weights", "int4-block32", "int2"])
def test_sizes_are_foretold(name: str, tmp_path: Path) -> None:
    converter = _converter(models.cnn, tmp_path)
    facts = inspect_file(tmp_path / "cnn.tflite").facts
    after = re.search(r"→ ([0-9.]+) kB", of_scheme(SCHEMES[name], facts).gain)
    assert after is not None
    assert float(after[1]) * 1000 == pytest.approx(len(converter.to_bytes(name)), rel=0.15)


def test_what_cannot_be_is_foretold(tmp_path: Path) -> None:
    _converter(rows_of_40, tmp_path)
    facts = inspect_file(tmp_path / "rows_of_40.tflite").facts
    found = {verdict.technique: verdict for verdict in advice(facts)}
    assert found["int4-block32"].possible is False
    assert found["int4-block32"].reason == "rows of 40 numbers do not divide into groups of 32"
    assert (
        found["int4"].reason == "nothing to gain: all layers are small, first, last or of kinds that stay at eight bits"
    )


# --- groups ----------------------------------------------------------------------------------------------------------


def rows_of_96() -> Any:
    keras = frameworks.load("tf_keras")
    values = keras.layers.Input((96,), batch_size=1)
    return keras.Model(values, keras.layers.Dense(64)(values))


def rows_of_40() -> Any:
    keras = frameworks.load("tf_keras")
    values = keras.layers.Input((40,), batch_size=1)
    return keras.Model(values, keras.layers.Dense(64)(values))


def test_groups_of_numbers_have_a_scale_each(tmp_path: Path) -> None:
    (layer,) = layers(read(_converter(rows_of_96, tmp_path).to_bytes("int4-block32")))
    assert (layer.weight.dtype, layer.weight.block_size) == ("int4", 32)


def test_groups_are_right_where_they_are_computed_and_garbage_is_caught(tmp_path: Path) -> None:
    """Kernels that others are compared with take scales of blocks, and compute something else."""
    file, floats = tmp_path / "blocks.tflite", tmp_path / "float.tflite"
    file.write_bytes(_converter(rows_of_96, tmp_path).to_bytes("int4-block32"))
    floats.write_bytes(_converter(rows_of_96, tmp_path).to_bytes("float32"))
    assert formats.facts(file).is_quantized
    xnnpack, *_, reference = parity.check(file, [parse("litert"), parse("litert-reference")])
    assert (xnnpack.status, xnnpack.matches_reference) == ("ok", True)
    assert reference.matches_reference is False
    assert reference.max_difference is not None
    assert reference.max_difference > 0.9
    part = data.load({"x": np.random.default_rng(0).normal(size=(8, 96)).astype(np.float32)}).validation
    layer, *_ = layer_errors(floats, file, part, isolate=False)
    assert layer.sqnr_db > 15, "four bits, not garbage"


def test_scales_that_are_not_one_for_each_block_are_refused(tmp_path: Path) -> None:
    content = _converter(rows_of_96, tmp_path).to_bytes("int4-block32")

    def shorten(model: Any, schema: Any) -> None:
        (weight,) = (t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.INT4)
        model.subgraphs[0].tensors[weight.quantization.details.scales].shape = np.array([1], np.int32)
        model.buffers[model.subgraphs[0].tensors[weight.quantization.details.scales].buffer].data = b"\0\0"

    with pytest.raises(ModelError, match=r"^Expected a scale for every 32 of the \d+ numbers of '.*', got 1\. Try"):
        rewrite.without_blocks(rewrite.changed(content, shorten))


def test_groups_of_which_no_layer_is_large_enough_are_refused(tmp_path: Path) -> None:
    """A file of floats that is called int4 would be none."""

    def small() -> Any:
        keras = frameworks.load("tf_keras")
        values = keras.layers.Input((32,), batch_size=1)
        return keras.Model(values, keras.layers.Dense(8)(values))

    with pytest.raises(
        ConversionError,
        match=r"weights that int4-block32 makes smaller, got none of 1024 elements and more that it takes\. "
        r"Try --scheme float16\.",
    ):
        _converter(small, tmp_path).to_bytes("int4-block32")


@pytest.mark.parametrize(
    ("build", "block", "message"),
    [
        (
            rows_of_96,
            64,
            r"rows divide into groups of 64 for int4-block64, got rows of 96, .* groups of 32, which",
        ),
        (rows_of_40, 32, r"got rows of 40, as of '[a-z_0-9]+'\. Try int4-weights, without groups"),
    ],
)
def test_groups_that_do_not_divide_are_refused(build: Any, block: int, message: str, tmp_path: Path) -> None:
    assert block in BLOCKS
    with pytest.raises(ConfigError, match=message):
        _converter(build, tmp_path).to_bytes(f"int4-block{block}")


# --- what runtimes and readers make of it ----------------------------------------------------------------------------


def test_a_runtime_that_computes_garbage_is_refused(
    converter: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tflite-runtime 2.14 takes int16 x int4 convolutions, and reads two weights as one."""
    pytest.importorskip("tflite_runtime")
    file = tmp_path / "m.tflite"
    converter.convert(_scheme("int4x16", "none"), file)
    requests = [parse(name) for name in ("litert-builtin", "tflite-runtime")]
    known = parity.check(file, requests)
    assert [row.status for row in known] == ["ok", "failed"]
    assert "CONV_2D on its types of weights needs TensorFlow Lite 2.20" in known[1].reason
    # Were it not known, parity would tell; Dense is refused by its version alone.
    converter.convert(_scheme("int4x16", "classes"), file)
    monkeypatch.setattr(op_versions, "_demands_by_operator", dict)
    found = parity.check(file, requests)
    assert [(row.status, row.matches_reference) for row in found] == [("ok", True), ("ok", False)]


def test_damaged_files_of_few_bits_are_read_or_refused(converter: Converter, tmp_path: Path) -> None:
    whole = [converter.to_bytes(_scheme(name, "none")) for name in ("int4", "int2", "int4-weights")]
    cut = [content[: len(content) * part // 7] for content in whole for part in range(1, 7)]
    file, read_all = tmp_path / "m.tflite", 0
    for content in (*tflite_mutations.mutations(whole, 300, seed=6), *cut):
        file.write_bytes(content)
        try:
            facts = formats.facts(file)
            model = read(content)
            same = {layer.weight.index: stored_weights(model, layer) for layer in layers(model)}
            eight_bits.kept(model, _scheme("int4"))
            with_weights(content, {index: weights for index, weights in same.items() if weights is not None})
        except ModelError:
            continue
        assert all(weight.size_bytes * 8 < weight.elements * weight.bits + 8 for weight in facts.weights if weight.bits)
        read_all += 1
    assert read_all > 20
