"""Kernels go in; a callback that lets their weights share a few values while a model is trained comes out.

Each kernel keeps its weights as they would be without clusters (latent), the model computes with the nearest shared
values, and what the optimizer changes goes to the latent weights: the straight-through estimator of Bengio et al.
(arXiv 1308.3432), which tfmot's `cluster_weights` uses as well. A shared value is the mean of its latent weights, so
that every training step is one of Lloyd's k-means. With two symmetric values for each channel it is the binary network
of Rastegari et al. (XNOR-Net, arXiv 1603.05279), with three the ternary one of Li et al. (arXiv 1605.04711).

tfmot's wrappers replace the weights inside the layers and loop over channels in Python; this takes any layer, leaves
the model's graph alone and has nothing to strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.chance import seed_for
from edgeopt.frameworks import load

keras: Any = load("tf_keras")

# Of k-means before training: one-dimensional clusters settle sooner.
_ROUNDS = 25
# Of the mean absolute weight: what is smaller starts as 0.
_TWN_THRESHOLD = 0.7


@dataclass(frozen=True)
class Goal:
    """What becomes of one kernel.

    Attributes:
        kernel: a variable, changed in place.
        clusters: distinct values in each group, a zero that is kept included.
        channel_axes: the axes along which its groups lie; none: the kernel is one group.
        keep_zeros: whether what is zero now stays zero, as one of the values.
        symmetric: whether each value has its negative among them; of an odd number one is zero.
    """

    kernel: Any
    clusters: int
    channel_axes: tuple[int, ...] = ()
    keep_zeros: bool = False
    symmetric: bool = False


class Clusterer(keras.callbacks.Callback):
    """Keeps kernels on their shared values: after every training step they are clustered.

    Args:
        goals: what is clustered.
        initialization: see INITIALIZATIONS.
        seed: of what is drawn.
    """

    def __init__(self, goals: Sequence[Goal], initialization: str, seed: int) -> None:
        super().__init__()
        self._goals, self._initialization, self._seed = tuple(goals), initialization, seed
        self._states: list[_State] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the first values; where training goes on from a checkpoint they are those in its weights."""
        self._states = [
            _State(goal, self._initialization, seed_for(self._seed, "first values", number))
            for number, goal in enumerate(self._goals)
        ]
        self._follow = load("tensorflow").function(self._followed)
        for state in self._states:
            for _ in range(_ROUNDS):
                state.settle()
            state.write()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes over what the optimizer changed, and clusters again."""
        self._follow()

    def _followed(self) -> None:
        for state in self._states:
            state.follow()


class _State:
    """One kernel's latent weights [groups, weights], its sorted values [groups, values] and who belongs to which."""

    def __init__(self, goal: Goal, initialization: str, seed: int) -> None:
        tf = load("tensorflow")
        self._kernel = goal.kernel
        shape = goal.kernel.shape
        axes = tuple(axis % len(shape) for axis in goal.channel_axes)
        self._order = (*axes, *(axis for axis in range(len(shape)) if axis not in axes))
        self._groups = int(np.prod([shape[axis] for axis in axes])) if axes else 1
        self._back = tuple(int(axis) for axis in np.argsort(self._order))
        self._ordered = [shape[axis] for axis in self._order]
        rows = self._rows(goal.kernel).numpy()
        kept = rows == 0 if goal.keep_zeros else np.zeros_like(rows, bool)
        several = goal.clusters - int(kept.any())
        self._symmetric = goal.symmetric
        if goal.symmetric:
            values = symmetric_values(rows, ~kept, several)
        else:
            values = first_values(rows, ~kept, several, initialization, seed)
        with tf.init_scope():
            self._latent = tf.Variable(rows, trainable=False)
            self._values = tf.Variable(values, trainable=False)
            self._counted = tf.constant(~kept)
            self._written = tf.Variable(rows, trainable=False)

    def follow(self) -> None:
        """Moves the latent weights as the optimizer moved the kernel; then clusters once and writes."""
        self._latent.assign_add(self._rows(self._kernel) - self._written)
        self.settle()
        self.write()

    def settle(self) -> None:
        """Takes one step of Lloyd's: each value becomes the mean of the latent weights next to it."""
        tf = load("tensorflow")
        count = self._values.shape[1]
        segments = self._nearest() + count * tf.range(self._groups)[:, None]
        ones = tf.cast(self._counted, tf.float32)
        number = tf.math.unsorted_segment_sum(ones, segments, self._groups * count)
        total = tf.math.unsorted_segment_sum(self._latent * ones, segments, self._groups * count)
        number, total = (tf.reshape(each, self._values.shape) for each in (number, total))
        if self._symmetric:
            # The values are sorted: the negative of one is as far from the end as it is from the beginning.
            number, total = number + number[:, ::-1], total - total[:, ::-1]
        self._values.assign(tf.where(number > 0, tf.math.divide_no_nan(total, number), self._values))

    def write(self) -> None:
        """Puts the shared values into the kernel."""
        tf = load("tensorflow")
        rows = tf.gather(self._values, self._nearest(), batch_dims=1)
        rows = tf.where(self._counted, rows, tf.zeros_like(rows))
        self._written.assign(rows)
        self._kernel.assign(tf.transpose(tf.reshape(rows, self._ordered), self._back))

    def _nearest(self) -> Any:
        """Returns the position of each weight's nearest value: the values are sorted, and means keep them so."""
        tf = load("tensorflow")
        return tf.searchsorted((self._values[:, 1:] + self._values[:, :-1]) / 2, self._latent)

    def _rows(self, kernel: Any) -> Any:
        tf = load("tensorflow")
        return tf.reshape(tf.transpose(kernel, self._order), [self._groups, -1])


