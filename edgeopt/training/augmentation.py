"""A batch of images or spectrograms, their labels and a seed go in, the same samples varied come out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeopt import user_code
from edgeopt.errors import ConfigError, setting, suggestion
from edgeopt.frameworks import load
from edgeopt.vocabulary import TensorSpec

AUTO = "auto"
_COLOURS = 3
# Numbers that tell a box.
_BOX = 5
# How much more a picture has to be like a moved mask than like its own, as a correlation.
_MORE_ALIKE = 0.15
# x1, y1, x2, y2 of the box that is painted, as shares: no flip or turn leaves it where it is.
_PAINTED = (0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True)
class Frame:
    """What boxes are told in: a picture's pixels, and how wide and high that is to them (1 where they are shares)."""

    rows: int
    columns: int
    height: float
    width: float


def frame_of(boxes: np.ndarray, rows: int, columns: int) -> Frame | None:
    """Returns what boxes [N, boxes, 5], each x1, y1, x2, y2, class, are told in: pixels, or shares where none is more.

    None where they are no such boxes: class numbers from -1, no corner before the other or outside the picture.

    Args:
        rows, columns: of the picture.
    """
    if boxes.ndim != 3 or boxes.shape[2] != _BOX or boxes.dtype.kind not in "iuf":
        return None
    kinds = boxes[..., 4]
    there = boxes[kinds >= 0]
    share = not len(there) or there[:, :4].max() <= 1
    frame = Frame(rows, columns, *((1.0, 1.0) if share else (float(rows), float(columns))))
    sound = (kinds == np.rint(kinds)).all() and kinds.min(initial=-1) >= -1
    sound &= (there[:, :2] <= there[:, 2:4]).all()
    edges = np.array([frame.width, frame.height] * 2)
    # A box may reach over the edge of what is seen of its thing.
    sound &= (there[:, :4] >= -0.5 * edges).all() and (there[:, :4] <= 1.5 * edges).all()
    return frame if sound else None


def flip(x: Any, seed: Any) -> Any:
    """Mirrors half of the pictures [N, H, W, C] left to right."""
    tf = load("tensorflow")
    return tf.where(_mirrored(x, seed)[:, None, None, None], x[:, :, ::-1], x)


def flip_boxes(boxes: Any, seed: Any, frame: Frame) -> Any:
    """Mirrors boxes [N, boxes, 5] as `flip` does their pictures."""
    tf = load("tensorflow")
    x1, y1, x2, y2, kind = tf.unstack(boxes, axis=-1)
    other = tf.stack([frame.width - x2, y1, frame.width - x1, y2, kind], axis=-1)
    return tf.where(_mirrored(boxes, seed)[:, None, None], other, boxes)


def shift(x: Any, seed: Any, *, axis: int, share: float) -> Any:
    """Moves each sample of [N, H, W, C] along `axis` by up to `share` of its length, repeating its edge."""
    tf = load("tensorflow")
    length = x.shape[axis]
    by = _steps(x, seed, length, share)[:, None]
    return tf.gather(x, tf.clip_by_value(tf.range(length)[None] + by, 0, length - 1), axis=axis, batch_dims=1)


def shift_boxes(boxes: Any, seed: Any, frame: Frame, *, axis: int, share: float) -> Any:
    """Moves boxes [N, boxes, 5] as `shift` does their pictures; one of which nothing is left in it has class -1."""
    tf = load("tensorflow")
    length, size = ((frame.rows, frame.height), (frame.columns, frame.width))[axis - 1]
    by = tf.cast(_steps(boxes, seed, length, share), boxes.dtype)[:, None] * (size / length)
    x1, y1, x2, y2, kind = tf.unstack(boxes, axis=-1)
    low, high = (tf.clip_by_value(edge - by, 0, size) for edge in ((y1, y2) if axis == 1 else (x1, x2)))
    kind = tf.where(high > low, kind, -1)
    return tf.stack([x1, low, x2, high, kind] if axis == 1 else [low, y1, high, y2, kind], axis=-1)


def _mirrored(batch: Any, seed: Any) -> Any:
    """Returns which samples are mirrored, bool [N]."""
    tf = load("tensorflow")
    return tf.random.stateless_uniform([tf.shape(batch)[0]], seed) < 0.5


def _steps(batch: Any, seed: Any, length: int, share: float) -> Any:
    """Returns by how many pixels each sample is moved towards the beginning, int32 [N]."""
    tf = load("tensorflow")
    most = max(1, round(share * length))
    return tf.random.stateless_uniform([tf.shape(batch)[0]], seed, -most, most + 1, tf.int32)


