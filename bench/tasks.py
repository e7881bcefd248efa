"""Tasks beside classes: what steps leave of a U-Net, a tagger, two outputs and others, beside tfmot by hand.

    python -m bench.tasks unet two

Models and data are drawn: discs and squares on noise, tones that rise and fall. Each row of a model is kept in
bench/results/tasks.json as soon as it is there, in place of what was there of it; `--page` writes
docs/tasks-results.md of them. A model takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgeopt
from bench import common
from edgeopt import files
from edgeopt.data import load as load_data
from edgeopt.errors import EdgeoptError
from edgeopt.evaluation import evaluate
from edgeopt.frameworks import load
from edgeopt.loading import load_model
from edgeopt.vocabulary import MetricValue

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "tasks.json"
PAGE = ROOT / "docs" / "tasks-results.md"
# Before any worker is started, which looks where this process does.
sys.path.append(str(ROOT / "models"))
SIZE, TRAINED, TESTED, BATCH = 24, 1200, 800, 32
# Before any step, so that what a step brings or costs is not what more training would bring.
FIRST_EPOCHS = 12
Arrays = dict[str, np.ndarray]

INTRO = f"""# Results on other tasks

Written by `python -m bench.tasks --page`. Small networks on drawn pictures and tones ({TRAINED:,} to train on, {TESTED}
to score; of twice as many, the third that is in order trains the autoencoder), each with the loss that it was
compiled with, the detector with its own function for {FIRST_EPOCHS} epochs, then through one step at a time, of 2
epochs; `by hand` is what tfmot's tutorials do, on every layer that it knows, with the same loss, epochs and
batches, on the labels alone, or what it or the converter said instead. A tenth of the tagger's tags are drawn at
random, so that at best 92 % can be told. Scores are of the `.tflite`, with 95 % intervals: mean IoU, the share of
steps tagged right, of two outputs the mean (an error counts as the part of the labels' variance that is explained),
the AUC of the reconstruction error, COCO's mAP, the share of words told right. tfmot's ranges begin at -6 to 6 and
move by a thousandth a step, which in so few steps does not reach places of up to 100.
An empty cell was not measured yet."""


def pictures(count: int, seed: int) -> tuple[np.ndarray, Arrays]:
    """Discs and squares on noise: pictures; their masks (1 disc, 2 square), kinds, and places (row, column, in %)."""
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
    return x, {"mask": masks, "kind": kinds, "place": 100 * places.astype(np.float32) / SIZE}


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


def _block(layers: Any, x: Any, channels: int, strides: int = 1) -> Any:
    x = layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))


def unet(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns a U-Net of two levels, its loss, the weights of that, and its data."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 1), name="image")
    whole = _block(layers, x, 12)
    half = _block(layers, layers.MaxPooling2D()(whole), 24)
    deep = _block(layers, layers.MaxPooling2D()(half), 32)
    up = _block(layers, layers.Concatenate()([layers.UpSampling2D()(deep), half]), 24)
    up = _block(layers, layers.Concatenate()([layers.UpSampling2D()(up), whole]), 12)
    model = keras.Model(x, layers.Conv2D(3, 1, activation="softmax", name="mask")(up))
    return model, "sparse_categorical_crossentropy", None, _split(pictures, lambda told: {"": told["mask"]})


def two(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns a network that says what is there and where, its losses, their weights, and its data."""
    layers = keras.layers
    x = keras.Input((SIZE, SIZE, 1), name="image")
    features = _block(layers, _block(layers, _block(layers, x, 12), 24, 2), 32, 2)
    features = layers.Dense(32, activation="relu")(layers.Flatten()(features))
    kind = layers.Dense(2, activation="softmax", name="kind")(features)
    model = keras.Model(x, {"kind": kind, "place": layers.Dense(2, name="place")(features)})
    losses = {"kind": "sparse_categorical_crossentropy", "place": "huber"}
    data = _split(pictures, lambda told: {"kind": told["kind"], "place": told["place"]})
    return model, losses, {"kind": 1.0, "place": 0.02}, data


def tagger(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns a network that tags tokens by their neighbours, its loss, no weights, and its data."""
    layers = keras.layers
    x = keras.Input((12,), dtype="int32", name="tokens")
    features = layers.Conv1D(32, 3, padding="same", activation="relu")(layers.Embedding(30, 16)(x))
    model = keras.Model(x, layers.Dense(4, name="tags")(layers.Dense(32, activation="relu")(features)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    return model, loss, None, _split(sentences, lambda told: {"": told})


def autoencoder(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns an autoencoder of tones that rise, to which others are anomalies, its loss, no weights, and its data."""
    layers = keras.layers
    x = keras.Input((24 * 12,), name="frames")
    features = layers.Dense(4)(layers.Dense(64, activation="relu")(x))
    model = keras.Model(x, layers.Dense(24 * 12, name="again")(layers.Dense(64, activation="relu")(features)))
    data = _split(lambda count, seed: tones(2 * count, seed), lambda kinds: {"": (kinds > 0).astype(int)})
    normal = data["y_train"] == 0
    kept = {"train": normal, "test": np.arange(2 * TESTED) < TESTED}
    flat = {name: array.reshape(len(array), -1) if name.startswith("x") else array for name, array in data.items()}
    return model, "mean_squared_error", None, {n: array[kept[n.partition("_")[2]]] for n, array in flat.items()}


def gru(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns a network that reads a spectrogram step by step, its loss, no weights, and its data."""
    layers = keras.layers
    x = keras.Input((24, 12), name="frames")
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="word")(layers.GRU(24)(x)))
    return model, "sparse_categorical_crossentropy", None, _split(tones, lambda told: {"": told})


def boxes(keras: Any) -> tuple[Any, Any, Any, Arrays]:
    """Returns the small CenterNet of models/, its loss, no weights, and its data."""
    import detector

    model = detector.build(scale=1 / 255)
    return model, detector.loss, None, detector.drawn(TRAINED, TESTED)


MODELS: dict[str, Callable[[Any], tuple[Any, Any, Any, Arrays]]] = {
    "unet": unet,
    "two": two,
    "tagger": tagger,
    "autoencoder": autoencoder,
    "detector": boxes,
    "gru": gru,
}
# What a file does not say of itself: a loss and a metric of one's own.
SAID: dict[str, tuple[str, str]] = {"detector": ("detector:loss", "map@detector:boxes")}
STEPS: dict[str, Mapping[str, Any]] = {
    "prune": {"sparsity": 0.6, "learning_rate": 1e-3},
    "shrink": {"macs": 0.6, "learning_rate": 1e-3},
    "qat": {"learning_rate": 1e-4},
}


ROWS = ("float32", "prune", "prune, by hand", "shrink", "int8", "qat", "qat, by hand")


def main() -> None:
    """Adds rows, and prints them."""
    parser = argparse.ArgumentParser(prog="python -m bench.tasks", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--epochs", type=int, default=2, help="of every step")
    parser.add_argument("--page", action="store_true", help="write the page of what was kept, and nothing else")
    said = parser.parse_args()
    if not said.page:
        for name in said.models or MODELS:
            measure(name, said.epochs)
    files.atomic_write(PAGE, page())


def measure(name: str, epochs: int) -> None:
    """Trains a model and puts it through every step."""
    keras = load("keras")
    keras.utils.set_random_seed(0)
    model, loss, weights, arrays = MODELS[name](keras)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, len(arrays["x_train"]) // BATCH * FIRST_EPOCHS)
    model.compile(keras.optimizers.Adam(rate), loss, loss_weights=weights)
    model.fit(arrays["x_train"], _targets(name, arrays), epochs=FIRST_EPOCHS, batch_size=BATCH, verbose=0)
    own_loss, metric = SAID.get(name, ("", None))
    if own_loss:
        model.compile()  # a function of one's own stays beside the file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        for step, settings in STEPS.items():
            training = {"epochs": epochs, "batch_size": BATCH, **({"loss": [own_loss]} if own_loss else {})}
            try:
                made = edgeopt.compress(
                    path,
                    arrays,
                    path.with_name(f"{step}.tflite"),
                    [{step: {**settings, **training}}],
                    metric=metric,
                    force=True,
                )
            except EdgeoptError as error:
                keep(name, step, _refused(error))
                continue
            keep(name, "int8" if step == "qat" else "float32", made.before.metric)
            keep(name, step, made.after.metric)
            if step in BY_HAND:
                keep(name, f"{step}, by hand", _by_hand(name, step, path, arrays, loss, weights, epochs))


def _targets(name: str, arrays: Arrays) -> Any:
    if name == "autoencoder":
        return arrays["x_train"]
    several = {key.removeprefix("y_train_"): array for key, array in arrays.items() if key.startswith("y_train_")}
    return several or arrays["y_train"]


# --- by hand ---------------------------------------------------------------------------------------------------------


def _pruned(model: Any, steps: int) -> Any:
    """Returns it as "Prune some layers" of tfmot's guide has it: the model as a whole is refused for one layer."""
    keras, sparsity = load("tf_keras"), load("tfmot").sparsity.keras
    schedule = sparsity.PolynomialDecay(0.0, STEPS["prune"]["sparsity"], begin_step=0, end_step=steps)
    heavy = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense, keras.layers.Embedding, keras.layers.GRU)

    def wrapped(layer: Any) -> Any:
        return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule) if isinstance(layer, heavy) else layer

    return keras.models.clone_model(model, clone_function=wrapped)


def _rounded(model: Any, steps: int) -> Any:
    """Returns it as "Quantize some layers" of tfmot's guide has it: all but those without weights that it refuses."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

    keras, quantization = load("tf_keras"), load("tfmot").quantization.keras
    known = registry.Default8BitQuantizeRegistry()

    def wrapped(layer: Any) -> Any:
        refused = not layer.weights and not known.supports(layer)
        return layer if refused else quantization.quantize_annotate_layer(layer)

    return quantization.quantize_apply(keras.models.clone_model(model, clone_function=wrapped))


BY_HAND: dict[str, Callable[[Any, int], Any]] = {"prune": _pruned, "qat": _rounded}


def _by_hand(
    name: str, step: str, path: Path, arrays: Arrays, loss: Any, weights: Any, epochs: int
) -> MetricValue | str:
    """Returns the score of what tfmot's tutorial makes of the model, or what it says instead."""
    tf, tf_keras, tfmot = load("tensorflow"), load("tf_keras"), load("tfmot")
    model = load_model(path).keras
    try:
        wrapped = BY_HAND[step](model, len(arrays["x_train"]) // BATCH * epochs)
    except (ValueError, RuntimeError, TypeError) as error:
        return _refused(error)
    if name == "tagger":
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    targets = _targets(name, arrays)
    if isinstance(loss, dict):
        places = {output: place for place, name in enumerate(wrapped.output_names) for output in loss if output in name}
        order = sorted(loss, key=places.__getitem__)
        targets, weights = [targets[output] for output in order], [weights[output] for output in order]
        loss = [loss[output] for output in order]
    wrapped.compile(tf_keras.optimizers.Adam(STEPS[step]["learning_rate"]), loss, loss_weights=weights)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()] if step == "prune" else []
    wrapped.fit(arrays["x_train"], targets, epochs=epochs, batch_size=BATCH, callbacks=callbacks, verbose=0)
    final = tfmot.sparsity.keras.strip_pruning(wrapped) if step == "prune" else wrapped
    converter = tf.lite.TFLiteConverter.from_keras_model(final)
    if name == "gru":
        fixed = tf.TensorSpec((1, *arrays["x_train"].shape[1:]), tf.float32, "frames")
        concrete = tf.function(lambda frames: {"word": final(frames)}).get_concrete_function(fixed)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], final)
    if step == "qat":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    file = path.with_name(f"{step}-by-hand.tflite")
    try:
        file.write_bytes(converter.convert())
    except Exception as error:  # of the converter, whatever it raises
        return _refused(error)
    named = _renamed(arrays, file)
    if named is None:
        return "its outputs have lost their names"
    return evaluate(file, load_data(named).validation, metric=SAID.get(name, ("", None))[1]).metric


