"""What a `.tflite` file computes: a model goes in, its activations come out; and which are the same in two files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from edgeopt.tflite.model import Tensor, TFLiteModel

# What converters append to the name of a tensor they quantize, split or number.
_DECORATION = re.compile(r"(_int8|_int16|_float|_dequant\w*|_quant\w*|_requant\w*|_prequant|:\d+)+$")


class Named(Protocol):
    """What tensors are told from one another by."""

    @property
    def name(self) -> str:
        """What people know it by."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Its sizes."""


def computed(model: TFLiteModel) -> list[Tensor]:
    """Returns what the operators of the main graph make out of its inputs, in order of execution."""
    known, found = set(model.main.inputs), []
    for operator in model.main.operators:
        if known.isdisjoint(operator.inputs):
            continue  # constants that are unpacked
        known.update(operator.outputs)
        found += [model.main.tensors[i] for i in operator.outputs]
    return found


def matched(left: Sequence[Named], right: Sequence[Named]) -> dict[str, str]:
    """Returns which tensor of the other file is the same activation, by name.

    A converter keeps the names of the graph it came from, joined by ";" where operators were fused, but decorates them
    (`_int8`, `:0`, a number), and gives the name of an output to what is dequantized last. Exact names come first, then
    undecorated ones, then those that share a part; shapes must agree, and no tensor is taken twice.
    """
    pairs: dict[str, str] = {}
    for keys in (_exact, _bare, _parts):
        taken = set(pairs.values())
        offers: dict[tuple[str, tuple[int | None, ...]], list[str]] = {}
        for other in right:
            for key in keys(other.name) if other.name not in taken else ():
                offers.setdefault((key, other.shape), []).append(other.name)
        for tensor in left:
            wanted = keys(tensor.name) if tensor.name not in pairs else ()
            free = (name for key in wanted for name in offers.get((key, tensor.shape), ()) if name not in taken)
            if found := next(free, None):
                pairs[tensor.name] = found
                taken.add(found)
    return pairs


def _exact(name: str) -> list[str]:
    return [name]


def _bare(name: str) -> list[str]:
    return [";".join(_parts(name))]


def _parts(name: str) -> list[str]:
    return sorted({_DECORATION.sub("", piece) for piece in name.split(";") if piece})
