"""Samples and a model's channels go in; what the model loses without some of them comes out, before anything is cut.

The loss is what the model's own answers move by, so that no labels are needed: the divergence of probabilities, else
the squared difference over the variance of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.chance import generator
from edgeopt.errors import DataError
from edgeopt.shrinking.blocks import Block
from edgeopt.shrinking.channels import Channels, Cut
from edgeopt.shrinking.masks import gated

_BATCH = 64
_TINY = 1e-7


class Probe:
    """A model that answers the same samples with any of its channels switched off.

    Args:
        channels: of the model.
        inputs: real samples, one array for each input.

    Raises:
        DataError: there are none.
    """

    def __init__(self, channels: Channels, inputs: Sequence[np.ndarray]) -> None:
        if not len(inputs[0]):
            raise DataError("Expected samples to measure channels on, got none. Try data with a train split.")
        tf = frameworks.load("tensorflow")
        self.channels = channels
        self._batches = [
            [tf.constant(value[start : start + _BATCH]) for value in inputs]
            for start in range(0, len(inputs[0]), _BATCH)
        ]
        self._samples = len(inputs[0])
        self._run = tf.function(lambda gates, *batch: gated(channels, batch, gates), reduce_retracing=True)
        whole = tf.ones([1, channels.units + 1])
        self._answers = [self._run(whole, *batch) for batch in self._batches]
        together = [np.concatenate([np.asarray(a[i]) for a in self._answers]) for i in range(len(self._answers[0]))]
        self._kinds = [_kind(values) for values in together]
        self._spread = [float(values.var()) + _TINY for values in together]

    def loss(self, cut: Cut) -> float:
        """Returns how far the answers move, a mean over samples, when only what `cut` holds stays."""
        tf = frameworks.load("tensorflow")
        return self._loss(self._run, tf.constant(self.channels.kept(cut)[None], tf.float32))

    def loss_without(self, block: Block) -> float:
        """Returns how far the answers move without a residual branch."""
        tf = frameworks.load("tensorflow")
        without = {block.name: block.identity}
        run = tf.function(lambda gates, *batch: gated(self.channels, batch, gates, without=without))
        return self._loss(run, tf.ones([1, self.channels.units + 1]))

    def _loss(self, run: Callable[..., Any], gates: Any) -> float:
        tf = frameworks.load("tensorflow")
        total = 0.0
        for batch, answers in zip(self._batches, self._answers):
            found = run(gates, *batch)
            each = [
                _difference(kind, before, now, spread)
                for kind, before, now, spread in zip(self._kinds, answers, found, self._spread)
            ]
            total += float(tf.add_n(each))
        return total / self._samples

    def fisher(self, *, seed: int = 0) -> np.ndarray:
        """Returns for each unit about how far the answers move without it, to first order in its gate.

        Half the mean square, over samples, of the sum of activation times gradient: Molchanov et al., "Importance
        Estimation for Neural Network Pruning" (arXiv 1906.10771), by sample as in Theis et al. (arXiv 1801.05787).
        Labels are drawn from the model's own answers, which makes it the second-order term of their divergence: it
        does not vanish where the model is right.
        """
        tf = frameworks.load("tensorflow")
        chance = generator(seed, "answers of a model")
        total = np.zeros(self.channels.units)
        gradient = tf.function(self._gradient, reduce_retracing=True)
        for batch, answers in zip(self._batches, self._answers):
            drawn = [
                tf.constant(_drawn(kind, np.asarray(answer), spread, chance), tf.float32)
                for kind, answer, spread in zip(self._kinds, answers, self._spread)
            ]
            total += np.square(np.asarray(gradient(drawn, *batch))[:, :-1]).sum(0)
        return total / (2 * self._samples)

    def _gradient(self, drawn: list[Any], *batch: Any) -> Any:
        tf = frameworks.load("tensorflow")
        gates = tf.ones([tf.shape(batch[0])[0], self.channels.units + 1])
        with tf.GradientTape() as tape:
            tape.watch(gates)
            outputs = gated(self.channels, batch, gates)
            likelihood = tf.add_n([_likelihood(*each) for each in zip(self._kinds, outputs, drawn)])
        return tape.gradient(likelihood, gates, unconnected_gradients="zero")


def distance(before: Sequence[np.ndarray], now: Sequence[np.ndarray]) -> float:
    """Returns how far a model's answers moved, a mean over samples; one array for each output."""
    tf = frameworks.load("tensorflow")
    total = 0.0
    for old, new in zip(before, now):
        each = _difference(_kind(old), tf.constant(old), tf.constant(new), float(old.var()) + _TINY)
        total += float(each) / len(old)
    return total


def _kind(answers: np.ndarray) -> str:
    """Returns "classes" for probabilities that add up to 1, "shares" for others from 0 to 1, else "values"."""
    if answers.min() >= 0 and answers.max() <= 1 + 1e-5:
        sums = answers.sum(-1)
        return "classes" if answers.shape[-1] > 1 and np.allclose(sums, 1, atol=1e-3) else "shares"
    return "values"


def _difference(kind: str, before: Any, now: Any, spread: float) -> Any:
    tf = frameworks.load("tensorflow")
    if kind == "values":
        each = tf.square(before - now) / (spread * np.prod(before.shape[1:]))
    else:
        each = _entropy_part(before, now)
        if kind == "shares":
            each += _entropy_part(1 - before, 1 - now)
    return tf.reduce_sum(each)


def _entropy_part(before: Any, now: Any) -> Any:
    tf = frameworks.load("tensorflow")
    return before * (tf.math.log(before + _TINY) - tf.math.log(tf.maximum(now, 0.0) + _TINY))


def _drawn(kind: str, answers: np.ndarray, spread: float, chance: np.random.Generator) -> np.ndarray:
    """Returns weights w such that the gradient of sum(w * log answers), or of sum(w * answers), is that of a draw."""
    if kind == "classes":
        number = (answers.cumsum(-1) < chance.random((*answers.shape[:-1], 1))).sum(-1).clip(max=answers.shape[-1] - 1)
        return np.eye(answers.shape[-1])[number]
    if kind == "shares":
        return (chance.random(answers.shape) < answers).astype(np.float64)
    return chance.standard_normal(answers.shape) / np.sqrt(spread * answers[0].size)


def _likelihood(kind: str, outputs: Any, drawn: Any) -> Any:
    tf = frameworks.load("tensorflow")
    if kind == "values":
        return tf.reduce_sum(drawn * outputs)
    likelihood = tf.reduce_sum(drawn * tf.math.log(outputs + _TINY))
    if kind == "shares":
        likelihood += tf.reduce_sum((1 - drawn) * tf.math.log(1 - outputs + _TINY))
    return likelihood
