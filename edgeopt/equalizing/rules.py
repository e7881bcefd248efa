"""How each kind of layer hands on a scale: a call and its input tensors go in, the channels of its outputs come out.

The rules of `shrinking` say which channels are the same along a graph. Here a channel is a number that a value may be
divided by: what only moves or adds values hands the numbers on as there, what multiplies with weights of its own reads
some and makes others, and what is no f(s·x) = s·f(x) leaves them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.graph import Call
from edgeopt.shrinking.rules import RULES as CARRIED
from edgeopt.shrinking.rules import Rule, kind_of, operation_of, unknown
from edgeopt.shrinking.tracing import Axes, Trace, Value
from edgeopt.shrinking.units import Axis

# Activations with f(s·x) = s·f(x) for every s > 0.
HOMOGENEOUS = frozenset({"linear", "relu", "leaky_relu"})
# Operations of one tensor that are so, and, with a number for the other, of two.
_UNARY = frozenset(
    (
        *("cast", "identity", "stop_gradient", "math.abs", "math.negative", "nn.relu", "nn.leaky_relu"),
        *("Absolute", "Cast", "LeakyRelu", "Negative", "Relu"),
    )
)
_PRODUCTS = frozenset({"math.multiply", "math.divide", "math.truediv", "Multiply", "Divide", "TrueDivide"})
_SUMS = frozenset({"__operators__.add", "math.add", "math.subtract", "math.maximum", "math.minimum"}) | frozenset(
    {"Add", "Subtract", "Maximum", "Minimum"}
)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A weight of a layer, and what it has to be multiplied with: the scales of `given` over those of `made`.

    Attributes:
        attribute: the layer's name for it.
        given, made: channel numbers, of a shape that broadcasts to the weight's; None where there are none.
        is_kernel: whether it multiplies values that come in; the others are added to what comes out.
    """

    attribute: str
    given: np.ndarray | None = None
    made: np.ndarray | None = None
    is_kernel: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """A layer with weights that reads scaled channels, or makes them.

    Attributes:
        weights: those that follow the scales; the others stay as they are.
        sums: why what it reads must not be shifted, "" where a shift of its inputs is one of its outputs.
    """

    layer: Any
    name: str
    weights: tuple[Scaled, ...]
    sums: str = ""

    @property
    def kernels(self) -> tuple[Scaled, ...]:
        """Those of the weights that multiply."""
        return tuple(scaled for scaled in self.weights if scaled.is_kernel)


@dataclass
class Shift:
    """Channels that must not be shifted, and why."""

    ids: np.ndarray
    reason: str


class ScaleTrace(Trace):
    """Collects what the rules find.

    Attributes:
        sites: by the layer's id.
        places: the channels on the axes of each tensor that carries any, by its id.
        unshiftable: what may be scaled, but not shifted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, Site] = {}
        self.places: dict[int, Axes] = {}
        self.unshiftable: list[Shift] = []

    def site(self, call: Call, *weights: Scaled, sums: str = "") -> None:
        """Notes a layer's weights; at a later call the channels of the first one are tied to those of this."""
        there = tuple(scaled for scaled in weights if getattr(call.layer, scaled.attribute, None) is not None)
        known = self.sites.get(id(call.layer))
        if known is None:
            self.sites[id(call.layer)] = Site(call.layer, call.name, there, sums)
            return
        reason = f"{call.name} is called elsewhere, where they have no scale"
        for before, now in zip(known.weights, there):
            for one, other in ((before.given, now.given), (before.made, now.made)):
                if one is not None or other is not None:
                    self.units.tie(
                        None if one is None else one.ravel(), None if other is None else other.ravel(), reason
                    )

    def made(self, call: Call, count: int, of: int = 0) -> np.ndarray:
        """Returns the channels that a layer makes, with its `of`-th kernel: new ones at its first call."""
        known = self.sites.get(id(call.layer))
        if known is None:
            return self.units.fresh(count)
        ids = known.kernels[of].made
        assert ids is not None
        return ids.ravel()

    def forbid_shift(self, value: Value, reason: str) -> None:
        """Notes that no channel of `value` may be shifted."""
        self.unshiftable += (Shift(ids, reason) for ids in value.axes if ids is not None)


