"""Boxes that a model finds and boxes that are there go in; their matches, and the mean average precision, come out.

As COCO counts it (Lin et al. 2014, arXiv 1405.0312; `COCOeval` of pycocotools): a box is found where it overlaps one of
its class that no better box has found, at ten overlaps from 0.50 to 0.95; precision is read at 101 recalls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeopt import user_code
from edgeopt.errors import ConfigError, DataError
from edgeopt.metrics.contract import Metric, Rows
from edgeopt.metrics.heads import by_name
from edgeopt.metrics.reading import required
from edgeopt.vocabulary import Batch, Breakdown

OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
# The best of each sample; COCO's limit too.
_MOST_BOXES = 100
_RESAMPLES = 100
_NONE = -1
_FOUND = "boxes [N, boxes, 6], each x1, y1, x2, y2, score, class"
_THERE = "boxes [N, boxes, 5], each x1, y1, x2, y2, class, with class -1 where there is none"


def mean_average_precision(name: str) -> Metric:
    """Returns the metric "map", or "map@module:function", which decodes the model's outputs first.

    The function is called with the outputs of some samples [N, ...], of a model with several outputs with a dict of
    them, and returns `boxes [N, boxes, 6]`.

    Raises:
        ConfigError: the function cannot be imported.
    """
    _, _, function = name.partition("@")
    decode = user_code.load_function(function, "a metric") if function else None

    def per_sample(outputs: np.ndarray, batch: Batch) -> Rows:
        labels = required(batch, name)
        if labels.ndim != 3 or labels.shape[2] != 5:
            raise DataError(
                f"Expected as labels for {name} {_THERE}, got {labels.dtype} of shape {labels.shape}. "
                "Try padding them to one number of boxes."
            )
        found = outputs if decode is None else _decoded(decode, outputs, function)
        if found.ndim != 3 or found.shape[2] != 6 or len(found) != len(labels):
            got = f"got shape {found.shape} for {len(labels)} samples"
            if decode is not None:
                raise ConfigError(f"Expected {function} to return {_FOUND}, {got}. Try padding with a score of 0.")
            raise DataError(f"Expected as outputs for {name} {_FOUND}, {got}. Try --metric map@module:function.")
        return _matched(np.asarray(found, np.float64), np.asarray(labels, np.float64))

    return Metric(
        name,
        "mean average precision of boxes at overlaps of 0.50 to 0.95, as COCO counts it",
        average_precision,
        per_sample=per_sample,
        is_share=True,
        settle=_settled,
        resamples=_RESAMPLES,
        apart=by_class,
        free_labels=True,
        reads_all=decode is not None,
        why_undefined=lambda *rows: " (no box is labelled)",
    )


def average_precision(scores: np.ndarray, classes: np.ndarray, right: np.ndarray, there: np.ndarray) -> float:
    """Returns the mean over classes that are there, and over overlaps, of the precision at 101 recalls.

    Args:
        scores: of the boxes found in each sample, [N, boxes].
        classes: theirs; -1 for none.
        right: whether each found one, at each overlap, [N, boxes, overlaps].
        there: how many boxes of each class are in each sample, [N, classes].
    """
    found = _of_classes(scores, classes, right, there)
    return float(np.mean(list(found.values()))) if found else math.nan


def by_class(scores: np.ndarray, classes: np.ndarray, right: np.ndarray, there: np.ndarray) -> Breakdown | None:
    """Returns the average precision of each class that is there; None where only one is."""
    found, totals = _of_classes(scores, classes, right, there), there.sum(axis=0)
    if len(found) < 2:
        return None
    names, counts = tuple(map(str, found)), tuple(int(totals[number]) for number in found)
    return Breakdown("classes", names, {"ap": tuple(found.values())}, counts)


def _of_classes(scores: np.ndarray, classes: np.ndarray, right: np.ndarray, there: np.ndarray) -> dict[int, float]:
    totals = there.sum(axis=0)
    kept = classes >= 0
    scores, classes, right = scores[kept], classes[kept], right[kept]
    order = np.argsort(-scores, kind="stable")
    classes, right = classes[order], right[order]
    return {int(number): _of_class(right[classes == number], totals[number]) for number in np.flatnonzero(totals)}


def _of_class(right: np.ndarray, total: int) -> float:
    """Returns the average precision of a class from its boxes [boxes, overlaps], best first."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right, axis=0, dtype=np.float64)
    recall = hits / total
    precision = hits / np.arange(1, len(right) + 1)[:, None]
    # The best precision at this recall or a higher one.
    reached = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    sums = 0.0
    for number in range(right.shape[1]):
        places = np.searchsorted(recall[:, number], _RECALLS, side="left")
        sums += reached[places[places < len(right)], number].sum() / len(_RECALLS)
    return sums / right.shape[1]


def _decoded(decode: Callable[[Any], Any], outputs: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.asarray(decode(by_name(outputs)), np.float64)
    except (Exception, SystemExit) as error:  # sys.exit would end the worker without a word
        raise ConfigError(
            f"The decoder {name} failed: {type(error).__name__}: {error}. Try it alone on the model's outputs."
        ) from error


def _matched(found: np.ndarray, there: np.ndarray) -> Rows:
    """Returns for each sample its best boxes: scores, classes, which are right; and classes of those that are there."""
    order = np.argsort(-found[..., 4], axis=1, kind="stable")[:, :_MOST_BOXES]
    best = np.take_along_axis(found, order[..., None], axis=1)
    usable = np.isfinite(best).all(axis=2) & (best[..., 4] > 0)
    classes = np.where(usable, np.where(usable, best[..., 5], 0).astype(np.int64), _NONE)
    right = np.zeros((*classes.shape, len(OVERLAPS)), bool)
    real = there[..., 4].astype(np.int64)
    for sample in range(len(found)):
        for number in np.unique(classes[sample][classes[sample] >= 0]):
            ours, theirs = np.flatnonzero(classes[sample] == number), np.flatnonzero(real[sample] == number)
            if theirs.size:
                overlaps = _overlaps(best[sample, ours, :4], there[sample, theirs, :4])
                right[sample, ours] = _taken(overlaps)
    return np.where(usable, best[..., 4], 0), classes, right, np.where(real >= 0, real, _NONE)


def _taken(overlaps: np.ndarray) -> np.ndarray:
    """Returns whether each of our boxes, best first, takes one of theirs that is free, [ours, OVERLAPS]."""
    taken = np.zeros((len(OVERLAPS), overlaps.shape[1]), bool)
    right = np.zeros((len(overlaps), len(OVERLAPS)), bool)
    for number, row in enumerate(overlaps):
        free = np.where(taken, -1.0, row)
        # Of equal overlaps COCO takes the last.
        place = free.shape[1] - 1 - free[:, ::-1].argmax(axis=1)
        right[number] = free[np.arange(len(OVERLAPS)), place] >= np.minimum(OVERLAPS, 1 - 1e-10)
        taken[np.flatnonzero(right[number]), place[right[number]]] = True
    return right


def _overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns intersection over union of boxes [M, 4] and [K, 4]: [M, K]."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (ours, theirs)]
    union = areas[0][:, None] + areas[1][None] - common
    return common / np.where(union > 0, union, 1)


def _settled(scores: np.ndarray, classes: np.ndarray, right: np.ndarray, real: np.ndarray) -> Rows:
    """Returns the same with how many boxes of each class are in each sample instead of their classes."""
    most = int(max(real.max(initial=0), 0)) + 1
    there = np.stack([(real == number).sum(axis=1) for number in range(most)], axis=1)
    return scores, classes, right, there
