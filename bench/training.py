"""Fine-tuning with edgeopt's loop beside a plain `model.compile` and `model.fit` of the same model on the same arrays.

Both run in this process, one after the other, several times: three epochs each in batches of 64 with Adam, tracing
included. Ours also shuffles by a seed, writes checkpoints and TensorBoard logs and watches for NaN. The last column is
processor time of all threads.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from edgeopt import data, frameworks
from edgeopt.loading import load_model
from edgeopt.steps import DEFAULTS
from edgeopt.training import fit

_MODELS = {"resnet8": ((32, 32, 3), 10), "ds_cnn": ((49, 10, 1), 12)}


def section(*, samples: int = 4096, epochs: int = 3, repeats: int = 3) -> str:
    """Returns the table of this benchmark as Markdown."""
    keras = frameworks.load("tf_keras")
    rows = []
    for name, (shape, classes) in _MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            teacher = load_model(common.reference_model(Path(folder), name)).keras
        generator = np.random.default_rng(0)
        x = generator.integers(0, 256, (samples, *shape)).astype(np.float32) / 255
        y = generator.integers(0, classes, samples)
        dataset = data.load({"x_train": x, "y_train": y, "x_test": x[:64], "y_test": y[:64]})
        training = replace(DEFAULTS, epochs=epochs)

        def by_hand(model: Any, x: np.ndarray = x, y: np.ndarray = y) -> None:
            model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
            model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)

        def ours(model: Any, dataset: Any = dataset, training: Any = training) -> None:
            with tempfile.TemporaryDirectory() as folder:
                fit(model, dataset, training, folder=Path(folder))

        seconds, used = _in_turn((by_hand, ours), teacher, repeats=repeats)
        rows.append(
            [
                name,
                *(f"{statistics.median(each):.2f}" for each in seconds),
                f"{common.ratio(seconds[1], seconds[0]):.2f}",
                f"{common.ratio(used[1], used[0]):.2f}",
            ]
        )
    header = ["model", "plain fit s", "edgeopt s", "times the plain fit's", "times its processor time"]
    return common.markdown(header, rows)


def _in_turn(
    ways: tuple[Callable[[Any], None], ...], model: Any, *, repeats: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Returns seconds and processor seconds of each way to train a copy of `model`, after one untimed round."""
    keras = frameworks.load("tf_keras")
    seconds: list[list[float]] = [[] for _ in ways]
    used: list[list[float]] = [[] for _ in ways]
    for round_number in range(repeats + 1):
        for index, train in enumerate(ways):
            copy = keras.models.clone_model(model)
            copy.set_weights(model.get_weights())
            start, busy = time.perf_counter(), time.process_time()
            train(copy)
            if round_number:
                seconds[index].append(time.perf_counter() - start)
                used[index].append(time.process_time() - busy)
    return seconds, used


if __name__ == "__main__":
    print(section())
