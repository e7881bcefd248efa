"""How each kind of layer carries channels: a call and its input tensors go in, the channels of its outputs come out.

A rule is exact or freezes what it cannot follow: every kind that has none makes its inputs' channels untouchable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from edgeopt.graph import Call, leaves
from edgeopt.shrinking.tracing import Axes, Trace, Value, dims
from edgeopt.shrinking.units import Axis

# A rule takes the trace, the call and its input tensors, and returns the axes of its outputs.
Rule = Callable[[Trace, Call, list[Value]], list[Axes]]

ELEMENTWISE = frozenset(
    (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "tanh"),
        *("sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "soft_shrink"),
        *("tanh_shrink", "softplus", "softsign", "exponential", "log_sigmoid", "squareplus", "threshold"),
        *("sparse_plus", "sparse_sigmoid"),
    )
)
# TensorFlow symbols and Keras 3 operations of one tensor that work on each element alone.
UNARY = frozenset(
    (
        *("cast", "clip_by_value", "identity", "stop_gradient", "math.abs", "math.exp", "math.log", "math.negative"),
        *("math.rsqrt", "math.sqrt", "math.square", "math.sigmoid", "math.tanh", "math.softplus", "nn.elu", "nn.gelu"),
        *("nn.relu", "nn.relu6", "nn.selu", "nn.silu", "nn.swish", "nn.leaky_relu", "nn.softplus", "nn.softsign"),
        *("nn.sigmoid", "nn.tanh", "sigmoid", "tanh"),
        *("Absolute", "Cast", "Celu", "Clip", "Elu", "Exp", "Gelu", "HardShrink", "HardSigmoid", "HardSilu"),
        *("HardTanh", "LeakyRelu", "Log", "LogSigmoid", "Negative", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid"),
        *("Silu", "SoftShrink", "Softplus", "Softsign", "Sqrt", "Square", "Squareplus", "Tanh", "TanhShrink"),
        *("Threshold",),
    )
)
BINARY = frozenset(
    (
        *("__operators__.add", "math.add", "math.subtract", "math.multiply", "math.divide", "math.truediv"),
        *("math.maximum", "math.minimum", "math.pow", "math.squared_difference"),
        *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Power"),
    )
)
# What the names of operations that multiply matrices hold.
_PRODUCTS = ("matmul", "einsum", "dot", "conv")
# Layers that carry a state from step to step.
_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


def outputs_of(
    trace: Trace,
    call: Call,
    values: list[Value],
    shapes: list[tuple[int | None, ...]],
    rules: Mapping[str, Rule] | None = None,
) -> list[Axes]:
    """Returns the channels on the axes of a call's outputs.

    Args:
        trace: where the rule notes what it finds.
        call: what is called.
        values: its input tensors, in the order of `leaves((args, kwargs))`.
        shapes: of its outputs, without the batch.
        rules: by the layer's kind, with that of all other kinds at ""; RULES, of what may be cut, when None.
    """
    trace.begin()
    table = RULES if rules is None else rules
    rule = table.get(kind_of(call.layer), table[""])
    made = rule(trace, call, values)
    return made or [(None,) * len(shape) for shape in shapes]


def kind_of(layer: Any) -> str:
    """Returns the name of a layer's class if it is one of Keras' or of edgeopt's stand-ins, else ""."""
    module = type(layer).__module__
    known = module.startswith("tf_keras.") or (module.startswith("edgeopt.") and type(layer).__name__.startswith("Ker"))
    return type(layer).__name__ if known else ""


