"""Every technique on trained teachers beside a tfmot script of the same training budget (`bench/by_hand.py`).

    python -m bench.compression --teacher ds_cnn=models/ds_cnn_fsdd.keras=fsdd_logmel.npz --augment spectrogram \\
        --epochs 10 --seeds 0 1 2

Each row is trained once a seed, by us and by hand, for as many epochs; both files are int8 and scored by the same
command on the same test split. Finished runs are kept in bench/results/compression.json, and the same command goes on
where it was stopped. `--time` times all files of a model in turns; `--page` writes docs/compression-results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import common
from edgeopt import files, machine

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "compression.json"
PAGE = ROOT / "docs" / "compression-results.md"
MADE = ROOT / "build" / "compression"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        steps: as a recipe spells them.
        by_hand: arguments of bench/by_hand.py; None where tfmot has no such thing.
        scheme: of the file that we make.
    """

    steps: tuple[Mapping[str, Any], ...]
    by_hand: tuple[str, ...] | None
    scheme: str = "int8"


ROWS: dict[str, Row] = {
    "int8 after training": Row((), None),
    "prune 50 %": Row(({"prune": {"sparsity": 0.5}},), ("prune", "--sparsity", "0.5")),
    "prune 80 %": Row(({"prune": {"sparsity": 0.8, "by_sensitivity": True}},), ("prune", "--sparsity", "0.8")),
    "cluster 16": Row(({"cluster": {"clusters": 16}},), ("cluster", "--clusters", "16")),
    # The rates that trials begin at, and not what they choose.
    "prune 80 % at 0.002": Row(({"prune": {"sparsity": 0.8, "by_sensitivity": True, "learning_rate": 2e-3}},), None),
    "cluster 16 at 0.001": Row(({"cluster": {"clusters": 16, "learning_rate": 1e-3}},), None),
    "QAT": Row(({"qat": {}},), ("qat",)),
    # Fine-tuning as the script does it: what QAT gains there is not int8's, but that of more epochs.
    "QAT on labels": Row(({"qat": {"augment": "none", "teacher": "none"}},), None),
    "PQAT 50 %": Row(({"prune": {"sparsity": 0.5}}, {"qat": {}}), ("pqat", "--sparsity", "0.5")),
    "CQAT 16": Row(({"cluster": {"clusters": 16}}, {"qat": {}}), ("cqat", "--clusters", "16")),
    "PCQAT 50 %, 16": Row(
        ({"prune": {"sparsity": 0.5}}, {"cluster": {"clusters": 16}}, {"qat": {}}),
        ("pcqat", "--sparsity", "0.5", "--clusters", "16"),
    ),
    "binary": Row(({"cluster": {"clusters": 2, "per_channel": True, "symmetric": True}},), None, "int4"),
    "ternary": Row(({"cluster": {"clusters": 3, "per_channel": True, "symmetric": True}},), None, "int4"),
    "int4 after training": Row((), None, "int4"),
    "QAT, 4 bits": Row(({"qat": {"weight_bits": 4}},), None, "int4"),
    "QAT, 3 bits": Row(({"qat": {"weight_bits": 3}},), None, "int3"),
    "QAT, 2 bits": Row(({"qat": {"weight_bits": 2}},), None, "int2"),
    "student of half the width, 30 epochs": Row(
        ({"distill": {"width": 0.5, "epochs": 30}},), ("student", "--width", "0.5", "--epochs", "30")
    ),
    # FitNets: the middle of a network with residual blocks imitates its teacher's.
    "the same with a hint": Row(({"distill": {"width": 0.5, "epochs": 30, "hints": {"add_1": "add_1"}}},), None),
    "half the MACs, float32": Row(({"shrink": {"macs": 0.5}},), None, "float32"),
    "half the MACs": Row(({"shrink": {"macs": 0.5}},), None),
    "half the MACs, 60 epochs": Row(({"shrink": {"macs": 0.5, "rounds": 3, "epochs": 60}},), None),
    # The last epochs on samples as they are, and on their labels.
    "half the MACs, 60 epochs, then QAT": Row(
        (
            {"shrink": {"macs": 0.5, "rounds": 3, "epochs": 60}},
            {"qat": {"augment": "none", "teacher": "none"}},
        ),
        None,
    ),
    # What int8 weights may take of a file that is a tenth of a float32 one: the graph is 9 KB of it.
    "a tenth of the bytes, 14 epochs": Row(({"shrink": {"bytes": 0.28, "epochs": 14}},), None),
    # A tenth of the bytes and a quarter of the time where weights are most of the file.
    "a quarter of the MACs, 60 epochs": Row(
        ({"shrink": {"macs": 0.24, "rounds": 3, "units": ["channels", "blocks"], "epochs": 60}},), None
    ),
}


