"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED go in, calls of their kernels come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.c99 import packing
from edgeopt.c99.call import Call, Field, Node, Packing, Unsupported
from edgeopt.c99.memory import Trace
from edgeopt.c99.operators.window import Axis, axis, image, trace
from edgeopt.c99.packing import Packed
from edgeopt.c99.quantization import REAL_RANGES, activation_range, scale, scales, zero_point


def conv_2d(node: Node) -> list[Call]:
    """Lowers CONV_2D."""
    dtype = node.require("int8", "float32")
    weights = _weights(node, dtype, rank=4)
    channels, height, width, depth = weights.shape
    _, _, in_c = image(node.input(0).shape, node)
    if depth != in_c:
        raise Unsupported(f"CONV_2D in {in_c // depth} groups")
    vertical, horizontal = _window(node, height, width)
    taps = height * width * depth
    fields = {
        **_geometry(vertical, horizontal, in_c, channels),
        **_arithmetic(node, weights.reshape(channels, taps), folded=True),
    }
    trace, pixels, more = _rows(vertical, node, horizontal, in_c, channels), vertical.outputs * horizontal.outputs, 0
    scratch_bytes = _columns_bytes(taps, in_c) if dtype == "int8" else 0
    kernel = f"conv_2d_{_SUFFIX[dtype]}"
    packed = _packed(node, weights.reshape(channels, taps))
    if packed is not None and packed.on_grid:
        kernel = "conv_2d_s8_grid"
        fields = {"conv": {**fields, "weights": None, "copies": int(taps % _run(packed) > 0)}, **_table(packed)}
        scratch_bytes = _columns_bytes(taps, in_c, run=_run(packed))
    elif packed is not None:
        kernel = "conv_2d_s8_codebook"
        block = min(channels, max(_LEAST_BLOCK, _UNPACKED_BYTES // taps // 4 * 4))
        # Where columns are laid out anew for many blocks, looking up has to cost less.
        served = _SERVED_PIXELS if channels > 2 * block else _SERVED_PIXELS // 2
        rows = min(vertical.outputs, -(-served // horizontal.outputs))
        fields = {
            "conv": {**fields, "weights": None},
            **_table(packed),
            "rows": rows,
            "block": block,
            "columns_bytes": scratch_bytes,
        }
        trace = trace.in_bands(rows)
        more = _LOOK_UP * weights.size * -(-vertical.outputs // rows)
        more += _COLUMN * pixels * taps * (-(-channels // block) - 1)
        scratch_bytes += block * taps + _BEYOND
    return [
        Call(
            kernel,
            fields,
            (node.input(0).index,),
            node.output.index,
            scratch_bytes,
            traces={node.input(0).index: trace},
            has_direction=True,
            rounding=_rounding(node),
            instructions=_instructions(kernel, pixels * channels, taps),
            packing=_packing(packed, weights.size, more),
        )
    ]


def depthwise_conv_2d(node: Node) -> list[Call]:
    """Lowers DEPTHWISE_CONV_2D."""
    dtype = node.require("int8", "float32")
    weights = _weights(node, dtype, rank=4)
    groups, height, width, channels = weights.shape
    _, _, in_c = image(node.input(0).shape, node)
    fits = groups == 1 and channels == in_c * node.option("depth_multiplier")
    node.expect(fits, f"weights {list(weights.shape)} for {in_c} channels times {node.option('depth_multiplier')}")
    vertical, horizontal = _window(node, height, width)
    fields = {
        **_geometry(vertical, horizontal, in_c, channels),
        **_arithmetic(node, weights.reshape(height * width, channels).T, folded=False),
    }
    fields["weights"] = weights.reshape(height * width, channels)
    kernel, scratch_bytes = f"depthwise_conv_2d_{_SUFFIX[dtype]}", 0
    packed = _packed(node, weights.reshape(1, weights.size), grids=False)
    if packed is not None:
        kernel, scratch_bytes = "depthwise_conv_2d_s8_codebook", weights.size + _BEYOND
        fields = {"conv": {**fields, "weights": None}, **_table(packed)}
    return [
        Call(
            kernel,
            fields,
            (node.input(0).index,),
            node.output.index,
            scratch_bytes,
            traces={node.input(0).index: _rows(vertical, node, horizontal, in_c, channels)},
            has_direction=True,
            rounding=_rounding(node),
            instructions=_instructions(kernel, node.output.elements, height * width),
            packing=_packing(packed, weights.size, _LOOK_UP * weights.size),
        )
    ]


def fully_connected(node: Node) -> list[Call]:
    """Lowers FULLY_CONNECTED."""
    dtype = node.require("int8", "float32")
    if node.option("weights_format"):
        raise Unsupported("FULLY_CONNECTED with shuffled weights")
    weights = _weights(node, dtype, rank=2)
    units, depth = weights.shape
    source, target = node.input(0), node.output
    fits = source.elements % depth == 0 and source.elements // depth * units == target.elements
    node.expect(fits, f"weights {list(weights.shape)} from {list(source.shape)} to {list(target.shape)}")
    fields: dict[str, Field] = {"rows": node.input(0).elements // depth, "depth": depth, "units": units}
    fields |= _arithmetic(node, weights, folded=True)
    kernel, scratch_bytes = f"fully_connected_{_SUFFIX[dtype]}", 0
    packed = _packed(node, weights, threes=False)
    if packed is not None and packed.on_grid:
        kernel, scratch_bytes = "fully_connected_s8_grid", _filled(depth, _run(packed)) if depth % _run(packed) else 0
        fields = {"dense": {**fields, "weights": None}, **_table(packed)}
    elif packed is not None:
        filled = _filled(depth, _run(packed))
        # Two taps are looked up at once where all units have one codebook, in a table of four bytes for each pair.
        scratch_bytes = filled if packed.table_step else 2 * filled + 4 * 4**packed.bits
        kernel = "fully_connected_s8_codebook"
        fields = {"dense": {**fields, "weights": None}, **_table(packed), "filled": filled}
    more = 0
    if packed is not None and not packed.on_grid:
        times = weights.size * (source.elements // depth)
        more = round(_LOOK_UP_OWN * times if packed.table_step else _PAIR * 4**packed.bits + _LOOK_UP_PAIR * times)
    return [
        Call(
            kernel,
            fields,
            (source.index,),
            target.index,
            scratch_bytes,
            rounding=_rounding(node),
            instructions=_instructions(kernel, target.elements, depth),
            packing=_packing(packed, weights.size, more),
        )
    ]


def _rounding(node: Node) -> str:
    """LiteRT's own kernels for these round halves upward, its others away from zero."""
    return "upward" if node.rounding == "builtin" else ""


_SUFFIX = {"int8": "s8", "float32": "f32"}
# Channels of a convolution whose weights are looked up at once: as many as these bytes hold, and at least so many; and
# the output pixels that they serve before they are overwritten.
_UNPACKED_BYTES, _LEAST_BLOCK, _SERVED_PIXELS = 2048, 12, 64
# What looking up may write behind the last weight.
_BEYOND = 32


# About the instructions of a Cortex-M4, as docs/microcontroller-results.md has them: of a product by the start of its
# kernel's name, of an output, of a weight that is looked up, and of a tap put into a column. In dense layers: of
# a weight looked up in its unit's codebook; of one looked up in pairs, where there is one for all; of a pair of that.
_PRODUCT = {"conv": 1.1, "depthwise": 3.2, "fully": 2.0}
_OUTPUT, _LOOK_UP, _COLUMN = 20, 5, 2
_LOOK_UP_OWN, _LOOK_UP_PAIR, _PAIR = 3.5, 0.25, 5


def _instructions(kernel: str, outputs: int, taps: int) -> int:
    return round(outputs * (_OUTPUT + taps * _PRODUCT[kernel.partition("_")[0]]))


def _packing(packed: Packed | None, weights_bytes: int, more_instructions: int) -> Packing | None:
    if packed is None:
        return None
    return Packing(packed.bits, packed.on_grid, weights_bytes - packed.size_bytes, more_instructions)


def _packed(node: Node, weights: np.ndarray, *, grids: bool = True, threes: bool = True) -> Packed | None:
    """Returns the form that `node.form` names; None for weights [rows, taps] as they are."""
    if node.form is None or weights.dtype != np.int8:
        return None
    return next(iter(packing.forms(weights, grids=grids, threes=threes)[node.form :]), None)


def _table(packed: Packed) -> dict[str, Field]:
    """Returns the field of C's `packed_t`."""
    return {
        "weights": {
            "bits": packed.bits,
            "row_bytes": packed.indices.shape[1],
            "table_step": packed.table_step,
            "indices": packed.indices,
            "tables": packed.tables,
        }
    }


def _run(packed: Packed) -> int:
    """The taps of 16 bytes of indices, which Helium reads at once."""
    return 128 // packed.bits


def _filled(count: int, run: int) -> int:
    """Returns `count`, rounded up to a multiple of `run`."""
    return -(-count // run) * run


def _columns_bytes(taps: int, in_c: int, *, run: int = 1) -> int:
    """Two columns of int16 that are read to the end of a word of `run` / 4 taps, and the bytes of one where runs of
    channels do not fill words; or two of int8 that are read to the end of `run`.
    """
    whole = _filled(taps, 4)
    wide = max(4 * _filled(taps, max(1, run // 4)), 4 * whole + (whole if in_c % 4 else 0))
    return max(wide, whole + _filled(taps, run))


def _weights(node: Node, dtype: str, *, rank: int) -> np.ndarray:
    weights = node.constant(1)
    node.expect(weights.ndim == rank and weights.size > 0, f"weights {list(weights.shape)}")
    stored = node.input(1).dtype
    if dtype == "int8" and stored not in ("int8", "int4", "int2"):
        raise Unsupported(f"{node.operator.name} with {stored} weights for int8 activations")
    if dtype == "float32" and stored not in ("float32", "float16"):
        raise Unsupported(f"{node.operator.name} with {stored} weights for float32 activations (dynamic range)")
    return weights.astype(dtype)


def _window(node: Node, height: int, width: int) -> tuple[Axis, Axis]:
    in_h, in_w, _ = image(node.input(0).shape, node)
    out_h, out_w, _ = image(node.output.shape, node)
    option = node.option
    vertical = axis(node, in_h, out_h, taps=height, stride=option("stride_h"), dilation=option("dilation_h_factor"))
    horizontal = axis(node, in_w, out_w, taps=width, stride=option("stride_w"), dilation=option("dilation_w_factor"))
    return vertical, horizontal


def _geometry(vertical: Axis, horizontal: Axis, in_c: int, out_c: int) -> dict[str, Field]:
    return {
        "in_h": vertical.size,
        "in_w": horizontal.size,
        "in_c": in_c,
        "out_h": vertical.outputs,
        "out_w": horizontal.outputs,
        "out_c": out_c,
        "filter_h": vertical.taps,
        "filter_w": horizontal.taps,
        "stride_h": vertical.stride,
        "stride_w": horizontal.stride,
        "dilation_h": vertical.dilation,
        "dilation_w": horizontal.dilation,
        "pad_h": vertical.pad,
        "pad_w": horizontal.pad,
    }


def _rows(vertical: Axis, node: Node, horizontal: Axis, in_c: int, out_c: int) -> Trace:
    width = np.dtype(node.output.dtype).itemsize
    return trace(vertical, input_row=horizontal.size * in_c * width, output_row=horizontal.outputs * out_c * width)


def _arithmetic(node: Node, weights: np.ndarray, *, folded: bool) -> dict[str, Field]:
    """Weights [channels, taps], bias, scales and clamps; `folded` brings the input's zero point into the bias."""
    channels = len(weights)
    has_bias = len(node.operator.inputs) > 2 and node.operator.inputs[2] >= 0
    bias = node.constant(2).reshape(-1) if has_bias else np.zeros(channels)
    node.expect(bias.size == channels, f"{bias.size} biases for {channels} channels")
    node.expect(node.output.shape[-1] == channels, f"{channels} channels into {list(node.output.shape)}")
    if weights.dtype == np.float32:
        low, high = real_range(node)
        return {"low": low, "high": high, "weights": weights, "bias": bias.astype(np.float32)}
    total = bias.astype(np.int64)
    if folded:
        total = total - zero_point(node.input(0)) * (weights.astype(np.int64) - _weights_zero(node)).sum(axis=1)
    low, high = clamps(node)
    fields: dict[str, Field] = {
        "out_zero": zero_point(node.output),
        "low": low,
        "high": high,
        "weights": weights,
        # Sums wrap around as the kernels' do: what counts is the last sum.
        "bias": total.astype(np.int32),
        "scales": scales(_multipliers(node, channels), node.rounding),
    }
    if node.operator.name == "FULLY_CONNECTED":
        fields["weights_zero"] = _weights_zero(node)
    else:
        fields["in_zero"] = zero_point(node.input(0))
    return fields


def _weights_zero(node: Node) -> int:
    """The zero point of the weights, which only FULLY_CONNECTED with one scale may have."""
    quantization = node.input(1).quantization
    zeros = set(quantization.zero_points) if quantization is not None else {0}
    may_differ = node.operator.name == "FULLY_CONNECTED" and not node.input(1).is_per_channel
    node.expect(zeros == {0} or may_differ, f"weights whose zero points are {sorted(zeros)} instead of 0")
    return zeros.pop()


def _multipliers(node: Node, channels: int) -> np.ndarray:
    """input scale * weight scale / output scale of each channel, in the precision of the runtime that rounds so."""
    quantization = node.input(1).quantization
    if quantization is None:
        raise Unsupported(f"{node.operator.name} with weights that have no scale")
    filters = np.broadcast_to(np.array(quantization.scales, np.float32), channels)
    source, target = scale(node.input(0)), scale(node.output)
    if node.rounding == "xnnpack":
        return source * filters / target
    if node.operator.name == "FULLY_CONNECTED" and len(quantization.scales) == 1:
        return (source * filters).astype(np.float64) / np.float64(target)
    return np.float64(source) * filters.astype(np.float64) / np.float64(target)


def clamps(node: Node) -> tuple[int, int]:
    """Returns the range of the fused activation as int8."""
    _require_clamp(node)
    return activation_range(node.option("fused_activation_function"), node.output, node.rounding)


def real_range(node: Node) -> tuple[float, float]:
    """Returns the range of the fused activation as float32; without one, TFLM keeps infinities out and XNNPACK not."""
    _require_clamp(node)
    low, high = REAL_RANGES[node.option("fused_activation_function")]
    most = math.inf if node.rounding == "xnnpack" else float(np.finfo(np.float32).max)
    return -most if low is None else low, most if high is None else high


def _require_clamp(node: Node) -> None:
    if node.option("fused_activation_function") not in REAL_RANGES:
        raise Unsupported(f"{node.operator.name} fused with {node.option('fused_activation_function')}")
