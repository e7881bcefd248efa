"""AVERAGE_POOL_2D, MAX_POOL_2D and MEAN go in, calls of their kernels come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.c99.call import Call, Field, Node, Unsupported
from edgeopt.c99.operators.convolution import clamps, real_range
from edgeopt.c99.operators.window import axis, image, trace
from edgeopt.c99.quantization import multiplier, scale, zero_point


def average_pool_2d(node: Node) -> list[Call]:
    """Lowers AVERAGE_POOL_2D."""
    return _pool(node, "average_pool_2d")


def max_pool_2d(node: Node) -> list[Call]:
    """Lowers MAX_POOL_2D."""
    return _pool(node, "max_pool_2d")


def _pool(node: Node, kernel: str) -> list[Call]:
    dtype = node.require("int8", "float32")
    in_h, in_w, channels = image(node.input(0).shape, node)
    out_h, out_w, out_c = image(node.output.shape, node)
    node.expect(out_c == channels, f"{channels} channels into {out_c}")
    vertical = axis(node, in_h, out_h, taps=node.option("filter_height"), stride=node.option("stride_h"))
    horizontal = axis(node, in_w, out_w, taps=node.option("filter_width"), stride=node.option("stride_w"))
    low, high = clamps(node) if dtype == "int8" else real_range(node)
    width = np.dtype(dtype).itemsize
    fields = {
        "in_h": in_h,
        "in_w": in_w,
        "channels": channels,
        "out_h": out_h,
        "out_w": out_w,
        "filter_h": vertical.taps,
        "filter_w": horizontal.taps,
        "stride_h": vertical.stride,
        "stride_w": horizontal.stride,
        "pad_h": vertical.pad,
        "pad_w": horizontal.pad,
        "low": low,
        "high": high,
    }
    return [
        Call(
            f"{kernel}_{'s8' if dtype == 'int8' else 'f32'}",
            fields,
            (node.input(0).index,),
            node.output.index,
            traces={
                node.input(0).index: trace(
                    vertical, input_row=in_w * channels * width, output_row=out_w * channels * width
                )
            },
            has_direction=True,
        )
    ]


def mean(node: Node) -> list[Call]:
    """Lowers MEAN over neighbouring dimensions."""
    dtype = node.require("int8", "float32")
    source, target = node.input(0), node.output
    rank = len(source.shape)
    axes = sorted({int(a) % rank for a in node.constant(1).reshape(-1)})
    # Dimensions of 1 between the reduced ones do not matter.
    inside = [d for d in range(axes[0], axes[-1] + 1) if source.shape[d] > 1] if axes else []
    if not set(inside) <= set(axes):
        raise Unsupported(f"MEAN over the dimensions {axes} of {list(source.shape)}, which are no neighbours")
    outer = math.prod(source.shape[: axes[0]]) if axes else source.elements
    count = math.prod(source.shape[d] for d in axes)
    node.expect(count > 0 and outer > 0 and source.elements // count == target.elements, f"{target.elements} results")
    fields: dict[str, Field] = {"outer": outer, "count": count, "inner": source.elements // (outer * count)}
    if dtype == "float32":
        return [Call("mean_f32", fields, (source.index,), target.index)]
    if node.rounding == "xnnpack":
        ratio = scale(source) / scale(target) * (np.float32(1) / np.float32(count))
        offset = np.float32(zero_point(target)) - np.float32(count * zero_point(source)) * ratio
        fields |= {"scale": float(ratio), "offset": float(offset)}
        return [Call("mean_s8_xnnpack", fields, (source.index,), target.index)]
    common = {"offset": -count * zero_point(source), "out_zero": zero_point(target), "low": -128, "high": 127}
    return [Call("mean_s8", {**fields, **common, "scales": _mean_scales(node, count)}, (source.index,), target.index)]


def _mean_scales(node: Node, count: int) -> dict[str, np.ndarray]:
    fixed, shift = multiplier(float(scale(node.input(0))) / float(scale(node.output)))
    # The division by the count goes into the multiplier, as far as its bits reach.
    more = min(count.bit_length() - 1, 32, 31 + shift)
    return {
        "multiplier": np.array([(fixed << more) // count], np.int32),
        "shift": np.array([shift - more], np.int8),
    }