def first_values(rows: np.ndarray, counted: np.ndarray, clusters: int, initialization: str, seed: int) -> np.ndarray:
    """Returns the values that clusters start from, float32 [groups, clusters], sorted.

    Args:
        rows: weights [groups, weights].
        counted: which of them are clustered, as many.
        initialization: "linear" from the least to the greatest, "density" at equal shares of the weights, "random"
            anywhere between, "kmeans++" at weights drawn by their squared distance from those drawn before (Arthur &
            Vassilvitskii, 2007).
    """
    chaos = np.random.default_rng(seed)
    found = np.zeros((len(rows), clusters), np.float32)
    for group, (row, there) in enumerate(zip(rows, counted)):
        weights = np.unique(row[there])
        if len(weights) <= clusters:
            # As many as there are: what is clustered already, as in a checkpoint, stays as it is.
            found[group] = np.sort(np.resize(weights, clusters)) if len(weights) else 0
        else:
            found[group] = np.sort(_INITIALIZATIONS[initialization](row[there], clusters, chaos))
    return found


def symmetric_values(rows: np.ndarray, counted: np.ndarray, clusters: int) -> np.ndarray:
    """Returns the values that symmetric clusters start from, float32 [groups, clusters], sorted.

    Two are plus and minus the mean of the absolute weights (XNOR-Net, equation 6); of three one is 0, and the mean is
    taken over what is larger than 0.7 of it (TWN, equations 5 and 6). More share what is left in equal parts.

    Args:
        rows, counted: see `first_values`.
    """
    found = np.zeros((len(rows), clusters), np.float32)
    for group, (row, there) in enumerate(zip(rows, counted)):
        sizes = np.sort(np.abs(row[there]))
        if clusters % 2 and sizes.any():
            sizes = sizes[sizes > _TWN_THRESHOLD * sizes.mean()]
        if len(sizes):
            means = [part.mean() if len(part) else sizes[-1] for part in np.array_split(sizes, clusters // 2)]
            found[group, -len(means) :] = means
            found[group, : len(means)] = -np.asarray(means)[::-1]
    return found


def _kmeans_plus_plus(weights: np.ndarray, clusters: int, chaos: np.random.Generator) -> np.ndarray:
    found = [chaos.choice(weights)]
    distances = np.square(weights - found[0], dtype=np.float64)
    while len(found) < clusters:
        found.append(chaos.choice(weights, p=distances / distances.sum()))
        distances = np.minimum(distances, np.square(weights - found[-1], dtype=np.float64))
    return np.asarray(found)


_INITIALIZATIONS = {
    "linear": lambda weights, clusters, _: np.linspace(weights.min(), weights.max(), clusters),
    "density": lambda weights, clusters, _: np.quantile(weights, (np.arange(clusters) + 0.5) / clusters),
    "random": lambda weights, clusters, chaos: chaos.uniform(weights.min(), weights.max(), clusters),
    "kmeans++": _kmeans_plus_plus,
}
