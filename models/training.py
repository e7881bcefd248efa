"""An untrained model and data go in; a trained `.keras` file and its score on held-out samples come out.

What every script of this folder shares: the options, the stream of (augmented) batches, the schedule and the file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt import data as data_module
from edgeopt.errors import ConfigError, DataError, EdgeoptError
from edgeopt.files import atomic_path, require_free
from edgeopt.frameworks import load
from edgeopt.training import steps_per_epoch
from edgeopt.training import stream as streams
from edgeopt.training.augmentation import AUGMENTATIONS, flip, mask, shift

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.vocabulary import MetricValue

__all__ = ["AUGMENTATIONS", "Training", "channels", "command", "fit", "flip", "mask", "score", "shift", "stream"]

# build(shape, classes, *, width, scale, offset) returns an untrained Keras 3 model.
Build = Callable[..., Any]


@dataclass(frozen=True)
class Training:
    """How a model is trained: AdamW on a cosine schedule after a warm-up.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples a step.
        learning_rate: the schedule's peak.
        seed: of the weights, the order of samples and the augmentation; the same seed gives the same model.
        augment: key of AUGMENTATIONS.
        task: "classify" (integer labels, cross-entropy) or "reconstruct" (the target is the input, squared error).
        warmup: share of all steps over which the learning rate rises to its peak.
        weight_decay: decoupled, on kernels only.
        label_smoothing: share of a label's weight that is spread over all classes.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    augment: str = "none"
    task: str = "classify"
    warmup: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.05