def mask(x: Any, seed: Any, *, axis: int, share: float) -> Any:
    """Replaces a stripe of [N, H, W, C] across `axis`, up to `share` of its length wide, by the sample's mean.

    The masking of SpecAugment, Park et al. 2019 (arXiv 1904.08779).
    """
    tf = load("tensorflow")
    length = x.shape[axis]
    start, width = tf.unstack(tf.random.stateless_uniform([2, tf.shape(x)[0], 1], seed))
    width *= share * length
    start *= length - width
    position = tf.range(length, dtype=tf.float32)[None]
    inside = (position >= start) & (position < start + width)
    inside = tf.reshape(inside, [-1, *(length if i == axis else 1 for i in (1, 2, 3))])
    return tf.where(inside, tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True), x)


@dataclass(frozen=True)
class Variation:
    """A step of an augmentation: `step(batch, seed)`, and `follow(boxes, seed, frame)` where it moves what is seen."""

    step: Callable[[Any, Any], Any]
    follow: Callable[[Any, Any, Frame], Any] | None = None


def _shifts(share: float, *axes: int) -> tuple[Variation, ...]:
    both = ((partial(how, axis=axis, share=share) for how in (shift, shift_boxes)) for axis in axes)
    return tuple(Variation(*each) for each in both)


# Images are [N, H, W, C], spectrograms [N, frames, bands, 1].
AUGMENTATIONS: dict[str, tuple[Variation, ...]] = {
    "none": (),
    "shift": _shifts(1 / 8, 1, 2),
    "image": (Variation(flip, flip_boxes), *_shifts(1 / 8, 1, 2)),
    "spectrogram": (
        *_shifts(1 / 10, 1),
        Variation(partial(mask, axis=1, share=1 / 5)),
        Variation(partial(mask, axis=2, share=1 / 5)),
    ),
}


def resolved(name: str, specs: Sequence[TensorSpec], *, taught: bool) -> str:
    """Returns which augmentation is meant.

    "auto" is "image" where a teacher answers for the varied samples too and these are pictures in colour. One channel
    may be anything; of spectrograms it was measured that a short recovery loses by it.

    Args:
        name: key of AUGMENTATIONS, "auto" or "module:function".
        specs: the model's inputs, without a batch dimension.

    Raises:
        ConfigError: there is no such augmentation, or nothing to augment.
    """
    pictures = [spec.shape for spec in specs if len(spec.shape) == 3]
    if name == AUTO:
        in_colour = len(pictures) == len(specs) == 1 and pictures[0][2] == _COLOURS and None not in pictures[0]
        return "image" if taught and in_colour else "none"
    if ":" in name:
        return name
    if name not in AUGMENTATIONS:
        raise ConfigError(
            f"Expected auto, {', '.join(AUGMENTATIONS)} or module:function as --augment, got {name!r}."
            f"{suggestion(name, [AUTO, *AUGMENTATIONS])}"
        )
    if name != "none" and not pictures:
        shapes = ", ".join(str(spec.shape) for spec in specs)
        raise ConfigError(
            f"Expected images or spectrograms to augment, got samples {shapes}. Try {setting('augment', 'none')}."
        )
    return name


def augmented(name: str, x: Any, seed: Any) -> Any:
    """Returns the batch `x` varied by AUGMENTATIONS[name]; `seed` is int64 [2], the same one gives the same batch."""
    tf = load("tensorflow")
    for index, variation in enumerate(AUGMENTATIONS[name]):
        x = variation.step(x, tf.random.experimental.stateless_fold_in(seed, index))
    return x


def moved(name: str, labels: Any, seed: Any) -> Any:
    """Returns labels of positions [N, H, W] or [N, H, W, C] moved as `augmented` moves their pictures."""
    tf = load("tensorflow")
    flat = labels.shape.rank == 3
    found = labels[..., None] if flat else labels
    for index, variation in enumerate(AUGMENTATIONS[name]):
        if variation.follow is not None:
            found = variation.step(found, tf.random.experimental.stateless_fold_in(seed, index))
    return found[..., 0] if flat else found


def moved_boxes(name: str, boxes: Any, seed: Any, frame: Frame) -> Any:
    """Returns boxes [N, boxes, 5] moved as `augmented` moves their pictures; those of class -1 stay as they are."""
    tf = load("tensorflow")
    found = tf.cast(boxes, tf.float32)
    for index, variation in enumerate(AUGMENTATIONS[name]):
        if variation.follow is not None:
            found = variation.follow(found, tf.random.experimental.stateless_fold_in(seed, index), frame)
    return tf.where(boxes[..., 4:] >= 0, tf.cast(found, boxes.dtype), boxes)


