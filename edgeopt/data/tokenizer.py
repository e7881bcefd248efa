"""The file of a tokenizer, or the word `bytes`, goes in; what makes tokens of a text and text of tokens comes out."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ConfigError, DataError

# A token for each byte: for models without a file.
BYTES = "bytes"
# The largest that are known have 30 MB.
_LARGEST_FILE = 256 << 20


@dataclass(frozen=True)
class Tokenizer:
    """Text to tokens and back.

    Attributes:
        name: as it was asked for.
        vocabulary: how many tokens there are, from 0.
        encode: text → int32 [tokens].
        streamed: tokens, one by one → text in pieces that may be printed at once; a character that is not whole yet
            waits for its last token.
        ends: tokens that end a text: those that the file calls special.
        content: of its file; None where it has none.
    """

    name: str
    vocabulary: int
    encode: Callable[[str], np.ndarray]
    streamed: Callable[[Iterable[int]], Iterator[str]]
    ends: frozenset[int] = frozenset()
    content: bytes | None = None

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of tokens."""
        return "".join(self.streamed(tokens))

    def require_fits(self, vocabulary: int, what: str) -> None:
        """Raises ConfigError where `what`, a model of so many tokens, does not know all of these."""
        if self.vocabulary > vocabulary:
            raise ConfigError(
                f"Expected a tokenizer of at most {vocabulary:,} tokens for {what}, got {self.name} with "
                f"{self.vocabulary:,}. Try the one that the model was trained with."
            )


def open_tokenizer(spec: Path | str) -> Tokenizer:
    """Opens a tokenizer.

    Args:
        spec: `bytes`, or a JSON file as the package `tokenizers` writes it (Hugging Face's tokenizer.json).

    Raises:
        DataError: there is no such file, or it is none.
        UnavailableError: the package is not installed.
    """
    if str(spec) == BYTES:
        return Tokenizer(BYTES, 256, _bytes_of, _text_of_bytes)
    path = Path(spec)
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_FILE else b""
    except OSError as error:
        raise DataError(
            f"Expected a tokenizer's JSON file, got {spec}, which cannot be read ({error.strerror}). "
            f"Try another path, or {BYTES}."
        ) from error
    package = frameworks.load("tokenizers")
    try:
        found = package.Tokenizer.from_buffer(content)
    # Its errors are plain ValueErrors or bare Exceptions, by version.
    except Exception as error:
        raise DataError(
            f"Expected a tokenizer's JSON file as the package tokenizers writes it, got {spec}, which it cannot read "
            f"({error}). Try the tokenizer.json that belongs to the model, or {BYTES}."
        ) from error
    # A file may ask for both, which would cut texts or fill them up.
    found.no_padding()
    found.no_truncation()

    def encode(text: str) -> np.ndarray:
        return np.array(found.encode(text, add_special_tokens=False).ids, np.int32)

    def streamed(tokens: Iterable[int]) -> Iterator[str]:
        stream, held = package.decoders.DecodeStream(skip_special_tokens=True), list[int]()
        for token in tokens:
            held.append(int(token))
            if piece := stream.step(found, int(token)):
                held.clear()
                yield piece
        # The stream waits for the rest of a character, which does not come any more.
        if piece := found.decode(held, skip_special_tokens=True):
            yield piece

    ends = frozenset(number for number, token in found.get_added_tokens_decoder().items() if token.special)
    return Tokenizer(str(spec), _size(found), encode, streamed, ends, content)


def _size(found: Any) -> int:
    # Numbers may have gaps, and a model needs a row up to the last.
    return 1 + max(found.get_vocab(with_added_tokens=True).values(), default=-1)


def _bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)


def _text_of_bytes(tokens: Iterable[int]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        # A model may have more tokens than there are bytes.
        if piece := decoder.decode(bytes([token])) if 0 <= token < 256 else "":
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece
