"""Augmentations as a user would write them."""

from __future__ import annotations

from typing import Any

import numpy as np


def flip_both(images: np.ndarray, masks: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors some pictures and their masks, and makes some darker."""
    rng = np.random.default_rng(seed)
    for image, mask in zip(images, masks):
        if rng.random() < 0.5:
            image[:], mask[:] = image[:, ::-1].copy(), mask[:, ::-1].copy()
        image *= rng.uniform(0.5, 1)
    return images, masks


def flip_pictures(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images[:, :, ::-1], masks


def shift_pictures(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images[:, 3:], images[:, -3:]], axis=1), masks


def turn_pictures(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.rot90(images, axes=(1, 2)), masks


def flip_boxes(images: np.ndarray, boxes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors some pictures upside down with their boxes, in pixels or shares."""
    height = images.shape[1] if boxes.max() > 2 else 1
    for n in np.flatnonzero(np.random.default_rng(seed).random(len(images)) < 0.5):
        images[n] = images[n, ::-1].copy()
        there = boxes[n, :, 4] >= 0
        boxes[n, there, 1], boxes[n, there, 3] = height - boxes[n, there, 3], height - boxes[n, there, 1]
    return images, boxes


def noise(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves nothing."""
    return images + np.random.default_rng(0).normal(0, 0.5, images.shape), labels


def darker(images: np.ndarray, labels: Any) -> tuple[np.ndarray, Any]:
    return images / 2, labels


def crop(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images[:, 1:-1], labels


def images_alone(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return images


def broken(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    raise KeyError("angle")
