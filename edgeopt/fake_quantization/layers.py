"""A layer goes in, the same one with rounded weights or a rounded output comes out, as tfmot's wrappers do it."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeopt.frameworks import load

tfmot: Any = load("tfmot")
keras: Any = load("tf_keras")

# An all-zero channel still needs a range.
_SMALLEST = 1e-8


def rounded(weights: Any, axes: Sequence[int], *, bits: int = 8, scales: Any = None) -> Any:
    """Returns weights rounded to integers of `bits`, symmetric, times a scale for each channel along `axes`.

    Args:
        weights: of any shape.
        axes: neighbours, the channels'.
        bits: 4 bits are -7 to 7.
        scales: [channels]; None: the largest weight of a channel is its largest integer, as the weights are now.
    """
    tf = load("tensorflow")
    rank = len(weights.shape)
    kept = [axis % rank for axis in axes]
    order = [axis for axis in range(rank) if axis not in kept] + kept
    channels = 1
    for axis in kept:
        channels *= weights.shape[axis]
    moved = tf.transpose(weights, order)
    rows = tf.reshape(moved, [-1, channels])
    if scales is None:
        limit = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(rows), axis=0), _SMALLEST))
        rows = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            rows, -limit, limit, num_bits=bits, narrow_range=True
        )
    else:
        rows = _on_grid(rows, scales, largest(bits))
    return tf.transpose(tf.reshape(rows, tf.shape(moved)), [order.index(axis) for axis in range(rank)])


def largest(bits: int) -> int:
    """Returns the largest integer of a symmetric weight."""
    return int(2 ** (bits - 1)) - 1


def _on_grid(rows: Any, scales: Any, most: int) -> Any:
    """Returns [weights, channels] rounded to integers of at most `most` times `scales`, with the gradients of LSQ.

    Esser et al., "Learned Step Size Quantization" (arXiv 1902.08153), equations 1 to 3 and section 2.2: a weight inside
    the range passes its gradient on; the scale gets the error of the rounding, and the whole of a weight outside.
    """
    tf = load("tensorflow")
    gain = 1 / math.sqrt(int(rows.shape[0]) * most)
    scales = scales * gain + tf.stop_gradient(scales * (1 - gain))
    steps = tf.clip_by_value(rows / scales, -most, most)
    return (steps + tf.stop_gradient(tf.round(steps) - steps)) * scales


def best_scales(weights: np.ndarray, axes: Sequence[int], bits: int) -> np.ndarray:
    """Returns for each channel the scale with the least squared error of its rounded weights, float32 [channels]."""
    rank = weights.ndim
    kept = [axis % rank for axis in axes]
    order = [axis for axis in range(rank) if axis not in kept] + kept
    channels = int(np.prod([weights.shape[axis] for axis in kept]))
    rows = weights.transpose(order).reshape(-1, channels)
    most = largest(bits)
    limit = np.maximum(np.abs(rows).max(axis=0), _SMALLEST)
    best, least = limit / most, np.full(channels, np.inf)
    for share in np.linspace(0.2, 1.0, 81):
        scales = limit * share / most
        error = np.square(np.clip(np.round(rows / scales), -most, most) * scales - rows).sum(axis=0)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best.astype(np.float32)


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Rounds a weight as `rounded` does, below eight bits with scales that are learned.

    tfmot's own takes a scale for each index of the last axis, which is one for all channels of a depthwise kernel,
    keeps the range of the training step before, and has no scale below the largest weight's.
    """

    def __init__(self, axes: Sequence[int], bits: int = 8, weight: Any = None) -> None:
        self.axes, self.bits, self._weight = tuple(axes), bits, weight

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Returns the logarithms of the scales, which start at the least squared error; none at eight bits."""
        if self.bits == 8:
            return {}
        first = np.log(best_scales(self._weight.numpy(), self.axes, self.bits))
        make = keras.initializers.Constant(first)
        return {"scales": layer.add_weight(f"{name}_scales", shape=first.shape, initializer=make, trainable=True)}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Returns the rounded weight."""
        scales = load("tensorflow").exp(weights["scales"]) if weights else None
        return rounded(inputs, self.axes, bits=self.bits, scales=scales)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes it anew."""
        return {"axes": self.axes, "bits": self.bits}


class Participation(tfmot.quantization.keras.QuantizeConfig):
    """Which weights of a layer are rounded, and whether its output is.

    Args:
        weights: attribute and channel axes of each.
        output: whether the output's range is kept as a moving average.
    """

    def __init__(self, weights: Sequence[tuple[str, Sequence[int]]] = (), output: bool = False, bits: int = 8) -> None:
        self.weights = tuple((name, tuple(axes)) for name, axes in weights)
        self.output, self.bits = output, bits

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Returns each weight with what rounds it."""
        return [
            (weight := getattr(layer, name), WeightQuantizer(axes, self.bits, weight)) for name, axes in self.weights
        ]

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        """Gives the layer its rounded weights to compute with."""
        for (name, _), value in zip(self.weights, quantize_weights):
            setattr(layer, name, value)

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """Returns none: outputs are rounded where operators end, by layers of their own."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        """Does nothing, as there are none."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Returns what rounds the output."""
        quantizers = tfmot.quantization.keras.quantizers
        average = quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        return [average] if self.output else []

    def get_config(self) -> dict[str, Any]:
        """Returns what makes it anew."""
        return {"weights": self.weights, "output": self.output, "bits": self.bits}


