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
from edgeopt.training.augmentation import frame_of, moved_boxes, resolved
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
    words = f"of a detector to augment with image, got labels {shape}, whose places cannot follow"
    with pytest.raises(ConfigError, match=re.escape(words)):
        stream(part, batch_size=8, augment="image", targets=[Target()])
    stream(part, batch_size=8, augment="my_augmentations:noise", targets=[Target()])


@pytest.mark.parametrize("name", ["flip_pictures", "shift_pictures"])
def test_pictures_that_move_alone_are_found_on_the_first_batch(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"my_augmentations:{name} to move masks as it moves their pictures"):
        stream(pictures(), batch_size=8, augment=f"my_augmentations:{name}", targets=[Target()])


# --- boxes -----------------------------------------------------------------------------------------------------------


def boxed(unit: float = SIZE, dtype: type = np.float32) -> Part:
    """Dark pictures, each with a bright rectangle, whose box is told in pixels or shares; no second box."""
    rng = np.random.default_rng(0)
    corner, size = rng.integers(2, 8, (N, 2)), rng.integers(3, 7, (N, 2))
    x, boxes = np.zeros((N, SIZE, SIZE, 3), np.float32), np.full((N, 2, 5), -1, np.float64)
    for n, ((left, top), (wide, high)) in enumerate(zip(corner, size)):
        x[n, top : top + high, left : left + wide] = 1
        boxes[n, 0] = *(np.array([left, top, left + wide, top + high]) * unit / SIZE), n % 3
    return data.load({"x_train": x, "y_train": boxes.astype(dtype), "x_test": x[:2]}, labels="values").training


BOXES = Target(tells="boxes")


@pytest.mark.parametrize("name", ["shift", "image", "my_augmentations:flip_boxes"])
@pytest.mark.parametrize(("unit", "dtype"), [(SIZE, np.float32), (SIZE, np.int64), (1.0, np.float32)])
def test_boxes_move_with_their_pictures(name: str, unit: float, dtype: type) -> None:
    part = boxed(unit, dtype)
    assert can_follow(part, [BOXES])
    found, before = 0, part.arrays().labels[:, 0, :4].tolist()
    for x, (boxes,) in stream(part, batch_size=8, augment=name, targets=[BOXES]).take(3).as_numpy_iterator():
        assert boxes.dtype == dtype
        assert (boxes[:, 1] == -1).all()
        for picture, (x1, y1, x2, y2, kind) in zip(x[..., 0], boxes[:, 0] * ([SIZE / unit] * 4 + [1])):
            edge = np.pad(picture, 1)[1:-1, [0, -1]].any() or picture[[0, -1]].any()
            if kind >= 0 and not edge:  # an edge that is repeated smears what touches it
                rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
                assert (x1, y1, x2, y2) == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
                found += [x1 * unit / SIZE, y1 * unit / SIZE, x2 * unit / SIZE, y2 * unit / SIZE] not in before
    assert found > 3


def test_a_box_that_leaves_the_picture_is_none() -> None:
    boxes = np.array([[[0, 0, 1, 1, 2], [SIZE - 1, 4, SIZE, 6, 1]]], np.float32).repeat(64, axis=0)
    frame = frame_of(boxes, SIZE, SIZE)
    moved = moved_boxes("shift", boxes, np.array([1, 2]), frame).numpy()
    gone = moved[..., 4] < 0
    assert 0 < gone.sum() < gone.size
    assert (moved[~gone][:, :2] < moved[~gone][:, 2:4]).all()
    assert moved[~gone][:, :4].min() >= 0
    assert moved[~gone][:, :4].max() <= SIZE


def test_what_is_no_box_cannot_follow() -> None:
    other = boxed()
    yolo = other.arrays().labels[..., [4, 0, 1, 2, 3]] / 7
    for part, target in ((pictures(yolo), BOXES), (boxed(), Target(tells="values"))):
        assert not can_follow(part, [target])
        with pytest.raises(ConfigError, match=re.escape("or boxes [boxes, 5] (x1, y1, x2, y2, class) of a detector")):
            stream(part, batch_size=8, augment="image", targets=[target])
    where = pictures(np.random.default_rng(0).random((N, 2)))
    assert not can_follow(where, [Target(tells="values")])
    assert can_follow(where, [Target()])


@pytest.mark.parametrize("name", ["flip_pictures", "shift_pictures", "turn_pictures"])
def test_pictures_that_leave_their_boxes_are_found_on_the_first_batch(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"my_augmentations:{name} to move boxes as it moves their pictures"):
        stream(boxed(), batch_size=8, augment=f"my_augmentations:{name}", targets=[BOXES])


def test_noise_and_colours_leave_boxes() -> None:
    for name in ("noise", "darker"):
        stream(boxed(), batch_size=8, augment=f"my_augmentations:{name}", targets=[BOXES])


def test_noise_and_colours_move_nothing() -> None:
    for name in ("noise", "darker"):
        stream(pictures(), batch_size=8, augment=f"my_augmentations:{name}", targets=[Target()])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crop", "to keep the shapes of inputs, (24, 16, 16, 3), got (24, 14, 16, 3). Try resizing or cropping back"),
        ("images_alone", "Expected my_augmentations:images_alone to return inputs and labels, got ndarray"),
        ("broken", "The augmentation my_augmentations:broken failed: KeyError: 'angle'. Try it alone on a batch"),
        ("missing", "Expected an augmentation as module:function, got 'my_augmentations:missing'"),
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
