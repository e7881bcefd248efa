"""A `.tflite` file goes in; what of it outlasts an invocation, and must be set back for the next sample, comes out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.tflite.model import TFLiteModel

# What an interpreter keeps beside its tensors: only a new interpreter starts as the file says. A generator of random
# numbers with a seed is such a state as well.
_KEPT_OUTSIDE = frozenset({"ASSIGN_VARIABLE", "MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM"})


@dataclass(frozen=True)
class State:
    """What a file keeps between invocations.

    Attributes:
        tensors: variable tensors, as of an LSTM: interpreters can reset them.
        resources: resource variables, as of a ring buffer: no interpreter sets them back to what CALL_ONCE made them.
    """

    tensors: bool
    resources: bool


def state(model: TFLiteModel) -> State:
    """Returns what `model` keeps; what only its initialization (CALL_ONCE) assigns is constant from then on."""
    reached, waiting = {0}, [0]
    while waiting:
        for operator in model.subgraphs[waiting.pop()].operators:
            called = set(operator.subgraphs) - reached if operator.name != "CALL_ONCE" else set()
            reached |= called
            waiting += called
    graphs = [model.subgraphs[i] for i in reached]
    return State(
        tensors=any(tensor.is_variable for graph in graphs for tensor in graph.tensors),
        resources=any(operator.name in _KEPT_OUTSIDE for graph in graphs for operator in graph.operators),
    )


def variables(model: TFLiteModel) -> int:
    """Returns how many resource variables `model` has, written or not: TFLM has to be told before it starts."""
    handles = (op.options for graph in model.subgraphs for op in graph.operators if op.name == "VAR_HANDLE")
    return len({(options.get("container"), options.get("shared_name")) for options in handles})
