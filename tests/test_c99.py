"""Generated C99 computes what TFLM and LiteRT compute, integers bit for bit, in less memory than TFLM's arena."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c99_build
import numpy as np
import pytest
import runtime_models
from c99_graphs import Graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt import c99, runtimes, workers
from edgeopt.c99 import memory
from edgeopt.c99.memory import Buffer, Overlap, Sharing, Trace
from edgeopt.errors import ConfigError, ModelError
from edgeopt.runtimes import qemu
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read

SAME, VALID = 0, 1
NONE, RELU, RELU6 = 0, 1, 3


def _convolutions() -> bytes:
    """Odd sizes, in_c that is no multiple of 4, SAME and VALID, strides, dilation, odd channels."""
    g = Graph(1)
    x = g.tensor((1, 9, 7, 3), zero=-5)
    conv = {"kind": "Conv2DOptions", "axis": 0}
    y = g.weighted("CONV_2D", x, (6, 3, 3, 3), (1, 5, 4, 6), padding=SAME, strideH=2, strideW=2, scale=0.08, **conv)
    y = g.weighted(
        "CONV_2D", y, (8, 1, 1, 6), (1, 5, 4, 8), padding=VALID, strideH=1, strideW=1,
        fusedActivationFunction=RELU, zero=-128, **conv,
    )  # fmt: skip
    y = g.weighted(
        "CONV_2D", y, (5, 3, 2, 8), (1, 5, 4, 5), padding=SAME, strideH=1, strideW=1, dilationHFactor=2,
        fusedActivationFunction=RELU6, scale=0.03, zero=-100, **conv,
    )  # fmt: skip
    return g.build([x], [y])


def _depthwise() -> bytes:
    """Multipliers 1 and 2, borders, stride 2, dilation, channels that are no multiple of 4."""
    g = Graph(2)
    x = g.tensor((1, 7, 6, 6), zero=11)
    kind, one = {"kind": "DepthwiseConv2DOptions", "axis": 3}, {"depthMultiplier": 1}
    y = g.weighted(
        "DEPTHWISE_CONV_2D", x, (1, 3, 3, 6), (1, 7, 6, 6), padding=SAME, strideH=1, strideW=1, **one, **kind
    )
    y = g.weighted(
        "DEPTHWISE_CONV_2D", y, (1, 3, 3, 12), (1, 4, 3, 12), padding=SAME, strideH=2, strideW=2, depthMultiplier=2,
        fusedActivationFunction=RELU, zero=-128, **kind,
    )  # fmt: skip
    y = g.weighted(
        "DEPTHWISE_CONV_2D", y, (1, 2, 2, 12), (1, 2, 1, 12), padding=VALID, strideH=1, strideW=1, dilationHFactor=2,
        dilationWFactor=2, **one, **kind,
    )  # fmt: skip
    return g.build([x], [y])


def _dense(per_channel: bool) -> bytes:
    g = Graph(3)
    x = g.tensor((1, 37), zero=4)
    kind = {"kind": "FullyConnectedOptions", "axis": 0, "per_channel": per_channel, "version": 4}
    y = g.weighted("FULLY_CONNECTED", x, (13, 37), (1, 13), fusedActivationFunction=RELU, zero=-128, **kind)
    y = g.weighted("FULLY_CONNECTED", y, (5, 13), (1, 5), bias=False, **kind)
    z = g.tensor((1, 5), scale=1 / 256, zero=-128)
    g.operator("SOFTMAX", [y], [z], "SoftmaxOptions", version=2, beta=1.0)
    return g.build([x], [z])


def _pools() -> bytes:
    g = Graph(4)
    x = g.tensor((1, 9, 8, 5), zero=-3)
    kind = {"kind": "Pool2DOptions", "padding": SAME, "strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3}
    a = g.tensor((1, 5, 4, 5), zero=-3)
    g.operator("AVERAGE_POOL_2D", [x], [a], version=2, **kind)
    b = g.tensor((1, 5, 4, 5), zero=-3)
    g.operator("MAX_POOL_2D", [x], [b], version=2, **kind)
    c = g.tensor((1, 5, 4, 5), scale=0.07, zero=9)
    g.operator("ADD", [a, b], [c], "AddOptions", version=2, fusedActivationFunction=RELU)
    d = g.tensor((1, 5), scale=0.04, zero=-20)
    g.operator("MEAN", [c, g.constant([1, 2])], [d], "ReducerOptions", version=2, keepDims=False)
    return g.build([x], [d, c])


def _arithmetic() -> bytes:
    """Broadcasting, constants, three scales, one tensor twice."""
    g = Graph(5)
    a, b = g.tensor((1, 4, 3, 5), scale=0.02, zero=7), g.tensor((1, 1, 1, 5), scale=0.05, zero=-8)
    c = g.tensor((1, 4, 3, 5), scale=0.06, zero=1)
    g.operator("ADD", [a, b], [c], "AddOptions", version=2)
    d = g.tensor((1, 4, 3, 5), scale=0.09, zero=3)
    g.operator("SUB", [c, a], [d], "SubOptions", version=2)
    constant = g.tensor((5,), scale=0.013, zero=0, values=g.random.integers(-127, 128, 5).astype(np.int8))
    e = g.tensor((1, 4, 3, 5), scale=0.02, zero=-4)
    g.operator("MUL", [d, constant], [e], "MulOptions", version=2)
    f = g.tensor((1, 4, 3, 5), scale=0.11, zero=0)
    g.operator("MUL", [e, e], [f], "MulOptions", version=2, fusedActivationFunction=RELU)
    return g.build([a, b], [f, d])


def _functions() -> bytes:
    """Every function of one element, each on all 256 values, and softmax over long rows."""
    g = Graph(6)
    x = g.tensor((1, 16, 16, 1), scale=0.047, zero=3)
    outputs = []
    for name, scale, zero, kind, options in (
        ("LOGISTIC", 1 / 256, -128, "", {}),
        ("TANH", 1 / 128, 0, "", {}),
        ("HARD_SWISH", 0.03, -115, "HardSwishOptions", {}),
        ("LEAKY_RELU", 0.037, -60, "LeakyReluOptions", {"alpha": 0.3}),
        ("RELU", 0.037, -128, "", {}),
        ("RELU6", 0.047, 3, "", {}),
        ("QUANTIZE", 0.03, -60, "QuantizeOptions", {}),
        ("SOFTMAX", 1 / 256, -128, "SoftmaxOptions", {"beta": 0.7}),
    ):
        y = g.tensor((1, 16, 16, 1), scale=scale, zero=zero)
        source = x
        if name == "SOFTMAX":
            source = g.tensor((1, 256), scale=0.047, zero=3)
            g.operator("RESHAPE", [x, g.constant([1, 256])], [source])
            y = g.tensor((1, 256), scale=scale, zero=zero)
        g.operator(name, [source], [y], kind, version=1 if name == "HARD_SWISH" else 2, **options)
        outputs.append(y)
    return g.build([x], outputs)


def _moves() -> bytes:
    g = Graph(7)
    x = g.tensor((1, 4, 6, 3), zero=5)
    padded = g.tensor((1, 7, 7, 3), zero=5)
    g.operator("PAD", [x, g.constant([[0, 0], [1, 2], [0, 1], [0, 0]])], [padded], "PadOptions", version=2)
    turned = g.tensor((1, 3, 6, 4), zero=5)
    g.operator("TRANSPOSE", [x, g.constant([0, 3, 2, 1])], [turned], "TransposeOptions", version=2)
    joined = g.tensor((1, 4, 6, 6), zero=5)
    g.operator("CONCATENATION", [x, x], [joined], "ConcatenationOptions", version=2, axis=-1)
    cut = g.tensor((1, 2, 2, 6), zero=5)
    slices = [g.constant(values) for values in ([0, 1, 0, 0], [1, 3, 6, 6], [1, 1, 3, 1])]
    g.operator("STRIDED_SLICE", [joined, *slices], [cut], "StridedSliceOptions", version=2)
    halves = [g.tensor((1, 4, 3, 3), zero=5) for _ in range(2)]
    g.operator("SPLIT", [g.constant(2), x], halves, "SplitOptions", version=2, numSplits=2)
    uneven = [g.tensor((1, depth, 6, 3), zero=5) for depth in (3, 1)]
    sizes = g.constant([3, 1])
    g.operator("SPLIT_V", [x, sizes, g.constant(-3)], uneven, "SplitVOptions", version=2, numSplits=2)
    flat = g.tensor((4, 9), zero=5)
    g.operator("RESHAPE", [halves[1], g.constant([4, 9])], [flat])
    return g.build([x], [padded, turned, cut, halves[0], flat, *uneven])


def _enlarging(half_pixel: bool, align: bool) -> bytes:
    g = Graph(8)
    x = g.tensor((1, 4, 5, 3), zero=5)
    options = {"alignCorners": align, "halfPixelCenters": half_pixel}
    y = g.tensor((1, 9, 10, 3), zero=5)
    g.operator("RESIZE_BILINEAR", [x, g.constant([9, 10])], [y], "ResizeBilinearOptions", version=3, **options)
    z = g.tensor((1, 7, 11, 3), zero=5)
    kind = "ResizeNearestNeighborOptions"
    g.operator("RESIZE_NEAREST_NEIGHBOR", [x, g.constant([7, 11])], [z], kind, version=3, **options)
    return g.build([x], [y, z])


def _transposed(padding: int) -> bytes:
    g = Graph(9)
    x = g.tensor((1, 4, 3, 5), zero=-9)
    size = (1, 8, 6, 4) if padding == SAME else (1, 9, 7, 4)
    y = g.weighted(
        "TRANSPOSE_CONV", x, (4, 3, 3, 5), size, axis=0, kind="TransposeConvOptions", padding=padding, strideH=2,
        strideW=2, extra=(g.constant(size),),
    )  # fmt: skip
    return g.build([x], [y])


def _edges() -> bytes:
    """Floats outside, int8 inside."""
    g = Graph(10)
    x = g.tensor((1, 6), "float32")
    q = g.tensor((1, 6), scale=0.025, zero=3)
    g.operator("QUANTIZE", [x], [q], "QuantizeOptions")
    y = g.weighted("FULLY_CONNECTED", q, (5, 6), (1, 5), axis=0, kind="FullyConnectedOptions", version=4)
    z = g.tensor((1, 5), "float32")
    g.operator("DEQUANTIZE", [y], [z], "DequantizeOptions", version=2)
    return g.build([x], [z])


GRAPHS: dict[str, Callable[[], bytes]] = {
    "convolutions": _convolutions,
    "depthwise": _depthwise,
    "dense": lambda: _dense(False),
    "dense per channel": lambda: _dense(True),
    "pools": _pools,
    "arithmetic": _arithmetic,
    "functions": _functions,
    "moves": _moves,
    "enlarging": lambda: _enlarging(False, False),
    "enlarging, centred": lambda: _enlarging(True, False),
    "enlarging, aligned": lambda: _enlarging(False, True),
    "transposed, same": lambda: _transposed(SAME),
    "transposed, valid": lambda: _transposed(VALID),
    "edges": _edges,
}


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_outputs_are_those_of_the_runtime(graph: str, rounding: str) -> None:
    content = GRAPHS[graph]()
    samples = c99_build.random_samples(content, 6)
    if graph == "functions":
        values = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1)
        samples.append({read(content).inputs[0].name: values})
    c99_build.check(content, rounding, samples=samples)


def _floats() -> bytes:
    """Every float kernel."""
    g = Graph(11)

    def values(*shape: int) -> int:
        return g.constant(g.random.normal(size=shape), "float32")

    def add(name: str, inputs: list[int], shape: tuple[int, ...], kind: str = "", **options: object) -> int:
        out = g.tensor(shape, "float32")
        g.operator(name, inputs, [out], kind, **options)
        return out

    window = {"padding": SAME, "strideH": 1, "strideW": 1}
    pool = {"padding": SAME, "strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3}
    x = g.tensor((1, 8, 6, 3), "float32")
    y = add(
        "CONV_2D", [x, values(4, 3, 3, 3), values(4)], (1, 8, 6, 4), "Conv2DOptions",
        fusedActivationFunction=RELU6, **window,
    )  # fmt: skip
    kind = "DepthwiseConv2DOptions"
    y = add("DEPTHWISE_CONV_2D", [y, values(1, 3, 2, 4), values(4)], (1, 8, 6, 4), kind, depthMultiplier=1, **window)
    a = add("AVERAGE_POOL_2D", [y], (1, 4, 3, 4), "Pool2DOptions", **pool)
    b = add("MAX_POOL_2D", [y], (1, 4, 3, 4), "Pool2DOptions", **pool)
    c = add("ADD", [a, b], (1, 4, 3, 4), "AddOptions")
    c = add("SUB", [c, values(4)], (1, 4, 3, 4), "SubOptions")
    c = add("MUL", [c, values(1, 3, 1)], (1, 4, 3, 4), "MulOptions", fusedActivationFunction=RELU)
    c = add("TANH", [c], (1, 4, 3, 4))
    c = add("HARD_SWISH", [c], (1, 4, 3, 4), "HardSwishOptions")
    c = add("LEAKY_RELU", [add("SUB", [c, a], (1, 4, 3, 4), "SubOptions")], (1, 4, 3, 4), "LeakyReluOptions", alpha=0.2)
    c = add("LOGISTIC", [c], (1, 4, 3, 4))
    upper = add("RESIZE_BILINEAR", [c, g.constant([7, 5])], (1, 7, 5, 4), "ResizeBilinearOptions")
    inputs = [g.constant([1, 9, 7, 2]), values(2, 3, 3, 4), c]
    wide = add("TRANSPOSE_CONV", inputs, (1, 9, 7, 2), "TransposeConvOptions", padding=VALID, strideH=2, strideW=2)
    wide = add("RELU6", [add("RELU", [wide], (1, 9, 7, 2))], (1, 9, 7, 2))
    m = add("MEAN", [c, g.constant([1, 2])], (1, 4), "ReducerOptions")
    d = add("FULLY_CONNECTED", [m, values(5, 4), values(5)], (1, 5), "FullyConnectedOptions")
    d = add("SOFTMAX", [d], (1, 5), "SoftmaxOptions", beta=1.0)
    return g.build([x], [d, upper, wide])


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
def test_floats_are_those_of_the_runtime(rounding: str) -> None:
    c99_build.check(_floats(), rounding)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
@pytest.mark.parametrize("name", ["int8", "float32", "int8-float-io", "two"])
def test_converted_models(name: str, rounding: str) -> None:
    c99_build.check(runtime_models.models()[name].read_bytes(), rounding)


@pytest.mark.parametrize("name", ["kws_ref_model", "ad01_int8"])
def test_benchmark_models_in_less_memory_than_tflm(name: str, shared: Path) -> None:
    file = shared / "models" / f"{name}.tflite"
    for rounding in c99.ROUNDINGS:
        library = c99_build.check(file.read_bytes(), rounding)
    # Inputs and outputs alone, and what TFLM's tensor arena takes.
    largest = {"kws_ref_model": 25 * 5 * 64, "ad01_int8": 640}[name]
    arena = workers.shared("tflite_micro").call("edgeopt.runtimes.tflm:minimum_arena", file)
    assert largest < library.arena_bytes <= 1.2 * largest < arena.used
    assert max(p.offset + p.size_bytes for p in library.plan) == library.arena_bytes


_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["conv", "depthwise", "pool", "add", "lookup", "pad", "concatenate"]),
        st.integers(1, 9),
        st.integers(1, 3),
        st.integers(1, 2),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_OPERATIONS, st.integers(3, 9), st.integers(3, 9), st.integers(1, 6))
def test_random_graphs(operations: list[tuple[str, int, int, int, bool]], height: int, width: int, depth: int) -> None:
    _check_random(operations, height, width, depth)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(_OPERATIONS, st.integers(3, 12), st.integers(3, 12), st.integers(1, 9))
def test_many_random_graphs(
    operations: list[tuple[str, int, int, int, bool]], height: int, width: int, depth: int
) -> None:
    _check_random(operations, height, width, depth)


def _check_random(operations: list[tuple[str, int, int, int, bool]], height: int, width: int, depth: int) -> None:
    g = Graph(sum(operation[1] for operation in operations))
    x = y = g.tensor((1, height, width, depth), scale=0.05, zero=-7)
    for operation in operations:
        y = _append(g, y, *operation)
    content = g.build([x], [y])
    for rounding in c99.ROUNDINGS:
        c99_build.check(content, rounding, count=2)


def _append(g: Graph, x: int, operation: str, number: int, taps: int, stride: int, same: bool) -> int:
    _, height, width, depth = g.shape(x)
    taps = min(taps, height, width)
    padding = SAME if same else VALID
    sizes = [-(-n // stride) if same else -(-(n - taps + 1) // stride) for n in (height, width)]
    window = {"padding": padding, "strideH": stride, "strideW": stride}
    scale, zero = g.scale(x), -7
    like = {"scale": scale, "zero": zero}
    if operation == "conv":
        return g.weighted(
            "CONV_2D", x, (number, taps, taps, depth), (1, *sizes, number), axis=0, kind="Conv2DOptions",
            scale=scale * 1.5, zero=zero, fusedActivationFunction=number % 2, **window,
        )  # fmt: skip
    if operation == "depthwise":
        return g.weighted(
            "DEPTHWISE_CONV_2D", x, (1, taps, taps, depth), (1, *sizes, depth), axis=3, kind="DepthwiseConv2DOptions",
            scale=scale, zero=zero, depthMultiplier=1, **window,
        )  # fmt: skip
    if operation == "pool":
        out = g.tensor((1, *sizes, depth), **like)
        name = "MAX_POOL_2D" if number % 2 else "AVERAGE_POOL_2D"
        g.operator(name, [x], [out], "Pool2DOptions", version=2, filterHeight=taps, filterWidth=taps, **window)
    elif operation == "add":
        out = g.tensor((1, height, width, depth), scale=scale * 1.3, zero=zero)
        g.operator("ADD", [x, x], [out], "AddOptions", version=2)
    elif operation == "lookup":
        out = g.tensor((1, height, width, depth), **like)
        g.operator("LEAKY_RELU", [x], [out], "LeakyReluOptions", version=2, alpha=0.25)
    elif operation == "pad":
        out = g.tensor((1, height + 2, width + 1, depth), **like)
        g.operator("PAD", [x, g.constant([[0, 0], [1, 1], [0, 1], [0, 0]])], [out], "PadOptions", version=2)
    else:
        out = g.tensor((1, height, width, 2 * depth), **like)
        g.operator("CONCATENATION", [x, x], [out], "ConcatenationOptions", version=2, axis=3)
    return out


def test_in_place_layers_need_hardly_more_than_one_tensor() -> None:
    """Twelve layers of 16 x 8 x 24 bytes each, where two tensors side by side would be twice that."""
    g = Graph(12)
    x = y = g.tensor((1, 16, 8, 24))
    for i in range(6):
        kind = {"kind": "DepthwiseConv2DOptions", "axis": 3, "depthMultiplier": 1}
        window = {"padding": SAME, "strideH": 1, "strideW": 1, "scale": 0.05}
        y = g.weighted("DEPTHWISE_CONV_2D", y, (1, 3, 3, 24), (1, 16, 8, 24), **kind, **window)
        y = g.weighted("CONV_2D", y, (24, 1, 1, 24), (1, 16, 8, 24), axis=0, kind="Conv2DOptions", **window)
        z = g.tensor((1, 16, 8, 24))
        g.operator("LEAKY_RELU", [y], [z], "LeakyReluOptions", version=2, alpha=0.1 + i / 10)
        y = z
    library = c99_build.check(g.build([x], [y]), "tflm")
    tensor, row, scratch = 16 * 8 * 24, 8 * 24, 4 * 24
    assert library.arena_bytes <= tensor + 2 * row + scratch


def test_only_the_kernels_in_use_and_math_where_it_is_needed() -> None:
    body = _generated(_dense(False)).files["src/net.c"]
    assert "static void fully_connected_s8(" in body
    assert "conv_2d" not in body
    assert "math.h" not in body
    assert "math.h" in _generated(_floats()).files["src/net.c"]
    assert not re.search(r"\b(malloc|free|printf|double)\b", body)


def test_the_header_says_what_the_model_is(tmp_path: Path) -> None:
    library = _generated(_edges())
    assert (library.inputs[0].dtype, library.outputs[0].shape) == ("float32", (1, 5))
    assert library.operators == ("QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE")
    header = library.files["include/net.h"]
    for line in ("NET_INPUT_0_TYPE float", "NET_INPUT_0_SIZE 6", f"NET_INPUT_0_BYTES {6 * 4}", "NET_OUTPUTS 1"):
        assert f"#define {line}\n" in header
    header = _generated(_pools()).files["include/net.h"]
    assert "#define NET_INPUT_0_SCALE 0.05000000074505806f\n#define NET_INPUT_0_ZERO_POINT (-3)\n" in header
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler here: install g++")
    (tmp_path / "net.h").write_text(header)
    (tmp_path / "main.cpp").write_text(
        '#include "net.h"\nint main() { net_invoke(); return *(const char *)net_output(0); }'
    )
    command = [compiler, "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "main.cpp"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0


def test_names_in_the_file_cannot_break_out_of_comments() -> None:
    content = rewrite.changed(_dense(False), _with_a_hostile_name)
    library = _generated(content)
    c99_build.run(library, c99_build.random_samples(content, 1))
    assert all('"evil"' not in text for text in library.files.values())


def _with_a_hostile_name(model: Any, schema: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.name = '*/ #include "evil" \\\n%s ??/'


def _generated(content: bytes, rounding: str = "tflm") -> c99.Library:
    return c99.generate(read(content), name="net", rounding=rounding)


def test_what_it_refuses() -> None:
    model = read(_dense(False))
    with pytest.raises(ConfigError, match=r"Expected a rounding of tflm, xnnpack, got 'cmsis'\. Try --rounding tflm"):
        c99.generate(model, name="net", rounding="cmsis")
    with pytest.raises(ConfigError, match="Expected an identifier of C in lower case, got 'My Net'"):
        c99.generate(model, name="My Net")
    g = Graph()
    x, y, z = g.tensor((2, 8)), g.tensor((2, 8), scale=0.3), g.tensor((2, 8), scale=0.3)
    g.operator("CUMSUM", [x, g.constant(1)], [y], "CumsumOptions")
    g.operator("LOGISTIC", [y], [z])
    content = g.build([x], [z])
    reasons = ("CUMSUM", "LOGISTIC to another scale than 0.00390625 and zero point than -128")
    assert c99.unsupported(read(content)) == reasons
    assert c99.unsupported(model) == ()
    with pytest.raises(
        ModelError, match=r"operators that the C99 engine has, got CUMSUM; LOGISTIC.*Try --runtime tflm"
    ):
        c99.generate(read(content), name="net")


def _float16() -> bytes:
    g = Graph(15)
    x, y = g.tensor((1, 8), "float32"), g.tensor((1, 4), "float32")
    weights = g.tensor((4, 8), "float32")
    g.operator("DEQUANTIZE", [g.constant(g.random.normal(size=(4, 8)), "float16")], [weights])
    g.operator("FULLY_CONNECTED", [x, weights, -1], [y], "FullyConnectedOptions")
    return g.build([x], [y])


def test_float16_weights_become_float32() -> None:
    library = c99_build.check(_float16(), "xnnpack")
    assert library.weights_bytes == 4 * (4 * 8 + 4)
    assert library.operators == ("FULLY_CONNECTED",)


def _without_a_scale(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((1, 8), scale=())
    g.operator("RELU", [x], [y])
    return [x], [y]


def _unscaled_weights(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((1, 4))
    weights = g.tensor((4, 8), values=np.ones((4, 8)), scale=())
    g.operator("FULLY_CONNECTED", [x, weights, -1], [y], "FullyConnectedOptions")
    return [x], [y]


def _unscaled_transposed(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 5, 5, 3)), g.tensor((1, 7, 7, 4))
    weights = g.tensor((4, 3, 3, 3), values=np.ones((4, 3, 3, 3)), scale=())
    g.operator("TRANSPOSE_CONV", [g.constant([1, 7, 7, 4]), weights, x], [y], "TransposeConvOptions", **_WINDOW)
    return [x], [y]


def _empty(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((8,))
    g.operator("RESHAPE", [x, g.constant([8])], [y])
    return [x], [y]


def test_options_that_kernels_need() -> None:
    first, *_, last = read(_convolutions()).main.operators
    assert first.options == {
        "padding": "SAME",
        "stride_h": 2,
        "stride_w": 2,
        "fused_activation_function": "NONE",
        "dilation_h_factor": 1,
        "dilation_w_factor": 1,
    }
    assert (last.options["dilation_h_factor"], last.options["fused_activation_function"]) == (2, "RELU6")

    def damage(model: Any, schema: Any) -> None:
        model.subgraphs[0].operators[0].builtinOptions.padding = 7

    with pytest.raises(ModelError, match=r"truncated or corrupt \(Conv2DOptions has the unknown padding 7\)"):
        read(rewrite.changed(_convolutions(), damage))


def _dynamic(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8), "float32"), g.tensor((1, 4), "float32")
    weights = g.tensor((4, 8), values=np.ones((4, 8), np.int8))
    g.operator("FULLY_CONNECTED", [x, weights, -1], [y], "FullyConnectedOptions", version=3)
    return [x], [y]


def _sixteen(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8), "int16"), g.tensor((1, 8), "int16")
    g.operator("RELU", [x], [y])
    return [x], [y]


def _grouped(g: Graph) -> tuple[list[int], list[int]]:
    x = g.tensor((1, 4, 4, 6))
    options = {"axis": 0, "kind": "Conv2DOptions", "padding": SAME, "strideH": 1, "strideW": 1}
    return [x], [g.weighted("CONV_2D", x, (4, 3, 3, 3), (1, 4, 4, 4), **options)]


def _batched(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((2, 4, 4, 3)), g.tensor((2, 2, 2, 3))
    options = {"padding": VALID, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    g.operator("MAX_POOL_2D", [x], [y], "Pool2DOptions", **options)
    return [x], [y]


def _rescaled(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((1, 16), scale=0.3)
    g.operator("CONCATENATION", [x, x], [y], "ConcatenationOptions", axis=1)
    return [x], [y]


def _computed_weights(g: Graph) -> tuple[list[int], list[int]]:
    x, w, y = g.tensor((1, 8)), g.tensor((4, 8)), g.tensor((1, 4))
    g.operator("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    return [x, w], [y]


def _fused(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    g.operator("ADD", [x, x], [y], "AddOptions", fusedActivationFunction=4)
    return [x], [y]


def _one(name: str, operands: list[Any], result: Any, kind: str = "", **options: Any) -> Callable[[Graph], Any]:
    """A graph of one operator; operands are shapes of int8, (shape, dtype, keywords), or arrays of constants."""

    def build(g: Graph) -> tuple[list[int], list[int]]:
        def tensor(what: Any) -> int:
            if isinstance(what, np.ndarray):
                return g.constant(what, what.dtype.name) if what.dtype != np.int8 else g.tensor(what.shape, values=what)
            return g.tensor(what[0], what[1], **what[2]) if isinstance(what[0], tuple) else g.tensor(what)

        inputs, output = [tensor(operand) for operand in operands], tensor(result)
        g.operator(name, inputs, [output], kind, **options)
        computed = [i for i in inputs if not g.is_constant(i)]
        return computed, [output]

    return build


_INTS = np.array([0], np.int32)
_WINDOW = {"padding": VALID, "strideH": 1, "strideW": 1}
_FLOAT8 = ((1, 8), "float32", {})
_ONES = np.ones((4, 3, 3, 3), np.int8)
_ASKEW = {"values": np.ones((4, 8), np.int8), "scale": np.ones(4), "zero": 7}
_FORMS: list[tuple[Callable[[Graph], Any], str]] = [
    (
        _one("CONV_2D", [(1, 5, 5, 3), _ONES], (1, 9, 3, 4), "Conv2DOptions", **_WINDOW),
        "CONV_2D with 9 outputs where 3 are",
    ),
    (_one("CONV_2D", [(1, 5, 5, 3), _ONES], (1, 3, 3, 9), "Conv2DOptions", **_WINDOW), "CONV_2D with 4 channels into"),
    (
        _one("CONV_2D", [(1, 5, 5, 3), _ONES], (1, 3, 3, 4), "Conv2DOptions", padding=VALID, strideW=1),
        "CONV_2D (operator 0) with stride_h 0",
    ),
    (
        _one("CONV_2D", [(1, 5, 5, 3), _ONES, np.ones(3, np.int32)], (1, 3, 3, 4), "Conv2DOptions", **_WINDOW),
        "CONV_2D with 3 biases for 4 channels",
    ),
    (
        _one("CONV_2D", [(1, 5, 5, 3), _ONES.astype(np.float32)], (1, 3, 3, 4), "Conv2DOptions", **_WINDOW),
        "CONV_2D with float32 weights for int8 activations",
    ),
    (
        _one("CONV_2D", [(1, 5, 5, 3), _ONES[0]], (1, 3, 3, 4), "Conv2DOptions", **_WINDOW),
        "CONV_2D (operator 0) with weights [3, 3, 3]",
    ),
    (
        _one("DEPTHWISE_CONV_2D", [(1, 5, 5, 2), _ONES[:1]], (1, 3, 3, 3), "DepthwiseConv2DOptions", **_WINDOW),
        "DEPTHWISE_CONV_2D with weights [1, 3, 3, 3] for 2 channels",
    ),
    (
        _one("FULLY_CONNECTED", [(1, 8), np.ones((4, 8), np.int8)], (1, 5), "FullyConnectedOptions"),
        "FULLY_CONNECTED with weights [4, 8] from [1, 8] to [1, 5]",
    ),
    (
        _one("FULLY_CONNECTED", [(1, 8), np.ones((4, 8), np.int8)], (1, 4), "FullyConnectedOptions", weightsFormat=1),
        "FULLY_CONNECTED with shuffled weights",
    ),
    (_one("LOGISTIC", [(1, 8)], (1, 9)), "LOGISTIC to another scale"),
    (_one("RELU", [(1, 8)], (1, 9)), "RELU with [1, 8] into [1, 9]"),
    (_one("QUANTIZE", [((1, 8), "int32", {})], (1, 8), "QuantizeOptions"), "QUANTIZE from int32 to int8"),
    (_one("DEQUANTIZE", [((1, 8), "int16", {})], _FLOAT8, "DequantizeOptions"), "DEQUANTIZE from int16 to float32"),
    (_one("RESHAPE", [(1, 8), _INTS], (1, 9)), "RESHAPE from [1, 8] to [1, 9]"),
    (_one("ADD", [(1, 8), (1, 7)], (1, 8), "AddOptions"), "ADD with [1, 7] for [1, 8]"),
    (_one("ADD", [(1, 8), _FLOAT8], (1, 8), "AddOptions"), "ADD of int8 and float32"),
    (
        _one("ADD", [(1, 8), (1, 8)], ((1, 8), "int8", {"scale": 1e-8}), "AddOptions"),
        "ADD with scales 0.05 and 0.05, too large for its output's 1e-08",
    ),
    (
        _one("RELU6", [(1, 8)], ((1, 8), "int8", {"zero": 3})),
        "RELU6 to another scale, which TensorFlow Lite Micro does",
    ),
    (
        _one("FULLY_CONNECTED", [(1, 8), ((4, 8), "int8", _ASKEW)], (1, 4), "FullyConnectedOptions"),
        "FULLY_CONNECTED with weights whose zero points are [7] instead of 0",
    ),
    (
        _one("MUL", [(2, 3, 2, 3, 2), (1, 3, 1, 3, 1)], (2, 3, 2, 3, 2), "MulOptions"),
        "MUL broadcast over more than four",
    ),
    (
        _one("MEAN", [(1, 4, 3, 2), np.array([1, 3], np.int32)], (1, 3), "ReducerOptions"),
        "MEAN over the dimensions [1, 3]",
    ),
    (_one("MEAN", [(1, 4, 3, 2), np.array([1, 2], np.int32)], (1, 3), "ReducerOptions"), "MEAN with 3 results"),
    (
        _one("CONCATENATION", [(1, 8)], (1, 8), "ConcatenationOptions", axis=1, fusedActivationFunction=RELU),
        "CONCATENATION fused with RELU",
    ),
    (
        _one("CONCATENATION", [(1, 8), (1, 8)], (1, 9), "ConcatenationOptions", axis=1),
        "CONCATENATION with elements outside",
    ),
    (
        _one("SLICE", [(1, 8), np.array([0, 6], np.int32), np.array([1, 4], np.int32)], (1, 4), "SliceOptions"),
        "SLICE with elements outside of [1, 8]",
    ),
    (
        _one("STRIDED_SLICE", [(8,), _INTS, _INTS + 4, _INTS + 1], (4,), "StridedSliceOptions", ellipsisMask=1),
        "STRIDED_SLICE with an ellipsis",
    ),
    (
        _one("STRIDED_SLICE", [(8,), _INTS, _INTS + 4, _INTS + 1], (5,), "StridedSliceOptions"),
        "STRIDED_SLICE of [4] into [5]",
    ),
    (
        _one("TRANSPOSE", [(2, 2, 2, 2, 2, 2), np.array([5, 4, 3, 2, 1, 0], np.int32)], (2,) * 6, "TransposeOptions"),
        "moves of 6 dimensions",
    ),
    (
        _one("TRANSPOSE_CONV", [_INTS, _ONES, (1, 5, 5, 3)], (1, 7, 7, 4), "TransposeConvOptions", padding=VALID),
        "TRANSPOSE_CONV (operator 0) with stride_h 0",
    ),
    (
        _one("TRANSPOSE_CONV", [_INTS, _ONES, (1, 5, 5, 6)], (1, 7, 7, 4), "TransposeConvOptions", **_WINDOW),
        "TRANSPOSE_CONV in groups",
    ),
    (
        _one(
            "TRANSPOSE_CONV",
            [_INTS, _ONES.astype(np.float32), (1, 5, 5, 3)],
            (1, 7, 7, 4),
            "TransposeConvOptions",
            **_WINDOW,
        ),
        "TRANSPOSE_CONV from int8 to int8 with float32 weights",
    ),
    (_one("PAD", [(1, 8)], (1, 9), "PadOptions"), "PAD (operator 0) with the operands [0]"),
]


@pytest.mark.parametrize(("build", "reason"), _FORMS, ids=[reason for _, reason in _FORMS])
def test_shapes_and_forms_without_a_kernel(build: Callable[[Graph], Any], reason: str) -> None:
    g = Graph()
    model = read(g.build(*build(g)))
    with pytest.raises(ModelError, match=re.escape(f"got {reason}")):
        c99.generate(model, name="net")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_dynamic, "FULLY_CONNECTED with int8 weights for float32 activations (dynamic range)"),
        (_sixteen, "RELU from int16 to int16"),
        (_grouped, "CONV_2D in 2 groups"),
        (_batched, "MAX_POOL_2D on shape [2, 4, 4, 3]: images in a batch of one are expected"),
        (_rescaled, "CONCATENATION from int8 to int8 of another scale"),
        (_computed_weights, "FULLY_CONNECTED with operand 1 computed instead of constant"),
        (_fused, "ADD fused with TANH"),
        (_empty, "a graph that computes nothing"),
        (_without_a_scale, "the int8 tensor 't1' without a scale"),
        (_unscaled_weights, "FULLY_CONNECTED with weights that have no scale"),
        (_unscaled_transposed, "TRANSPOSE_CONV with weights that have no scale"),
    ],
)
def test_forms_that_it_refuses(build: Callable[[Graph], tuple[list[int], list[int]]], reason: str) -> None:
    g = Graph()
    model = read(g.build(*build(g)))
    assert c99.unsupported(model) == (reason,)
    with pytest.raises(ModelError, match=re.escape(reason)):
        c99.generate(model, name="net")


def test_variables_are_refused() -> None:
    content = rewrite.changed(_dense(False), _with_a_variable)
    assert c99.unsupported(read(content)) == ("variable tensors, which keep their values between runs",)


def _with_a_variable(model: Any, schema: Any) -> None:
    model.subgraphs[0].tensors[-1].isVariable = True


@pytest.mark.parametrize("core", ["m3", "m4", "m55"])
def test_the_kernels_of_each_core(core: str, tmp_path: Path) -> None:
    """M3 has the portable code, M4 the DSP extension, M55 Helium: all give the same integers."""
    row = runtimes.RUNTIMES[f"qemu-cortex-{core}"]
    if not runtimes.module(row).version():
        pytest.skip(f"not installed: {qemu.INSTALL}")
    for graph in ("convolutions", "depthwise", "dense per channel", "pools"):
        content = GRAPHS[graph]()
        file = tmp_path / "model.tflite"
        file.write_bytes(content)
        session = runtimes.open_session(file, row)
        samples = c99_build.random_samples(content, 2)
        for sample, wanted in zip(samples, c99_build.expected(content, samples, "tflm")):
            got = session.run(sample)
            for name, value in wanted.items():
                np.testing.assert_array_equal(got[name], value, err_msg=f"{graph}, {name}")
        session.close()


def test_a_plan_that_collides_is_caught() -> None:
    buffers = [Buffer(0, 64, -1, 1), Buffer(1, 64, 0, 2)]
    assert memory.prove(buffers, {0: 0, 1: 64}) == 128
    with pytest.raises(Overlap, match="overlap at 0 and 60"):
        memory.prove(buffers, {0: 0, 1: 60})
    rows = np.arange(8)
    # Output row i reads the input rows i - 1 to i + 1 of 8 bytes.
    trace = Trace(8, 8, np.maximum(rows - 1, 0), np.minimum(rows + 1, 7))
    sharing = Sharing(1, 0, 1, trace)
    buffers = [Buffer(0, 64, 0, 1), Buffer(1, 64, 1, 2)]
    assert (trace.ahead, trace.behind) == (16, 16)
    assert memory.prove(buffers, {0: 16, 1: 0}, [sharing]) == 80
    assert memory.prove(buffers, {0: 0, 1: 16}, [sharing]) == 80
    for offsets in ({0: 8, 1: 0}, {0: 0, 1: 8}, {0: 0, 1: 0}):
        with pytest.raises(Overlap):
            memory.prove(buffers, offsets, [sharing])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.integers(-1, 12), st.integers(0, 5)), min_size=1, max_size=16))
def test_plans_do_not_collide_and_waste_little(lives: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(key, size, first, first + length) for key, (size, first, length) in enumerate(lives)]
    peak = memory.prove(buffers, memory.plan(buffers))
    bound = memory.lower_bound(buffers)
    assert bound <= peak <= 1.3 * bound + memory.ALIGNMENT * len(buffers)
