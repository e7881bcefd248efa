"""Tasks beside classes: what steps leave of a U-Net, a tagger, two outputs and others, beside tfmot by hand.

    python -m bench.tasks unet two

Models and data are drawn: discs and squares on noise, tones that rise and fall. Each row of a model is kept in
bench/results/tasks.json as soon as it is there, in place of what was there of it; `--page` writes
docs/tasks-results.md of them. A model takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import edgeopt
from bench import common
from edgeopt import files, formats
from edgeopt.data import load as load_data
from edgeopt.errors import EdgeoptError
from edgeopt.evaluation import Evaluation, evaluate
from edgeopt.frameworks import load
from edgeopt.loading import load_model
from edgeopt.vocabulary import MetricValue

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "tasks.json"
PAGE = ROOT / "docs" / "tasks-results.md"
# Before any worker is started, which looks where this process does.
sys.path.append(str(ROOT / "models"))

import detector  # noqa: E402
import drawn  # noqa: E402

# Steps between tfmot's masks.
RENEWED = 5

INTRO = f"""# Results on other tasks

Written by `python -m bench.tasks --page`. Small networks on drawn pictures and tones ({drawn.TRAINED:,} to train
on, {drawn.TESTED} to score; of twice as many, the third that is in order trains the autoencoder), each with the
loss that it was compiled with, the detector with its own function for {drawn.EPOCHS} epochs, then through one
step at a time, of 2 epochs; `by hand` is what tfmot's tutorials do, on every layer that it knows, with the same
loss, epochs and batches, on the labels alone, or what it or the converter said instead; behind it, how many points
that is better (+) or worse than the row above, and whether chance would do as much (p of a paired test). tfmot renews
its masks every 100 steps unless told otherwise, which in trainings as short as these prunes nothing: here it is told
every {RENEWED}. A tenth of the tagger's tags are drawn at random, so that at best 92 % can be told. Scores are of the
`.tflite`, with 95 % intervals: mean IoU, the share of steps tagged right, of two outputs the mean (an error counts as
the part of the labels' variance that is explained), the AUC of the reconstruction error, COCO's mAP, the share of words
told right. tfmot's ranges begin at -6 to 6 and move by a thousandth a step, which in so few steps does not reach places
of up to 100.
An empty cell was not measured yet."""


def boxes(keras: Any) -> drawn.Network:
    """Returns the small CenterNet of models/."""
    return drawn.Network(
        detector.build(scale=1 / 255), detector.loss, None, detector.drawn(drawn.TRAINED, drawn.TESTED)
    )


MODELS: dict[str, Callable[[Any], drawn.Network]] = {
    **{make.__name__: make for make in (drawn.unet, drawn.two, drawn.tagger, drawn.autoencoder)},
    "detector": boxes,
    "gru": drawn.gru,
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
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=list(STEPS), help="these alone")
    parser.add_argument("--page", action="store_true", help="write the page of what was kept, and nothing else")
    said = parser.parse_args()
    if not said.page:
        for name in said.models or MODELS:
            measure(name, said.epochs, said.steps)
    files.atomic_write(PAGE, page())


def measure(name: str, epochs: int, steps: Sequence[str]) -> None:
    """Trains a model and puts it through steps."""
    keras = load("keras")
    keras.utils.set_random_seed(0)
    network = MODELS[name](keras)
    # First, so that what a step brings or costs is not what more training would bring.
    drawn.learn(network)
    own_loss, metric = SAID.get(name, ("", None))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        network.model.save(path)
        for step in steps:
            settings = STEPS[step]
            training = {"epochs": epochs, "batch_size": drawn.BATCH, **({"loss": [own_loss]} if own_loss else {})}
            try:
                made = edgeopt.compress(
                    path,
                    network.arrays,
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
                ours = evaluate(path.with_name(f"{step}.tflite"), load_data(network.arrays).validation, metric=metric)
                theirs = _by_hand(name, step, path, network, epochs)
                keep(name, f"{step}, by hand", theirs if isinstance(theirs, str) else _beside(theirs, ours))


def _beside(theirs: Evaluation, ours: Evaluation) -> str:
    lost = theirs.difference(ours)
    return f"{_words(theirs.metric)}; {-lost.value:+.1f}, p={lost.p_value:.2g}"


# --- by hand ---------------------------------------------------------------------------------------------------------


def _pruned(model: Any, steps: int) -> Any:
    """Returns it as "Prune some layers" of tfmot's guide has it: the model as a whole is refused for one layer."""
    keras, sparsity = load("tf_keras"), load("tfmot").sparsity.keras
    schedule = sparsity.PolynomialDecay(
        0.0, STEPS["prune"]["sparsity"], begin_step=0, end_step=steps // RENEWED * RENEWED, frequency=RENEWED
    )
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


def _by_hand(name: str, step: str, path: Path, network: drawn.Network, epochs: int) -> Evaluation | str:
    """Returns the score of what tfmot's tutorial makes of the model, or what it says instead."""
    tf, tf_keras, tfmot = load("tensorflow"), load("tf_keras"), load("tfmot")
    _, loss, weights, arrays = network
    model = load_model(path).keras
    try:
        wrapped = BY_HAND[step](model, len(arrays["x_train"]) // drawn.BATCH * epochs)
    except (ValueError, RuntimeError, TypeError) as error:
        return _refused(error)
    if name == "tagger":
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    targets = drawn.targets(network)
    if isinstance(loss, dict):
        places = {output: place for place, name in enumerate(wrapped.output_names) for output in loss if output in name}
        order = sorted(loss, key=places.__getitem__)
        targets, weights = [targets[output] for output in order], [weights[output] for output in order]
        loss = [loss[output] for output in order]
    wrapped.compile(tf_keras.optimizers.Adam(STEPS[step]["learning_rate"]), loss, loss_weights=weights)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()] if step == "prune" else []
    wrapped.fit(arrays["x_train"], targets, epochs=epochs, batch_size=drawn.BATCH, callbacks=callbacks, verbose=0)
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
    if step == "prune" and (zeros := _zeros(file)) < 0.5 * STEPS["prune"]["sparsity"]:
        return f"{zeros:.0%} zeros"
    return evaluate(file, load_data(named).validation, metric=SAID.get(name, ("", None))[1])


def _zeros(file: Path) -> float:
    kernels = [weight for weight in formats.facts(file).weights if len(weight.shape) > 1]
    return sum(kernel.zeros or 0 for kernel in kernels) / sum(math.prod(kernel.shape) for kernel in kernels)


def _refused(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Keras says on the first line where it happened, and what further down.
    told = next((line for line in lines if "Error: " in line), lines[0])
    return f"refused: {(re.split('[Ee]rror: ', told)[-1] or told)[:60].strip()} …"


def _renamed(arrays: drawn.Arrays, file: Path) -> drawn.Arrays | None:
    """Returns the data with labels under the names that a file's outputs have; None where those do not tell them."""
    given = [spec.name for spec in formats.facts(file).outputs]
    found: drawn.Arrays = {}
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
