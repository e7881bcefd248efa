"""A model's channels and a cut go in; the layers where branches are added, with what stays of their channels, come out.

What such a layer hands on is what the blocks of a network agree upon. The smaller one may compute it in its own way,
but what it computes there is known from the whole one, place by place: Romero et al., "FitNets: Hints for Thin Deep
Nets" (arXiv 1412.6550).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeopt import graph
from edgeopt.shrinking.blocks import adds, tensors_of
from edgeopt.shrinking.channels import Channels, Cut
from edgeopt.shrinking.rules import kind_of

# What is part of a joint where it alone reads an addition.
_ACTIVATIONS = ("Activation", "ELU", "LeakyReLU", "PReLU", "ReLU")


def joints(
    channels: Channels, cut: Cut, known: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> dict[str, tuple[int, ...]]:
    """Returns for each layer behind an addition, by name, which of its channels stay.

    Args:
        channels: before the cut.
        cut: what stays.
        known: what earlier cuts returned: channels are then numbered as they were before the first one.
    """
    kept = channels.kept(cut)
    times = Counter(call.name for call in channels.calls)
    found = {}
    for number, call in enumerate(channels.calls):
        if not adds(call) or (units := _units(channels, call.outputs[0])) is None:
            continue
        name, places = _end(channels, number).name, np.flatnonzero(kept[units]).tolist()
        # What a layer hands on at several places has no one set of channels.
        if times[name] == 1:
            found[name] = tuple(known[name][at] for at in places) if known else tuple(places)
    return found


def _end(channels: Channels, number: int) -> graph.Call:
    """Returns the activation that alone reads an addition, or the addition."""
    call = channels.calls[number]
    takers = [other for other in channels.calls if any(t is call.outputs[0] for t in tensors_of(other))]
    return takers[0] if len(takers) == 1 and kind_of(takers[0].layer) in _ACTIVATIONS else call


def _units(channels: Channels, tensor: Any) -> np.ndarray | None:
    """Returns the unit of each channel on a tensor's last axis; None where that is not known."""
    makers = {id(made): call for call in channels.calls for made in call.outputs}
    width = tensor.shape[-1]
    waiting = [tensor]
    while waiting:
        call = makers.get(id(waiting.pop()))
        if call is None:
            continue
        units = channels.makers.get(call.name)
        if units is None:
            waiting += [given for given in tensors_of(call) if given.shape[-1] == width]
        elif len(units) == width:
            return units
    return None
