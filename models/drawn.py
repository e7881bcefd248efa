"""Names go in; small networks of tasks beside classes, trained on pictures and tones that are drawn, come out as files.

    python models/drawn.py two tagger

writes two.keras, two.npz, tagger.keras and tagger.npz. Each takes seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from edgeopt.errors import EdgeoptError
from edgeopt.files import atomic_path, require_free
from edgeopt.frameworks import load

SIZE, TRAINED, TESTED, BATCH, EPOCHS = 24, 1200, 800, 32, 12
Arrays = dict[str, np.ndarray]


class Network(NamedTuple):
    """A Keras 3 model that is not trained, its loss (one, or one by output) with its weights, and its data."""

    model: Any
    loss: Any
    loss_weights: dict[str, float] | None
    arrays: Arrays


def pictures(count: int, seed: int) -> tuple[np.ndarray, Arrays]:
    """Discs and squares on noise; their masks (1 disc, 2 square), kinds, sizes, places (row, column, in %)."""
    rng, (rows, columns) = np.random.default_rng(seed), np.mgrid[:SIZE, :SIZE]
    x = rng.normal(0, 0.15, (count, SIZE, SIZE, 1)).astype(np.float32)
    masks, kinds = np.zeros((count, SIZE, SIZE), np.uint8), rng.integers(0, 2, count)
    radii = rng.integers(3, 7, count)
    places = np.stack([rng.integers(r, SIZE - r, 2) for r in radii])
    for n in range(count):
        apart = np.abs(rows - places[n, 0]), np.abs(columns - places[n, 1])
        inside = np.hypot(*apart) <= radii[n] if kinds[n] == 0 else np.maximum(*apart) <= 0.85 * radii[n]
        masks[n][inside] = kinds[n] + 1
        x[n, ..., 0] += 0.6 * inside
    return x, {"mask": masks, "kind": kinds, "size": radii - 3, "place": 100 * places.astype(np.float32) / SIZE}


def sentences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [count, 12], 0 after their end, and a tag for each, -1 there: of the token, and of the one before it.

    One in ten is any of the four.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 30, (count, 12)).astype(np.int32)
    tags = tokens % 3
    tags[:, 1:] = np.where(tokens[:, :-1] % 2 == 0, 3, tags[:, 1:])
    tags = np.where(rng.random(tags.shape) < 0.1, rng.integers(0, 4, tags.shape), tags)
    after = np.arange(12) >= rng.integers(5, 13, count)[:, None]
    return np.where(after, 0, tokens), np.where(after, -1, tags)


def tones(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectrograms [count, 24, 12] of tones that rise, fall, or rise and fall, on noise, and which of them."""
    rng = np.random.default_rng(seed)
    kinds, bands = rng.integers(0, 3, count), np.arange(12)
    time = np.linspace(0, 1, 24)
    ways = np.stack([time, 1 - time, 1 - np.abs(2 * time - 1)])[kinds]
    pitch = rng.uniform(0, 4, (count, 1)) + rng.uniform(2, 7, (count, 1)) * ways
    x = np.exp(-np.square(bands - pitch[..., None])) + rng.normal(0, 0.8, (count, 24, 12))
    return x.astype(np.float32), kinds


def _split(make: Callable[[int, int], tuple[np.ndarray, Any]], labels: Callable[[Any], Arrays]) -> Arrays:
    found: Arrays = {}
    for split, count, seed in (("train", TRAINED, 0), ("test", TESTED, 1)):
        x, told = make(count, seed)
        found[f"x_{split}"] = x
        found |= {f"y_{split}{f'_{name}' if name else ''}": array for name, array in labels(told).items()}
    return found


def _anomalies() -> Arrays:
    """Returns tones that rise to train on, and of all kinds to test with, labelled 1 where they do not rise."""
    data = _split(lambda count, seed: tones(2 * count, seed), lambda kinds: {"": (kinds > 0).astype(int)})
    kept = {"train": data["y_train"] == 0, "test": np.arange(2 * TESTED) < TESTED}
    return {name: array[kept[name.partition("_")[2]]] for name, array in data.items()}


def _block(layers: Any, x: Any, channels: int, strides: int = 1) -> Any:
    x = layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))


def unet(keras: Any, size: int | None = SIZE) -> Network:
    """Returns a U-Net of two levels; None leaves height and width free."""
    layers = keras.layers
    x = keras.Input((size, size, 1), name="image")
    whole = _block(layers, x, 12)
    half = _block(layers, layers.MaxPooling2D()(whole), 24)
    deep = _block(layers, layers.MaxPooling2D()(half), 32)
    up = _block(layers, layers.Concatenate()([layers.UpSampling2D()(deep), half]), 24)
    up = _block(layers, layers.Concatenate()([layers.UpSampling2D()(up), whole]), 12)
    model = keras.Model(x, layers.Conv2D(3, 1, activation="softmax", name="mask")(up))
    return Network(model, "sparse_categorical_crossentropy", None, _split(pictures, lambda told: {"": told["mask"]}))


def sizes(keras: Any) -> Network:
    """Returns the same U-Net for pictures of any size."""
    return unet(keras, None)


