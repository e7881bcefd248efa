"""Few bits a weight, without training: ways to choose the integers, on trained models.

    python -m bench.low_bits --model resnet8=models/resnet8.keras=cifar10.npz

Each model is converted to float32 and int8 once, with 512 calibration samples. The weights of its layers are then
rounded to 4, 3 and 2 bits, by the largest of each channel (min-max), with the scale of least error (nearest), and by
what layers compute (gptq, adaround) or blocks (brecq); a file of ai-edge-quantizer stands beside them. All are scored
by `edgeopt evaluate` on the test split. Finished rows are kept in bench/results/low-bits.json, and `--page` writes them
into docs/low-bits.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import data as datasets
from edgeopt import files, formats
from edgeopt.data import Part
from edgeopt.rounding.walk import Settings, output_error, round_file, split, stored_in
from edgeopt.tflite.pairing import pair_weights

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "low-bits.json"
PAGE = ROOT / "docs" / "low-bits.md"
MADE = ROOT / "build" / "low-bits"
SAMPLES = 512
METHODS = ("min-max", "nearest", "gptq", "adaround", "brecq")
INNER, ALL = "all but first and last", "every layer"
OTHER = "ai-edge-quantizer"
_BLOCK = "python -m bench.low_bits"


def main() -> None:
    """Makes and scores what is missing, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.low_bits", description=__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE=DATA")
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 3, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--iterations", type=int, default=1000, help="of adaround and brecq")
    parser.add_argument("--page", action="store_true", help="write the table")
    said = parser.parse_args()
    MADE.mkdir(parents=True, exist_ok=True)
    for text in said.model:
        name, model, data = text.split("=")
        for key in _keys(name, said):
            known = common.kept_rows(RESULTS)
            if not any(all(row[field] == value for field, value in key.items()) for row in known):
                row = {**key, **_row(key, Path(model), Path(data), said)}
                print(row, flush=True)
                common.keep_rows(RESULTS, [*known, row])
    if said.page:
        _write_page()


def _keys(name: str, said: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for scheme in ("float32", "int8"):
        yield {"model": name, "bits": 32 if scheme == "float32" else 8, "layers": ALL, "how": "min-max"}
    for bits in said.bits:
        for layers in (INNER, ALL):
            for how in said.methods:
                yield {"model": name, "bits": bits, "layers": layers, "how": how}
        if bits == 4:
            yield {"model": name, "bits": bits, "layers": ALL, "how": OTHER}


def _row(key: Mapping[str, Any], model: Path, data: Path, said: argparse.Namespace) -> dict[str, Any]:
    """Makes one file and returns what was measured of it."""
    floating, quantized = (_converted(key["model"], model, data, scheme) for scheme in ("float32", "int8"))
    samples = datasets.bind(
        datasets.load(data, calibration_samples=SAMPLES), formats.facts(floating).inputs
    ).calibration
    start = time.perf_counter()
    content = _made(key, floating, quantized, samples, said.iterations)
    seconds = time.perf_counter() - start
    file = MADE / f"{key['model']}.tflite"
    file.write_bytes(content)
    scored = subprocess.run(
        [*common.EDGEOPT, "evaluate", str(file), "--data", str(data), "--json"], check=True, capture_output=True
    )
    _, held = split(samples, seed=0)
    return {
        "score": json.loads(scored.stdout)["metric"],
        "size_bytes": len(content),
        "output_error": output_error(floating.read_bytes(), content, held),
        "seconds": seconds,
    }


def _made(key: Mapping[str, Any], floating: Path, quantized: Path, samples: Part, iterations: int) -> bytes:
    real, stored = floating.read_bytes(), quantized.read_bytes()
    if key["bits"] >= 8:
        return real if key["bits"] == 32 else stored
    if key["how"] == OTHER:
        return _others(floating, samples)
    names = [pair.name for pair in pair_weights(real, stored).pairs]
    chosen = names if key["layers"] == ALL else names[1:-1]
    lowered = stored_in(real, stored, dict.fromkeys(chosen, key["bits"]))
    if key["how"] == "min-max":
        return lowered
    return round_file(real, lowered, samples, Settings(key["how"], iterations), chosen=chosen).content


def _others(floating: Path, samples: Part) -> bytes:
    """Returns what ai-edge-quantizer makes: int4 weights where its static quantization has them, int8 elsewhere."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    work = quantizer.Quantizer(str(floating))
    work.add_static_config(".*", Operation.ALL_SUPPORTED, 8, 8)
    for operation in (Operation.CONV_2D, Operation.FULLY_CONNECTED):
        work.add_static_config(".*", operation, 8, 4)
    (signature,) = {one.key for one in formats.tflite.read_once(floating).signatures}
    batches = [dict(batch.inputs) for batch in samples.batches(1)]
    return bytes(work.quantize(work.calibrate({signature: batches}, num_threads=2)).quantized_model)


def _converted(name: str, model: Path, data: Path, scheme: str) -> Path:
    file = MADE / f"{name}.{scheme}.tflite"
    if not file.exists():
        command = [*common.EDGEOPT, "convert", str(model), "--data", str(data), "--scheme", scheme, "-o", str(file)]
        subprocess.run([*command, "--calibration-samples", str(SAMPLES)], check=True, capture_output=True)
    return file


def _write_page() -> None:
    """Puts the tables between the markers of the page."""
    rows = common.kept_rows(RESULTS)
    parts: list[str] = []
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        float_row = next(row for row in own if row["bits"] == 32)
        score = float_row["score"]
        told = (
            f"**{name}**, float32: {score['value']:.2%} ({score['low']:.2%} to {score['high']:.2%}) on "
            f"{score['samples']:,} samples. Points lost against it; in brackets the error of the outputs as a share "
            "of their variance, on calibration samples that nothing was fitted on."
        )
        parts += [textwrap.fill(told, 120), _table(own, score["value"])]
    page = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, "\n\n".join(parts))
    files.atomic_write(PAGE, page)


def _table(rows: list[dict[str, Any]], reference: float) -> str:
    columns = [*METHODS, OTHER]
    found: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["bits"] < 32:
            found.setdefault((row["bits"], row["layers"]), {})[row["how"]] = row
    lines = []
    for (bits, layers), by_how in found.items():
        sizes = [row["size_bytes"] for how, row in by_how.items() if how != OTHER]
        cells = [_cell(by_how.get(how), reference) for how in columns]
        lines.append([str(bits), layers, f"{sizes[0]:,}", *cells])
    return common.markdown(["bits", "layers", "bytes", *columns], lines)


def _cell(row: Mapping[str, Any] | None, reference: float) -> str:
    if row is None:
        return ""
    return f"{(reference - row['score']['value']) * 100:.2f} ({row['output_error']:.2%})"


if __name__ == "__main__":
    main()
