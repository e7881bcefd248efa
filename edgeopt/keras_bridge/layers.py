"""Stand-ins for what only Keras 3 has: a Keras 3 layer or operation goes in, a serializable tf_keras layer comes out.

Keras 3 on TensorFlow is made of TensorFlow operations, so a tf_keras layer may hold a Keras 3 layer, call it and own
its variables: it computes the same values and gradients, trains, saves and converts like any other.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from edgeopt import frameworks, graph

PACKAGE = "edgeopt"

# Activations that tf_keras lacks, or has under the same name with other values (hard_sigmoid).
KERAS3_ACTIVATIONS = (
    "celu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "relu6",
    "soft_shrink",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "tanh_shrink",
    "threshold",
)

_TENSOR_KEY = "edgeopt_tensor"


@dataclass(frozen=True)
class TensorStandIn:
    """The place of the call's `index`-th tensor among its arguments, with that tensor's shape and dtype."""

    index: int
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Arguments:
    """How something was called: TensorStandIn for each tensor. (In a box of its own: tf_keras wraps bare lists.)"""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def filled(self, tensor: Callable[[TensorStandIn], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns args and kwargs with `tensor(stand_in)` in each tensor's place."""
        place = lambda leaf: tensor(leaf) if isinstance(leaf, TensorStandIn) else leaf  # noqa: E731
        return graph.map_leaves(place, (self.args, dict(self.kwargs)))

    def to_json(self) -> str:
        """Returns them as Keras 3 writes such things: slices, tuples and arrays come back as they were."""
        keras = frameworks.load("keras")
        args, kwargs = self.filled(lambda t: {_TENSOR_KEY: [t.index, *t.shape], "dtype": t.dtype})
        return json.dumps(keras.saving.serialize_keras_object({"args": list(args), "kwargs": kwargs}))

    @staticmethod
    def from_json(text: str) -> Arguments:
        """Returns what `to_json` wrote."""
        read = frameworks.load("keras").saving.deserialize_keras_object(json.loads(text))
        read = _stand_ins(read)
        return Arguments(tuple(read["args"]), read["kwargs"])


def arguments_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Arguments, list[Any]]:
    """Returns the call's arguments with stand-ins for its symbolic tensors (of either Keras), and those tensors."""
    tensors: list[Any] = []

    def stand_in(leaf: Any) -> Any:
        if not hasattr(leaf, "_keras_history"):
            return leaf
        tensors.append(leaf)
        return TensorStandIn(len(tensors) - 1, tuple(leaf.shape), graph.dtype_name(leaf))

    args, kwargs = graph.map_leaves(stand_in, (args, dict(kwargs)))
    return Arguments(args, kwargs), tensors


@functools.cache
def activations() -> dict[str, Callable[..., Any]]:
    """Returns KERAS3_ACTIVATIONS by name as functions that tf_keras serializes, for layers that need a function."""
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")

    def stand_in(name: str) -> Callable[..., Any]:
        function = keras.activations.get(name)

        def activation(x: Any) -> Any:
            return function(x)

        activation.__name__ = activation.__qualname__ = name
        return tf_keras.utils.register_keras_serializable(PACKAGE, name)(activation)

    return {name: stand_in(name) for name in KERAS3_ACTIVATIONS}


