"""ADD, SUB and MUL go in, calls of their kernels come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.c99.call import Call, Field, Node, Unsupported, elementwise
from edgeopt.c99.operators.convolution import clamps, real_range
from edgeopt.c99.quantization import multiplier, scale, scales, zero_point
from edgeopt.tflite.model import Tensor


def add(node: Node) -> list[Call]:
    """Lowers ADD."""
    return _sum(node, sign=1)


def sub(node: Node) -> list[Call]:
    """Lowers SUB."""
    return _sum(node, sign=-1)


def mul(node: Node) -> list[Call]:
    """Lowers MUL."""
    dtype = _require(node)
    a, b, out = node.input(0), node.input(1), node.output
    if dtype == "float32":
        low, high = real_range(node)
        return [_binary(node, "mul_f32", {"low": low, "high": high})]
    low_q, high_q = clamps(node)
    real = float(scale(a)) * float(scale(b)) / float(scale(out))
    if node.rounding == "xnnpack":
        real = float(scale(a) * scale(b) / scale(out))
    elif node.rounding == "builtin" and real >= 1:
        raise Unsupported(f"MUL with scales whose product is {real:g} of its output's, which XNNPACK leaves")
    fields: dict[str, Field] = {
        "a_zero": zero_point(a),
        "b_zero": zero_point(b),
        "out_zero": zero_point(out),
        "low": low_q,
        "high": high_q,
        "scales": scales(np.array([real]), node.rounding),
    }
    return [_binary(node, "mul_s8", fields)]


def _require(node: Node) -> str:
    a, b = node.input(0), node.input(1)
    if a.dtype != b.dtype:
        raise Unsupported(f"{node.operator.name} of {a.dtype} and {b.dtype}")
    return node.require("int8", "float32")


def _sum(node: Node, *, sign: int) -> list[Call]:
    dtype = _require(node)
    if dtype == "float32":
        low, high = real_range(node)
        return [_binary(node, "add_f32", {"low": low, "high": high, "sign": sign})]
    if node.rounding == "xnnpack":
        return [_binary(node, "add_s8_xnnpack", _once_rounded(node, sign))]
    if node.rounding == "builtin" and sign > 0:
        raise Unsupported("ADD with scales that XNNPACK leaves, 256 or 1/1024 of its output's")
    return [_binary(node, "add_s8_tflm", _twice_rounded(node, sign))]


def _twice_rounded(node: Node, sign: int) -> dict[str, Field]:
    a, b, out = node.input(0), node.input(1), node.output
    low, high = clamps(node)
    first, second, result = (float(scale(t)) for t in (a, b, out))
    twice = 2 * max(first, second)
    a_multiplier, a_shift = multiplier(first / twice)
    b_multiplier, b_shift = multiplier(second / twice)
    out_multiplier, out_shift = multiplier(twice / (2**20 * result))
    node.expect(out_shift <= 0, f"scales {first:g} and {second:g}, too large for its output's {result:g}")
    return {
        "a_zero": zero_point(a),
        "a_multiplier": a_multiplier,
        "a_shift": a_shift,
        "b_zero": zero_point(b),
        "b_multiplier": b_multiplier,
        "b_shift": b_shift,
        "b_sign": sign,
        "out_zero": zero_point(out),
        "out_multiplier": out_multiplier,
        "out_shift": out_shift,
        "low": low,
        "high": high,
    }


def _once_rounded(node: Node, sign: int) -> dict[str, Field]:
    a, b, out = node.input(0), node.input(1), node.output
    low, high = clamps(node)
    first, second = scale(a) / scale(out), scale(b) / scale(out)
    # The greater multiplier gets 21 bits.
    shift = 20 - (math.frexp(max(first, second))[1] - 1)
    a_multiplier = int(np.rint(np.float64(first) * 2**shift))
    b_multiplier = sign * int(np.rint(np.float64(second) * 2**shift))
    return {
        "offset": (1 << (shift - 1)) - a_multiplier * zero_point(a) - b_multiplier * zero_point(b),
        "a_multiplier": a_multiplier,
        "b_multiplier": b_multiplier,
        "shift": shift,
        "out_zero": zero_point(out),
        "low": low,
        "high": high,
    }


def _binary(node: Node, kernel: str, fields: dict[str, Field]) -> Call:
    a, b, shape = node.input(0), node.input(1), node.output.shape
    for operand in (a, b):
        missing = len(shape) - len(operand.shape)
        fits = missing >= 0 and all(n in (1, size) for n, size in zip(operand.shape, shape[missing:]))
        node.expect(fits, f"{list(operand.shape)} for {list(shape)}")
    sizes, strides = _broadcast(node, shape, (a, b))
    return Call(
        kernel,
        {"shape": sizes, "a_stride": strides[0], "b_stride": strides[1], **fields},
        (a.index, b.index),
        node.output.index,
        traces=elementwise(node, a, b),
    )


def _broadcast(
    node: Node, shape: tuple[int, ...], operands: tuple[Tensor, Tensor]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Returns four dimensions and the strides of each operand along them, 0 where it repeats."""
    sizes: list[int] = []
    strides: list[list[int]] = [[], []]
    for position in range(len(shape)):
        size = shape[len(shape) - 1 - position]
        if size == 1:
            continue
        steps = [_stride(operand.shape, position) for operand in operands]
        if sizes and all(s == last[0] * sizes[0] for s, last in zip(steps, strides)):
            sizes[0] *= size
            continue
        sizes.insert(0, size)
        for step, known in zip(steps, strides):
            known.insert(0, step)
    if len(sizes) > 4:
        raise Unsupported(f"{node.operator.name} broadcast over more than four dimensions")
    missing = 4 - len(sizes)
    return (1,) * missing + tuple(sizes), [(0,) * missing + tuple(known) for known in strides]


def _stride(shape: tuple[int, ...], position: int) -> int:
    """The step along the dimension that is `position` from the end."""
    if position >= len(shape) or shape[len(shape) - 1 - position] == 1:
        return 0
    return math.prod(shape[len(shape) - position :])
