"""Weights of few distinct values: what is stored of them, that outputs stay the same, and what it takes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import c99_build
import numpy as np
import pytest
from c99_graphs import Graph

from edgeopt import c99, runtimes
from edgeopt.c99 import packing
from edgeopt.c99.memory import Trace
from edgeopt.errors import ConfigError
from edgeopt.runtimes import Session, qemu
from edgeopt.tflite.reader import read

SAME, VALID = 0, 1
RELU = 1


def _chosen(random: np.random.Generator, kind: str, shape: tuple[int, ...], *, axis: int = 0) -> np.ndarray:
    """Weights of a kind: "int4" and "int2" have every value of the type; "8 of each" are 8 values in each channel."""
    sets = {"int8": range(-127, 128), "int4": range(-8, 8), "int2": range(-2, 2), "ternary": (-90, 0, 90)}
    sets["3 bits"] = range(-4, 4)
    if kind in sets:
        return random.choice(list(sets[kind]), shape)
    if kind == "binary":
        return random.choice([-127, 127], shape)
    count, _, scope = kind.partition(" of ")
    rows = shape[axis]
    books = np.stack([random.choice(np.arange(-127, 128), int(count), replace=False) for _ in range(rows)])
    if scope == "all":
        books[:] = books[0]
    codes = np.moveaxis(random.integers(0, int(count), shape), axis, 0)
    return np.moveaxis(np.stack([book[code] for book, code in zip(books, codes)]), 0, axis)


@functools.cache
def _network(kind: str, dtype: str = "int8", dense_dtype: str = "") -> bytes:
    """Every kernel with weights: 27, 90 and 60 taps, odd channels and widths, in place and not, a depthwise one."""
    g = Graph(13)
    stored: dict[str, Any] = {"dtype": dtype}
    x = g.tensor((1, 9, 7, 3), zero=-5)
    conv = {"axis": 0, "kind": "Conv2DOptions", "strideH": 1, "strideW": 1, **stored}
    y = g.weighted(
        "CONV_2D", x, (10, 3, 3, 3), (1, 9, 7, 10), values=_chosen(g.random, kind, (10, 3, 3, 3)), padding=SAME,
        scale=0.3, **conv,
    )  # fmt: skip
    y = g.weighted(
        "CONV_2D", y, (60, 3, 3, 10), (1, 9, 7, 60), values=_chosen(g.random, kind, (60, 3, 3, 10)), padding=SAME,
        scale=0.3, fusedActivationFunction=RELU, zero=-128, **conv,
    )  # fmt: skip
    y = g.weighted(
        "DEPTHWISE_CONV_2D", y, (1, 3, 3, 60), (1, 5, 4, 60), values=_chosen(g.random, kind, (1, 3, 3, 60), axis=3),
        padding=SAME, axis=3, kind="DepthwiseConv2DOptions", strideH=2, strideW=2, depthMultiplier=1, scale=0.2,
        **stored,
    )  # fmt: skip
    y = g.weighted(
        "CONV_2D", y, (33, 1, 1, 60), (1, 5, 4, 33), values=_chosen(g.random, kind, (33, 1, 1, 60)), padding=VALID,
        scale=0.2, **conv,
    )  # fmt: skip
    flat = g.tensor((1, 660), scale=0.2, zero=3)
    g.operator("RESHAPE", [y, g.constant([1, 660])], [flat])
    y = g.weighted(
        "FULLY_CONNECTED", flat, (7, 660), (1, 7), values=_chosen(g.random, kind, (7, 660)), axis=0,
        kind="FullyConnectedOptions", version=4, scale=0.8, dtype=dense_dtype or dtype, per_channel=False,
    )  # fmt: skip
    return g.build([x], [y])


KINDS = ("int4", "int2", "ternary", "binary", "16 of each", "8 of each", "3 of all")
# Bits and whether on a grid, of the smallest form of 36 x 90 weights.
FORMS: dict[str, tuple[int, bool]] = {
    "int4": (4, True),
    "int2": (2, True),
    "ternary": (2, True),
    "binary": (1, True),
    "16 of each": (4, False),
    "8 of each": (3, False),
    "3 of all": (2, False),
}


def _taps(indices: np.ndarray, bits: int, taps: int) -> np.ndarray:
    """Reads rows of words as `kernels/packed.c` says: bits f * bits … of byte k are of tap 4 * f + k of a word."""
    words = indices.reshape(len(indices), -1, 1, 4) >> np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (words & 2**bits - 1).reshape(len(indices), -1)[:, :taps]


@pytest.mark.parametrize("kind", FORMS)
def test_the_smallest_form_holds_the_weights(kind: str) -> None:
    weights = _chosen(np.random.default_rng(1), kind, (36, 90)).astype(np.int8)
    found = packing.forms(weights)
    assert (found[0].bits, found[0].on_grid) == FORMS[kind]
    assert [form.size_bytes for form in found] == sorted(form.size_bytes for form in found)
    for form in found:
        words = {4: -(-90 // 8), 3: -(-90 // 16) + -(-90 // 32), 2: -(-90 // 16), 1: -(-90 // 32)}[form.bits]
        assert form.size_bytes == 36 * words * 4 + form.tables.size < weights.size
        if form.bits == 3:
            low = -(-90 // 16) * 4
            indices = _taps(form.indices[:, :low], 2, 90) | _taps(form.indices[:, low:], 1, 90) << 2
        else:
            indices = _taps(form.indices, form.bits, 90)
        tables = np.broadcast_to(form.tables, (36, form.tables.shape[1]))
        if form.on_grid:
            low, step = tables[:, :1].astype(int), tables[:, 1:].astype(np.uint8).astype(int)
            np.testing.assert_array_equal(low + step * indices, weights)
        else:
            np.testing.assert_array_equal(np.take_along_axis(tables, indices.astype(int), axis=1), weights)


def test_what_would_not_get_smaller_is_left() -> None:
    random = np.random.default_rng(2)
    assert packing.forms(_chosen(random, "int8", (36, 90)).astype(np.int8)) == []
    # Codebooks of 16 bytes for rows of 20 taps, whose indices are 12 bytes; one codebook for all is worth it.
    assert packing.forms(_chosen(random, "16 of each", (8, 20)).astype(np.int8)) == []
    assert [form.bits for form in packing.forms(_chosen(random, "16 of all", (8, 20)).astype(np.int8))] == [4]
    assert [form.bits for form in packing.forms(np.zeros((4, 32), np.int8))] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_runtime(kind: str) -> None:
    library = c99_build.check(_network(kind), "tflm", count=2, pack="always")
    form = FORMS[kind]
    assert {(row.bits, row.on_grid) for name, row in library.packed.items() if name == "CONV_2D (operator 1)"} == {form}


@pytest.mark.parametrize("rounding", c99.ROUNDINGS)
def test_outputs_of_int4_files_are_those_of_the_runtime(rounding: str) -> None:
    """LiteRT computes convolutions by its own kernels here, which round otherwise, and dense layers by XNNPACK's."""
    library = c99_build.check(_network("int4", "int4"), rounding, count=2)
    assert {row.bits for row in library.packed.values()} == {4}
    assert len(library.packed) == 5


