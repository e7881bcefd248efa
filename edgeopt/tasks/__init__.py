"""What a model is for: a name goes in; the loss, the metric, the labels and what a teacher gives come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeopt.errors import ConfigError, suggestion

# What a student is told by its teacher of an output:
#   classes     softened distributions over its last axis, or softened odds where each unit is a class of its own
#   values      the numbers themselves, each target measured in its own spread
#   directions  where a vector points
Imitation = Literal["classes", "values", "directions"]


@dataclass(frozen=True)
class Task:
    """What an output is for.

    Attributes:
        name: key of TASKS.
        summary: one line for help and docs.
        labels: which labels it takes, in words. They are read in one way, for training and for scoring:
            see `data.labels.class_numbers` where they are classes.
        loss: row of `training.losses.LOSSES` that is its own; "" where a teacher, or a loss that is given, says it all.
        metric: key of METRICS that is its own; "" where it has to be given.
        imitation: what a student is told by its teacher.
        classes: whether labels are classes, for each place the output has.
        free_labels: whether labels need not have the output's form: its shape, or classes of its units.
        one_unit_loss: instead of `loss` where one unit tells two classes apart.
        unlabelled_metric: instead of `metric` where there are no labels.
        uneven_metric: instead of `metric` where there are targets of very unlike spread, of which it would show the
            widest alone.
    """

    name: str
    summary: str
    labels: str
    loss: str
    metric: str
    imitation: Imitation
    classes: bool = False
    free_labels: bool = False
    one_unit_loss: str = ""
    unlabelled_metric: str = ""
    uneven_metric: str = ""

    def loss_for(self, units: int | None) -> str:
        """Returns the loss that is its own for so many units of the last axis."""
        return self.one_unit_loss if units == 1 and self.one_unit_loss else self.loss


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        Task(
            "classes",
            "one class for each sample",
            "class numbers, one-hot rows or texts",
            loss="categorical_crossentropy",
            metric="top1",
            imitation="classes",
            classes=True,
            one_unit_loss="binary_crossentropy",
        ),
        Task(
            "binary",
            "one of two classes for each sample, told by one unit",
            "0 and 1",
            loss="binary_crossentropy",
            metric="top1",
            imitation="classes",
            classes=True,
        ),
        Task(
            "multi-label",
            "any number of classes for each sample, a unit for each",
            "a row of 0 and 1",
            loss="binary_crossentropy",
            metric="f1",
            imitation="classes",
        ),
        Task(
            "regression",
            "numbers, each target measured in its own spread",
            "values in the output's shape",
            loss="scaled_squared_error",
            metric="mse",
            imitation="values",
            uneven_metric="r2",
        ),
        Task(
            "segmentation",
            "a class for each pixel or voxel",
            "class numbers or one-hot for each; below 0, or 255 in bytes, is left out",
            loss="categorical_crossentropy",
            metric="mean-iou",
            imitation="classes",
            classes=True,
            one_unit_loss="binary_crossentropy",
        ),
        Task(
            "tagging",
            "a class for each step of a sequence",
            "class numbers or one-hot for each; below 0 is left out",
            loss="categorical_crossentropy",
            metric="tag-accuracy",
            imitation="classes",
            classes=True,
            one_unit_loss="binary_crossentropy",
        ),
        Task(
            "language",
            "the next token at each step",
            "the tokens moved by one; below 0 is left out",
            loss="categorical_crossentropy",
            metric="perplexity",
            imitation="classes",
            classes=True,
        ),
        Task(
            "detection",
            "the raw heads of a detector",
            "whatever the loss and the metric that are given take",
            loss="",
            metric="",
            imitation="values",
            free_labels=True,
        ),
        Task(
            "embedding",
            "a vector whose direction says what is alike",
            "class numbers, for the metric alone: it learns from its teacher",
            loss="",
            metric="recall@1",
            imitation="directions",
            free_labels=True,
        ),
        Task(
            "anomaly",
            "the input given back: what is given back badly is out of the ordinary",
            "0 and 1 = anomaly, for the metric alone: it learns its input",
            loss="mean_squared_error",
            metric="auc-reconstruction",
            imitation="values",
            free_labels=True,
            unlabelled_metric="reconstruction",
        ),
    )
}


def task(name: str) -> Task:
    """Returns the row of TASKS with that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(f"Expected a task as --task, got {name!r}.{suggestion(name, TASKS)}")
    return TASKS[name]
