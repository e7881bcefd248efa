"""High biases: a scaled model and samples go in; what channels never fall below moves on into the next layers.

Nagel et al. (arXiv 1906.04721, section 4.1.3): relu(x) - c is relu(x - c) as long as x is no less than c, so that c can
go from a layer's bias into those of the next layers, and the values between them need a smaller range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, graph
from edgeopt.equalizing.rules import Site
from edgeopt.equalizing.scaling import Scaling

_BATCH = 64
# A normalized channel is smaller than beta - 3 |gamma| in 1 of 741 places.
_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Absorbed:
    """What went from a layer into the next ones: how many of its channels, and the largest share of one's range."""

    layer: str
    channels: int
    share: float


def absorb(scaling: Scaling, inputs: Sequence[np.ndarray]) -> tuple[Absorbed, ...]:
    """Moves high biases in the weights of the scaling's own model.

    A channel gives no more than it has in every place of every sample, nor than its normalization's statistics say.
    Only channels of one maker move, and those that no layer reads beside zeros.
    """
    found = []
    makers = _makers(scaling)
    if not makers:
        return ()
    low, high = _extremes(scaling, inputs)
    for site, units, weight in makers:
        shift = np.maximum(np.minimum(low[units], _sure(site, low[units])), 0.0)
        if not shift.any():
            continue
        by_unit = np.zeros(scaling.units + 1)
        by_unit[units] = shift
        weight.assign(np.asarray(weight) - shift.astype(np.float32))
        for reader in _readers(scaling, units):
            _receive(scaling, reader, by_unit)
        found.append(Absorbed(site.name, int((shift > 0).sum()), float((shift / np.maximum(high[units], 1e-30)).max())))
    return tuple(found)


def _makers(scaling: Scaling) -> list[tuple[Site, np.ndarray, Any]]:
    """Returns layers whose channels may be shifted, with the units they make and the weight that shifts them."""
    barred = set(scaling.unshiftable())
    owners: dict[int, set[int]] = {}
    for key, site in scaling.sites.items():
        for scaled in site.kernels:
            for unit in np.unique(scaling.number(scaled.made)) if scaled.made is not None else ():
                owners.setdefault(int(unit), set()).add(key)
            if scaled.given is not None and (site.sums or _bias(scaling, site) is None):
                barred |= set(scaling.number(scaled.given).ravel().tolist())
    found = []
    for key, site in scaling.sites.items():
        bias = next((scaled for scaled in site.weights if scaled.attribute in ("bias", "beta")), None)
        if bias is None or bias.made is None or key in scaling.folded:
            continue
        units = scaling.number(bias.made.ravel())
        own = all(unit >= 0 and owners[int(unit)] == {key} and int(unit) not in barred for unit in units)
        if own and len(np.unique(units)) == len(units):
            found.append((site, units, getattr(site.layer, bias.attribute)))
    return found


def _readers(scaling: Scaling, units: np.ndarray) -> list[Site]:
    return [
        site
        for site in scaling.sites.values()
        if any(k.given is not None and np.isin(scaling.number(k.given), units).any() for k in site.kernels)
    ]


def _bias(scaling: Scaling, site: Site) -> tuple[Any, ...] | None:
    """Returns what takes up a shift of a layer's outputs: its bias, or the means of the normalizations it goes into."""
    if hasattr(site.layer, "moving_mean"):
        return (site.layer.moving_mean,)
    for key, layers in scaling.folded.items():
        if scaling.sites[key] is site:
            return tuple(layer.moving_mean for layer in layers)
    bias = getattr(site.layer, "bias", None)
    return None if bias is None else (bias,)


def _receive(scaling: Scaling, site: Site, shift: np.ndarray) -> None:
    """Lets a layer compute with shifted inputs what it did."""
    (kernel,) = site.kernels
    assert kernel.given is not None
    taken = shift[scaling.number(kernel.given)]
    targets = _bias(scaling, site) or ()
    if hasattr(site.layer, "moving_mean"):
        targets[0].assign(np.asarray(targets[0]) - taken.astype(np.float32))
        return
    products = np.asarray(getattr(site.layer, kernel.attribute), np.float64) * taken
    assert kernel.made is not None
    axes = tuple(axis for axis in range(products.ndim) if kernel.made.shape[axis] == 1)
    moved = products.sum(axis=axes).ravel()
    for target in targets:
        sign = -1 if target is not getattr(site.layer, "bias", None) else 1
        target.assign((np.asarray(target, np.float64) + sign * moved).astype(np.float32))


def _sure(site: Site, otherwise: np.ndarray) -> np.ndarray:
    """Returns what the statistics of a normalization say that channels do not fall below."""
    if not hasattr(site.layer, "moving_mean"):
        return otherwise
    found: np.ndarray = np.asarray(site.layer.beta) - _DEVIATIONS * np.abs(np.asarray(site.layer.gamma))
    return found


def _extremes(scaling: Scaling, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and the largest value of each unit wherever it appears, over all samples."""
    tf = frameworks.load("tensorflow")
    low, high = np.full(scaling.units + 1, np.inf), np.full(scaling.units + 1, -np.inf)

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if graph.takes_training(call.layer):
            kwargs["training"] = False
        result = call.layer(*args, **kwargs)
        for tensor, value in zip(call.outputs, graph.leaves(result)):
            for axis, units in enumerate(scaling.places.get(id(tensor), ())):
                if units is not None and (units >= 0).any():
                    others = [a for a in range(len(value.shape)) if a != axis + 1]
                    np.minimum.at(low, units, np.asarray(tf.reduce_min(value, others)))
                    np.maximum.at(high, units, np.asarray(tf.reduce_max(value, others)))
        return result

    for start in range(0, len(inputs[0]), _BATCH):
        batch = [tf.convert_to_tensor(values[start : start + _BATCH]) for values in inputs]
        graph.walk(scaling.model, batch, step)
    return low, high
