"""A loss's name goes in; what computes it for each sample comes out, or an error that says which code is missing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeopt import user_code
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.tasks.losses import LOSSES, LossSpec

# loss(targets, outputs) gives [N, ...].
Computed = Callable[[Any, Any], Any]


def keras_loss(spec: LossSpec, *, from_logits: bool, smoothing: float, places: int) -> Computed:
    """Returns what computes a loss of Keras' for each sample and place.

    Args:
        spec: with a key of LOSSES.
        from_logits: whether outputs are logits, where the settings do not say it.
        smoothing: share of a label's weight that is spread over all classes, where the settings do not say it.
        places: how many axes the output has beside those of samples and units.
    """
    row = LOSSES[spec.name]
    library = load("tf_keras").losses
    if not hasattr(library, row.kind):
        library = load("keras").losses
    kind = getattr(library, row.kind)
    known = set(inspect.signature(kind).parameters)
    settings = {key: value for key, value in spec.settings.items() if key in known and key not in ("reduction", "name")}
    for key, value in (("from_logits", from_logits), ("label_smoothing", smoothing)):
        if key in known and (key not in settings or (key == "label_smoothing" and value)):
            settings[key] = value
    if row.kind in ("Dice", "Tversky"):
        # All axes but that of samples: over everything it would be one number for the batch.
        settings["axis"] = list(range(1, places + 2))
    computed: Computed = kind(**settings).call
    return computed


def scaled_squared_error(scale: np.ndarray) -> Computed:
    """Returns the squared error, each target in units of its own spread: [N, ..., targets] to [N, ...].

    Args:
        scale: variance of each target.
    """
    tf = load("tensorflow")
    factor = (1 / scale).astype(np.float32)

    def computed(targets: Any, outputs: Any) -> Any:
        return tf.reduce_mean(tf.square(tf.cast(targets, outputs.dtype) - outputs) * factor, axis=-1)

    return computed


def own_loss(spec: LossSpec) -> Computed:
    """Returns a user's own loss: a function f(labels, outputs), or a class of losses.

    Raises:
        ConfigError: it is not at hand.
    """
    name = spec.name
    found: Any = user_code.load_function(name, "a loss") if ":" in name else _registered(name)
    if inspect.isclass(found):
        known = inspect.signature(found).parameters
        found = found(**{key: value for key, value in spec.settings.items() if key in known})
    called: Computed = getattr(found, "call", found)
    return called if ":" in name else _as_keras_calls(called)


def _as_keras_calls(loss: Computed) -> Computed:
    """Returns a loss that a model was compiled with, which gets labels in the dtype and rank of outputs of one unit."""
    tf = load("tensorflow")

    def computed(targets: Any, outputs: Any) -> Any:
        targets = tf.cast(targets, outputs.dtype)
        one_unit = outputs.shape[-1] == 1 and len(targets.shape) == len(outputs.shape) - 1
        return loss(targets[..., None] if one_unit else targets, outputs)

    return computed


def require_per_sample(loss: Computed, name: str, targets: Any, outputs: Any) -> None:
    """Tries a loss on a few samples; of several outputs at once where these come by name.

    Raises:
        ConfigError: it fails, or gives one number for all of them.
    """
    together = isinstance(outputs, Mapping)
    count = (next(iter(outputs.values())) if together else outputs).shape[0]
    try:
        values = np.asarray(loss(targets, outputs))
    # Whatever a user's code raises is theirs to mend.
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        way = f"--loss OUTPUT={name} where it takes those of one output" if together else "another --loss"
        raise ConfigError(
            f"The loss {name} failed on labels {_shape(targets)} and outputs {_shape(outputs)}: "
            f"{type(error).__name__}: {first} Try labels as it takes them, or {way}."
        ) from error
    if values.ndim == 0 or values.shape[0] != count:
        got = "one number for the batch" if values.ndim == 0 else f"shape {values.shape}"
        raise ConfigError(
            f"Expected the loss {name} to give a number for each of {count} samples, got {got}. Try a mean "
            "over all axes but the first: tf.reduce_mean(values, axis=range(1, values.shape.rank))."
        )


def _shape(values: Any) -> str:
    if isinstance(values, Mapping):
        return "{" + ", ".join(f"{name}: {_shape(value)}" for name, value in values.items()) + "}"
    return str(tuple(np.shape(values)))


def _registered(name: str) -> Any:
    name = name.rpartition(">")[2]  # as it is registered, the file says its package before it
    for library in ("tf_keras", "keras"):
        objects: Mapping[str, Any] = load(library).saving.get_custom_objects()
        for key, value in objects.items():
            if key.rpartition(">")[2] == name and callable(value):
                return value
    raise ConfigError(
        f"Expected the loss {name!r} that the model was compiled with, got no code for it. "
        "Try --custom-objects FILE.py that defines it, or --loss with another."
    )
