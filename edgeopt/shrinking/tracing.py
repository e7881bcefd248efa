"""What the rules of layers write down while a model's calls pass by: axes of tensors, uses of weights, reads, MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from edgeopt.shrinking.units import Axis, Units

# The axes of a tensor after the batch.
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph as the rules see it; the batch dimension is left out."""

    shape: tuple[int | None, ...]
    axes: Axes

    @property
    def rank(self) -> int:
        """Number of dimensions after the batch."""
        return len(self.shape)


@dataclass
class Use:
    """A layer with what depends on its channels.

    Attributes:
        weights: for each weight, in the order of `layer.weights`, the axes of that weight.
        config: keys of the layer's config and the channels that they count; a tuple holds axes (counted) and numbers.
        made: the channels it makes, if it makes any.
        heads: whether these are attention heads.
        judged: the weights (by index) whose slices along an axis say what its channels are worth: (weight, axis).
        whole: why it keeps all it makes, where it would have no unit to cut.
        scale: index of the weight that scales the channels of a batch normalization, with those channels.
    """

    layer: Any
    name: str
    weights: list[Axes]
    config: dict[str, Any] = field(default_factory=dict)
    made: list[np.ndarray] = field(default_factory=list)
    heads: list[np.ndarray] = field(default_factory=list)
    judged: list[tuple[int, int]] = field(default_factory=list)
    scale: int | None = None
    whole: str = ""


@dataclass(frozen=True)
class Term:
    """Multiply-accumulates: `constant` times how many are left on each of `axes`."""

    constant: int
    axes: tuple[np.ndarray, ...]


class Trace:
    """Collects what the rules find, in the order of the calls."""

    def __init__(self) -> None:
        self.units = Units()
        self.uses: dict[int, Use] = {}
        # For each call that mixes channels: (position of the tensor among its arguments, axis) -> channels.
        self.reads: list[dict[tuple[int, int], np.ndarray]] = []
        # For each call that normalizes over channels, or has heads: those channels.
        self.inner: list[np.ndarray | None] = []
        self.terms: list[Term] = []
        # Names of calls that multiply, nobody knows how much.
        self.uncounted: list[str] = []

    def begin(self) -> None:
        """Makes room for the next call."""
        self.reads.append({})
        self.inner.append(None)

    def read(self, value: Value, axis: int, position: int = 0) -> Axis:
        """Notes that the current call mixes the channels on an axis of its input; returns them."""
        ids = value.axes[axis]
        if ids is not None:
            self.reads[-1][position, axis % value.rank] = ids
        return ids

    def make(self, count: int) -> Axis:
        """Returns new channels; None where there is but one, which cannot go."""
        return self.units.fresh(count) if count > 1 else None

    def freeze(self, value: Value, reason: str, axes: Sequence[int] | None = None) -> None:
        """Makes the channels on some axes of `value`, or on all, untouchable."""
        for axis in range(value.rank) if axes is None else axes:
            self.units.freeze(value.axes[axis], reason)

    def use(
        self,
        layer: Any,
        name: str,
        weights: Mapping[str, Axes] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> Use:
        """Notes how the weights and config of a layer depend on channels; ties them to those of an earlier call.

        Args:
            layer: the layer.
            name: its name in the graph.
            weights: attribute of the layer -> the axes of that weight; all others depend on nothing.
            config: see Use.
        """
        named = {
            id(getattr(layer, attribute)): axes
            for attribute, axes in (weights or {}).items()
            if getattr(layer, attribute, None) is not None
        }
        found = [named.get(id(w), (None,) * len(w.shape)) for w in layer.weights]
        reason = f"the layer {name} is used elsewhere, where its channels are untouchable"
        known = self.uses.get(id(layer))
        if known is None:
            known = self.uses[id(layer)] = Use(layer, name, found, dict(config or {}))
            return known
        for before, now in zip(known.weights, found):
            for one, other in zip(before, now):
                self.units.tie(one, other, reason)
        for key, counted in (config or {}).items():
            for one, other in zip(_parts(known.config[key]), _parts(counted)):
                if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
                    ids = [i if isinstance(i, np.ndarray) else None for i in (one, other)]
                    self.units.tie(ids[0], ids[1], reason)
        return known

    def macs(self, constant: int, dims: Sequence[tuple[int | None, Axis]]) -> None:
        """Notes multiply-accumulates: `constant` for each element of a box of these sizes (free ones count as 1)."""
        fixed = prod(size or 1 for size, ids in dims if ids is None)
        self.terms.append(Term(constant * fixed, tuple(ids for _, ids in dims if ids is not None)))


def dims(value: Value) -> list[tuple[int | None, Axis]]:
    """Returns size and channels of each axis."""
    return list(zip(value.shape, value.axes))


def _parts(counted: Any) -> Sequence[Any]:
    return counted if isinstance(counted, tuple) else (counted,)
