"""What is said about an optimizer goes in; a tf_keras optimizer with its learning rate schedule comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgeopt.errors import ConfigError, setting
from edgeopt.frameworks import load
from edgeopt.steps import Training

keras: Any = load("tf_keras")


class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from zero to `peak` over `warmup_steps`, then falls to zero at `steps` as `decay` says.

    The peak is a variable, so that what was compiled with one rate runs with another.

    Args:
        peak: the highest rate.
        warmup_steps: how long it rises.
        steps: of the whole training.
        decay: "cosine" (Loshchilov & Hutter, arXiv 1608.03983), "linear" or "constant", which stays at the peak.
    """

    def __init__(self, peak: float, warmup_steps: int, steps: int, decay: str) -> None:
        super().__init__()
        self.peak = load("tensorflow").Variable(float(peak), trainable=False)
        self.warmup_steps, self.steps, self.decay = warmup_steps, steps, decay

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar tensor."""
        tf = load("tensorflow")
        step = tf.cast(step, tf.float32)
        rising = (step + 1.0) / (self.warmup_steps + 1.0)
        done = tf.clip_by_value((step - self.warmup_steps) / max(1, self.steps - self.warmup_steps), 0.0, 1.0)
        falling = {
            "cosine": 0.5 * (1.0 + tf.cos(math.pi * done)),
            "linear": 1.0 - done,
            "constant": tf.ones_like(done),
        }[self.decay]
        return self.peak * tf.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            "peak": float(self.peak.numpy()),
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
            "decay": self.decay,
        }


def schedule_for(training: Training, peak: float, steps: int) -> WarmupDecay:
    """Returns the schedule that `training` (with nothing left unsaid) names, for so many steps in all."""
    assert training.decay
    assert training.warmup is not None
    return WarmupDecay(peak, round(training.warmup * steps), steps, training.decay)


def start_anew(optimizer: Any) -> None:
    """Makes an optimizer as new."""
    for variable in optimizer.variables:
        variable.assign(load("tensorflow").zeros_like(variable))


def optimizer_for(training: Training, schedule: WarmupDecay, variables: Sequence[Any]) -> Any:
    """Returns the optimizer of `variables` that `training` (with nothing left unsaid) names.

    Args:
        training: names the optimizer.
        schedule: of its learning rate.
        variables: what is trained; all but kernels (of one dimension or none) are left out of weight decay.

    Raises:
        ConfigError: the optimizer has no decoupled weight decay, and some was asked for.
    """
    if training.weight_decay and training.optimizer != "adamw":
        raise ConfigError(
            f"Expected optimizer adamw with weight_decay {training.weight_decay:g}, got {training.optimizer}. "
            f"Try {setting('optimizer', 'adamw')}."
        )
    if training.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=training.weight_decay)
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if v.shape.rank < 2])
    elif training.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
    else:
        optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(variables)
    return optimizer
