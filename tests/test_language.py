"""Language models: texts become tokens and back, and what does not go together is said in one message."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import decoder
import numpy as np
import pytest
from compressed_models import loaded_of

from edgeopt import data, graph
from edgeopt.conversion import Converter, ConvertOptions, quantizers
from edgeopt.data import Part
from edgeopt.data.tokenizer import BYTES, open_tokenizer
from edgeopt.equalizing import awareness
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.keras_bridge import to_keras2
from edgeopt.prospects import ModelFacts
from edgeopt.rounding import softmaxed, tables
from edgeopt.rounding.alone import CHOICES, Alone
from edgeopt.rounding.walk import Settings, output_error, round_file, stored_in
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, awq, mixed
from edgeopt.tflite.constants import with_small_constants
from edgeopt.tflite.pairing import pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import layers, stored_weights, with_weights

TEXT = "Return the name of a file.\n\nRaises ValueError: naïve 🙂 names.\n" * 40


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 300 tokens, learned from TEXT."""
    path = tmp_path_factory.mktemp("language") / "tokenizer.json"
    decoder.tokenizer([TEXT], 300).save(str(path))
    return path


def test_a_text_and_its_tokens_are_the_same_for_any_tokenizer(bpe: Path) -> None:
    for tokenizer in (open_tokenizer(BYTES), open_tokenizer(bpe)):
        tokens = tokenizer.encode(TEXT)
        assert tokenizer.decode(tokens) == TEXT
        assert tokens.dtype == np.int32
        assert tokens.max() < tokenizer.vocabulary
    assert len(open_tokenizer(bpe).encode(TEXT)) < len(TEXT.encode()) / 2


def test_characters_are_streamed_when_they_are_whole_and_what_is_left_of_one_in_the_end(bpe: Path) -> None:
    rocket = open_tokenizer(bpe).encode("🚀")
    assert list(open_tokenizer(bpe).streamed(rocket)) == ["🚀"]
    (left,) = open_tokenizer(bpe).streamed(rocket[:-1])
    assert set(left) == {"\ufffd"}
    smile = "🙂".encode()
    assert list(open_tokenizer(BYTES).streamed(smile)) == ["🙂"]
    assert list(open_tokenizer(BYTES).streamed([*smile[:2], 300])) == ["\ufffd"]


def test_a_text_is_cut_into_contexts_with_the_token_after_each(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("abcdefg")
    part = data.load(path, tokenizer=BYTES, context=3, validation_share=1.0).validation
    batch = part.arrays()
    order = np.argsort(next(iter(batch.inputs.values()))[:, 0])
    x, y = next(iter(batch.inputs.values()))[order], batch.labels[order]
    assert x.tolist() == [[97, 98, 99], [100, 101, 102]]
    assert y.tolist() == (x + 1).tolist()


def test_texts_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("abc")
    with pytest.raises(ConfigError, match=r"Expected a tokenizer for the text .*short.txt, got none. Try --tokenizer"):
        data.load(path)
    with pytest.raises(DataError, match="Expected a text of more than 3 tokens, one context and what follows, got sho"):
        data.load(path, tokenizer=BYTES, context=3)
    with pytest.raises(ConfigError, match="Expected at least 1 token as --context, got 0"):
        data.load(path, tokenizer=BYTES, context=0)
    path.write_bytes("naïve".encode("latin1"))
    with pytest.raises(DataError, match=r"Expected a text in UTF-8, got other bytes in short.txt at 2. Try iconv"):
        data.load(path, tokenizer=BYTES, context=1)


def test_tokenizers_that_are_none_are_refused(tmp_path: Path, bpe: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a tokenizer's JSON file, got nowhere.json, which cannot be read"):
        open_tokenizer("nowhere.json")
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"model": {"type": "BPE"}}))
    with pytest.raises(DataError, match=r"as the package tokenizers writes it, got .*other.json, which it cannot read"):
        open_tokenizer(path)
    with pytest.raises(ConfigError, match=r"Expected a tokenizer of at most 256 tokens for m.tflite, got .* with 300"):
        open_tokenizer(bpe).require_fits(256, "m.tflite")
    open_tokenizer(bpe).require_fits(300, "m.tflite")


