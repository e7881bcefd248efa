"""Channels go in; the model as a function whose channels can be switched off, one by one and by sample, comes out.

A channel is switched off where it is mixed with others: at the inputs of convolutions, dense layers and attention, at
the output of a head. Up to there it may hold anything, so this is what cutting it out means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeopt import frameworks, graph
from edgeopt.shrinking.channels import Channels, Cut
from edgeopt.shrinking.rules import attention_arguments, kind_of


def masked(channels: Channels, cut: Cut) -> Callable[..., Any]:
    """Returns the model with the channels and heads that `cut` leaves out masked, as a function of its inputs.

    It takes one array for each input and returns a list of arrays, one for each output.
    """
    tf = frameworks.load("tensorflow")
    gates = tf.constant(channels.kept(cut)[None], tf.float32)
    return lambda *inputs: [
        np.asarray(out) for out in gated(channels, [tf.convert_to_tensor(x) for x in inputs], gates)
    ]


def gated(
    channels: Channels, inputs: Sequence[Any], gates: Any, *, without: Mapping[str, int] | None = None
) -> list[Any]:
    """Runs the model in inference with every channel multiplied by its gate where it is mixed with others.

    Args:
        channels: of the model.
        inputs: one tensor for each input.
        gates: float [samples or 1, units + 1]; the last column is 1.
        without: calls by name that hand one of their tensors on, with its number, in place of being done.

    Returns:
        One tensor for each output. Differentiable by `gates`.
    """
    tf = frameworks.load("tensorflow")
    numbers = iter(range(len(channels.calls)))

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = next(numbers)
        if call.name in (without or {}):
            return [leaf for leaf in graph.leaves((args, kwargs)) if tf.is_tensor(leaf)][(without or {})[call.name]]
        return called(channels, number, args, kwargs, gates)

    return graph.walk(channels.model, list(inputs), step)


def called(channels: Channels, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], gates: Any) -> Any:
    """Returns what the call of that number makes of its arguments, with every channel it mixes times its gate."""
    tf = frameworks.load("tensorflow")
    layer, reads, inner = channels.calls[number].layer, channels.reads[number], channels.inner[number]

    def gate(value: Any, axis: int, ids: np.ndarray) -> Any:
        shape = [-1] + [1] * (len(value.shape) - 1)
        shape[axis + 1] = len(ids)
        result = value * tf.reshape(tf.gather(gates, np.where(ids < 0, channels.units, ids), axis=1), shape)
        mask = getattr(value, "_keras_mask", None)
        if mask is not None:
            result._keras_mask = mask
        return result

    if graph.takes_training(layer):
        kwargs = {**kwargs, "training": False}
    kind = kind_of(layer)
    if inner is not None and kind == "LayerNormalization":
        return _normalized(layer, args[0], gate, next(iter(reads))[1], inner)
    if reads:
        tensors = [leaf for leaf in graph.leaves((args, kwargs)) if tf.is_tensor(leaf)]
        given = {id(tensors[at]): gate(tensors[at], axis, ids) for (at, axis), ids in reads.items()}
        args, kwargs = graph.map_leaves(lambda leaf: given.get(id(leaf), leaf), (args, kwargs))
    if inner is not None and kind == "MultiHeadAttention":
        return _attended(layer, args, kwargs, lambda value: gate(value, 1, inner))
    return layer(*args, **kwargs)


def _normalized(layer: Any, value: Any, gate: Callable[..., Any], axis: int, ids: np.ndarray) -> Any:
    """Layer normalization over the channels that are switched on."""
    tf = frameworks.load("tensorflow")
    on = gate(tf.ones_like(value), axis, ids)
    count = tf.reduce_sum(on, axis + 1, keepdims=True)
    mean = tf.reduce_sum(value * on, axis + 1, keepdims=True) / count
    variance = tf.reduce_sum(on * (value - mean) ** 2, axis + 1, keepdims=True) / count
    result = (value - mean) * tf.math.rsqrt(variance + layer.epsilon)
    shape = [1] * len(value.shape)
    shape[axis + 1] = -1
    for weight, combine in ((layer.gamma, tf.multiply), (layer.beta, tf.add)):
        if weight is not None:
            result = combine(result, tf.reshape(weight, shape))
    return result


def _attended(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], gate: Callable[[Any], Any]) -> Any:
    """Multi-head attention with a gate on each head's output."""
    given = attention_arguments(args, kwargs) or {}
    query, key, value = given["query"], given["key"], given["value"]
    mask = layer._compute_attention_mask(
        query,
        value,
        key=key,
        attention_mask=given.get("attention_mask"),
        use_causal_mask=bool(given.get("use_causal_mask")),
    )
    heads, _ = layer._compute_attention(
        layer._query_dense(query), layer._key_dense(key), layer._value_dense(value), mask, training=False
    )
    return layer._output_dense(gate(heads))
