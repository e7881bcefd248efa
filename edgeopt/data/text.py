"""A text file and a tokenizer go in; contexts of tokens, each labelled with the token that follows, come out."""

from __future__ import annotations

from pathlib import Path

from edgeopt.data.arrays import open_source as open_arrays
from edgeopt.data.table import Options, Splits, reading
from edgeopt.data.tokenizer import BYTES, open_tokenizer
from edgeopt.errors import ConfigError, DataError

# Tokens take a few times as much.
_LARGEST_BYTES = 256 << 20


def open_source(spec: str, options: Options) -> Splits:
    """Cuts a text into contexts side by side, `x` and the same moved by one token, `y`, both int32 [N, context].

    Raises:
        ConfigError: no tokenizer was named.
        DataError: it is no text, too long for memory, or shorter than one context.
    """
    if options.tokenizer is None:
        raise ConfigError(
            f"Expected a tokenizer for the text {spec}, got none. Try --tokenizer FILE.json, or --tokenizer {BYTES}."
        )
    path = Path(spec).resolve()
    with reading(path):
        if (size := path.stat().st_size) > _LARGEST_BYTES:
            raise DataError(f"Expected a text of at most {_LARGEST_BYTES:,} bytes, got {size:,}. Try a part of it.")
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"Expected a text in UTF-8, got other bytes in {path.name} at {error.start:,}. "
                "Try iconv -f latin1 -t utf-8."
            ) from error
    tokens, context = open_tokenizer(options.tokenizer).encode(text), options.context
    count = (len(tokens) - 1) // context
    if count < 1:
        raise DataError(
            f"Expected a text of more than {context:,} tokens, one context and what follows, got {path.name} with "
            f"{len(tokens):,}. Try a longer text, or a smaller --context if the model takes it."
        )
    x, y = (tokens[start : start + count * context].reshape(count, context) for start in (0, 1))
    return open_arrays((x, y), options)
