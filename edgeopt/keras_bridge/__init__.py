"""The bridge between the two Keras: a model of one goes in, the same network in the other comes out.

tfmot works on tf_keras (Keras 2) alone, and users have Keras 3. The bridge walks the graph call by call, makes each
layer anew from its config, and copies the weights. What tf_keras lacks is composed of its standard layers where that
is exact; else a tf_keras layer holds the Keras 3 layer and owns its variables (`layers.KerasLayer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, graph
from edgeopt.errors import ModelError
from edgeopt.keras_bridge import configs, layers, operations

__all__ = ["Unbridgeable", "first_difference", "register", "standard_form", "to_keras2", "to_keras3"]

_STRINGS = "it works on texts or tables, which run outside the .tflite; cut the model behind it"

# Layers that have no place in a tf_keras model for a .tflite, with the reason.
REFUSED = {
    "HashedCrossing": _STRINGS,
    "Hashing": _STRINGS,
    "IntegerLookup": _STRINGS,
    "StringLookup": _STRINGS,
    "TextVectorization": _STRINGS,
    "TFSMLayer": "it holds a graph that was saved elsewhere",
    "FlaxLayer": "it computes in JAX",
    "JaxLayer": "it computes in JAX",
    "TorchModuleWrapper": "it computes in PyTorch",
}

# Layers that tf_keras has too, but which train or compute otherwise there: they stay Keras 3's own.
KEPT = (
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "SpectralNormalization",
)


# Layers that work on the last axis of whatever they are given, so that a TimeDistributed around one changes nothing.
_OF_LAST_AXIS = frozenset(
    (
        *("Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Dropout", "Rescaling"),
        *("BatchNormalization", "LayerNormalization"),
    )
)


@dataclass(frozen=True)
class Problem:
    """A layer that cannot be bridged, and why."""

    layer: str
    reason: str


class Unbridgeable(ModelError):
    """A model cannot be brought to the other Keras; `problems` says which layers are in the way."""

    def __init__(self, model: Any, other: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem.layer}: {problem.reason}" for problem in problems)
        super().__init__(
            f"Expected layers that {other} can express, got {len(problems)} in the model "
            f"{getattr(model, 'name', '')!r} that it cannot:{lines}\n"
            "Try replacing them in the code that builds the model; post-training quantization works without it."
        )


def to_keras2(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Builds the tf_keras twin of a Keras 3 model.

    Args:
        model: a functional or built Sequential Keras 3 model; it stays as it is.

    Returns:
        A flat functional float32 tf_keras model with copied weights, and notes on what is not as it was.

    Raises:
        Unbridgeable: names the layers that have no form in tf_keras, or the model that has no static graph.
    """
    register()
    notes: list[str] = []
    keras = frameworks.load("keras")
    made: dict[int, graph.Replacement] = {}
    problems: list[Problem] = []
    by_layer = _by_layer(model, "tf_keras")
    names = {calls[0].name for calls in by_layer.values()}
    for calls in by_layer.values():
        if isinstance(calls[0].layer, keras.Layer):
            try:
                made[id(calls[0].layer)] = _in_keras2(calls, names, notes)
            # Unfit, or whatever a constructor of tf_keras or of the user's raises: it is the reason.
            except Exception as error:
                problems.append(Problem(calls[0].layer.name, _first_line(error)))
    if problems:
        raise Unbridgeable(model, "tf_keras", problems)

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replacement = made.get(id(call.layer))
        if replacement is None:
            return operations.to_keras2(call, args, kwargs)
        if "training" in kwargs and not graph.takes_training(replacement.layer):
            del kwargs["training"]
        return replacement(*args, **kwargs)

    return _built(model, frameworks.load("tf_keras"), "tf_keras", step, made), tuple(dict.fromkeys(notes))