def test_the_decoder_is_as_large_as_its_parts_and_sees_no_later_token() -> None:
    width, context, vocabulary = 32, 16, 64
    model = decoder.build(vocabulary, context, width=width, blocks=2, heads=2)
    norm, attention = 2 * width, 4 * (width * width + width)
    feed_forward = 2 * 4 * width * width + 4 * width + width
    block = 2 * norm + attention + feed_forward
    assert model.count_params() == 2 * vocabulary * width + context * width + 2 * block + norm
    tokens = np.arange(context)[None] % vocabulary
    other = np.where(np.arange(context) < 9, tokens, 5)
    before, after = (np.asarray(model(t, training=False))[0] for t in (tokens, other))
    np.testing.assert_allclose(before[:9], after[:9], atol=1e-6)
    assert np.abs(before[9:] - after[9:]).max() > 1e-3


# --- weights in groups -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Small:
    """A decoder of nobody's, its float file and samples."""

    model: Any
    floating: bytes
    samples: Part

    def converted(self, scheme: str) -> bytes:
        return quantizers.quantize(Given(self.floating), SCHEMES[scheme])


@dataclass(frozen=True)
class Given:
    """What a quantizer that needs no data starts from."""

    float_file: bytes


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    load("keras").utils.set_random_seed(0)
    model, _ = to_keras2(decoder.build(64, 16, width=64, blocks=1, heads=2))
    tokens = np.random.default_rng(0).integers(0, 64, (40, 16)).astype(np.int32)
    loaded = loaded_of(model)
    part = data.bind(data.load(tokens, validation_share=1.0).validation, loaded.inputs)
    return Small(model, Converter(loaded, ConvertOptions()).to_bytes("float32"), part)


def test_dense_layers_and_tables_have_a_scale_a_group(small: Small) -> None:
    model = read(small.converted("int4-block32"))
    dense = [layer for layer in layers(model) if layer.weight.elements >= 1024]
    assert {layer.weight.block_size for layer in dense} == {32}
    (table,) = (o for o in model.main.operators if o.name == "EMBEDDING_LOOKUP")
    weights = model.main.operand(table, 1)
    assert weights is not None
    assert (weights.dtype, weights.block_size) == ("int4", 32)


def test_constants_that_are_added_take_fewer_bytes_and_nothing_else_changes() -> None:
    keras = load("keras")
    mask = np.where(np.tri(40), 0.0, -1e9).astype(np.float32)
    uneven = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    huge, few = np.where(np.tri(40), 0.3, 1e6).astype(np.float32), np.full((1, 40), 0.5, np.float32)
    inputs = keras.Input((40, 40))
    model, _ = to_keras2(keras.Model(inputs, [inputs * each for each in (mask, uneven, huge, few)]))
    floating = Converter(loaded_of(model), ConvertOptions()).to_bytes("float32")
    small = with_small_constants(floating, least=1024)
    assert len(floating) - len(small) > 40 * 40 * (3 + 2) - 2000
    found = read(small).main
    held = {t.dtype for o in found.operators if o.name == "DEQUANTIZE" for t in [found.operand(o, 0)] if t}
    assert held == {"int8", "float16"}
    # What float16 cannot hold stays, and so does what is small.
    assert sorted(t.elements for t in found.tensors if t.is_constant and t.dtype == "float32") == [40, 40 * 40]
    sample = np.random.default_rng(1).normal(size=(1, 40, 40)).astype(np.float32)
    for before, after in zip(_run(floating, sample), _run(small, sample)):
        np.testing.assert_allclose(after, before, rtol=2**-11)
    assert with_small_constants(small, least=1024) == small


def _run(content: bytes, sample: np.ndarray) -> list[np.ndarray]:
    interpreter = load("litert").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def test_choosing_the_steps_of_groups_alone_brings_a_file_nearer(small: Small) -> None:
    content = small.converted("int4-block32")
    found = round_file(small.floating, content, small.samples, Settings("nearest"))
    assert found.after < 0.85 * found.before


