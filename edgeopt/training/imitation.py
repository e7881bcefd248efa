"""An output's task goes in; how a teacher tells his answers, and how far a student is from them, comes out.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), for classes; where each unit
is a class of its own the same of its odds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeopt.frameworks import load
from edgeopt.tasks import Task
from edgeopt.training.losses import Computed

Kind = Literal["distributions", "odds", "values", "directions"]

# Of a probability, under its logarithm: float32 keeps it apart from zero.
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Manner:
    """How one output imitates.

    Attributes:
        kind: "distributions" over the last axis, "odds" of each unit, "values", or "directions" of the last axis.
        probabilities: whether the student gives probabilities and not logits.
        temperature: T.
        distance: of values: from answers and outputs to [N, ...]; None is the squared difference.
    """

    kind: Kind
    probabilities: bool = False
    temperature: float = 1.0
    distance: Computed | None = None

    def told(self, output: Any, *, probabilities: bool) -> Any:
        """Returns a teacher's output as it is told, in whose mean several teachers agree."""
        tf = load("tensorflow")
        if self.kind == "distributions":
            return softened(as_logits(output, probabilities=probabilities), self.temperature)
        if self.kind == "odds":
            return tf.sigmoid(as_odds(output, probabilities=probabilities) / self.temperature)
        return output

    def losses(self, answer: Any, output: Any) -> Any:
        """Returns how far a student's output is from what it was told, [N, ...]."""
        tf = load("tensorflow")
        if self.kind == "distributions":
            ours = as_logits(output, probabilities=self.probabilities)
            return soft_target_losses(answer, ours, self.temperature)
        if self.kind == "odds":
            ours = as_odds(output, probabilities=self.probabilities)
            return soft_odds_losses(answer, ours, self.temperature)
        if self.kind == "directions":
            return 1 - tf.reduce_sum(tf.math.l2_normalize(answer, -1) * tf.math.l2_normalize(output, -1), axis=-1)
        return tf.square(answer - output) if self.distance is None else self.distance(answer, output)


def kind_of(task: Task | None, outputs: np.ndarray) -> Kind:
    """Returns how an output imitates.

    Args:
        task: what it is for; None where nobody knows.
        outputs: what a teacher gives for some samples.
    """
    if task is None:
        return "distributions" if gives_probabilities(outputs) else "values"
    if task.imitation != "classes":
        return task.imitation
    return "odds" if outputs.shape[-1] == 1 or not task.classes else "distributions"


def are_probabilities(kind: str, outputs: np.ndarray) -> bool:
    """Whether outputs that imitate so are probabilities and not logits."""
    return gives_odds(outputs) if kind == "odds" else kind == "distributions" and gives_probabilities(outputs)


def gives_probabilities(outputs: np.ndarray) -> bool:
    """Whether the rows of some outputs are distributions."""
    if outputs.shape[-1] == 1:
        return False
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1, atol=1e-3))


def gives_odds(outputs: np.ndarray) -> bool:
    """Whether some outputs are probabilities, each by itself, and not logits."""
    return bool((outputs >= 0).all() and (outputs <= 1).all())


def soft_target_losses(teacher: Any, student: Any, temperature: float) -> Any:
    """Returns T² times the divergence of the student's softened distributions from the teachers', [N, ...].

    Args:
        teacher: softened probabilities [N, ..., classes], as `softened` gives them.
        student: logits [N, ..., classes].
        temperature: T; its square keeps the gradient's size as T grows.
    """
    tf = load("tensorflow")
    ours = tf.nn.log_softmax(student / temperature)
    return temperature**2 * tf.reduce_sum(tf.math.xlogy(teacher, teacher) - teacher * ours, axis=-1)


def soft_odds_losses(teacher: Any, student: Any, temperature: float) -> Any:
    """Returns T² times the divergence of the student's softened odds from the teachers', the mean of units: [N, ...].

    Args:
        teacher: softened probabilities [N, ..., units], each by itself.
        student: logits [N, ..., units].
        temperature: T.
    """
    tf = load("tensorflow")
    crossed = tf.nn.sigmoid_cross_entropy_with_logits(labels=teacher, logits=student / temperature)
    own = tf.math.xlogy(teacher, teacher) + tf.math.xlogy(1 - teacher, 1 - teacher)
    return temperature**2 * tf.reduce_mean(crossed + own, axis=-1)


def softened(logits: Any, temperature: float) -> Any:
    """Returns softmax(logits / T), [N, classes]."""
    return load("tensorflow").nn.softmax(logits / temperature)


def as_logits(outputs: Any, *, probabilities: bool) -> Any:
    """Returns outputs [N, classes] as logits; those of probabilities are their logarithms, which softmax undoes."""
    tf = load("tensorflow")
    return tf.math.log(tf.maximum(outputs, _SMALLEST)) if probabilities else outputs


def as_odds(outputs: Any, *, probabilities: bool) -> Any:
    """Returns outputs, each a class of its own, as logits, which a sigmoid undoes."""
    tf = load("tensorflow")
    if not probabilities:
        return outputs
    kept = tf.clip_by_value(outputs, _SMALLEST, 1 - _SMALLEST)
    return tf.math.log(kept) - tf.math.log1p(-kept)