class Own:
    """A function of one's own, called with NumPy arrays: inputs [N, ...] and labels [N, ...] as the source has them.

    Several inputs or labels come as a tuple. It returns both in the shapes in which they came.

    Args:
        name: "module:function".

    Raises:
        ConfigError: it cannot be imported.
    """

    def __init__(self, name: str) -> None:
        self._name, self._function = name, user_code.load_function(name, "an augmentation")
        self._takes_seed = len(inspect.signature(self._function).parameters) > 2

    def __call__(
        self, inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], seed: int
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the varied inputs and labels of a batch.

        Raises:
            ConfigError: the function fails, or changes a shape.
        """
        given = [_alone([array.copy() for array in each]) for each in (inputs, labels)]
        try:
            found = self._function(*given, *((seed,) if self._takes_seed else ()))
            pair = isinstance(found, (tuple, list)) and len(found) == 2
            results = [_listed(each, len(arrays)) for each, arrays in zip(found, (inputs, labels))] if pair else None
        except (Exception, SystemExit) as error:  # sys.exit would end the worker without a word
            raise ConfigError(
                f"The augmentation {self._name} failed: {type(error).__name__}: {error}. Try it alone on a batch."
            ) from error
        if results is None:
            raise ConfigError(
                f"Expected {self._name} to return inputs and labels, got {type(found).__name__}. "
                "Try return images, labels."
            )
        for what, before, after in zip(("inputs", "labels"), (inputs, labels), results):
            if (had := [array.shape for array in before]) != (has := [array.shape for array in after]):
                raise ConfigError(
                    f"Expected {self._name} to keep the shapes of {what}, {_shown(had)}, got {_shown(has)}. "
                    "Try resizing or cropping back to what came in."
                )
        varied, followed = (
            [array.astype(had.dtype) for array, had in zip(after, before)]
            for before, after in zip((inputs, labels), results)
        )
        return varied, followed

    def require_labels_to_follow(
        self,
        inputs: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        frames: Sequence[Frame | None],
    ) -> None:
        """Looks at a batch, with one pattern painted as picture and as label, whether the two move alike.

        Args:
            frames: for each of the labels what it is told in, if it is boxes.

        Raises:
            ConfigError: pictures are flipped, turned or shifted, and their masks or boxes are not.
        """
        for number, (label, frame) in enumerate(zip(labels, frames)):
            size = label.shape[1:] if frame is None else (frame.rows, frame.columns)
            place = next((n for n, x in enumerate(inputs) if x.ndim == 4 and x.shape[1:3] == size), None)
            if len(size) != 2 or place is None:
                continue
            if frame is None:
                pattern = _pattern(*size)
                marks = np.broadcast_to(pattern, label.shape)
            else:
                marks = np.full_like(label, -1)
                marks[:, 0] = [*np.multiply(_PAINTED, [frame.width, frame.height] * 2), 0]
                pattern = _filled(marks[0], frame)
            low, high = inputs[place].min(), inputs[place].max()
            painted, marked = list(inputs), list(labels)
            painted[place] = np.broadcast_to(np.where(pattern, high, low)[..., None], inputs[place].shape)
            marked[number] = marks.astype(label.dtype)
            varied, followed = self(painted, marked, 0)
            what, theirs = ("masks", "mask is") if frame is None else ("boxes", "boxes are")
            for n, (picture, own) in enumerate(zip(varied[place], followed[number])):
                where = own if frame is None else _filled(own, frame)
                if _parted(picture.astype(np.float64).mean(axis=-1), where.astype(np.float64)):
                    raise ConfigError(
                        f"Expected {self._name} to move {what} as it moves their pictures, got sample {n} of the first "
                        f"batch, whose {theirs} elsewhere than its picture. Try the same flips and shifts for both."
                    )


def _pattern(height: int, width: int) -> np.ndarray:
    """Returns a pattern that is like itself nowhere else: bool [height, width]."""
    cells = np.random.default_rng(0).integers(0, 2, (-(-height // 2), -(-width // 2))).astype(bool)
    return cells.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


def _filled(boxes: np.ndarray, frame: Frame) -> np.ndarray:
    """Returns which pixels lie in one of the boxes [boxes, 5] that are there, bool [rows, columns]."""
    y = (np.arange(frame.rows) + 0.5)[:, None] * frame.height / frame.rows
    x = (np.arange(frame.columns) + 0.5)[None] * frame.width / frame.columns
    inside = np.zeros((frame.rows, frame.columns), bool)
    for x1, y1, x2, y2, kind in boxes:
        inside |= (kind >= 0) & (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
    return inside


def _parted(picture: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a picture is more like its mask flipped, turned or shifted than like its mask.

    Noise and other colours make it less like all of them, by the same share.
    """
    ways = [mask, mask[:, ::-1], mask[::-1], mask[::-1, ::-1]]
    ways += [way.T for way in ways] if mask.shape[0] == mask.shape[1] else []
    spectrum = np.fft.fft2(_unit(picture))
    likeness = [np.fft.ifft2(spectrum * np.conj(np.fft.fft2(_unit(way)))).real for way in ways]
    return bool(max(found.max() for found in likeness) > likeness[0][0, 0] + _MORE_ALIKE)


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 0 else centred


def _alone(arrays: list[np.ndarray]) -> Any:
    return None if not arrays else arrays[0] if len(arrays) == 1 else tuple(arrays)


def _listed(found: Any, count: int) -> list[np.ndarray]:
    if count == 0:
        return []
    return [np.asarray(found)] if count == 1 else [np.asarray(each) for each in found]


def _shown(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
