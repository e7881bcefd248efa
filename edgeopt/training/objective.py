"""A model and labels go in; what training minimizes comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.errors import DataError, setting
from edgeopt.frameworks import load

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.steps import Training


@dataclass(frozen=True)
class Objective:
    """What is learned from labels.

    Attributes:
        kind: "classes" (softmax over several), "binary" (one sigmoid output) or "values".
        loss: a tf_keras loss of labels and outputs.
        metrics: what is told of each epoch beside the loss.
        one_hot: number of classes that labels are spread to; None where they stay as they are.
    """

    kind: str
    loss: Any
    metrics: tuple[str, ...]
    one_hot: int | None = None

    def mean(self, labels: Any, outputs: Any) -> Any:
        """Returns the mean loss of a batch, a scalar, also where a replica of several computes it."""
        return load("tensorflow").reduce_mean(self.loss.call(labels, outputs))

    def each(self, labels: Any, outputs: Any) -> Any:
        """Returns the loss of each sample of a batch, [N]."""
        return each_mean(self.loss.call(labels, outputs))


def each_mean(values: Any) -> Any:
    """Returns the mean of each sample's values [N, ...]: [N]."""
    tf = load("tensorflow")
    return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)


def objective(model: Any, part: Part, training: Training, *, taught: bool) -> Objective | None:
    """Returns what `model` learns from the labels of `part`, or None where the teacher has all the weight.

    Args:
        model: a tf_keras model.
        part: bound to its inputs.
        training: for alpha and label smoothing.
        taught: whether there is a teacher.

    Raises:
        DataError: labels are missing, or do not fit the model's output.
    """
    keras = load("tf_keras")
    outputs = len(model.outputs)
    if taught and training.alpha == 1.0:
        return None
    way_out = f"{'' if taught else 'a teacher, and '}{setting('alpha', 1)}"
    if not part.has_labels:
        raise DataError(
            "Expected labels to train on, got samples without. "
            f"Try data with y_train, or {way_out}: then the model learns from its teacher alone."
        )
    if outputs != 1:
        raise DataError(
            f"Expected a model with one output to train on labels, got {outputs}. "
            f"Try {way_out}: then the model learns every output from its teacher."
        )
    shape = tuple(model.outputs[0].shape[1:])
    if part.classes is None:
        _require_values(part, shape)
        return Objective("values", keras.losses.MeanSquaredError(), ())
    smoothing = training.label_smoothing or 0.0
    if len(shape) == 1 and shape[0] == 1 and part.classes <= 2:
        loss = keras.losses.BinaryCrossentropy(from_logits=_gives_signs(model, part), label_smoothing=smoothing)
        return Objective("binary", loss, ("binary_accuracy",) if not loss.from_logits else ())
    if len(shape) != 1 or shape[0] is None or shape[0] < part.classes:
        raise DataError(
            f"Expected an output for each of {part.classes} classes, got a model with {_sizes(shape)}. "
            "Try data with the model's own classes."
        )
    logits = not gives_probabilities(model, part)
    loss = keras.losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=smoothing)
    return Objective("classes", loss, ("accuracy",), one_hot=shape[0])


def gives_probabilities(model: Any, part: Part, index: int = 0) -> bool:
    """Whether the rows of one of the model's outputs are distributions, as some real samples show."""
    outputs = some_outputs(model, part)[index]
    if outputs.shape[-1] == 1:
        return False
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1, atol=1e-3))


def some_outputs(model: Any, part: Part) -> list[np.ndarray]:
    """Returns the outputs of a model for the first samples of a part that is bound to its inputs."""
    batch = next(part.batches(min(32, len(part))))
    inputs = [batch.inputs[spec.name] for spec in part.specs]
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(output) for output in (result if isinstance(result, (list, tuple)) else [result])]


def _gives_signs(model: Any, part: Part) -> bool:
    (outputs,) = some_outputs(model, part)
    return bool((outputs < 0).any() or (outputs > 1).any())


def _require_values(part: Part, shape: tuple[int | None, ...]) -> None:
    labels = next(part.batches(1)).labels
    assert labels is not None
    found = labels.shape[1:]
    alike = [found, (*found, 1), found[:-1] if found and found[-1] == 1 else found]
    if not any(len(s) == len(shape) and all(w in (None, g) for g, w in zip(s, shape)) for s in alike):
        raise DataError(
            f"Expected values of the shape of the model's output, {_sizes(shape)}, got {_sizes(found)}. "
            "Try labels made for this model."
        )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if size is None else str(size) for size in shape) or "1"
