"""A TFLiteModel goes in, what its operators and tensors contradict comes out: the one boundary before lowering.

Lowering, planning and writing take for granted what is checked here: that operands, ranks, axes and options are what
each operator needs, that scales are positive numbers, that values are computed before they are read and once, and that
no tensor is larger than a device's memory could be. A file is somebody else's, and may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeopt.c99.call import Node, Unsupported
from edgeopt.tflite.model import BITS, Tensor, TFLiteModel

# A tiny file can claim terabytes; C's offsets are int32, and tables are written out as text.
MOST_BYTES = 1 << 28
_MOST_SIDE = 1 << 16
_MOST_OPERATORS = 2000
_MOST_RANK = 8
# Products of two scales over a third stay finite in float32.
_SCALES = (2.0**-40, 2.0**40)
# Products of two options stay below 2^31.
_MOST_OPTION = (1 << 15) - 1
_ZERO_POINTS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int4": (-8, 7),
    "int2": (-2, 1),
    "int16": (-32768, 32767),
    "int32": (0, 0),
}

Check = Callable[[Node], Iterator[str]]


@dataclass(frozen=True)
class Form:
    """What an operator has to be.

    Attributes:
        inputs: least and greatest number of operands.
        needed: how many of the first of these have to be there; those behind them may be absent.
        outputs: least and greatest number of results.
        check: yields what is wrong with axes, shapes and options; called once operands are sound.
    """

    inputs: tuple[int, int]
    needed: int
    check: Check | None = None
    outputs: tuple[int, int] = (1, 1)


def faults(model: TFLiteModel) -> tuple[str, ...]:
    """Returns why the model cannot be lowered, each reason once: "CONV_2D (operator 3) with stride_h 0"."""
    found = dict.fromkeys(_structure(model))
    if not found:
        found |= dict.fromkeys(_order(model))
    if not found:
        found |= dict.fromkeys(_operators(model))
    return tuple(found)


def _structure(model: TFLiteModel) -> Iterator[str]:
    graph = model.main
    if len(graph.operators) > _MOST_OPERATORS:
        yield f"{len(graph.operators)} operators, more than {_MOST_OPERATORS}"
    used = {i for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    for index in sorted(used | {*graph.inputs, *graph.outputs}):
        yield from _tensor(graph.tensors[index])


def _tensor(tensor: Tensor) -> Iterator[str]:
    what = f"the tensor {tensor.name!r} of shape {list(tensor.shape)}"
    if tensor.dtype not in BITS or tensor.block_size:
        return
    if len(tensor.shape) > _MOST_RANK:
        yield f"{what}, of more than {_MOST_RANK} dimensions"
    elif tensor.elements * BITS[tensor.dtype] > 8 * MOST_BYTES:
        yield f"{what}, larger than {MOST_BYTES:,} bytes"
    elif not tensor.elements and not tensor.dtype.startswith("int32"):
        yield f"{what}, without elements"
    if tensor.quantization is None or tensor.is_float:
        return
    low, high = _SCALES if not tensor.is_constant else (0.0, _SCALES[1])
    wrong = [s for s in tensor.quantization.scales if not low <= s <= high]
    if wrong:
        yield f"the tensor {tensor.name!r} with the scale {wrong[0]:g}"
    if tensor.is_per_channel and not tensor.is_constant:
        yield f"the computed tensor {tensor.name!r} with a scale per channel"
    least, most = _ZERO_POINTS.get(tensor.dtype, (0, 0))
    beyond = [z for z in tensor.quantization.zero_points if not least <= z <= most]
    if beyond:
        yield f"the {tensor.dtype} tensor {tensor.name!r} with the zero point {beyond[0]}"


def _order(model: TFLiteModel) -> Iterator[str]:
    """What is read before it is computed, or computed twice."""
    graph = model.main
    known = {tensor.index for tensor in graph.tensors if tensor.is_constant}
    variables = {tensor.index for tensor in graph.tensors if tensor.is_variable}
    for index in graph.inputs:
        if index in known:
            yield f"the constant {graph.tensors[index].name!r} as an input"
        known.add(index)
    for operator in graph.operators:
        early = [i for i in operator.inputs if i >= 0 and i not in known | variables and graph.tensors[i].elements]
        if early and operator.name in FORMS:
            yield f"{_called(operator.name, operator.index)} that reads {graph.tensors[early[0]].name!r} too early"
        twice = [i for i in operator.outputs if i in known]
        if twice or len(set(operator.outputs)) < len(operator.outputs):
            name = graph.tensors[(twice or operator.outputs)[0]].name
            yield f"{_called(operator.name, operator.index)} that computes {name!r} once more"
        known.update(operator.outputs)
    missing = [i for i in graph.outputs if i not in known]
    if missing:
        yield f"the output {graph.tensors[missing[0]].name!r}, which nothing computes"


def _operators(model: TFLiteModel) -> Iterator[str]:
    for operator in model.main.operators:
        form = FORMS.get(operator.name)
        if form is None:
            continue
        what = _called(operator.name, operator.index)
        low, high = form.inputs
        if not low <= len(operator.inputs) <= high or -1 in operator.inputs[: form.needed]:
            yield f"{what} with the operands {list(operator.inputs)}"
        elif not form.outputs[0] <= len(operator.outputs) <= form.outputs[1]:
            yield f"{what} with {len(operator.outputs)} results"
        else:
            node = Node(model, model.main, operator, {}, "tflm", None)
            yield from (f"{what} with {fault}" for fault in (form.check or _nothing)(node))


def _called(name: str, index: int) -> str:
    return f"{name} (operator {index})"


def _nothing(node: Node) -> Iterator[str]:
    return iter(())


def _options(*names: str) -> Check:
    """Sizes of windows and their steps, each at least 1."""

    def check(node: Node) -> Iterator[str]:
        for name in names:
            if not 1 <= node.option(name) <= _MOST_OPTION:
                yield f"{name} {node.option(name)}"

    return check


def _real(name: str) -> Check:
    def check(node: Node) -> Iterator[str]:
        if not abs(node.option(name)) <= _SCALES[1]:
            yield f"{name} {node.option(name):g}"

    return check


def _all(*checks: Check) -> Check:
    def check(node: Node) -> Iterator[str]:
        for one in checks:
            yield from one(node)

    return check


def _rank(least: int, most: int = _MOST_RANK, *, position: int = 0) -> Check:
    def check(node: Node) -> Iterator[str]:
        if not least <= len(node.input(position).shape) <= most:
            yield f"the shape {list(node.input(position).shape)}"

    return check


def _weights(*, rank: int, axis: int = 0) -> Check:
    """Weights of that rank, with one scale, or one for each channel along the axis."""

    def check(node: Node) -> Iterator[str]:
        weights = node.input(1)
        if len(weights.shape) != rank:
            yield f"weights {list(weights.shape)}"
        elif rank == 4 and max(weights.shape) > _MOST_OPTION:
            yield f"weights {list(weights.shape)}, more than {_MOST_OPTION:,} along a side"
        elif weights.quantization is not None and weights.quantization.axis not in (None, axis):
            yield f"weights with scales along dimension {weights.quantization.axis} instead of {axis}"

    return check


def _bias(position: int, source: int = 0) -> Check:
    """Biases are as wide as sums of products."""

    def check(node: Node) -> Iterator[str]:
        bias = node.graph.operand(node.operator, position)
        wanted = {"int8": "int32", "float32": "float32"}.get(node.input(source).dtype)
        if bias is not None and wanted is not None and bias.dtype != wanted:
            yield f"{bias.dtype} biases"

    return check


def _sides(node: Node) -> Iterator[str]:
    """Tables of a row and a column of the result are written out."""
    if len(node.output.shape) != 4 or max(node.output.shape[1:3]) > _MOST_SIDE:
        yield f"the result {list(node.output.shape)}"


def _axis(values: Callable[[Node], np.ndarray], *, position: int = 0) -> Check:
    """Every axis is one of the dimensions of the operand at `position`."""

    def check(node: Node) -> Iterator[str]:
        rank = len(node.input(position).shape)
        try:
            axes = values(node).reshape(-1).tolist()
        except Unsupported:
            return
        if not rank or any(not -rank <= axis < rank for axis in axes):
            yield f"the axis {', '.join(map(str, axes))} of {list(node.input(position).shape)}"

    return check


def _integers(position: int, count: Callable[[Node], int], *, least: int = 0, most: int = MOST_BYTES) -> Check:
    """As many integers at `position`, none of them outside of the range; those that are computed are lowering's."""

    def check(node: Node) -> Iterator[str]:
        tensor = node.input(position)
        if tensor.dtype not in ("int32", "int64"):
            yield f"{tensor.dtype} as operand {position}"
        elif tensor.is_constant:
            values = node.constant(position).reshape(-1).tolist()
            if len(values) != count(node) or any(not least <= value <= most for value in values):
                yield f"{values} as operand {position} of {list(node.input(0).shape)}"

    return check