def to_keras3(model: Any) -> Any:
    """Builds the Keras 3 twin of a tf_keras model.

    Args:
        model: a functional or built Sequential tf_keras model without tfmot's wrappers; it stays as it is.

    Returns:
        A flat functional Keras 3 model with copied weights.

    Raises:
        Unbridgeable: names the layers that have no form in Keras 3.
    """
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")
    made: dict[int, graph.Replacement] = {}
    problems: list[Problem] = []
    by_layer = _by_layer(model, "Keras 3")
    names = {calls[0].name for calls in by_layer.values()}
    for calls in by_layer.values():
        try:
            replacement = _in_keras3(calls[0], names)
            if replacement is not None:
                made[id(calls[0].layer)] = replacement
        # Unfit, or whatever a constructor of Keras 3 raises: it is the reason.
        except Exception as error:
            problems.append(Problem(calls[0].layer.name, _first_line(error)))
    if problems:
        raise Unbridgeable(model, "Keras 3", problems)

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replacement = made.get(id(call.layer))
        if replacement is None or not isinstance(replacement.layer, keras.Layer):
            result = replacement(*args, **kwargs) if replacement else operations.to_keras3(call, args, kwargs)
            # keras.ops name what they make by themselves, and may take a name that a layer has.
            graph.leaves(result)[0]._keras_history.operation.name = call.name
            return result
        if isinstance(call.layer, tf_keras.layers.RNN | tf_keras.layers.Bidirectional) and isinstance(args[0], list):
            args, kwargs = (args[0][0],), {**kwargs, "initial_state": args[0][1:]}
        return replacement(*args, **kwargs)

    return _built(model, keras, "Keras 3", step, made)


def register() -> None:
    """Makes the stand-ins for Keras 3's layers known to tf_keras, so that files that hold them can be read."""
    layers.classes()
    layers.activations()


def standard_form(layer: Any) -> graph.Replacement | None:
    """Returns the standard tf_keras layers for one that keras.applications defines for itself, or None.

    A factor per channel is a 1x1 depthwise convolution, stochastic depth a dropout of whole samples, TimeDistributed
    around a Dense the Dense: the same numbers, by layers that every later step knows.
    """
    library = frameworks.load("tf_keras").layers
    kind, module = type(layer).__name__, type(layer).__module__
    inner = _distributed(layer)
    if inner is not None and module.startswith("tf_keras."):
        return graph.Replacement(type(inner).from_config(_of_last_axis(inner, layer.name)), inner.get_weights())
    if module not in ("keras.src.applications.convnext", "tf_keras.src.applications.convnext"):
        return None
    rank = len(graph.leaves(layer._inbound_nodes[0].outputs)[0].shape)
    if kind == "StochasticDepth":
        shape = (None, *(1,) * (rank - 1))
        return graph.Replacement(library.Dropout(layer.drop_path_rate, noise_shape=shape, name=layer.name), ())
    if kind == "LayerScale" and rank == 4:
        scale = library.DepthwiseConv2D(
            1, use_bias=False, data_format="channels_last", trainable=layer.trainable, name=layer.name
        )
        return graph.Replacement(scale, [_value(layer.gamma)])
    return None


def _distributed(layer: Any) -> Any | None:
    """Returns the layer inside of a TimeDistributed, of either Keras, that does the same without; None for all else."""
    if type(layer).__name__ != "TimeDistributed" or not type(layer).__module__.startswith(
        ("keras.src", "tf_keras.src")
    ):
        return None
    inner = layer.layer
    own = type(inner).__module__.startswith(("keras.src.layers", "tf_keras.src.layers"))
    if not own or type(inner).__name__ not in _OF_LAST_AXIS or getattr(inner, "noise_shape", None) is not None:
        return None
    rank = len(graph.leaves(layer._inbound_nodes[0].outputs)[0].shape)
    # Keras 2 counts from the front, without the steps.
    last = ([-1], [rank - 2]) if type(inner).__module__.startswith("tf_keras") else ([-1],)
    return inner if graph.leaves(getattr(inner, "axis", -1)) in last else None


def _of_last_axis(inner: Any, name: str) -> dict[str, Any]:
    """Returns the config of such a layer for all steps at once."""
    config = {**inner.get_config(), "name": name}
    return {**config, "axis": -1} if "axis" in config else config


def first_difference(
    model: Any, other: Any, inputs: Sequence[np.ndarray], *, tolerance: float
) -> tuple[str, float] | None:
    """Returns the name of the first layer after which two models part, and by what share of its output's range.

    Both are walked in order on the same inputs; layers of one name are compared, call by call.
    """
    theirs: dict[tuple[str, int], list[Any]] = {}
    ours: dict[tuple[str, int], list[Any]] = {}
    for graph_of, record in ((other, theirs), (model, ours)):
        graph.walk(graph_of, inputs, _recording(record))
    for (name, count), values in ours.items():
        for value, counterpart in zip(values, theirs.get((name, count), [])):
            difference = relative_difference(value, counterpart)
            if difference > tolerance:
                return name, difference
    return None


