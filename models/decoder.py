"""The documentation of Python itself goes in; a small decoder that writes such text, and its tokenizer, come out.

Token by token: a byte-level BPE of 2048 pieces, learned positions, four blocks of causal attention and a feed-forward
part of four times the width, each behind a LayerNormalization, after Radford et al., "Language Models are Unsupervised
Multitask Learners" (GPT-2). The text is what ships with every Python: the docstrings of its standard library and the
language reference behind `help()` (`pydoc_data.topics`), about 2.5 MB under the PSF License Agreement. Every tenth
module and topic is held out.

Beside `NAME.keras` it writes `NAME.tokenizer.json` (the format of the package `tokenizers`), `NAME.npz` (contexts of
tokens as x_train, y_train, x_test, y_test; the test part is the held-out text) and `NAME.txt`, the held-out text.
"""

from __future__ import annotations

import ast
import math
import sys
import sysconfig
import time
import zlib
from pathlib import Path
from typing import Any

import click
import numpy as np
import training

from edgeopt.errors import EdgeoptError
from edgeopt.files import atomic_path, require_free
from edgeopt.frameworks import load

# A context begins with it, and pieces of text are parted by it.
END = "<|end|>"
BATCH = 16


def build(vocabulary: int = 2048, context: int = 128, *, width: int = 192, blocks: int = 4, heads: int = 4) -> Any:
    """Returns the untrained Keras 3 model: token numbers (context,) in, logits (context, vocabulary) out."""
    keras = load("keras")
    layers = keras.layers
    tokens = layers.Input((context,), dtype="int32", name="tokens")
    # 0, 1, 2, …: positions that a plain functional model can compute.
    positions = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1
    x = layers.Add()(
        [
            layers.Embedding(vocabulary, width, name="token_embedding")(tokens),
            layers.Embedding(context, width, name="position_embedding")(positions),
        ]
    )
    for i in range(blocks):
        h = layers.LayerNormalization(epsilon=1e-5, name=f"attention_norm_{i}")(x)
        h = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{i}")(h, h, use_causal_mask=True)
        x = layers.Add()([x, h])
        h = layers.LayerNormalization(epsilon=1e-5, name=f"feed_forward_norm_{i}")(x)
        h = layers.Dense(4 * width, activation="gelu", name=f"feed_forward_in_{i}")(h)
        h = layers.Dense(width, name=f"feed_forward_out_{i}")(h)
        x = layers.Add()([x, h])
    x = layers.LayerNormalization(epsilon=1e-5, name="last_norm")(x)
    return keras.Model(tokens, layers.Dense(vocabulary, use_bias=False, name="logits")(x), name="decoder")


def documentation() -> tuple[list[str], list[str]]:
    """Returns the pieces of Python's own documentation to learn and those that are held out."""
    from pydoc_data.topics import topics

    library = Path(sysconfig.get_paths()["stdlib"])
    pieces = dict(topics)
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).as_posix()
        if not {"site-packages", "test", "tests", "idle_test"} & set(name.split("/")):
            text = _docstrings(path)
            if text:
                pieces[name] = text
    held = {name for name in pieces if zlib.crc32(name.encode()) % 10 == 0}
    return [text for name, text in pieces.items() if name not in held], [pieces[name] for name in sorted(held)]


def tokenizer(pieces: list[str], vocabulary: int) -> Any:
    """Returns a byte-level BPE (Sennrich et al., arXiv 1508.07909) learned from `pieces`; END is its token 0."""
    tokenizers = load("tokenizers")
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator(pieces, trainer)
    return found


def stream(pieces: list[str], encode: Any) -> np.ndarray:
    """Returns the tokens of all pieces one after another, each behind an END."""
    return np.concatenate([[0, *encode(text).ids] for text in pieces]).astype(np.int32)


def contexts(tokens: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns contexts side by side and for each position the token that follows, both (contexts, context)."""
    count = (len(tokens) - 1) // context
    return tuple(tokens[i : i + count * context].reshape(count, context) for i in (0, 1))  # type: ignore[return-value]


def fit(model: Any, tokens: np.ndarray, *, minutes: float, learning_rate: float, seed: int, say: Any) -> None:
    """Trains on random contexts until the time is over; the rate rises over a twentieth of it and falls as a cosine."""
    keras = load("keras")
    context = model.inputs[0].shape[1]
    generator = np.random.default_rng(seed)
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.1, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    begun, step, said, mean = time.monotonic(), 0, 0.0, math.nan
    while (gone := (time.monotonic() - begun) / (60 * minutes)) < 1:
        share = gone / 0.05 if gone < 0.05 else 0.5 * (1 + math.cos(math.pi * (gone - 0.05) / 0.95))
        model.optimizer.learning_rate.assign(learning_rate * share)
        first = generator.integers(0, len(tokens) - context, BATCH)[:, None] + np.arange(context)
        loss = float(model.train_on_batch(tokens[first], tokens[first + 1]))
        model.reset_metrics()
        mean = loss if math.isnan(mean) else 0.98 * mean + 0.02 * loss
        step += 1
        if gone - said > 0.05:
            said = gone
            seen = step * BATCH * context
            say(f"{100 * gone:3.0f} % of {minutes:g} minutes: {seen:,} tokens seen, perplexity {math.exp(mean):.2f}")


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return "\n\n".join(text for text in texts if text)


@click.command(help=__doc__.splitlines()[0], context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True)
@click.option("--vocabulary", type=click.IntRange(258), default=2048, show_default=True)
@click.option("--context", type=click.IntRange(8), default=128, show_default=True)
@click.option("--width", type=click.IntRange(8), default=192, show_default=True, help="A multiple of 4.")
@click.option("--blocks", type=click.IntRange(1), default=4, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=2e-3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
@click.option("--force", is_flag=True, help="Overwrite it and what is written beside it.")
def main(
    minutes: float,
    vocabulary: int,
    context: int,
    width: int,
    blocks: int,
    learning_rate: float,
    seed: int,
    output: Path,
    force: bool,
) -> None:
    try:
        training.require_keras(output, force=force)
        beside = [output.with_suffix(suffix) for suffix in (".tokenizer.json", ".npz", ".txt")]
        for path in beside:
            require_free(path, force=force)
        learned, held = documentation()
        bpe = tokenizer(learned, vocabulary)
        tokens, x_y_test = stream(learned, bpe.encode), contexts(stream(held, bpe.encode), context)
        click.echo(f"{len(tokens):,} tokens to learn, {x_y_test[0].size:,} held out")
        load("keras").utils.set_random_seed(seed)
        model = build(vocabulary, context, width=width, blocks=blocks)
        fit(model, tokens, minutes=minutes, learning_rate=learning_rate, seed=seed, say=click.echo)
        # A fresh optimizer: the file holds no slots.
        model.compile("adam", load("keras").losses.SparseCategoricalCrossentropy(from_logits=True))
        with atomic_path(output) as temporary:
            model.save(temporary)
        bpe.save(str(beside[0]))
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez_compressed(beside[1], **dict(zip(names, (*contexts(tokens, context), *x_y_test))))
        beside[2].write_text("\n\n".join(held), encoding="utf-8")
    except EdgeoptError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    loss = model.evaluate(*x_y_test, batch_size=BATCH, verbose=0)
    click.echo(
        f"{output}: {model.count_params():,} parameters, perplexity {math.exp(loss):.2f} on {x_y_test[0].size:,} "
        "held-out tokens"
    )


if __name__ == "__main__":
    main()
