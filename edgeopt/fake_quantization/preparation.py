"""A flat float tf_keras model and calibration samples go in, a fake-quantized one and what became of each layer come
out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.errors import ConversionError
from edgeopt.fake_quantization.roles import RECURRENT, SAME_RANGE, WEIGHTS, Roles, kind, roles, splits
from edgeopt.frameworks import load
from edgeopt.vocabulary import LayerChange, Property

# Weight → what a layer calls its constraint.
_CONSTRAINTS = {
    "kernel": "kernel_constraint",
    "depthwise_kernel": "depthwise_constraint",
    "pointwise_kernel": "pointwise_constraint",
    "embeddings": "embeddings_constraint",
}
# What is behind a tensor's name in that of the layer that rounds it.
RANGE = "_range"
# ... and behind a layer's whose activation function is an operator of its own.
_LINEAR = "_linear"
_TABLES = {"Embedding": ["embeddings"]}


@dataclass(frozen=True)
class Prepared:
    """A model ready for quantization-aware training.

    Attributes:
        model: a tf_keras model that computes with simulated int8.
        layers: what became of each layer, by its name before.
    """

    model: Any
    layers: tuple[LayerChange, ...]


def prepare(
    model: Any,
    samples: Iterable[Sequence[np.ndarray]],
    *,
    spared: Collection[str] = (),
    keep: Collection[Property] = (),
    bits: Mapping[str, int] = MappingProxyType({}),
) -> Prepared:
    """Returns `model` with simulated int8, its activation ranges set from `samples`.

    Args:
        model: flat functional float32; it stays as it is.
        samples: batches, each an array for each of the model's inputs.
        spared: names of layers that stay in float and are quantized after training.
        keep: SPARSE and CLUSTERED: zeros stay zero and equal weights equal while the model is trained.
        bits: of the weights of layers, by name; 8 where nothing is said.
    """
    from edgeopt.fake_quantization import layers

    known = roles(model, spared)
    seen: dict[str, Any] = {}

    def note(name: str, tensor: Any) -> Any:
        seen[name] = tensor
        return tensor

    observed = _assembled(model, known, spared, (), point=note, wrap=lambda layer, weights: layer)
    ranges = _ranges(observed, seen, samples)
    points: dict[str, Any] = {}

    def quantize(name: str, tensor: Any) -> Any:
        points[name] = layers.range_layer(name)
        return points[name](tensor)

    def rounded(layer: Any, weights: Any) -> Any:
        return layers.with_rounded_weights(layer, weights, bits.get(layer.name.removesuffix(_LINEAR), 8))

    built = _assembled(model, known, spared, keep, point=quantize, wrap=rounded)
    for name, layer in points.items():
        layers.set_range(layer, *ranges[name])
    return Prepared(built, _changes(model, known, spared))


def is_fake_quantized(model: Any) -> bool:
    """Whether a tf_keras model was made by `prepare`."""
    from edgeopt.fake_quantization import layers

    return any(layers.is_wrapper(layer) for layer in model.layers)


def _assembled(
    model: Any,
    known: Roles,
    spared: Collection[str],
    keep: Collection[Property],
    *,
    point: Callable[[str, Any], Any],
    wrap: Callable[[Any, Any], Any],
) -> Any:
    """Builds the model anew: `wrap` rounds a layer's weights, `point` what an operator of the file hands on."""
    keras = load("tf_keras")
    made: dict[int, Callable[..., Any]] = {}
    functions: dict[int, Any] = {}
    taken: set[str] = set()
    inputs: dict[int, Any] = {}

    def named(name: str, tensor: Any) -> Any:
        if not tensor.dtype.is_floating:
            return tensor
        free = next(n for n in (name + RANGE, *(f"{name}_{i}{RANGE}" for i in range(1, 1000))) if n not in taken)
        taken.add(free)
        return point(free, tensor)

    def fed(leaf: Any) -> Any:
        history = getattr(leaf, "_keras_history", None)
        if history is None or kind(history.layer) != "InputLayer":
            return leaf
        if id(leaf) not in inputs:
            inputs[id(leaf)] = named(history.layer.name, leaf)
        return inputs[id(leaf)]

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = call.layer
        if kind(layer) != "Embedding":
            args, kwargs = graph.map_leaves(fed, (args, kwargs))
        if id(layer) not in made:
            made[id(layer)] = _twin(call, known, spared, keep, wrap)
        result = made[id(layer)](*args, **kwargs)
        if splits(layer):
            result = named(call.name, result) if layer.name not in spared else result
            if id(layer) not in functions:
                functions[id(layer)] = keras.layers.Activation(layer.activation, name=call.name)
            result = functions[id(layer)](result)
        if layer.name in spared:
            return result
        flat = iter([t if id(o) in known.unranged else named(call.name, t) for o, t in _paired(call, result)])
        return graph.map_leaves(lambda _: next(flat), result)

    return graph.build(model, keras, step)


def _paired(call: graph.Call, result: Any) -> list[tuple[Any, Any]]:
    return list(zip(call.outputs, graph.leaves(result)))


