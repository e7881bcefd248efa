"""A TFLiteModel goes in, the calls that compute it come out, or the reasons why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeopt.c99 import checking, delegation
from edgeopt.c99.call import Alias, Call, Folded, Node, Packing, Unsupported
from edgeopt.c99.operators import OPERATORS
from edgeopt.tflite.model import TFLiteModel

# Of the tensors that a caller touches.
C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "float32": "float",
}


@dataclass(frozen=True)
class Lowered:
    """The calls of a model, in order.

    Attributes:
        origins: for each call, the index of its operator.
        aliases: tensor → the tensor whose bytes it shares.
        folded: values that were computed while generating, by tensor.
        reasons: why the model cannot be lowered; empty where it can.
        smallest: for each call, how small its weights could be, None where they cannot be packed or must not be.
    """

    calls: tuple[Call, ...]
    origins: tuple[int, ...]
    aliases: Mapping[int, int]
    folded: Mapping[int, np.ndarray]
    reasons: tuple[str, ...]
    smallest: tuple[Packing | None, ...] = ()

    def root(self, tensor: int) -> int:
        """Returns the tensor that owns the bytes."""
        return self.aliases.get(tensor, tensor)


# What may be done about weights of few distinct values.
PACKS = ("auto", "never", "always")
# Looking weights up may bring so many more instructions to a model by itself, as a share of those it has.
_MOST_MORE = 0.3


def lower(model: TFLiteModel, *, rounding: str, pack: str) -> Lowered:
    """Lowers every operator of the main graph.

    Args:
        model: is checked here.
        rounding: see `generation.generate`.
        pack: which weights are packed: "always" each that gets smaller, in its smallest form; "auto" the same, unless
            looking them up takes too long: then those that cost most take the next form, or stay as they are.
    """
    calls: list[Call] = []
    origins: list[int] = []
    aliases: dict[int, int] = {}
    folded: dict[int, np.ndarray] = {}
    reasons: dict[str, None] = dict.fromkeys((*_structure(model), *checking.faults(model)))
    if reasons:
        return Lowered((), (), {}, {}, tuple(reasons))
    nodes: dict[int, Node] = {}
    for operator in model.main.operators:
        node = Node(model, model.main, operator, folded, rounding, None if pack == "never" else 0)
        if operator.name not in OPERATORS:
            reasons[operator.name] = None
            continue
        try:
            if rounding == "xnnpack" and not delegation.takes(node):
                node = replace(node, rounding="builtin")
            nodes[operator.index] = node
            for part in OPERATORS[operator.name](node):
                if isinstance(part, Alias):
                    aliases[part.output] = aliases.get(part.source, part.source)
                elif isinstance(part, Folded):
                    folded[part.output] = part.values
                else:
                    calls.append(replace(part, rounding=part.rounding or node.rounding))
                    origins.append(operator.index)
        except Unsupported as error:
            reasons[str(error)] = None
    if not calls and not reasons:
        reasons["a graph that computes nothing"] = None
    smallest = tuple(call.packing for call in calls)
    if pack == "auto":
        _afford(calls, [nodes[origin] for origin in origins])
    return Lowered(tuple(calls), tuple(origins), aliases, folded, tuple(reasons), smallest)


def _afford(calls: list[Call], nodes: list[Node]) -> None:
    """Takes other forms for the weights that cost most, until what is left is worth it."""
    most = _MOST_MORE * sum(call.instructions for call in calls)
    more = [call.packing.more_instructions if call.packing else 0 for call in calls]
    while sum(more) > most:
        dearest = more.index(max(more))
        nodes[dearest] = node = replace(nodes[dearest], form=(nodes[dearest].form or 0) + 1)
        (part,) = OPERATORS[node.operator.name](node)
        assert isinstance(part, Call)
        calls[dearest] = replace(part, rounding=calls[dearest].rounding)
        more[dearest] = part.packing.more_instructions if part.packing else 0


def _structure(model: TFLiteModel) -> list[str]:
    graph = model.main
    reasons = [
        f"the {place} {tensor.name!r} of {tensor.dtype}"
        for place, indices in (("input", graph.inputs), ("output", graph.outputs))
        for tensor in (graph.tensors[i] for i in indices)
        if tensor.dtype not in C_TYPES
    ]
    if any(tensor.is_variable for tensor in graph.tensors):
        reasons.append("variable tensors, which keep their values between runs")
    if not graph.inputs or not graph.outputs:
        reasons.append("a graph without inputs or outputs")
    return reasons
