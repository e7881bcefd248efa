"""What stands at the edges of a model: bytes of the other sign, shapes, constants, infinities, many classes."""

from __future__ import annotations

from collections.abc import Callable

import c99_build
import numpy as np
import pytest
from c99_graphs import Graph

from edgeopt import c99
from edgeopt.tflite.reader import read

INFINITY = float("inf")


def _other_sign() -> bytes:
    """uint8 to int8, the same scale and another one, and back."""
    g = Graph(31)
    x = g.tensor((1, 256), "uint8", zero=131)
    outputs = []
    for scale, zero in ((0.05, 3), (0.037, -60), (0.0251, 20)):
        y = g.tensor((1, 256), scale=scale, zero=zero)
        g.operator("QUANTIZE", [x], [y], "QuantizeOptions")
        z = g.tensor((1, 256), "uint8", scale=0.04, zero=100)
        g.operator("QUANTIZE", [y], [z], "QuantizeOptions", version=2)
        outputs += [y, z]
    return g.build([x], outputs)


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
def test_uint8_to_int8_and_back(rounding: str) -> None:
    samples = [{"t0": np.arange(256).astype(np.uint8)[None]}]
    c99_build.check(_other_sign(), rounding, samples=samples)


def _computed_shape() -> bytes:
    """As Keras writes Conv2DTranspose and Reshape: the batch comes from the input's shape."""
    g = Graph(32)
    x = g.tensor((1, 4, 3, 5), zero=-9)
    sizes, batch, whole = (g.tensor(s, "int32", scale=0.0) for s in ((4,), (), (4,)))
    g.operator("SHAPE", [x], [sizes], "ShapeOptions", outType=2)
    bounds = [g.constant(v) for v in ([0], [1], [1])]
    g.operator("STRIDED_SLICE", [sizes, *bounds], [batch], "StridedSliceOptions", shrinkAxisMask=1)
    parts = [batch, *(g.constant(n) for n in (8, 6, 4))]
    g.operator("PACK", parts, [whole], "PackOptions", valuesCount=4)
    y = g.weighted(
        "TRANSPOSE_CONV",
        x,
        (4, 3, 3, 5),
        (1, 8, 6, 4),
        axis=0,
        kind="TransposeConvOptions",
        padding=0,
        strideH=2,
        strideW=2,
        extra=(whole,),
    )
    flat, two = g.tensor((1, 192), scale=0.1, zero=3), g.tensor((2,), "int32", scale=0.0)
    g.operator("PACK", [batch, g.constant(-1)], [two], "PackOptions", valuesCount=2)
    g.operator("RESHAPE", [y, two], [flat])
    return g.build([x], [flat])


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
def test_shapes_that_fold_to_constants(rounding: str) -> None:
    library = c99_build.check(_computed_shape(), rounding, count=40)
    assert library.operators == ("TRANSPOSE_CONV",)


def test_infinite_and_undefined_constants() -> None:
    """A mask of -infinity before a softmax, a bound of a clamp, NaN where nothing reads it as a number."""
    g = Graph(33)
    x, y, z = (g.tensor((1, 6), "float32") for _ in range(3))
    mask = g.constant([[0, -INFINITY, 0, 0, -INFINITY, 0]], "float32")
    g.operator("ADD", [x, mask], [y], "AddOptions")
    g.operator("SOFTMAX", [y], [z], "SoftmaxOptions", beta=1.0)
    odd = g.tensor((1, 3), "float32")
    g.operator("MUL", [g.constant([[float("nan"), INFINITY, 1]], "float32"), g.constant([[1, 1, 2]], "float32")], [odd],
               "MulOptions")  # fmt: skip
    library = c99_build.check(g.build([x], [z, odd]), "xnnpack")
    assert "-INFINITY, " in library.files["src/net_weights.c"]
    assert "NAN, INFINITY," in library.files["src/net_weights.c"]
    assert library.files["src/net_weights.c"].count("#include <math.h>") == 1


def test_no_number_is_the_least_integer() -> None:
    g = Graph(34)
    x, y = g.tensor((1, 6), "float32"), g.tensor((1, 6), scale=0.5, zero=3)
    g.operator("QUANTIZE", [x], [y], "QuantizeOptions")
    values = np.array([[INFINITY, -INFINITY, 1e30, -1e30, 0.25, 1]], np.float32)
    # 0.25 is half a step: to even with XNNPACK, away from zero with TFLM, whose cast of what is too large is undefined.
    for rounding, half in (("tflm", 1), ("xnnpack", 0)):
        library = c99.generate(read(g.build([x], [y])), name="net", rounding=rounding)
        samples = [{"t0": values}, {"t0": np.full((1, 6), np.nan, np.float32)}]
        bounds, undefined = (result["t1"].tolist() for result in c99_build.run(library, samples))
        assert bounds == [[127, -128, 127, -128, half + 3, 2 + 3]]
        assert undefined == [[-128] * 6]
    c99_build.check(g.build([x], [y]), "xnnpack", samples=samples[:1])


@pytest.mark.parametrize("classes", [500, 4095, 4096, 10_000])
def test_a_softmax_over_thousands_of_classes(classes: int) -> None:
    """Equal inputs give 256 / classes, less than half a step; one class of all stands out by 4096 / 4097 and so on."""
    g = Graph(35)
    x, y = g.tensor((1, classes), scale=0.1), g.tensor((1, classes), scale=1 / 256, zero=-128)
    g.operator("SOFTMAX", [x], [y], "SoftmaxOptions", version=2, beta=1.0)
    library = c99.generate(read(g.build([x], [y])), name="net")
    samples = [{"t0": np.zeros((1, classes), np.int8)}, {"t0": np.full((1, classes), -28, np.int8)}]
    samples[1]["t0"][0, 7] = 100
    equal, one = (result["t1"][0] for result in c99_build.run(library, samples))
    assert set(equal.tolist()) == {round(256 / classes) - 128}
    share = np.exp(12.8) / (np.exp(12.8) + classes - 1)
    assert abs(one[7] + 128 - 256 * share) < 2
    assert set(np.delete(one, 7).tolist()) == {-128}


def _outputs(choose: Callable[[Graph, int, int], list[int]]) -> bytes:
    g = Graph(36)
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    g.operator("LEAKY_RELU", [x], [y], "LeakyReluOptions", version=2, alpha=0.3)
    return g.build([x], choose(g, x, y))


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
@pytest.mark.parametrize(
    "choose",
    [
        lambda g, x, y: [y, g.tensor((1, 4), values=np.arange(4).reshape(1, 4))],
        lambda g, x, y: [y, x],
        lambda g, x, y: [y, y],
    ],
    ids=["constants", "inputs", "shared"],
)
def test_outputs_that_no_operator_computes_for_itself(
    choose: Callable[[Graph, int, int], list[int]], rounding: str
) -> None:
    c99_build.check(_outputs(choose), rounding)
