"""A small language model at 4 bits: rounded to the nearest, by GPTQ, scaled by AWQ, mixed; beside others' own ways.

    python -m bench.language --model models/decoder.keras --page
    python -m bench.language --model models/decoder.keras --speeds

The script of models/ writes the model with its tokenizer and texts. Each file is scored on held-out text, and generates
from prompts of it. Finished rows are kept in bench/results/language.json; `--page` writes them into
docs/language-models.md. `--speeds` times what was made before, in turn, on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from edgeopt import data as datasets
from edgeopt import evaluation, files, machine
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.frameworks import load
from edgeopt.language.generating import Generator, open_generator
from edgeopt.language.grafting import graft
from edgeopt.language.lowering import lower
from edgeopt.loading import load_model
from edgeopt.metrics import metric
from edgeopt.rounding.walk import Settings, round_file
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import TECHNIQUES, Carried, awq, mixed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "language.json"
PAGE = ROOT / "docs" / "language-models.md"
MADE = ROOT / "build" / "language"
_BLOCK, _SPEEDS = "python -m bench.language", "python -m bench.language --speeds"
FLOAT, KERAS = "float32", "Keras' quantize"
# Held-out prompts, tokens of each, and how many are written.
PROMPTS, PROMPT, WRITTEN = 16, 32, 64
# Of the float file, at most: what `mixed` has to keep.
SHARE = 6
_ROUNDS = 9
# What a process holds more once it has opened a file and written from it.
_MEMORY = """
import sys, psutil
from pathlib import Path
from edgeopt.frameworks import load
from edgeopt.language.generating import open_generator
load("litert")
own = psutil.Process()
before = own.memory_info().rss
generator = open_generator(Path(sys.argv[1]), threads=2)
list(generator.generate([1] * 32, 64))
print(own.memory_info().rss - before)
"""


@dataclass
class Work:
    """What all rows are made of.

    Attributes:
        path: the decoder's `.keras`.
        contexts: held-out contexts that are scored.
        samples: contexts to calibrate with.
        seed: of their choice.
    """

    path: Path
    contexts: int
    samples: int
    seed: int = 0
    _lowered: dict[int, tuple[Any, bytes]] = field(default_factory=dict)
    _converted: dict[tuple[int, str], bytes] = field(default_factory=dict)
    _rounded: dict[tuple[int, int, str], bytes] = field(default_factory=dict)

    @cached_property
    def data(self) -> datasets.Dataset:
        return datasets.load(self.path.with_suffix(".npz"), calibration_samples=self.samples, seed=self.seed)

    @cached_property
    def model(self) -> Any:
        return load_model(self.path)

    @cached_property
    def scaled(self) -> Any:
        """The model after AWQ: the same one where nothing was worth scaling."""
        with tempfile.TemporaryDirectory() as folder:
            carried = Carried(Path(folder), seed=self.seed)
            step = awq.Awq(samples=self.samples)
            made, record = TECHNIQUES["awq"].apply(step, self.model.keras, self.data, carried)
        for layer in record.layers:
            print(f"  {layer.layer}: {layer.done or layer.reason}", flush=True)
        return made if any(layer.done for layer in record.layers) else self.model.keras

    def lowered(self, model: Any) -> bytes:
        """Returns the float decoder of a model, which is kept alive so that its id stays its own."""
        if id(model) not in self._lowered:
            self._lowered[id(model)] = model, lower(model, cache=self.model.inputs[0].shape[1], prefill=32)
        return self._lowered[id(model)][1]

    def converted(self, scheme: str, model: Any = None) -> bytes:
        key = 0 if model is None else id(model), scheme
        if key not in self._converted:
            loaded = self.model if model is None else replace(self.model, keras=model)
            self._converted[key] = Converter(loaded, ConvertOptions()).to_bytes(SCHEMES[scheme])
        return self._converted[key]

    @cached_property
    def calibration(self) -> datasets.Part:
        return datasets.bind(self.data.calibration, self.model.inputs)

    def rounded(self, model: Any, group: int, method: str = "gptq") -> bytes:
        key = id(model), group, method
        if key not in self._rounded:
            floating, quantized = (self.converted(scheme, model) for scheme in (FLOAT, f"int4-block{group}"))
            settings = Settings(method, seed=self.seed)
            self._rounded[key] = round_file(floating, quantized, self.calibration, settings).content
        return self._rounded[key]

    def mixed(self, model: Any) -> bytes:
        """Returns the file with the layers that lose most in int8, within its share of the float file."""
        floating, quantized = (self.converted(scheme, model) for scheme in (FLOAT, "int4-block32"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "float.tflite").write_bytes(floating)
            (folder / "start.tflite").write_bytes(quantized)
            step = mixed.Mix(size=f"{len(floating) // SHARE}B", samples=self.samples)
            carried = Carried(folder, seed=self.seed, converted=folder / "start.tflite")
            made, record = TECHNIQUES["mixed"].apply(
                step, folder / "float.tflite", SCHEMES["int4-block32"], self.calibration, carried
            )
            for layer in record.layers:
                print(f"  {layer.layer}: {layer.done or layer.reason}", flush=True)
            return made.read_bytes()


# Each gives the file of a row, and the model that it was made of.
def _plain(scheme: str) -> Callable[[Work], tuple[bytes, Any]]:
    return lambda work: (work.converted(scheme), work.model.keras)


def _gptq(group: int) -> Callable[[Work], tuple[bytes, Any]]:
    return lambda work: (work.rounded(work.model.keras, group), work.model.keras)


def _awq(work: Work) -> tuple[bytes, Any]:
    """Scales that were searched for what the weights meet, then for each group of them: AWQ clips, too."""
    return work.rounded(work.scaled, 32, "nearest"), work.scaled


def _both(work: Work) -> tuple[bytes, Any]:
    return work.rounded(work.scaled, 32), work.scaled


def _mixed(work: Work) -> tuple[bytes, Any]:
    return work.mixed(work.model.keras), work.model.keras


def _others(work: Work) -> tuple[bytes, Any]:
    """ai-edge-quantizer's own recipe for language models, from the same float file."""
    quantizer = load("ai_edge_quantizer").Quantizer(work.converted(FLOAT))
    weights = {"num_bits": 4, "symmetric": True, "granularity": "BLOCKWISE_32", "dtype": "INT", "block_size": 0}
    config = {"weight_tensor_config": weights, "compute_precision": "INTEGER", "explicit_dequantize": False}
    rule = {"regex": ".*", "algorithm_key": "min_max_uniform_quantize", "operation": "FULLY_CONNECTED"}
    quantizer.load_quantization_recipe(
        [{**rule, "op_config": {**config, "skip_checks": False, "min_weight_elements": 0}}]
    )
    return bytes(quantizer.quantize().quantized_model), work.model.keras