def test_groups_are_written_as_they_are_read(small: Small) -> None:
    content = small.converted("int4-block32")
    model = read(content)
    layer = next(each for each in layers(model) if each.weight.block_size)
    stored = stored_weights(model, layer)
    assert stored is not None
    turned = replace(stored, values=-stored.values.clip(-7), scales=2 * stored.scales)
    again = read(with_weights(content, {layer.weight.index: turned}))
    found = stored_weights(again, next(each for each in layers(again) if each.name == layer.name))
    assert found is not None
    np.testing.assert_array_equal(found.dequantized, -2 * stored.scales.repeat(32, 1) * stored.values.clip(-7))


def test_rounding_by_what_layers_compute_brings_a_file_in_groups_nearer(small: Small) -> None:
    content = small.converted("int4-block32")
    found = round_file(small.floating, content, small.samples)
    assert found.after < 0.7 * found.before
    assert len(found.content) - len(content) < 64 * 64  # biases where there were none
    assert all(layer.weight.block_size == 32 for layer in layers(read(found.content)) if layer.weight.elements >= 1024)


def test_tables_get_the_scales_that_leave_the_least_error(small: Small) -> None:
    content = small.converted("int4-block32")
    (table,) = tables.tables(read(small.floating), read(content))
    before, after = table.error(table.stored), table.error(table.best)
    assert after < 0.95 * before
    ends = [(before, table.best), (after, table.stored)]
    for written, stored in ends:
        (found,) = tables.tables(read(small.floating), read(tables.written(content, table, stored)))
        assert found.error(found.stored) == pytest.approx(before + after - written)
    result = round_file(small.floating, content, small.samples, chosen=[table.name])
    assert [layer.kind for layer in result.layers if not layer.reason] == ["EMBEDDING_LOOKUP"]
    assert result.after < result.before


def test_layers_go_to_eight_bits_and_back_to_groups(small: Small) -> None:
    content = small.converted("int4-block32")
    names = [pair.name for pair in pair_weights(small.floating, content).pairs]
    high = stored_in(small.floating, content, dict.fromkeys(names, 8))
    assert {layer.weight.dtype for layer in layers(read(high)) if layer.weight.elements >= 1024} == {"int8"}
    low = stored_in(small.floating, high, dict.fromkeys(names, 4), block=32)
    assert len(low) - len(content) < 64 * 64
    errors = [output_error(small.floating, each, small.samples) for each in (high, low, content)]
    # Tables stay at four bits in all of them.
    assert errors[0] < 0.25 * errors[1]
    assert errors[1] == pytest.approx(errors[2], rel=0.3)


def test_a_layer_alone_in_four_bits_has_the_groups_of_the_file(small: Small) -> None:
    content = small.converted("int4-block32")
    alone = Alone(small.floating, content, small.samples)
    place = next(place for place in alone.places if place.uses and place.uses[0].floating.weight.shape == (256, 64))
    changed = read(alone.file(place, CHOICES["int4"]))
    (row, *_) = changed.values(changed.main.tensors[place.uses[0].floating.weight.index])
    for group in (row[:32], row[32:]):
        assert len(np.unique(group)) <= 15
    assert len(np.unique(row)) > 15


def test_the_layers_that_lose_most_get_eight_bits_within_a_size(small: Small, tmp_path: Path) -> None:
    content = small.converted("int4-block32")
    floating, start = tmp_path / "float.tflite", tmp_path / "start.tflite"
    floating.write_bytes(small.floating)
    start.write_bytes(content)
    carried = Carried(tmp_path, converted=start)
    # Biases that there were none of, and half of what a layer of 64 x 64 has more in eight bits.
    size = len(content) + 64 * 4 + 3 * 64 * 64 // 2
    given = (floating, SCHEMES["int4-block32"], small.samples, carried)
    made, record = mixed.TECHNIQUE.apply(mixed.Mix(size=f"{size}B"), *given)
    assert size - 64 * 64 < made.stat().st_size <= size
    bits = [layer.weight.dtype for layer in layers(read(made.read_bytes())) if layer.weight.elements >= 1024]
    assert 1 <= bits.count("int8") <= 3
    assert bits.count("int4") == len(bits) - bits.count("int8") > 0
    assert [(promise.kind, promise.kept) for promise in record.promises][1] == ("output error", True)
    with pytest.raises(ConfigError, match=r"Expected a size of at least ([\d,]+) bytes") as refusal:
        mixed.TECHNIQUE.apply(mixed.Mix(size="10KB"), *given)
    least = int(str(refusal.value).partition("at least ")[2].partition(" ")[0].replace(",", ""))
    # Beside biases there is nothing in it that the file has not.
    assert least == pytest.approx(len(content), rel=0.08)


