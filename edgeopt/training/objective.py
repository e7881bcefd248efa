"""A model, labels and what is known of its outputs go in; what training minimizes comes out, and why just that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeopt import graph
from edgeopt.data.labels import class_numbers
from edgeopt.errors import ConfigError, DataError, setting, suggestion
from edgeopt.frameworks import load
from edgeopt.tasks import TASKS, Task
from edgeopt.tasks.finding import found, input_given_back
from edgeopt.tasks.losses import LOSSES, UNSAID, Goal, LossSpec, by_output, said
from edgeopt.training.imitation import gives_odds, gives_probabilities
from edgeopt.training.losses import Computed, keras_loss, own_loss, require_per_sample, scaled_squared_error
from edgeopt.training.stream import Target
from edgeopt.training.weighing import class_weights
from edgeopt.vocabulary import Batch

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.steps import Training

# Samples that tell what the labels of all are, and how far values spread; and those whose outputs are looked at.
_LOOKED_AT, _ANSWERED = 1000, 32
_SHOWN = 10
_COMPILED = "as the model was compiled with"


@dataclass(frozen=True)
class Aim:
    """What one output learns from its labels.

    Attributes:
        index, output: which output.
        task: what it is for.
        loss: of targets and outputs, for each sample and place.
        target: what labels become.
        weight: in the sum over outputs.
        words: which loss, and why.
        known: whether the loss is Keras' or ours, so that it is known what targets are.
        middle: of one unit that tells two classes apart, above which it is the second.
        class_weights: how much each class counts; None where all count alike.
    """

    index: int
    output: str
    task: Task
    loss: Computed
    target: Target
    weight: float
    words: str
    known: bool = True
    middle: float = 0.5
    class_weights: np.ndarray | None = None

    @property
    def measure(self) -> str:
        """What is told of each epoch beside the loss, "" for nothing."""
        return "accuracy" if self.task.classes and self.known else ""

    def values(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns the loss for each sample and place, and how much each counts."""
        tf = load("tensorflow")
        losses = self.loss(targets, outputs)
        weights = tf.ones_like(losses)
        if self.known and self.task.classes and losses.shape.rank == outputs.shape.rank - 1:
            told = targets[..., 0] >= 0 if outputs.shape[-1] == 1 else tf.reduce_max(targets, axis=-1) > 0
            weights = tf.cast(told, losses.dtype)
        # Keras marks steps that are padding.
        mask = getattr(outputs, "_keras_mask", None)
        if mask is not None and mask.shape.rank == losses.shape.rank:
            weights *= tf.cast(mask, losses.dtype)
        if self.class_weights is not None:
            of_class = (
                tf.cast(targets[..., 0] > 0.5, tf.int32) if outputs.shape[-1] == 1 else tf.argmax(targets, axis=-1)
            )
            losses *= tf.gather(self.class_weights, of_class)
        return losses, weights

    def mean(self, targets: Any, outputs: Any, samples: Any = None) -> Any:
        """Returns the mean loss of a batch over all that counts; `samples` are weights of samples, [N]."""
        tf = load("tensorflow")
        losses, weights = self.values(targets, outputs)
        if samples is not None:
            losses *= tf.reshape(samples, [-1, *[1] * (losses.shape.rank - 1)])
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))

    def each(self, targets: Any, outputs: Any) -> Any:
        """Returns the loss of each sample of a batch, [N]; 0 where none of it counts."""
        tf = load("tensorflow")
        losses, weights = self.values(targets, outputs)
        return tf.math.divide_no_nan(each_mean(losses * weights), each_mean(weights))

    def right(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns for each place whether its class is right, and how much it counts."""
        tf = load("tensorflow")
        if outputs.shape[-1] == 1:
            same, counts = (outputs > self.middle) == (targets > 0.5), targets >= 0
        else:
            same = tf.argmax(outputs, axis=-1) == tf.argmax(targets, axis=-1)
            counts = tf.reduce_max(targets, axis=-1) > 0
        return tf.cast(same, tf.float32), tf.cast(counts, tf.float32)


@dataclass(frozen=True)
class Coupled:
    """A loss of all outputs together.

    Attributes:
        loss: f(labels, outputs) gives a number for each sample; outputs come by name, and labels too where each output
            has its own.
        words: which loss, and why.
    """

    loss: Computed
    words: str

    @staticmethod
    def labels(aims: Sequence[Aim], targets: Sequence[Any]) -> Any:
        """Returns targets, in the order of aims, as the loss takes them: by output, or the only ones, of no output."""
        return targets[0] if aims[0].index < 0 else {aim.output: target for aim, target in zip(aims, targets)}


@dataclass(frozen=True)
class Objective:
    """What is learned.

    Attributes:
        aims: from labels; none where a teacher has all the weight.
        coupled: the loss of all of them together, where it is one; theirs then count for nothing.
        tasks: of every output, as far as model, labels and people tell; None where they do not.
        outputs: their names.
    """

    aims: tuple[Aim, ...]
    tasks: tuple[Task | None, ...]
    outputs: tuple[str, ...]
    coupled: Coupled | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Which losses were taken, and why."""
        return tuple(aim.words for aim in self.aims) if self.coupled is None else (self.coupled.words,)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What labels become, in the order of aims."""
        return tuple(aim.target for aim in self.aims)

    def mean(self, targets: Sequence[Any], outputs: Sequence[Any], samples: Any = None) -> Any:
        """Returns the mean loss of a batch, summed over outputs by their weights; `samples` are weights of samples."""
        if self.coupled is not None:
            each = self.each(targets, outputs)
            return load("tensorflow").reduce_mean(each if samples is None else each * samples)
        return sum(
            aim.weight * aim.mean(target, outputs[aim.index], samples) for aim, target in zip(self.aims, targets)
        )

    def each(self, targets: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns the loss of each sample of a batch, [N]."""
        if self.coupled is not None:
            labels = self.coupled.labels(self.aims, targets)
            return each_mean(self.coupled.loss(labels, dict(zip(self.outputs, outputs))))
        return sum(aim.weight * aim.each(target, outputs[aim.index]) for aim, target in zip(self.aims, targets))

    def aim(self, index: int) -> Aim | None:
        """Returns what an output learns from labels."""
        return next((aim for aim in self.aims if aim.index == index), None)

    def weight(self, index: int) -> float:
        """Returns the weight of an output."""
        aim = self.aim(index)
        return 1.0 if aim is None else aim.weight


def each_mean(values: Any) -> Any:
    """Returns the mean of each sample's values [N, ...]: [N]."""
    tf = load("tensorflow")
    return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)


