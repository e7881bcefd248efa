"""Operators that only move elements go in, aliases and calls of the copying kernels come out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeopt.c99.call import Alias, Call, Field, Folded, Node, Unsupported
from edgeopt.c99.operators.window import image
from edgeopt.c99.quantization import away, zero_point
from edgeopt.tflite.model import Tensor

_DIMENSIONS = 4


def reshape(node: Node) -> list[Alias] | list[Folded]:
    """Lowers RESHAPE, SQUEEZE and EXPAND_DIMS: the same bytes under another shape."""
    source, target = node.input(0), node.output
    if source.index in node.folded and source.elements == target.elements:
        return [Folded(target.index, node.constant(0).reshape(target.shape))]
    if source.elements != target.elements or source.dtype != target.dtype:
        raise Unsupported(f"{node.operator.name} from {list(source.shape)} to {list(target.shape)}")
    return [Alias(source.index, target.index)]


def shape(node: Node) -> list[Folded]:
    """Computes SHAPE, since every shape is known."""
    sizes = node.input(0).shape
    node.expect(node.output.elements == len(sizes), f"{node.output.elements} sizes of {list(sizes)}")
    return [Folded(node.output.index, np.array(sizes, _whole_numbers(node)).reshape(node.output.shape))]


def pack(node: Node) -> list[Folded]:
    """Computes PACK of constant integers, as shapes are put together."""
    parts = [node.constant(i).reshape(-1) for i in range(len(node.operator.inputs))]
    node.expect(
        all(part.size == 1 for part in parts) and node.output.elements == len(parts), "parts that are no numbers"
    )
    return [Folded(node.output.index, np.concatenate(parts).astype(_whole_numbers(node)).reshape(node.output.shape))]


def _whole_numbers(node: Node) -> str:
    if node.output.dtype not in ("int32", "int64"):
        raise Unsupported(f"{node.operator.name} to {node.output.dtype}")
    return node.output.dtype


def pad(node: Node) -> list[Call]:
    """Lowers PAD and PADV2."""
    source, target = node.input(0), node.output
    _require_same_scales(node, source, target)
    before = node.constant(1).reshape(-1, 2)[:, 0].tolist()
    if node.operator.name == "PADV2":
        fill = node.constant(2).reshape(-1).astype(target.dtype)
    else:
        fill = np.array([zero_point(target)], target.dtype)
    strides = _strides(target.shape)
    start = sum(b * s for b, s in zip(before, strides))
    return [_copy(node, source, target, source.shape, _strides(source.shape), strides, out_start=start, fill=fill)]


def concatenation(node: Node) -> list[Call]:
    """Lowers CONCATENATION of tensors that share scale and zero point."""
    target = node.output
    if node.option("fused_activation_function") != "NONE":
        raise Unsupported(f"CONCATENATION fused with {node.option('fused_activation_function')}")
    axis = node.option("axis") % len(target.shape)
    strides = _strides(target.shape)
    calls, at = [], 0
    for position in range(len(node.operator.inputs)):
        source = node.input(position)
        _require_same_scales(node, source, target)
        start = at * strides[axis]
        calls.append(_copy(node, source, target, source.shape, _strides(source.shape), strides, out_start=start))
        at += source.shape[axis]
    return calls


def split(node: Node) -> list[Call]:
    """Lowers SPLIT and SPLIT_V: their outputs are the parts."""
    data, along = (1, 0) if node.operator.name == "SPLIT" else (0, 2)
    source = node.input(data)
    axis = int(node.constant(along).reshape(-1)[0]) % len(source.shape)
    strides = _strides(source.shape)
    calls, at = [], 0
    for index in node.operator.outputs:
        target = node.graph.tensors[index]
        _require_same_scales(node, source, target)
        start = at * strides[axis]
        calls.append(_copy(node, source, target, target.shape, strides, _strides(target.shape), in_start=start))
        at += target.shape[axis]
    return calls


def slice_(node: Node) -> list[Call]:
    """Lowers SLICE."""
    source, target = node.input(0), node.output
    _require_same_scales(node, source, target)
    begin = node.constant(1).reshape(-1).tolist()
    strides = _strides(source.shape)
    start = sum(b * s for b, s in zip(begin, strides))
    return [_copy(node, source, target, target.shape, strides, _strides(target.shape), in_start=start)]


def strided_slice(node: Node) -> list[Call] | list[Folded]:
    """Lowers STRIDED_SLICE without new axes or an ellipsis; computes it of a shape."""
    source, target = node.input(0), node.output
    is_shape = node.is_constant(source) and source.dtype in ("int32", "int64")
    if not is_shape:
        _require_same_scales(node, source, target)
    if node.option("ellipsis_mask") or node.option("new_axis_mask") or node.option("offset"):
        raise Unsupported("STRIDED_SLICE with an ellipsis, new axes or offsets")
    begin, end, steps = (node.constant(i).reshape(-1).tolist() for i in (1, 2, 3))
    strides = _strides(source.shape)
    kept: list[range] = []
    for d, size in enumerate(source.shape):
        chosen = range(size)
        if d < len(begin) and node.option("shrink_axis_mask") >> d & 1:
            chosen = chosen[begin[d] % size :][:1]
        elif d < len(begin):
            first = None if node.option("begin_mask") >> d & 1 else begin[d]
            stop = None if node.option("end_mask") >> d & 1 else end[d]
            chosen = chosen[first : stop : steps[d]]
        kept.append(chosen)
    shape = [len(chosen) for chosen in kept]
    if math.prod(shape) != target.elements:
        raise Unsupported(f"STRIDED_SLICE of {shape} into {list(target.shape)}")
    if is_shape:
        values = node.constant(0).reshape(source.shape)[np.ix_(*kept)]
        return [Folded(target.index, values.astype(_whole_numbers(node)).reshape(target.shape))]
    start = sum((chosen[0] if chosen else 0) * stride for chosen, stride in zip(kept, strides))
    moves = [chosen.step * stride for chosen, stride in zip(kept, strides)]
    return [_copy(node, source, target, tuple(shape), moves, _strides(tuple(shape)), in_start=start)]


def transpose(node: Node) -> list[Call]:
    """Lowers TRANSPOSE."""
    source, target = node.input(0), node.output
    _require_same_scales(node, source, target)
    order = node.constant(1).reshape(-1).tolist()
    strides = _strides(source.shape)
    return [_copy(node, source, target, target.shape, [strides[d] for d in order], _strides(target.shape))]


def resize_nearest_neighbor(node: Node) -> list[Call]:
    """Lowers RESIZE_NEAREST_NEIGHBOR."""
    source, target = node.input(0), node.output
    _require_same_scales(node, source, target)
    in_h, in_w, channels = image(source.shape, node)
    out_h, out_w, out_c = image(target.shape, node)
    node.expect(out_c == channels, f"{channels} channels into {out_c}")
    fields: dict[str, Field] = {
        "in_w": in_w,
        "out_h": out_h,
        "out_w": out_w,
        "block": channels * np.dtype(source.dtype).itemsize,
        "rows": _nearest(node, in_h, out_h),
        "columns": _nearest(node, in_w, out_w),
    }
    return [Call("pick_pixels", fields, (source.index,), target.index)]


def _nearest(node: Node, size: int, outputs: int) -> np.ndarray:
    aligned, centred = node.option("align_corners"), node.option("half_pixel_centers")
    ratio = np.float32(size - 1) / np.float32(outputs - 1) if aligned and outputs > 1 else np.float32(size / outputs)
    places = [float(np.float32((np.float32(i) + np.float32(0.5 if centred else 0)) * ratio)) for i in range(outputs)]
    found = [away(place) if aligned else math.floor(place) for place in places]
    return np.array([min(max(i, 0), size - 1) for i in found], np.int32)


def _require_same_scales(node: Node, source: Tensor, target: Tensor) -> None:
    same = source.quantization == target.quantization or source.is_float
    if source.dtype != target.dtype or not same or source.dtype not in ("int8", "float32"):
        raise Unsupported(f"{node.operator.name} from {source.dtype} to {target.dtype} of another scale")


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def _copy(
    node: Node,
    source: Tensor,
    target: Tensor,
    shape: Sequence[int],
    in_strides: Sequence[int],
    out_strides: Sequence[int],
    *,
    in_start: int = 0,
    out_start: int = 0,
    fill: np.ndarray | None = None,
) -> Call:
    """Moves elements; strides and starts in elements. Dimensions that lie behind one another become one."""
    for tensor, start, strides in ((source, in_start, in_strides), (target, out_start, out_strides)):
        reach = [(size - 1) * stride for size, stride in zip(shape, strides)]
        first, last = start + sum(min(r, 0) for r in reach), start + sum(max(r, 0) for r in reach)
        fits = len(shape) == len(strides) and min(shape, default=1) > 0 and 0 <= first <= last < tensor.elements
        node.expect(fits, f"elements outside of {list(tensor.shape)}")
    width = np.dtype(source.dtype).itemsize
    merged: list[list[int]] = []
    for size, a, b in zip(reversed(shape), reversed(in_strides), reversed(out_strides)):
        if size == 1:
            continue
        if merged and (a, b) == (merged[0][1] * merged[0][0], merged[0][2] * merged[0][0]):
            merged[0][0] *= size
        else:
            merged.insert(0, [size, a, b])
    block = width
    if merged and merged[-1][1:] == [1, 1]:
        block = merged.pop()[0] * width
    if len(merged) > _DIMENSIONS:
        raise Unsupported(f"moves of {len(merged)} dimensions")
    rows = [[1, 0, 0]] * (_DIMENSIONS - len(merged)) + merged
    fields: dict[str, Field] = {
        "shape": tuple(row[0] for row in rows),
        "in_stride": tuple(row[1] * width for row in rows),
        "out_stride": tuple(row[2] * width for row in rows),
        "in_start": in_start * width,
        "out_start": out_start * width,
        "block": block,
        "out_bytes": target.elements * width,
        "fill_bytes": width if fill is not None else 0,
        "fill": fill.view(np.uint8) if fill is not None else None,
    }
    return Call("copy", fields, (source.index,), target.index)