NEAREST = "4 bits, groups of 32: nearest"
WAYS: dict[str, Callable[[Work], tuple[bytes, Any]]] = {
    FLOAT: _plain(FLOAT),
    "int8, one scale a channel": _plain("dynamic"),
    NEAREST: _plain("int4-block32"),
    "GPTQ": _gptq(32),
    "AWQ": _awq,
    "AWQ, then GPTQ": _both,
    "GPTQ, the worst layers in 8 bits": _mixed,
    "groups of 64: nearest": _plain("int4-block64"),
    "groups of 64: GPTQ": _gptq(64),
    "ai-edge-quantizer alone": _others,
}
# Those that calibrate: measured with several seeds.
DRAWN = ("GPTQ", "AWQ", "AWQ, then GPTQ", "GPTQ, the worst layers in 8 bits", "groups of 64: GPTQ")
# Whose speed is compared.
TIMED = (FLOAT, "int8, one scale a channel", NEAREST, "GPTQ", "groups of 64: nearest")


def main() -> None:
    """Makes and scores what is missing, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.language", description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "decoder.keras")
    parser.add_argument("--contexts", type=int, default=200, help="held-out contexts to score, at most")
    parser.add_argument("--samples", type=int, default=128, help="calibration contexts")
    parser.add_argument("--seeds", type=int, default=3, help="of the choice of calibration contexts")
    parser.add_argument("--way", action="append", choices=[*WAYS, KERAS])
    parser.add_argument("--page", action="store_true", help="write the table")
    parser.add_argument("--speeds", action="store_true", help="time what was made, and write that table")
    said = parser.parse_args()
    if said.speeds:
        _write(_SPEEDS, _speeds(Work(said.model, said.contexts, said.samples)))
        return
    for seed in range(said.seeds):
        work = Work(said.model, said.contexts, said.samples, seed)
        for name in said.way or [*WAYS, KERAS]:
            if seed and name not in DRAWN:
                continue
            known = _known(work.path)
            if not any((row["way"], row["seed"]) == (name, seed) for row in known):
                row = _keras_row(work, known) if name == KERAS else _row(name, work, known)
                row = {"way": name, "seed": seed, "model": files.sha256(work.path), **row}
                print({key: value for key, value in row.items() if key not in ("rows", "texts")}, flush=True)
                common.keep_rows(RESULTS, [*known, row])
    if said.page:
        _write(_BLOCK, table(_known(said.model)))


def _known(model: Path) -> list[dict[str, Any]]:
    """Returns the rows that were measured of this very model."""
    return [row for row in common.kept_rows(RESULTS) if row["model"] == files.sha256(model)]


def _write(block: str, text: str) -> None:
    files.atomic_write(PAGE, common.with_measured(PAGE.read_text(encoding="utf-8"), block, text))


def _row(name: str, work: Work, known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    start = time.perf_counter()
    content, writer = _made(name, work)
    seconds = time.perf_counter() - start
    with files.temporary(content, "scored.tflite") as file:
        part = work.data.validation.head(work.contexts)
        scored = evaluation.evaluate(file, part, metric="perplexity")
    generator = open_generator(writer)
    texts = [list(generator.generate(prompt, WRITTEN)) for prompt in _prompts(work)]
    row = {
        "bytes": len(content),
        "perplexity": [scored.metric.value, scored.metric.low, scored.metric.high],
        "contexts": len(part),
        "rows": _packed(scored.rows),
        "texts": [" ".join(map(str, text)) for text in texts],
        "seconds": seconds,
        "cache_bytes": generator.cache_bytes,
        "memory_bytes": int(subprocess.check_output([sys.executable, "-c", _MEMORY, str(writer)], text=True)),
        "machine": machine.describe().describe(),
    }
    reference = next((one for one in known if one["way"] == FLOAT), row)
    row["agreement"] = float(np.mean([_agree(a, b) for a, b in zip(reference["texts"], row["texts"])]))
    return {**row, "worse": _worse(reference, row)}


def _made(name: str, work: Work) -> tuple[bytes, Path]:
    """Returns the file of a row, and where the one that generates was written."""
    content, model = WAYS[name](work)
    floating, writer = work.lowered(model), _writer(name)
    files.atomic_write(writer, floating if name == FLOAT else graft(floating, content))
    return content, writer


def _writer(name: str) -> Path:
    """Returns where the generating file of a row lies."""
    return MADE / f"{''.join(letter if letter.isalnum() else '-' for letter in name)}.tflite"


def _prompts(work: Work) -> list[list[int]]:
    arrays = work.data.validation.head(PROMPTS).arrays()
    tokens: list[list[int]] = next(iter(arrays.inputs.values()))[:, :PROMPT].tolist()
    return tokens


def _worse(reference: dict[str, Any], row: dict[str, Any]) -> list[float]:
    """Returns by how much a row's perplexity is worse, the p-value of the paired test, and the interval."""
    off = metric("perplexity").difference(*(_unpacked(one["rows"]) for one in (reference, row)))
    return [off.value, off.p_value, off.low, off.high]


