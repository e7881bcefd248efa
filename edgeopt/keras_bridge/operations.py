"""Keras 3 operations and tf_keras's TensorFlow calls: one of either goes in, its form in the other Keras comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeopt import frameworks, graph
from edgeopt.keras_bridge import configs, layers

# Keras 3 operation -> tf_keras merging layer, where two tensors of one shape meet.
MERGES = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}

# Keras 3 operation without options -> activation.
ACTIVATIONS = {
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "LogSigmoid": "log_sigmoid",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}

# TensorFlow symbol in a tf_keras graph -> Keras 3 operation, and its arguments in their order: an argument that is
# not the first is given to the operation under the name that stands here.
TENSORFLOW_SYMBOLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "__operators__.add": ("add", ("x", "y:x2")),
    "cast": ("cast", ("x", "dtype")),
    "clip_by_value": ("clip", ("t", "clip_value_min:x_min", "clip_value_max:x_max")),
    "compat.v1.transpose": ("transpose", ("a", "perm:axes")),
    "concat": ("concatenate", ("values", "axis")),
    "expand_dims": ("expand_dims", ("input", "axis")),
    "linalg.matmul": ("matmul", ("a", "b:x2")),
    "math.abs": ("abs", ("x",)),
    "math.add": ("add", ("x", "y:x2")),
    "math.divide": ("divide", ("x", "y:x2")),
    "math.exp": ("exp", ("x",)),
    "math.log": ("log", ("x",)),
    "math.maximum": ("maximum", ("x", "y:x2")),
    "math.minimum": ("minimum", ("x", "y:x2")),
    "math.multiply": ("multiply", ("x", "y:x2")),
    "math.negative": ("negative", ("x",)),
    "math.pow": ("power", ("x", "y:x2")),
    "math.reduce_max": ("max", ("input_tensor", "axis", "keepdims")),
    "math.reduce_mean": ("mean", ("input_tensor", "axis", "keepdims")),
    "math.reduce_min": ("min", ("input_tensor", "axis", "keepdims")),
    "math.reduce_sum": ("sum", ("input_tensor", "axis", "keepdims")),
    "math.rsqrt": ("rsqrt", ("x",)),
    "math.sigmoid": ("sigmoid", ("x",)),
    "math.softplus": ("softplus", ("features",)),
    "math.sqrt": ("sqrt", ("x",)),
    "math.square": ("square", ("x",)),
    "math.subtract": ("subtract", ("x", "y:x2")),
    "math.tanh": ("tanh", ("x",)),
    "math.truediv": ("divide", ("x", "y:x2")),
    "nn.elu": ("elu", ("features",)),
    "nn.gelu": ("gelu", ("features", "approximate")),
    "nn.log_softmax": ("log_softmax", ("logits", "axis")),
    "nn.relu": ("relu", ("features",)),
    "nn.relu6": ("relu6", ("features",)),
    "nn.silu": ("silu", ("features",)),
    "nn.softmax": ("softmax", ("logits", "axis")),
    "reshape": ("reshape", ("tensor", "shape:newshape")),
    "squeeze": ("squeeze", ("input", "axis")),
    "stack": ("stack", ("values", "axis")),
    "tile": ("tile", ("input", "multiples:repeats")),
    "transpose": ("transpose", ("a", "perm:axes")),
}


def to_keras2(call: graph.Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns what a Keras 3 operation's call makes of tf_keras tensors, by a standard layer where one does the same.

    Raises:
        Unfit: it has no tensor among its arguments.
    """
    arguments, tensors = layers.arguments_of(args, kwargs)
    if not tensors:
        raise configs.Unfit("it is an operation without a tensor")
    # An operation of Keras 3 ends a mask; tf_keras's layers would hand it on.
    if not any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors):
        layer = _standard_layer(call, args, kwargs)
        if layer is not None:
            return layer(tensors[0] if len(tensors) == 1 else tensors)
    layer = layers.classes().KerasOperation(call.layer, arguments, name=call.name)
    return layer(tensors[0] if len(tensors) == 1 else tensors)


