"""Whose kernels LiteRT gives an operator to decides how generated C rounds it; TFLM's own oddities are kept too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import c99_build
import numpy as np
import pytest
from c99_graphs import Graph

from edgeopt import c99, runtimes
from edgeopt.c99 import delegation
from edgeopt.c99.call import Node
from edgeopt.errors import ModelError
from edgeopt.files import temporary
from edgeopt.tflite.reader import read

SAME, VALID = 0, 1
RELU6 = 3


def _transposed(g: Graph, x: int) -> list[int]:
    """Kernels smaller than the stride, equal to it and larger."""
    outputs = []
    for taps, stride, padding in ((1, 2, SAME), (2, 3, SAME), (2, 2, SAME), (3, 2, SAME), (1, 2, VALID), (2, 3, VALID)):
        _, rows, columns, _ = g.shape(x)
        size = (1, *(n * stride if padding == SAME else (n - 1) * stride + taps for n in (rows, columns)), 3)
        outputs.append(
            g.weighted(
                "TRANSPOSE_CONV",
                x,
                (3, taps, taps, 4),
                size,
                axis=0,
                kind="TransposeConvOptions",
                padding=padding,
                strideH=stride,
                strideW=stride,
                extra=(g.constant(size),),
            )
        )
    return outputs


def _dense(g: Graph, x: int) -> list[int]:
    """Weights with a zero point, plain and of few values; and a bias without a scale."""
    flat = g.tensor((2, 32), zero=-5)
    g.operator("RESHAPE", [x, g.constant([2, 32])], [flat])
    dense = {"axis": 0, "kind": "FullyConnectedOptions", "version": 4}
    few = g.random.integers(-8, 8, (7, 32))
    outputs = [
        g.weighted("FULLY_CONNECTED", flat, (7, 32), (2, 7), per_channel=False, weights_zero=3, **dense),
        g.weighted("FULLY_CONNECTED", flat, (7, 32), (2, 7), per_channel=False, weights_zero=-9, bias=False, **dense),
        g.weighted("FULLY_CONNECTED", flat, (7, 32), (2, 7), per_channel=False, weights_zero=2, values=few, **dense),
        g.weighted("FULLY_CONNECTED", flat, (7, 32), (2, 7), **dense),
    ]
    plain = g.tensor((2, 7), scale=0.1, zero=3)
    kernel = g.tensor((7, 32), scale=0.01, values=g.random.integers(-127, 128, (7, 32)))
    bias = g.tensor((7,), "int32", scale=0.0, values=g.random.integers(-2000, 2000, 7))
    g.operator("FULLY_CONNECTED", [flat, kernel, bias], [plain], "FullyConnectedOptions", version=4)
    return [*outputs, plain]


def _unscaled(g: Graph, x: int) -> list[int]:
    """Convolutions whose bias has no scale, which XNNPACK leaves: their halves go upward too."""
    outputs = []
    for name, shape, axis in (("CONV_2D", (24, 3, 3, 4), 0), ("DEPTHWISE_CONV_2D", (1, 3, 3, 24), 3)):
        scales = g.random.uniform(0.002, 0.01, 24).astype(np.float32)
        kernel = g.tensor(shape, scale=scales, axis=axis, values=g.random.integers(-127, 128, shape))
        bias = g.tensor((24,), "int32", scale=0.0, values=g.random.integers(-2000, 2000, 24))
        y = g.tensor((1, 4, 4, 24), scale=0.05, zero=3)
        options: dict[str, int] = {"depthMultiplier": 6} if axis else {}
        kind = "DepthwiseConv2DOptions" if axis else "Conv2DOptions"
        g.operator(name, [x, kernel, bias], [y], kind, version=3, padding=SAME, strideH=1, strideW=1, **options)
        outputs.append(y)
    return outputs


def _scaled(g: Graph, x: int) -> list[int]:
    """Ratios of scales inside and outside of what XNNPACK takes."""
    outputs = []

    def add(name: str, other: float, result: float, kind: str, **options: object) -> None:
        y, z = g.tensor(g.shape(x), scale=other, zero=-8), g.tensor(g.shape(x), scale=result, zero=1)
        g.operator("QUANTIZE", [x], [y], "QuantizeOptions")
        operands = [x, y] if name in ("ADD", "SUB", "MUL") else [y]
        g.operator(name, operands, [z], kind, version=1 if name == "HARD_SWISH" else 2, **options)
        outputs.append(z)

    for scale in (0.05, 0.02, 0.0003):
        add("SUB", scale, 0.04, "SubOptions")
        add("ADD", scale, 0.04, "AddOptions")
        add("MUL", scale, 0.04, "MulOptions")
    add("SUB", 15.0, 0.04, "SubOptions")
    for alpha, result in ((0.3, 0.037), (0.0, 0.037), (0.0001, 0.037), (-0.5, 0.037), (1.5, 30.0)):
        add("LEAKY_RELU", 0.05, result, "LeakyReluOptions", alpha=alpha)
    for name in ("RELU", "HARD_SWISH"):
        add(name, 0.05, 0.03, {"HARD_SWISH": "HardSwishOptions"}.get(name, ""))
    same = g.tensor(g.shape(x), zero=-5)
    g.operator("RELU6", [x], [same], version=2)
    return [*outputs, same]


def _moving(g: Graph, x: int) -> list[int]:
    """Pools, means over the inner and the outer dimensions, and clamps at halves: 6 / 4 - 3."""
    outputs = []
    for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        y, z = g.tensor(g.shape(x), scale=4.0, zero=-3), g.tensor((1, 2, 2, 4), scale=4.0, zero=-3)
        g.operator("QUANTIZE", [x], [y], "QuantizeOptions")
        pool = {"padding": VALID, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
        g.operator(name, [y], [z], "Pool2DOptions", version=2, fusedActivationFunction=RELU6, **pool)
        outputs.append(z)
    for axes, shape in (([1, 2], (1, 4)), ([2], (1, 4, 4)), ([3], (1, 4, 4))):
        y = g.tensor(shape, scale=0.05, zero=-5)
        g.operator("MEAN", [x, g.constant(axes)], [y], "ReducerOptions", version=2)
        outputs.append(y)
    return outputs


GROUPS: dict[str, Callable[[Graph, int], list[int]]] = {
    "transposed": _transposed,
    "dense": _dense,
    "unscaled": _unscaled,
    "scaled": _scaled,
    "moving": _moving,
}


def _content(group: str) -> bytes:
    g = Graph(21)
    x = g.tensor((1, 4, 4, 4), zero=-5)
    return g.build([x], GROUPS[group](g, x))


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
@pytest.mark.parametrize("group", GROUPS)
def test_outputs_are_those_of_the_runtime(group: str, rounding: str) -> None:
    c99_build.check(_content(group), rounding, count=40)


@pytest.mark.parametrize("group", GROUPS)
def test_the_rules_name_what_xnnpack_leaves(group: str) -> None:
    model = read(_content(group))
    nodes = [Node(model, model.main, operator, {}, "xnnpack", form=None) for operator in model.main.operators]
    left = Counter(node.operator.name for node in nodes if not delegation.takes(node))
    with temporary(_content(group), "model.tflite") as file:
        session = runtimes.isolated(file, runtimes.RUNTIMES["litert"])
        said = session.undelegated
        session.close()
    assert sorted(f"{count} x {name}" if count > 1 else name for name, count in left.items()) == sorted(said)


def test_subtraction_negates_after_its_second_rounding() -> None:
    """Odd numbers times (2^20 + 1) / 2^22 end in halves; every pair of int8 meets some."""
    g = Graph()
    unit = 2.0**-6
    a = g.tensor((1, 256 * 256), scale=unit, zero=7)
    b = g.tensor((1, 256 * 256), scale=unit * (2**20 + 1) / 2**22, zero=-8)
    y = g.tensor((1, 256 * 256), scale=unit * 1.5, zero=1)
    g.operator("SUB", [a, b], [y], "SubOptions", version=2)
    values = np.arange(-128, 128).astype(np.int8)
    pairs = {"t0": np.repeat(values, 256)[None], "t1": np.tile(values, 256)[None]}
    c99_build.check(g.build([a, b], [y]), "tflm", samples=[pairs])


@pytest.mark.parametrize(
    ("name", "scales", "words"),
    [
        ("ADD", (20.0, 0.05), "ADD with scales that XNNPACK leaves"),
        ("MUL", (20.0, 0.8), "MUL with scales whose product is 320 of its output's, which XNNPACK leaves"),
    ],
)
def test_what_litert_computes_by_other_rules_is_refused(name: str, scales: tuple[float, float], words: str) -> None:
    g = Graph()
    a, b = (g.tensor((1, 8), scale=scale) for scale in scales)
    y = g.tensor((1, 8), scale=0.05)
    g.operator(name, [a, b], [y], f"{name.capitalize()}Options", version=2)
    content = g.build([a, b], [y])
    with pytest.raises(ModelError, match=words):
        c99.generate(read(content), name="net", rounding="xnnpack")
    c99_build.check(content, "tflm")


def test_a_library_of_two_roundings_has_both_kernels() -> None:
    library = c99.generate(read(_content("transposed")), name="net", rounding="xnnpack")
    body = library.files["src/net.c"]
    for name in ("transpose_conv_s8(", "transpose_conv_s8_builtin("):
        assert body.count(f"static void {name}") == 1
    assert np.count_nonzero([line.startswith("    transpose_conv_s8_builtin(") for line in body.splitlines()]) == 2