def two(keras: Any) -> Network:
    """Returns a network that says what is there and where."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 1), name="image")
    features = _block(layers, _block(layers, _block(layers, x, 12), 24, 2), 32, 2)
    features = layers.Dense(32, activation="relu")(layers.Flatten()(features))
    kind = layers.Dense(2, activation="softmax", name="kind")(features)
    model = keras.Model(x, {"kind": kind, "place": layers.Dense(2, name="place")(features)})
    losses = {"kind": "sparse_categorical_crossentropy", "place": "huber"}
    data = _split(pictures, lambda told: {"kind": told["kind"], "place": told["place"]})
    return Network(model, losses, {"kind": 1.0, "place": 0.02}, data)


def tagger(keras: Any) -> Network:
    """Returns a network that tags tokens by their neighbours."""
    layers = keras.layers
    x = keras.Input((12,), dtype="int32", name="tokens")
    features = layers.Conv1D(32, 3, padding="same", activation="relu")(layers.Embedding(30, 16)(x))
    model = keras.Model(x, layers.Dense(4, name="tags")(layers.Dense(32, activation="relu")(features)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    return Network(model, loss, None, _split(sentences, lambda told: {"": told}))


def embedding(keras: Any) -> Network:
    """Returns a network whose vectors point alike where kind and size of what is drawn are the same."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 1), name="image")
    features = _block(layers, _block(layers, _block(layers, x, 12), 24, 2), 32, 2)
    vector = layers.UnitNormalization(name="vector")(layers.Dense(16)(layers.GlobalAveragePooling2D()(features)))
    data = _split(pictures, lambda told: {"": 4 * told["kind"] + told["size"]})
    return Network(keras.Model(x, vector), alike, None, data)


def alike(labels: Any, vectors: Any) -> Any:
    """Returns the loss of each vector [N]: high where others of its class are farther than those of other classes.

    The supervised contrastive loss of Khosla et al. 2020, arXiv 2004.11362.
    """
    ops = load("keras").ops
    labels, itself = ops.reshape(labels, (-1,)), ops.eye(ops.shape(vectors)[0])
    near = ops.matmul(vectors, ops.transpose(vectors)) / 0.1 - 1e9 * itself
    same = ops.cast(labels[:, None] == labels[None, :], "float32") - itself
    told = near - ops.logsumexp(near, axis=1, keepdims=True)
    return -ops.sum(same * told, axis=1) / ops.maximum(ops.sum(same, axis=1), 1.0)


def autoencoder(keras: Any) -> Network:
    """Returns a dense autoencoder of tones that rise, to which others are anomalies."""
    layers = keras.layers
    x = keras.Input((24 * 12,), name="frames")
    features = layers.Dense(4)(layers.Dense(64, activation="relu")(x))
    model = keras.Model(x, layers.Dense(24 * 12, name="again")(layers.Dense(64, activation="relu")(features)))
    data = {name: array.reshape(len(array), -1) if "x" in name else array for name, array in _anomalies().items()}
    return Network(model, "mean_squared_error", None, data)


def series(keras: Any) -> Network:
    """Returns an autoencoder of the same tones made of strided convolutions over time and their transposes."""
    layers = keras.layers
    x = keras.Input((24, 12), name="frames")
    features = layers.Conv1D(24, 5, strides=2, padding="same", activation="relu")(x)
    features = layers.Conv1D(24, 5, strides=2, padding="same", activation="relu")(features)
    features = layers.Conv1D(1, 3, padding="same")(features)
    features = layers.Conv1DTranspose(24, 5, strides=2, padding="same", activation="relu")(features)
    model = keras.Model(x, layers.Conv1DTranspose(12, 5, strides=2, padding="same", name="again")(features))
    return Network(model, "mean_squared_error", None, _anomalies())


def gru(keras: Any) -> Network:
    """Returns a network that reads a spectrogram step by step."""
    layers = keras.layers
    x = keras.Input((24, 12), name="frames")
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="word")(layers.GRU(24)(x)))
    return Network(model, "sparse_categorical_crossentropy", None, _split(tones, lambda told: {"": told}))


NETWORKS: dict[str, Callable[[Any], Network]] = {
    make.__name__: make for make in (unet, sizes, two, tagger, embedding, autoencoder, series, gru)
}


def targets(network: Network) -> Any:
    """Returns what a network is to answer to `x_train`: labels, a dict of them by output, or the input itself."""
    arrays = network.arrays
    if network.loss == "mean_squared_error":
        return arrays["x_train"]
    several = {key.removeprefix("y_train_"): array for key, array in arrays.items() if key.startswith("y_train_")}
    return several or arrays["y_train"]


def learn(network: Network, epochs: int = EPOCHS) -> None:
    """Trains a network; its file will hold the loss, but for a function of one's own."""
    keras = load("keras")
    x = network.arrays["x_train"]
    rate = keras.optimizers.schedules.CosineDecay(5e-3, len(x) // BATCH * epochs)
    network.model.compile(keras.optimizers.Adam(rate), network.loss, loss_weights=network.loss_weights)
    network.model.fit(x, targets(network), epochs=epochs, batch_size=BATCH, verbose=0)
    if callable(network.loss) and not isinstance(network.loss, keras.losses.Loss):
        network.model.compile()


@click.command(help=__doc__.partition("\n")[0], context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(NETWORKS)), metavar="NAME …")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True)
@click.option("--force", is_flag=True, help="Overwrite files.")
def main(names: tuple[str, ...], epochs: int, force: bool) -> None:
    """Trains networks and writes each with its data into the current folder."""
    try:
        for file in (Path(f"{name}{ending}") for name in names for ending in (".keras", ".npz")):
            require_free(file, force=force)
        for name in names:
            # Layers are called the same whatever was made before them.
            load("keras").utils.clear_session()
            load("keras").utils.set_random_seed(0)
            network = NETWORKS[name](load("keras"))
            learn(network, epochs)
            with atomic_path(Path(f"{name}.keras")) as temporary:
                network.model.save(temporary)
            with atomic_path(Path(f"{name}.npz")) as temporary:
                np.savez(temporary, **network.arrays)
            trained, tested = (len(network.arrays[f"x_{split}"]) for split in ("train", "test"))
            parameters = network.model.count_params()
            click.echo(f"{name}.keras: {parameters:,} parameters; {name}.npz: {trained:,} samples and {tested} to test")
    except EdgeoptError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
