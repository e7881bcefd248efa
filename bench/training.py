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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import common, tasks
from edgeopt import data, frameworks
from edgeopt.loading import load_model
from edgeopt.steps import DEFAULTS
from edgeopt.tasks.losses import UNSAID, Goal
from edgeopt.training import fit

_MODELS = {"resnet8": ((32, 32, 3), 10), "ds_cnn": ((49, 10, 1), 12)}


def section(*, samples: int = 4096, epochs: int = 3, repeats: int = 3) -> str:
    """Returns the table of this benchmark as Markdown."""
    keras = frameworks.load("tf_keras")
    training = replace(DEFAULTS, epochs=epochs)
    rows = []
    for name, case in (*((name, partial(_classes, name)) for name in _MODELS), ("two outputs", _two_outputs)):
        teacher, goal, arrays, losses = case(samples)
        dataset = data.load(arrays)
        x = arrays["x_train"]
        y = [array for key, array in arrays.items() if key.startswith("y_train")]

        def by_hand(model: Any, x: np.ndarray = x, y: Any = y, losses: Any = losses) -> None:
            model.compile(keras.optimizers.Adam(1e-3), losses, metrics=["accuracy"])
            model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)

        def ours(model: Any, dataset: Any = dataset, goal: Goal = goal) -> None:
            with tempfile.TemporaryDirectory() as folder:
                fit(model, dataset, training, goal=goal, folder=Path(folder))

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


def _classes(name: str, samples: int) -> tuple[Any, Goal, dict[str, np.ndarray], list[str]]:
    """Returns a model of models/, what is known of it, noise with classes, and the loss."""
    shape, classes = _MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(common.reference_model(Path(folder), name)).keras
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (samples, *shape)).astype(np.float32) / 255
    y = generator.integers(0, classes, samples)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:64], "y_test": y[:64]}
    return model, UNSAID, arrays, ["sparse_categorical_crossentropy"]


def _two_outputs(samples: int) -> tuple[Any, Goal, dict[str, np.ndarray], list[str]]:
    """Returns the network of `tasks` with two outputs, what is known of it, its data, and the losses."""
    model, losses, _, _ = tasks.two(frameworks.load("keras"))
    names, kinds = list(losses), list(losses.values())
    model.compile("adam", losses)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "two.keras")
        loaded = load_model(Path(folder) / "two.keras")
    x, told = tasks.pictures(samples, 0)
    arrays = {"x_train": x, "x_test": x[:64]}
    for name in names:
        arrays |= {f"y_train_{name}": told[name], f"y_test_{name}": told[name][:64]}
    return loaded.keras, Goal(tuple(names), compiled=loaded.compiled), arrays, kinds


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
