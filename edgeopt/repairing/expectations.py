"""A Keras model with batch normalizations goes in; what reaches its layers on average comes out.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721, section
4.2.1): a normalization leaves values of mean beta and deviation gamma; of a normal distribution of these, what an
activation function makes can be computed. No sample is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.frameworks import load
from edgeopt.shrinking.rules import kind_of

# The distribution of a channel is told by so many values of equal weight: means behind ReLU are right to 1/1000 of its
# deviation.
_VALUES = 256
# Least cosine of a channel's weights in two places, after one of them was multiplied by a factor.
_SAME = 0.999


@dataclass(frozen=True)
class Expected:
    """A layer.

    Attributes:
        kernel: its weights, in the layout of a `.tflite` file.
        axis: of its output channels there.
        inputs: mean of each of its input channels: float64 [channels].
    """

    kernel: np.ndarray
    axis: int
    inputs: np.ndarray


def expectations(model: Any, inputs: Sequence[np.ndarray] = ()) -> tuple[Expected, ...]:
    """Returns the layers of a tf_keras model of whose inputs its batch normalizations tell.

    What follows a normalization is known as far as element-wise functions, sums, means and layers without a
    normalization of their own go; the largest of several values is not. Channels are taken to be independent.

    Args:
        model: functional.
        inputs: samples, an array for each input, where there are some: what reaches the first layers is theirs.
    """
    found: list[Expected] = []

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [leaf for leaf in graph.leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
        kind = kind_of(call.layer)
        if len(call.outputs) != 1:
            return [_UNKNOWN] * len(call.outputs)
        if kind in _NORMALIZATIONS:
            return _normalized(call.layer)
        if kind not in _RULES or not all(one.size for one in given):
            return _UNKNOWN
        if kind in _KERNELS and (held := _KERNELS[kind](call.layer)) is not None:
            kernel, axis = held
            found.append(Expected(kernel, axis, given[0].mean(0)))
        return _RULES[kind](call.layer, given)

    known = [_quantiles(each) for each in inputs] or [_UNKNOWN] * len(graph.input_names(model))
    graph.walk(model, known, step)
    return tuple(found)


def _quantiles(samples: np.ndarray) -> np.ndarray:
    """Returns what the channels of samples [N, ..., channels] hold, in any place."""
    if not len(samples) or samples.ndim < 2:
        return _UNKNOWN
    return np.quantile(samples.reshape(-1, samples.shape[-1]).astype(np.float64), _PLACES, axis=0)


def inputs_of(expected: Sequence[Expected], weights: np.ndarray) -> np.ndarray | None:
    """Returns what the channels of a layer of a file get on average; None where no layer has its weights, or several.

    Weights are told up to a factor for each output channel: conversion multiplies normalizations into them.

    Args:
        expected: as `expectations` gives them.
        weights: of the float file.
    """
    alike = [one for one in expected if one.kernel.shape == weights.shape and _likeness(one, weights) >= _SAME]
    if not alike or any(not np.array_equal(one.inputs, alike[0].inputs) for one in alike):
        return None
    return alike[0].inputs


def _likeness(one: Expected, weights: np.ndarray) -> float:
    """Returns the mean cosine, without sign, of the channels' weights."""
    ours, theirs = (
        np.moveaxis(each, one.axis, 0).reshape(each.shape[one.axis], -1).astype(np.float64)
        for each in (one.kernel, weights)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    there = lengths > 0
    return float(np.abs((ours * theirs).sum(1)[there] / lengths[there]).mean()) if there.any() else 0.0


# --- what layers make of it ------------------------------------------------------------------------------------------


def _normalized(layer: Any) -> np.ndarray:
    if len(layer.axis) != 1 or layer.axis[0] != layer.input_spec.ndim - 1:
        return _UNKNOWN
    size = int(layer.moving_mean.shape[0])
    mean = np.asarray(layer.beta, np.float64) if layer.center else np.zeros(size)
    return _normal(mean, np.asarray(layer.gamma, np.float64) if layer.scale else np.ones(size))


def _normal(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return np.asarray(norm.ppf(_PLACES)[:, None] * np.abs(deviation) + mean)


def _activated(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    function = getattr(layer, "activation", layer)
    if getattr(function, "__name__", "") == "softmax":
        return _UNKNOWN
    return np.asarray(function(load("tensorflow").constant(given[0], "float32")), np.float64)


def _scaled(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what a layer makes that scales each channel; it takes maps."""
    values, rank = given[0], len(layer.input_shape)
    made = layer(load("tensorflow").constant(values.reshape(len(values), *[1] * (rank - 2), -1), "float32"))
    return np.asarray(made, np.float64).reshape(values.shape)


def _summed(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    means, variances = ([power(one) for one in given] for power in (lambda x: x.mean(0), lambda x: x.var(0)))
    return _normal(np.sum(np.broadcast_arrays(*means), 0), np.sqrt(np.sum(np.broadcast_arrays(*variances), 0)))


def _joined(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    shape = layer.input_shape[0] if isinstance(layer.input_shape, list) else layer.input_shape
    return np.concatenate(given, -1) if layer.axis in (-1, len(shape) - 1) else _UNKNOWN


def _same(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    return given[0]


def _flat(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what there is of each place of the maps, whose channels come last."""
    return np.tile(given[0], (layer.output_shape[-1] or 0) // given[0].shape[-1])


def _computed(layer: Any, given: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what a layer without a normalization makes, where its maps have no edges."""
    found, size = _KERNELS[kind_of(layer)](layer), given[0].shape[-1]
    if found is None:
        return _UNKNOWN
    kernel, axis = found
    # Of a depthwise layer each channel makes some, of others all make each.
    times = kernel.shape[-1] // size
    if times * size != kernel.shape[-1] or (times > 1 and axis == 0):
        return _UNKNOWN
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    mean = (kernel * np.repeat(given[0].mean(0), times)).sum(others)
    variance = (kernel**2 * np.repeat(given[0].var(0), times)).sum(others)
    if layer.use_bias:
        mean = mean + np.asarray(layer.bias, np.float64)
    return _activated(layer, [_normal(mean, np.sqrt(variance))])


_UNKNOWN = np.empty((_VALUES, 0))
_PLACES = (np.arange(_VALUES) + 0.5) / _VALUES
_NORMALIZATIONS = ("BatchNormalization", "SyncBatchNormalization")
_RULES: Mapping[str, Callable[[Any, Sequence[np.ndarray]], np.ndarray]] = {
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "ELU"), _activated),
    **dict.fromkeys(("Rescaling", "Normalization"), _scaled),
    "Add": _summed,
    "Concatenate": _joined,
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D", "UpSampling2D"), _same),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D", "AveragePooling1D", "AveragePooling2D"), _same),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D"), _same),
    "Flatten": _flat,
    **dict.fromkeys(("Conv1D", "Conv2D", "DepthwiseConv2D", "Dense"), _computed),
}


# --- where a file has their weights ----------------------------------------------------------------------------------


def _dense(layer: Any) -> tuple[np.ndarray, int]:
    return np.asarray(layer.kernel, np.float64).T, 0


def _convolution(layer: Any) -> tuple[np.ndarray, int] | None:
    if layer.groups != 1:
        return None
    kernel = np.moveaxis(np.asarray(layer.kernel, np.float64), -1, 0)
    return (kernel if kernel.ndim == 4 else kernel[:, None]), 0


def _depthwise(layer: Any) -> tuple[np.ndarray, int]:
    kernel = np.asarray(layer.depthwise_kernel, np.float64)
    return kernel.reshape(1, *kernel.shape[:2], -1), 3


_KERNELS: Mapping[str, Callable[[Any], Any]] = {
    "Dense": _dense,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
}
