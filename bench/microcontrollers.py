"""Exported C99 beside what TensorFlow Lite Micro needs for the same files: instructions, flash and RAM.

    python -m bench.microcontrollers ResNet-8=resnet8.int8.tflite DS-CNN=ds_cnn.int8.tflite --page

Our figures are those of `edgeopt benchmark` on Cortex-M cores in QEMU; TFLM's arena is the smallest in which its
interpreter runs the file, found by trying, and its flash that of the model alone, as `edgeopt export micro` strips it.
TFLM's code and instructions are not here: its sources come from no package registry. `--page` writes
docs/microcontroller-results.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import common
from edgeopt import files

PAGE = Path(__file__).parents[1] / "docs" / "microcontroller-results.md"
CORES = ("cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55")
# Flash and RAM are those of one core: they hardly differ.
_CORE = "cortex-m4"


def main() -> None:
    """Prints the table, and writes the page where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE", help="int8 .tflite files")
    parser.add_argument("--page", action="store_true")
    said = parser.parse_args()
    rows = [row(*model.split("=", 1)) for model in said.models]
    cores = [f"{core.removeprefix('cortex-').upper()} instructions" for core in CORES]
    header = ["model", "MACs", *cores, "C99 code", "C99 weights", "C99 RAM", "TFLM model", "TFLM arena"]
    table = common.markdown(header, rows)
    print(table)
    if said.page:
        files.atomic_write(PAGE, page(table))


def row(name: str, file: str) -> list[str]:
    """Returns the cells of one model."""
    runtimes = [f"--runtime=qemu-{core}" for core in CORES]
    measured = {
        r["result"]["footprint"]["core"]: r["result"]["footprint"]
        for r in common.edgeopt("benchmark", file, *runtimes)["rows"]
    }
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        tflm = common.edgeopt("export", "micro", file, "-o", f"{folder}/tflm", "--runtime", "tflm")["facts"]
    macs = common.edgeopt("inspect", file)["macs"]
    one = measured[_CORE]
    cells = [macs, *(measured[core]["instructions"] for core in CORES), one["code_bytes"], one["weights_bytes"]]
    return [
        name,
        *(f"{cell:,}" for cell in (*cells, one["ram_bytes"], tflm["model_bytes"], tflm["arena_needed_bytes"])),
    ]


def page(table: str) -> str:
    """Returns docs/microcontroller-results.md."""
    return f"""# Microcontrollers, measured

<!-- Written by `python -m bench.microcontrollers NAME=FILE … --page`. -->

int8 models as plain C99 (`edgeopt export micro --runtime c99`), compiled by `arm-none-eabi-gcc -O2` and run in QEMU:
instructions of one inference, and bytes. Code, weights and RAM are those of the {_CORE}; RAM is all
static memory and the deepest stack. Beside them what TensorFlow Lite Micro needs for the same file on this machine:
the model without what no device reads, and the smallest arena in which its interpreter runs. A Cortex-M, whose pointers
are shorter, needs a little less of it; TFLM's code comes on top, and is not measured here, since no package registry
carries its sources.

{table}
"""


if __name__ == "__main__":
    main()