@pytest.mark.parametrize(("dtype", "depth"), [("int4", 64), ("int4", 65), ("int2", 64), ("int2", 66), ("int2", 68)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_which_dense_layers_of_few_bits_xnnpack_computes(dtype: str, depth: int, per_channel: bool) -> None:
    g = Graph(3)
    x = g.tensor((1, depth), zero=-5)
    y = g.weighted(
        "FULLY_CONNECTED", x, (200, depth), (1, 200), values=_chosen(g.random, dtype, (200, depth)), axis=0,
        kind="FullyConnectedOptions", version=4, scale=0.02, dtype=dtype, per_channel=per_channel,
    )  # fmt: skip
    c99_build.check(g.build([x], [y]), "xnnpack")


def test_int2_files_compute_what_int8_files_of_their_values_do() -> None:
    """No runtime of C99's families has INT2 convolutions."""
    narrow, wide = read(_network("int2", "int2")), _network("int2")
    library = c99.generate(narrow, name="net")
    samples = c99_build.random_samples(wide, 2)
    for got, wanted in zip(c99_build.run(library, samples), c99_build.expected(wide, samples, "tflm")):
        np.testing.assert_array_equal(*(next(iter(outputs.values())) for outputs in (got, wanted)))
    assert {row.bits for row in library.packed.values()} == {2}


@contextmanager
def _on_core(content: bytes, core: str, pack: str, folder: Path) -> Iterator[Session]:
    row = runtimes.RUNTIMES[f"qemu-cortex-{core}"]
    if not runtimes.module(row).version():
        pytest.skip(f"not installed: {qemu.INSTALL}")
    file = folder / "model.tflite"
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c99, "generate", functools.partial(c99.generate, pack=pack))
        session = runtimes.open_session(file, row)
    yield session
    session.close()


@pytest.mark.parametrize("kind", ["int4", "int2", "binary", "8 of each", "3 of all", "16 of all"])
@pytest.mark.parametrize("core", ["m3", "m4", "m55"])
def test_every_core_computes_the_same(core: str, kind: str, tmp_path: Path) -> None:
    content = _network(kind)
    samples = c99_build.random_samples(content, 1)
    with _on_core(content, core, "always", tmp_path) as session:
        got = session.run(samples[0])
    for name, value in c99_build.expected(content, samples, "tflm")[0].items():
        np.testing.assert_array_equal(got[name], value)


@functools.cache
def _convolution(kind: str) -> bytes:
    """3x3 from 64 to 64 channels of 8x8 pixels."""
    g = Graph(5)
    x = g.tensor((1, 8, 8, 64), zero=-5)
    y = g.weighted(
        "CONV_2D", x, (64, 3, 3, 64), (1, 8, 8, 64), values=_chosen(g.random, kind, (64, 3, 3, 64)), axis=0,
        kind="Conv2DOptions", padding=SAME, strideH=1, strideW=1, scale=0.3,
    )  # fmt: skip
    return g.build([x], [y])


@pytest.mark.parametrize("core", ["m4", "m55"])
def test_packed_weights_take_at_most_three_tenths_more_instructions(core: str, tmp_path: Path) -> None:
    """Instructions that are counted, not timed: the same in every run."""

    def instructions(content: bytes, pack: str) -> int:
        with _on_core(content, core, pack, tmp_path) as session:
            return session.footprint(c99_build.random_samples(content, 1)[0]).instructions

    plain = instructions(_convolution("16 of each"), "never")
    for kind in ("int4", "int2", "binary", "16 of each", "8 of each"):
        assert instructions(_convolution(kind), "always") <= 1.3 * plain, kind
    plain = instructions(_dense_layer("16 of all"), "never")
    for kind in ("int4", "16 of all", "8 of all"):
        assert instructions(_dense_layer(kind), "auto") <= 1.3 * plain, kind


@functools.cache
def _dense_layer(kind: str) -> bytes:
    g = Graph(7)
    x = g.tensor((1, 256), zero=-5)
    y = g.weighted(
        "FULLY_CONNECTED", x, (64, 256), (1, 64), values=_chosen(g.random, kind, (64, 256)), axis=0,
        kind="FullyConnectedOptions", version=4, scale=0.8,
    )  # fmt: skip
    return g.build([x], [y])


def _dense(kind: str) -> bytes:
    """A convolution, and a dense layer as long to compute, whose looked up weights would serve one product each."""
    g = Graph(6)
    x = g.tensor((1, 8, 8, 16), zero=-5)
    y = g.weighted(
        "CONV_2D", x, (16, 3, 3, 16), (1, 8, 8, 16), values=_chosen(g.random, kind, (16, 3, 3, 16)), axis=0,
        kind="Conv2DOptions", padding=SAME, strideH=1, strideW=1, scale=0.3,
    )  # fmt: skip
    flat = g.tensor((1, 1024), scale=0.3, zero=3)
    g.operator("RESHAPE", [y, g.constant([1, 1024])], [flat])
    y = g.weighted(
        "FULLY_CONNECTED", flat, (64, 1024), (1, 64), values=_chosen(g.random, kind, (64, 1024)), axis=0,
        kind="FullyConnectedOptions", version=4, scale=0.8,
    )  # fmt: skip
    return g.build([x], [y])


def test_what_takes_too_long_to_look_up_is_packed_on_request_only() -> None:
    def packed(kind: str, pack: str) -> set[str]:
        return set(c99.generate(read(_dense(kind)), name="net", pack=pack).packed)

    both = {"CONV_2D (operator 0)", "FULLY_CONNECTED (operator 2)"}
    assert packed("16 of each", "auto") == {"CONV_2D (operator 0)"}
    assert packed("16 of each", "always") == packed("16 of all", "auto") == packed("int4", "auto") == both
    assert packed("int4", "never") == set()
    with pytest.raises(ConfigError, match=r"Expected pack to be one of auto, never, always, got 'yes'\. Try --pack"):
        packed("int4", "yes")


def test_dense_layers_look_no_three_bits_up() -> None:
    library = c99.generate(read(_dense("3 bits")), name="net")
    assert [(row.bits, row.on_grid) for row in library.packed.values()] == [(3, False), (4, True)]
    library = c99.generate(read(_dense("8 of all")), name="net")
    assert [(row.bits, row.on_grid) for row in library.packed.values()] == [(3, False), (4, False)]


def test_bytes_are_counted_as_they_are_stored() -> None:
    content = _network("int4", "int4")
    packed, plain = (c99.generate(read(content), name="net", pack=pack) for pack in ("always", "never"))
    # The four layers on a grid have the same low and step, which are stored once.
    saved = sum(row.saved_bytes for row in packed.packed.values()) + (4 - 1) * 2
    assert plain.weights_bytes - packed.weights_bytes == saved
    assert packed.scratch_bytes <= packed.arena_bytes


def test_rows_that_are_written_together_are_read_together() -> None:
    # Output row i reads the input rows i - 1 to i + 1, in 3 bands of 3, 3 and 2 rows.
    rows = np.arange(8)
    bands = Trace(8, 8, np.maximum(rows - 1, 0), np.minimum(rows + 1, 7)).in_bands(3)
    assert bands.output_row == 3 * 8
    np.testing.assert_array_equal(bands.first, [0, 2, 5])
    np.testing.assert_array_equal(bands.last, [3, 6, 7])
    # The second band is written over what the third still reads unless the input lies as much behind.
    assert bands.ahead == max(3 * 8 - 0, 6 * 8 - 2 * 8, 9 * 8 - 5 * 8)
