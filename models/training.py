"""An untrained model and data go in; a trained `.keras` file and its score on held-out samples come out.

What every script of this folder shares: the options, the training and the file.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt import data as data_module
from edgeopt import training as loop
from edgeopt.cli.common import progress_shown
from edgeopt.errors import ConfigError, DataError, EdgeoptError
from edgeopt.files import atomic_path, require_free
from edgeopt.frameworks import load
from edgeopt.keras_bridge import to_keras2
from edgeopt.steps import DEFAULTS, Training
from edgeopt.training.augmentation import AUGMENTATIONS

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.vocabulary import MetricValue

__all__ = ["CLASSES", "INPUT", "Aim", "Training", "channels", "command", "fit", "require_image", "rescaled", "score"]

# build(shape, classes, *, width, scale, offset) returns an untrained Keras 3 model.
Build = Callable[..., Any]

# Where a script says nothing else: AdamW on a cosine schedule after a warm-up.
FROM_SCRATCH = Training(
    epochs=30,
    learning_rate=2e-3,
    optimizer="adamw",
    warmup=0.1,
    weight_decay=0.05,
    label_smoothing=0.05,
    augment="none",
).over(DEFAULTS)


@dataclass(frozen=True)
class Aim:
    """What a script's model learns, and by what it is scored.

    Attributes:
        labels: how labels are read; see `data.load`.
        loss: what the file is compiled with, or module:function, which stays a function beside the file.
        metric: see `metrics.metric`.
    """

    labels: str
    loss: str
    metric: str


CLASSES = Aim("auto", "sparse_categorical_crossentropy", "top1")
INPUT = Aim("inputs", "mse", "reconstruction")


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


def fit(
    build: Build,
    data: Dataset,
    settings: Training,
    *,
    seed: int = 0,
    aim: Aim = CLASSES,
    width: float = 1.0,
    what: str = "training",
) -> Any:
    """Builds a Keras 3 model for `data` and trains it; the model takes raw samples and brings them to 0 … 1 itself.

    Args:
        build: the architecture.
        data: its training part is learned; the rest is not looked at.
        settings: how to train; FROM_SCRATCH fills in what is not said.
        seed: of the weights, the order of samples and the augmentation; the same seed gives the same model.
        aim: what it learns.
        width: handed to `build`.
        what: for the progress.

    Raises:
        ConfigError: the architecture or the augmentation does not take samples of this shape, or training diverged.
        DataError: the data have several inputs, no class labels to learn, or no training samples.
    """
    part = data.training
    shape = _sample_shape(part)
    if aim is CLASSES and part.classes is None:
        raise DataError("Expected class labels to train on, got none. Try data with y_train, or models/autoencoder.py.")
    own = ":" in aim.loss
    keras = load("keras")
    keras.utils.set_random_seed(seed)
    low, high = _range(part)
    # Raw integers quantize exactly at the model's input, and a device has nothing to prepare.
    model = build(shape, part.classes, width=width, scale=1 / (high - low), offset=-low / (high - low))
    # tf_keras computes BatchNorm in one fused operation: depthwise networks train in half the time.
    twin, _ = to_keras2(model)
    how = settings.over(FROM_SCRATCH)
    how = replace(how, loss=(aim.loss,)) if own else how
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        done = loop.fit(twin, data, how, folder=Path(folder), seed=seed, what=what)
    if done.ended:
        raise ConfigError(f"Expected {what} to converge, got: {done.ended[0]}.")
    model.set_weights(twin.get_weights())
    # A fresh optimizer: the file holds no slots, and `evaluate` and `fit` work on it at once.
    if not own:
        model.compile("adam", aim.loss, metrics=["accuracy"] if aim is CLASSES else None)
    return model


def score(model: Any, part: Part, *, aim: Aim = CLASSES) -> MetricValue:
    """Returns how good a Keras model is on `part`."""
    import numpy as np

    from edgeopt import metrics

    metric = metrics.metric(aim.metric)
    parts = []
    for batch in part.batches(256):
        outputs = np.asarray(model(next(iter(batch.inputs.values())), training=False))
        parts.append(metric.per_sample(outputs, batch))
    return metric.value(metric.settle(*(np.concatenate(rows) for rows in zip(*parts))))


def command(
    build: Build, defaults: Training, *, data: str | None = None, width: float = 1.0, aim: Aim = CLASSES
) -> click.Command:
    """Returns the command line of a model's script: it trains, prints the held-out score and writes the file."""
    summary = sys.modules[build.__module__].__doc__ or ""
    defaults = defaults.over(FROM_SCRATCH)

    @click.command(help=summary, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
    @click.option("--data", default=data, required=data is None, help="FILE.npz, a folder of images, digits, cifar10 …")
    @click.option("--resize", metavar="HxW", help="Resize images to this height and width.")
    @click.option("--epochs", type=click.IntRange(1), default=defaults.epochs)
    @click.option("--batch-size", type=click.IntRange(1), default=defaults.batch_size)
    @click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=defaults.learning_rate)
    @click.option("--augment", type=click.Choice(list(AUGMENTATIONS)), default=defaults.augment)
    @click.option("--width", type=click.FloatRange(0, min_open=True), default=width, help="Multiplies the channels.")
    @click.option("--seed", type=int, default=0)
    @click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
    @click.option("--force", is_flag=True, help="Overwrite it.")
    def main(data: str, resize: str | None, width: float, seed: int, output: Path, force: bool, **said: Any) -> None:
        try:
            require_keras(output, force=force)
            # The split keeps its own seed, so that every run and `edgeopt evaluate` score on the same samples.
            dataset = data_module.load(
                data,
                preprocessing=data_module.parse_preprocessing(resize=resize),
                labels=aim.labels,
            )
            settings = Training(**said).over(defaults)
            with progress_shown(quiet=False):
                model = fit(build, dataset, settings, seed=seed, aim=aim, width=width, what=f"training {output}")
            # What took hours is on disk before anything else can go wrong.
            with atomic_path(output) as temporary:
                model.save(temporary)
            value = score(model, dataset.validation, aim=aim)
        except EdgeoptError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        click.echo(
            f"{output}: {model.count_params():,} parameters, {value.name} {value.value:.4f} "
            f"({value.low:.4f} to {value.high:.4f}) on {value.samples} held-out samples"
        )

    return main


def require_keras(output: Path, *, force: bool) -> None:
    """Raises ConfigError unless a `.keras` file may be written there."""
    if output.suffix != ".keras":
        raise ConfigError(f"Expected an output that ends in .keras, got {output}. Try {output.with_suffix('.keras')}.")
    require_free(output, force=force)


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