def to_keras3(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what a call of tf_keras's TFOpLambda or SlicingOpLambda makes of Keras 3 tensors.

    Raises:
        Unfit: no Keras 3 operation is known for that TensorFlow symbol.
    """
    symbol = call.layer.get_config()["function"]
    kwargs = {key: value for key, value in configs.plain(kwargs).items() if key != "name" and value is not None}
    if symbol == "__operators__.getitem":
        return args[0][graph.map_leaves(lambda leaf: leaf, _slices(args[1] if len(args) > 1 else kwargs["slice_spec"]))]
    operation, names = TENSORFLOW_SYMBOLS.get(symbol, ("", ()))
    given = {**dict(zip((name.partition(":")[0] for name in names), args)), **kwargs}
    renamed = {name.partition(":")[0]: name.partition(":")[2] or name for name in names}
    if not operation or not set(given) <= set(renamed) or len(args) > len(names):
        raise configs.Unfit(f"the TensorFlow function tf.{symbol} has no Keras 3 operation that edgeopt knows")
    first = names[0].partition(":")[0]
    rest = {renamed[key]: value for key, value in given.items() if key != first}
    if "dtype" in rest:
        rest["dtype"] = getattr(rest["dtype"], "name", rest["dtype"])
    return getattr(frameworks.load("keras").ops, operation)(given[first], **rest)


def _standard_layer(call: graph.Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Returns a layer of the call's tensors that computes what the operation does, or None."""
    library = frameworks.load("tf_keras").layers
    operation, kind, name = call.layer, type(call.layer).__name__, call.name
    if kind in MERGES and len(args) == 2 and not kwargs and _alike(*args):
        return getattr(library, MERGES[kind])(name=name)
    if kind == "Concatenate" and len(args) == 1 and len({len(t.shape) for t in args[0]}) == 1 and len(args[0]) > 1:
        return library.Concatenate(axis=operation.axis, name=name)
    if len(args) != 1 or kwargs or not _floating(args[0]):
        return None
    shape = tuple(args[0].shape)
    if kind in ACTIVATIONS:
        activation = configs.SYNONYMS.get(ACTIVATIONS[kind], ACTIVATIONS[kind])
        common = activation in configs.COMMON_ACTIVATIONS
        return (library.Activation if common else layers.classes().KerasActivation)(activation, name=name)
    if kind == "Relu":
        return library.ReLU(name=name)
    if kind == "Relu6":
        return library.ReLU(max_value=6.0, name=name)
    if kind == "LeakyRelu":
        return library.LeakyReLU(alpha=operation.negative_slope, name=name)
    if kind == "Softmax" and isinstance(operation.axis, int):
        return library.Softmax(axis=operation.axis, name=name)
    if kind in ("Mean", "Max") and len(shape) == 4 and _axes(operation.axis, 4) == (1, 2):
        pooling = library.GlobalAveragePooling2D if kind == "Mean" else library.GlobalMaxPooling2D
        return pooling(keepdims=bool(operation.keepdims), data_format="channels_last", name=name)
    if kind == "Transpose" and operation.axes is not None and operation.axes[0] == 0:
        return library.Permute(tuple(operation.axes)[1:], name=name)
    if kind in ("Reshape", "ExpandDims", "Squeeze"):
        return _reshape(call, shape)
    return None


def _reshape(call: graph.Call, shape: tuple[int | None, ...]) -> Any | None:
    """Returns a Reshape layer where the operation leaves the batch alone and the rest is known."""
    target = tuple(call.outputs[0].shape)
    if shape[0] is not None or target[:1] != (None,) or None in shape[1:] or None in target[1:]:
        return None
    return frameworks.load("tf_keras").layers.Reshape(target[1:], name=call.name)


def _alike(a: Any, b: Any) -> bool:
    return _floating(a) and _floating(b) and tuple(a.shape) == tuple(b.shape) and a.dtype == b.dtype


def _floating(value: Any) -> bool:
    return hasattr(value, "_keras_history") and str(getattr(value.dtype, "name", value.dtype)).startswith("float")


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    axes = axis if isinstance(axis, (list, tuple)) else () if axis is None else (axis,)
    return tuple(sorted(a % rank for a in axes))


def _slices(spec: Any) -> Any:
    """Returns the slices that tf_keras keeps as dicts of start, stop and step."""
    if isinstance(spec, Mapping):
        return slice(spec["start"], spec["stop"], spec["step"])
    return tuple(_slices(part) for part in spec) if isinstance(spec, (list, tuple)) else spec