# --- AWQ -------------------------------------------------------------------------------------------------------------


def _with_large_channels(model: Any) -> Any:
    """A copy some of whose activations are forty times larger than the rest, as in large language models."""
    copy = graph.flatten(model)
    for layer in copy.layers:
        if type(layer).__name__ == "LayerNormalization":
            layer.gamma.assign(np.where(np.arange(64) % 16 == 3, 40.0, 1.0))
    return copy


def test_awq_leaves_the_function_as_it_is_and_what_it_is_made_of_rounds_better(small: Small, tmp_path: Path) -> None:
    model = _with_large_channels(small.model)
    tokens = small.samples.arrays().inputs
    dataset = data.load(next(iter(tokens.values())))
    made, record = awq.TECHNIQUE.apply(awq.Awq(), model, dataset, Carried(tmp_path))
    assert all(promise.kept for promise in record.promises)
    assert {layer.layer for layer in record.layers if layer.done} >= {"attention_norm_0", "feed_forward_norm_0"}
    errors = []
    for each in (model, made):
        floating = Converter(loaded_of(each), ConvertOptions()).to_bytes("float32")
        quantized = Small(each, floating, small.samples).converted("int4-block32")
        errors.append(output_error(floating, quantized, small.samples))
    assert errors[1] < 0.6 * errors[0]


def test_awq_says_what_it_cannot_scale(small: Small, tmp_path: Path) -> None:
    layers_ = load("tf_keras").layers
    x = inputs = layers_.Input((6, 8))
    x = layers_.LayerNormalization(name="read_twice")(x)
    x = layers_.Add(name="add")([layers_.Dense(8, name="one")(x), x])
    model = load("tf_keras").Model(inputs, layers_.Dense(3, name="other")(x))
    samples = np.random.default_rng(0).normal(size=(20, 6, 8)).astype(np.float32)
    _, record = awq.TECHNIQUE.apply(awq.Awq(group=8), model, data.load(samples), Carried(tmp_path))
    assert [(layer.layer, layer.reason) for layer in record.layers] == [("read_twice", "add (Add) reads it, too")]
    assert record.notes == ("nothing was scaled: the model has no channels that linear layers alone read",)
    with pytest.raises(ConfigError, match=r"Expected rows of weights that divide into groups of 48, got rows of 64"):
        awq.TECHNIQUE.apply(
            awq.Awq(group=48),
            small.model,
            data.load(next(iter(small.samples.arrays().inputs.values()))),
            Carried(tmp_path),
        )