def _twin(call: graph.Call, known: Roles, spared: Collection[str], keep: Collection[Property], wrap: Any) -> Any:
    """Returns what computes a layer's calls in the new model."""
    layer = call.layer
    if id(layer) in known.scaled:
        return wrap(_as_depthwise(call), WEIGHTS["DepthwiseConv2D"])
    if not isinstance(layer, load("tf_keras").layers.Layer):
        return layer
    twin = _cloned(call)
    twin._name = f"{call.name}{_LINEAR}" if splits(layer) else call.name
    weights = WEIGHTS.get(kind(layer), ())
    kept = [name for name, _ in weights] or _TABLES.get(kind(layer), [])
    if splits(layer):
        twin.activation = load("tf_keras").activations.linear
    if keep and not kept and any(weight.shape.rank > 1 for weight in layer.trainable_weights):
        twin.trainable = False  # nothing moves what cannot be held by a constraint
    if not kept:
        return _with_weights(twin, layer) if layer.get_weights() else twin
    for name in kept if keep else ():
        setattr(twin, _CONSTRAINTS[name], _constraint(getattr(layer, name).numpy(), keep))
    with load("tf_keras").backend.name_scope(twin.name):
        twin.build(call.args[0].shape)
    for name in kept if keep else ():
        setattr(twin, _CONSTRAINTS[name], None)  # the variable has it; a config cannot hold it
    twin.set_weights(layer.get_weights())
    return wrap(twin, weights) if weights and layer.name not in spared else twin


def _cloned(call: graph.Call) -> Any:
    """Returns a new layer like that of a call; a recurrent one without its loop, which no quantizer takes.

    That of an LSTM becomes one operator, of one in both directions two.

    Raises:
        ConversionError: the loop is there to stay.
    """
    layer = call.layer
    if kind(layer).startswith("ConvLSTM"):
        raise ConversionError(
            f"Expected layers whose steps can be unrolled, got {kind(layer)} {layer.name!r}: Keras unrolls no such "
            "loop, and no quantizer takes it. Try int8 without training for it: --scheme int8 calls its cell step by "
            "step."
        )
    own = kind(layer.forward_layer if kind(layer) == "Bidirectional" else layer)
    steps = call.args[0].shape[1] if kind(layer) in RECURRENT and own != "LSTM" else None
    if steps is None:
        return graph.clone(layer)
    return type(layer).from_config(graph.with_unroll(layer.get_config()))


def _with_weights(twin: Any, layer: Any) -> Callable[..., Any]:
    """Returns `twin`, which gets its weights as soon as its first call has built it."""

    def called(*args: Any, **kwargs: Any) -> Any:
        first = not twin.built
        result = twin(*args, **kwargs)
        if first:
            graph.set_weights(twin, layer.get_weights())
        return result

    return called


def _constraint(values: np.ndarray, keep: Collection[Property]) -> Any:
    from edgeopt.fake_quantization.layers import Keep

    return Keep(values, zeros=Property.SPARSE in keep, clusters=Property.CLUSTERED in keep)


def _as_depthwise(call: graph.Call) -> Any:
    """Returns a BatchNormalization of [N, H, W, C] as a depthwise 1x1 convolution, built."""
    layer = call.layer
    channels = int(call.args[0].shape[-1])
    scale = 1 / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    if layer.scale:
        scale = scale * layer.gamma.numpy()
    offset = -layer.moving_mean.numpy() * scale + (layer.beta.numpy() if layer.center else 0.0)
    twin = load("tf_keras").layers.DepthwiseConv2D(1, name=call.name)
    twin.build((None, None, None, channels))
    twin.set_weights([scale.reshape(1, 1, channels, 1), offset])
    return twin


def _ranges(
    observed: Any, seen: dict[str, Any], samples: Iterable[Sequence[np.ndarray]]
) -> dict[str, tuple[float, float]]:
    """Returns the least and the greatest value of each tensor over all samples."""
    tf, keras = load("tensorflow"), load("tf_keras")
    names = list(seen)
    probe = keras.Model(observed.inputs, [seen[name] for name in names])

    @tf.function(reduce_retracing=True)
    def extremes(inputs: Any) -> Any:
        values = graph.leaves(probe(inputs, training=False))
        return tf.stack([tf.reduce_min(v) for v in values]), tf.stack([tf.reduce_max(v) for v in values])

    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in samples:
        arrays = [tf.constant(array) for array in batch]
        least, most = extremes(arrays if len(arrays) > 1 else arrays[0])
        low, high = np.minimum(low, least), np.maximum(high, most)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}


def _changes(model: Any, known: Roles, spared: Collection[str]) -> tuple[LayerChange, ...]:
    changes = []
    for layer in {id(call.layer): call.layer for call in graph.own_calls(model)}.values():
        name = getattr(layer, "name", "")
        done, reason = _words(layer, known)
        if name in spared:
            done, reason = "", "spared: quantized after training"
        changes.append(LayerChange(name, kind(layer), done, reason))
    return tuple(changes)


def _words(layer: Any, known: Roles) -> tuple[str, str]:
    """Returns what was done to a layer and why not more."""
    if kind(layer) in WEIGHTS:
        return "weights and output in int8", ""
    if id(layer) in known.folded:
        return f"folded into {known.folded[id(layer)].name}", ""
    if id(layer) in known.scaled:
        return "made a depthwise 1x1 convolution; weights and output in int8", ""
    if kind(layer) in SAME_RANGE:
        return "in int8, in its input's range", ""
    if kind(layer) in RECURRENT:
        return "", "its steps have no int8 form that can be trained: only its output is rounded, the rest afterwards"
    if layer.get_weights() if hasattr(layer, "get_weights") else False:
        return "", f"tfmot trains no {kind(layer)} in int8: only its output is rounded, the rest afterwards"
    return "output in int8", ""
