"""Weights of a converted file are rounded by what its layers compute, measured on the file that comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import loaded_of

from edgeopt import data as datasets
from edgeopt import formats
from edgeopt.carry_out import Outcome, carry_out
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Part
from edgeopt.errors import ConfigError, DataError
from edgeopt.evaluation import Evaluation
from edgeopt.frameworks import load
from edgeopt.plan import plan
from edgeopt.prospects import ModelFacts
from edgeopt.recipe import Recipe, read_recipe, steps_from
from edgeopt.rounding.arrivals import arrivals
from edgeopt.rounding.blocks import Weights, blocks, reconstruct
from edgeopt.rounding.fitting import Rounded
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.layout import layout
from edgeopt.rounding.walk import Settings, output_error, round_file, split, stored_in
from edgeopt.schemes import SCHEMES
from edgeopt.techniques.contract import Carried
from edgeopt.techniques.in_layers import chosen_layers
from edgeopt.techniques.round import TECHNIQUE, Round, _promises
from edgeopt.tflite.activations import computed, matched
from edgeopt.tflite.model import Operator
from edgeopt.tflite.pairing import Pair as LayerPair
from edgeopt.tflite.pairing import Pairing, pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import layers, stored_bias, stored_weights
from edgeopt.vocabulary import Promise, Property, StepRecord, Variant
from edgeopt.workspace import Workspace


@dataclass(frozen=True)
class Pair:
    """One network, float and int8, with samples for it."""

    floating: bytes
    quantized: bytes
    samples: Part


def _pair(model: Any, samples: np.ndarray) -> Pair:
    loaded = loaded_of(model)
    part = datasets.bind(datasets.load({"x": samples}).calibration, loaded.inputs)
    converter = Converter(loaded, ConvertOptions(calibration=part))
    return Pair(*(converter.to_bytes(SCHEMES[name]) for name in ("float32", "int8")), part)


@pytest.fixture(scope="module")
def cnn() -> Pair:
    """A convolution, a depthwise one and two Dense layers, all on correlated inputs."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = layers.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu6", name="depth")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    random = np.random.default_rng(0)
    images = random.normal(size=(60, 8, 8, 2)).cumsum(1).cumsum(2).astype(np.float32) / 8
    return _pair(keras.Model(inputs, layers.Dense(5, name="head")(x)), images)


