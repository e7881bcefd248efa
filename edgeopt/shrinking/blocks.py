"""A model goes in; the residual branches it can do without, and the model without some of them, come out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edgeopt import graph
from edgeopt.errors import ConfigError, suggestion
from edgeopt.shrinking.rules import kind_of, operation_of


@dataclass(frozen=True)
class Block:
    """A branch that is added to what it was computed from: without it, what it was added to goes on alone.

    Attributes:
        name: of the addition.
        identity: which of the addition's tensors goes on.
        layers: names of the branch's layers with weights.
    """

    name: str
    identity: int
    layers: tuple[str, ...]


def blocks(model: Any) -> tuple[Block, ...]:
    """Returns the residual branches of a flat functional model that nothing else reads, in the order of the calls.

    Leaving whole branches out is what stochastic depth prepares networks for: Huang et al. (arXiv 1603.09382).
    """
    calls = graph.flat_calls(model)
    maker = {id(tensor): number for number, call in enumerate(calls) for tensor in call.outputs}
    inputs = [[maker[id(t)] for t in tensors_of(call) if id(t) in maker] for call in calls]
    needed = _ancestors(inputs)
    readers: list[set[int]] = [set() for _ in calls]
    for number, makers in enumerate(inputs):
        for made in makers:
            readers[made].add(number)
    outputs = {maker[id(tensor)] for _, tensor in graph.output_names(model) if id(tensor) in maker}
    times = [id(call.layer) for call in calls]
    found = []
    for number, call in enumerate(calls):
        tensors = tensors_of(call)
        if not adds(call) or len(tensors) != 2 or times.count(id(call.layer)) > 1:
            continue
        if tuple(tensors[0].shape) != tuple(tensors[1].shape):
            continue
        for identity in (0, 1):
            branch = _branch(tensors[identity], tensors[1 - identity], maker, needed)
            lonely = branch and all(readers[n] <= branch | {number} for n in branch) and not branch & outputs
            layers = tuple(dict.fromkeys(calls[n].name for n in sorted(branch) if calls[n].layer.weights))
            if lonely and layers:
                found.append(Block(call.name, identity, layers))
                break
    return tuple(found)


def drop(model: Any, names: Collection[str]) -> Any:
    """Returns a copy of the model without the blocks called `names`.

    Raises:
        ConfigError: there is no such block.
    """
    known = {block.name: block for block in blocks(model)}
    for name in names:
        if name not in known:
            raise ConfigError(f"Expected a residual block, got {name!r}.{suggestion(name, known)}")
    identity = {id(call.layer): known[call.name].identity for call in graph.flat_calls(model) if call.name in names}

    def skipped(layer: Any) -> graph.Replacement | None:
        if id(layer) not in identity:
            return None
        place = identity[id(layer)]
        return graph.Replacement(lambda *args, **kwargs: _symbolic((args, kwargs))[place])

    return graph.rebuild(model, skipped)


def adds(call: graph.Call) -> bool:
    """Whether a call adds what it is given."""
    return kind_of(call.layer) in ("Add", "CustomScaleLayer") or operation_of(call)[0] in (
        "Add",
        "__operators__.add",
        "math.add",
    )


def tensors_of(call: graph.Call) -> list[Any]:
    """Returns the symbolic tensors that a call is given."""
    return _symbolic((call.args, dict(call.kwargs)))


def _symbolic(structure: Any) -> list[Any]:
    return [leaf for leaf in graph.leaves(structure) if hasattr(leaf, "_keras_history")]


def _ancestors(inputs: list[list[int]]) -> list[set[int]]:
    """Returns for each call the numbers of the calls it depends on, its own among them."""
    found: list[set[int]] = []
    for number, makers in enumerate(inputs):
        found.append({number}.union(*(found[made] for made in makers)))
    return found


def _branch(identity: Any, branch: Any, maker: dict[int, int], needed: list[set[int]]) -> set[int]:
    """Returns the calls between what goes on and the end of the branch; none where the one is not made of the other."""
    if id(branch) not in maker:
        return set()
    if id(identity) not in maker:
        # The model's input goes on.
        return set(needed[maker[id(branch)]])
    start = maker[id(identity)]
    return needed[maker[id(branch)]] - needed[start] if start in needed[maker[id(branch)]] else set()
