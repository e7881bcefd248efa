"""A flat functional model goes in; the groups of channels that may leave it, and what leaves with them, come out.

Every place on a tensor's axis gets an id, and the rules tie the ids that must go together (the two sides of a residual
addition, a depthwise convolution's input and output): the idea of a dependency graph as in Fang et al., "DepGraph:
Towards Any Structural Pruning" (arXiv 2301.12900), kept for each channel instead of for each layer, so that
concatenations, reshapes and layers used twice need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgeopt import graph
from edgeopt.errors import ConfigError, suggestion
from edgeopt.shrinking.rules import Rule, outputs_of
from edgeopt.shrinking.tracing import Trace, Use, Value
from edgeopt.shrinking.units import Axis

TraceT = TypeVar("TraceT", bound=Trace)
# For each group by name: the places of the channels (or heads) that stay, ascending. A group that is not there stays.
Cut = Mapping[str, np.ndarray]

CHANNELS, HEADS = "channels", "heads"


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that the same layers make and read, so that any of them may go, each with all its copies.

    Attributes:
        name: of the first layer that makes them; unique.
        kind: CHANNELS or HEADS.
        layers: names of all layers that make them.
        units: their numbers.
        width: channels of the first layer that go with one unit: 1, or those of a convolution's group.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    units: np.ndarray
    width: int

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units)


@dataclass(frozen=True, eq=False)
class Cost:
    """What a model of some sizes costs, without building it.

    Attributes:
        macs: multiply-accumulates of one sample, in all layers whose MACs are known.
        parameters: numbers in all weights, statistics of normalizations included.
        bytes: of an int8 file's weights, biases and scales, normalizations folded.
    """

    macs: int
    parameters: int
    bytes: int


# The order of the rows of Channels.costs.
COUNTS = ("macs", "parameters", "bytes")
# An output channel's bias, and the scales of its weights and of the bias.
_CHANNEL_BYTES = 4 + 4 + 4


class Channels:
    """The channels of a model.

    Attributes:
        model: the model, flat.
        calls: its calls in order.
        groups: what may be cut.
        untouchable: the layers with weights of whose channels none may go: name -> why.
        uncounted: the calls whose multiply-accumulates are not known.
        uses: what depends on channels, by the layer's id.
        reads: for each call, (position among its tensors, axis) -> unit numbers of the channels it mixes.
        inner: for each call, the unit numbers of its heads, or of the channels it normalizes over.
        makers: layer name -> unit numbers of the channels it makes, -1 for untouchable ones.
    """

    def __init__(self, model: Any) -> None:
        if not graph.is_flat(model):
            model = graph.flatten(model)
        self.model = model
        self.calls = graph.flat_calls(model)
        trace = traced(model, self.calls, Trace())
        self._numbers = numbered(trace)
        self.units = int(self._numbers.max(initial=-1)) + 1
        self.uses = {key: self._final_use(use) for key, use in trace.uses.items()}
        self.reads = [{place: self._final(ids) for place, ids in reads.items()} for reads in trace.reads]
        self.inner = [None if ids is None else self._final(ids) for ids in trace.inner]
        self.makers: dict[str, np.ndarray] = {}
        for use in self.uses.values():
            if use.made or use.heads:
                self.makers[use.name] = np.concatenate([*use.made, *use.heads])
        self.untouchable = self._reasons(trace)
        self.uncounted = tuple(trace.uncounted)
        self._terms = [(term.constant, [self._final(ids) for ids in term.axes]) for term in trace.terms]
        self._axes: list[np.ndarray] = []
        self._weights, self._stored = self._weight_terms(), self._byte_terms()
        self._macs = [(constant, [self._axis(ids) for ids in axes]) for constant, axes in self._terms]
        heads = {int(i) for use in trace.uses.values() for ids in use.heads for i in self._final(ids)}
        self.groups = self._grouped(heads)
        self._fixed, self._per_unit = self._counts()

    def group(self, name: str) -> Group:
        """Returns the group called `name`.

        Raises:
            ConfigError: there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise ConfigError(
            f"Expected a group of channels, got {name!r}.{suggestion(name, (g.name for g in self.groups))}"
        )

    def kept(self, cut: Cut) -> np.ndarray:
        """Returns for each unit whether it stays, and at the end (where -1 points) True.

        Raises:
            ConfigError: a group is not known, would vanish, or has no such channels.
        """
        kept = np.ones(self.units + 1, bool)
        for name, places in cut.items():
            group = self.group(name)
            chosen = np.unique(np.asarray(places, np.int64))
            if not len(chosen) or chosen[0] < 0 or chosen[-1] >= group.size:
                raise ConfigError(
                    f"Expected at least one of 0 to {group.size - 1} to keep of {name}, got {list(places)}. "
                    "Try whole numbers below the group's size."
                )
            kept[group.units] = False
            kept[group.units[chosen]] = True
        return kept

    def sizes(self, cut: Cut) -> np.ndarray:
        """Returns how many units of each group stay."""
        return np.array([len(np.unique(cut[g.name])) if g.name in cut else g.size for g in self.groups], np.int64)

    def widths(self) -> dict[str, dict[str, int]]:
        """Returns for each layer that makes channels how many, and how many heads it has."""
        found: dict[str, dict[str, int]] = {}
        for use in self.uses.values():
            for kind, made in ((CHANNELS, use.made), (HEADS, use.heads)):
                for ids in made:
                    found.setdefault(use.name, {})[kind] = len(ids)
        return found

    def cost(self, sizes: np.ndarray | None = None) -> Cost:
        """Returns what the model costs with so many units left of each group (all when None)."""
        sizes = np.array([g.size for g in self.groups]) if sizes is None else sizes
        return Cost(*(int(count[0]) for count in self.costs(np.asarray(sizes)[:, None])))

    def costs(self, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns each of COUNTS for several choices of sizes, [groups, choices]."""
        left = self._fixed[:, None] + self._per_unit @ np.asarray(sizes, np.float64)
        return tuple(_summed(terms, left, sizes.shape[1]) for terms in (self._macs, self._weights, self._stored))

    def _reasons(self, trace: Trace) -> dict[str, str]:
        found: dict[str, str] = {}
        for call in self.calls:
            use = trace.uses.get(id(call.layer))
            if use is None and call.layer.weights:
                found[call.name] = f"of {type(call.layer).__name__} is not known how it treats channels"
            elif use is not None and use.whole:
                found[call.name] = use.whole
            elif use is not None and use.made and (self._final(use.made[0]) < 0).all():
                found[call.name] = trace.units.reason(int(use.made[0][0])) or ""
        return found

    def _final(self, ids: np.ndarray) -> np.ndarray:
        return self._numbers[ids]

    def _final_use(self, use: Use) -> Use:
        def final(leaf: Any) -> Any:
            return self._final(leaf) if isinstance(leaf, np.ndarray) else leaf

        return Use(
            use.layer,
            use.name,
            [tuple(final(ids) for ids in axes) for axes in use.weights],
            {
                key: tuple(final(part) for part in counted) if isinstance(counted, tuple) else final(counted)
                for key, counted in use.config.items()
            },
            [final(ids) for ids in use.made],
            [final(ids) for ids in use.heads],
            use.judged,
            use.scale,
            use.whole,
        )

    def _axis(self, ids: np.ndarray) -> int:
        self._axes.append(ids)
        return len(self._axes) - 1

    def _weight_terms(self) -> list[tuple[int, list[int]]]:
        found: dict[int, tuple[int, list[int]]] = {}
        for call in self.calls:
            layer = call.layer
            if id(layer) in found or id(layer) in self.uses:
                continue
            found[id(layer)] = (sum(int(np.prod(w.shape)) for w in layer.weights), [])
        terms = list(found.values())
        for use in self.uses.values():
            terms += (self._term(weight, axes) for weight, axes in zip(use.layer.weights, use.weights))
        return terms

    def _byte_terms(self) -> list[tuple[int, list[int]]]:
        others = {id(call.layer): call.layer for call in self.calls if id(call.layer) not in self.uses}
        terms: list[tuple[int, list[int]]] = [
            (sum(int(np.prod(w.shape)) for w in layer.weights if len(w.shape) > 1), []) for layer in others.values()
        ]
        for use in self.uses.values():
            weights = [(w, axes) for w, axes in zip(use.layer.weights, use.weights) if len(w.shape) > 1]
            terms += (self._term(weight, axes) for weight, axes in weights)
            # A depthwise convolution makes no channels of its own: its kernel has those that it hands on.
            made = use.made or [ids for _, axes in weights for ids in axes if ids is not None]
            terms += ((_CHANNEL_BYTES, [self._axis(ids)]) for ids in made if weights)
        return terms

    def _term(self, weight: Any, axes: tuple[Axis, ...]) -> tuple[int, list[int]]:
        fixed = int(np.prod([size for size, ids in zip(weight.shape, axes) if ids is None]))
        return fixed, [self._axis(ids) for ids in axes if ids is not None]

    def _grouped(self, heads: set[int]) -> tuple[Group, ...]:
        """Returns the units by where they are: those that are as often on the same axes are one group."""
        places: list[list[tuple[int, int]]] = [[] for _ in range(self.units)]
        for axis, ids in enumerate(self._axes):
            for unit, count in zip(*np.unique(ids[ids >= 0], return_counts=True)):
                places[unit].append((axis, int(count)))
        members: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for unit, key in enumerate(places):
            members.setdefault(tuple(key), []).append(unit)
        groups: list[Group] = []
        for units in members.values():
            if len(units) < 2:
                continue
            layers = tuple(name for name, ids in self.makers.items() if np.isin(units[0], ids))
            taken = {group.name for group in groups}
            name = next(n for n in (layers[0], *(f"{layers[0]}:{i}" for i in range(2, 10_000))) if n not in taken)
            kind = HEADS if units[0] in heads else CHANNELS
            width = int((self.makers[layers[0]] == units[0]).sum())
            groups.append(Group(name, kind, layers, np.array(units), width))
        return tuple(groups)

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each axis how many places never go, and how many go with one unit of each group."""
        per_unit = np.zeros((len(self._axes), len(self.groups)))
        group_of = np.full(self.units + 1, -1)
        for index, group in enumerate(self.groups):
            group_of[group.units] = index
        fixed = np.zeros(len(self._axes))
        for row, ids in enumerate(self._axes):
            owners = group_of[ids]
            fixed[row] = (owners < 0).sum()
            found, counts = np.unique(owners[owners >= 0], return_counts=True)
            for index, count in zip(found, counts):
                per_unit[row, index] = count / self.groups[index].size
        return fixed, per_unit


def traced(model: Any, calls: Sequence[graph.Call], trace: TraceT, rules: Mapping[str, Rule] | None = None) -> TraceT:
    """Lets the calls of a flat model pass by the rules, and returns `trace` with what they wrote down.

    Args:
        model: flat.
        calls: its own, in order.
        trace: an empty one.
        rules: see `rules.outputs_of`.
    """
    known: dict[int, Value] = {}
    for _, tensor in graph.input_names(model):
        known[id(tensor)] = _value(tensor, None)
    for call in calls:
        tensors = [leaf for leaf in graph.leaves((call.args, dict(call.kwargs))) if hasattr(leaf, "_keras_history")]
        shapes = [tuple(tensor.shape)[1:] for tensor in call.outputs]
        axes = outputs_of(trace, call, [known[id(tensor)] for tensor in tensors], shapes, rules)
        for tensor, own in zip(call.outputs, axes):
            known[id(tensor)] = _value(tensor, own)
    for name, tensor in graph.output_names(model):
        for ids in known[id(tensor)].axes:
            trace.units.freeze(ids, f"they are the model's output {name}", foremost=True)
    return trace


def _value(tensor: Any, axes: tuple[Axis, ...] | None) -> Value:
    shape = tuple(tensor.shape)[1:]
    return Value(shape, (None,) * len(shape) if axes is None else axes)


def numbered(trace: Trace) -> np.ndarray:
    """Returns for each id the number of its unit, -1 where that is untouchable."""
    numbers = np.full(len(trace.units), -1)
    known: dict[int, int] = {}
    for i in range(len(trace.units)):
        if trace.units.reason(i) is None:
            numbers[i] = known.setdefault(trace.units.root(i), len(known))
    return numbers


def _summed(terms: list[tuple[int, list[int]]], left: np.ndarray, choices: int) -> np.ndarray:
    total = np.zeros(choices)
    for constant, axes in terms:
        total += constant * np.prod(left[axes], axis=0) if axes else constant
    return total
