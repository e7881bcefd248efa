"""A batch of images or spectrograms and a seed go in, the same samples varied come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeopt.frameworks import load


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


# Each step takes a batch and a seed; images are [N, H, W, C], spectrograms [N, frames, bands, 1].
AUGMENTATIONS: dict[str, tuple[Callable[[Any, Any], Any], ...]] = {
    "none": (),
    "shift": (
        lambda x, seed: shift(x, seed, axis=1, share=1 / 8),
        lambda x, seed: shift(x, seed, axis=2, share=1 / 8),
    ),
    "image": (
        flip,
        lambda x, seed: shift(x, seed, axis=1, share=1 / 8),
        lambda x, seed: shift(x, seed, axis=2, share=1 / 8),
    ),
    "spectrogram": (
        lambda x, seed: shift(x, seed, axis=1, share=1 / 10),
        lambda x, seed: mask(x, seed, axis=1, share=1 / 5),
        lambda x, seed: mask(x, seed, axis=2, share=1 / 5),
    ),
}


def augmented(name: str, x: Any, seed: Any) -> Any:
    """Returns the batch `x` varied by AUGMENTATIONS[name]; `seed` is int64 [2], the same one gives the same batch."""
    tf = load("tensorflow")
    for index, step in enumerate(AUGMENTATIONS[name]):
        x = step(x, tf.random.experimental.stateless_fold_in(seed, index))
    return x
