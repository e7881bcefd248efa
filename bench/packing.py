"""Packed weights in exported C99 beside 8 bits: instructions on two cores, bytes of flash and RAM.

    python -m bench.packing DS-CNN=ds_cnn.int8.tflite --page

Single layers are made here; of the files that are named, the weights are rounded to fewer values, but for those of the
first, the last and the depthwise layers: what that does to accuracy is not the question here. All is measured as
`edgeopt benchmark` measures it, with what the export packs by itself. `--page` writes docs/packing-results.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgeopt
from bench import common
from edgeopt import files, frameworks
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import StoredWeights, layers, stored_weights, with_weights

PAGE = Path(__file__).parents[1] / "docs" / "packing-results.md"
CORES = ("cortex-m4", "cortex-m55")
KINDS = ("8 bits", "int4", "int2", "16 clusters", "8 clusters", "binary")


def main() -> None:
    """Prints the table, and writes the page where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=FILE", help="int8 .tflite files")
    parser.add_argument("--page", action="store_true")
    said = parser.parse_args()
    given = {name: Path(file).read_bytes() for name, _, file in (model.partition("=") for model in said.models)}
    rows = [row for name, content in {**single_layers(), **given}.items() for row in measured(name, content)]
    header = ["layer or model", "weights", *(f"{c.removeprefix('cortex-').upper()} instructions" for c in CORES)]
    table = common.markdown([*header, "weights bytes (M4)", "RAM bytes (M4)"], rows)
    print(table)
    if said.page:
        files.atomic_write(PAGE, page(table))


def single_layers() -> dict[str, bytes]:
    """Returns int8 files of one layer each, by name."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(1)
    made = {
        "3x3, 64 to 64, 8x8": ((8, 8, 64), keras.layers.Conv2D(64, 3, padding="same"), "int8"),
        "1x1, 64 to 64, 8x8": ((8, 8, 64), keras.layers.Conv2D(64, 1), "int8"),
        "depthwise 3x3, 64, 8x8": ((8, 8, 64), keras.layers.DepthwiseConv2D(3, padding="same"), "int8"),
        "dense, 256 to 64": ((256,), keras.layers.Dense(64), "int8"),
        "dense, 256 to 64, one scale": ((256,), keras.layers.Dense(64), "int8-per-tensor"),
    }
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        for number, (name, (shape, layer, scheme)) in enumerate(made.items()):
            x = np.random.default_rng(number).normal(size=(64, *shape)).astype(np.float32)
            file = Path(folder) / f"{number}.tflite"
            model = keras.Sequential([keras.layers.Input(shape), layer])
            targets = np.zeros((64, *model.output_shape[1:]), np.float32)
            edgeopt.convert(model, file, scheme=scheme, data=edgeopt.load_data((x, targets)))
            found[name] = file.read_bytes()
    return found


def measured(name: str, content: bytes) -> list[list[str]]:
    """Returns the rows of one model, instructions with their ratio to those of 8 bits."""
    rows, plain = [], {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            file = Path(folder) / "model.tflite"
            file.write_bytes(variant(content, kind))
            taken = footprints(file)
        plain = plain or {core: taken[core]["instructions"] for core in CORES}
        cells = [f"{taken[c]['instructions']:,} ({taken[c]['instructions'] / plain[c]:.2f})" for c in CORES]
        one = taken[CORES[0]]
        rows.append([name, kind, *cells, f"{one['weights_bytes']:,}", f"{one['ram_bytes']:,}"])
    return rows


def footprints(file: Path) -> Mapping[str, Any]:
    """Returns what a file takes on each core."""
    runtimes = [f"--runtime=qemu-{core}" for core in CORES]
    rows = common.edgeopt("benchmark", str(file), *runtimes)["rows"]
    return {r["result"]["footprint"]["core"]: r["result"]["footprint"] for r in rows}


def variant(content: bytes, kind: str) -> bytes:
    """Returns the file with weights of that kind where it computes most."""
    model = read(content)
    found = layers(model)
    inner = [layer for layer in found[1:-1] if layer.operator.name != "DEPTHWISE_CONV_2D"] or found
    changed = {}
    for layer in inner:
        stored = stored_weights(model, layer)
        if stored is not None and kind != "8 bits":
            changed[layer.weight.index] = rounded(stored, kind, layer.axis)
    return with_weights(content, changed) if changed else content


def rounded(stored: StoredWeights, kind: str, axis: int) -> StoredWeights:
    """Returns weights of few values, spread over those that there are; each channel's own where it has its scale."""
    rows = np.moveaxis(stored.dequantized, axis, 0)
    flat = rows.reshape(len(rows) if len(stored.scales) > 1 else 1, -1)
    largest = np.maximum(np.abs(flat).max(axis=1), 1e-9)[:, None]
    if kind in ("int4", "int2"):
        bits = int(kind[-1])
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scales = largest / max(high, 2)
        values = np.clip(np.rint(flat / scales), low, high)
    else:
        bits, scales = 8, largest / 127
        values = np.rint(flat / scales)
        count = 2 if kind == "binary" else int(kind.partition(" ")[0])
        books = np.rint(np.quantile(values, (np.arange(count) + 0.5) / count, axis=1)).T
        books = np.tile([-127, 127], (len(flat), 1)) if kind == "binary" else books
        nearest = np.abs(values[:, :, None] - books[:, None, :]).argmin(axis=2)
        values = np.take_along_axis(books, nearest, axis=1)
    integers = np.moveaxis(values.astype(np.int8).reshape(rows.shape), 0, axis)
    return replace(
        stored,
        values=integers,
        scales=scales[:, 0].astype(np.float32),
        bits=bits,
        axis=axis if len(scales) > 1 else None,
    )


def page(table: str) -> str:
    """Returns docs/packing-results.md."""
    return f"""# Packed weights, measured

<!-- Written by `python -m bench.packing NAME=FILE … --page`. -->

What `edgeopt export micro --runtime c99` makes of weights of few distinct values, beside the same layers with 8 bits:
instructions of one inference in QEMU, in brackets as a share of those with 8 bits, and bytes. RAM is all static memory
and the deepest stack. Of whole models the first, the last and the depthwise layers keep 8 bits. Instructions are not
cycles: on a Cortex-M55 the loads that gather words from several places take longer than others.

{table}

int4, int2 and binary weights lie on a grid and are computed with as they are. Clusters are looked up in a codebook, a
block of channels at a time for many pixels. In a dense layer a weight serves one product only: where all units have one
codebook, as they have with one scale for the layer, it is looked up in pairs; where each has its own, that would take
more than 1.3 times the instructions of the model, and the export leaves the layer as it is unless `--pack always` is
given.
"""


if __name__ == "__main__":
    main()
