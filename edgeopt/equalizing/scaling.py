"""A flat model goes in; the channels whose values may be divided by any number, and the model so divided, come out.

Where an activation keeps scales, a layer's outputs may be divided by one number a channel and the next layer's weights
multiplied by it, and the model computes what it did: Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction" (arXiv 1906.04721), section 4.1. Here a channel has one number wherever it goes: over the branches
that an addition joins, through concatenations and poolings, to every layer that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.equalizing.folding import factors, folded
from edgeopt.equalizing.rules import RULES, Scaled, ScaleTrace, Site
from edgeopt.shrinking.channels import numbered, traced


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel as it will be quantized: with the normalization that conversion multiplies into it.

    Attributes:
        layer: its layer's name.
        attribute: the layer's name for it.
        magnitudes: the largest |weight| of each pair of channels that it connects.
        given, made: units, of shapes that broadcast to that of the magnitudes; -1 where a channel has no scale.
    """

    layer: str
    attribute: str
    magnitudes: np.ndarray
    given: np.ndarray
    made: np.ndarray

    def scaled(self, scales: np.ndarray) -> np.ndarray:
        """Returns the magnitudes with these scales, [units + 1], the last of them 1."""
        found: np.ndarray = self.magnitudes * (scales[self.given] / scales[self.made]).astype(np.float32)
        return found


@dataclass(frozen=True)
class Pair:
    """Two layers of which one reads what the other makes, and why these channels have no scale."""

    maker: str
    reader: str
    reason: str


class Scaling:
    """The scales of a model.

    Attributes:
        model: the model, flat.
        calls: its calls in order.
        sites: the layers whose weights follow the scales, by id.
        folded: see `folding.folded`.
        units: how many channels may have a scale.
        kernels: what their ranges are judged by.
        places: the units on the axes of each tensor that carries channels, by its id.
    """

    def __init__(self, model: Any) -> None:
        self.model = model if graph.is_flat(model) else graph.flatten(model)
        self.calls = graph.flat_calls(self.model)
        self._trace = traced(self.model, self.calls, ScaleTrace(), RULES)
        self.sites: dict[int, Site] = self._trace.sites
        self.folded = {key: layers for key, layers in folded(self.calls).items() if self._followed(key, layers)}
        for key in self.folded:
            # Only the normalization is written out: the channels between the two keep their scale.
            self._trace.units.freeze(_made(self.sites[key]), "normalized before anything else reads them")
        self._numbers = numbered(self._trace)
        self.units = int(self._numbers.max(initial=-1)) + 1
        self.kernels = tuple(self._kernels())
        self.places = {
            key: tuple(None if ids is None else self._numbers[ids] for ids in axes)
            for key, axes in self._trace.places.items()
        }

    def number(self, ids: np.ndarray) -> np.ndarray:
        """Returns the units of channels, -1 where they have no scale."""
        found: np.ndarray = self._numbers[ids]
        return found

    def apply(self, scales: np.ndarray) -> None:
        """Divides each channel by its scale, [units + 1] with 1 at the end, in the weights of the model itself."""
        for site in self.sites.values():
            for scaled in site.weights:
                weight = getattr(site.layer, scaled.attribute)
                value = np.asarray(weight, np.float64)
                if scaled.given is not None:
                    value = value * scales[self.number(scaled.given)]
                if scaled.made is not None:
                    value = value / scales[self.number(scaled.made)]
                weight.assign(value.astype(weight.dtype.as_numpy_dtype))

    def unshiftable(self) -> dict[int, str]:
        """Returns the units that must not be shifted, and why."""
        found: dict[int, str] = {}
        for shift in self._trace.unshiftable:
            for unit in np.unique(self.number(shift.ids)):
                found.setdefault(int(unit), shift.reason)
        return found

    def left(self) -> tuple[Pair, ...]:
        """Returns the pairs of layers that share channels, none of which has a scale."""
        units = self._trace.units
        makers: dict[int, list[str]] = {}
        for key, site in self.sites.items():
            # What is normalized at once is made by the normalization; what comes out is named after its layer.
            if key in self.folded:
                continue
            for root in {units.root(int(i)) for i in _made(site)}:
                makers.setdefault(root, []).append(self._named(site))
        found: dict[tuple[str, str], str] = {}
        for site in self.sites.values():
            for kernel in site.kernels:
                for i in np.unique(kernel.given) if kernel.given is not None else ():
                    reason = units.reason(int(i))
                    for maker in makers.get(units.root(int(i)), ()) if reason is not None else ():
                        found.setdefault((maker, site.name), str(reason))
        return tuple(Pair(*names, reason) for names, reason in found.items())

    def _named(self, site: Site) -> str:
        """Returns the name of the layer whose outputs a normalization makes, where that is so."""
        for key, layers in self.folded.items():
            if any(layer is site.layer for layer in layers):
                return self.sites[key].name
        return site.name

    def _followed(self, key: int, layers: tuple[Any, ...]) -> bool:
        return key in self.sites and all(id(layer) in self.sites for layer in layers)

    def _kernels(self) -> Iterator[Kernel]:
        normalizing = {id(layer) for layers in self.folded.values() for layer in layers}
        for key, site in self.sites.items():
            if key in normalizing:
                continue
            for scaled in site.kernels:
                last = scaled is site.kernels[-1]
                for layer in self.folded.get(key, (None,)) if last else (None,):
                    yield self._kernel(site, scaled, layer)

    def _kernel(self, site: Site, scaled: Scaled, normalization: Any) -> Kernel:
        values = np.abs(np.asarray(getattr(site.layer, scaled.attribute)))
        made = scaled.made
        assert made is not None  # every kernel makes channels
        if normalization is not None:
            values = values * np.abs(factors(normalization)).reshape(made.shape)
            made = _made(self.sites[id(normalization)]).reshape(made.shape)
        if hasattr(site.layer, "moving_variance"):
            values = np.abs(factors(site.layer))
        given = np.full((1,) * values.ndim, -1) if scaled.given is None else self.number(scaled.given)
        alike = tuple(axis for axis in range(values.ndim) if given.shape[axis] == made.shape[axis] == 1)
        magnitudes = values.max(axis=alike, keepdims=True).astype(np.float32)
        return Kernel(site.name, scaled.attribute, magnitudes, given, self.number(made))


def _made(site: Site) -> np.ndarray:
    """Returns the channels that a layer makes."""
    made = site.kernels[-1].made
    assert made is not None
    return made.ravel()
