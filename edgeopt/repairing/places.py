"""A float file, its quantized one and samples go in; where ranges may be others, and the file with others, come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.repairing.histograms import histograms
from edgeopt.repairing.ranges import ACTIVATIONS, WEIGHTS, Range, alike
from edgeopt.repairing.scales import Group, groups, parameters, with_ranges
from edgeopt.tflite.pairing import Pair, Pairing, pair_weights
from edgeopt.tflite.stored_weights import StoredWeights, with_weights

if TYPE_CHECKING:
    from edgeopt.data import Part

# Share of a layer's weights that are not the nearest integers: they were rounded with more care.
_ROUNDED_OTHERWISE = 0.01
# Shares of a range, or of a scale, that are the same.
_SAME_SCALE = 0.005


@dataclass(frozen=True)
class Place:
    """Activations that share a scale, or the weights of a layer, and what they may have in place of what they have.

    Attributes:
        name: of the first tensor, or "weights of" the layer that computes with them.
        what: "activations" or "weights".
        now: the range of activations; (0, 0) for weights.
        ranges: kind of choice → range of the activations `group`.
        weights: kind of choice → what the weight tensor `tensor` holds.
    """

    name: str
    what: str
    now: Range = (0.0, 0.0)
    group: Group | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    tensor: int = -1
    weights: Mapping[str, StoredWeights] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of choices that differ here from what it has, and from one another."""
        return tuple(self.ranges or self.weights)

    def words(self, kind: str) -> str:
        """Returns in words what a choice changes."""
        if self.weights:
            return kind
        old, new = self.now, self.ranges[kind]
        return f"{kind}: {old[0]:.4g} to {old[1]:.4g} → {new[0]:.4g} to {new[1]:.4g}"


@dataclass(frozen=True)
class Places:
    """The places of a file.

    Attributes:
        content: the quantized file.
        found: by name.
        left: what keeps its range → why.
    """

    content: bytes
    found: Mapping[str, Place]
    left: Mapping[str, str]

    def with_choices(self, chosen: Mapping[str, str]) -> bytes | None:
        """Returns the file with these kinds of choices, by place; None where a bias does not fit then."""
        ranges, weights = {}, {}
        for name, kind in chosen.items():
            place = self.found[name]
            if place.group is not None:
                ranges[place.group] = place.ranges[kind]
            else:
                weights[place.tensor] = place.weights[kind]
        try:
            content = with_ranges(self.content, ranges)
            return with_weights(content, weights) if weights else content
        except ModelError:
            return None


def places(
    float_file: Path, converted: Path, part: Part, *, activations: bool, weights: bool, percentile: float
) -> Places:
    """Returns where ranges may be others.

    Args:
        float_file, converted: the model in float32, and quantized.
        part: sets the ranges of activations.
        activations, weights: which of them are asked for.
        percentile: share of the values in a percentile's range, 0 to 1.
    """
    content = converted.read_bytes()
    pairing = pair_weights(float_file.read_bytes(), content)
    found: dict[str, Place] = {}
    left: dict[str, str] = {}
    if activations:
        free, fixed = groups(pairing.quantized)
        seen = histograms(float_file, pairing.floating, pairing.quantized, free, part)
        left |= fixed
        functions: dict[str, Callable[..., Range]] = {
            **ACTIVATIONS,
            "percentile": partial(ACTIVATIONS["percentile"], share=percentile),
        }
        for group in free:
            if group not in seen:
                left[group.name] = "the float file has nothing of that name that varies"
                continue
            ranges: dict[str, Range] = {}
            for kind, function in functions.items():
                held = _as_stored(function(seen[group], group.levels, group.symmetric), group.dtype)
                if not alike(held, [group.held, *ranges.values()]):
                    ranges[kind] = held
            found[group.name] = Place(group.name, "activations", group.held, group, ranges)
    if weights:
        left |= pairing.alone
        for pair in pairing.pairs:
            name = f"weights of {pair.name}"
            if _rounded_otherwise(pairing, pair):
                left[name] = "rounded with more care than to the nearest integer"
            elif pair.quantized.weight.index not in {place.tensor for place in found.values()}:
                options = _weights(pairing, pair)
                found[name] = Place(name, "weights", tensor=pair.quantized.weight.index, weights=options)
    return Places(content, {name: place for name, place in found.items() if place.kinds}, left)


def _as_stored(held: Range, dtype: str) -> Range:
    """Returns the range that integers have after their zero point was rounded."""
    scale, zero_point = parameters(held, dtype)
    lowest, highest = (-128, 127) if dtype == "int8" else (-32767, 32767)
    return (lowest - zero_point) * scale, (highest - zero_point) * scale


def _rows(values: np.ndarray, axis: int | None) -> np.ndarray:
    """Returns what shares a scale as one row each: [rows, values]."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _nearest(values: np.ndarray, scales: np.ndarray, axis: int | None, highest: int) -> np.ndarray:
    along = scales.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.clip(np.rint(values / along), -highest, highest).astype(np.int8)


def _rounded_otherwise(pairing: Pairing, pair: Pair) -> bool:
    stored = pairing.stored(pair)
    near = _nearest(pairing.float_weights(pair), stored.scales, stored.axis, 2 ** (stored.bits - 1) - 1)
    return bool((near != stored.values).mean() > _ROUNDED_OTHERWISE)


def _weights(pairing: Pairing, pair: Pair) -> dict[str, StoredWeights]:
    stored, values = pairing.stored(pair), pairing.float_weights(pair)
    # Three bits are stored in four.
    highest = max(int(np.abs(stored.values.astype(int)).max(initial=1)), 1)
    bits = min(stored.bits, highest.bit_length() + 1)
    highest = 2 ** (bits - 1) - 1
    rows = _rows(values, stored.axis)
    options: dict[str, StoredWeights] = {}
    for kind, function in WEIGHTS.items():
        scales = (function(rows, bits) / highest).astype(np.float32)
        scales = np.where(scales > 0, scales, stored.scales)
        known = [stored, *options.values()]
        if all(np.abs(scales / other.scales - 1).max() > _SAME_SCALE for other in known):
            options[kind] = StoredWeights(
                _nearest(values, scales, stored.axis, highest), scales, stored.bits, stored.axis
            )
    return options
