"""A picture of discs and squares goes in, a map of their centres and sizes comes out: a small CenterNet.

After Zhou et al., "Objects as Points" (arXiv 1904.07850): the centre of a box is a peak in the map of its class, and
its size and the rest of its place are read there. Four pixels a cell; the head has a channel for each class, then
width, height, and the centre's place in its cell. All are shares from 0 to 1, so that the one scale of an int8 output
suits all. `drawn`, `loss` and `boxes` are what data, training and scoring need beside the model:

    edgeopt qat detector.keras -o detector.int8.tflite --data detector:drawn --loss detector:loss \\
        --metric map@detector:boxes
"""

from __future__ import annotations

from typing import Any

import numpy as np
import training

from edgeopt.frameworks import load

SIZE, CELL, CLASSES = 48, 4, 2
CELLS = SIZE // CELL
_MOST_SHAPES, _MOST_FOUND = 3, 8
# Of a Gaussian around each centre, in cells: its neighbours are less wrong than the rest.
_SPREAD = 0.7


def build(
    shape: tuple[int, ...] = (SIZE, SIZE, 1),
    classes: int | None = None,
    *,
    width: float = 1.0,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Any:
    """Returns the untrained Keras 3 model; `width` multiplies the channels.

    Raises:
        ConfigError: `shape` is not that of a picture.
    """
    layers = load("keras").layers
    training.require_image(shape)

    def activated(x: Any, channels: int, strides: int = 1) -> Any:
        x = layers.Conv2D(training.channels(channels, width), 3, strides=strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    inputs = layers.Input(shape)
    x = activated(training.rescaled(inputs, scale, offset), 16, 2)
    fine = activated(x, 24, 2)
    deep = activated(activated(fine, 32, 2), 32)
    x = activated(layers.Concatenate()([layers.UpSampling2D()(deep), fine]), 32)
    # Few cells are centres: a network that begins at "none" is not drowned in those that are not.
    rare = load("keras").initializers.Constant(-2.0)
    head = layers.Conv2D(CLASSES + 4, 1, activation="sigmoid", bias_initializer=rare, name="head")(x)
    return load("keras").Model(inputs, head, name="detector")


def drawn(trained: int = 1200, tested: int = 300) -> dict[str, np.ndarray]:
    """Returns pictures of one to three shapes on noise, uint8, and their boxes.

    Boxes are [N, 3, 5], each x1, y1, x2, y2 in pixels from the upper left corner and the class: 0 a disc, 1 a square,
    -1 where there is none.
    """
    found = {}
    for split, count, seed in (("train", trained, 0), ("test", tested, 1)):
        rng = np.random.default_rng(seed)
        pictures, boxes = zip(*(_picture(rng) for _ in range(count)))
        found |= {f"x_{split}": np.stack(pictures), f"y_{split}": np.stack(boxes)}
    return found


def _picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picture = rng.normal(60, 20, (SIZE, SIZE))
    boxes = np.full((_MOST_SHAPES, 5), -1, np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for number in range(rng.integers(1, _MOST_SHAPES + 1)):
        wide, high = rng.uniform(8, 18, 2)
        left, top = rng.uniform(0, SIZE - wide), rng.uniform(0, SIZE - high)
        kind = int(rng.integers(CLASSES))
        across, down = 2 * (x - left) / wide - 1, 2 * (y - top) / high - 1
        inside = np.hypot(across, down) <= 1 if kind == 0 else np.maximum(abs(across), abs(down)) <= 1
        others = boxes[:number]
        if (
            (others[:, 0] < left + wide) & (others[:, 2] > left) & (others[:, 1] < top + high) & (others[:, 3] > top)
        ).any():
            continue  # what is covered cannot be told
        picture[inside] += rng.uniform(60, 130)
        boxes[number] = left, top, left + wide, top + high, kind
    return picture.clip(0, 255).astype(np.uint8)[..., None], boxes


def loss(labels: Any, outputs: Any) -> Any:
    """Returns the loss of each sample, [N]: the focal loss of the centres, and how far off place and size are.

    Args:
        labels: boxes [N, boxes, 5], as `drawn` gives them.
        outputs: the head [N, CELLS, CELLS, CLASSES + 4].
    """
    tf = load("tensorflow")
    labels = tf.cast(labels, tf.float32)
    there = tf.cast(labels[..., 4] >= 0, tf.float32)
    low, high = labels[..., 0:2], labels[..., 2:4]
    centres = (low + high) / (2 * CELL)
    cells = tf.clip_by_value(tf.floor(centres), 0, CELLS - 1)

    # A Gaussian [N, boxes, y, x] around the cell of each centre; the highest of each class is the target.
    line = tf.range(CELLS, dtype=tf.float32)
    squares = tf.square(line[None, None, None, :] - cells[..., 0, None, None])
    squares += tf.square(line[None, None, :, None] - cells[..., 1, None, None])
    peaks = tf.exp(-squares / (2 * _SPREAD**2)) * there[..., None, None]
    kinds = tf.one_hot(tf.cast(labels[..., 4], tf.int32), CLASSES)
    wanted = tf.reduce_max(peaks[..., None] * kinds[:, :, None, None, :], axis=1)

    heat = tf.clip_by_value(outputs[..., :CLASSES], 1e-4, 1 - 1e-4)
    hit = tf.where(wanted == 1, tf.square(1 - heat) * tf.math.log(heat), 0.0)
    missed = (1 - wanted) ** 4 * tf.square(heat) * tf.math.log(1 - heat)
    count = tf.maximum(tf.reduce_sum(there, axis=1), 1.0)
    centre_loss = -tf.reduce_sum(hit + missed, axis=[1, 2, 3]) / count

    index = tf.cast(cells, tf.int32)
    told = tf.gather_nd(outputs[..., CLASSES:], tf.stack([index[..., 1], index[..., 0]], axis=-1), batch_dims=1)
    off = tf.abs(tf.concat([(high - low) / SIZE, centres - cells], axis=-1) - told) * there[..., None]
    return centre_loss + tf.reduce_sum(off * [5.0, 5.0, 1.0, 1.0], axis=[1, 2]) / count


def boxes(outputs: np.ndarray) -> np.ndarray:
    """Returns the boxes that heads [N, CELLS, CELLS, CLASSES + 4] tell: [N, boxes, 6], x1, y1, x2, y2, score, class.

    A cell is a centre where none of the eight around it has a higher score in its class.
    """
    heat = outputs[..., :CLASSES]
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1), (0, 0)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).max(axis=(-2, -1))
    scores = np.where(heat >= around, heat, 0).reshape(len(heat), -1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_MOST_FOUND]
    rows, columns, kinds = np.unravel_index(best, heat.shape[1:])
    told = outputs[np.arange(len(outputs))[:, None], rows, columns, CLASSES:]
    x, y = (columns + told[..., 2]) * CELL, (rows + told[..., 3]) * CELL
    wide, high = told[..., 0] * SIZE / 2, told[..., 1] * SIZE / 2
    return np.stack([x - wide, y - high, x + wide, y + high, np.take_along_axis(scores, best, axis=1), kinds], axis=-1)


main = training.command(
    build,
    training.Training(epochs=20, batch_size=32, learning_rate=4e-3, label_smoothing=0.0),
    data="detector:drawn",
    aim=training.Aim(labels="values", loss="detector:loss", metric="map@detector:boxes"),
)

if __name__ == "__main__":
    main()
