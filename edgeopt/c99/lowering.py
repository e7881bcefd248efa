"""A TFLiteModel goes in, the calls that compute it come out, or the reasons why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeopt.c99 import checking, delegation
from edgeopt.c99.call import Alias, Call, Folded, Node, Unsupported
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
    """

    calls: tuple[Call, ...]
    origins: tuple[int, ...]
    aliases: Mapping[int, int]
    folded: Mapping[int, np.ndarray]
    reasons: tuple[str, ...]

    def root(self, tensor: int) -> int:
        """Returns the tensor that owns the bytes."""
        return self.aliases.get(tensor, tensor)


def lower(model: TFLiteModel, *, rounding: str, pack: bool) -> Lowered:
    """Lowers every operator of the main graph."""
    calls: list[Call] = []
    origins: list[int] = []
    aliases: dict[int, int] = {}
    folded: dict[int, np.ndarray] = {}
    reasons: dict[str, None] = dict.fromkeys((*_structure(model), *checking.faults(model)))
    if reasons:
        return Lowered((), (), {}, {}, tuple(reasons))
    for operator in model.main.operators:
        node = Node(model, model.main, operator, folded, rounding, pack)
        if operator.name not in OPERATORS:
            reasons[operator.name] = None
            continue
        try:
            if rounding == "xnnpack" and not delegation.takes(node):
                node = replace(node, rounding="builtin")
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
    return Lowered(tuple(calls), tuple(origins), aliases, folded, tuple(reasons))


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