def objective(model: Any, part: Part, training: Training, goal: Goal = UNSAID, *, taught: bool) -> Objective:
    """Returns what `model` learns from the labels of `part`.

    The loss of each output is the one that is said, else the one that the model was compiled with, else its task's own.

    Args:
        model: a tf_keras model.
        part: bound to its inputs.
        training: for alpha, label smoothing, and losses that are said.
        goal: what is known of its outputs.
        taught: whether there is a teacher.

    Raises:
        ConfigError: a loss is not there, or gives no number for each sample.
        DataError: labels are missing, or do not fit the model's outputs.
    """
    names = goal.outputs or tuple(name for name, _ in graph.output_names(model))
    losses = by_output(training.loss or (), "--loss")
    for what, words in (("--loss", losses), ("--task", goal.tasks)):
        for output in words:
            if output and output not in names:
                raise ConfigError(
                    f"Expected {what} for one of the outputs {', '.join(names)}, got {output!r}."
                    f"{suggestion(output, names)}"
                )
    by_teacher = taught and training.alpha == 1.0
    if len(names) > 1 and ":" in losses.get("", "") and not by_teacher:
        return _coupled(model, part, losses, goal, names)
    labelled = _labelled(part, names, goal, losses, taught=taught, by_teacher=by_teacher)
    outputs = some_outputs(model, part)
    tasks: list[Task | None] = []
    aims: list[Aim] = []
    for index, name in enumerate(names):
        one = _Output(index, name, tuple(model.outputs[index].shape[1:]), outputs[index], labelled.get(name))
        task = one.task(goal, has_loss=name in losses or "" in losses)
        tasks.append(task)
        if task is not None and one.part is not None and not by_teacher:
            aims.extend(one.aim(task, training, goal, losses))
    if not aims and not taught:
        raise DataError(
            f"Expected something to learn from labels, got outputs that learn from their teacher alone. "
            f"Try {setting('teacher', 'original')}, or --loss."
        )
    if training.class_weight is not None and all(aim.class_weights is None for aim in aims):
        what = ", ".join(sorted({task.name for task in tasks if task is not None})) or "a teacher alone"
        raise DataError(
            f"Expected one class for each sample or position to weigh, got {what}. Try without, or weights of "
            "samples (w_train)."
        )
    return Objective(tuple(aims), tuple(tasks), names)


