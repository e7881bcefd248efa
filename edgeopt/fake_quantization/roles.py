"""A flat tf_keras model goes in; what each of its layers does in an integer file comes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.frameworks import load

# Layer → its weights that are rounded, each with the axes along which the file has a scale for each channel.
WEIGHTS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "Conv1D": (("kernel", (-1,)),),
    "Conv2D": (("kernel", (-1,)),),
    "Conv2DTranspose": (("kernel", (-2,)),),
    "Dense": (("kernel", (-1,)),),
    "DepthwiseConv1D": (("depthwise_kernel", (-2, -1)),),
    "DepthwiseConv2D": (("depthwise_kernel", (-2, -1)),),
    "SeparableConv1D": (("depthwise_kernel", (-2, -1)), ("pointwise_kernel", (-1,))),
    "SeparableConv2D": (("depthwise_kernel", (-2, -1)), ("pointwise_kernel", (-1,))),
}
# What an activation after it can be computed together with.
_ARITHMETIC = frozenset({*WEIGHTS, "Add", "Subtract", "Multiply"})
# Layers that only move, choose or drop numbers: one scale serves their input and output.
SAME_RANGE = frozenset(
    (
        *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        *("AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D"),
        *("GlobalMaxPooling1D", "GlobalMaxPooling2D"),
        *("Cropping1D", "Cropping2D", "Flatten", "Permute", "RepeatVector", "Reshape"),
        *("UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D"),
    )
)
# Their integer kernels have one output range, whatever they see.
_FIXED_RANGE = frozenset({"softmax", "sigmoid", "tanh"})
_FUSED = frozenset({"linear", "relu", "relu6"})
RECURRENT = frozenset({"Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "GRU", "LSTM", "RNN", "SimpleRNN"})


@dataclass(frozen=True)
class Roles:
    """What was found of a model's calls. Tensors and layers stand for themselves by id.

    Attributes:
        folded: BatchNormalization layer → the layer before it that takes it in.
        scaled: BatchNormalization layers that become a depthwise 1x1 convolution.
        unranged: tensors that an operator of the file does not hand on, or that share another's range.
    """

    folded: dict[int, Any]
    scaled: frozenset[int]
    unranged: frozenset[int]


def roles(model: Any, spared: Collection[str]) -> Roles:
    """Returns the roles of a model's layers; what is `spared` (names) is not changed."""
    calls = graph.own_calls(model)
    readers: dict[int, list[Any]] = {}
    for call in calls:
        for leaf in graph.leaves((call.args, call.kwargs)):
            readers.setdefault(id(leaf), []).append(call)
    made_by = {id(tensor): call for call in calls for tensor in call.outputs}
    outputs = {id(tensor) for _, tensor in graph.output_names(model)}

    def sole_reader(tensor: Any) -> Any:
        found = readers.get(id(tensor), [])
        return found[0] if len(found) == 1 and id(tensor) not in outputs else None

    folded: dict[int, Any] = {}
    scaled: set[int] = set()
    for call in calls:
        if kind(call.layer) != "BatchNormalization" or not _normalizes_last_axis(call):
            continue
        before = made_by.get(id(call.args[0]))
        alone = sum(c.layer is call.layer for c in calls) == 1 and sole_reader(call.args[0]) is call
        if alone and before and kind(before.layer) in WEIGHTS and activation(before.layer) == "linear":
            folded[id(call.layer)] = before.layer
            continue
        if len(call.args[0].shape) == 4 and call.layer.name not in spared:
            scaled.add(id(call.layer))

    def arithmetic(call: Any) -> bool:
        fusing = kind(call.layer) in _ARITHMETIC and activation(call.layer) == "linear"
        return fusing or id(call.layer) in folded or id(call.layer) in scaled

    unranged = set()
    for call in calls:
        for tensor in call.outputs:
            reader = sole_reader(tensor)
            fuses = reader is not None and (
                id(reader.layer) in folded
                or (arithmetic(call) and kind(reader.layer) in ("Activation", "ReLU") and is_fused(reader.layer))
                or kind(reader.layer) == "Concatenate"
            )
            shares = kind(call.layer) in SAME_RANGE and getattr(call.layer, "interpolation", "nearest") == "nearest"
            # The converter multiplies a pure scale into the convolution behind it.
            scales = kind(call.layer) == "Rescaling" and not np.any(call.layer.offset)
            if fuses or shares or scales or activation(call.layer) in _FIXED_RANGE:
                unranged.add(id(tensor))
    return Roles(folded, frozenset(scaled), frozenset(unranged))


def kind(layer: Any) -> str:
    """Returns the class of a layer by name; a class of the user's that derives from one of Keras's has its own."""
    return type(layer).__name__


def activation(layer: Any) -> str:
    """Returns the name of the activation function that a layer ends with, "linear" where it has none."""
    if kind(layer) == "Softmax":
        return "softmax"
    if kind(layer) not in WEIGHTS and kind(layer) != "Activation":
        return "linear"
    function = load("tf_keras").activations.serialize(layer.activation)
    return function if isinstance(function, str) else getattr(layer.activation, "__name__", "custom")


def is_fused(layer: Any) -> bool:
    """Whether the operator before an activation computes it too."""
    if kind(layer) == "ReLU":
        return layer.max_value in (None, 6.0) and not layer.negative_slope and not layer.threshold
    return activation(layer) in _FUSED


def splits(layer: Any) -> bool:
    """Whether a layer's activation function is an operator of its own in the file."""
    return kind(layer) in WEIGHTS and activation(layer) not in _FUSED


def _normalizes_last_axis(call: Any) -> bool:
    tensor = call.args[0]
    axis = call.layer.axis
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    return [a % len(tensor.shape) for a in axes] == [len(tensor.shape) - 1]


def weights_of(layer: Any) -> dict[str, np.ndarray]:
    """Returns the weights of a float layer that are rounded, by attribute."""
    return {name: getattr(layer, name).numpy() for name, _ in WEIGHTS.get(kind(layer), ())}


def channels_of(layer: Any, name: str) -> np.ndarray:
    """Returns one of them as [channels, weights of a channel]."""
    values = getattr(layer, name).numpy()
    axes = [axis % values.ndim for axis in dict(WEIGHTS[kind(layer)])[name]]
    rows = np.moveaxis(values, axes, range(len(axes)))
    return rows.reshape(int(np.prod(rows.shape[: len(axes)])), -1)
