"""Padding, strides and dilation of an operator that slides a window go in, C fields and a memory trace come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.c99.call import Node, Unsupported
from edgeopt.c99.memory import Trace
from edgeopt.windows import missing_for_same


@dataclass(frozen=True)
class Axis:
    """A window along one dimension: output i reads the inputs i * stride - pad + k * dilation, 0 <= k < taps."""

    size: int
    taps: int
    stride: int
    dilation: int
    pad: int
    outputs: int


def axis(node: Node, size: int, outputs: int, *, taps: int, stride: int, dilation: int = 1) -> Axis:
    """Returns the window as TensorFlow pads it: with "SAME", the odd element of padding comes last."""
    span = (taps - 1) * dilation + 1
    same = node.option("padding") == "SAME"
    expected = -(-size // stride) if same else -(-(size - span + 1) // stride)
    if outputs != expected:
        raise Unsupported(f"{node.operator.name} with {outputs} outputs where {expected} are expected")
    pad = missing_for_same(size, span, stride) // 2 if same else 0
    return Axis(size, taps, stride, dilation, pad, outputs)


def image(shape: tuple[int, ...], node: Node) -> tuple[int, int, int]:
    """Returns height, width and channels of a batch of one."""
    if len(shape) != 4 or shape[0] != 1:
        raise Unsupported(f"{node.operator.name} on shape {list(shape)}: images in a batch of one are expected")
    return shape[1], shape[2], shape[3]


def trace(vertical: Axis, *, input_row: int, output_row: int) -> Trace:
    """Returns which input rows each output row reads; sizes of rows in bytes."""
    start = np.arange(vertical.outputs) * vertical.stride - vertical.pad
    first = np.clip(start, 0, vertical.size - 1)
    last = np.clip(start + (vertical.taps - 1) * vertical.dilation, 0, vertical.size - 1)
    return Trace(output_row, input_row, first, last)
