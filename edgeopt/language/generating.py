"""A decoder's `.tflite` and the tokens of a prompt go in; the tokens that it writes come out, one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ConfigError, ModelError
from edgeopt.native_log import native_log
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read

_NEEDED = ("prefill", "decode")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely one; logits are divided by it.
        top_k: draws among so many; 0 among all.
        seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass
class Timing:
    """How long it took: tokens and seconds of reading the prompt and of writing."""

    read: int = 0
    read_s: float = 0.0
    written: int = 0
    written_s: float = 0.0


@dataclass
class Generator:
    """A decoder, open.

    Attributes:
        cache: tokens that it remembers.
        piece: tokens that it reads at once.
        vocabulary: how many tokens it tells apart.
        timing: of the last text.
    """

    cache: int
    piece: int
    vocabulary: int
    _shapes: dict[str, tuple[int, ...]]
    _prefill: Any
    _decode: Any
    timing: Timing = field(default_factory=Timing)

    @property
    def kept_bytes(self) -> tuple[tuple[str, int], ...]:
        """Name and bytes of the keys and values of each layer."""
        return tuple((name, 4 * int(np.prod(shape))) for name, shape in self._shapes.items())

    @property
    def cache_bytes(self) -> int:
        """Of all that it remembers."""
        return sum(size for _, size in self.kept_bytes)

    def generate(
        self, prompt: Sequence[int], count: int, sampling: Sampling = Sampling(), *, stop: frozenset[int] = frozenset()
    ) -> Iterator[int]:
        """Yields up to `count` tokens that follow a prompt: until one of `stop`, or the cache is full.

        Raises:
            ConfigError: there is no prompt, it does not fit into the cache, or holds tokens that the model has not.
        """
        self.require(prompt)
        random = np.random.default_rng(sampling.seed)
        timing = self.timing = Timing()
        started = time.perf_counter()
        kept = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}
        # The last token of the prompt is the first that is decoded: its logits say what follows.
        position, last = 0, len(prompt) - 1
        while last - position > 0:
            piece = list(prompt[position : min(position + self.piece, last)])
            tokens = np.zeros((1, self.piece), np.int32)
            tokens[0, : len(piece)] = piece
            at = np.arange(position, position + self.piece, dtype=np.int32)
            # What is behind the last token is written over before anything attends to it.
            kept = self._prefill(tokens=tokens, input_pos=at, **kept)
            position += len(piece)
        token = int(prompt[last])
        timing.read, timing.read_s = last, time.perf_counter() - started
        for position in range(last, min(last + count, self.cache)):
            started = time.perf_counter()
            made = self._decode(tokens=np.array([[token]], np.int32), input_pos=np.array([position], np.int32), **kept)
            kept = {name: made[name] for name in kept}
            token = chosen(made["logits"].reshape(-1), sampling, random)
            timing.written += 1
            timing.written_s += time.perf_counter() - started
            if token in stop:
                return
            yield token

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns the logits behind each token, read one by one: float32 [tokens, vocabulary]."""
        self.require(tokens)
        kept = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}
        found = []
        for position, token in enumerate(tokens):
            made = self._decode(tokens=np.array([[token]], np.int32), input_pos=np.array([position], np.int32), **kept)
            kept = {name: made[name] for name in kept}
            found.append(made["logits"].reshape(-1))
        return np.stack(found)

    def require(self, prompt: Sequence[int]) -> None:
        """Raises ConfigError where there is no prompt, it does not fit into the cache, or holds unknown tokens."""
        if not len(prompt):
            raise ConfigError("Expected a prompt of at least one token, got none. Try --prompt with some text.")
        if len(prompt) > self.cache:
            raise ConfigError(
                f"Expected a prompt of at most {self.cache} tokens, which the file remembers, got {len(prompt)}. "
                "Try a shorter one, or a file with a larger --cache."
            )
        if not 0 <= min(prompt) <= max(prompt) < self.vocabulary:
            raise ConfigError(
                f"Expected tokens below {self.vocabulary}, which the model knows, got {max(prompt)}. "
                "Try the tokenizer that the model was trained with."
            )


def chosen(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """Returns the next token."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        scaled[scaled < np.partition(scaled, -sampling.top_k)[-sampling.top_k]] = -np.inf
    shares = np.exp(scaled - scaled.max())
    return int(random.choice(len(shares), p=shares / shares.sum()))


def writes(model: TFLiteModel) -> bool:
    """Whether a file has the signatures that read and write."""
    return set(_NEEDED) <= {signature.key for signature in model.signatures}


def open_generator(file: Path, *, threads: int = 1) -> Generator:
    """Opens a decoder's file on LiteRT with XNNPACK.

    Raises:
        ModelError: it has no signatures that read and write, or does not run.
    """
    model = read(file)
    signatures = {signature.key: signature for signature in model.signatures}
    if not writes(model):
        raise ModelError(
            f"Expected a file with the signatures prefill and decode, got {file} with "
            f"{', '.join(signatures) or 'none'}. Try edgeopt decoder MODEL -o FILE.tflite --weights {file}."
        )
    sizes = {
        key: {name: model.subgraphs[one.subgraph].tensors[i].shape for name, i in one.inputs.items()}
        for key, one in signatures.items()
    }
    shapes = {name: shape for name, shape in sizes["decode"].items() if name not in ("tokens", "input_pos")}
    given = sizes["prefill"]
    fits = {**given, "tokens": (), "input_pos": ()} == {**sizes["decode"], "tokens": (), "input_pos": ()}
    logits = signatures["decode"].outputs.get("logits")
    if not fits or not shapes or logits is None or len(given.get("tokens", ())) != 2:
        raise ModelError(
            f"Expected signatures with tokens, input_pos, logits and a cache in both, got others in {file}. "
            "Try edgeopt decoder."
        )
    litert = frameworks.load("litert")
    try:
        with native_log():
            interpreter = litert.Interpreter(model_path=str(file), num_threads=threads)
            interpreter.allocate_tensors()
            runners = [interpreter.get_signature_runner(name) for name in _NEEDED]
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"Expected a file that LiteRT runs, got {file}: {error}. Try converting it again.") from error
    return Generator(
        cache=next(iter(shapes.values()))[2],
        piece=given["tokens"][1],
        vocabulary=model.subgraphs[signatures["decode"].subgraph].tensors[logits].shape[-1],
        _shapes=shapes,
        _prefill=runners[0],
        _decode=runners[1],
    )