@functools.cache
def classes() -> SimpleNamespace:
    """Returns the tf_keras classes KerasActivation, KerasLayer and KerasOperation, defined when first asked for."""
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")
    Layer: Any = tf_keras.layers.Layer
    Activation: Any = tf_keras.layers.Activation

    @tf_keras.utils.register_keras_serializable(PACKAGE)
    class KerasActivation(Activation):
        """One of KERAS3_ACTIVATIONS, by name.

        One layer, not a handful that compute the same: the converter recognizes it (hard_silu becomes one HARD_SWISH),
        and quantization-aware training has one output to watch. Not a function in `activation` either: tf_keras
        cannot read registered functions back from HDF5.
        """

        def __init__(self, activation: str, **kwargs: Any) -> None:
            super().__init__(activations()[activation], **kwargs)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "activation": self.activation.__name__}

    @tf_keras.utils.register_keras_serializable(PACKAGE)
    class KerasLayer(Layer):
        """A Keras 3 layer as a tf_keras layer that owns its weights.

        Args:
            layer: the Keras 3 layer, or its config as JSON.
            arguments: what it is first called with, as Arguments or as their JSON; it is built from them.
        """

        def __init__(self, layer: Any, arguments: Arguments | str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.layer = from_json(layer) if isinstance(layer, str) else layer
            self._arguments = Arguments.from_json(arguments) if isinstance(arguments, str) else arguments
            self.supports_masking = True

        def build(self, input_shape: Any) -> None:
            if not self.layer.built:
                args, kwargs = self._arguments.filled(lambda t: keras.KerasTensor(t.shape, dtype=t.dtype))
                self.layer(*args, **kwargs)
            self._variables_of_layer = [variable.value for variable in self.layer.weights]
            super().build(input_shape)

        def call(self, inputs: Any, *args: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
            if training is not None and self.layer._call_has_training_arg:
                kwargs["training"] = training
            if mask is not None and self.layer._call_has_mask_arg:
                kwargs["mask"] = mask
            self.layer._clear_losses()
            result = self.layer(inputs, *args, **kwargs)
            for loss in self.layer.losses:  # of add_loss, and of regularizers
                self.add_loss(loss)
            return result

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return self.layer.compute_mask(inputs, mask) if self.layer.supports_masking else None

        def get_weights(self) -> list[Any]:
            """Returns the weights in the order of the Keras 3 layer, which is not always that of `weights`."""
            return self.layer.get_weights()

        def set_weights(self, weights: Any) -> None:
            """Sets the weights, given in the order of `get_weights`."""
            self.layer.set_weights(weights)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "layer": to_json(self.layer), "arguments": self._arguments.to_json()}

    @tf_keras.utils.register_keras_serializable(PACKAGE)
    class KerasOperation(Layer):
        """One call of a Keras 3 operation (`keras.ops.*`) as a tf_keras layer of that call's tensors.

        Args:
            operation: the Keras 3 operation, or its config as JSON.
            arguments: the call's arguments, as Arguments or as their JSON.
        """

        def __init__(self, operation: Any, arguments: Arguments | str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.operation = from_json(operation) if isinstance(operation, str) else operation
            self.arguments = Arguments.from_json(arguments) if isinstance(arguments, str) else arguments
            self.supports_masking = True

        def call(self, inputs: Any) -> Any:
            tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            args, kwargs = self.arguments.filled(lambda t: tensors[t.index])
            return self.operation.call(*args, **kwargs)

        def compute_mask(self, inputs: Any, mask: Any = None) -> None:
            """Keras 3 hands no mask on through an operation."""

        def get_config(self) -> dict[str, Any]:
            config = {"operation": to_json(self.operation), "arguments": self.arguments.to_json()}
            return {**super().get_config(), **config}

    return SimpleNamespace(KerasActivation=KerasActivation, KerasLayer=KerasLayer, KerasOperation=KerasOperation)


def original(layer: Any) -> Any:
    """Returns what the user knows a layer as: the Keras 3 layer or operation that one of the bridge's stands for."""
    if type(layer).__module__ != __name__:
        return layer
    own = classes()
    if isinstance(layer, own.KerasActivation):
        return frameworks.load("keras").layers.Activation(layer.activation.__name__, name=layer.name)
    return layer.operation if isinstance(layer, own.KerasOperation) else layer.layer


def to_json(keras_object: Any) -> str:
    """Returns the config of a Keras 3 layer or operation as JSON, without what would build it on reading."""
    config = frameworks.load("keras").saving.serialize_keras_object(keras_object)
    config.pop("build_config", None)
    return json.dumps(graph.float32_config(config))


def from_json(text: str) -> Any:
    """Returns a new, unbuilt Keras 3 layer or operation from what `to_json` wrote."""
    return frameworks.load("keras").saving.deserialize_keras_object(json.loads(text))


def _stand_ins(value: Any) -> Any:
    if isinstance(value, Mapping):
        if _TENSOR_KEY in value:
            index, *shape = value[_TENSOR_KEY]
            return TensorStandIn(index, tuple(shape), value["dtype"])
        return {key: _stand_ins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_stand_ins(item) for item in value)
    return value
