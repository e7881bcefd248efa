"""Lowered calls go in, the place of every tensor in one static arena comes out, with the directions that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.c99 import memory
from edgeopt.c99.call import Call
from edgeopt.c99.lowering import Lowered
from edgeopt.c99.memory import Buffer, Placement, Sharing
from edgeopt.tflite.model import BITS, Tensor, TFLiteModel


@dataclass(frozen=True)
class Layout:
    """Calls with their directions, and where their tensors lie.

    Attributes:
        offsets: tensor → bytes from the start of the arena, aliases included.
        scratch: call → offset of its scratch.
        placements: every buffer, by the operator that writes it first.
        peak_operator: the first at which the arena reaches its full extent.
    """

    lowered: Lowered
    steps: tuple[Call, ...]
    offsets: Mapping[int, int]
    scratch: Mapping[int, int]
    arena_bytes: int
    placements: tuple[Placement, ...]
    peak_operator: str


def lay_out(model: TFLiteModel, lowered: Lowered) -> Layout:
    """Plans the arena, and proves the plan."""
    graph, calls, origins = model.main, lowered.calls, lowered.origins
    buffers, scratch = _buffers(model, lowered)
    sharings = _sharings(lowered, {b.key: b for b in buffers})
    offsets = memory.plan(buffers, sharings)
    arena_bytes = memory.prove(buffers, offsets, sharings)
    reversed_steps = {s.step for s in sharings if memory.backward(s, offsets)}
    steps = tuple(
        dataclasses.replace(call, fields={**call.fields, "backward": int(step in reversed_steps)})
        if call.has_direction
        else call
        for step, call in enumerate(calls)
    )
    names = {tensor.index: tensor.name for tensor in graph.tensors}
    names |= {key: f"scratch of {graph.operators[origins[step]].name}" for step, key in scratch.items()}
    placements = tuple(
        Placement(
            names[b.key],
            offsets[b.key],
            b.size_bytes,
            origins[b.first] if b.first >= 0 else -1,
            origins[min(b.last, len(calls) - 1)] if b.last >= 0 else -1,
        )
        for b in sorted(buffers, key=lambda b: (b.first, offsets[b.key]))
    )
    peak = origins[memory.peak_step(buffers, offsets)]
    return Layout(
        lowered,
        steps,
        {tensor.index: offsets[root] for tensor in graph.tensors if (root := lowered.root(tensor.index)) in offsets},
        {step: offsets[key] for step, key in scratch.items()},
        arena_bytes,
        placements,
        f"{graph.operators[peak].name} (operator {peak})",
    )


def _buffers(model: TFLiteModel, lowered: Lowered) -> tuple[list[Buffer], dict[int, int]]:
    """Returns the buffers, by tensor, and the keys of the scratch of each call that needs some."""
    graph = model.main
    first: dict[int, int] = {lowered.root(i): -1 for i in graph.inputs}
    last: dict[int, int] = dict.fromkeys(first, -1)
    for step, call in enumerate(lowered.calls):
        for tensor in call.inputs:
            last[lowered.root(tensor)] = step
        output = lowered.root(call.output)
        first.setdefault(output, step)
        last[output] = step
    for root in {lowered.root(tensor) for tensor in graph.outputs} & set(first):
        last[root] = len(lowered.calls)
    buffers = [Buffer(key, _size_bytes(graph.tensors[key]), at, last[key]) for key, at in first.items()]
    scratch = {step: len(graph.tensors) + step for step, call in enumerate(lowered.calls) if call.scratch_bytes}
    buffers += [Buffer(key, lowered.calls[step].scratch_bytes, step, step) for step, key in scratch.items()]
    return buffers, scratch


def _sharings(lowered: Lowered, buffers: Mapping[int, Buffer]) -> list[Sharing]:
    """Permissions where the step is the last to read the input and the first to write the output."""
    found = []
    for step, call in enumerate(lowered.calls):
        output = buffers[lowered.root(call.output)]
        for tensor, trace in call.traces.items():
            source = buffers.get(lowered.root(tensor))
            if source and source.last == step == output.first:
                found.append(Sharing(step, source.key, output.key, trace))
    return found


def _size_bytes(tensor: Tensor) -> int:
    return tensor.elements * BITS[tensor.dtype] // 8