def unknown(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    """Leaves alone what a call reads: it may do anything with it."""
    for value in values:
        trace.freeze(value, f"read by {_words(call)}, of which is not known how it treats channels")
    name = operation_of(call)[0].lower()
    if call.layer.weights or type(call.layer).__name__.endswith("Attention") or any(p in name for p in _PRODUCTS):
        trace.uncounted.append(call.name)
    return []


def _words(call: Call) -> str:
    return f"{call.name} ({operation_of(call)[0] or type(call.layer).__name__})"


def _same(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    return [values[0].axes]


def _frozen(trace: Trace, call: Call, value: Value, axes: Sequence[int]) -> None:
    trace.freeze(value, f"{_words(call)} mixes what is on that axis", axes)


def _channel_axis(layer: Any, value: Value) -> int:
    return 0 if getattr(layer, "data_format", None) == "channels_first" else value.rank - 1


def _with(axes: Axes, axis: int, ids: Axis) -> Axes:
    return (*axes[:axis], ids, *axes[axis % len(axes) + 1 :])


def _spatial(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    """Layers that work along space and leave channels apart: pooling, padding, cropping, resizing."""
    value = values[0]
    channel = _channel_axis(call.layer, value)
    _frozen(trace, call, value, [axis for axis in range(value.rank) if axis != channel])
    return [_with((None,) * value.rank, channel, value.axes[channel])]


def _global_pooling(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    (axes,) = _spatial(trace, call, values)
    return [axes if call.layer.keepdims else (axes[_channel_axis(call.layer, values[0])],)]


def _activation(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    name = getattr(call.layer.activation, "__name__", "")
    if name in ELEMENTWISE:
        return [values[0].axes]
    trace.freeze(values[0], f"the activation {name or 'function'} of {call.name} does not work on each value alone")
    return [values[0].axes]


def _fused_activation(trace: Trace, call: Call, made: Axis) -> Axis:
    name = getattr(call.layer.activation, "__name__", "")
    if name not in ELEMENTWISE:
        reason = f"the activation {name or 'function'} of {call.name} does not work on each value alone"
        trace.units.freeze(made, reason)
    return made


def _softmax(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    axis = call.layer.axis
    value = values[0]
    # Keras counts the batch.
    axes = [a - 1 if a >= 0 else value.rank + a for a in (axis if isinstance(axis, (list, tuple)) else [axis])]
    _frozen(trace, call, value, axes)
    return [value.axes]


def _convolution(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    _frozen(trace, call, value, [axis for axis in range(value.rank) if axis != channel])
    if layer.groups > 1:
        return _grouped_convolution(trace, call, value, channel)
    given = trace.read(value, channel)
    made = _made(trace, layer, layer.filters)
    space = (None,) * len(layer.kernel_size)
    use = trace.use(
        layer, call.name, {"kernel": (*space, given, made), "bias": (made,)}, config=_counted("filters", made)
    )
    _makes(use, made, [(0, len(space) + 1)])
    _fused_activation(trace, call, made)
    out = _with((None,) * value.rank, channel, made)
    sizes = _sizes(call, out)
    trace.macs(prod(layer.kernel_size), [*sizes, (value.shape[channel], given)])
    return [out]


def _grouped_convolution(trace: Trace, call: Call, value: Value, channel: int) -> list[Axes]:
    """A group's inputs and outputs go together, so that whole groups may go."""
    layer, given = call.layer, value.axes[channel]
    space = (None,) * len(layer.kernel_size)
    channels = value.shape[channel] or 0
    per_group = channels // layer.groups
    made: Axis = None
    groups: Axis = None
    if given is not None:
        made = _made(trace, layer, layer.filters)
        if made is not None:
            for members in np.concatenate([given.reshape(layer.groups, -1), made.reshape(layer.groups, -1)], axis=-1):
                trace.units.together(members)
            groups = given[::per_group]
    use = trace.use(
        layer,
        call.name,
        {"kernel": (*space, None, made), "bias": (made,)},
        config={**_counted("filters", made), **_counted("groups", groups)},
    )
    _makes(use, made, [(0, len(space) + 1)])
    _fused_activation(trace, call, made)
    out = _with((None,) * value.rank, channel, made)
    trace.macs(prod(layer.kernel_size) * per_group, _sizes(call, out))
    return [out]


def _transposed(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    _frozen(trace, call, value, [axis for axis in range(value.rank) if axis != channel])
    given = trace.read(value, channel)
    made = _made(trace, layer, layer.filters)
    space = (None,) * len(layer.kernel_size)
    use = trace.use(
        layer, call.name, {"kernel": (*space, made, given), "bias": (made,)}, config=_counted("filters", made)
    )
    _makes(use, made, [(0, len(space))])
    _fused_activation(trace, call, made)
    trace.macs(prod(layer.kernel_size), [*_placed(value, channel, given), (layer.filters, made)])
    return [_with((None,) * value.rank, channel, made)]


def _depthwise(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    _frozen(trace, call, value, [axis for axis in range(value.rank) if axis != channel])
    given = value.axes[channel]
    made = None if given is None else np.repeat(given, layer.depth_multiplier)
    space = (None,) * len(layer.kernel_size)
    use = trace.use(layer, call.name, {"depthwise_kernel": (*space, given, None), "bias": (made,)})
    if given is not None:
        use.judged = [(0, len(space))]
    _fused_activation(trace, call, made)
    out = _with((None,) * value.rank, channel, made)
    trace.macs(prod(layer.kernel_size), _sizes(call, out))
    return [out]


def _separable(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    channel = _channel_axis(layer, value)
    _frozen(trace, call, value, [axis for axis in range(value.rank) if axis != channel])
    given = trace.read(value, channel)
    made = _made(trace, layer, layer.filters)
    inner = None if given is None else np.repeat(given, layer.depth_multiplier)
    space = (None,) * len(layer.kernel_size)
    use = trace.use(
        layer,
        call.name,
        {
            "depthwise_kernel": (*space, given, None),
            "pointwise_kernel": (*space, inner, made),
            "bias": (made,),
        },
        config=_counted("filters", made),
    )
    _makes(use, made, [(1, len(space) + 1)])
    _fused_activation(trace, call, made)
    out = _with((None,) * value.rank, channel, made)
    width = (value.shape[channel] or 0) * layer.depth_multiplier
    places = [size for axis, size in enumerate(_sizes(call, out)) if axis != channel]
    trace.macs(prod(layer.kernel_size), [*places, (width, inner)])
    trace.macs(1, [*places, (width, inner), (layer.filters, made)])
    return [out]


def _dense(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    given = trace.read(value, value.rank - 1)
    made = _made(trace, layer, layer.units)
    use = trace.use(layer, call.name, {"kernel": (given, made), "bias": (made,)}, config=_counted("units", made))
    _makes(use, made, [(0, 1)])
    _fused_activation(trace, call, made)
    trace.macs(1, [*dims(value), (layer.units, made)])
    return [(*value.axes[:-1], made)]


def _embedding(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer = call.layer
    trace.freeze(values[0], f"{_words(call)} looks them up")
    made = _made(trace, layer, layer.output_dim)
    use = trace.use(layer, call.name, {"embeddings": (None, made)}, config=_counted("output_dim", made))
    _makes(use, made, [(0, 1)])
    return [(*(None,) * values[0].rank, made)]


def _batch_normalization(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    # Keras counts the batch.
    axes = [axis - 1 for axis in layer.axis]
    if len(axes) > 1:
        return unknown(trace, call, values)
    ids = value.axes[axes[0]]
    use = trace.use(layer, call.name, dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (ids,)))
    use.scale = 0 if layer.scale else None
    return [value.axes]


def _layer_normalization(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    axes = [axis - 1 if axis > 0 else axis % value.rank for axis in leaves(layer.axis)]
    if len(axes) > 1:
        return unknown(trace, call, values)
    ids = value.axes[axes[0]]
    trace.use(layer, call.name, {"gamma": (ids,), "beta": (ids,)})
    trace.inner[-1] = ids
    trace.read(value, axes[0])
    return [value.axes]


def _group_normalization(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer, value = call.layer, values[0]
    axis = layer.axis - 1 if layer.axis > 0 else layer.axis % value.rank
    ids = value.axes[axis]
    groups = layer.groups if layer.groups > 0 else value.shape[axis] or 1
    counted: Axis = None
    if ids is not None and groups == 1:
        _frozen(trace, call, value, [axis])
    elif ids is not None:
        rows = ids.reshape(groups, -1)
        for members in rows:
            trace.units.together(members)
        counted = rows[:, 0]
    trace.use(layer, call.name, {"gamma": (ids,), "beta": (ids,)}, config=_counted("groups", counted))
    return [value.axes]


def _unit_normalization(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    value = values[0]
    for axis in leaves(call.layer.axis):
        # A channel that is zero adds nothing to the sum of squares.
        trace.read(value, axis - 1 if axis > 0 else axis % value.rank)
    return [value.axes]


def _layer_scale(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    ids = values[0].axes[-1]
    trace.use(call.layer, call.name, {"gamma": (ids,)}, config=_counted("projection_dim", ids))
    return [values[0].axes]


def _prelu(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    value = values[0]
    alpha = tuple(None if size == 1 else ids for size, ids in zip(call.layer.alpha.shape, value.axes))
    trace.use(call.layer, call.name, {"alpha": alpha})
    return [value.axes]


def _rescaling(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    layer = call.layer
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return unknown(trace, call, values)
    return [values[0].axes]


def _merge(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    if len({value.rank for value in values}) > 1:
        return unknown(trace, call, values)
    reason = f"joined by {_words(call)} with what is untouchable"
    merged: list[Axis] = []
    for axis in range(values[0].rank):
        sizes = [value.shape[axis] for value in values]
        # What has one element there is spread over all channels of the others.
        wide = [value for value, size in zip(values, sizes) if size != 1] or values
        for other in wide[1:]:
            trace.units.tie(wide[0].axes[axis], other.axes[axis], reason)
        merged.append(wide[0].axes[axis] if all(value.axes[axis] is not None for value in wide) else None)
    return [tuple(merged)]


def _concatenate(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    rank = values[0].rank
    axis = call.layer.axis - 1 if call.layer.axis > 0 else call.layer.axis % (rank + 1) - 1
    reason = f"joined by {_words(call)} with what is untouchable"
    joined: list[Axis] = []
    for a in range(rank):
        parts = [value.axes[a] for value in values]
        if a != axis:
            for other in parts[1:]:
                trace.units.tie(parts[0], other, reason)
            joined.append(parts[0] if all(part is not None for part in parts) else None)
        elif all(part is None for part in parts):
            joined.append(None)
        else:
            joined.append(np.concatenate([_filled(trace, value, a) for value in values]))
    return [tuple(joined)]


def _filled(trace: Trace, value: Value, axis: int) -> np.ndarray:
    ids = value.axes[axis]
    return trace.units.frozen(value.shape[axis] or 0, "they are the model's input") if ids is None else ids


def _reshape(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    value = values[0]
    target = tuple(call.outputs[0].shape)[1:]
    if all(ids is None for ids in value.axes):
        return [(None,) * len(target)]
    if None in value.shape or None in target or getattr(call.layer, "data_format", None) == "channels_first":
        return unknown(trace, call, values)
    axes: list[Axis] = [None] * len(target)
    for sources, targets in _blocks(value.shape, target):
        _reshape_block(trace, call, value, target, (sources, targets), axes)
    if kind_of(call.layer) == "Reshape":
        counted = tuple(size if ids is None else ids for size, ids in zip(target, axes))
        trace.use(call.layer, call.name, config={"target_shape": counted})
    return [tuple(axes)]


def _reshape_block(
    trace: Trace,
    call: Call,
    value: Value,
    target: tuple[int | None, ...],
    block: tuple[list[int], list[int]],
    axes: list[Axis],
) -> None:
    """Finds on which axis of a reshape's result, among those of `block`, the channels of its input lie."""
    sources, targets = block
    labelled = [axis for axis in sources if value.axes[axis] is not None]
    if len(labelled) > 1:
        trace.freeze(value, f"{_words(call)} mixes two axes of channels", labelled)
    if len(labelled) != 1:
        return
    shape = [value.shape[axis] or 0 for axis in sources]
    place = [1] * len(shape)
    place[sources.index(labelled[0])] = -1
    ids = np.broadcast_to(np.asarray(value.axes[labelled[0]]).reshape(place), shape)
    ids = ids.reshape([target[axis] or 0 for axis in targets])
    varying = [a for a in range(ids.ndim) if (ids != ids.take([0], axis=a)).any()]
    if not varying:
        trace.freeze(value, f"{_words(call)} leaves no axis for them", labelled)
        return
    kept = max(varying, key=lambda a: ids.shape[a])
    # Channels that come to lie in rows and columns go by whole columns.
    columns = np.moveaxis(ids, kept, 0).reshape(ids.shape[kept], -1)
    for members in columns if columns.shape[1] > 1 else ():
        trace.units.together(np.unique(members))
    axes[targets[kept]] = columns[:, 0]


def _blocks(source: Sequence[int | None], target: Sequence[int | None]) -> list[tuple[list[int], list[int]]]:
    """Returns which axes of a reshape's input become which of its result: the smallest runs of equal size."""
    found = []
    i = j = 0
    while i < len(source) or j < len(target):
        left, right = [i] if i < len(source) else [], [j] if j < len(target) else []
        one = (source[i] or 0) if left else 1
        other = (target[j] or 0) if right else 1
        i, j = i + len(left), j + len(right)
        while one != other:
            if one < other:
                one, left, i = one * (source[i] or 0), [*left, i], i + 1
            else:
                other, right, j = other * (target[j] or 0), [*right, j], j + 1
        found.append((left, right))
    return found


def _permute(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    return [tuple(values[0].axes[axis - 1] for axis in call.layer.dims)]


def _repeat(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    return [(None, values[0].axes[0])]


def _attention(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    """Multi-head attention: heads are units of their own, inside of the layer."""
    layer = call.layer
    given = attention_arguments(call.args, call.kwargs)
    if given is None or len(values) < 2 or layer._attention_axes != (1,) or values[0].rank != 2:
        return unknown(trace, call, values)
    order = [leaf for leaf in leaves((call.args, dict(call.kwargs))) if hasattr(leaf, "_keras_history")]
    of = {id(tensor): (position, value) for position, (tensor, value) in enumerate(zip(order, values))}
    (q_at, query), (v_at, content), (k_at, key) = (of[id(given[name])] for name in ("query", "value", "key"))
    attended = {id(given[name]) for name in ("query", "value", "key")}
    for tensor, value in zip(order, values):
        if id(tensor) not in attended:
            trace.freeze(value, f"{_words(call)} takes it as a mask")
    for value in (query, key, content):
        _frozen(trace, call, value, [0])
    reads = [trace.read(value, 1, at) for value, at in ((query, q_at), (key, k_at), (content, v_at))]
    known = trace.uses.get(id(layer))
    heads = known.heads[0] if known and known.heads else None if known else trace.make(layer._num_heads)
    made = known.made[0] if known and known.made else None if known else trace.make(_attention_width(layer))
    use = _use_attention(trace, call, (query, key, content), (reads, heads, made))
    if heads is not None:
        use.heads = [heads]
    if made is not None:
        use.made = [made]
    trace.inner[-1] = heads
    _attention_macs(trace, layer, (query, key, content), heads, made)
    return [(None, made)]


def attention_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what multi-head attention is called with, by name; None where it gives its scores away, too."""
    names = ("query", "value", "key", "attention_mask", "return_attention_scores", "training", "use_causal_mask")
    given = {**dict(zip(names, args)), **kwargs}
    if given.get("return_attention_scores") or "query" not in given or "value" not in given:
        return None
    given["key"] = given["value"] if given.get("key") is None else given["key"]
    return given


def _attention_width(layer: Any) -> int:
    return int(layer._output_dense.kernel.shape[-1])


def _use_attention(
    trace: Trace, call: Call, values: tuple[Value, Value, Value], ids: tuple[list[Axis], Axis, Axis]
) -> Any:
    layer = call.layer
    (query_in, key_in, value_in), heads, made = ids
    axes: dict[int, Axes] = {}
    parts = ((layer._query_dense, query_in), (layer._key_dense, key_in), (layer._value_dense, value_in))
    for dense, given in parts:
        axes[id(dense.kernel)] = (given, heads, None)
        axes[id(dense.bias)] = (heads, None)
    axes[id(layer._output_dense.kernel)] = (heads, None, made)
    axes[id(layer._output_dense.bias)] = (made,)
    shapes = {
        key: (None, *(size if i is None else i for size, i in zip(value.shape, value.axes)))
        for key, value in zip(("query_shape", "key_shape", "value_shape"), values)
    }
    width = _attention_width(layer) if made is None else made
    use = trace.use(layer, call.name, config={**_counted("num_heads", heads), "output_shape": (width,), **shapes})
    now = [axes.get(id(w), (None,) * len(w.shape)) for w in layer.weights]
    if len(use.weights) == len(now) and any(i is not None for before in use.weights for i in before):
        for before, after in zip(use.weights, now):
            for one, other in zip(before, after):
                trace.units.tie(one, other, f"the layer {call.name} is used elsewhere, where they are untouchable")
    else:
        use.weights = now
    index = next(i for i, w in enumerate(layer.weights) if w is layer._output_dense.kernel)
    values_at = next(i for i, w in enumerate(layer.weights) if w is layer._value_dense.kernel)
    use.judged = [(index, 2)] * (made is not None) + [(index, 0), (values_at, 1)] * (heads is not None)
    return use


def _attention_macs(trace: Trace, layer: Any, values: tuple[Value, Value, Value], heads: Axis, made: Axis) -> None:
    query, key, content = values
    head = (layer._num_heads, heads)
    for value, width in ((query, layer._key_dim), (key, layer._key_dim), (content, layer._value_dim)):
        trace.macs(width, [*dims(value), head])
    across = (query.shape[0] or 1) * (key.shape[0] or 1)
    trace.macs(across * (layer._key_dim + layer._value_dim), [head])
    trace.macs((query.shape[0] or 1) * layer._value_dim, [head, (_attention_width(layer), made)])


def _recurrent(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    """Reads its input's channels, in one direction or both; its own units are left whole."""
    layer, value = call.layer, values[0]
    ways = [layer.forward_layer, layer.backward_layer] if kind_of(layer) == "Bidirectional" else [layer]
    if len(values) > 1 or any(kind_of(way) not in _RECURRENT or way.return_state for way in ways):
        return unknown(trace, call, values)
    if any(_channel_axis(way, value) == 0 for way in ways):
        return unknown(trace, call, values)
    channel = value.rank - 1
    _frozen(trace, call, value, range(channel))
    given = trace.read(value, channel)
    kernels = {id(way.cell.kernel) for way in ways}
    use = trace.use(layer, call.name)
    axes: list[Axes] = [
        (*(None,) * (len(w.shape) - 2), given, None) if id(w) in kernels else (None,) * len(w.shape)
        for w in layer.weights
    ]
    for before, now in zip(use.weights, axes):
        for one, other in zip(before, now):
            if one is not None:
                trace.units.tie(one, other, f"the layer {call.name} is used elsewhere, where they are untouchable")
    use.weights, use.whole = axes, "its units are tied to one another through time"
    out = tuple(call.outputs[0].shape)[1:]
    for way in ways:
        places = prod(size or 1 for size in _places(way, value, out)) * (value.shape[0] or 1)
        trace.macs(
            prod(way.cell.kernel.shape[:-2]) * way.cell.kernel.shape[-1] * places, [(value.shape[channel], given)]
        )
        trace.macs(prod(way.cell.recurrent_kernel.shape) * places, [])
    return [(None,) * len(out)]


def _places(layer: Any, value: Value, out: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Returns the size of what each step of a convolutional recurrent layer makes, none of any other."""
    return out[-1 - (value.rank - 2) : -1] if hasattr(layer, "filters") else ()


def _dot(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    made = unknown(trace, call, values)
    one, other = values[0].shape, tuple(call.outputs[0].shape)[1:]
    axes = call.layer.axes
    first = axes[0] if isinstance(axes, (list, tuple)) else axes
    trace.macs(prod(size or 1 for size in other) * (one[first - 1 if first > 0 else first] or 1), [])
    return made


def operation_of(call: Call) -> tuple[str, list[Any], dict[str, Any]]:
    """Returns name, operands in order and options of a call of a TensorFlow symbol or a Keras 3 operation."""
    layer = call.layer
    if kind_of(layer) == "TFOpLambda":
        return str(layer.get_config()["function"]), list(call.args), dict(call.kwargs)
    if kind_of(layer) == "KerasOperation":
        tensors = leaves((call.args, dict(call.kwargs)))
        args, kwargs = layer.arguments.filled(lambda stand_in: tensors[stand_in.index])
        return type(layer.operation).__name__, list(args), kwargs
    return "", [], {}


def _computed(trace: Trace, call: Call, values: list[Value]) -> list[Axes]:
    """What functions on tensors became: `x + y`, `tf.nn.relu(x)`, `keras.ops.add(x, y)`."""
    name, args, kwargs = operation_of(call)
    if name in UNARY and len(values) == 1:
        return [values[0].axes]
    if name not in BINARY:
        return unknown(trace, call, values)
    if len(values) > 1:
        return _merge(trace, call, values)
    operands = [leaf for key, leaf in [*enumerate(args), *kwargs.items()] if key != "name" and leaf is not None]
    constants = [np.shape(leaf) for leaf in operands if not hasattr(leaf, "_keras_history")]
    for shape in constants:
        if len(shape) > values[0].rank:
            return unknown(trace, call, values)
        wide = [values[0].rank - len(shape) + a for a, size in enumerate(shape) if size != 1]
        trace.freeze(values[0], f"{_words(call)} computes with a constant for each of them", wide)
    return [values[0].axes]


def _made(trace: Trace, layer: Any, count: int) -> Axis:
    """Returns the channels that a layer makes: the same ones at every call."""
    known = trace.uses.get(id(layer))
    if known is not None:
        return known.made[0] if known.made else None
    return trace.make(count)


def _makes(use: Any, made: Axis, judged: list[tuple[int, int]]) -> None:
    if made is None:
        use.whole = "it makes a single channel, or reads what is untouchable"
    else:
        use.made, use.judged = [made], judged


def _counted(key: str, ids: Axis) -> dict[str, Any]:
    return {} if ids is None else {key: ids}


def _sizes(call: Call, axes: Axes) -> list[tuple[int | None, Axis]]:
    return list(zip(tuple(call.outputs[0].shape)[1:], axes))


def _placed(value: Value, channel: int, given: Axis) -> list[tuple[int | None, Axis]]:
    return [(size, given if axis == channel else None) for axis, size in enumerate(value.shape)]


def _each(rule: Rule, *kinds: str) -> dict[str, Rule]:
    return dict.fromkeys(kinds, rule)


def _in(pattern: str, *dimensions: int) -> list[str]:
    return [pattern.format(d) for d in dimensions]


RULES: dict[str, Rule] = {
    **_each(_same, "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "ActivityRegularization", "Identity"),
    **_each(_same, "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "StochasticDepth"),
    **_each(_same, *_in("SpatialDropout{}D", 1, 2, 3)),
    **_each(_activation, "Activation", "KerasActivation"),
    **_each(_softmax, "Softmax"),
    **_each(_convolution, *_in("Conv{}D", 1, 2, 3)),
    **_each(_transposed, *_in("Conv{}DTranspose", 1, 2, 3)),
    **_each(_depthwise, *_in("DepthwiseConv{}D", 1, 2)),
    **_each(_separable, *_in("SeparableConv{}D", 1, 2)),
    **_each(_dense, "Dense"),
    **_each(_embedding, "Embedding"),
    **_each(_batch_normalization, "BatchNormalization", "SyncBatchNormalization"),
    **_each(_layer_normalization, "LayerNormalization"),
    **_each(_group_normalization, "GroupNormalization"),
    **_each(_unit_normalization, "UnitNormalization"),
    **_each(_layer_scale, "LayerScale"),
    **_each(_prelu, "PReLU"),
    **_each(_rescaling, "Rescaling"),
    **_each(_merge, "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    **_each(_merge, "CustomScaleLayer"),
    **_each(_concatenate, "Concatenate"),
    **_each(_dot, "Dot"),
    **_each(_spatial, *_in("AveragePooling{}D", 1, 2, 3), *_in("MaxPooling{}D", 1, 2, 3)),
    **_each(_spatial, *_in("ZeroPadding{}D", 1, 2, 3), *_in("Cropping{}D", 1, 2, 3), *_in("UpSampling{}D", 1, 2, 3)),
    **_each(_spatial, "Resizing", "CenterCrop"),
    **_each(_global_pooling, *_in("GlobalAveragePooling{}D", 1, 2, 3), *_in("GlobalMaxPooling{}D", 1, 2, 3)),
    **_each(_reshape, "Reshape", "Flatten"),
    **_each(_permute, "Permute"),
    **_each(_repeat, "RepeatVector"),
    **_each(_attention, "MultiHeadAttention"),
    **_each(_recurrent, *_RECURRENT, "Bidirectional"),
    **_each(_computed, "TFOpLambda", "KerasOperation"),
    "": unknown,
}