def _permutation(node: Node) -> Iterator[str]:
    if node.input(1).is_constant:
        order = node.constant(1).reshape(-1).tolist()
        if sorted(order) != list(range(len(node.input(0).shape))) or len(node.output.shape) != len(order):
            yield f"the order {order} of {list(node.input(0).shape)}"


def _padding(node: Node) -> Iterator[str]:
    shape, result = node.input(0).shape, node.output.shape
    yield from _integers(1, lambda node: 2 * len(shape))(node)
    if node.input(1).is_constant:
        pairs = node.constant(1).reshape(-1).tolist()
        wanted = [size + a + b for size, a, b in zip(shape, pairs[::2], pairs[1::2])]
        if list(result) != wanted:
            yield f"padding {pairs} from {list(shape)} to {list(result)}"


def _fill(node: Node) -> Iterator[str]:
    fill = node.input(2)
    if not fill.is_constant or fill.elements != 1 or fill.dtype != node.output.dtype:
        yield f"the {fill.dtype} value {fill.name!r} of shape {list(fill.shape)} to fill with"


def _like(node: Node) -> Iterator[str]:
    """The parts that are joined have the rank of the whole."""
    for position in range(len(node.operator.inputs)):
        if len(node.input(position).shape) != len(node.output.shape):
            yield f"{list(node.input(position).shape)} for {list(node.output.shape)}"


