"""A student and its teachers go in; a tf_keras model whose training makes the student answer as they do comes out.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeopt.frameworks import load
from edgeopt.training.hints import Hints
from edgeopt.training.objective import Objective, each_mean

keras: Any = load("tf_keras")

# Of a probability, under its logarithm: float32 keeps it apart from zero.
_SMALLEST = 1e-7


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


def softened(logits: Any, temperature: float) -> Any:
    """Returns softmax(logits / T), [N, classes]."""
    return load("tensorflow").nn.softmax(logits / temperature)


def as_logits(outputs: Any, *, probabilities: bool) -> Any:
    """Returns outputs [N, classes] as logits; those of probabilities are their logarithms, which softmax undoes."""
    tf = load("tensorflow")
    return tf.math.log(tf.maximum(outputs, _SMALLEST)) if probabilities else outputs


class Distiller(keras.Model):
    """Trains `student` on alpha * (the teachers' answers) + (1 - alpha) * (the labels) + hint_weight * (the hints).

    It is called and saved as the student alone; teachers are no part of its weights, and adapters of hints no part of
    the student's.

    Args:
        student: a tf_keras model; trained in place.
        teach: returns the teachers' answers to a batch of inputs, a tensor for each output of the student: softened
            probabilities where `soft` is true, values elsewhere.
        soft: for each output, whether it tells classes apart.
        probabilities: for each output, whether the student gives probabilities there and not logits.
        temperature, alpha: see `steps.Training`.
        objective: what is learned from labels; None where there are none.
        told: whether batches bring the teachers' answers as targets after the labels, so that `teach` is not asked.
        hints: what is learned from the insides of a teacher; None for nothing.
        hint_weight: of all hints together.
    """

    def __init__(
        self,
        student: Any,
        teach: Callable[[Any], Sequence[Any]],
        *,
        soft: Sequence[bool],
        probabilities: Sequence[bool],
        temperature: float,
        alpha: float,
        objective: Objective | None,
        told: bool = False,
        hints: Hints | None = None,
        hint_weight: float = 1.0,
    ) -> None:
        super().__init__(name=student.name)
        self.student = student
        # Inside functions and plain objects the teachers are not tracked: neither trained nor written to checkpoints.
        self.teach, self.hints = teach, hints
        self.adapters = hints.adapters if hints is not None else []
        self.soft, self.probabilities = tuple(soft), tuple(probabilities)
        self.temperature, self.alpha, self.objective, self.told = temperature, alpha, objective, told
        self.hint_weight = hint_weight
        names = ("loss", "teacher_loss", *(("hint_loss",) if hints is not None else ()))
        self.means = {name: keras.metrics.Mean(name) for name in names}

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Returns what the student answers."""
        return self.student(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one step on a batch of (inputs, targets) as `stream` gives them."""
        tf = load("tensorflow")
        inputs, targets = data
        parts = list(targets) if isinstance(targets, (list, tuple)) else [targets]
        labels = parts.pop(0) if self.objective is not None else None
        answers = parts if self.told else self.teach(inputs)
        wanted = [] if self.hints is None else self.hints.wanted(inputs)
        with tf.GradientTape() as tape:
            outputs, features = self._run(inputs)
            losses = {"teacher_loss": tf.reduce_mean(self.imitation(answers, outputs))}
            loss = self.alpha * losses["teacher_loss"]
            if self.objective is not None:
                loss += (1 - self.alpha) * self.objective.mean(labels, outputs[0])
            if self.hints is not None:
                losses["hint_loss"] = self.hints.loss(wanted, features)
                loss += self.hint_weight * losses["hint_loss"]
            if self.student.losses:
                loss += tf.add_n(self.student.losses)
            # Under tf.distribute the replicas' gradients are summed.
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(scaled, self.trainable_variables, tape=tape)
        for name, value in {"loss": loss, **losses}.items():
            self.means[name].update_state(value)
        if self.objective is not None and self.compiled_metrics is not None:
            self.compiled_metrics.update_state(labels, outputs[0])
        return {metric.name: metric.result() for metric in self.metrics}

    def imitation(self, answers: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns the loss against the teachers' answers, summed over the student's outputs: [N], for each sample."""
        tf = load("tensorflow")
        total = tf.constant(0.0)
        for answer, output, soft, probabilities in zip(answers, outputs, self.soft, self.probabilities):
            if soft:
                losses = soft_target_losses(answer, as_logits(output, probabilities=probabilities), self.temperature)
            else:
                losses = tf.square(answer - output)
            total += each_mean(losses)
        return total

    def losses_of(self, inputs: Any, labels: Any, outputs: Sequence[Any]) -> Any:
        """Returns what is minimized, but for hints and penalties, on each sample of a batch: [N]."""
        losses = self.alpha * self.imitation(self.teach(inputs), outputs)
        return losses if self.objective is None else losses + (1 - self.alpha) * self.objective.each(labels, outputs[0])

    def _run(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        if self.hints is not None:
            return self.hints.run(inputs)
        outputs = self.student(inputs, training=True)
        return (list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]), []
