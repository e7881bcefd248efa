"""Layers of a student and of its teacher go in; what they give, and how far apart the two are, comes out.

Hints: Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv 1412.6550). Attention transfer: Zagoruyko & Komodakis,
"Paying More Attention to Attention" (arXiv 1612.03928).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.errors import ConfigError, suggestion
from edgeopt.frameworks import load

# What tfmot puts before the names of the layers it wraps.
_WRAPPED = ("", "prune_low_magnitude_", "cluster_", "quant_")


@dataclass(frozen=True)
class Hint:
    """A layer of the student that imitates one of the teacher.

    Attributes:
        student, teacher: names of layers.
        attention: whether only where the layer is active is imitated, and not with which channels.
        channels: which of the teacher's the student's are, in its order; all of them, or others, where there are none.
    """

    student: str
    teacher: str
    attention: bool = False
    channels: tuple[int, ...] = ()


def hint_loss(teacher: Any, student: Any) -> Any:
    """Returns the mean squared difference of two feature tensors of one shape, over the mean square of the teacher's.

    FitNets' distance, made free of the scale that the teacher's features happen to have.
    """
    tf = load("tensorflow")
    scale = tf.reduce_mean(tf.square(teacher))
    return tf.reduce_mean(tf.square(teacher - student)) / tf.maximum(scale, 1e-12)


def attention_map(features: Any) -> Any:
    """Returns the sum over channels of the squared features [N, ..., C], each sample's map flat and of length 1."""
    tf = load("tensorflow")
    energy = tf.reduce_sum(tf.square(features), axis=-1)
    return tf.math.l2_normalize(tf.reshape(energy, [tf.shape(energy)[0], -1]), axis=-1)


def attention_loss(teacher: Any, student: Any) -> Any:
    """Returns the squared distance of the two attention maps, the mean over the batch: 0 to 2.

    Args:
        teacher, student: features [N, ..., C] of maps of one size; the numbers of channels may differ.
    """
    tf = load("tensorflow")
    difference = attention_map(teacher) - attention_map(student)
    return tf.reduce_mean(tf.reduce_sum(tf.square(difference), axis=-1))


class Hints:
    """Measures how far the student's layers are from the teacher's.

    Args:
        hints: at least one.
        student, teacher: tf_keras models that take the same inputs.

    Attributes:
        adapters: layers that bring the student's channels to the teacher's number, 1x1 convolutions as dense layers
            over the channels; trained along and no part of the student.

    Raises:
        ConfigError: a layer is not there, or the two cannot be compared.
    """

    def __init__(self, hints: Sequence[Hint], student: Any, teacher: Any) -> None:
        keras = load("tf_keras")
        self._hints = tuple(hints)
        ours = [_features(student, hint.student, "student") for hint in hints]
        theirs = [_chosen(_features(teacher, hint.teacher, "teacher"), hint) for hint in hints]
        for hint, mine, other in zip(hints, ours, theirs):
            _require_comparable(hint, mine, other)
        self._adapters = tuple(
            None if hint.attention or mine.shape[-1] == other.shape[-1] else keras.layers.Dense(other.shape[-1])
            for hint, mine, other in zip(hints, ours, theirs)
        )
        for adapter, mine in zip(self._adapters, ours):
            if adapter is not None:
                adapter.build(mine.shape)
        self.adapters = [adapter for adapter in self._adapters if adapter is not None]
        self._student = keras.Model(student.inputs, [*student.outputs, *ours])
        # Outputs and features in one go: whoever asks for both runs the teacher once.
        self._teacher = keras.Model(teacher.inputs, [*teacher.outputs, *theirs])

    def run(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        """Returns the student's outputs and its layers' features, in training."""
        results = self._student(inputs, training=True)
        count = len(results) - len(self._hints)
        return list(results[:count]), list(results[count:])

    def told(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        """Returns the teacher's outputs and its layers' features."""
        tf = load("tensorflow")
        found = [tf.stop_gradient(each) for each in self._teacher(inputs, training=False)]
        count = len(found) - len(self._hints)
        return found[:count], found[count:]

    def loss(self, wanted: Sequence[Any], features: Sequence[Any]) -> Any:
        """Returns the sum of the hints' losses; maps of another size than the teacher's are resized to it."""
        tf = load("tensorflow")
        total = tf.constant(0.0)
        for hint, adapter, theirs, ours in zip(self._hints, self._adapters, wanted, features):
            if adapter is not None:
                ours = adapter(ours)
            if ours.shape.rank == 4 and ours.shape[1:3] != theirs.shape[1:3]:
                ours = tf.image.resize(ours, tf.shape(theirs)[1:3])
            total += (attention_loss if hint.attention else hint_loss)(theirs, ours)
        return total


def _features(model: Any, name: str, whose: str) -> Any:
    layers = {layer.name: layer for layer in model.layers}
    layer = next((layers[prefix + name] for prefix in _WRAPPED if prefix + name in layers), None)
    if layer is None:
        raise ConfigError(f"Expected a layer of the {whose}, got {name!r}.{suggestion(name, layers)}")
    output = layer.get_output_at(0)
    if isinstance(output, (list, tuple)):
        raise ConfigError(f"Expected a layer with one output as a hint, got {name!r} with {len(output)}. Try another.")
    return output


def _chosen(features: Any, hint: Hint) -> Any:
    return load("tensorflow").gather(features, hint.channels, axis=-1) if hint.channels else features


def _require_comparable(hint: Hint, ours: Any, theirs: Any) -> None:
    shapes = f"{hint.student} {tuple(ours.shape[1:])} and {hint.teacher} {tuple(theirs.shape[1:])}"
    if len(ours.shape) != len(theirs.shape) or (len(ours.shape) != 4 and ours.shape[1:-1] != theirs.shape[1:-1]):
        raise ConfigError(f"Expected layers whose features can be compared, got {shapes}. Try layers of one rank.")
    if hint.attention and len(ours.shape) < 3:
        raise ConfigError(f"Expected layers with maps or steps to attend to, got {shapes}. Try them as hints.")
