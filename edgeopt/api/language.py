"""A decoder goes in, a file that generates comes out; and that file and a prompt go in, text comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt import files, workers
from edgeopt.api.models import as_path
from edgeopt.data.tokenizer import open_tokenizer
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.language.bundle import bundled
from edgeopt.language.generating import Generator, Sampling, Timing, open_generator
from edgeopt.showing.values import Shown
from edgeopt.tflite.reader import read

_BUNDLE = ".litertlm"


@dataclass(frozen=True)
class Decoder(Shown):
    """A file that generates.

    Attributes:
        cache, prefill: tokens that it remembers, and reads at once.
        cache_bytes: of what it remembers.
        difference: of its logits to those of the file with its weights, as a share of their range; None without one.
    """

    file: Path
    size_bytes: int
    cache: int
    prefill: int
    cache_bytes: int
    difference: float | None


def decoder(
    model: Any,
    output: Path | str,
    *,
    weights: Path | str | None = None,
    tokenizer: Path | str | None = None,
    cache: int | None = None,
    prefill: int | None = None,
    custom_objects: Path | None = None,
    trust: bool = False,
    force: bool = False,
) -> Decoder:
    """Writes a decoder as a file that reads a prompt and writes token by token, and proves it.

    Args:
        model: a path, or a Keras model at hand: functional, with MultiHeadAttention or GroupQueryAttention layers.
        output: a `.tflite`, or a `.litertlm` bundle with the tokenizer for LiteRT-LM.
        weights: a quantized `.tflite` of this very model, whose weights it gets.
        tokenizer: a tokenizer.json; has to fit the model.
        cache: tokens that are remembered; the model's context where nothing is said.
        prefill: tokens that are read at once; divides `cache`.
        custom_objects, trust: see `loading.load_model`.
        force: overwrite `output`.

    Raises:
        ConfigError: an option cannot be used.
        ConversionError: the converter refused, or the logits are not those of `weights`.
        DataError: the tokenizer cannot be read.
        ModelError: it is no decoder, or the weights are of another model.
    """
    output = Path(output)
    is_bundle = output.suffix == _BUNDLE
    if output.suffix not in (".tflite", _BUNDLE):
        raise ConfigError(f"Expected an output ending in .tflite or {_BUNDLE}, got {output}. Try {output.stem}.tflite.")
    if is_bundle and tokenizer is None:
        raise ConfigError(f"Expected a tokenizer for the bundle {output}, got none. Try --tokenizer FILE.json.")
    files.require_free(output, force=force)
    # What is missing or broken is said now, not after a minute of lowering.
    words = None if tokenizer is None else open_tokenizer(tokenizer)
    if weights is not None:
        read(Path(weights))
    with as_path(model) as path, files.atomic_path(output) as temporary, workers.Worker("conversion") as worker:
        made_file = temporary.with_suffix(".made.tflite") if is_bundle else temporary
        try:
            made = worker.call(
                "edgeopt.language.making:make",
                Path(path),
                made_file,
                weights=None if weights is None else Path(weights),
                cache=cache,
                prefill=prefill,
                custom_objects=custom_objects,
                trust=trust,
            )
        except workers.WorkerCrashed as crash:
            raise ConversionError(
                f"Expected TensorFlow's converter to lower {path}, got a crash ({crash}). Try edgeopt doctor."
            ) from crash
        opened = open_generator(made_file)
        if words is not None:
            words.require_fits(opened.vocabulary, str(path))
        if is_bundle and words is not None:
            try:
                bundled(made_file, words, temporary, cache=made.cache)
            finally:
                made_file.unlink()
    return Decoder(output, output.stat().st_size, made.cache, made.prefill, opened.cache_bytes, made.difference)


@dataclass
class Text:
    """What a decoder writes: iterate over it, once, for the pieces."""

    pieces: Iterator[str]
    generator: Generator

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    @property
    def timing(self) -> Timing:
        """How long it took so far."""
        return self.generator.timing

    @property
    def cache_bytes(self) -> int:
        """Of what the file remembers."""
        return self.generator.cache_bytes


def generate(
    file: Path | str,
    prompt: str,
    *,
    tokenizer: Path | str,
    tokens: int = 128,
    temperature: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
    threads: int = 1,
) -> Text:
    """Returns what a decoder's file writes behind a prompt, in pieces as they come.

    Args:
        file: a `.tflite` with the signatures prefill and decode, as `decoder` writes it.
        prompt: the text to go on from.
        tokenizer: a tokenizer.json, or "bytes".
        tokens: how many at most; it ends with the cache in any case, and where the tokenizer says that a text does.
        temperature: 0 takes the most likely token each time.
        top_k: draws among so many; 0 among all.
        seed: of the draws.
        threads: of LiteRT.

    Raises:
        ConfigError: the tokenizer does not fit, or the prompt not into the cache.
        DataError: the tokenizer cannot be read.
        ModelError: the file has no such signatures.
    """
    words, opened = open_tokenizer(tokenizer), open_generator(Path(file), threads=threads)
    words.require_fits(opened.vocabulary, str(file))
    given = words.encode(prompt).tolist()
    opened.require(given)
    sampling = Sampling(temperature, top_k, seed)
    written = opened.generate(given, tokens, sampling, stop=words.ends)
    return Text(words.streamed(written), opened)
