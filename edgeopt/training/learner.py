"""A model, what it learns from labels and who teaches it go in; a tf_keras model that trains it so comes out.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeopt.frameworks import load
from edgeopt.training.hints import Hints
from edgeopt.training.imitation import Manner
from edgeopt.training.objective import Objective, each_mean

keras: Any = load("tf_keras")

# Inputs → the teachers' answers, and what the first one's layers give that are hinted at.
Teach = Callable[[Any], tuple[Sequence[Any], Sequence[Any]]]


class Learner(keras.Model):
    """Trains `student` on (1 - alpha) * (the labels) + alpha * (the teachers' answers) + hint_weight * (the hints).

    Each term is a sum over outputs, by their weights. It is called and saved as the student alone; teachers are no part
    of its weights, and adapters of hints no part of the student's.

    Args:
        student: a tf_keras model; trained in place.
        objective: what is learned from labels.
        teach: returns the teachers' answers to a batch of inputs, a tensor for each output of the student, as `manners`
            tell them, and the features of `hints`; None where nobody teaches.
        manners: how each output imitates.
        alpha: weight of the teachers; see `steps.Training`.
        told: whether batches bring the teachers' answers as targets after the labels, so that `teach` is not asked.
        hints: what is learned from the insides of a teacher; None for nothing.
        hint_weight: of all hints together.
        weighted: whether batches bring how much each sample counts as the last target.
    """

    def __init__(
        self,
        student: Any,
        objective: Objective,
        teach: Teach | None = None,
        *,
        manners: Sequence[Manner] = (),
        alpha: float = 0.0,
        told: bool = False,
        hints: Hints | None = None,
        hint_weight: float = 1.0,
        weighted: bool = False,
    ) -> None:
        super().__init__(name=student.name)
        self.student, self.objective = student, objective
        # Inside functions and plain objects the teachers are not tracked: neither trained nor written to checkpoints.
        self.teach, self.hints = teach, hints
        self.adapters = hints.adapters if hints is not None else []
        self.manners, self.alpha, self.told, self.hint_weight = tuple(manners), alpha, told, hint_weight
        self.weighted = weighted
        names = ["loss"]
        names += ["teacher_loss"] if teach is not None else []
        names += ["hint_loss"] if hints is not None else []
        self.measures = {
            index: f"{aim.output}_{aim.measure}" if len(objective.outputs) > 1 else aim.measure
            for index, aim in enumerate(objective.aims)
            if aim.measure
        }
        self.means = {name: keras.metrics.Mean(name) for name in (*names, *self.measures.values())}

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Returns what the student answers."""
        return self.student(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one step on a batch of (inputs, targets) as `stream` gives them."""
        tf = load("tensorflow")
        inputs, targets = data
        parts = tf.nest.flatten(targets)
        samples = parts.pop() if self.weighted else None
        labels = parts[: len(self.objective.aims)]
        answers: Sequence[Any] = parts[len(labels) :]
        wanted: Sequence[Any] = ()
        if self.teach is not None and not self.told:
            answers, wanted = self.teach(inputs)
        with tf.GradientTape() as tape:
            outputs, features = self._run(inputs)
            losses = {}
            loss = tf.constant(0.0)
            if self.objective.aims:
                loss += (1 - self.alpha) * self.objective.mean(labels, outputs, samples)
            if self.teach is not None:
                imitated = self.imitation(answers, outputs)
                losses["teacher_loss"] = tf.reduce_mean(imitated if samples is None else imitated * samples)
                loss += self.alpha * losses["teacher_loss"]
            if self.hints is not None:
                losses["hint_loss"] = self.hints.loss(wanted, features)
                loss += self.hint_weight * losses["hint_loss"]
            if self.student.losses:
                loss += tf.add_n(self.student.losses)
            # Under tf.distribute the replicas' gradients are summed.
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(scaled, self.trainable_variables, tape=tape)
        count = tf.shape(outputs[0])[0]
        for name, value in {"loss": loss, **losses}.items():
            self.means[name].update_state(value, sample_weight=count)
        for index, name in self.measures.items():
            aim = self.objective.aims[index]
            self.means[name].update_state(*aim.right(labels[index], outputs[aim.index]))
        return {metric.name: metric.result() for metric in self.metrics}

    def imitation(self, answers: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns the loss against the teachers' answers, summed over the student's outputs: [N], for each sample."""
        total = 0.0
        for index, (answer, output, manner) in enumerate(zip(answers, outputs, self.manners)):
            total += self.objective.weight(index) * each_mean(manner.losses(answer, output))
        return total

    def losses_of(self, inputs: Any, labels: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns what is minimized, but for hints and penalties, on each sample of a batch: [N]."""
        losses = (1 - self.alpha) * self.objective.each(labels, outputs) if self.objective.aims else 0.0
        return losses if self.teach is None else losses + self.alpha * self.imitation(self.teach(inputs)[0], outputs)

    def _run(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        if self.hints is not None:
            return self.hints.run(inputs)
        outputs = self.student(inputs, training=True)
        return (list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]), []