def main() -> None:
    """Runs what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", metavar="NAME=MODEL=DATA")
    parser.add_argument("--augment", default="none")
    parser.add_argument("--epochs", type=int, default=10, help="of each step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--how", choices=["ours", "by hand", "both"], default="both")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--page", action="store_true")
    said = parser.parse_args()
    if said.teacher:
        name, model, data = said.teacher.split("=")
        run(name, Path(model), Path(data), said)
    if said.time:
        measure_times()
    if said.page:
        files.atomic_write(PAGE, page())


def run(name: str, model: Path, data: Path, said: argparse.Namespace) -> None:
    """Trains and measures every row that is not there yet, and the teacher itself."""
    MADE.mkdir(parents=True, exist_ok=True)
    for key in _keys(name, said):
        if any(all(result[k] == v for k, v in key.items()) for result in common.kept_rows(RESULTS)):
            continue
        output = MADE / _file_name(key)
        output.unlink(missing_ok=True)
        start = time.perf_counter()
        made = _teacher(model, output) if key["row"] == "teacher" else _made(key, model, data, output, said)
        seconds = time.perf_counter() - start
        result = {**key, "epochs": said.epochs, "augment": said.augment, "teacher": model.name, "data": data.name}
        result |= {"seconds": seconds, **made}
        if output.exists():
            result |= _measured(output, data, made)
        # Read anew: two teachers may be run at the same time.
        common.keep_rows(RESULTS, [*common.kept_rows(RESULTS), result])
        print(json.dumps(result), flush=True)


def measure_times() -> None:
    """Times all files of each model in turns, so that they meet the same machine."""
    known, described = common.kept_rows(RESULTS), machine.describe().describe()
    for name in dict.fromkeys(result["model"] for result in known):
        made = [r for r in known if r["model"] == name and (MADE / _file_name(r)).exists()]
        if not made:
            continue
        table = common.edgeopt("benchmark", *(str(MADE / _file_name(result)) for result in made))
        for result, row in zip(made, table["rows"]):
            result["latency_ms"] = row["result"]["latency_ms"]["p50"]
            result["timed_on"] = described
    common.keep_rows(RESULTS, known)


def _file_name(key: Mapping[str, Any]) -> str:
    return f"{key['model']}-{key['row']}-{key['how']}-{key['seed']}.tflite".replace(" ", "_").replace("%", "")


def _keys(name: str, said: argparse.Namespace) -> Iterator[dict[str, Any]]:
    yield {"model": name, "row": "teacher", "how": "ours", "seed": 0}
    for seed in said.seeds:
        for title in said.rows:
            row = ROWS[title]
            if seed and not row.steps:
                continue
            if said.how != "by hand":
                yield {"model": name, "row": title, "how": "ours", "seed": seed}
            if row.by_hand and said.how != "ours":
                yield {"model": name, "row": title, "how": "by hand", "seed": seed}


def _teacher(model: Path, output: Path) -> dict[str, Any]:
    subprocess.run([*common.EDGEOPT, "convert", str(model), "-o", str(output)], check=True, capture_output=True)
    return {}


def _made(key: Mapping[str, Any], model: Path, data: Path, output: Path, said: argparse.Namespace) -> dict[str, Any]:
    """Makes one file and returns what its maker said of it; a script that died leaves its last words."""
    row = ROWS[key["row"]]
    # Rows whose steps begin alike train them once.
    alike = next(title for title, other in ROWS.items() if other.steps[:1] == row.steps[:1])
    work = (MADE / _file_name({**key, "row": alike})).with_suffix("")
    if key["how"] == "ours":
        job = {"model": str(model), "data": str(data), "output": str(output), "work": str(work), "steps": row.steps}
        job |= {"scheme": row.scheme, "epochs": said.epochs, "augment": said.augment, "seed": key["seed"]}
        command = [sys.executable, "-m", "bench.ours", json.dumps(job)]
    else:
        assert row.by_hand is not None
        options = ["--epochs", str(said.epochs), "--seed", str(key["seed"]), "--work", str(work)]
        inputs = [row.by_hand[0], str(_keras2(model)), str(data), str(output), *options, *row.by_hand[1:]]
        command = [sys.executable, "-m", "bench.by_hand", *inputs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    words = done.stdout.strip().splitlines()
    found: dict[str, Any] = json.loads(words[-1]) if words else {}
    return found


def _keras2(model: Path) -> Path:
    """Returns the teacher as the Keras 2 file that the tutorials start from."""
    path = model.with_suffix(".h5")
    if not path.exists():
        from edgeopt.loading import load_model

        load_model(model).keras.save(path)
    return path


def _measured(file: Path, data: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Returns score, sizes and sparsity of a file, as the commands print them."""
    score = common.edgeopt("evaluate", str(file), "--data", str(data), *common.scaled(made))
    inside = common.edgeopt("inspect", str(file))
    return {
        "metric": score["metric"],
        "size_bytes": inside["size_bytes"],
        "gzip_bytes": inside["gzip_bytes"],
        "macs": inside["macs"],
        "sparsity": inside["sparsity"],
    }