def _parted(*, data: int, axis: int) -> Check:
    """The parts have the rank of the operand at `data`, the operand at `axis` says along which of its dimensions."""

    def check(node: Node) -> Iterator[str]:
        whole = node.input(data).shape
        yield from _axis(lambda node: node.constant(axis), position=data)(node)
        for index in node.operator.outputs:
            if len(node.graph.tensors[index].shape) != len(whole):
                yield f"{list(node.graph.tensors[index].shape)} of {list(whole)}"

    return check


def _strided(node: Node) -> Iterator[str]:
    rank = len(node.input(0).shape)
    for position in (1, 2, 3):
        operand = node.input(position)
        if len(operand.shape) != 1 or operand.elements > rank or operand.dtype not in ("int32", "int64"):
            yield f"operand {position} {list(operand.shape)} for {list(node.input(0).shape)}"
            return
    if len({node.input(position).elements for position in (1, 2, 3)}) > 1:
        yield "bounds of different lengths"
    elif node.input(3).is_constant and 0 in node.constant(3).tolist():
        yield "stride 0"


def _option_axis(node: Node) -> np.ndarray:
    return np.array([node.option("axis")])


_WINDOW = _options("stride_h", "stride_w")
_DILATED = _options("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")
_POOL = Form((1, 1), 1, _all(_rank(4, 4), _options("stride_h", "stride_w", "filter_height", "filter_width")))
_ONE = Form((1, 1), 1)
_TWO = Form((2, 2), 2)
_SHAPED = Form((1, 2), 1)

# A row for each operator that the engine has.
FORMS: dict[str, Form] = {
    "ADD": _TWO,
    "AVERAGE_POOL_2D": _POOL,
    "CONCATENATION": Form((1, 256), 256, _all(_rank(1), _like, _axis(_option_axis))),
    "CONV_2D": Form((2, 3), 2, _all(_rank(4, 4), _weights(rank=4), _bias(2), _DILATED)),
    "DEPTHWISE_CONV_2D": Form((2, 3), 2, _all(_rank(4, 4), _weights(rank=4, axis=3), _bias(2), _DILATED)),
    "DEQUANTIZE": _ONE,
    "EXPAND_DIMS": _SHAPED,
    "FULLY_CONNECTED": Form((2, 3), 2, _all(_rank(1), _weights(rank=2), _bias(2))),
    "HARD_SWISH": _ONE,
    "LEAKY_RELU": Form((1, 1), 1, _real("alpha")),
    "LOGISTIC": _ONE,
    "MAX_POOL_2D": _POOL,
    "MEAN": Form((2, 2), 2, _axis(lambda node: node.constant(1))),
    "MUL": _TWO,
    "PACK": Form((1, 256), 256),
    "PAD": Form((2, 2), 2, _padding),
    "PADV2": Form((3, 3), 3, _all(_padding, _fill)),
    "QUANTIZE": _ONE,
    "RELU": _ONE,
    "RELU6": _ONE,
    "RESHAPE": _SHAPED,
    "RESIZE_BILINEAR": Form((2, 2), 2, _all(_rank(4, 4), _sides)),
    "RESIZE_NEAREST_NEIGHBOR": Form((2, 2), 2, _all(_rank(4, 4), _sides)),
    "SHAPE": _ONE,
    "SLICE": Form((3, 3), 3, _integers(1, lambda node: len(node.input(0).shape))),
    "SOFTMAX": Form((1, 1), 1, _all(_rank(1), _real("beta"))),
    "SPLIT": Form((2, 2), 2, _parted(data=1, axis=0), outputs=(1, 256)),
    "SPLIT_V": Form((3, 3), 3, _parted(data=0, axis=2), outputs=(1, 256)),
    "SQUEEZE": _ONE,
    "STRIDED_SLICE": Form((4, 4), 4, _all(_rank(1), _strided)),
    "SUB": _TWO,
    "TANH": _ONE,
    "TRANSPOSE": Form((2, 2), 2, _permutation),
    "TRANSPOSE_CONV": Form((3, 4), 3, _all(_rank(4, 4, position=2), _weights(rank=4), _bias(3, source=2), _WINDOW)),
}