def relative_difference(value: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest absolute difference as a share of the range (or magnitude, if larger) of `value`.

    NaN where one has it and the other not, or the shapes differ, counts as infinite.
    """
    value, other = np.asarray(value, np.float64), np.asarray(other, np.float64)
    if value.shape != other.shape or (np.isfinite(value) != np.isfinite(other)).any():
        return float("inf")
    finite = np.isfinite(value)
    if not finite.any():
        return 0.0
    value, other = value[finite], other[finite]
    scale = max(np.ptp(value), np.abs(value).max())
    gap = np.abs(value - other).max()
    return float(gap / scale) if scale > 0 else float(gap)


def _recording(record: dict[tuple[str, int], list[Any]]) -> graph.Step:
    counts: dict[str, int] = {}

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "training" not in kwargs and graph.takes_training(call.layer):
            kwargs["training"] = False
        results = call.layer(*args, **kwargs)
        count = counts[call.name] = counts.get(call.name, 0) + 1
        record[call.name, count] = [_value(leaf) for leaf in graph.leaves(results)]
        return results

    return step


def _by_layer(model: Any, other: str) -> dict[int, list[graph.Call]]:
    if graph.functional(model) is None:
        reason = f"{type(model).__name__} is a subclassed model: its graph is in its code"
        raise Unbridgeable(model, other, [Problem(model.name, reason)])
    found: dict[int, list[graph.Call]] = {}
    for call in graph.flat_calls(model):
        found.setdefault(id(call.layer), []).append(call)
    return found


def _built(model: Any, keras: Any, other: str, step: graph.Step, made: Mapping[int, graph.Replacement]) -> Any:
    def careful(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return step(call, args, kwargs)
        except Unbridgeable:
            raise
        # Whatever a layer's constructor or call raises in the other Keras is the reason why it does not fit there.
        except Exception as error:
            raise Unbridgeable(model, other, [Problem(call.name, _first_line(error))]) from error

    built = graph.build(model, keras, careful)
    for replacement in made.values():
        if replacement.weights is not None:
            graph.set_weights(replacement.layer, replacement.weights)
    return built


def _in_keras2(calls: Sequence[graph.Call], names: set[str], notes: list[str]) -> graph.Replacement:
    """Returns the tf_keras layer for a Keras 3 layer, from all its calls; `names` are taken."""
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")
    call = calls[0]
    layer, kind = call.layer, type(call.layer).__name__
    ours = type(layer) is getattr(keras.layers, kind, None)
    if ours and kind in REFUSED:
        raise configs.Unfit(REFUSED[kind])
    if getattr(layer, "quantization_mode", None):
        raise configs.Unfit(f"its weights are already quantized by Keras ({layer.quantization_mode})")
    if graph.is_model(layer):
        raise configs.Unfit("it is a subclassed model: its graph is in its code")
    # One that calls a function by name stays what it is: as a tf_keras layer its file would hold the code.
    named = kind == "Lambda" and layer.function.__name__ != "<lambda>"
    if ours and kind == "Lambda" and not named:
        function = tf_keras.layers.Lambda(layer.function, arguments=layer.arguments, name=call.name)
        return graph.Replacement(function, ())
    standard = standard_form(layer)
    if standard is not None:
        standard.layer._name = call.name  # type: ignore[attr-defined]
        return standard
    inner = _distributed(layer)
    if inner is not None:
        return _in_keras2([graph.Call(inner, c.name, c.args, c.kwargs, c.outputs) for c in calls], names, notes)
    if ours and kind == "Activation":
        config = {**layer.get_config(), "name": call.name}
        replacement = _activation(config["activation"], call.name)
        if replacement is not None:
            return graph.Replacement(replacement, ())
    weights = [_value(weight) for weight in layer.weights]
    if ours and kind not in KEPT and not named and not any(_only_keras3_arguments(c) for c in calls):
        try:
            config = {**layer.get_config(), "name": call.name}
            then: tuple[Any, ...] = ()
            if "recurrent_activation" not in config:
                after = _activation(config.get("activation"), _free_name(f"{call.name}_activation", names))
                if after is not None:
                    config["activation"], then = "linear", (after,)
            config = configs.to_keras2(kind, config, notes)
            return graph.Replacement(getattr(tf_keras.layers, kind).from_config(config), weights, then)
        except configs.Unfit as error:
            notes.append(f"layer {call.name!r} stays a Keras 3 layer inside tf_keras: {error}")
    elif not ours:
        notes.append(f"layer {call.name!r} ({kind}) stays a Keras 3 layer inside tf_keras")
    arguments, _ = layers.arguments_of(call.args, call.kwargs)
    twin = layers.from_json(layers.to_json(layer))
    holder = layers.classes().KerasLayer(twin, arguments, name=call.name, trainable=layer.trainable)
    return graph.Replacement(holder, weights)


def _activation(activation: Any, name: str) -> Any | None:
    """Returns the tf_keras layer for an activation in a Keras 3 config that tf_keras has no function for, or None."""
    library = frameworks.load("tf_keras").layers
    if isinstance(activation, Mapping) and activation.get("module") == "keras.layers":
        kind = activation["class_name"]
        config = configs.to_keras2(kind, {**activation["config"], "name": name}, [])
        return getattr(library, kind).from_config(config)
    if not isinstance(activation, str):
        return None
    if activation == "relu6":
        return library.ReLU(max_value=6.0, name=name)
    if activation == "leaky_relu":
        return library.LeakyReLU(alpha=0.2, name=name)
    activation = configs.SYNONYMS.get(activation, activation)
    own = activation in layers.KERAS3_ACTIVATIONS
    return layers.classes().KerasActivation(activation, name=name) if own else None


def _free_name(name: str, taken: set[str]) -> str:
    """Returns `name`, or with a number where it is taken, and takes it."""
    free = next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)
    taken.add(free)
    return free


def _only_keras3_arguments(call: graph.Call) -> bool:
    """Whether a call names arguments that tf_keras's layers do not take, but for those left at None."""
    given = {key for key, value in call.kwargs.items() if value is not None}
    return bool(given & {"query_mask", "value_mask", "key_mask"})


def _in_keras3(call: graph.Call, names: set[str]) -> graph.Replacement | None:
    """Returns the Keras 3 layer or function for a tf_keras layer; None for a bare TensorFlow function.

    `names` are taken.
    """
    keras, tf_keras = frameworks.load("keras"), frameworks.load("tf_keras")
    layer, kind = call.layer, type(call.layer).__name__
    own = layers.classes()
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        return None
    if isinstance(layer, own.KerasOperation):
        operation = layers.from_json(layers.to_json(layer.operation))
        return graph.Replacement(_operation_in_keras3(operation, layer.arguments))
    if isinstance(layer, own.KerasLayer):
        return graph.Replacement(layers.from_json(layers.to_json(layer.layer)), layer.get_weights())
    weights = [_value(weight) for weight in layer.weights]
    if isinstance(layer, own.KerasActivation):
        return graph.Replacement(keras.layers.Activation(layer.activation.__name__, name=call.name), ())
    if kind == "ThresholdedReLU":
        threshold = float(layer.theta)
        return graph.Replacement(lambda x: keras.ops.threshold(x, threshold, 0.0))
    standard = standard_form(layer)
    if standard is not None:
        layer, kind, weights = standard.layer, type(standard.layer).__name__, list(standard.weights or ())
    if type(layer) is not getattr(tf_keras.layers, kind, None):
        raise configs.Unfit(f"it is a {kind} of {type(layer).__module__}, which plain Keras 3 does not know")
    if kind == "Lambda":
        raise configs.Unfit("a Lambda holds Python code, which a file for plain Keras 3 must not hold")
    config = {**layer.get_config(), "name": call.name}
    then: tuple[Callable[..., Any], ...] = ()
    if config.get("activation") == "hard_sigmoid" and "recurrent_activation" not in config:
        # Keras 2's hard_sigmoid is clip(0.2 x + 0.5, 0, 1); the function of that name in Keras 3 is another one.
        then = (
            keras.layers.Rescaling(0.2, 0.5, name=_free_name(f"{call.name}_scaled", names)),
            keras.layers.ReLU(max_value=1.0, name=_free_name(f"{call.name}_clipped", names)),
        )
        config["activation"] = "linear"
    config = configs.to_keras3(kind, config, [])
    twin = getattr(keras.layers, kind).from_config(config)
    return graph.Replacement(twin, weights, then)


def _operation_in_keras3(operation: Any, arguments: layers.Arguments) -> Callable[..., Any]:
    def call(inputs: Any) -> Any:
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        args, kwargs = arguments.filled(lambda stand_in: tensors[stand_in.index])
        return operation(*args, **kwargs)

    return call


def _value(variable: Any) -> np.ndarray:
    """Returns a variable of either Keras as a NumPy array, float32 for every floating dtype."""
    is_keras3 = hasattr(variable, "path")
    array = np.asarray(frameworks.load("keras").ops.convert_to_numpy(variable) if is_keras3 else variable)
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if floating else array


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