def _packed(rows: Iterable[np.ndarray]) -> list[list[str]]:
    """Returns arrays [samples, columns] with a text for each column: a file of results has a line for each."""
    return [[" ".join(f"{value:.7g}" for value in column) for column in each.T] for each in rows]


def _unpacked(rows: Sequence[Sequence[str]]) -> list[np.ndarray]:
    return [np.array([column.split() for column in each], float).T for each in rows]


def _agree(one: str, other: str) -> float:
    """Returns the share of the tokens of a text that is the same, up to the first that is not."""
    ours, theirs = one.split(), other.split()
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return same / max(1, len(ours))


def _keras_row(work: Work, known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Keras' own int4, scored in Keras: the file that it exports is no smaller than before."""
    keras = load("keras")
    model = keras.models.load_model(work.path, compile=False)
    start = time.perf_counter()
    model.quantize("int4")
    seconds = time.perf_counter() - start
    one, rows = metric("perplexity"), []
    for batch in work.data.validation.head(work.contexts).batches(16):
        logits = np.asarray(model(next(iter(batch.inputs.values())), training=False))
        rows.append(one.per_sample(logits, batch))
    settled = one.settle(*(np.concatenate(each) for each in zip(*rows)))
    value = one.value(settled)
    row = {
        "perplexity": [value.value, value.low, value.high],
        "rows": _packed(settled),
        "seconds": seconds,
        "machine": machine.describe().describe(),
    }
    reference = next(one for one in known if one["way"] == FLOAT)
    return {**row, "worse": _worse(reference, row)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows in Markdown: means over the seeds, from the least to the most in brackets."""
    header = ("weights", "perplexity", "worse than float", "won back", "bytes of float's", "same text", "memory")
    floating = next(row for row in rows if row["way"] == FLOAT)
    base = floating["perplexity"][0]
    nearest = next(row["perplexity"][0] for row in rows if row["way"] == NEAREST)
    lines = []
    for name in [*WAYS, KERAS]:
        of = [row for row in rows if row["way"] == name]
        if not of:
            continue
        found = [row["perplexity"][0] for row in of]
        of_rows = {
            key: statistics.mean(row[key] for row in of)
            for key in ("bytes", "agreement", "memory_bytes")
            if key in of[0]
        }
        lines.append(
            (
                name,
                _ranged(found, "{:.3f}"),
                ""
                if name == FLOAT
                else f"{_ranged([100 * (each / base - 1) for each in found], '{:+.2f}')} %{_doubt(of)}",
                f"{100 * (nearest - statistics.mean(found)) / (nearest - base):.0f} %" if name in DRAWN else "",
                f"{of_rows['bytes'] / floating['bytes']:.1%}" if "bytes" in of_rows else "",
                f"{of_rows['agreement']:.0%}" if "agreement" in of_rows else "",
                f"{of_rows['memory_bytes'] / 1e6:.1f} MB" if "memory_bytes" in of_rows else "",
            )
        )
    _, low, high = floating["perplexity"]
    seeds = len({row["seed"] for row in rows})
    drawn = (
        f"the mean of {seeds} choices of it stands before the least and the most"
        if seeds > 1
        else "there was one choice"
    )
    return (
        common.markdown(header, lines)
        + f"\n\n{floating['contexts']} held-out contexts; float's perplexity lies between {low:.2f} and {high:.2f} "
        f"(95 %). Where calibration chooses, {drawn}. A star is a difference from float that the paired test does not "
        f"show, by any choice (p >= 0.05). The cache is {floating['cache_bytes']:,} bytes of the memory."
    )


def _ranged(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.mean(values))} ({form.format(min(values))} to {form.format(max(values))})"


def _doubt(rows: Sequence[dict[str, Any]]) -> str:
    return "" if any(row["worse"][1] < 0.05 for row in rows) else " *"


def _speeds(work: Work) -> str:
    """Returns how fast the files read and write on two threads, in Markdown: medians of rounds in turn."""
    prompts = _prompts(work)
    for name in TIMED:
        if not _writer(name).exists():
            _made(name, work)
    opened: dict[str, Generator] = {name: open_generator(_writer(name), threads=2) for name in TIMED}
    read: dict[str, list[float]] = {name: [] for name in TIMED}
    wrote: dict[str, list[float]] = {name: [] for name in TIMED}
    for number in range(_ROUNDS + 1):
        for name, generator in opened.items():
            list(generator.generate(prompts[number % len(prompts)], WRITTEN))
            if number:
                read[name].append(generator.timing.read / generator.timing.read_s)
                wrote[name].append(generator.timing.written / generator.timing.written_s)
    lines = [
        (
            name,
            *(
                f"{statistics.median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})"
                for each in (read[name], wrote[name])
            ),
        )
        for name in TIMED
    ]
    header = ("weights", "reads, tokens a second", "writes, tokens a second")
    return (
        f"{common.markdown(header, lines)}\n\nOn two threads, medians of {_ROUNDS} rounds in turn; in brackets the "
        f"slowest and the fastest. {machine.describe().describe()}."
    )


if __name__ == "__main__":
    main()
