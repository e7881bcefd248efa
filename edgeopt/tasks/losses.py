"""What a loss is called goes in; which one it is, and how it takes labels, comes out. Nothing here computes one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeopt.errors import ConfigError, suggestion


@dataclass(frozen=True)
class Loss:
    """A loss that Keras has, or one of our own.

    Attributes:
        name: key of LOSSES, as Keras calls the function.
        kind: the class that computes it, in tf_keras; of Keras 3 where tf_keras has none; "" for our own.
        takes: "classes": one-hot rows, or 0 and 1 for one unit; "values": numbers.
        aliases: other names.
    """

    name: str
    kind: str
    takes: Literal["classes", "values"]
    aliases: tuple[str, ...] = ()


LOSSES: dict[str, Loss] = {
    row.name: row
    for row in (
        Loss("categorical_crossentropy", "CategoricalCrossentropy", "classes", ("sparse_categorical_crossentropy",)),
        Loss("binary_crossentropy", "BinaryCrossentropy", "classes"),
        Loss("categorical_focal_crossentropy", "CategoricalFocalCrossentropy", "classes"),
        Loss("binary_focal_crossentropy", "BinaryFocalCrossentropy", "classes"),
        Loss("categorical_hinge", "CategoricalHinge", "classes"),
        Loss("kl_divergence", "KLDivergence", "classes", ("kld", "kullback_leibler_divergence")),
        Loss("dice", "Dice", "classes"),
        Loss("tversky", "Tversky", "classes"),
        Loss("mean_squared_error", "MeanSquaredError", "values", ("mse",)),
        Loss("mean_absolute_error", "MeanAbsoluteError", "values", ("mae",)),
        Loss("mean_absolute_percentage_error", "MeanAbsolutePercentageError", "values", ("mape",)),
        Loss("mean_squared_logarithmic_error", "MeanSquaredLogarithmicError", "values", ("msle",)),
        Loss("huber", "Huber", "values", ("huber_loss",)),
        Loss("log_cosh", "LogCosh", "values", ("logcosh",)),
        Loss("cosine_similarity", "CosineSimilarity", "values"),
        Loss("poisson", "Poisson", "values"),
        Loss("hinge", "Hinge", "values"),
        Loss("squared_hinge", "SquaredHinge", "values"),
        Loss("scaled_squared_error", "", "values"),
    )
}
_NAMES = {alias: row.name for row in LOSSES.values() for alias in (row.name, *row.aliases)}


@dataclass(frozen=True)
class LossSpec:
    """A loss as somebody named it.

    Attributes:
        name: key of LOSSES, "module:function", or what a user's own code calls it.
        settings: numbers and flags of Keras' own losses; "sparse" where it was the one that takes class numbers.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compiled:
    """What a model was compiled with.

    Attributes:
        losses: by the output's name, or its number as text where they were a list; under "" where one is for all.
        weights: of the outputs, likewise.
    """

    losses: Mapping[str, LossSpec] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def loss(self, output: str, index: int) -> LossSpec | None:
        """Returns the loss of an output, by its name or number."""
        return self.losses.get(output, self.losses.get(str(index), self.losses.get("")))

    def weight(self, output: str, index: int) -> float:
        """Returns the weight of an output, by its name or number."""
        return self.weights.get(output, self.weights.get(str(index), self.weights.get("", 1.0)))


@dataclass(frozen=True)
class Goal:
    """What is known of a model's outputs when it is to learn.

    Attributes:
        outputs: their names, as data and people call them.
        tasks: keys of TASKS that were said, by the output's name; under "" for all.
        compiled: what the file holds; None where it holds nothing.
        labelled: the output that labels without a name are for, where there are several.
    """

    outputs: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    compiled: Compiled | None = None
    labelled: str | None = None

    def task(self, output: str) -> str | None:
        """Returns the task that was said of an output."""
        return self.tasks.get(output, self.tasks.get(""))


# Of a model whose outputs speak for themselves.
UNSAID = Goal()


def canonical(name: str) -> str:
    """Returns the key of LOSSES that Keras means by the name of a function or class; any other name as it is."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(">")[2]).lower()
    return _NAMES.get(snake.replace("kldivergence", "kl_divergence"), name)


def keras_spec(name: str, settings: Mapping[str, Any]) -> LossSpec:
    """Returns the loss that a model file calls `name`."""
    sparse = {"sparse": True} if name.rpartition(">")[2].lower().startswith("sparse") else {}
    return LossSpec(canonical(name), {**settings, **sparse})


def said(name: str) -> LossSpec:
    """Returns the loss that a person names.

    Raises:
        ConfigError: there is none of that name.
    """
    found = canonical(name)
    if found not in LOSSES and ":" not in name:
        raise ConfigError(
            f"Expected a loss, got {name!r}.{suggestion(name, _NAMES)} Try one of {', '.join(LOSSES)}, or "
            "module:function."
        )
    return LossSpec(found)


def by_output(words: Sequence[str], what: str) -> dict[str, str]:
    """Returns words "NAME" and "OUTPUT=NAME" as names by output, "" for all.

    Args:
        what: for messages: "--loss".

    Raises:
        ConfigError: one is empty, or there are two for one output.
    """
    found: dict[str, str] = {}
    for word in words:
        output, sign, name = word.rpartition("=")
        if not name or (sign and not output):
            raise ConfigError(f"Expected {what} NAME or {what} OUTPUT=NAME, got {word!r}.")
        if output in found:
            raise ConfigError(f"Expected one {what} for {output or 'all outputs'}, got {found[output]} and {name}.")
        found[output] = name
    return found
