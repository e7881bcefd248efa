"""An operator goes in, whose kernels compute it under LiteRT comes out: XNNPACK's, or its own for what XNNPACK leaves.

The rules are those of LiteRT's XNNPACK delegate (`tflite/delegates/xnnpack/xnnpack_delegate.cc`) for operators on int8.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeopt.c99.call import Node
from edgeopt.c99.quantization import scale
from edgeopt.tflite.model import BITS, Tensor


def takes(node: Node) -> bool:
    """Whether LiteRT hands the operator to XNNPACK; what floats compute is the same either way."""
    rule = _RULES.get(node.operator.name)
    return node.output.dtype != "int8" or rule is None or rule(node)


def _never(node: Node) -> bool:
    return False


def _sum(node: Node) -> bool:
    result = scale(node.output)
    return all(2.0**-10 <= float(scale(node.input(i)) / result) < 2.0**8 for i in (0, 1))


def _product(node: Node) -> bool:
    return 2.0**-16 <= float(scale(node.input(0)) * scale(node.input(1)) / scale(node.output)) < 2.0**8


def _requantized(node: Node) -> bool:
    same = node.input(0).dtype == node.output.dtype
    return node.input(0).is_float or (same and 2.0**-8 <= _ratio(node) <= 2.0**7)


def _leaky_relu(node: Node) -> bool:
    alpha = np.float32(node.option("alpha"))
    below = np.float32(_ratio(node)) * alpha
    is_normal = np.isfinite(alpha) and abs(alpha) >= np.finfo(np.float32).tiny
    return bool(is_normal and _requantized(node) and abs(below) >= 2.0**-8 and -127.99609375 <= below <= 2.0**7)


def _ratio(node: Node) -> float:
    return float(scale(node.input(0)) / scale(node.output))


def _fully_connected(node: Node) -> bool:
    weights = node.input(1)
    is_symmetric = weights.quantization is not None and not any(weights.quantization.zero_points)
    fills_bytes = weights.shape[-1] * BITS[weights.dtype] % 8 == 0
    has_kernel = weights.dtype != "int2" or weights.is_per_channel
    return is_symmetric and fills_bytes and has_kernel and _with_bias(node, 2)


def _convolution(node: Node) -> bool:
    return BITS[node.input(1).dtype] >= 8 and _with_bias(node, 2)


def _with_bias(node: Node, position: int) -> bool:
    """Whether the bias says its scale, where there is one."""
    bias: Tensor | None = node.graph.operand(node.operator, position)
    return bias is None or bias.quantization is not None


def _transpose_conv(node: Node) -> bool:
    """With "VALID" the kernel has to fit into the output; with "SAME" no stride may be greater than the kernel."""
    height, width = node.input(1).shape[1:3]
    strides = node.option("stride_h"), node.option("stride_w")
    if node.option("padding") == "VALID":
        fits = height <= node.output.shape[1] and width <= node.output.shape[2]
    else:
        inputs = tuple(-(-size // stride) for size, stride in zip(node.output.shape[1:3], strides))
        fits = inputs == node.input(2).shape[1:3] and strides[0] <= height and strides[1] <= width
    return fits and node.input(0).is_constant and _with_bias(node, 3)


# What is not here is always taken, or only moves elements.
_RULES: dict[str, Callable[[Node], bool]] = {
    "ADD": _sum,
    "AVERAGE_POOL_2D": _never,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _never,
    "LEAKY_RELU": _leaky_relu,
    "MUL": _product,
    "QUANTIZE": _requantized,
    "RELU": _never,
    "RELU6": _never,
    "SOFTMAX": _never,
    "SUB": _sum,
    "TRANSPOSE_CONV": _transpose_conv,
}
