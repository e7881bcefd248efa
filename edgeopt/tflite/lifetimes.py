"""When each activation of a `.tflite` file is alive: a TFLiteModel goes in; live ranges and the peak come out.

Of the main graph, with the shapes in the file; bodies of loops and branches have memory of their own on top. No plan of
addresses: a planner that packs perfectly reaches the peak, none goes below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.tflite.model import BITS, Operator, Subgraph, Tensor, TFLiteModel


@dataclass(frozen=True)
class Lifetime:
    """An activation tensor.

    Attributes:
        first, last: indices of the first and last operator that need it in memory.
        size_bytes: 0 for what has no fixed size, as strings.
    """

    tensor: Tensor
    first: int
    last: int
    size_bytes: int


@dataclass(frozen=True)
class Peak:
    """The moment at which most activation bytes are alive.

    Attributes:
        size_bytes: of all tensors alive then.
        operator: name of the operator that runs, "" for a graph without operators.
        index: its position.
        tensor: name of what it writes, the first of those that the converter fused.
        alive: names of the tensors, largest first.
    """

    size_bytes: int
    operator: str
    index: int
    tensor: str
    alive: tuple[str, ...]

    def describe(self) -> str:
        """Returns it in words: "operator 3, CONV_2D, which writes 'relu'"."""
        return (
            f"operator {self.index}, {self.operator}, which writes {self.tensor!r}" if self.operator else "the inputs"
        )


def lifetimes(model: TFLiteModel) -> tuple[Lifetime, ...]:
    """Returns the live range of each activation in the order of the tensors.

    Inputs are there from the start, outputs to the end, variables always: that is what runtimes do. What nobody writes
    is scratch memory of the operators that read it.
    """
    graph, last = model.main, max(len(model.main.operators) - 1, 0)
    first = dict.fromkeys(graph.inputs, 0)
    ends = dict.fromkeys((*graph.inputs, *graph.outputs), last)
    for operator in graph.operators:
        for index in operator.outputs:
            first.setdefault(index, operator.index)
            ends.setdefault(index, operator.index)
    for index in set(graph.inputs) - set(graph.outputs):
        ends[index] = 0
    for operator in graph.operators:
        for index in (i for i in operator.inputs if i >= 0):
            first.setdefault(index, operator.index)
            ends[index] = max(ends.get(index, 0), operator.index)
    for tensor in graph.tensors:
        if tensor.is_variable:
            first[tensor.index], ends[tensor.index] = 0, last
    held = (tensor for tensor in graph.tensors if tensor.index in first and not tensor.is_constant)
    return tuple(Lifetime(t, first[t.index], ends[t.index], _size(t)) for t in held)


def peak(model: TFLiteModel) -> Peak:
    """Returns where most bytes are alive, the first of equal moments."""
    found = lifetimes(model)
    operators = model.main.operators

    def alive_at(index: int) -> list[Lifetime]:
        alive = [life for life in found if life.first <= index <= life.last]
        return sorted(alive, key=lambda life: -life.size_bytes)

    moments = [alive_at(operator.index) for operator in operators] or [alive_at(0)]
    sizes = [sum(life.size_bytes for life in alive) for alive in moments]
    at = sizes.index(max(sizes))
    names = tuple(life.tensor.name for life in moments[at])
    if not operators:
        return Peak(sizes[at], "", 0, "", names)
    return Peak(sizes[at], operators[at].name, at, _written(model.main, operators[at]), names)


def _written(graph: Subgraph, operator: Operator) -> str:
    result = graph.result(operator)
    return "" if result is None else result.name.partition(";")[0]


def _size(tensor: Tensor) -> int:
    return -(-tensor.elements * BITS.get(tensor.dtype, 0) // 8)
