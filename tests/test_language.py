"""Language models: texts become tokens and back, and what does not go together is said in one message."""

from __future__ import annotations

import json
from pathlib import Path

import decoder
import numpy as np
import pytest

from edgeopt import data
from edgeopt.data.tokenizer import BYTES, open_tokenizer
from edgeopt.errors import ConfigError, DataError

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


def test_characters_are_streamed_when_they_are_whole() -> None:
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
