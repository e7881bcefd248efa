"""Values of two models, a batch at a time, go in; what is left of each component comes out. Memory does not grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from edgeopt.fidelity.structure import Layout, Part
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.vocabulary import InputComponent, InputFidelity, OutputComponent, TensorSpec

# Components that are told one by one; more of one kind are taken together, and of more kinds the worst are told.
FEW = 32
_TOLD_OF_MANY = 8
# Different values are counted where there are no more than these.
_LEVELS = 256
# Numbers closer than this share of the largest are one in float32.
_RESOLUTION = 1e-7


@dataclass
class Sums:
    """Sums over samples for each component, float64 [C]; those of two batches add up.

    Attributes:
        count: finite values.
        values, squares: of the float model.
        errors: squared differences of the file to it.
        roundings: squared differences that the output's quantization alone makes.
        labels: squared differences of the labels to the float model, where the labels are its targets.
        outside: values beyond what the quantization holds.
        seen: which stored values the file gave, bool [C, 256]; [C, 0] where it can give more.
        not_finite: values that are not finite in the file alone, int64 [C].
        largest: the largest magnitude of the float model.
    """

    count: np.ndarray
    values: np.ndarray
    squares: np.ndarray
    errors: np.ndarray
    roundings: np.ndarray
    labels: np.ndarray
    outside: np.ndarray
    seen: np.ndarray
    not_finite: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(
        cls,
        reference: np.ndarray,
        other: np.ndarray,
        axis: int,
        grid: TensorSpec | None,
        labels: np.ndarray | None = None,
    ) -> Sums:
        """Returns the sums of a batch.

        Args:
            reference, other: values of the float model and of the file, [N, ...].
            axis: negative; where the components lie. [N] has one.
            grid: how the output is quantized.
            labels: what the float model was trained on to give, [N, ...], if that is known.
        """
        a, b = _columns(reference, axis), _columns(other, axis)
        known = np.isfinite(a)
        both = known & np.isfinite(b)
        a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
        targets = a if labels is None else np.where(both, _columns(labels.reshape(reference.shape), axis), 0.0)
        rounded, low, high = _on_grid(a, grid)
        return cls(
            both.sum(0),
            a.sum(0),
            np.square(a).sum(0),
            np.square(a - b).sum(0),
            np.where(both, np.square(a - rounded), 0.0).sum(0),
            np.square(a - targets).sum(0),
            (both & ((a < low) | (a > high))).sum(0),
            _seen(b, grid),
            (known & ~both).sum(0),
            np.abs(a).max(0, initial=0.0),
        )

    def __add__(self, other: Sums) -> Sums:
        added = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        # Of truth values + is "or" already.
        return Sums(**{**added, "largest": np.maximum(self.largest, other.largest)})

    @property
    def sqnr_db(self) -> float:
        """Signal to noise over all components: 10 log10(sum a² / sum (a - b)²)."""
        signal, noise = float(self.squares.sum()), float(self.errors.sum())
        if noise == 0:
            return math.inf
        return 10 * math.log10(signal / noise) if signal else -math.inf

    def component(self, part: Part, grid: TensorSpec | None) -> OutputComponent:
        """Returns what is left of the components of `part`, taken together: spreads are those around each one's mean.

        The spread is 0 where the float model's values do not differ by more than float32 resolves.
        """
        which = slice(part.first, part.last + 1)
        count = max(1, int(self.count[which].sum()))
        means = self.values[which] / np.maximum(1, self.count[which])
        varied = np.maximum(0.0, self.squares[which] - self.count[which] * np.square(means)).sum()
        spread = math.sqrt(varied / count)
        seen = self.seen[which]
        return OutputComponent(
            part.first,
            part.last,
            spread if spread > _RESOLUTION * float(self.largest.max(initial=0.0)) else 0.0,
            math.sqrt(self.errors[which].sum() / count),
            step_of(grid),
            math.sqrt(self.roundings[which].sum() / count),
            int(seen.any(0).sum()) if seen.shape[1] else None,
            float(self.outside[which].sum()) / count,
        )

    def own_error(self, part: Part) -> float:
        """Returns the rms difference of the float model itself to the labels; 0 where they are not its targets."""
        which = slice(part.first, part.last + 1)
        return math.sqrt(float(self.labels[which].sum()) / max(1, int(self.count[which].sum())))


def parts(layout: Layout, *, alike: bool, targets: bool) -> list[Part]:
    """Returns the components of an output that are judged by themselves, and those that are taken together.

    Values joined from several tensors, or a few of one, may be of different units: one by one. Scores share one, and
    so do classes, and so does what is many.

    Args:
        layout: of the output.
        alike: it is a picture of an input: all in one unit.
        targets: the labels say what each is worth: one by one however many they are.
    """
    found = []
    for part in layout.parts:
        size = part.last - part.first + 1
        if part.kind == "value" and not alike and (targets or size <= FEW):
            found += [Part(i, i, part.kind) for i in range(part.first, part.last + 1)]
        else:
            found.append(part)
    return found


def worst(components: Sequence[OutputComponent]) -> tuple[OutputComponent, ...]:
    """Returns all of a few components, and of many those that lost most, in their order."""
    if len(components) <= FEW:
        return tuple(components)
    chosen = sorted(components, key=lambda one: -one.relative_error)[:_TOLD_OF_MANY]
    return tuple(sorted(chosen, key=lambda one: one.first))


def inputs_left(name: str, grid: TensorSpec, sums: Sums) -> InputFidelity:
    """Returns what the quantization `grid` leaves of each component of an input; constant ones are left out."""
    step = step_of(grid)
    assert step is not None
    left = []
    for index in range(len(sums.count)):
        found = sums.component(Part(index, index, "value"), grid)
        if found.spread:
            left.append(InputComponent(index, found.spread, found.spread / step, found.outside))
    if len(left) > FEW:
        left = sorted(sorted(left, key=lambda one: one.steps)[:_TOLD_OF_MANY], key=lambda one: one.index)
    return InputFidelity(name, step, tuple(left))


def step_of(grid: TensorSpec | None) -> float | None:
    """Returns the difference of two neighbours of a quantized tensor, in its unit."""
    return None if grid is None or grid.quantization is None else grid.quantization.scales[0]


def limits(grid: TensorSpec) -> tuple[float, float]:
    """Returns the smallest and the largest number that a quantized tensor holds."""
    stored = np.iinfo(grid.dtype)
    low, high = dequantize(np.array([stored.min, stored.max], grid.dtype), grid)
    return float(low), float(high)


def _columns(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns values [N, ...] as float64 [rows, components]."""
    if values.ndim == 1:
        return values.astype(np.float64)[:, None]
    moved = np.moveaxis(values, axis, -1)
    return moved.reshape(-1, moved.shape[-1]).astype(np.float64)


def _on_grid(values: np.ndarray, grid: TensorSpec | None) -> tuple[np.ndarray, float, float]:
    """Returns values as a quantized tensor holds them, and from where to where no value is more than a step off."""
    if grid is None:
        return values, -math.inf, math.inf
    low, high = limits(grid)
    step = step_of(grid) or 0.0
    return dequantize(quantize(values, grid), grid).astype(np.float64), low - step, high + step


def _seen(values: np.ndarray, grid: TensorSpec | None) -> np.ndarray:
    components = values.shape[1]
    if grid is None or np.dtype(grid.dtype).itemsize > 1:
        return np.zeros((components, 0), bool)
    found = np.zeros((components, _LEVELS), bool)
    stored = quantize(values, grid).astype(np.int64) - int(np.iinfo(grid.dtype).min)
    found[np.arange(components), stored] = True
    return found
