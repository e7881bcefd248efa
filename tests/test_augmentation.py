"""Samples that are varied in training: masks move with their pictures, and a function of one's own is tried first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeopt import data
from edgeopt.data import Part
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.steps import DEFAULTS
from edgeopt.training import fit
from edgeopt.training.augmentation import resolved
from edgeopt.training.stream import Target, can_follow, stream
from edgeopt.vocabulary import TensorSpec

N, SIZE = 24, 16


def pictures(labels: np.ndarray | None = None) -> Part:
    """Pictures that are their own masks, in three colours."""
    masks = np.random.default_rng(0).integers(0, 3, (N, SIZE, SIZE))
    x = np.repeat(masks[..., None], 3, axis=-1).astype(np.float32)
    return data.load({"x_train": x, "y_train": masks if labels is None else labels, "x_test": x[:2]}).training


@pytest.mark.parametrize("name", ["shift", "image", "my_augmentations:flip_both"])
def test_masks_move_with_their_pictures(name: str) -> None:
    part = pictures()
    moved = 0
    for inputs, (masks,) in stream(part, batch_size=8, augment=name, targets=[Target()]).take(3).as_numpy_iterator():
        darker = inputs[..., 0].max(axis=(1, 2), keepdims=True) / 2  # one's own function changes colours too
        np.testing.assert_allclose(inputs[..., 0] / darker, masks, atol=1e-5)
        moved += sum(not any(np.array_equal(mask, one) for one in part.arrays().labels) for mask in masks)
    assert moved > 3
    again = [next(iter(stream(part, batch_size=8, augment=name, targets=[Target()]).as_numpy_iterator())) for _ in "ab"]
    np.testing.assert_array_equal(again[0][0], again[1][0])


def test_one_hot_masks_move_too_and_class_numbers_stay() -> None:
    masks = np.eye(3, dtype=np.float32)[pictures().arrays().labels]
    for inputs, (found,) in stream(pictures(masks), batch_size=8, augment="image", targets=[Target()]).take(1):
        np.testing.assert_array_equal(np.argmax(found, axis=-1), inputs[..., 0])
    numbers = np.arange(N)
    drawn = [
        labels for _, (labels,) in stream(pictures(numbers), batch_size=8, augment="image", targets=[Target()]).take(3)
    ]
    assert sorted(np.concatenate(drawn)) == numbers.tolist()


@pytest.mark.parametrize("shape", [(SIZE // 2, SIZE // 2), (SIZE,)])
def test_labels_of_other_places_cannot_follow(shape: tuple[int, ...]) -> None:
    part = pictures(np.zeros((N, *shape), np.int64))
    assert not can_follow(part, [Target()])
    words = f"of each pixel to augment with image, got labels {shape}, whose places cannot follow"
    with pytest.raises(ConfigError, match=re.escape(words)):
        stream(part, batch_size=8, augment="image", targets=[Target()])
    stream(part, batch_size=8, augment="my_augmentations:noise", targets=[Target()])


@pytest.mark.parametrize("name", ["flip_pictures", "shift_pictures"])
def test_pictures_that_move_alone_are_found_on_the_first_batch(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"my_augmentations:{name} to move masks as it moves their pictures"):
        stream(pictures(), batch_size=8, augment=f"my_augmentations:{name}", targets=[Target()])


def test_noise_and_colours_move_nothing() -> None:
    for name in ("noise", "darker"):
        stream(pictures(), batch_size=8, augment=f"my_augmentations:{name}", targets=[Target()])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crop", "to keep the shapes of inputs, (24, 16, 16, 3), got (24, 14, 16, 3). Try resizing or cropping back"),
        ("images_alone", "Expected my_augmentations:images_alone to return inputs and labels, got ndarray"),
        ("broken", "The augmentation my_augmentations:broken failed: KeyError: 'angle'. Try it alone on a batch"),
        ("missing", "Expected a function as --augment module:function, got 'my_augmentations:missing'"),
    ],
)
def test_functions_that_do_not_do(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        stream(pictures(), batch_size=8, augment=f"my_augmentations:{name}", targets=[Target()])


@pytest.mark.parametrize(
    ("shape", "taught", "expected"),
    [
        ((32, 32, 3), True, "image"),
        ((32, 32, 3), False, "none"),
        ((49, 10, 1), True, "none"),
        ((28, 28, 1), True, "none"),
        ((6,), True, "none"),
        ((None, None, 3), True, "none"),
    ],
)
def test_a_teacher_s_targets_are_worth_varying_samples(
    shape: tuple[int | None, ...], taught: bool, expected: str
) -> None:
    assert resolved("auto", [TensorSpec("x", shape)], taught=taught) == expected


def test_augmentations_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="Expected auto, none, shift, image, spectrogram or module:function as"):
        resolved("flips", [TensorSpec("x", (8, 8, 3))], taught=False)


def test_training_says_how_samples_were_varied(tmp_path: Path) -> None:
    keras = load("tf_keras")
    x = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
    dataset = data.load({"x_train": x, "y_train": np.arange(32) % 4, "x_test": x})
    models = [
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")])
        for _ in "ab"
    ]
    quick = replace(DEFAULTS, epochs=1, batch_size=16)
    assert quick.augment == "auto"
    done = fit(models[0], dataset, quick, teachers=[models[1]], folder=tmp_path / "a")
    assert "samples varied as image, since a teacher answers for them" in done.notes
    alone = fit(models[0], dataset, replace(quick, augment="my_augmentations:darker"), folder=tmp_path / "b")
    assert not any("varied" in note for note in alone.notes)
