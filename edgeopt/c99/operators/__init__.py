"""Every operator that the C99 engine has: its name in the schema goes in, the function that lowers it comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeopt.c99.call import Alias, Call, Folded, Node
from edgeopt.c99.operators import activation, arithmetic, convolution, moves, pooling, resizing

OPERATORS: dict[str, Callable[[Node], Sequence[Call | Alias | Folded]]] = {
    "ADD": arithmetic.add,
    "AVERAGE_POOL_2D": pooling.average_pool_2d,
    "CONCATENATION": moves.concatenation,
    "CONV_2D": convolution.conv_2d,
    "DEPTHWISE_CONV_2D": convolution.depthwise_conv_2d,
    "DEQUANTIZE": activation.dequantize,
    "EXPAND_DIMS": moves.reshape,
    "FULLY_CONNECTED": convolution.fully_connected,
    "HARD_SWISH": activation.hard_swish,
    "LEAKY_RELU": activation.leaky_relu,
    "LOGISTIC": activation.logistic,
    "MAX_POOL_2D": pooling.max_pool_2d,
    "MEAN": pooling.mean,
    "MUL": arithmetic.mul,
    "PACK": moves.pack,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "QUANTIZE": activation.quantize,
    "RELU": activation.relu,
    "RELU6": activation.relu6,
    "RESHAPE": moves.reshape,
    "RESIZE_BILINEAR": resizing.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": moves.resize_nearest_neighbor,
    "SHAPE": moves.shape,
    "SLICE": moves.slice_,
    "SOFTMAX": activation.softmax,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split,
    "SQUEEZE": moves.reshape,
    "STRIDED_SLICE": moves.strided_slice,
    "SUB": arithmetic.sub,
    "TANH": activation.tanh,
    "TRANSPOSE": moves.transpose,
    "TRANSPOSE_CONV": resizing.transpose_conv,
}