def channels(base: int, width: float) -> int:
    """Returns `base` times `width` as a multiple of 8, at least 8 and never under 90 % of the product."""
    rounded = max(8, int(base * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * base * width else rounded


def require_image(shape: tuple[int, ...]) -> None:
    """Raises ConfigError unless `shape` is (height, width, channels)."""
    if len(shape) != 3:
        raise ConfigError(
            f"Expected samples of shape (height, width, channels), got {shape}. Try data with a channel axis, "
            "x[..., None], or the autoencoder, which takes vectors."
        )


def rescaled(x: Any, scale: float, offset: float) -> Any:
    """Returns `x * scale + offset` as a layer of the model, so that raw samples go in; `x` itself where it is that."""
    return x if (scale, offset) == (1.0, 0.0) else load("keras").layers.Rescaling(scale, offset)(x)


def fit(build: Build, data: Dataset, settings: Training, *, width: float = 1.0, verbose: int = 0) -> Any:
    """Builds a Keras 3 model for `data` and trains it; the model takes raw samples and brings them to 0 … 1 itself.

    Args:
        build: the architecture.
        data: its training part is streamed; the rest is not looked at.
        settings: how to train.
        width: handed to `build`.
        verbose: of Keras' `fit`.

    Raises:
        ConfigError: the architecture or the augmentation does not take samples of this shape, or training diverged.
        DataError: the data have several inputs, no class labels to learn, or no training samples.
    """
    part = data.training
    shape = _sample_shape(part)
    if settings.task == "classify" and part.classes is None:
        raise DataError("Expected class labels to train on, got none. Try data with y_train, or models/autoencoder.py.")
    keras = load("keras")
    keras.utils.set_random_seed(settings.seed)
    low, high = _range(part)
    # Raw integers quantize exactly at the model's input, and a device has nothing to prepare.
    model = build(shape, part.classes, width=width, scale=1 / (high - low), offset=-low / (high - low))
    steps = steps_per_epoch(len(part), settings.batch_size)
    if settings.task == "classify":
        loss: Any = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
        metrics = ["accuracy"]
    else:
        loss, metrics = "mse", []
    # Compiling by XLA takes longer than these small trainings win by it.
    model.compile(_optimizer(settings, steps * settings.epochs), loss, metrics=metrics, jit_compile=False)
    model.fit(
        stream(part, settings),
        epochs=settings.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=verbose,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    )
    if not all(math.isfinite(float(weights.sum())) for weights in model.get_weights()):
        raise ConfigError(
            f"Expected training to converge, got weights that are no numbers at --learning-rate "
            f"{settings.learning_rate:g}. Try a tenth of it."
        )
    # A fresh optimizer: the file holds no slots, and `evaluate` and `fit` work on it at once.
    if settings.task == "classify":
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    else:
        model.compile("adam", "mse")
    return model


def score(model: Any, part: Part, task: str) -> MetricValue:
    """Returns top-1 accuracy (`task` "classify") or the reconstruction error of a Keras model on `part`."""
    import numpy as np

    from edgeopt import metrics

    metric = metrics.metric("top1" if task == "classify" else "reconstruction")
    parts = []
    for batch in part.batches(256):
        outputs = np.asarray(model(next(iter(batch.inputs.values())), training=False))
        parts.append(metric.per_sample(outputs, batch))
    return metric.value(metric.settle(*(np.concatenate(rows) for rows in zip(*parts))))


def command(build: Build, defaults: Training, *, data: str | None = None, width: float = 1.0) -> click.Command:
    """Returns the command line of a model's script: it trains, prints the held-out score and writes the file."""
    summary = sys.modules[build.__module__].__doc__ or ""

    @click.command(help=summary, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
    @click.option("--data", default=data, required=data is None, help="FILE.npz, a folder of images, digits, cifar10 …")
    @click.option("--resize", metavar="HxW", help="Resize images to this height and width.")
    @click.option("--epochs", type=click.IntRange(1), default=defaults.epochs)
    @click.option("--batch-size", type=click.IntRange(1), default=defaults.batch_size)
    @click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=defaults.learning_rate)
    @click.option("--augment", type=click.Choice(list(AUGMENTATIONS)), default=defaults.augment)
    @click.option("--width", type=click.FloatRange(0, min_open=True), default=width, help="Multiplies the channels.")
    @click.option("--seed", type=int, default=defaults.seed)
    @click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
    @click.option("--force", is_flag=True, help="Overwrite it.")
    def main(data: str, resize: str | None, width: float, output: Path, force: bool, **options: Any) -> None:
        try:
            _run(build, data, resize, width, output, force, replace(defaults, **options))
        except EdgeoptError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    return main


def _run(
    build: Build, spec: str, resize: str | None, width: float, output: Path, force: bool, settings: Training
) -> None:
    if output.suffix != ".keras":
        raise ConfigError(f"Expected an output that ends in .keras, got {output}. Try {output.with_suffix('.keras')}.")
    require_free(output, force=force)
    # The split keeps its own seed, so that every run and `edgeopt evaluate` score on the same held-out samples.
    data = data_module.load(
        spec,
        preprocessing=data_module.parse_preprocessing(resize=resize),
        labels="auto" if settings.task == "classify" else "inputs",
    )
    model = fit(build, data, settings, width=width, verbose=1 if sys.stdout.isatty() else 2)
    value = score(model, data.validation, settings.task)
    with atomic_path(output) as temporary:
        model.save(temporary)
    click.echo(
        f"{output}: {model.count_params():,} parameters, {value.name} {value.value:.4f} "
        f"({value.low:.4f} to {value.high:.4f}) on {value.samples} held-out samples"
    )


def _sample_shape(part: Part) -> tuple[int, ...]:
    if len(part.specs) != 1 or not len(part):
        raise DataError(
            f"Expected training samples with one input, got {len(part)} samples with {len(part.specs)}. "
            "Try an .npz with x_train and y_train."
        )
    shape = part.specs[0].shape
    if None in shape:
        raise DataError(f"Expected samples of one shape, got {shape}. Try --resize HxW.")
    return tuple(int(size) for size in shape if size is not None)


def _range(part: Part) -> tuple[float, float]:
    """Returns the smallest and the largest value of all samples."""
    bounds = [(float(x.min()), float(x.max())) for batch in part.batches(256) for x in batch.inputs.values()]
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    if not low < high:
        raise DataError(f"Expected samples that differ, got {low:g} everywhere. Try other data.")
    return low, high


def _optimizer(settings: Training, steps: int) -> Any:
    keras = load("keras")
    warmup = round(settings.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def stream(part: Part, settings: Training) -> Any:
    """Returns an endless tf.data.Dataset of (inputs, targets), in another order and augmented anew each epoch."""
    return streams.stream(
        part,
        batch_size=settings.batch_size,
        augment=settings.augment,
        seed=settings.seed,
        one_hot=part.classes if settings.task == "classify" else None,
    )
