"""Layer configs from one Keras to the other: a config goes in, what the other's constructor takes comes out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgeopt import frameworks, graph
from edgeopt.keras_bridge import layers


class Unfit(Exception):
    """A config has no equal in the other Keras; the message is the reason."""


# Options that tf_keras lacks (all layers, or some) -> the values at which nothing is lost without them.
# None instead of values: nothing is lost at any.
ONLY_KERAS3: dict[str, tuple[Any, ...] | None] = {
    "antialias": (False,),
    "data_format": ("channels_last",),
    "dilation_rate": (1, [1, 1, 1]),
    "fill_mode": ("constant",),
    "fill_value": (0.0,),
    "noise_shape": (None,),
    "pad_to_aspect_ratio": (False,),
    "quantization_config": (None,),
    "renorm": (False,),
    "renorm_clipping": None,
    "renorm_momentum": None,
    "rms_scaling": (False,),
    "seed": None,
    "sliding_window": (None,),
    "trainable": None,
    "use_gate": (False,),
    "zero_output_for_mask": (False,),
}

# What some tf_keras layers take beside what their constructors name.
UNNAMED: dict[str, tuple[str, ...]] = {
    "GRU": ("zero_output_for_mask",),
    "LSTM": ("zero_output_for_mask",),
    "MultiHeadAttention": ("query_shape", "key_shape", "value_shape"),
    "RNN": ("zero_output_for_mask",),
    "SimpleRNN": ("zero_output_for_mask",),
}

# The same for options that Keras 3 lacks.
ONLY_KERAS2: dict[str, tuple[Any, ...] | None] = {
    "batch_input_shape": None,
    "force_generator": None,
    "groups": (1,),
    "implementation": None,
    "input_length": None,
    "key_shape": None,
    "kernel_constraint": (None,),
    "kernel_initializer": None,
    "kernel_regularizer": (None,),
    "noise_shape": (None,),
    "query_shape": None,
    "rng_type": None,
    "softmax_robust_masking": (False,),
    "sparse": (False,),
    "time_major": (False,),
    "trainable": None,
    "value_shape": None,
}

# (class, option) in Keras 3 -> its name in tf_keras.
RENAMED: dict[tuple[str, str], str] = {("LeakyReLU", "negative_slope"): "alpha"}

# Activations that both Keras know under the same name, with the same values.
COMMON_ACTIVATIONS = (
    "elu",
    "exponential",
    "gelu",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
)
SYNONYMS = {"silu": "swish", "hard_swish": "hard_silu"}

_ACTIVATION_OPTIONS = ("activation", "recurrent_activation")
_OBJECTS = ("initializer", "regularizer", "constraint")


def to_keras2(class_name: str, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Returns the config that `tf_keras.layers.<class_name>` takes for a Keras 3 layer's config.

    Raises:
        Unfit: an option is set to what tf_keras cannot do.
    """
    target = getattr(frameworks.load("tf_keras").layers, class_name, None)
    if target is None:
        raise Unfit(f"tf_keras has no {class_name}")
    renamed = {RENAMED.get((class_name, key), key): value for key, value in config.items()}
    if class_name == "MultiHeadAttention":
        renamed |= {"query_shape": None, "key_shape": None, "value_shape": None}
    also = UNNAMED.get(class_name, ())
    kept = {key: value for key, value in renamed.items() if _kept(key, value, target, ONLY_KERAS3, also)}
    return _values(kept, notes, "tf_keras", activation_for_keras2, to_keras2)


