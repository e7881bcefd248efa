"""Keras' names of arrays: names go in, the splits, inputs and labels they stand for come out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgeopt.errors import DataError

SPLIT_WORDS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
CLASS_NAMES = "class_names"
_NAME = re.compile(rf"([xyw])(?:_({'|'.join(SPLIT_WORDS)}))?(?:_(.+))?", re.IGNORECASE)


@dataclass
class Members:
    """The arrays of one split: input's name → array's name, output's name → array's name ("" the only one), weights."""

    inputs: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    weights: str | None = None


def sort_names(names: Iterable[str], where: str) -> tuple[dict[str, Members], list[str]]:
    """Returns the splits ("train", "val", "test" or "all") that arrays of these names make, and the names left over.

    `x_train`, `y_train`, `x_test` … as in Keras; `x` and `y` alone; `x_train_left`, `x_train_right` (or `x_left`,
    `x_right`) for the inputs `left` and `right` of one model, `y_train_left` and `y_test_left` for the labels of its
    output `left`; `w_train` (or `w`) says how much each sample counts. A single array of any name is taken as `x`.

    Args:
        where: what holds the arrays, for messages.

    Raises:
        DataError: the names say nothing, or say too much.
    """
    names = [name for name in names if name != CLASS_NAMES]
    splits: dict[str, Members] = {}
    unused = []
    for name in names:
        match = _NAME.fullmatch(name)
        # A lone array is what samples are, whatever its name.
        if match is None or (match[1] in "wW" and (match[3] or len(names) == 1)):
            unused.append(name)
            continue
        kind, split, input_name = match.groups()
        members = splits.setdefault(SPLIT_WORDS[split.lower()] if split else "all", Members())
        if kind.lower() == "w":
            members.weights = name
        elif kind.lower() == "x":
            members.inputs[input_name or "x"] = name
        elif (input_name or "") in members.labels or (members.labels and "" in {input_name or "", *members.labels}):
            before = ", ".join(members.labels.values())
            raise DataError(
                f"Expected one array of labels per split in {where}, or one for each output by its name, got {before} "
                f"and {name}. Try y_train and y_test, or y_train_left, y_train_right ... for outputs left and right."
            )
        else:
            members.labels[input_name or ""] = name
    if not splits and len(names) == 1:
        return {"all": Members({"x": names[0]})}, []
    if not splits:
        raise DataError(
            f"Expected arrays named x_train, y_train, x_test, y_test (or x and y) in {where}, got "
            f"{', '.join(names) or 'none'}. Try numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    for split, members in splits.items():
        if not members.inputs:
            labels = ", ".join(members.labels.values())
            wanted = next(iter(members.labels.values()), split).replace("y", "x", 1)
            others = f"only {', '.join(unused)}" if unused else "none"
            raise DataError(
                f"Expected samples beside the labels {labels} in {where}, got {others}. Try adding {wanted}"
                + (f", or, where they are inputs of the model, calling them {wanted}_{unused[0]} …" if unused else "")
                + "."
            )
    return splits, unused
