"""A part of the data goes in; an endless tf.data stream of shuffled, augmented (inputs, targets) comes out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeopt.chance import seed_for
from edgeopt.errors import ConfigError, setting
from edgeopt.frameworks import load
from edgeopt.training.augmentation import AUGMENTATIONS, Frame, Own, augmented, frame_of, moved, moved_boxes

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.vocabulary import Batch

# Larger parts are read anew each epoch.
HOLD_BYTES = 2**29
# Samples that a function of one's own is tried on.
_TRIED = 32
_ORDER, _VARIATION = "order of training samples", "augmentation"


def _as_they_are(values: Any) -> Any:
    return values


@dataclass(frozen=True)
class Target:
    """What one output is trained to give.

    Attributes:
        output: its name, where several have labels.
        read: makes what is kept of raw labels [N, ...].
        spread: makes what a loss takes of it, a tensor of a tensor.
        given_back: number of the input that is the target itself, as it was augmented; None where labels are.
        tells: "classes"; "values", which may be of places; "boxes", see `augmentation.frame_of`.
    """

    output: str = ""
    read: Callable[[np.ndarray], np.ndarray] = _as_they_are
    spread: Callable[[Any], Any] = _as_they_are
    given_back: int | None = None
    tells: Literal["classes", "values", "boxes"] = "classes"

    def of(self, batch: Batch) -> np.ndarray:
        """Returns what is kept of a batch's labels.

        Raises:
            DataError: a label is none that the output can be trained on.
        """
        labels = batch.of_output(self.output).labels
        assert labels is not None  # who has a target has labels
        return self.read(labels)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Returns how many whole batches an epoch has, at least one: what is left over is there in another epoch."""
    return max(1, samples // batch_size)


def fits_memory(part: Part, beside: Sequence[tuple[int | None, ...]] = ()) -> bool:
    """Whether all samples of the part may be held at once, and tensors of the shapes `beside` for each of them."""
    shapes = [*(spec.shape for spec in part.specs), *beside]
    if any(None in shape for shape in shapes):
        return False
    return 4 * len(part) * sum(math.prod(size or 1 for size in shape) for shape in shapes) <= HOLD_BYTES


def stream(
    part: Part,
    *,
    batch_size: int,
    augment: str = "none",
    seed: int = 0,
    first_epoch: int = 0,
    beside: Sequence[np.ndarray] = (),
    targets: Sequence[Target] = (),
) -> Any:
    """Returns an endless tf.data.Dataset of (inputs, targets), in another order and augmented anew each epoch.

    Args:
        part: bound to the model's inputs.
        batch_size: samples a batch; all of them where there are fewer.
        augment: key of AUGMENTATIONS, done to every input of rank 4 and to labels that have its pixels; or
            "module:function", see `augmentation.Own`.
        seed: of order and augmentation.
        first_epoch: where to go on, as if the epochs before had been drawn.
        beside: arrays [N, ...] of targets beside the labels, in the part's order; only where the part fits memory.
        targets: what is made of labels.

    Returns:
        inputs: one tensor, or a tuple in the order of `part.specs`. targets: (*targets, *beside), and the weights of
        samples where they have some.

    Raises:
        ConfigError: labels cannot follow what is varied, or a function of one's own does not do as it should.
        DataError: see `Target.of`.
    """
    tf = load("tensorflow")
    size = min(batch_size, len(part))
    read = [target for target in targets if target.given_back is None]

    vary = _varying(augment, part, read)

    def prepared(draw: Any, inputs: tuple[Any, ...], kept: tuple[Any, ...]) -> tuple[Any, Any]:
        whole = tuple(tf.ensure_shape(x, [None, *spec.shape]) for x, spec in zip(inputs, part.specs))
        varied, followed = vary(draw, whole, kept[: len(read)])
        labels = iter(followed)
        # What is reconstructed is what came in, augmented as it was.
        wanted = [t.spread(next(labels) if t.given_back is None else varied[t.given_back]) for t in targets]
        return _alone(tuple(varied)), (*wanted, *kept[len(read) :])

    if fits_memory(part, [values.shape[1:] for values in beside]):
        found = _held(part, size, seed, first_epoch, beside, read, prepared)
    else:
        assert not beside
        found = _read(part, size, seed, first_epoch, read, prepared)
    return found.prefetch(tf.data.AUTOTUNE)


def can_follow(part: Part, targets: Sequence[Target]) -> bool:
    """Whether labels surely stay true when pictures are flipped or shifted: they can follow, or are of no place.

    Values of a sample may be: where something is in it, or which way it turns.
    """
    first = _first(part)
    read = [target for target in targets if target.given_back is None]
    places = [(target.tells, _places(target, target.of(first), part)) for target in read]
    return all(where != "others" and (tells, where) != ("values", "none") for tells, where in places)


def _first(part: Part) -> Batch:
    return next(part.batches(min(_TRIED, len(part))))


def _places(target: Target, labels: np.ndarray, part: Part) -> str | Frame:
    """Returns what labels [N, ...] are said of: "none" (the sample), "pixels" of an input, a frame, or "others"."""
    if labels.ndim < 3 and not (labels.ndim == 2 and labels.dtype.kind in "iu"):
        return "none"
    pictures = [spec.shape for spec in part.specs if len(spec.shape) == 3]
    if labels.ndim > 2 and labels.shape[1:3] in [shape[:2] for shape in pictures]:
        return "pixels"
    if target.tells == "boxes" and len(pictures) == 1:
        rows, columns, _ = pictures[0]
        return frame_of(labels, rows, columns) or "others" if rows and columns else "others"
    return "others"


def _varying(augment: str, part: Part, read: Sequence[Target]) -> Callable[[Any, Sequence[Any], Sequence[Any]], Any]:
    """Returns what makes varied inputs and labels of a seed, inputs and labels."""
    tf = load("tensorflow")
    first = _first(part)
    labels = [target.of(first) for target in read]
    places = [_places(target, array, part) for target, array in zip(read, labels)]
    if ":" in augment:
        own = Own(augment)
        inputs = [first.inputs[spec.name] for spec in part.specs]
        own(inputs, labels, 0)
        own.require_labels_to_follow(inputs, labels, [where if isinstance(where, Frame) else None for where in places])
        count = len(inputs)

        def vary_in_python(draw: Any, inputs: Sequence[Any], kept: Sequence[Any]) -> Any:
            def called(draw: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
                varied, followed = own(arrays[:count], arrays[count:], int(draw[1]))
                return [*varied, *followed]

            found = tf.numpy_function(called, [draw, *inputs, *kept], [x.dtype for x in (*inputs, *kept)])
            shaped = [tf.ensure_shape(y, x.shape) for x, y in zip((*inputs, *kept), found)]
            return shaped[:count], shaped[count:]

        return vary_in_python
    if "others" in places and any(variation.follow for variation in AUGMENTATIONS[augment]):
        shapes = ", ".join(str(array.shape[1:]) for array in labels)
        raise ConfigError(
            f"Expected labels of samples, of each pixel, or boxes [boxes, 5] (x1, y1, x2, y2, class) of a detector to "
            f"augment with {augment}, got labels {shapes}, whose places "
            f"cannot follow. Try {setting('augment', 'none')}, or a function of your own that moves both."
        )

    def follow(labels: Any, where: str | Frame, draw: Any) -> Any:
        if isinstance(where, Frame):
            return moved_boxes(augment, labels, draw, where)
        return moved(augment, labels, draw) if where == "pixels" else labels

    def vary(draw: Any, inputs: Sequence[Any], kept: Sequence[Any]) -> Any:
        varied = [augmented(augment, x, draw) if x.shape.rank == 4 else x for x in inputs]
        return varied, [follow(labels, where, draw) for labels, where in zip(kept, places)]

    return vary


def _held(
    part: Part,
    size: int,
    seed: int,
    first_epoch: int,
    beside: Sequence[np.ndarray],
    read: Sequence[Target],
    prepared: Any,
) -> Any:
    """Returns what `prepared` makes of batches gathered from arrays: no Python works on them."""
    tf = load("tensorflow")
    everything = part.arrays()
    count, steps = len(part), steps_per_epoch(len(part), size)
    with tf.device("CPU"):
        inputs = [tf.constant(everything.inputs[spec.name]) for spec in part.specs]
        weights = () if everything.weights is None else (everything.weights,)
        kept = [tf.constant(values) for values in (*(target.of(everything) for target in read), *beside, *weights)]

    of_order, of_variation = seed_for(seed, _ORDER), seed_for(seed, _VARIATION)

    def epoch_of(epoch: Any) -> Any:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.stack([of_order, epoch]))
        draws = tf.stack(
            [tf.fill([steps], tf.cast(of_variation, tf.int64)), epoch * count + tf.range(steps, dtype=tf.int64)], 1
        )
        return tf.data.Dataset.from_tensor_slices((draws, tf.reshape(order[: steps * size], [steps, size])))

    def gathered(draw: Any, rows: Any) -> tuple[Any, Any]:
        return prepared(draw, tuple(tf.gather(x, rows) for x in inputs), tuple(tf.gather(y, rows) for y in kept))

    epochs = tf.data.Dataset.counter(start=first_epoch).flat_map(epoch_of)
    return epochs.map(gathered, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _read(part: Part, size: int, seed: int, first_epoch: int, read: Sequence[Target], prepared: Any) -> Any:
    """Returns what `prepared` makes of batches read one by one."""
    tf = load("tensorflow")

    def batches() -> Iterator[Any]:
        for epoch in itertools.count(first_epoch):
            order = seed_for(seed, _ORDER, epoch)
            for step, batch in enumerate(part.batches(size, shuffle=True, seed=order, drop_remainder=True)):
                draw = np.asarray((seed_for(seed, _VARIATION), epoch * len(part) + step), np.int64)
                inputs = tuple(batch.inputs[spec.name] for spec in part.specs)
                yield draw, inputs, kept_of(batch)

    def kept_of(batch: Batch) -> tuple[np.ndarray, ...]:
        weights = () if batch.weights is None else (batch.weights,)
        return (*(target.of(batch) for target in read), *weights)

    first = next(part.batches(1))
    signature = (
        tf.TensorSpec([2], tf.int64),
        tuple(tf.TensorSpec([None, *spec.shape], first.inputs[spec.name].dtype) for spec in part.specs),
        tuple(tf.TensorSpec([None, *kept.shape[1:]], kept.dtype) for kept in kept_of(first)),
    )
    found = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return found.map(prepared, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _alone(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values