def along(ids: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Returns channel numbers so that they broadcast along one axis of a weight."""
    shape = [1] * rank
    shape[axis] = -1
    return ids.reshape(shape)


def activation_of(layer: Any) -> str:
    """Returns the name of a layer's own activation, "linear" where it has none."""
    return str(getattr(getattr(layer, "activation", None), "__name__", "linear"))


def _not_kept(trace: Trace, call: Call, value: Value, what: str) -> None:
    trace.freeze(value, f"{what} does not keep a scale")


def _others_frozen(trace: Trace, call: Call, value: Value, channel: int) -> np.ndarray:
    """Returns the channels on an axis; those on the others stay, since weights do not follow them."""
    others = [axis for axis in range(value.rank) if axis != channel % value.rank]
    trace.freeze(value, f"{call.name} mixes what is on that axis", others)
    ids = value.axes[channel]
    return trace.units.frozen(value.shape[channel] or 0, "they are the model's input") if ids is None else ids


def _channel_axis(layer: Any, value: Value) -> int:
    return 0 if getattr(layer, "data_format", None) == "channels_first" else value.rank - 1


def _placed(value: Value, channel: int, ids: Axis) -> Axes:
    return tuple(ids if axis == channel % value.rank else None for axis in range(value.rank))


def _made_axis(trace: ScaleTrace, call: Call, made: np.ndarray) -> np.ndarray:
    """Freezes what a layer makes where its own activation does not keep a scale."""
    name = activation_of(call.layer)
    if name not in HOMOGENEOUS:
        trace.units.freeze(made, f"the activation {name} of {call.name} does not keep a scale")
    return made


def _pads(call: Call) -> str:
    """Returns why a convolution's inputs must not be shifted: zeros beside them would not be."""
    layer = call.layer
    wide = any(size > 1 for size in layer.kernel_size)
    return f"{call.name} pads with zeros" if wide and layer.padding != "valid" else ""


def _convolution(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    given, rank = _others_frozen(trace, call, value, channel), len(layer.kernel_size) + 2
    if layer.groups > 1:
        trace.freeze(value, f"{call.name} reads them in {layer.groups} groups")
        given = given[: len(given) // layer.groups]
    made = trace.made(call, layer.filters)
    trace.site(
        call,
        Scaled("kernel", along(given, rank - 2, rank), along(made, rank - 1, rank), is_kernel=True),
        Scaled("bias", made=made),
        sums=_pads(call),
    )
    return [_placed(value, channel, _made_axis(trace, call, made))]


def _transposed(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    given, rank = _others_frozen(trace, call, value, channel), len(layer.kernel_size) + 2
    made = trace.made(call, layer.filters)
    trace.site(
        call,
        Scaled("kernel", along(given, rank - 1, rank), along(made, rank - 2, rank), is_kernel=True),
        Scaled("bias", made=made),
        sums=f"{call.name} sums fewer of them at its borders",
    )
    return [_placed(value, channel, _made_axis(trace, call, made))]


def _depthwise(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    """Each channel has weights of its own: what goes in and what comes out may have different scales."""
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    given, multiplier = _others_frozen(trace, call, value, channel), layer.depth_multiplier
    made = trace.made(call, (value.shape[channel] or 0) * multiplier)
    shape = (*(1,) * len(layer.kernel_size), -1, multiplier)
    trace.site(
        call,
        Scaled("depthwise_kernel", along(given, len(shape) - 2, len(shape)), made.reshape(shape), is_kernel=True),
        Scaled("bias", made=made),
        sums=_pads(call),
    )
    return [_placed(value, channel, _made_axis(trace, call, made))]


def _separable(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    given, multiplier = _others_frozen(trace, call, value, channel), layer.depth_multiplier
    inner = trace.made(call, (value.shape[channel] or 0) * multiplier)
    made = trace.made(call, layer.filters, of=1)
    shape = (*(1,) * len(layer.kernel_size), -1, multiplier)
    rank = len(shape)
    trace.site(
        call,
        Scaled("depthwise_kernel", along(given, rank - 2, rank), inner.reshape(shape), is_kernel=True),
        Scaled("pointwise_kernel", along(inner, rank - 2, rank), along(made, rank - 1, rank), is_kernel=True),
        Scaled("bias", made=made),
        sums=f"{call.name} has two kernels",
    )
    return [_placed(value, channel, _made_axis(trace, call, made))]


def _dense(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    given = _others_frozen(trace, call, value, value.rank - 1)
    made = trace.made(call, layer.units)
    trace.site(
        call,
        Scaled("kernel", along(given, 0, 2), along(made, 1, 2), is_kernel=True),
        Scaled("bias", made=made),
    )
    return [_placed(value, value.rank - 1, _made_axis(trace, call, made))]


def _embedding(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    made = trace.made(call, call.layer.output_dim)
    trace.site(call, Scaled("embeddings", made=along(made, 1, 2), is_kernel=True))
    return [(*(None,) * values[0].rank, made)]


def _batch_normalization(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    # Keras counts the batch.
    axes = [axis - 1 for axis in layer.axis]
    if len(axes) > 1 or not layer.scale:
        return _unknown(trace, call, values)
    given = _others_frozen(trace, call, value, axes[0])
    made = trace.made(call, value.shape[axes[0]] or 0)
    trace.site(
        call,
        Scaled("gamma", given, made, is_kernel=True),
        Scaled("beta", made=made),
        Scaled("moving_mean", made=given),
    )
    return [_placed(value, axes[0], made)]


def _layer_scale(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    value = values[0]
    given, made = _others_frozen(trace, call, value, value.rank - 1), trace.made(call, value.shape[-1] or 0)
    trace.site(call, Scaled("gamma", given, made, is_kernel=True), sums=f"{call.name} has no bias")
    return [_placed(value, value.rank - 1, made)]


def _same(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    return [values[0].axes]


def _relu(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer = call.layer
    if layer.max_value is not None:
        _not_kept(trace, call, values[0], f"{call.name}, which clips at {float(layer.max_value):g},")
    elif layer.threshold:
        _not_kept(trace, call, values[0], f"{call.name}, with a threshold,")
    return [values[0].axes]


def _activation(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    name = activation_of(call.layer)
    if name not in HOMOGENEOUS:
        _not_kept(trace, call, values[0], f"the activation {name} of {call.name}")
    return [values[0].axes]


def _otherwise(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    """What is neither linear nor a product with weights: normalizations of values, gates, other activations."""
    for value in values:
        _not_kept(trace, call, value, f"{call.name} ({operation_of(call)[0] or type(call.layer).__name__})")
    return _handed_on(call, values)


def _unknown(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    unknown(trace, call, values)
    return _handed_on(call, values)


def _handed_on(call: Call, values: list[Value]) -> list[Axes]:
    """Returns channels that have no scale any more, so that it is said of the layers on either side."""
    if not values or tuple(call.outputs[0].shape)[1:] != values[0].shape:
        return []
    return [values[0].axes]


def _rescaling(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    layer = call.layer
    if np.ndim(layer.scale) or np.any(layer.offset):
        return _otherwise(trace, call, values)
    trace.forbid_shift(values[0], f"{call.name} multiplies them")
    return [values[0].axes]


def _computed(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    """What functions on tensors became: `x + y`, `tf.nn.relu(x)`, `keras.ops.add(x, y)`."""
    name, args, kwargs = operation_of(call)
    alone = len(values) == 1
    if name in _SUMS and not alone:
        return _sum(trace, call, values)
    others = [leaf for key, leaf in [*enumerate(args), *kwargs.items()] if key != "name"]
    numbers = [leaf for leaf in others if not hasattr(leaf, "_keras_history") and leaf is not None]
    first = bool(others) and hasattr(others[0], "_keras_history")
    if alone and ((name in _UNARY) or (name in _PRODUCTS and first and all(np.ndim(leaf) == 0 for leaf in numbers))):
        if "elu" not in name.lower():
            trace.forbid_shift(values[0], f"{call.name} is no sum")
        return [values[0].axes]
    return _otherwise(trace, call, values)


def _carried(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    return CARRIED[kind_of(call.layer)](trace, call, values)


def _sum(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    """What is joined has one scale; a shift of one of the sides would be one of all."""
    for value in values:
        trace.forbid_shift(value, f"{call.name} joins them with others")
    return _carried(trace, call, values)


def _padding(trace: ScaleTrace, call: Call, values: list[Value]) -> list[Axes]:
    trace.forbid_shift(values[0], f"{call.name} pads with zeros")
    return _carried(trace, call, values)


def _noted(rule: Any) -> Rule:
    """Returns a rule that also keeps where the channels of its outputs are."""

    def noted(trace: Any, call: Call, values: list[Value]) -> list[Axes]:
        made: list[Axes] = rule(trace, call, values)
        trace.places.update((id(tensor), axes) for tensor, axes in zip(call.outputs, made))
        return made

    return noted


def _each(rule: Any, kinds: Sequence[str]) -> dict[str, Rule]:
    return dict.fromkeys(kinds, _noted(rule))


def _in(pattern: str, *dimensions: int) -> list[str]:
    return [pattern.format(d) for d in dimensions]


RULES: Mapping[str, Rule] = {
    **_each(_same, ("ActivityRegularization", "Identity", "Dropout", "AlphaDropout", "GaussianDropout")),
    **_each(_same, ("GaussianNoise", "StochasticDepth", *_in("SpatialDropout{}D", 1, 2, 3))),
    **_each(_same, ("LeakyReLU", "PReLU")),
    **_each(_relu, ("ReLU",)),
    **_each(_activation, ("Activation", "KerasActivation")),
    **_each(_otherwise, ("ELU", "ThresholdedReLU", "Softmax", "Multiply", "Dot", "LayerNormalization")),
    **_each(_otherwise, ("GroupNormalization", "UnitNormalization", "MultiHeadAttention")),
    **_each(_otherwise, ("SimpleRNN", "LSTM", "GRU")),
    **_each(_convolution, _in("Conv{}D", 1, 2, 3)),
    **_each(_transposed, _in("Conv{}DTranspose", 1, 2, 3)),
    **_each(_depthwise, _in("DepthwiseConv{}D", 1, 2)),
    **_each(_separable, _in("SeparableConv{}D", 1, 2)),
    **_each(_dense, ("Dense",)),
    **_each(_embedding, ("Embedding",)),
    **_each(_batch_normalization, ("BatchNormalization", "SyncBatchNormalization")),
    **_each(_layer_scale, ("LayerScale",)),
    **_each(_rescaling, ("Rescaling",)),
    **_each(_sum, ("Add", "Subtract", "Average", "Maximum", "Minimum", "CustomScaleLayer")),
    **_each(_carried, ("Concatenate", "Reshape", "Flatten", "Permute", "RepeatVector")),
    **_each(_carried, (*_in("AveragePooling{}D", 1, 2, 3), *_in("MaxPooling{}D", 1, 2, 3))),
    **_each(_carried, (*_in("GlobalAveragePooling{}D", 1, 2, 3), *_in("GlobalMaxPooling{}D", 1, 2, 3))),
    **_each(_carried, (*_in("Cropping{}D", 1, 2, 3), *_in("UpSampling{}D", 1, 2, 3), "Resizing", "CenterCrop")),
    **_each(_padding, _in("ZeroPadding{}D", 1, 2, 3)),
    **_each(_computed, ("TFOpLambda", "KerasOperation")),
    **_each(_unknown, ("",)),
}
