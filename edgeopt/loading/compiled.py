"""The config that a model was compiled with goes in; its losses and their weights, by output, come out, and go back.

Nothing of it is run or imported: Keras' own losses are known by name, and all others are looked for among the user's
own objects when they are needed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeopt import graph
from edgeopt.frameworks import load
from edgeopt.tasks.losses import LOSSES, Compiled, LossSpec, canonical, keras_spec

# A model has few outputs; a file may claim any number.
_MOST = 1000


def compiled(config: Any) -> Compiled | None:
    """Returns what a compile config of either Keras says of losses; None where it says nothing that can be used."""
    if not isinstance(config, Mapping):
        return None
    losses = {name: spec for name, item in _by_output(config.get("loss")).items() if (spec := _loss(item)) is not None}
    weights = {
        name: float(item)
        for name, item in _by_output(config.get("loss_weights")).items()
        if isinstance(item, (int, float)) and math.isfinite(item)
    }
    return Compiled(losses, weights) if losses else None


def _by_output(value: Any) -> dict[str, Any]:
    """Returns a loss, a list or a dict of them by output; "" is for all."""
    if value is None:
        return {}
    if isinstance(value, (list, tuple)):
        return {str(number): item for number, item in enumerate(value[:_MOST])}
    if isinstance(value, Mapping) and "class_name" not in value:
        return {str(name): item for name, item in list(value.items())[:_MOST]}
    return {"": value}


def _loss(value: Any) -> LossSpec | None:
    if isinstance(value, str) and value:
        return keras_spec(value, {})
    if not isinstance(value, Mapping) or "class_name" not in value:
        return None
    kind, config = str(value["class_name"]), value.get("config")
    if kind == "function":
        return keras_spec(str(config), {})
    if canonical(kind) not in LOSSES:
        # A registered name has its package before it: what a user calls his class is the last part.
        return LossSpec(kind.rpartition(">")[2], _plain(config))
    return keras_spec(kind, _plain(config))


def _plain(config: Any) -> dict[str, Any]:
    """Returns the settings of a loss that are numbers, flags or lists of numbers: no names of code."""
    if not isinstance(config, Mapping):
        return {}

    def is_plain(item: Any) -> bool:
        return isinstance(item, (bool, int, float)) or (isinstance(item, list) and all(map(is_plain, item[:_MOST])))

    return {str(key): item for key, item in config.items() if is_plain(item)}


def compile_with(model: Any, found: Compiled, outputs: Sequence[str]) -> None:
    """Compiles a Keras 3 model with the losses of Keras' own that another one had.

    Args:
        model: with outputs in the order of the other one's.
        found: what that was compiled with.
        outputs: the names of its outputs.
    """
    library = load("keras").losses
    names = [name for name, _ in graph.output_names(model)]
    losses = {}
    for index, (name, was) in enumerate(zip(names, outputs)):
        spec = found.loss(was, index)
        row = LOSSES.get(spec.name) if spec is not None else None
        if spec is None or row is None or not row.kind:
            return  # code of its author's, which the file cannot hold
        kind = getattr(library, f"Sparse{row.kind}" if spec.settings.get("sparse") else row.kind)
        known = set(inspect.signature(kind).parameters) - {"reduction", "name", "dtype"}
        losses[name] = kind(**{key: value for key, value in spec.settings.items() if key in known})
    weights = {name: found.weight(was, index) for index, (name, was) in enumerate(zip(names, outputs))}
    model.compile(
        "adam",
        loss=losses if len(losses) > 1 else next(iter(losses.values())),
        loss_weights=weights if len(losses) > 1 and found.weights else None,
    )
