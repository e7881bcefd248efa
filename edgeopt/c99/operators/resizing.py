"""RESIZE_BILINEAR and TRANSPOSE_CONV, which make images larger, go in, calls of their kernels come out."""

from __future__ import annotations

import numpy as np

from edgeopt.c99.call import Call, Field, Node, Unsupported
from edgeopt.c99.operators.convolution import clamps, real_range
from edgeopt.c99.operators.window import image
from edgeopt.c99.quantization import scale, scales, zero_point


def resize_bilinear(node: Node) -> list[Call]:
    """Lowers RESIZE_BILINEAR."""
    dtype = node.require("int8", "float32")
    source, target = node.input(0), node.output
    in_h, in_w, channels = image(source.shape, node)
    out_h, out_w, out_c = image(target.shape, node)
    node.expect(out_c == channels, f"{channels} channels into {out_c}")
    fields: dict[str, Field] = {"in_w": in_w, "channels": channels, "out_h": out_h, "out_w": out_w}
    if dtype == "int8" and node.rounding == "tflm":
        axes = [_integer_axis(node, in_h, out_h), _integer_axis(node, in_w, out_w)]
        fields |= {"bits": 10, "is_upward": 0}
    else:
        axes = [_real_axis(node, in_h, out_h), _real_axis(node, in_w, out_w)]
    if dtype == "int8" and node.rounding == "xnnpack":
        axes = [(low, high, np.rint(part * np.float32(2**11)).astype(np.int32)) for low, high, part in axes]
        fields |= {"bits": 11, "is_upward": 1}
    for (low, high, part), names in zip(axes, (("top", "bottom", "y_fraction"), ("left", "right", "x_fraction"))):
        fields |= dict(zip(names, (low, high, part)))
    return [Call(f"resize_bilinear_{'s8' if dtype == 'int8' else 'f32'}", fields, (source.index,), target.index)]


def _integer_axis(node: Node, size: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TFLM's positions: 10 fractional bits."""
    if node.option("align_corners") and outputs > 1:
        step = (1024 * (size - 1) + (outputs - 1) // 2) // (outputs - 1)
    else:
        step = (1024 * size + outputs // 2) // outputs
    places = np.arange(outputs) * step
    if node.option("half_pixel_centers"):
        places = places + step // 2 - 512
    low = np.maximum(places // 1024, 0)
    high = np.minimum(np.maximum(-(-places // 1024), 0), size - 1)
    return low.astype(np.int32), high.astype(np.int32), (places - 1024 * low).astype(np.int32)


def _real_axis(node: Node, size: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if node.option("align_corners") and outputs > 1:
        step = np.float32(size - 1) / np.float32(outputs - 1)
    else:
        step = np.float32(size) / np.float32(outputs)
    centre = np.float32(0.5 if node.option("half_pixel_centers") else 0)
    places = (np.arange(outputs, dtype=np.float32) + centre) * step - centre
    places = np.clip(places, 0, size - 1).astype(np.float32)
    low = np.floor(places).astype(np.int32)
    return low, np.minimum(low + 1, size - 1).astype(np.int32), (places - low).astype(np.float32)


def transpose_conv(node: Node) -> list[Call]:
    """Lowers TRANSPOSE_CONV: operands output shape, weights [out_c, filter_h, filter_w, in_c], input, bias."""
    source, target = node.input(2), node.output
    dtype = source.dtype
    if dtype not in ("int8", "float32") or target.dtype != dtype or node.input(1).dtype != dtype:
        raise Unsupported(f"TRANSPOSE_CONV from {source.dtype} to {target.dtype} with {node.input(1).dtype} weights")
    weights = node.constant(1)
    node.expect(weights.ndim == 4, f"weights {list(weights.shape)}")
    channels, height, width, depth = weights.shape
    in_h, in_w, in_c = image(source.shape, node)
    out_h, out_w, out_c = image(target.shape, node)
    node.expect(out_c == channels, f"{channels} channels into {out_c}")
    if depth != in_c:
        raise Unsupported("TRANSPOSE_CONV in groups")
    has_bias = len(node.operator.inputs) > 3 and node.operator.inputs[3] >= 0
    bias = node.constant(3).reshape(-1) if has_bias else np.zeros(channels)
    node.expect(bias.size == channels, f"{bias.size} biases for {channels} channels")
    low, high = clamps(node) if dtype == "int8" else real_range(node)
    fields: dict[str, Field] = {
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": channels,
        "filter_h": height,
        "filter_w": width,
        "stride_h": node.option("stride_h"),
        "stride_w": node.option("stride_w"),
        "pad_h": _before(node, in_h, out_h, height, node.option("stride_h")),
        "pad_w": _before(node, in_w, out_w, width, node.option("stride_w")),
        "low": low,
        "high": high,
        "weights": weights,
        "bias": bias.astype(np.float32 if dtype == "float32" else np.int32),
    }
    if dtype == "float32":
        return [Call("transpose_conv_f32", fields, (source.index,), target.index)]
    quantization = node.input(1).quantization
    if quantization is None:
        raise Unsupported("TRANSPOSE_CONV with weights that have no scale")
    node.expect(not any(quantization.zero_points), "weights whose zero points are not 0")
    filters = np.broadcast_to(np.array(quantization.scales, np.float32), channels)
    reals = (
        scale(source) * filters / scale(target)
        if node.rounding == "xnnpack"
        else np.float64(scale(source)) * filters.astype(np.float64) / np.float64(scale(target))
    )
    fields |= {
        "in_zero": zero_point(source),
        "out_zero": zero_point(target),
        "scales": scales(reals, node.rounding),
    }
    return [Call("transpose_conv_s8", fields, (source.index,), target.index)]


def _before(node: Node, size: int, outputs: int, taps: int, stride: int) -> int:
    """The padding before the first element, of the convolution that this one transposes."""
    if node.option("padding") != "SAME":
        return 0
    return max((size - 1) * stride + taps - outputs, 0) // 2
