"""Channels go in; the layers that read them linearly come out, each with its kernel and its input as matrices.

What such a layer computes before its activation is X W + b: a row of W, and a column of X, for each channel that it
reads and place of its window. Depthwise convolutions, pooling, activations and additions on the way belong to X.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from edgeopt import frameworks, graph
from edgeopt.shrinking.channels import Channels
from edgeopt.shrinking.rules import kind_of
from edgeopt.shrinking.tracing import Use
from edgeopt.windows import missing_for_same

# Kinds of layers -> the kernel that reads, and its axis of outputs.
_KERNELS = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Dense"), ("kernel", -1)),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), ("kernel", -2)),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("pointwise_kernel", -1)),
}


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads channels linearly.

    Attributes:
        layer: of the model whose channels these are.
        name: in the graph.
        calls: the numbers of its calls.
        index: of its kernel among its weights.
        out_axis: the kernel's axis of outputs.
        units: for each row of its matrix the unit that it reads, -1 for what cannot go.
        bias: the index of its bias among its weights; None where it has none.
        normalized: the batch normalization that alone reads its outputs; None where there is none.
    """

    layer: Any
    name: str
    calls: tuple[int, ...]
    index: int
    out_axis: int
    units: np.ndarray
    bias: int | None
    normalized: Any

    @property
    def shifts(self) -> bool:
        """Whether the mean of what it makes is free: by its bias, or because a normalization takes it away."""
        return self.bias is not None or self.normalized is not None

    def matrix(self) -> np.ndarray:
        """Returns its kernel as [rows, outputs], float64."""
        value = np.moveaxis(np.asarray(self.layer.weights[self.index], np.float64), self.out_axis, -1)
        return value.reshape(-1, value.shape[-1])

    def kernel(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns [rows, outputs] as a kernel of that shape."""
        moved = list(shape)
        moved.append(moved.pop(self.out_axis % len(shape)))
        return np.moveaxis(matrix.reshape(moved), -1, self.out_axis).astype(np.float32)


def readers(channels: Channels) -> tuple[Reader, ...]:
    """Returns the layers that read channels linearly, in the order of their first calls."""
    numbers: dict[int, list[int]] = {}
    for number, call in enumerate(channels.calls):
        numbers.setdefault(id(call.layer), []).append(number)
    takers = _takers(channels)
    found = []
    for key, calls in numbers.items():
        use, call = channels.uses.get(key), channels.calls[calls[0]]
        named = _KERNELS.get(kind_of(call.layer))
        if use is None or named is None or getattr(call.layer, "groups", 1) > 1:
            continue
        attribute, out_axis = named
        index = next(i for i, w in enumerate(call.layer.weights) if w is getattr(call.layer, attribute))
        bias = next((i for i, w in enumerate(call.layer.weights) if w is getattr(call.layer, "bias", None)), None)
        units = _units(use, index, out_axis)
        after = {id(t) for number in calls for t in takers[number]}
        next_one = takers[calls[0]][0] if len(calls) == 1 and len(after) == 1 and takers[calls[0]] else None
        linear = getattr(getattr(call.layer, "activation", None), "__name__", "linear") == "linear"
        normalized = next_one if linear and kind_of(next_one) == "BatchNormalization" else None
        found.append(Reader(call.layer, call.name, tuple(calls), index, out_axis, units, bias, normalized))
    return tuple(found)


def _units(use: Use, index: int, out_axis: int) -> np.ndarray:
    """Returns for each row of a kernel's matrix the unit that it reads."""
    shape = list(use.layer.weights[index].shape)
    axes = list(use.weights[index])
    del shape[out_axis], axes[out_axis]
    read = next((axis for axis, ids in enumerate(axes) if ids is not None), None)
    if read is None:
        return np.full(prod(shape), -1)
    place = [1] * len(shape)
    place[read] = -1
    return np.broadcast_to(np.asarray(axes[read]).reshape(place), shape).reshape(-1)


def _takers(channels: Channels) -> list[list[Any]]:
    """Returns for each call the layers that take its outputs, and None where they are outputs of the model."""
    found: list[list[Any]] = [[] for _ in channels.calls]
    maker = {id(tensor): number for number, call in enumerate(channels.calls) for tensor in call.outputs}
    for call in channels.calls:
        for leaf in graph.leaves((call.args, dict(call.kwargs))):
            if id(leaf) in maker:
                found[maker[id(leaf)]].append(call.layer)
    for _, tensor in graph.output_names(channels.model):
        if id(tensor) in maker:
            found[maker[id(tensor)]].append(None)
    return found


def columns(layer: Any, shape: tuple[int | None, ...]) -> Callable[[Any, np.ndarray | None], Any]:
    """Returns the function that makes a layer's X, [samples of places, rows of the matrix], of its input.

    It takes the input (batch first), and the numbers of the places that are taken of each sample, [samples, places];
    all of them where that is None.

    Args:
        layer: of a Reader.
        shape: of its input.
    """
    tf = frameworks.load("tensorflow")
    kind = kind_of(layer)
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        return partial(_windows, layer)
    # The layer with an identity for its kernel hands every column of X on.
    through = _identity(layer, shape) if kind != "Dense" else lambda value: value

    def taken(value: Any, places: np.ndarray | None) -> Any:
        made = through(value)
        if getattr(layer, "data_format", None) == "channels_first":
            made = tf.experimental.numpy.moveaxis(made, 1, -1)
        width = made.shape[-1]
        made = tf.reshape(made, [made.shape[0], -1, width])
        return tf.reshape(made if places is None else tf.gather(made, places, batch_dims=1), [-1, width])

    return taken


def places_of(layer: Any, output: tuple[int, ...]) -> int:
    """Returns at how many places of a sample a layer of a Reader computes, given the shape of what it makes."""
    sizes = output[2:] if getattr(layer, "data_format", None) == "channels_first" else output[1:-1]
    return prod(sizes)


def _windows(layer: Any, value: Any, places: np.ndarray | None) -> Any:
    """Returns the windows that a convolution sees at some of its places."""
    tf = frameworks.load("tensorflow")
    if layer.data_format == "channels_first":
        value = tf.experimental.numpy.moveaxis(value, 1, -1)
    pads, counts = [], []
    for size, kernel, stride, dilation in zip(value.shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate):
        reach = (kernel - 1) * dilation + 1
        missing = missing_for_same(size, reach, stride) if layer.padding == "same" else 0
        pads.append((reach - 1, 0) if layer.padding == "causal" else (missing // 2, missing - missing // 2))
        counts.append((size + sum(pads[-1]) - reach) // stride + 1)
    value = tf.pad(value, [(0, 0), *pads, (0, 0)])
    corners, taps = _grid(counts) * np.array(layer.strides), _grid(layer.kernel_size) * np.array(layer.dilation_rate)
    *sizes, width = value.shape[1:]
    flat = np.ravel_multi_index(tuple(np.moveaxis(corners[:, None] + taps, -1, 0)), sizes)
    value = tf.reshape(value, [value.shape[0], prod(sizes), width])
    seen = tf.gather(value, flat, axis=1) if places is None else tf.gather(value, flat[places], batch_dims=1)
    return tf.reshape(seen, [-1, len(taps) * width])


def _grid(counts: Sequence[int]) -> np.ndarray:
    """Returns all places of a box, [places, dimensions], in the order of a C array."""
    return np.stack(np.unravel_index(np.arange(prod(counts)), tuple(counts)), -1)


def _identity(layer: Any, shape: tuple[int | None, ...]) -> Any:
    """Returns a layer that computes as this one would with an identity for its kernel, and nothing added."""
    attribute, out_axis = _KERNELS[kind_of(layer)]
    kernel, bias = getattr(layer, attribute), getattr(layer, "bias", None)
    sizes = list(kernel.shape)
    del sizes[out_axis]
    eye = np.eye(prod(sizes), dtype=np.float32).reshape(*sizes, -1)
    config = {**layer.get_config(), "filters": prod(sizes), "use_bias": False, "activation": "linear"}
    other = type(layer).from_config(config)
    other.build(shape)
    other.set_weights(
        [np.moveaxis(eye, -1, out_axis) if w is kernel else np.asarray(w) for w in layer.weights if w is not bias]
    )
    return other
