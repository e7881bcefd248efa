"""Kernels and a schedule go in; a callback that zeroes the smallest weights while a model is trained comes out.

tfmot's `prune_low_magnitude` computes the masks (Zhu & Gupta, "To prune, or not to prune", arXiv 1710.01878). Its
wrappers stay outside of the model: inside they count a shared layer's calls as steps, lose Keras masks, and cannot take
a layer with several inputs. Driven from a callback they do the same to any layer, and nothing has to be stripped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.frameworks import load

keras: Any = load("tf_keras")

# Masks are renewed so often on the way to the goal: more often costs sorting and changes nothing.
RENEWALS = 100


@dataclass(frozen=True)
class Goal:
    """What becomes of one kernel.

    Attributes:
        kernel: a variable, changed in place.
        sparsity: share of it that is zero in the end.
        n_of_m: so many zeros in every so many inputs, in place of `sparsity`; None without.
        block: rows and columns of a kernel [inputs, outputs] that become zero together.
    """

    kernel: Any
    sparsity: float
    n_of_m: tuple[int, int] | None = None
    block: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Renewals:
    """When masks change, in training steps counted from 1.

    Attributes:
        begin: the first renewal.
        end: the last, where the goal is reached.
        every: steps from one to the next.
        gradual: whether sparsity rises from one to the next, or is there at once.
    """

    begin: int
    end: int
    every: int
    gradual: bool = True

    def at(self, step: int) -> bool:
        """Whether masks change at `step`."""
        return self.begin <= step <= self.end and (step - self.begin) % self.every == 0


def renewals(begin: int, end: int, *, gradual: bool = True) -> Renewals:
    """Returns the renewals from step `begin` to about `end`, never later."""
    begin = max(1, begin)
    every = max(1, (end - begin) // RENEWALS)
    # tfmot reaches the goal only where the last renewal is the schedule's end.
    return Renewals(begin, begin + max(0, end - begin) // every * every, every, gradual)


class Masker(keras.callbacks.Callback):
    """Renews masks by a schedule; what is masked, or was zero before, is zero at the end of each epoch.

    Args:
        goals: what is pruned, and how much.
        schedule: returns when, for a number of training steps an epoch.
    """

    def __init__(self, goals: Sequence[Goal], schedule: Callable[[int], Renewals]) -> None:
        super().__init__()
        self._goals, self._schedule = tuple(goals), schedule
        self._wrappers: list[Any] = []
        self._epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes what is zero, also in a checkpoint that training goes on from, as masked."""
        tf = load("tensorflow")
        self._renewals = self._schedule(self.params["steps"])
        self._wrappers = [_wrapper(goal, self._renewals) for goal in self._goals]
        for wrapper in self._wrappers:
            for kernel, mask, _ in wrapper.pruning_vars:
                mask.assign(np.not_equal(kernel.numpy(), 0).astype(mask.dtype.as_numpy_dtype))
        self._renew, self._keep = tf.function(self._renewed), tf.function(self._kept)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes which one it is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Masks what the optimizer's last step moved away from zero; renews the masks when it is time."""
        step = self._epoch * self.params["steps"] + batch + 1
        if self._renewals.at(step):
            tf = load("tensorflow")
            self._renew(tf.constant(step, tf.int64))
        else:
            self._keep()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Masks, so that what is kept of an epoch is sparse, and adds the sparsity to the epoch's logs."""
        self._keep()
        if logs is not None:
            kernels = [goal.kernel.numpy() for goal in self._goals]
            logs["sparsity"] = 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)

    def _renewed(self, step: Any) -> None:
        for wrapper in self._wrappers:
            # tfmot sets an N:M mask at its step 1 alone.
            wrapper.pruning_step.assign(step - self._renewals.begin + 1 if wrapper.sparsity_m_by_n else step)
            before = [mask.read_value() for _, mask, _ in wrapper.pruning_vars]
            wrapper.pruning_obj.weight_mask_op()
            wrapper.pruning_obj.conditional_mask_update()
            # Ties at zero would bring zeros back.
            for (_, mask, _), was in zip(wrapper.pruning_vars, before):
                mask.assign(mask * was)
            wrapper.pruning_obj.weight_mask_op()

    def _kept(self) -> None:
        for wrapper in self._wrappers:
            wrapper.pruning_obj.weight_mask_op()


def zeros_of(goal: Goal) -> int:
    """Returns how many zeros the kernel of `goal` has when it is reached, at least."""
    size = int(np.prod(goal.kernel.shape))
    if goal.n_of_m is not None:
        zeros, group = goal.n_of_m
        inputs = goal.kernel.shape[-2]
        last = inputs % group
        return size // inputs * (inputs // group * zeros + max(0, last - (group - zeros)))
    rows, columns = goal.block
    blocks = int(np.prod([-(-length // by) for length, by in zip(goal.kernel.shape[-2:], (rows, columns))]))
    if goal.block == (1, 1):
        blocks = size
    kept = max(1, int(np.round(np.float32(blocks) * (np.float32(1) - np.float32(goal.sparsity)))))
    return max(0, size - kept * rows * columns)


def _wrapper(goal: Goal, when: Renewals) -> Any:
    """Returns tfmot's wrapper, built, around one kernel."""
    tfmot = load("tfmot").sparsity.keras
    there = 1 - np.count_nonzero(goal.kernel.numpy()) / goal.kernel.numpy().size
    if when.gradual and when.end > when.begin:
        start = min(there, goal.sparsity)
        schedule = tfmot.PolynomialDecay(start, goal.sparsity, when.begin, when.end, frequency=when.every)
    else:
        schedule = tfmot.ConstantSparsity(goal.sparsity, when.begin, when.end, when.every)
    wrapper = tfmot.prune_low_magnitude(
        _Prunable(goal.kernel), schedule, block_size=goal.block, sparsity_m_by_n=goal.n_of_m
    )
    wrapper.build(None)
    return wrapper


class _Prunable(keras.layers.Layer):
    """A kernel as tfmot takes it: tfmot asks a layer that it does not know for `get_prunable_weights`."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel = kernel
        self.built = True

    def get_prunable_weights(self) -> list[Any]:
        """Returns the kernel."""
        return [self.kernel]
