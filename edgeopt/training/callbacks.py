"""What watches a training from inside: checkpoints, TensorBoard logs, progress, early stopping, the stop at NaN."""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import files, progress
from edgeopt.errors import ConfigError, setting
from edgeopt.frameworks import load
from edgeopt.training.watching import is_better

keras: Any = load("tf_keras")

# A kill loses at most so much work, and the epoch in which it comes.
CHECKPOINT_SECONDS = 15.0
# What reading a damaged or foreign state raises, beside TensorFlow's own errors.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AssertionError, zipfile.BadZipFile)
# News go to a screen: more often is of no use.
NEWS_SECONDS = 0.1


@dataclass
class Best:
    """The weights that did best on samples that are not trained on.

    Attributes:
        losses: of each of these samples.
        epochs: after how many; 0 is before any training.
    """

    losses: np.ndarray
    epochs: int
    weights: list[np.ndarray]


@dataclass
class State:
    """What a training has behind it.

    Attributes:
        history: a row for each finished epoch.
        best: only where samples are watched.
        notes: why it stopped before its end, or which epoch its weights are of.
        finished: whether nothing is left to do.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    notes: list[str] = field(default_factory=list)
    finished: bool = False


class Keeper:
    """The state of a training, and its folder.

    Args:
        objects: what a checkpoint holds, built: the model, the optimizer, whatever else is trained.
        folder: where checkpoints and the state are.
        key: says which training it is; a state of another one is not gone on with.
    """

    def __init__(self, objects: Mapping[str, Any], folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint = load("tensorflow").train.Checkpoint(**objects)
        self._variables = [v for each in objects.values() for v in getattr(each, "variables", ())]
        self._folder, self._file, self._key = folder, folder / "training.json", key
        self._written = time.monotonic()
        self.state = State()

    def restore(self) -> str:
        """Brings everything to the last checkpoint, if there is one of this training.

        Returns:
            Why a state that is there was not gone on with; "" where it was, or where there is none.
        """
        if not self._file.is_file():
            return ""
        before = [v.numpy() for v in self._variables]
        try:
            found = json.loads(self._file.read_text())
            if found["key"] != self._key:
                return "what was begun here was another training: started anew"
            best = None
            if found["best"] is not None:
                epochs = int(found["best"])
                with np.load(self._best_file(epochs), allow_pickle=False) as kept:
                    best = Best(kept["losses"], epochs, [kept[str(index)] for index in range(len(kept.files) - 1)])
            state = State([dict(row) for row in found["history"]], best, list(found["notes"]), bool(found["finished"]))
            path = str(self._folder / found["checkpoint"])
            self._checkpoint.read(path).assert_existing_objects_matched().expect_partial()
        except (*_UNREADABLE, load("tensorflow").errors.OpError):
            for variable, value in zip(self._variables, before):
                variable.assign(value)
            return "what was begun here cannot be read: started anew"
        self.state = state
        return ""

    def save(self, *, at_once: bool) -> None:
        """Writes a checkpoint where the last one is some time ago, or where it has to be."""
        if not at_once and time.monotonic() - self._written < CHECKPOINT_SECONDS:
            return
        state, best = self.state, self.state.best
        name = f"epoch-{len(state.history)}"
        self._checkpoint.write(str(self._folder / name))
        kept = {f"{name}.", self._file.name}
        if best is not None:
            kept.add(self._best_file(best.epochs).name)
            if not self._best_file(best.epochs).exists():
                weights = {str(index): weight for index, weight in enumerate(best.weights)}
                with files.atomic_path(self._best_file(best.epochs)) as temporary:
                    np.savez(temporary, losses=best.losses, **weights)
        content = {
            "key": self._key,
            "checkpoint": name,
            "history": state.history,
            "best": best and best.epochs,
            "notes": state.notes,
            "finished": state.finished,
        }
        files.atomic_write(self._file, json.dumps(content))
        for old in (*self._folder.glob("epoch-*"), *self._folder.glob("best-*")):
            if not any(old.name.startswith(start) for start in kept):
                old.unlink()
        self._written = time.monotonic()

    def _best_file(self, epochs: int) -> Path:
        return self._folder / f"best-{epochs}.npz"


class Watch(keras.callbacks.Callback):
    """Tells, logs and keeps each epoch; stops at NaN and, with `patience`, when nothing gets better.

    What is kept are the last weights, or the best ones where they did better beyond chance.

    Args:
        keeper: holds the state that every epoch adds to.
        what, steps, epochs, peak: for the progress, and for words: the highest learning rate.
        logs: folder of TensorBoard's event files.
        losses: returns the loss of each of some samples that are not trained on; None watches nothing.
        patience: epochs without a better one; None never stops.
        settled_epoch: the first epoch (from 0) whose weights may be the best: what is still being pruned does well
            too early. None: those before any training may be.
    """

    def __init__(
        self,
        keeper: Keeper,
        *,
        what: str,
        steps: int,
        epochs: int,
        peak: float,
        logs: Path,
        losses: Callable[[], np.ndarray] | None = None,
        patience: int | None = None,
        settled_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self._keeper, self._what, self._steps, self._epochs = keeper, what, steps, epochs
        self._peak, self._losses, self._patience, self._settled = peak, losses, patience, settled_epoch
        self._writer = load("tensorflow").summary.create_file_writer(str(logs))
        self._epoch, self._told, self._stopped = 0, 0.0, False
        self._good: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes what was restored for good, and what training begins with for the best so far."""
        state = self._keeper.state
        self._good = self.model.get_weights() if state.history else None
        if self._losses is not None and not state.history and self._settled is None:
            state.best = Best(self._losses(), 0, self.model.get_weights())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes which one it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells where it is, and stops when the loss is no number."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            self._stop_at_nan()
        elif time.monotonic() - self._told > NEWS_SECONDS:
            self._told = time.monotonic()
            self._tell(batch + 1, loss, logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the epoch to history, logs and checkpoint."""
        if self._stopped:
            return
        row = {name: float(value) for name, value in (logs or {}).items()}
        self._tell(self._steps, row.get("loss", 0.0), row)
        row["learning_rate"] = float(keras.backend.get_value(self.model.optimizer.learning_rate))
        losses = None if self._losses is None else self._losses()
        if losses is not None:
            row["watched_loss"] = float(losses.mean())
        state = self._keeper.state
        state.history.append(row)
        with self._writer.as_default():
            for name, value in row.items():
                _log_scalar(name, value, epoch)
        self._writer.flush()
        self._good = self.model.get_weights()
        state.finished = epoch + 1 == self._epochs
        if losses is not None and epoch >= (self._settled or 0):
            self._keep_the_best(losses)
        self._keeper.save(at_once=state.finished)

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the event file."""
        self._writer.close()

    def _tell(self, batches: int, loss: float, logs: Mapping[str, float]) -> None:
        """Tells the epoch, the loss, and the first metric beside it where there is one."""
        words = f"epoch {self._epoch + 1} of {self._epochs}, loss {loss:.4g}"
        for name, value in logs.items():
            if "loss" not in name:
                words += f", {name.replace('_', ' ')} " + (f"{value:.1%}" if "accuracy" in name else f"{value:.4g}")
                break
        progress.tell(self._what, self._epoch * self._steps + batches, self._steps * self._epochs, words)

    def _stop_at_nan(self) -> None:
        if self._good is None:
            raise ConfigError(
                f"Expected {self._what} to converge, got a loss that is no number in epoch {self._epoch + 1} at "
                f"{setting('learning_rate', f'{self._peak:g}')}. Try {self._peak / 10:g}."
            )
        self._stop(
            self._good,
            f"the loss turned NaN in epoch {self._epoch + 1} of {self._epochs}: stopped with the weights of epoch "
            f"{self._epoch}; try learning_rate {self._peak / 10:g}",
        )
        self._keeper.save(at_once=True)

    def _keep_the_best(self, losses: np.ndarray) -> None:
        state, done = self._keeper.state, self._epoch + 1
        if state.best is None or not state.best.losses.mean() <= losses.mean():
            state.best = Best(losses, done, self._good or [])
        best = state.best
        if best.epochs == done:
            return
        if not state.finished and (self._patience is None or done - best.epochs < self._patience):
            return
        if self._patience is None and not is_better(best.losses, losses):
            return
        stopped = "" if state.finished else f"stopped after epoch {done}: "
        where = f"epoch {best.epochs}" if best.epochs else "before training, which made it worse"
        self._stop(best.weights, f"{stopped}the weights are those of {where}, the best on held-out samples")

    def _stop(self, weights: list[np.ndarray], note: str) -> None:
        self.model.set_weights(weights)
        self.model.stop_training = self._stopped = self._keeper.state.finished = True
        self._keeper.state.notes.append(note)


class Trial(keras.callbacks.Callback):
    """Counts the steps of a short training that nothing is kept of, and ends it when the loss is no number.

    Args:
        tell: is called with the number of steps done.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell, self._steps, self._told = tell, 0, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts one more."""
        self._steps += 1
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):
            self.model.stop_training = True
        if time.monotonic() - self._told > NEWS_SECONDS:
            self._told = time.monotonic()
            self._tell(self._steps)


def with_model(callback: Any, model: Any) -> Any:
    """Returns `callback` made to see `model`, whatever wraps it while it is trained."""
    callback.set_model(model)
    callback.set_model = lambda _: None
    return callback


def _log_scalar(name: str, value: float, step: int) -> None:
    # tf.summary.scalar wants the tensorboard package; the file format alone does not.
    tf = load("tensorflow")
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)