def _coupled(model: Any, part: Part, losses: Mapping[str, str], goal: Goal, names: tuple[str, ...]) -> Objective:
    """Returns what a model learns by a function of all its labels and outputs.

    Raises:
        ConfigError: there is a loss of one output beside it, or it gives no number for each sample.
        DataError: there are no labels.
    """
    said_for_all = losses[""]
    if beside := [output for output in losses if output]:
        raise ConfigError(
            f"Expected {said_for_all} alone as --loss, which takes the labels and outputs of all "
            f"{len(names)} heads at once, got another for {beside[0]}. Try --loss OUTPUT=NAME for each of them."
        )
    if not part.has_labels:
        raise DataError("Expected labels to train on, got samples without. Try data with y_train.")
    if unknown := [output for output in part.labels.outputs if output not in names]:
        raise DataError(
            f"Expected labels for the outputs {', '.join(names)}, got some for {unknown[0]!r}."
            f"{suggestion(unknown[0], names)}"
        )
    loss, several = own_loss(said(said_for_all)), part.labels.outputs or ("",)
    aims = tuple(
        Aim(
            names.index(output) if output else -1,
            output,
            TASKS["detection"],
            loss,
            Target(output, tells="boxes"),
            weight=1.0,
            words="",
            known=False,
        )
        for output in several
    )
    coupled = Coupled(loss, f"loss of {', '.join(names)} together: {said_for_all}, as was said")
    tf, batch = load("tensorflow"), next(part.batches(min(_ANSWERED, len(part))))
    targets = [tf.constant(aim.target.of(batch)) for aim in aims]
    outputs = {name: tf.constant(found) for name, found in zip(names, some_outputs(model, part))}
    require_per_sample(loss, said_for_all, coupled.labels(aims, targets), outputs)
    tasks = (goal.task(name) for name in names)
    return Objective(aims, tuple(None if one is None else TASKS[one] for one in tasks), names, coupled)


def some_outputs(model: Any, part: Part) -> list[np.ndarray]:
    """Returns the outputs of a model for the first samples of a part that is bound to its inputs."""
    batch = next(part.batches(min(_ANSWERED, len(part))))
    inputs = [batch.inputs[spec.name] for spec in part.specs]
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(output) for output in (result if isinstance(result, (list, tuple)) else [result])]


def spread_of(values: np.ndarray) -> np.ndarray:
    """Returns the variance of each target [N, targets], or the mean of all where values have places; never zero."""
    values = values.astype(np.float64)
    spread, square = np.var(values, axis=0), np.square(values).mean(axis=0)
    if values.ndim != 2:
        spread, square = (np.mean(each, keepdims=True).reshape(1) for each in (spread, square))
    # What never changes has no spread to be measured in: its size stands for it.
    return np.where(spread > 1e-8 * square, spread, np.where(square > 0, square, 1.0))


def _labelled(
    part: Part,
    names: Sequence[str],
    goal: Goal,
    losses: Mapping[str, str],
    *,
    taught: bool,
    by_teacher: bool,
) -> dict[str, Part]:
    """Returns the part with the labels of each output that has any, by the output's name.

    Raises:
        DataError: there are none, or it cannot be told which output they are for, or one has none.
    """
    way_out = f"{'' if taught else 'a teacher, and '}{setting('alpha', 1)}"
    if not part.has_labels:
        if by_teacher:
            return {}
        raise DataError(
            "Expected labels to train on, got samples without. "
            f"Try data with y_train, or {way_out}: then the model learns from its teacher alone."
        )
    if not part.labels.outputs:
        if len(names) == 1 or goal.labelled in names:
            return {names[0] if goal.labelled not in names else str(goal.labelled): part}
        if by_teacher:
            return {}
        raise DataError(
            f"Expected labels for each of the outputs {', '.join(names)}, got one array for all. Try naming them "
            f"{', '.join(f'y_train_{name}' for name in names)}, --output-name {names[0]} where they are that one's, or "
            f"{way_out}: then the model learns every output from its teacher."
        )
    there = {name: part.of_output(name) for name in part.labels.outputs}
    for name in there:
        if name not in names:
            raise DataError(
                f"Expected labels for the outputs {', '.join(names)}, got some for {name!r}.{suggestion(name, names)}"
            )
    missing = [name for name in names if name not in there]
    if missing and not by_teacher and not (taught and set(losses) & set(there)):
        one, other = next(iter(there)), missing[0]
        raise DataError(
            f"Expected labels for {other} too, got them for {', '.join(there)} alone. Try data with y_train_{other}, "
            f"or {'' if taught else 'a teacher and '}--loss {one}=NAME: it trains {one} alone, and {other} learns from "
            "its teacher."
        )
    return there