class Wrapper(tfmot.quantization.keras.QuantizeWrapperV2):
    """tfmot's wrapper, through which the masks of Embedding and Masking pass as through the layer that it holds."""

    def __init__(self, layer: Any, quantize_config: Any, **kwargs: Any) -> None:
        super().__init__(layer, quantize_config, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Returns what the layer computes; it gets the mask where it takes one."""
        if "mask" in inspect.signature(self.layer.call).parameters:
            kwargs["mask"] = mask
        return tfmot.quantization.keras.QuantizeWrapperV2.call(self, inputs, training=training, **kwargs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask of the output."""
        return self.layer.compute_mask(inputs, mask) if self.layer.supports_masking else None


def with_rounded_weights(layer: Any, weights: Sequence[tuple[str, Sequence[int]]], bits: int = 8) -> Any:
    """Returns a built layer wrapped so that it computes with weights rounded to `bits`."""
    return Wrapper(layer, Participation(weights, bits=bits), name=f"{layer.name}_int{bits}")


def range_layer(name: str) -> Any:
    """Returns a layer that rounds what goes through it to int8; `set_range` before it is used."""
    identity = keras.layers.Activation("linear", name=f"{name}_identity")
    return Wrapper(identity, Participation(output=True), name=name)


def set_range(layer: Any, low: float, high: float) -> None:
    """Sets the range of a layer that `range_layer` made and that was called; 0 is always in it."""
    layer._output_quantizer_vars["min_var"].assign(min(low, 0.0))
    layer._output_quantizer_vars["max_var"].assign(max(high, low + _SMALLEST, 0.0))


def range_of(layer: Any) -> tuple[float, float] | None:
    """Returns the range that a layer rounds its output to; None where it does not."""
    if not is_wrapper(layer) or not layer.quantize_config.output:
        return None
    found = layer._output_quantizer_vars
    return float(found["min_var"]), float(found["max_var"])


def is_wrapper(layer: Any) -> bool:
    """Whether a layer was made here."""
    return isinstance(layer, Wrapper)


def rounded_weights(layer: Any) -> list[tuple[str, Any, Callable[[], Any]]]:
    """Returns of each rounded weight of a wrapper the attribute, the variable that is trained, and what rounds it."""
    pairs = zip(layer.quantize_config.weights, layer._weight_vars)
    return [
        (name, variable, functools.partial(quantizer, variable, training=False, weights=learned))
        for (name, _), (variable, quantizer, learned) in pairs
    ]


class Keep(keras.constraints.Constraint):
    """Keeps zeros zero and equal weights equal, whatever an optimizer did to them.

    Each group of weights that were equal gets its mean, which is the step that a weight shared by them takes. tfmot's
    preserving schemes look clusters up anew at each step, which merges some, and take a channel's smallest centroid
    for its zero.

    Args:
        values: the weights as they have to stay in zeros and equality.
        zeros, clusters: which of the two is kept.
    """

    def __init__(self, values: Any, *, zeros: bool, clusters: bool) -> None:
        import numpy as np

        distinct, groups = np.unique(values, return_inverse=True)
        self._groups = groups.reshape(values.shape).astype(np.int32)
        self._count = len(distinct)
        self._alive = (distinct != 0).astype(np.float32) if zeros else np.ones(len(distinct), np.float32)
        self._clusters = clusters

    def __call__(self, weight: Any) -> Any:
        """Returns the weight brought back to what is kept."""
        tf = load("tensorflow")
        if self._clusters:
            means = tf.math.unsorted_segment_mean(
                tf.reshape(weight, [-1]), tf.reshape(tf.constant(self._groups), [-1]), self._count
            )
            return tf.gather(means * self._alive, self._groups)
        return weight * tf.gather(self._alive, self._groups)