def test_awq_leaves_a_model_alone_whose_channels_are_alike(tmp_path: Path) -> None:
    layers_ = load("tf_keras").layers
    inputs = layers_.Input((6, 64))
    x = layers_.LayerNormalization(name="even")(inputs)
    model = load("tf_keras").Model(inputs, layers_.Dense(32)(x))
    samples = np.random.default_rng(0).normal(size=(40, 6, 64)).astype(np.float32)
    made, record = awq.TECHNIQUE.apply(awq.Awq(), model, data.load(samples), Carried(tmp_path))
    assert record.notes[0].startswith("nothing was scaled: no channels meet so much larger activations")
    assert [layer.reason[:25] for layer in record.layers] == ["no power is worth it: err"]
    for before, after in zip(model.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(before, after)


def test_awq_scales_from_dense_to_dense_where_nothing_bends_between() -> None:
    layers_ = load("tf_keras").layers
    x = inputs = layers_.Input((8,))
    x = layers_.Dense(16, activation="relu", name="straight")(x)
    x = layers_.Dense(16, activation="gelu", name="bent")(x)
    model = load("tf_keras").Model(inputs, layers_.Dense(4, name="last")(x))
    assert [site.name for site in awareness.find(model).values()] == ["straight"]


def test_what_awq_brings_to_a_scheme() -> None:
    facts = ModelFacts("", "", 0, 0, 0, 0.0, (), {"Dense": 2, "LayerNormalization": 3})
    assert awq.TECHNIQUE.suits(SCHEMES["int4-block32"], facts) == ""
    assert awq.TECHNIQUE.suits(SCHEMES["float16"], facts) == "nothing is quantized"
    assert awq.TECHNIQUE.suits(SCHEMES["int8"], facts).startswith("it evens out what weights lose")
    assert awq.TECHNIQUE.suits(SCHEMES["dynamic"], facts).startswith("of 8 bits with a scale for each channel")
    assert (
        awq.TECHNIQUE.suits(SCHEMES["int4-block32"], replace(facts, layers={"Dense": 1}))
        == "no layer normalizes or attends"
    )
    assert awq.TECHNIQUE.predict(awq.Awq(), facts).gain.startswith("less loss")
    assert awq.TECHNIQUE.predict(awq.Awq(), replace(facts, layers={"Dense": 1})).gain == "little"
    assert awq.TECHNIQUE.predict(awq.Awq(), replace(facts, layers={})).possible is False


# --- in front of a softmax -------------------------------------------------------------------------------------------


def test_the_last_layer_of_what_speaks_is_rounded_by_what_a_softmax_heeds(small: Small) -> None:
    content = small.converted("int4-block32")
    found = {
        task: round_file(small.floating, content, small.samples, Settings(task=task)) for task in (None, "language")
    }
    assert not any(layer.softmaxed for layer in found[None].layers)  # without labels nobody knows
    (last,) = (layer for layer in found["language"].layers if layer.softmaxed)
    assert last.weight == pair_weights(small.floating, content).pairs[-1].quantized.weight.name
    assert found["language"].after < found["language"].before
    lost = [_divergence(small, each.content) for each in found.values()]
    assert lost[1] < lost[0]


def _divergence(small: Small, content: bytes) -> float:
    """Returns how far what a softmax makes of a file's logits lies from that of the float file's."""
    (tokens,) = small.samples.arrays().inputs.values()
    ours, theirs = (
        np.concatenate([_run(each, one[None])[0] for one in tokens]).astype(np.float64)
        for each in (small.floating, content)
    )
    ours, theirs = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (ours, theirs))
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def test_labels_tell_that_a_file_speaks(small: Small) -> None:
    model = read(small.floating)
    (tokens,) = small.samples.arrays().inputs.values()
    moved = np.roll(tokens, -1, axis=1)
    following = data.bind(data.load((tokens, moved), validation_share=1.0).validation, model.inputs)
    tagged = data.bind(data.load((tokens, tokens % 5), validation_share=1.0).validation, model.inputs)
    assert softmaxed.speaks(model, following)
    assert not softmaxed.speaks(model, tagged)
    assert not softmaxed.speaks(model, small.samples)
    assert softmaxed.speaks(model, small.samples, said="language")
    assert not softmaxed.speaks(model, following, said="tagging")


def test_what_lies_behind_a_layer(small: Small) -> None:
    keras = load("keras")
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    model, _ = to_keras2(keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(hidden)))
    ends = read(Converter(loaded_of(model), ConvertOptions()).to_bytes("float32"))
    speaker = read(small.floating)
    for file, probabilities in ((ends, True), (speaker, False)):
        dense = [operator for operator in file.main.operators if operator.name == "FULLY_CONNECTED"]
        assert [softmaxed.behind(file, operator) for operator in dense] == [False] * (len(dense) - 1) + [True]
        assert softmaxed.probabilities(file) == probabilities
