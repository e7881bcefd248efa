"""Raw labels go in; what they are comes out: class numbers, one-hot rows, texts, values to predict, or the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeopt.data.table import Table
from edgeopt.errors import ConfigError, DataError, suggestion

# What `--labels` accepts.
KINDS: dict[str, str] = {
    "auto": "recognized from their values: whole numbers, one-hot rows and texts are classes, the rest are values",
    "classes": "class numbers from 0, one-hot rows, or texts",
    "values": "numbers to predict (regression, masks, several labels at once)",
    "inputs": "the input itself, as for an autoencoder",
    "none": "there are none to be used",
}


@dataclass(frozen=True, eq=False)
class Labels:
    """What the labels of a table are.

    Attributes:
        kind: "classes", "values", "inputs", "none", or "several" where each output has its own.
        ids: class numbers of all rows of the table, int64 [N], where kind is "classes".
        classes: how many classes there are.
        class_names: their names, where known.
        one_hot: whether they were one-hot rows.
        outputs: the same of each output by its name, where kind is "several".
    """

    kind: str = "none"
    ids: np.ndarray | None = None
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    one_hot: bool = False
    outputs: Mapping[str, Labels] = field(default_factory=dict)


def recognize(
    tables: Mapping[str, Table], *, kind: str = "auto", class_names: tuple[str, ...] = ()
) -> dict[str, Labels]:
    """Says for each split what its labels are, by one rule for all of them.

    Args:
        kind: key of KINDS.
        class_names: known names; texts name their classes themselves, in alphabetical order.

    Raises:
        ConfigError: there is no such kind.
        DataError: the labels are not of that kind, or differ in shape between the splits.
    """
    if kind not in KINDS:
        raise ConfigError(f"Expected a kind of labels as --labels, got {kind!r}.{suggestion(kind, KINDS)}")
    if kind in ("inputs", "none"):
        return {split: Labels(kind) for split in tables}
    outputs = dict.fromkeys(name for table in tables.values() for name in table.outputs)
    if not outputs:
        return _recognized(tables, "", kind=kind, class_names=class_names)
    each = {name: _recognized(tables, name, kind=kind, class_names=class_names) for name in outputs}
    return {
        split: Labels("several", outputs={name: each[name][split] for name in table.outputs})
        if table.outputs
        else Labels()
        for split, table in tables.items()
    }


def _recognized(
    tables: Mapping[str, Table], output: str, *, kind: str, class_names: tuple[str, ...]
) -> dict[str, Labels]:
    """Says for each split what the labels of one output are."""
    raw = {split: targets for split, table in tables.items() if (targets := table.targets(output)) is not None}
    rest = {
        split: Labels("values" if table.has_targets and (not output or output in table.outputs) else "none")
        for split, table in tables.items()
        if split not in raw
    }
    if not raw:
        return rest
    if kind == "values":
        return {split: Labels("values" if split in raw else rest[split].kind) for split in tables}
    shapes = {split: targets.shape[1:] for split, targets in raw.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"Expected labels of one shape in all splits, got {shapes}. Try saving them alike.")
    lengths = [len(targets) for targets in raw.values()]
    ids, names, classes = _class_ids(np.concatenate(list(raw.values())), required=kind == "classes")
    if ids is None:
        return {**rest, **{split: Labels("values") for split in raw}}
    names = names or class_names
    classes = max(classes, len(names))
    pieces = np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1])
    one_hot = all(math.prod(shape) > 1 for shape in shapes.values())
    return {**rest, **{split: Labels("classes", piece, classes, names, one_hot) for split, piece in zip(raw, pieces)}}


def class_numbers(labels: np.ndarray, outputs: tuple[int, ...]) -> np.ndarray | None:
    """Returns labels as class numbers, int64 [N, *outputs[:-1]]: one for each thing that a model tells classes of.

    Whole numbers stand for classes there in whatever dtype and shape they are stored, and so do one-hot rows; None
    where they do not fit. One unit for each place tells two classes apart. Places that are to be left out have -1:
    those whose label is below 0, or 255 in bytes, as masks have it where nobody could say, or whose row is empty.

    Args:
        labels: [N, ...].
        outputs: a sample's shape as the model gives it, its last axis the classes: (10,), or (64, 64, 3) of pixels.
    """
    *places, units = outputs
    classes = 2 if places and units == 1 else units
    if classes < 2 or labels.dtype.kind not in "fiub":
        return None
    if labels.shape[1:] == outputs and units > 1 and is_one_hot(labels):
        return np.where(labels.any(axis=-1), labels.argmax(axis=-1), -1)
    if labels.size != len(labels) * math.prod(places) or not bool(
        (np.isfinite(labels) & (labels == np.rint(labels))).all()
    ):
        return None
    numbers = labels.astype(np.int64).reshape(len(labels), *places)
    if places:
        nobody = (numbers < 0) | ((numbers == 255) & (labels.dtype == np.uint8) & (classes <= 255))
        numbers = np.where(nobody, -1, numbers)
    fits = bool(((numbers >= (-1 if places else 0)) & (numbers < classes)).all())
    return numbers if fits else None


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether the last axis has a single 1 among zeros; where there are places, also none: those are left out."""
    if labels.ndim < 2 or labels.shape[-1] < 2 or labels.dtype.kind not in "fiub" or not np.isin(labels, (0, 1)).all():
        return False
    ones = labels.sum(axis=-1)
    return bool((ones == 1).all()) or (labels.ndim > 2 and bool((ones <= 1).all() and ones.any()))


def _class_ids(raw: np.ndarray, *, required: bool) -> tuple[np.ndarray | None, tuple[str, ...], int]:
    """Returns class numbers [N], names and the number of classes; None, (), 0 where these are values."""
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.dtype.kind in "US":
        texts, ids = np.unique(raw.astype(str), return_inverse=True)
        return ids, tuple(texts.tolist()), len(texts)
    if raw.dtype.kind not in "fiub":
        raise DataError(f"Expected numbers or texts as labels, got {raw.dtype}. Try class numbers from 0.")
    if raw.ndim == 2:
        if ((raw == 0) | (raw == 1)).all() and (raw.sum(axis=1) == 1).all():
            return raw.argmax(axis=1), (), raw.shape[1]
    elif raw.dtype.kind in "iub" or np.isin(raw, (0, 1)).all() or (required and (raw == np.rint(raw)).all()):
        return raw, (), int(raw.max()) + 1
    if required:
        raise DataError(
            f"Expected class numbers from 0, one-hot rows or texts as labels, got {raw.dtype} {raw.shape[1:]} such as "
            f"{raw[0]}. Try --labels values."
        )
    return None, (), 0