def page() -> str:
    """Returns docs/compression-results.md from the finished runs."""
    known = common.kept_rows(RESULTS)
    parts = [
        "# Compression, measured",
        "<!-- Written by `python -m bench.compression --page` from bench/results/compression.json. -->",
        "Every technique on models trained with `models/`, beside a tfmot script that follows the tutorials and trains "
        "for as many epochs (`bench/by_hand.py`). Scores are those of the `.tflite` on LiteRT, on the data set's own "
        "test split; several numbers are several seeds. Points lost are against the float32 teacher. Latency is the "
        "median on LiteRT, one thread; the files of one model were timed in turns. A file whose step broke a promise "
        "is shown as it was trained: `optimize` goes on with the one before it.",
    ]
    for name in dict.fromkeys(result["model"] for result in known):
        parts += _section([result for result in known if result["model"] == name])
    return "\n\n".join(parts) + "\n"


def _section(results: list[dict[str, Any]]) -> list[str]:
    teacher = next(result for result in results if result["row"] == "teacher")
    metric = teacher["metric"]
    epochs, augment = (statistics.mode(result[key] for result in results) for key in ("epochs", "augment"))
    timed = f", {teacher['latency_ms']:.3f} ms" if "latency_ms" in teacher else ""
    intro = (
        f"Teacher `{teacher['teacher']}`: {metric['value']:.2%} ({metric['low']:.2%} to {metric['high']:.2%}, "
        f"{metric['samples']:,} samples), {teacher['size_bytes']:,} bytes in float32, {teacher['macs']:,} MACs{timed}. "
        f"{epochs} epochs a step where the row says no other number; ours with `--augment {augment}`"
    )
    if any(result["how"] == "by hand" for result in results):
        intro += ", by hand on the samples as they are, as the tutorials do"
    intro += f". Timed on {teacher['timed_on']}." if timed else ". Not timed."
    rows = []
    for title in ROWS:
        for how in ("ours", "by hand"):
            found = [r for r in results if r["row"] == title and r["how"] == how]
            if found:
                rows.append([title if how == "ours" else "", how, *_cells(found, teacher)])
    header = ["", "", "accuracy, %", "points lost", "bytes", "gzip", "smaller", "zeros", "ms", "faster"]
    return [f"## {teacher['teacher']} on {teacher['data']}", intro, common.markdown(header, rows)]


def _cells(results: list[dict[str, Any]], teacher: Mapping[str, Any]) -> list[str]:
    done = [r for r in results if "metric" in r]
    if not done:
        return [f"failed: {results[0]['error']}", *[""] * 7]
    values = [r["metric"]["value"] for r in done]
    lost = teacher["metric"]["value"] - statistics.mean(values)
    median = {key: statistics.median(r[key] for r in done) for key in ("size_bytes", "gzip_bytes")}
    times = [r["latency_ms"] for r in done if "latency_ms" in r]
    latency = statistics.median(times) if times and "latency_ms" in teacher else None
    cells = [
        " ".join(f"{value * 100:.2f}" for value in values),
        f"{lost * 100:.2f}",
        f"{median['size_bytes']:,.0f}",
        f"{median['gzip_bytes']:,.0f}",
        f"{teacher['size_bytes'] / median['size_bytes']:.1f} times",
        f"{statistics.median(r['sparsity'] for r in done):.1%}",
        "" if latency is None else f"{latency:.3f}",
        "" if latency is None else f"{teacher['latency_ms'] / latency:.1f} times",
    ]
    broken = [why for r in done for why in r.get("broken", ())]
    if broken:
        cells[1] += f" (promise broken: {broken[0]})"
    return cells


if __name__ == "__main__":
    main()