def to_keras3(class_name: str, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Returns the config that `keras.layers.<class_name>` takes for a tf_keras layer's config.

    Raises:
        Unfit: an option is set to what Keras 3 cannot do.
    """
    target = getattr(frameworks.load("keras").layers, class_name, None)
    if target is None:
        raise Unfit(f"Keras 3 has no {class_name}")
    back = {new: old for (kind, old), new in RENAMED.items() if kind == class_name}
    renamed = {back.get(key, key): plain(value) for key, value in config.items()}
    kept = {key: value for key, value in renamed.items() if _kept(key, value, target, ONLY_KERAS2)}
    if isinstance(kept.get("axis"), list) and len(kept["axis"]) == 1:
        kept["axis"] = kept["axis"][0]
    return _values(kept, notes, "keras", activation_for_keras3, to_keras3)


def activation_for_keras2(activation: Any) -> Any:
    """Returns the tf_keras activation (a name or a function) for one in a Keras 3 config."""
    if isinstance(activation, str):
        name = SYNONYMS.get(activation, activation)
        if name in layers.KERAS3_ACTIVATIONS:
            return layers.activations()[name]
        if name in COMMON_ACTIVATIONS:
            return name
    elif activation is None or callable(activation):
        return activation
    elif isinstance(activation, Mapping) and activation.get("class_name") == "function":
        return frameworks.load("keras").saving.deserialize_keras_object(activation)
    raise Unfit(f"its activation {_said(activation)} has no equal in tf_keras")


def activation_for_keras3(activation: Any) -> Any:
    """Returns the Keras 3 activation for one in a tf_keras config."""
    if isinstance(activation, Mapping):
        activation = activation.get("config")
    if activation is None or callable(activation):
        return activation
    name = str(activation)
    if name.startswith(f"{layers.PACKAGE}>"):
        return name.removeprefix(f"{layers.PACKAGE}>")
    if name == "hard_sigmoid":
        raise Unfit("Keras 2's hard_sigmoid, clip(0.2 x + 0.5), is not Keras 3's, clip(x / 6 + 0.5)")
    return SYNONYMS.get(name, name)


def plain(value: Any) -> Any:
    """Returns a config without the wrappers that tf_keras puts around lists and dicts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return [plain(item) for item in value] if isinstance(value, list) else value


def _kept(
    key: str, value: Any, target: type, harmless: Mapping[str, tuple[Any, ...] | None], also: tuple[str, ...] = ()
) -> bool:
    if key in _accepted(target) or key in also:
        return True
    values = harmless.get(key, ())
    plain_value = list(value) if isinstance(value, tuple) else value
    if values is None or plain_value is None or any(plain_value == allowed for allowed in values):
        return False
    raise Unfit(f"its option {key}={_said(value)} has no equal in the other Keras")


@functools.cache
def _accepted(target: type) -> frozenset[str]:
    """Returns the option names that a layer class and those it passes **kwargs on to take."""
    names: set[str] = set()
    for cls in target.__mro__:
        if cls.__name__ == "Layer":
            return frozenset(names | {"name", "dtype", "trainable", "activity_regularizer"})
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names.update(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(names)


def _values(
    config: Mapping[str, Any],
    notes: list[str],
    other: str,
    activation: Callable[[Any], Any],
    convert: Callable[[str, Mapping[str, Any], list[str]], dict[str, Any]],
) -> dict[str, Any]:
    """Returns a config's values in the form of the `other` Keras, without objects of classes that it lacks."""
    library, found = frameworks.load(other), {}
    for key, value in config.items():
        kind = next((k for k in _OBJECTS if key.endswith(f"_{k}")), None)
        if key in _ACTIVATION_OPTIONS:
            found[key] = activation(value)
        elif key == "dtype":
            found[key] = _dtype(value)
        elif not isinstance(value, Mapping) or "class_name" not in value:
            cells = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
            found[key] = [_layer(key, item, notes, other, convert) for item in value] if cells else value
        elif kind is None:
            found[key] = _layer(key, value, notes, other, convert)
        elif hasattr(getattr(library, f"{kind}s"), value["class_name"]):
            options = _options(getattr(getattr(library, f"{kind}s"), value["class_name"]))
            own = {name: item for name, item in value["config"].items() if name in options}
            found[key] = {**value, "module": f"keras.{kind}s", "registered_name": None, "config": own}
        else:
            notes.append(f"layer {config.get('name')!r}: its {key} {value['class_name']} was dropped, {other} has none")
    return found


@functools.cache
def _options(cls: type) -> frozenset[str]:
    return frozenset(inspect.signature(cls).parameters)


def _layer(key: str, value: Any, notes: list[str], other: str, convert: Callable[..., Any]) -> Any:
    if isinstance(value, Mapping) and value.get("module") == "keras.layers":
        return {**value, "config": convert(value["class_name"], value["config"], notes)}
    raise Unfit(f"its option {key} holds {_said(value)}, which {other} does not know")


def _dtype(value: Any) -> str:
    name = value["config"]["name"] if isinstance(value, Mapping) else value
    return "float32" if name in graph.OTHER_FLOATS else str(name)


def _said(value: Any) -> str:
    text = str(value.get("class_name", value)) if isinstance(value, Mapping) else repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
