"""Decoders as files that write: token by token as the whole model, with anybody's weights, and what they refuse."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import decoder
import numpy as np
import pytest
from compressed_models import loaded_of

import edgeopt
from edgeopt import graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data.tokenizer import BYTES
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.frameworks import load
from edgeopt.keras_bridge import to_keras2
from edgeopt.language.generating import Sampling, chosen, open_generator
from edgeopt.language.grafting import graft
from edgeopt.language.lowering import decoder_of, lower
from edgeopt.schemes import SCHEMES
from edgeopt.tflite.reader import read

CONTEXT, VOCABULARY = 16, 260


@dataclass(frozen=True)
class Written:
    """A decoder, the files that score it, and those that write."""

    model: Any
    scoring: dict[str, Path]
    writing: dict[str, Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    load("keras").utils.set_random_seed(0)
    model, _ = to_keras2(decoder.build(VOCABULARY, CONTEXT, width=64, blocks=2, heads=2))
    # Untrained, all contexts give much the same: larger weights part them.
    model.set_weights([3 * weight for weight in model.get_weights()])
    converter = Converter(loaded_of(model), ConvertOptions())
    floating = lower(model, cache=CONTEXT, prefill=4)
    scoring, writing = {}, {}
    for name in ("float32", "int4-block32"):
        scoring[name], writing[name] = folder / f"{name}.tflite", folder / f"{name}.writer.tflite"
        scoring[name].write_bytes(converter.to_bytes(SCHEMES[name]))
        writing[name].write_bytes(floating if name == "float32" else graft(floating, scoring[name].read_bytes()))
    return Written(model, scoring, writing)


def _whole(file: Path, tokens: np.ndarray) -> np.ndarray:
    interpreter = load("litert").Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tokens[None])
    interpreter.invoke()
    found: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    return found


@pytest.mark.parametrize("name", ["float32", "int4-block32"])
def test_logits_token_by_token_are_those_of_the_file_that_reads_all_at_once(written: Written, name: str) -> None:
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, CONTEXT).astype(np.int32)
    whole = _whole(written.scoring[name], tokens)
    found = open_generator(written.writing[name]).logits(tokens.tolist())
    assert np.abs(found - whole).max() < 1e-4 * np.ptp(whole)


@pytest.mark.parametrize("length", [1, 4, 5, 7, 12])  # of no, of whole and of broken pieces of four
def test_a_prompt_is_read_in_pieces(written: Written, length: int) -> None:
    prompt = np.random.default_rng(length).integers(0, VOCABULARY, length).astype(np.int32)
    tokens = [*prompt.tolist()]
    for _ in range(4):
        padded = np.zeros(CONTEXT, np.int32)
        padded[: len(tokens)] = tokens
        tokens.append(int(_whole(written.scoring["float32"], padded)[len(tokens) - 1].argmax()))
    generator = open_generator(written.writing["float32"])
    assert list(generator.generate(prompt.tolist(), 4)) == tokens[length:]
    assert (generator.timing.read, generator.timing.written) == (length - 1, 4)


def test_it_ends_with_the_cache_and_with_what_ends_a_text(written: Written) -> None:
    generator = open_generator(written.writing["int4-block32"])
    assert generator.cache_bytes == 2 * 2 * CONTEXT * 64 * 4  # keys and values of two layers, in floats
    whole = list(generator.generate([1, 2, 3], 100))
    assert len(whole) == CONTEXT - 3 + 1
    assert list(generator.generate([1, 2, 3], 100, stop=frozenset(whole[1:2]))) == whole[: whole.index(whole[1])]


def test_all_signatures_read_one_copy_of_each_weight(written: Written) -> None:
    model = read(written.writing["int4-block32"])
    assert {signature.key for signature in model.signatures} == {"prefill", "decode"}
    buffers = [
        {tensor.buffer for tensor in each.tensors if tensor.block_size and tensor.elements >= 1024}
        for each in model.subgraphs
    ]
    prefill, decode = sorted(buffers, key=len)
    assert prefill
    # Logits are asked of the last token alone: what only they need of the last block is query, output and two layers.
    assert len(decode - prefill) == 4 + 1
    assert prefill < decode
    assert written.writing["int4-block32"].stat().st_size < 1.6 * written.scoring["int4-block32"].stat().st_size


def test_draws_are_repeatable_and_none_is_outside_of_the_likeliest() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.3, 0.2]))
    assert chosen(logits, Sampling(), np.random.default_rng(0)) == 1
    drawn = [chosen(logits, Sampling(1.0, top_k=2), np.random.default_rng(i)) for i in range(200)]
    assert set(drawn) == {1, 2}
    assert np.mean(np.array(drawn) == 1) == pytest.approx(4 / 7, abs=0.12)
    assert drawn[:5] == [chosen(logits, Sampling(1.0, top_k=2), np.random.default_rng(i)) for i in range(5)]


def test_prompts_that_do_not_fit_are_refused(written: Written) -> None:
    file = written.writing["float32"]
    with pytest.raises(ConfigError, match="Expected a prompt of at most 16 tokens, which the file remembers, got 17"):
        edgeopt.generate(file, "a" * 17, tokenizer=BYTES)
    with pytest.raises(ConfigError, match="Expected a prompt of at least one token, got none"):
        edgeopt.generate(file, "", tokenizer=BYTES)
    with pytest.raises(ConfigError, match="Expected tokens below 260, which the model knows, got 260"):
        open_generator(file).require([260])
    with pytest.raises(
        ModelError, match=r"Expected a file with the signatures prefill and decode, got .* with serving"
    ):
        edgeopt.generate(written.scoring["float32"], "a", tokenizer=BYTES)


def test_the_command_writes_text_and_says_how_fast(written: Written) -> None:
    command = [sys.executable, "-m", "edgeopt", "generate", str(written.writing["int4-block32"])]
    done = subprocess.run(
        [*command, "--tokenizer", "bytes", "--prompt", "abc", "--tokens", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("abc")
    assert re.search(r"^read 2 tokens at [\d,]+ a second, wrote 5 tokens at [\d,]+ a second, cache 16,384", done.stderr)


def test_weights_of_another_model_are_refused(written: Written) -> None:
    load("keras").utils.set_random_seed(1)
    other, _ = to_keras2(decoder.build(VOCABULARY, CONTEXT, width=64, blocks=2, heads=2))
    floating = lower(other, cache=CONTEXT, prefill=4)
    with pytest.raises(ModelError, match=r"Expected weights of the same model, got a file with \d+ layers that it has"):
        graft(floating, written.scoring["int4-block32"].read_bytes())


def test_grouped_heads_and_rms_are_remembered_as_well() -> None:
    keras = load("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = layers.Input((8,), dtype="int32")
    x = layers.Embedding(32, 16)(tokens)
    h = layers.RMSNormalization()(x)
    x = layers.Add()(
        [
            x,
            layers.GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2)(
                h, h, use_causal_mask=True
            ),
        ]
    )
    model, _ = to_keras2(keras.Model(tokens, layers.Dense(32)(x)))
    (attention,) = decoder_of(model).attentions
    assert (attention.heads, attention.key_size) == (2, 4)
    assert {signature.key for signature in read(lower(model, cache=8, prefill=4)).signatures} == {"prefill", "decode"}


def _decoder(change: Any = None, **attention: Any) -> Any:
    """A decoder of one layer, with something changed."""
    layers = load("tf_keras").layers
    tokens = layers.Input((8,), dtype="int32")
    x = layers.Embedding(32, 16)(tokens)
    x = layers.MultiHeadAttention(2, 8, name="look")(x, x, **{"use_causal_mask": True, **attention})
    x = x if change is None else change(x)
    return load("tf_keras").Model(tokens, layers.Dense(32, name="logits")(x))


def test_models_that_are_no_decoders_are_refused() -> None:
    tf_keras = load("tf_keras")
    layers = tf_keras.layers
    with pytest.raises(ModelError, match=r"look: use_causal_mask is not set: it looks ahead"):
        decoder_of(_decoder(use_causal_mask=False))
    numbers = layers.Input((8, 4))
    with pytest.raises(ModelError, match=r"Expected a model of tokens, one input of whole numbers .* got float32"):
        decoder_of(tf_keras.Model(numbers, layers.Dense(3)(numbers)))
    tokens = layers.Input((8,), dtype="int32")
    x = layers.Embedding(32, 16)(tokens)
    with pytest.raises(ModelError, match="Expected logits of each token's successor"):
        decoder_of(tf_keras.Model(tokens, layers.GlobalAveragePooling1D()(x)))
    with pytest.raises(ModelError, match="Expected a decoder with MultiHeadAttention or GroupQueryAttention layers"):
        decoder_of(tf_keras.Model(tokens, layers.Dense(32)(x)))
    shares = layers.Softmax(name="shares")(layers.Dot(2, name="scores")([layers.Dense(8)(x), layers.Dense(8)(x)]))
    mixed = layers.Dot((2, 1), name="mixed")([shares, x])
    with pytest.raises(
        ModelError, match=r"without any, but scores \(Dot\), shares \(Softmax\), mixed \(Dot\). Attention"
    ):
        decoder_of(tf_keras.Model(tokens, layers.Dense(32)(mixed)))

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.look = layers.MultiHeadAttention(2, 8)

        def call(self, x: Any) -> Any:
            return self.look(x, x, use_causal_mask=True)

    with pytest.raises(ModelError, match="block: what is inside of a Block cannot be reached"):
        decoder_of(tf_keras.Model(tokens, layers.Dense(32)(Block()(x))))
    model = _decoder()
    likely = tf_keras.Model(model.inputs, layers.Softmax(name="likely")(model.outputs[0]))
    with pytest.raises(ModelError, match="Expected logits, got probabilities: the last layer, likely, ends in a soft"):
        decoder_of(likely)
    with pytest.raises(ModelError, match="Expected a cache of at most 8 tokens, for which the model was built, got 16"):
        lower(model, cache=16, prefill=4)
    with pytest.raises(ModelError, match=r"Expected a cache of whole pieces of 3 tokens, got 8. Try 9"):
        lower(model, cache=8, prefill=3)


def test_a_layer_that_mixes_tokens_is_found_out() -> None:
    layers = load("tf_keras").layers
    mixing = layers.Conv1D(16, 3, padding="causal")
    with pytest.raises(ModelError, match="Expected a decoder that gives the same logits token by token, got some off"):
        lower(_decoder(mixing), cache=8, prefill=4)
    fixed = layers.Reshape((8, 16), name="fixed")
    with pytest.raises(ModelError, match="Expected layers that take any number of tokens, got fixed"):
        lower(graph.flatten(_decoder(fixed)), cache=8, prefill=4)


def test_the_whole_way_on_the_command_line(written: Written, tmp_path: Path) -> None:
    model, output = tmp_path / "some.keras", tmp_path / "some.tflite"
    load("keras").utils.set_random_seed(0)
    built = decoder.build(VOCABULARY, CONTEXT, width=32, blocks=1, heads=2)
    built.save(model)
    found = edgeopt.decoder(model, output, cache=8)
    assert (found.cache, found.prefill, found.difference) == (8, 8, None)
    assert found.size_bytes == output.stat().st_size
    tokenizer = tmp_path / "tokenizer.json"
    decoder.tokenizer(["some words of this and that " * 20], VOCABULARY).save(str(tokenizer))
    bundle = tmp_path / "some.litertlm"
    edgeopt.decoder(model, bundle, tokenizer=tokenizer, cache=8)
    wanted = "".join(edgeopt.generate(output, "so", tokenizer=tokenizer))
    found_there = _by_litert_lm(bundle, "so")
    # It ends a token earlier: the last one that is written is not remembered any more.
    assert found_there == wanted[:-1]
    assert len(found_there) >= 4
    with pytest.raises(ConfigError, match=r"Expected an output ending in .tflite or .litertlm, got some.bin"):
        edgeopt.decoder(model, "some.bin")
    with pytest.raises(ConfigError, match=r"Expected a tokenizer for the bundle .*some.litertlm, got none"):
        edgeopt.decoder(model, tmp_path / "some.litertlm", force=True)
    with pytest.raises(ConfigError, match="Expected a tokenizer's JSON file for the bundle, got bytes"):
        edgeopt.decoder(model, tmp_path / "some.litertlm", tokenizer=BYTES, force=True)


def _by_litert_lm(bundle: Path, prompt: str) -> str:
    """What Google's runtime of bundles writes behind a prompt, in a process of its own."""
    pytest.importorskip("litert_lm", reason="install litert-lm-api")
    code = (
        "import litert_lm, sys\n"
        "with litert_lm.Engine(sys.argv[1], backend=litert_lm.Backend.CPU) as engine:\n"
        "    with engine.create_session() as session:\n"
        "        session.run_prefill([sys.argv[2]])\n"
        "        sys.stdout.buffer.write(session.run_decode().texts[0].encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle), prompt], capture_output=True, check=True)
    return done.stdout.decode()


def test_what_is_missing_is_said_before_anything_is_lowered(tmp_path: Path) -> None:
    output = tmp_path / "writer.tflite"
    with pytest.raises(ModelError, match=r"Expected a .tflite file, got .*none.tflite, which does not exist"):
        edgeopt.decoder("some.keras", output, weights=tmp_path / "none.tflite")
    with pytest.raises(DataError, match=r"Expected a tokenizer's JSON file, got .*none.json, which cannot be read"):
        edgeopt.decoder("some.keras", output, tokenizer=tmp_path / "none.json")
    assert not list(tmp_path.iterdir())
