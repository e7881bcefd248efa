"""Functions of one element, SOFTMAX, QUANTIZE and DEQUANTIZE go in, calls of their kernels come out."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.c99 import fixed_functions as functions
from edgeopt.c99.call import Call, Field, Folded, Node, Unsupported, elementwise
from edgeopt.c99.fixed_functions import Scaling
from edgeopt.c99.quantization import scale, softmax_exps, zero_point


def logistic(node: Node) -> list[Call]:
    """Lowers LOGISTIC."""
    if node.require("int8", "float32") == "float32":
        return [_on_floats(node, "logistic_f32")]
    scaling = _fixed_output(node, 1 / 256, -128)
    once = node.rounding == "xnnpack"
    return [_lookup(node, functions.from_real(_sigmoid, scaling) if once else functions.logistic(scaling))]


def tanh(node: Node) -> list[Call]:
    """Lowers TANH."""
    if node.require("int8", "float32") == "float32":
        return [_on_floats(node, "tanh_f32")]
    scaling = _fixed_output(node, 1 / 128, 0)
    once = node.rounding == "xnnpack"
    return [_lookup(node, functions.from_real(math.tanh, scaling) if once else functions.tanh(scaling))]


def hard_swish(node: Node) -> list[Call]:
    """Lowers HARD_SWISH."""
    if node.require("int8", "float32") == "float32":
        return [_on_floats(node, "hard_swish_f32")]
    return [_lookup(node, functions.hard_swish(_scaling(node)))]


def leaky_relu(node: Node) -> list[Call]:
    """Lowers LEAKY_RELU."""
    alpha = node.option("alpha")
    if node.require("int8", "float32") == "float32":
        return [_on_floats(node, "leaky_relu_f32", alpha=alpha)]
    form = functions.leaky_relu_once if node.rounding == "xnnpack" else functions.leaky_relu
    return [_lookup(node, form(_scaling(node), alpha))]


def relu(node: Node) -> list[Call]:
    """Lowers RELU."""
    return _relu(node, None)


def relu6(node: Node) -> list[Call]:
    """Lowers RELU6."""
    return _relu(node, 6.0)


def _relu(node: Node, high: float | None) -> list[Call]:
    if node.require("int8", "float32") == "float32":
        return [_on_floats(node, "clamp_f32", low=0.0, high=math.inf if high is None else high)]
    if node.rounding == "tflm" and high is not None and node.input(0).quantization != node.output.quantization:
        raise Unsupported(f"{node.operator.name} to another scale, which TensorFlow Lite Micro does not change")
    return [_lookup(node, functions.relu(_scaling(node), high))]


def quantize(node: Node) -> list[Call]:
    """Lowers QUANTIZE, from float32 or from another int8 or uint8."""
    _require_same_size(node)
    source, target = node.input(0), node.output
    if (source.dtype, target.dtype) == ("int8", "int8"):
        form = functions.requantize_once if node.rounding == "xnnpack" else functions.requantize
        return [_lookup(node, form(_scaling(node)))]
    if {source.dtype, target.dtype} == {"int8", "uint8"}:
        return [_lookup(node, functions.recoded(_scaling(node), source.dtype, target.dtype))]
    if (source.dtype, target.dtype) != ("float32", "int8"):
        raise Unsupported(f"QUANTIZE from {source.dtype} to {target.dtype}")
    fields: dict[str, Field] = {
        "count": target.elements,
        "zero": zero_point(target),
        "is_even": int(node.rounding == "xnnpack"),
        "scale": float(scale(target)),
    }
    return [Call("quantize_f32", fields, (source.index,), target.index, traces=elementwise(node, source))]


def dequantize(node: Node) -> list[Call] | list[Folded]:
    """Lowers DEQUANTIZE of int8, and of float16 weights."""
    _require_same_size(node)
    source, target = node.input(0), node.output
    if source.dtype == "float16" and source.is_constant:
        return [Folded(target.index, node.constant(0).astype(np.float32))]
    if (source.dtype, target.dtype) != ("int8", "float32"):
        raise Unsupported(f"DEQUANTIZE from {source.dtype} to {target.dtype}")
    fields: dict[str, Field] = {
        "count": target.elements,
        "zero": zero_point(source),
        "scale": float(scale(source)),
    }
    return [Call("dequantize_s8", fields, (source.index,), target.index, traces=elementwise(node, source))]


def softmax(node: Node) -> list[Call]:
    """Lowers SOFTMAX over the last dimension."""
    dtype = node.require("int8", "float32")
    _require_same_size(node)
    source, target = node.input(0), node.output
    beta = node.option("beta")
    depth = source.shape[-1]
    fields: dict[str, Field] = {"rows": source.elements // depth, "depth": depth}
    if dtype == "float32":
        return [Call("softmax_f32", {**fields, "beta": beta}, (source.index,), target.index)]
    if node.rounding == "tflm":
        _fixed_output(node, 1 / 256, -128)
        exps = softmax_exps(float(scale(source)), beta)
        return [Call("softmax_s8_tflm", {**fields, "exps": exps}, (source.index,), target.index)]
    step = np.float32(-scale(source) * np.float32(beta))
    reals = [math.exp(float(step * np.float32(d))) for d in range(256)]
    fields |= {"out_zero": zero_point(target), "out_scale": float(scale(target)), "exps": np.array(reals, np.float32)}
    return [Call("softmax_s8_float", fields, (source.index,), target.index)]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _require_same_size(node: Node) -> None:
    source, target = node.input(0), node.output
    node.expect(source.elements == target.elements, f"{list(source.shape)} into {list(target.shape)}")


def _scaling(node: Node) -> Scaling:
    source, target = node.input(0), node.output
    return Scaling(scale(source), zero_point(source), scale(target), zero_point(target))


def _fixed_output(node: Node, step: float, zero: int) -> Scaling:
    scaling = _scaling(node)
    if (float(scaling.output_scale), scaling.output_zero) != (step, zero):
        raise Unsupported(f"{node.operator.name} to another scale than {step:g} and zero point than {zero}")
    return scaling


def _lookup(node: Node, table: np.ndarray) -> Call:
    _require_same_size(node)
    source = node.input(0)
    fields: dict[str, Field] = {"count": source.elements, "table": table}
    return Call("lookup_s8", fields, (source.index,), node.output.index, traces=elementwise(node, source))


def _on_floats(node: Node, kernel: str, **fields: float) -> Call:
    _require_same_size(node)
    source = node.input(0)
    traces = elementwise(node, source)
    return Call(kernel, {"count": source.elements, **fields}, (source.index,), node.output.index, traces=traces)