@pytest.fixture(scope="module")
def residual() -> Pair:
    """A convolution, a branch of two that is added to it, and a Dense layer behind a mean."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = layers.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="one")(x)
    y = layers.Conv2D(8, 3, padding="same", name="two")(y)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    random = np.random.default_rng(0)
    images = random.normal(size=(400, 8, 8, 2)).cumsum(1).cumsum(2).astype(np.float32) / 8
    return _pair(keras.Model(inputs, layers.Dense(5, name="head")(x)), images)


def _lowered(pair: Pair, bits: int) -> Pair:
    """The same with all weights in so many bits, to the nearest integers."""
    return replace(pair, quantized=stored_in(pair.floating, pair.quantized, dict.fromkeys(_names(pair), bits)))


def _integers(content: bytes) -> list[np.ndarray]:
    model = read(content)
    found = [stored_weights(model, layer) for layer in layers(model)]
    return [stored.values for stored in found if stored is not None]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gptq", "adaround", "nearest"])
def test_outputs_come_nearer_to_the_float_models(cnn: Pair, method: str) -> None:
    cnn = _lowered(cnn, 3)
    found = round_file(cnn.floating, cnn.quantized, cnn.samples, Settings(method, iterations=200))
    assert {layer.bits for layer in found.layers} == {3}
    assert [np.abs(values).max() for values in _integers(found.content)] == [3, 3, 3, 3]
    assert found.after < (0.95 if method == "nearest" else 0.5) * found.before
    _, held = split(cnn.samples, seed=0)
    assert found.after == output_error(cnn.floating, found.content, held)
    assert (found.samples, found.held) == (len(cnn.samples) - len(held), len(cnn.samples) // 5)
    for layer in found.layers:
        assert layer.before is not None
        assert layer.after is not None
        assert layer.after <= layer.before
        assert bool(layer.trace) == (method == "adaround")


def test_layers_of_a_block_make_up_for_one_another(residual: Pair) -> None:
    low = _lowered(residual, 2)
    alone, found = (
        round_file(low.floating, low.quantized, low.samples, Settings(method, iterations=400))
        for method in ("gptq", "brecq")
    )
    assert found.after < alone.after
    block = found.blocks[-1]
    assert len(block.names) == 2
    assert block.after < 0.95 * block.before
    assert [np.abs(values).max() for values in _integers(found.content)] == [1, 1, 1, 1]
    assert (_integers(found.content)[1] != _integers(alone.content)[1]).any()
    # Nothing to choose of eight bits, nor of weights that have to stay equal.
    assert not round_file(low.floating, residual.quantized, low.samples, Settings("brecq")).blocks
    assert not round_file(low.floating, low.quantized, low.samples, Settings("brecq", clustered=True)).blocks


def test_a_block_is_computed_as_the_file_computes_it(cnn: Pair, residual: Pair) -> None:
    for pair, expected in (
        (cnn, [["CONV_2D", "DEPTHWISE_CONV_2D"], ["FULLY_CONNECTED", "FULLY_CONNECTED"]]),
        (residual, [["CONV_2D"], ["CONV_2D", "CONV_2D", "ADD"]]),
    ):
        low = _lowered(pair, 3)
        pairing = pair_weights(low.floating, low.quantized)
        every = {one.quantized.operator.index: one for one in pairing.pairs}
        found = list(blocks(pairing.quantized.main, every))
        assert [[operator.name for operator in block] for block in found][: len(expected)] == expected
        for block in found:
            weights = {o.index: _known(pairing, every[o.index]) for o in block if o.index in every}
            made = reconstruct(
                low.floating, low.quantized, block, weights, low.samples, low.samples, iterations=1, seed=0
            )
            assert made is not None
            assert made[1] == pytest.approx(_block_error(pairing, low, block), rel=0.1)
            assert made[0] == {}


def _known(pairing: Pairing, pair: LayerPair) -> Weights:
    """A layer as the file has it, which is to stay so."""
    lies, stored = layout(pairing.quantized.main, pair.quantized.operator, pair.quantized.weight), pairing.stored(pair)
    assert lies is not None
    shape = lies.groups, lies.rows
    steps = np.broadcast_to(stored.scales.astype(np.float64), lies.groups * lies.rows).reshape(*shape, 1)
    bias = stored_bias(pairing.quantized, pair.quantized)
    biases = np.zeros(shape) if bias is None else bias.reshape(shape)
    now = Rounded(lies.matrix(stored.values).astype(np.float64), steps, (biases,))
    return Weights(lies.matrix(pairing.float_weights(pair)).astype(np.float64), now, lies, Grid.of(3), fixed=True)


def _block_error(pairing: Pairing, pair: Pair, block: Sequence[Operator]) -> float:
    end = pairing.quantized.main.tensors[block[-1].outputs[0]]
    names = {theirs: ours for ours, theirs in matched(computed(pairing.floating), computed(pairing.quantized)).items()}
    wanted = next(tensor.index for tensor in computed(pairing.floating) if tensor.name == names[end.name])
    with arrivals(pair.floating, [wanted]) as ours, arrivals(pair.quantized, [end.index]) as theirs:
        both = [[each.values(batch.inputs)[0] for each in (ours, theirs)] for batch in pair.samples.batches(32)]
    real, made = (np.concatenate(each) for each in zip(*both))
    return float(np.mean(np.square(real - made)) / real.var())


def test_each_layer_is_rounded_for_what_arrives_after_those_before_it(cnn: Pair) -> None:
    cnn = _lowered(cnn, 2)
    first = round_file(cnn.floating, cnn.quantized, cnn.samples, chosen=_names(cnn)[:1])
    both = round_file(cnn.floating, cnn.quantized, cnn.samples, chosen=_names(cnn)[:2])
    alone = round_file(cnn.floating, cnn.quantized, cnn.samples, chosen=_names(cnn)[1:2])
    np.testing.assert_array_equal(_integers(first.content)[0], _integers(both.content)[0])
    assert (_integers(both.content)[1] != _integers(alone.content)[1]).any()
    assert [layer.reason for layer in first.layers] == ["", *3 * ["it was not asked for"]]


def test_zeros_and_equal_weights_are_kept(cnn: Pair) -> None:
    cnn = _lowered(cnn, 4)
    pruned = replace(cnn, floating=_changed(cnn.floating, lambda w: np.where(np.abs(w) < 0.1, 0.0, w)))
    floats = [np.asarray(pair_weights(pruned.floating, cnn.quantized).float_weights(p)) for p in _pairs(pruned)]
    found = round_file(pruned.floating, cnn.quantized, cnn.samples, Settings(sparse=True))
    for real, integers in zip(floats, _integers(found.content)):
        assert (real == 0).any()
        assert not integers[real == 0].any()
    clustered = _lowered(replace(cnn, floating=_changed(cnn.floating, lambda w: np.round(w, 1))), 4)
    found = round_file(*_files(clustered), cnn.samples, Settings(clustered=True))
    for pair, integers in zip(_pairs(clustered), _integers(found.content)):
        real = pair_weights(*_files(clustered)).float_weights(pair)
        for channel in range(real.shape[pair.quantized.axis]):
            ours, theirs = (np.take(array, channel, pair.quantized.axis) for array in (real, integers))
            assert all(len(np.unique(theirs[ours == value])) == 1 for value in np.unique(ours))


def test_a_channel_of_next_to_nothing_leaves_room_for_its_bias() -> None:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, name="dense")
    model = keras.Sequential([keras.layers.Input((4,)), dense])
    kernel, _ = dense.get_weights()
    kernel[:, 1] = 1e-12
    dense.set_weights([kernel, np.array([0.1, 5.0, -0.1])])
    pair = _pair(model, np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    for content in (
        stored_in(pair.floating, pair.quantized, {_names(pair)[0]: 4}),
        round_file(*_files(_lowered(pair, 4)), pair.samples).content,
    ):
        (layer,) = layers(read(content))
        bias = stored_bias(read(content), layer)
        assert bias is not None
        assert bias[1] == pytest.approx(5.0, rel=1e-3)


def test_a_layer_that_is_called_twice_is_rounded_for_both_calls() -> None:
    keras = load("tf_keras")
    keras.utils.set_random_seed(0)
    twice = keras.layers.Dense(24, name="twice")
    inputs = keras.layers.Input((24,))
    model = keras.Model(inputs, twice(keras.layers.ReLU()(twice(inputs))))
    samples = np.random.default_rng(0).normal(size=(250, 24)).cumsum(1).astype(np.float32) / 4
    pair = _pair(model, samples)
    (shared,) = {one.quantized.weight.index for one in _pairs(pair)}
    found = round_file(*_files(_lowered(pair, 3)), pair.samples)
    assert [(layer.kind, layer.bits) for layer in found.layers] == 2 * [("FULLY_CONNECTED", 3)]
    assert {layer.weight.index for layer in layers(read(found.content))} == {shared}
    assert found.after < found.before
    assert len({promise.subject for promise in _promises(found)}) == len(list(_promises(found))), "each told once"


def test_what_cannot_be_rounded_says_why(cnn: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    found = round_file(cnn.floating, cnn.floating, cnn.samples)
    assert found.content == cnn.floating
    assert found.kept_as_it_was
    assert {layer.reason for layer in found.layers} == {
        "its float32 weights are no symmetric integers of 2, 4 or 8 bits"
    }
    with pytest.raises(DataError, match=r"Expected at least 8 calibration samples .* got 7\. Try more calibration"):
        round_file(cnn.floating, cnn.quantized, cnn.samples.head(7))
    monkeypatch.setattr("edgeopt.rounding.walk.MOST_COLUMNS", 26)
    found = round_file(*_files(_lowered(cnn, 4)), cnn.samples)
    # 3x3x2 of the convolution and 8 times 3x3 of the depthwise one are in; 4x4x8 of the dense layer are too many.
    assert [layer.reason for layer in found.layers[:2]] == ["", ""]
    assert found.layers[2].reason == "the covariance of its 128 inputs would take too much memory"


# --- the technique ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, dict[str, float]]:
    """A recipe that rounds a file of three bits, and the scores of its variants."""
    folder = tmp_path_factory.mktemp("rounded")
    with Workspace(digits_model, datasets.load("digits"), folder) as workspace:
        found = carry_out(Recipe(steps=steps_from(["round"]), schemes=("int3",), keep_8bit=("none",)), workspace)
        return folder, found, {v.name: _score(workspace, v) for v in found.variants}


def _score(workspace: Workspace, variant: Variant) -> float:
    found = workspace.score(variant, workspace.data.validation)
    assert isinstance(found, Evaluation)
    return found.metric.value


def test_a_recipe_ends_in_a_file_of_few_values(outcome: tuple[Path, Outcome, dict[str, float]]) -> None:
    _, found, scores = outcome
    (record,) = found.records
    assert not record.rolled_back
    assert any(change.done.startswith("3 bits: error ") for change in record.layers)
    error, *values = record.promises
    assert error.kind == "output error"
    assert error.kept
    assert values
    assert all(promise.kept and promise.limit == 2**3 - 1 for promise in values)
    assert scores["float32"] - scores["round.int3"] < 0.03


def test_a_float_file_is_rounded_as_well(outcome: tuple[Path, Outcome, dict[str, float]], tmp_path: Path) -> None:
    folder, found, _ = outcome
    floating = folder / str(next(v for v in found.variants if v.name == "float32").file)
    with Workspace(floating, datasets.load("digits"), tmp_path) as workspace:
        again = carry_out(Recipe(steps=steps_from(["round"]), schemes=("int3",), keep_8bit=("none",)), workspace)
    assert again.records[0].promises == found.records[0].promises


def test_a_step_that_brings_nothing_leaves_the_file_as_it_was(cnn: Pair, tmp_path: Path) -> None:
    for name, content in (("float32", cnn.floating), ("float16", cnn.floating)):
        (tmp_path / f"{name}.tflite").write_bytes(content)
    carried = Carried(tmp_path, converted=tmp_path / "float16.tflite")
    made, record = TECHNIQUE.apply(Round(), tmp_path / "float32.tflite", SCHEMES["float16"], cnn.samples, carried)
    assert made.read_bytes() == cnn.floating
    assert record.notes == ("nothing was rounded: its float32 weights are no symmetric integers of 2, 4 or 8 bits",)
    (tmp_path / "int8.tflite").write_bytes(cnn.quantized)
    trained = Carried(tmp_path, frozenset({Property.FAKE_QUANTIZED}), converted=tmp_path / "int8.tflite")
    made, record = TECHNIQUE.apply(Round(), tmp_path / "float32.tflite", SCHEMES["int8"], cnn.samples, trained)
    assert made.read_bytes() == cnn.quantized
    assert record.notes == ("nothing was rounded: the weights were trained for the integers that they have",)


def test_values_that_are_too_many_break_the_promise(cnn: Pair, tmp_path: Path) -> None:
    (tmp_path / "int8.tflite").write_bytes(cnn.quantized)
    facts = formats.facts(tmp_path / "int8.tflite")
    weight = next(w for w in facts.weights if w.kind == "weights")
    promise = Promise("distinct values in a channel", weight.name, limit=7)
    record = StepRecord("round", promises=(promise,))
    (checked,) = TECHNIQUE.check(Round(), record, facts)
    assert checked.measured == weight.unique_per_channel
    assert checked.kept is False


def test_what_a_plan_says_of_it() -> None:
    recipe = "{schemes: [int4], steps: [round, round]}"
    assert plan(read_recipe(recipe)).notes == ("steps[1].round: an earlier step rounds the same weights",)
    with pytest.raises(ConfigError, match="got float16: nothing in it is rounded to integers"):
        plan(read_recipe("{schemes: [int8, float16], steps: [round]}"))
    assert TECHNIQUE.suits(SCHEMES["int4-block32"], _facts()) == ""
    assert TECHNIQUE.suits(SCHEMES["int4"], _facts()) == ""


@pytest.mark.parametrize(
    ("words", "spare", "expected"),
    [
        ((), (), ["net/conv/Conv2D;net/relu", "net/conv_1/Conv2D", "net/dense/MatMul"]),
        (("conv",), (), ["net/conv/Conv2D;net/relu"]),
        (("conv*",), (), ["net/conv/Conv2D;net/relu", "net/conv_1/Conv2D"]),
        ((), ("CONV_2D",), ["net/dense/MatMul"]),
        (("net/*",), ("dense",), ["net/conv/Conv2D;net/relu", "net/conv_1/Conv2D"]),
    ],
)
def test_layers_are_told_by_names_and_parts_of_them(
    words: tuple[str, ...], spare: tuple[str, ...], expected: list[str]
) -> None:
    there = [("net/conv/Conv2D;net/relu", "CONV_2D"), ("net/conv_1/Conv2D", "CONV_2D"), ("net/dense/MatMul", "FULLY")]
    assert list(chosen_layers(there, words, spare)) == expected


def test_words_that_mean_no_layer_are_refused() -> None:
    there = [("net/conv/Conv2D", "CONV_2D")]
    with pytest.raises(ConfigError, match=r"as .*layers.*, got 'conw', which no layer of the file has\..*conv"):
        chosen_layers(there, ("conw",), ())
    with pytest.raises(ConfigError, match=r"Expected some layers to be left, got .*conv.* Try sparing fewer\."):
        chosen_layers(there, (), ("conv",))


# --- help ------------------------------------------------------------------------------------------------------------


def _names(pair: Pair) -> list[str]:
    return [one.name for one in _pairs(pair)]


def _files(pair: Pair) -> tuple[bytes, bytes]:
    return pair.floating, pair.quantized


def _pairs(pair: Pair) -> Any:
    return pair_weights(pair.floating, pair.quantized).pairs


def _changed(content: bytes, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Returns a float file with other weights in all its layers."""
    from edgeopt.tflite.rewrite import changed

    model = read(content)
    kept = {layer.weight.buffer: model.values(layer.weight) for layer in layers(model)}

    def apply(parsed: Any, schema: Any) -> None:
        for buffer, values in kept.items():
            parsed.buffers[buffer].data = np.frombuffer(change(values).astype(np.float32).tobytes(), np.uint8)

    return changed(content, apply)


def _facts() -> ModelFacts:
    return ModelFacts("", "", 0, 0, 0, 0.0, (), {})
