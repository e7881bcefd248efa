"""Repair without training, beside training for int8 and ai-edge-quantizer's own recipe, on trained models.

    python -m bench.repair --model DS-CNN=models/ds_cnn_fsdd.keras=fsdd_logmel.npz --qat --page

Each model is repaired in each scheme by `edgeopt repair` as it is, all steps; with `--qat` the int8 file that
`edgeopt qat` trains stands beside it. All are scored by `edgeopt evaluate` on the test split. Finished rows are kept in
bench/results/repair.json, and `--page` writes them into docs/repair.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import data as datasets
from edgeopt import files, formats

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "repair.json"
PAGE = ROOT / "docs" / "repair.md"
MADE = ROOT / "build" / "repair"
QAT, OTHER = "qat", "ai-edge-quantizer"
_BLOCK = "python -m bench.repair"


def main() -> None:
    """Makes and scores what is missing, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.repair", description=__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE=DATA")
    parser.add_argument("--scheme", nargs="+", default=["int8", "int8-per-tensor"])
    parser.add_argument("--qat", action="store_true", help="train for int8, too")
    parser.add_argument("--page", action="store_true", help="write the table")
    said = parser.parse_args()
    MADE.mkdir(parents=True, exist_ok=True)
    for text in said.model:
        name, model, data = text.split("=")
        for scheme in [*said.scheme, OTHER, *([QAT] if said.qat else [])]:
            known = common.kept_rows(RESULTS)
            if not any((row["model"], row["scheme"]) == (name, scheme) for row in known):
                rows = [{"model": name, "scheme": scheme, **row} for row in _rows(name, model, data, scheme)]
                print(*rows, sep="\n", flush=True)
                common.keep_rows(RESULTS, [*known, *rows])
    if said.page:
        text = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, table(common.kept_rows(RESULTS)))
        files.atomic_write(PAGE, text)


def _rows(name: str, model: str, data: str, scheme: str) -> Iterator[dict[str, Any]]:
    """Yields what was measured of one model in one scheme: each file that was made on the way."""
    output = MADE / f"{name}.{scheme}.tflite"
    start = time.perf_counter()
    if scheme == OTHER:
        floating = _converted(name, model, data)
        output.write_bytes(_others(floating, data))
        yield _row(OTHER, output, data, time.perf_counter() - start, floating)
    elif scheme == QAT:
        common.edgeopt("qat", model, "--data", data, "-o", str(output), "--scheme", "int8", "--force")
        yield _row(QAT, output, data, time.perf_counter() - start, _converted(name, model, data))
    else:
        made = common.edgeopt("repair", model, "--data", data, "-o", str(output), "--scheme", scheme, "--force")
        records = {record["after"]: record for record in made["steps"]}
        for variant in made["variants"][1:]:
            record = records.get(variant["name"])
            yield {
                "what": record["technique"] if record else "as converted",
                "score": variant["metric"]["value"],
                "float_score": made["variants"][0]["metric"]["value"],
                "samples": variant["metric"]["samples"],
                "output_error": made["errors"].get(variant["name"]),
                "size_bytes": variant["artifacts"][0]["size_bytes"],
                "seconds": record["seconds"] if record else 0.0,
                "kept": not (record and record["rolled_back"]),
            }


def _row(what: str, file: Path, data: str, seconds: float, floating: Path) -> dict[str, Any]:
    score, reference = (common.edgeopt("evaluate", str(one), "--data", data)["metric"] for one in (file, floating))
    return {
        "what": what,
        "score": score["value"],
        "float_score": reference["value"],
        "samples": score["samples"],
        "size_bytes": file.stat().st_size,
        "seconds": seconds,
        "kept": True,
    }


def _converted(name: str, model: str, data: str) -> Path:
    file = MADE / f"{name}.float32.tflite"
    if not file.exists():
        common.edgeopt("convert", model, "--data", data, "--scheme", "float32", "-o", str(file))
    return file


def _others(floating: Path, data: str) -> bytes:
    """Returns what ai-edge-quantizer's recipe of static int8 makes of a float file, with the same samples."""
    from ai_edge_quantizer import quantizer, recipe

    samples = datasets.bind(datasets.load(data), formats.facts(floating).inputs).calibration
    work = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8())
    (signature,) = {one.key for one in formats.tflite.read_once(floating).signatures}
    batches = [dict(batch.inputs) for batch in samples.batches(1)]
    return bytes(work.quantize(work.calibrate({signature: batches}, num_threads=2)).quantized_model)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the page: a row for each file."""
    lines = []
    for row in rows:
        error = row.get("output_error")
        lines.append(
            [
                row["model"],
                "int8" if row["scheme"] in (OTHER, QAT) else row["scheme"],
                row["what"] if row["kept"] else f"{row['what']} (dropped)",
                f"{row['score']:.2%}",
                f"{(row['float_score'] - row['score']) * 100:.2f}",
                f"{row['samples']:,}",
                "" if error is None else f"{error:.2%}",
                f"{row['size_bytes']:,}",
                f"{row['seconds']:.1f}",
            ]
        )
    header = ["model", "scheme", "file", "score", "points lost", "samples", "output error", "bytes", "s"]
    return common.markdown(header, lines)


if __name__ == "__main__":
    main()
