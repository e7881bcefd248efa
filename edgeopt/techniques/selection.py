"""A model and what a person said about its layers go in; the layers that are meant come out."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from edgeopt import graph
from edgeopt.errors import ConfigError, setting, suggestion

# What the layers of tf_keras call the weights that multiply; biases, statistics and scales are called otherwise.
KERNELS = ("kernel", "recurrent_kernel", "embeddings", "pointwise_kernel", "depthwise_kernel")


def select_layers(model: Any, layers: Sequence[str] = (), spare: Sequence[str] = ()) -> list[Any]:
    """Returns the layers of a flat functional model in the order they are called, each once, inputs left out.

    Args:
        model: of tf_keras.
        layers: only these: names, kinds ("Conv2D") or globs ("block_2_*"); all when empty.
        spare: all but these.

    Raises:
        ConfigError: a word means no layer, or none is left.
    """
    there = _called(model)
    asked = {id(layer) for layer in (named_layers(model, layers, "layers") if layers else there)}
    asked -= {id(layer) for layer in named_layers(model, spare, "spare")}
    if not asked:
        raise ConfigError(
            "Expected some layers to be left, got "
            f"{setting('layers', ' '.join(layers) or '(all)')} and {setting('spare', ' '.join(spare))}. "
            "Try sparing fewer."
        )
    return [layer for layer in there if id(layer) in asked]


def named_layers(model: Any, words: Sequence[str], key: str) -> list[Any]:
    """Returns the layers that one of `words` means, in the order they are called.

    Args:
        key: what the words were given as, for the message.

    Raises:
        ConfigError: a word means no layer.
    """
    there = _called(model)
    for word in words:
        if not any(is_named(layer, (word,)) for layer in there):
            names = [layer.name for layer in there] + sorted({type(layer).__name__ for layer in there})
            raise ConfigError(
                f"Expected names, kinds or globs of layers as {setting(key)}, got {word!r}, which no layer of the "
                "model has."
                f"{suggestion(word, names)}"
            )
    return [layer for layer in there if is_named(layer, words)]


def is_named(layer: Any, words: Sequence[str]) -> bool:
    """Whether one of `words` is the layer's name, kind, or a glob that matches its name."""
    kind = type(layer).__name__
    return any(word in (layer.name, kind) or fnmatch.fnmatchcase(layer.name, word) for word in words)


def _called(model: Any) -> list[Any]:
    return list({id(call.layer): call.layer for call in graph.own_calls(model)}.values())


def kernels(layer: Any) -> list[Any]:
    """Returns the variables of `layer`, and of the layers in it, that inputs are multiplied with: rank 2 or more."""
    return [w for w in layer.weights if kernel_name(w) in KERNELS and len(w.shape) > 1]


def kernel_name(variable: Any) -> str:
    """Returns the last part of a tf_keras variable's name: "kernel"."""
    return str(variable.name).rsplit("/", 1)[-1].split(":")[0]
