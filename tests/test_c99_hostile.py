"""A `.tflite` is somebody else's file: whatever it holds, the C99 engine refuses it in words or writes sound C."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c99_build
import numpy as np
import pytest
import test_c99
import test_c99_packing
import test_c99_rounding
import tflite_mutations
from c99_graphs import Graph

from edgeopt import c99
from edgeopt.c99 import checking
from edgeopt.c99.operators import OPERATORS
from edgeopt.errors import EdgeoptError, ModelError
from edgeopt.exporters import streaming
from edgeopt.exporters.android import notes
from edgeopt.exporters.contract import Source
from edgeopt.tflite import interface, metadata, rewrite
from edgeopt.tflite.reader import read

SAME, VALID = 0, 1


def _files() -> list[bytes]:
    graphs = [build() for build in test_c99.GRAPHS.values()]
    return [
        *graphs,
        test_c99._floats(),
        test_c99._float16(),
        *map(test_c99_rounding._content, test_c99_rounding.GROUPS),
        *_narrow(),
    ]


def _narrow() -> list[bytes]:
    """Weights of 4, 2 and 3 bits."""
    kinds = (("int4", "int4"), ("int2", "int2"), ("8 of each", "int8"))
    return [test_c99_packing._network(kind, dtype) for kind, dtype in kinds]


def _drive(files: list[bytes], count: int, seed: int) -> int:
    """Reads, lowers and writes as many damaged files; returns how many libraries came out."""
    made, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, content in enumerate(tflite_mutations.mutations(files, count, seed)):
        started = time.process_time()
        try:
            model = read(content)
            for rounding in c99.ROUNDINGS:
                c99.generate(model, name="net", rounding=rounding, pack=c99.PACKS[number % 3])
                made += 1
        except EdgeoptError:
            pass
        assert time.process_time() - started < 10, f"file {number} of seed {seed}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    return made


def test_damaged_files() -> None:
    assert _drive(_files(), 500, seed=1) > 10


def test_damaged_files_of_few_bits() -> None:
    assert _drive(_narrow(), 400, seed=5) > 10


def test_damaged_files_in_an_android_project() -> None:
    """What is read of a file and written around it, up to where a runtime, in a process of its own, runs it."""
    made = 0
    for content in tflite_mutations.mutations(_files(), 250, seed=4):
        try:
            model = read(content)
            source = Source(Path("net.tflite"), content, model, "net")
            streaming.remembers(source, streaming=False)
            assert read(metadata.with_note(content, notes.note(source, model)[0])).metadata
            interface.with_static_shapes(content)
            for dtype in ("float32", "uint8"):
                interface.with_interface(content, dtype)
            made += 1
        except EdgeoptError:
            pass
    assert made > 10


@pytest.mark.slow
def test_many_damaged_files() -> None:
    assert _drive(_files(), 6_000, seed=2) > 300


@pytest.mark.slow
def test_what_is_written_of_damaged_files_stays_in_its_memory() -> None:
    ran = 0
    for number, content in enumerate(tflite_mutations.mutations(_files(), 600, seed=3)):
        try:
            library = c99.generate(read(content), name="net", rounding=c99.ROUNDINGS[number % 2])
        except EdgeoptError:
            continue
        c99_build.run(library, c99_build.random_samples(content, 2))
        ran += 1
    assert ran > 10


_SCALAR: tuple[tuple[int, ...], str, dict[str, Any]] = ((), "int8", {})
_INTS = np.array([0], np.int32)
_WEIGHTS = np.ones((4, 3, 3, 3), np.int8)
_WINDOW = {"padding": VALID, "strideH": 1, "strideW": 1}
_POOL = {**_WINDOW, "filterHeight": 2, "filterWidth": 2}
_one = test_c99._one


def _scaled(scale: float, zero: int = 0) -> tuple[tuple[int, ...], str, dict[str, Any]]:
    return (1, 8), "int8", {"scale": scale, "zero": zero}


def _each(number: int) -> tuple[tuple[int, ...], str, dict[str, Any]]:
    return (1, 8), "int8", {"scale": np.full(number, 0.05), "axis": 1}


def _twice(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    for _ in range(2):
        g.operator("RELU", [x], [y])
    return [x], [y]


def _early(g: Graph) -> tuple[list[int], list[int]]:
    x, y, z = (g.tensor((1, 8)) for _ in range(3))
    g.operator("ADD", [x, z], [y], "AddOptions")
    g.operator("RELU", [y], [z])
    return [x], [z]


def _uncomputed(g: Graph) -> tuple[list[int], list[int]]:
    x, y, z = (g.tensor((1, 8)) for _ in range(3))
    g.operator("RELU", [x], [y])
    return [x], [y, z]


def _constant_input(g: Graph) -> tuple[list[int], list[int]]:
    x, y = g.tensor((1, 8), values=np.ones((1, 8))), g.tensor((1, 8))
    g.operator("RELU", [x], [y])
    return [x], [y]


def _long(g: Graph) -> tuple[list[int], list[int]]:
    x = y = g.tensor((1, 8))
    for _ in range(2001):
        z = g.tensor((1, 8))
        g.operator("RELU", [y], [z])
        y = z
    return [x], [y]


def _halves(g: Graph, *results: tuple[int, ...]) -> tuple[list[int], list[int]]:
    x = g.tensor((1, 8))
    outputs = [g.tensor(shape) for shape in results]
    g.operator("SPLIT", [g.constant(1), x], outputs, "SplitOptions", numSplits=2)
    return [x], outputs


def _uneven(g: Graph, *, axis: int) -> tuple[list[int], list[int]]:
    x, outputs = g.tensor((1, 8)), [g.tensor((1, 5)), g.tensor((1, 4))]
    g.operator("SPLIT_V", [x, g.constant([5, 4]), g.constant(axis)], outputs, "SplitVOptions", numSplits=2)
    return [x], outputs


def _packed(g: Graph) -> tuple[list[int], list[int]]:
    x, shape = g.tensor((1, 8)), g.tensor((2,), "int32", scale=0.0)
    g.operator("PACK", [g.constant([1, 8])], [shape], "PackOptions", valuesCount=1)
    y = g.tensor((1, 8))
    g.operator("RESHAPE", [x, shape], [y])
    return [x], [y]


CONTRADICTIONS: dict[str, Callable[[Graph], Any]] = {
    "the tensor 't0' of shape [0, 8], without elements": _one("SOFTMAX", [(0, 8)], (0, 8), "SoftmaxOptions", beta=1.0),
    "SOFTMAX (operator 0) with the shape []": _one("SOFTMAX", [_SCALAR], _SCALAR, "SoftmaxOptions", beta=1.0),
    "SOFTMAX (operator 0) with beta nan": _one("SOFTMAX", [(1, 8)], (1, 8), "SoftmaxOptions", beta=float("nan")),
    "SOFTMAX with beta 1 of values of scale 1e-10": _one(
        "SOFTMAX", [_scaled(1e-10)], _scaled(1 / 256, -128), "SoftmaxOptions", beta=1.0
    ),
    "LEAKY_RELU (operator 0) with alpha inf": _one(
        "LEAKY_RELU", [(1, 8)], (1, 8), "LeakyReluOptions", alpha=float("inf")
    ),
    "CONCATENATION (operator 0) with the shape []": _one(
        "CONCATENATION", [_SCALAR, _SCALAR], _SCALAR, "ConcatenationOptions"
    ),
    "CONCATENATION (operator 0) with [8] for [1, 8]": _one("CONCATENATION", [(8,)], (1, 8), "ConcatenationOptions"),
    "CONCATENATION (operator 0) with the axis 5 of [1, 8]": _one(
        "CONCATENATION", [(1, 8)], (1, 8), "ConcatenationOptions", axis=5
    ),
    "MEAN (operator 0) with the axis 0 of []": _one("MEAN", [_SCALAR, _INTS], _SCALAR, "ReducerOptions"),
    "MEAN (operator 0) with the axis 7 of [1, 8]": _one("MEAN", [(1, 8), _INTS + 7], (1, 8), "ReducerOptions"),
    "TRANSPOSE (operator 0) with the order [0, 9] of [2, 4]": _one(
        "TRANSPOSE", [(2, 4), np.array([0, 9], np.int32)], (4, 2), "TransposeOptions"
    ),
    "MAX_POOL_2D (operator 0) with stride_h 0": _one(
        "MAX_POOL_2D", [(1, 4, 4, 1)], (1, 3, 3, 1), "Pool2DOptions", **{**_POOL, "strideH": 0}
    ),
    "AVERAGE_POOL_2D (operator 0) with filter_width 100000": _one(
        "AVERAGE_POOL_2D", [(1, 4, 4, 1)], (1, 3, 3, 1), "Pool2DOptions", **{**_POOL, "filterWidth": 10**5}
    ),
    "PAD (operator 0) with [1, 2] as operand 1 of [1, 8]": _one(
        "PAD", [(1, 8), np.array([[1, 2]], np.int32)], (1, 8), "PadOptions"
    ),
    "PAD (operator 0) with padding [0, 0, 0, 1] from [1, 8] to [1, 12]": _one(
        "PAD", [(1, 8), np.array([[0, 0], [0, 1]], np.int32)], (1, 12), "PadOptions"
    ),
    "PAD (operator 0) with float32 as operand 1": _one(
        "PAD", [(1, 8), np.zeros((2, 2), np.float32)], (1, 8), "PadOptions"
    ),
    "PADV2 (operator 0) with the int8 value 't2' of shape [2] to fill with": _one(
        "PADV2", [(1, 8), np.array([[0, 0], [0, 1]], np.int32), np.ones(2, np.int8)], (1, 9), "PadV2Options"
    ),
    "SLICE (operator 0) with [0] as operand 1 of [1, 8]": _one(
        "SLICE", [(1, 8), _INTS, _INTS + 1], (1, 4), "SliceOptions"
    ),
    "SPLIT (operator 0) with [8] of [1, 8]": lambda g: _halves(g, (8,), (1, 4)),
    "SPLIT_V (operator 0) with the axis 2 of [1, 8]": lambda g: _uneven(g, axis=2),
    "SPLIT_V with elements outside of [1, 8]": lambda g: _uneven(g, axis=1),
    "STRIDED_SLICE (operator 0) with operand 1 [1] for []": _one(
        "STRIDED_SLICE", [_SCALAR, _INTS, _INTS, _INTS], (1,), "StridedSliceOptions"
    ),
    "STRIDED_SLICE (operator 0) with stride 0": _one(
        "STRIDED_SLICE", [(8,), _INTS, _INTS + 4, _INTS], (4,), "StridedSliceOptions"
    ),
    "STRIDED_SLICE (operator 0) with bounds of different lengths": _one(
        "STRIDED_SLICE", [(8, 8), _INTS, np.ones(2, np.int32), _INTS + 1], (1, 8), "StridedSliceOptions"
    ),
    "RESIZE_BILINEAR (operator 0) with the result [1, 100000, 1, 1]": _one(
        "RESIZE_BILINEAR", [(1, 4, 4, 1), np.array([10**5, 1], np.int32)], (1, 10**5, 1, 1), "ResizeBilinearOptions"
    ),
    "CONV_2D (operator 0) with weights [1, 40000, 1, 1], more than 32,767 along a side": _one(
        "CONV_2D", [(1, 5, 5, 1), np.ones((1, 40000, 1, 1), np.int8)], (1, 3, 3, 1), "Conv2DOptions", **_WINDOW
    ),
    "CONV_2D (operator 0) with weights with scales along dimension 3 instead of 0": _one(
        "CONV_2D",
        [(1, 5, 5, 3), ((4, 3, 3, 3), "int8", {"values": _WEIGHTS, "scale": np.ones(3), "axis": 3})],
        (1, 3, 3, 4),
        "Conv2DOptions",
        **_WINDOW,
    ),
    "the tensor 't0' with the scale 0": _one("RELU", [_scaled(0.0)], (1, 8)),
    "the tensor 't0' with the scale nan": _one("RELU", [_scaled(float("nan"))], (1, 8)),
    "the tensor 't1' with the scale -1": _one("RELU", [(1, 8)], _scaled(-1.0)),
    "the tensor 't1' with the scale inf": _one("RELU", [(1, 8)], _scaled(float("inf"))),
    "scales whose product over the output's is 1.09951e+12": _one("RELU", [_scaled(1.0)], _scaled(2.0**-40)),
    "HARD_SWISH from scale 0.05 to 0.0001": _one("HARD_SWISH", [(1, 8)], _scaled(0.0001), "HardSwishOptions"),
    "the computed tensor 't0' with a scale per channel": _one("RELU", [_each(8)], (1, 8)),
    "the int8 tensor 't0' with the zero point 300": _one("RELU", [_scaled(0.05, 300)], (1, 8)),
    "the tensor 't0' of shape [1, 2000000000], larger than 268,435,456 bytes": _one(
        "RELU", [(1, 2 * 10**9)], (1, 2 * 10**9)
    ),
    "the tensor 't0' of shape [1, 1, 1, 1, 1, 1, 1, 1, 1], of more than 8": _one("RELU", [(1,) * 9], (1,) * 9),
    "RELU (operator 1) that computes 't1' once more": _twice,
    "ADD (operator 0) that reads 't2' too early": _early,
    "the output 't2', which nothing computes": _uncomputed,
    "the constant 't0' as an input": _constant_input,
    "2001 operators, more than 2000": _long,
    "ADD (operator 0) with the operands [0]": _one("ADD", [(1, 8)], (1, 8), "AddOptions"),
    "RELU (operator 0) with 2 results": lambda g: _results(g, "RELU", 2),
    "SHAPE with 3 sizes of [1, 8]": _one("SHAPE", [(1, 8)], ((3,), "int32", {"scale": 0.0}), "ShapeOptions"),
    "SHAPE to int8": _one("SHAPE", [(1, 8)], (2,), "ShapeOptions"),
    "PACK with parts that are no numbers": _packed,
    "CONV_2D (operator 0) with float32 biases": _one(
        "CONV_2D", [(1, 5, 5, 3), _WEIGHTS, np.ones(4, np.float32)], (1, 3, 3, 4), "Conv2DOptions", **_WINDOW
    ),
}


def _results(g: Graph, name: str, count: int) -> tuple[list[int], list[int]]:
    x = g.tensor((1, 8))
    outputs = [g.tensor((1, 8)) for _ in range(count)]
    g.operator(name, [x], outputs)
    return [x], outputs


def test_every_operator_is_checked() -> None:
    assert set(checking.FORMS) == set(OPERATORS)


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_what_a_file_contradicts_is_said(words: str) -> None:
    g = Graph()
    model = read(g.build(*CONTRADICTIONS[words](g)))
    with pytest.raises(ModelError, match=re.escape(words)):
        c99.generate(model, name="net")


def test_constants_with_a_scale_per_channel_are_weights_alone() -> None:
    g = Graph()
    x, y = g.tensor((1, 8)), g.tensor((1, 8))
    constant = g.tensor((1, 8), values=np.ones((1, 8)), scale=np.full(8, 0.05), axis=1)
    g.operator("ADD", [x, constant], [y], "AddOptions")
    with pytest.raises(ModelError, match="the int8 tensor 't2' with a scale per channel"):
        c99.generate(read(g.build([x], [y])), name="net")


def test_more_than_int32_can_address() -> None:
    g = Graph()
    inputs = [g.tensor((1, 1 << 28)) for _ in range(9)]
    shares = [g.tensor((1, 1 << 25)) for _ in range(9)]
    pool = {**_POOL, "filterHeight": 1, "filterWidth": 8, "strideW": 8}
    for x, share in zip(inputs, shares):
        image, small = g.tensor((1, 1, 1 << 28, 1)), g.tensor((1, 1, 1 << 25, 1))
        g.operator("RESHAPE", [x], [image])
        g.operator("MAX_POOL_2D", [image], [small], "Pool2DOptions", **pool)
        g.operator("RESHAPE", [small], [share])
    with pytest.raises(ModelError, match=r"2 GiB at once, or less, got [\d,]+ bytes at MAX_POOL_2D"):
        c99.generate(read(g.build(inputs, shares)), name="net")


def test_damaged_files_are_rewritten_or_refused() -> None:
    """Among them one whose second graph has no tensors."""
    damaged = list(tflite_mutations.mutations(_files()[:3], 120, seed=4))
    for content in (rewrite.changed(_files()[0], _without_tensors), *damaged):
        for change in (rewrite.with_truthful_versions, rewrite.normalized, rewrite.compact):
            try:
                change(content)
            except EdgeoptError:
                continue


def _without_tensors(model: Any, schema: Any) -> None:
    model.subgraphs.append(schema.SubGraphT())