@dataclass(frozen=True)
class _Output:
    """One output: its shape without samples, what it gives for the first ones, and the samples with its labels."""

    index: int
    name: str
    shape: tuple[int | None, ...]
    outputs: np.ndarray
    part: Part | None

    def task(self, goal: Goal, *, has_loss: bool) -> Task | None:
        """Returns what it is for; None where neither labels nor people tell.

        Raises:
            DataError: its labels fit no task, and there is no loss that might take them.
        """
        said_of = goal.task(self.name)
        if self.part is None:
            return None if said_of is None else TASKS[said_of]
        try:
            return found(self.outputs, self.batch, classes=self.part.classes, said=said_of)
        except DataError:
            if not has_loss and goal.compiled is None:
                _require_values(self.part, self.shape)
                raise
            return TASKS["detection"]

    @property
    def batch(self) -> Batch:
        """The samples that are looked at; of labels that are known to be classes a few tell as much."""
        assert self.part is not None
        count = _ANSWERED if self.part.classes is not None else _LOOKED_AT
        return next(self.part.batches(min(len(self.part), count)))

    def aim(self, task: Task, training: Training, goal: Goal, losses: Mapping[str, str]) -> list[Aim]:
        """Returns what it learns from its labels; nothing where it learns from its teacher alone.

        Raises:
            ConfigError: its loss is not there, or gives no number for each sample.
            DataError: its labels do not fit.
        """
        assert self.part is not None
        spec, why = self._loss(task, goal, losses)
        if spec is None:
            return []
        weight = 1.0 if goal.compiled is None else goal.compiled.weight(self.name, self.index)
        known = spec.name in LOSSES
        words = f"loss{f' of {self.name}' if len(goal.outputs) > 1 else ''}: "
        words += f"{spec.name.replace('_', ' ') if known else spec.name}, {why}"
        words += f", weighted {weight:g}" if weight != 1.0 else ""
        batch = self.batch
        target = self._target(task, batch, known)
        loss = self._computed(spec, training, batch) if known else own_loss(spec)
        found = Aim(
            self.index,
            self.name,
            task,
            loss,
            target,
            weight,
            words,
            known,
            middle=0.5 if gives_odds(self.outputs) else 0.0,
        )
        if training.class_weight is not None and task.classes and known:
            weighed = class_weights(training.class_weight, self._class_counts(target), self.part.class_names)
            shown = ", ".join(f"{value:.3g}" for value in weighed[:_SHOWN]) + (" …" if len(weighed) > _SHOWN else "")
            found = replace(found, class_weights=weighed, words=f"{words}, classes weighed {shown}")
        count = len(self.outputs)
        if target.given_back is not None:
            tried = list(batch.inputs.values())[target.given_back][:count]
        else:
            tried = target.of(Batch(batch.inputs, batch.of_output(self.name).labels))[:count]
        require_per_sample(loss, spec.name, target.spread(load("tensorflow").constant(tried)), self.outputs)
        return [found]

    def _class_counts(self, target: Target) -> np.ndarray:
        """Returns how many labels each class has: of all samples, or where each has many of those looked at."""
        assert self.part is not None
        classes = max(2, self.outputs.shape[-1])
        numbers = self.part.ids()
        if numbers is None:
            numbers = target.of(self.batch).reshape(-1)
        return np.bincount(numbers[numbers >= 0].astype(np.int64), minlength=classes)

    def _loss(self, task: Task, goal: Goal, losses: Mapping[str, str]) -> tuple[LossSpec | None, str]:
        """Returns its loss and why that one; None where the task has none."""
        named = losses.get(self.name, losses.get(""))
        if named is not None:
            return said(named), "as was said"
        compiled = None if goal.compiled is None else goal.compiled.loss(self.name, self.index)
        if compiled is not None and task.loss:
            return compiled, _COMPILED
        own = task.loss_for(self.shape[-1] if self.shape else 1)
        if not own and task.name == "detection":
            raise ConfigError(
                f"Expected a loss for the output {self.name}, whose labels are not in its shape, got none. "
                "Try --loss module:function."
            )
        return (LossSpec(own), f"the own one of {task.name}: the model's file holds none") if own else (None, "")

    def _computed(self, spec: LossSpec, training: Training, batch: Batch) -> Computed:
        if spec.name == "scaled_squared_error":
            labels = batch.of_output(self.name).labels
            assert labels is not None
            return scaled_squared_error(spread_of(labels.reshape(len(labels), *self.outputs.shape[1:])))
        apart = spec.name.startswith("binary")
        probabilities = gives_odds(self.outputs) if apart else gives_probabilities(self.outputs)
        smoothing = training.label_smoothing or 0.0
        return keras_loss(spec, from_logits=not probabilities, smoothing=smoothing, places=len(self.shape) - 1)

    def _target(self, task: Task, batch: Batch, known: bool) -> Target:
        """Returns what its labels become.

        Raises:
            DataError: they do not fit.
        """
        assert self.part is not None
        if task.name == "anomaly":
            given_back = input_given_back(self.outputs, batch)
            return Target(self.name, given_back=0 if given_back is None else given_back)
        units = self.shape[-1] if self.shape else 1
        one_hot = _one_hot(int(units)) if units not in (None, 1) else _as_unit
        if not known:
            found = Target(self.name, tells="boxes" if task.name == "detection" else _tells(task))
            return replace(found, spread=one_hot) if self.part.labels.one_hot else found
        if task.classes:
            classes = self.part.classes
            if classes is not None and (None in self.shape[-1:] or classes > max(2, int(units or 0))):
                raise DataError(
                    f"Expected an output for each of {classes} classes, got a model with {_sizes(self.shape)}. "
                    "Try data with the model's own classes."
                )
            return Target(self.name, self._class_numbers, one_hot)
        _require_values(self.part, self.shape)
        return Target(self.name, self._values, tells=_tells(task))

    def _class_numbers(self, labels: np.ndarray) -> np.ndarray:
        """Returns class numbers for each place, -1 where none is told.

        Raises:
            DataError: they are others.
        """
        shape = self.outputs.shape[1:]
        sizes = labels.shape[1 : len(shape)]
        if len(sizes) == len(shape) - 1 and all(w in (None, g) for g, w in zip(sizes, self.shape)):
            shape = (*sizes, shape[-1])
        numbers = class_numbers(labels, shape) if shape != (1,) else labels.reshape(-1)
        if numbers is None:
            raise DataError(
                f"Expected labels 0..{max(1, shape[-1] - 1)} for {_sizes(shape[:-1])} places of output {self.name}, "
                f"got {labels.dtype} {_sizes(labels.shape[1:])} from {labels.min():g} to {labels.max():g}. Try labels "
                "counted from 0, below 0 where a place is to be left out."
            )
        return numbers.astype(np.int32)

    def _values(self, labels: np.ndarray) -> np.ndarray:
        found = labels.astype(np.float32)
        rank = self.outputs.ndim
        return found if found.ndim == rank else found.reshape(*found.shape[:1], *_fitted(found.shape[1:], rank - 1))


def _tells(task: Task) -> Literal["classes", "values"]:
    return "values" if task.imitation == "values" else "classes"


def _fitted(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Returns the shape of values with a last axis of 1 more or less."""
    return (*shape, 1) if len(shape) < rank else shape[:-1]


def _one_hot(units: int) -> Callable[[Any], Any]:
    return lambda numbers: load("tensorflow").one_hot(numbers, units)


def _as_unit(numbers: Any) -> Any:
    tf = load("tensorflow")
    return tf.cast(numbers, tf.float32)[..., None]


def _require_values(part: Part, shape: tuple[int | None, ...]) -> None:
    labels = next(part.batches(1)).labels
    assert labels is not None
    given = labels.shape[1:]
    alike = [given, (*given, 1), given[:-1] if given and given[-1] == 1 else given]
    if not any(len(s) == len(shape) and all(w in (None, g) for g, w in zip(s, shape)) for s in alike):
        raise DataError(
            f"Expected values of the shape of the model's output, {_sizes(shape)}, got {_sizes(given)}. "
            "Try labels made for this model, or --loss module:function where they are what only that takes."
        )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if size is None else str(size) for size in shape) or "1"
