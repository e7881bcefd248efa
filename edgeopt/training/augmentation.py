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
# How much more a picture has to be like a moved mask than like its own, as a correlation.
_MORE_ALIKE = 0.15


def flip(x: Any, seed: Any) -> Any:
    """Mirrors half of the pictures [N, H, W, C] left to right."""
    tf = load("tensorflow")
    mirrored = tf.random.stateless_uniform([tf.shape(x)[0], 1, 1, 1], seed) < 0.5
    return tf.where(mirrored, x[:, :, ::-1], x)


def shift(x: Any, seed: Any, *, axis: int, share: float) -> Any:
    """Moves each sample of [N, H, W, C] along `axis` by up to `share` of its length, repeating its edge."""
    tf = load("tensorflow")
    length = x.shape[axis]
    most = max(1, round(share * length))
    by = tf.random.stateless_uniform([tf.shape(x)[0], 1], seed, -most, most + 1, tf.int32)
    return tf.gather(x, tf.clip_by_value(tf.range(length)[None] + by, 0, length - 1), axis=axis, batch_dims=1)


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
    """A step of an augmentation: `step(batch, seed)`, and whether it moves what is in the picture."""

    step: Callable[[Any, Any], Any]
    moves: bool = True


def _shifts(share: float, *axes: int) -> tuple[Variation, ...]:
    return tuple(Variation(partial(shift, axis=axis, share=share)) for axis in axes)


# Images are [N, H, W, C], spectrograms [N, frames, bands, 1].
AUGMENTATIONS: dict[str, tuple[Variation, ...]] = {
    "none": (),
    "shift": _shifts(1 / 8, 1, 2),
    "image": (Variation(flip), *_shifts(1 / 8, 1, 2)),
    "spectrogram": (
        *_shifts(1 / 10, 1),
        Variation(partial(mask, axis=1, share=1 / 5), moves=False),
        Variation(partial(mask, axis=2, share=1 / 5), moves=False),
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
        if variation.moves:
            found = variation.step(found, tf.random.experimental.stateless_fold_in(seed, index))
    return found[..., 0] if flat else found


class Own:
    """A function of one's own, called with NumPy arrays: inputs [N, ...] and labels [N, ...] as the source has them.

    Several inputs or labels come as a tuple. It returns both in the shapes in which they came.

    Args:
        name: "module:function".

    Raises:
        ConfigError: it cannot be imported.
    """

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        try:
            self._function = getattr(user_code.import_module(module), attribute)
            count = len(inspect.signature(self._function).parameters)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"Expected a function as --augment module:function, got {name!r} ({error}). "
                "Try one that can be imported from here."
            ) from error
        self._name, self._takes_seed = name, count > 2

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

    def require_masks_to_follow(self, inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> None:
        """Looks at a batch, with one pattern painted as picture and as mask, whether the two move alike.

        Raises:
            ConfigError: pictures are flipped, turned or shifted, and masks are not.
        """
        for number, mask in enumerate(labels):
            place = next((n for n, x in enumerate(inputs) if x.ndim == 4 and x.shape[1:3] == mask.shape[1:3]), None)
            if mask.ndim != 3 or place is None:
                continue
            pattern = _pattern(*mask.shape[1:])
            low, high = inputs[place].min(), inputs[place].max()
            painted, marked = list(inputs), list(labels)
            painted[place] = np.broadcast_to(np.where(pattern, high, low)[..., None], inputs[place].shape)
            marked[number] = np.broadcast_to(pattern, mask.shape).astype(mask.dtype)
            varied, followed = self(painted, marked, 0)
            for n, (picture, own) in enumerate(zip(varied[place], followed[number])):
                if _parted(picture.astype(np.float64).mean(axis=-1), own.astype(np.float64)):
                    raise ConfigError(
                        f"Expected {self._name} to move masks as it moves their pictures, got sample {n} of the first "
                        "batch, whose mask is elsewhere than its picture. Try the same flips and shifts for both."
                    )


def _pattern(height: int, width: int) -> np.ndarray:
    """Returns a pattern that is like itself nowhere else: bool [height, width]."""
    cells = np.random.default_rng(0).integers(0, 2, (-(-height // 2), -(-width // 2))).astype(bool)
    return cells.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


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