def _refused(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Keras says on the first line where it happened, and what further down.
    told = next((line for line in lines if "Error: " in line), lines[0])
    return f"refused: {(re.split('[Ee]rror: ', told)[-1] or told)[:60].strip()} …"


def _renamed(arrays: Arrays, file: Path) -> Arrays | None:
    """Returns the data with labels under the names that a file's outputs have; None where those do not tell them."""
    from edgeopt import formats

    given = [spec.name for spec in formats.facts(file).outputs]
    found: Arrays = {}
    for key, array in arrays.items():
        start, _, output = key.rpartition("_")
        if not start.startswith("y_"):
            found[key] = array
            continue
        alike = [name for name in given if output in name]
        if len(alike) != 1:
            return None
        found[f"{start}_{alike[0]}"] = array
    return found


# --- the page --------------------------------------------------------------------------------------------------------


def keep(name: str, row: str, found: MetricValue | str | None) -> None:
    """Writes a row's score, or why there is none, beside those that are there."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    words = found if isinstance(found, str) else "-" if found is None else _words(found)
    results.setdefault(name, {})[row] = words
    files.atomic_write(RESULTS, json.dumps(results, indent=1) + "\n")
    print(f"{name}: {row}: {words}", flush=True)


def _words(value: MetricValue) -> str:
    form = ".1%" if value.is_share else ".4g"
    return f"{value.value:{form}} ({value.low:{form}} to {value.high:{form}})".replace("%", " %")


def page() -> str:
    """Returns the page of all that was kept."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = [row for row in ROWS if any(row in found for found in results.values())]
    names = [name for name in MODELS if name in results]
    cells = [[row, *(results[name].get(row, "") for name in names)] for row in rows]
    return f"{INTRO}\n\n{common.markdown(['', *names], cells)}\n"


if __name__ == "__main__":
    main()
