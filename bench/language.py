"""A small language model at 4 bits: rounded to the nearest, by GPTQ, scaled by AWQ, mixed; beside others' own ways.

    python -m bench.language --model models/decoder.keras --page

The script of models/ writes the model with its tokenizer and texts. Each file is scored on held-out text, and generates
from prompts of it. Finished rows are kept in bench/results/language.json; `--page` writes them into
docs/language-models.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from edgeopt import data as datasets
from edgeopt import evaluation, files, machine
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.frameworks import load
from edgeopt.language.generating import open_generator
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
_BLOCK = "python -m bench.language"
SCHEME = "int4-block32"
FLOAT, KERAS = "float32", "Keras' quantize"
PROMPTS, PROMPT, WRITTEN = 16, 32, 32


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

    @cached_property
    def data(self) -> datasets.Dataset:
        return datasets.load(self.path.with_suffix(".npz"), calibration_samples=self.samples, seed=self.seed)

    @cached_property
    def model(self) -> Any:
        return load_model(self.path)

    @cached_property
    def scaled(self) -> Any:
        """The model after AWQ."""
        with tempfile.TemporaryDirectory() as folder:
            carried = Carried(Path(folder), seed=self.seed)
            step = awq.Awq(samples=self.samples)
            made, record = TECHNIQUES["awq"].apply(step, self.model.keras, self.data, carried)
        for layer in record.layers:
            print(f"  {layer.layer}: {layer.done or layer.reason}", flush=True)
        return made

    def converted(self, scheme: str, model: Any = None) -> bytes:
        loaded = self.model if model is None else replace(self.model, keras=model)
        return Converter(loaded, ConvertOptions()).to_bytes(SCHEMES[scheme])

    @cached_property
    def calibration(self) -> datasets.Part:
        return datasets.bind(self.data.calibration, self.model.inputs)

    def rounded(self, floating: bytes, quantized: bytes, method: str = "gptq") -> bytes:
        return round_file(floating, quantized, self.calibration, Settings(method, seed=self.seed)).content

    def mixed(self, model: Any, floating: bytes, quantized: bytes) -> bytes:
        """Returns the file with the layers that lose most in int8, within a sixth of the float file."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "float.tflite").write_bytes(floating)
            (folder / "start.tflite").write_bytes(quantized)
            step = mixed.Mix(size=f"{len(floating) // 6}B", samples=self.samples, measured=min(32, self.samples))
            carried = Carried(folder, seed=self.seed, converted=folder / "start.tflite")
            made, _ = TECHNIQUES["mixed"].apply(
                step, folder / "float.tflite", SCHEMES[SCHEME], self.calibration, carried
            )
            return made.read_bytes()


# Name of a row → what makes its file, and the model that it was made of.
def _float(work: Work) -> tuple[bytes, Any]:
    return work.converted("float32"), work.model.keras


def _int8(work: Work) -> tuple[bytes, Any]:
    return work.converted("dynamic"), work.model.keras


def _nearest(work: Work) -> tuple[bytes, Any]:
    return work.converted(SCHEME), work.model.keras


def _gptq(work: Work) -> tuple[bytes, Any]:
    return work.rounded(work.converted("float32"), work.converted(SCHEME)), work.model.keras


def _awq(work: Work) -> tuple[bytes, Any]:
    """Scales that were searched for what the weights meet, then for each group of them: AWQ clips, too."""
    model = work.scaled
    return work.rounded(work.converted("float32", model), work.converted(SCHEME, model), "nearest"), model


def _both(work: Work) -> tuple[bytes, Any]:
    model = work.scaled
    return work.rounded(work.converted("float32", model), work.converted(SCHEME, model)), model


def _mixed(work: Work) -> tuple[bytes, Any]:
    model = work.scaled
    return work.mixed(model, work.converted("float32", model), work.converted(SCHEME, model)), model


def _others(work: Work) -> tuple[bytes, Any]:
    """ai-edge-quantizer's own recipe for language models, from the same float file."""
    quantizer = load("ai_edge_quantizer").Quantizer(work.converted("float32"))
    weights = {"num_bits": 4, "symmetric": True, "granularity": "BLOCKWISE_32", "dtype": "INT", "block_size": 0}
    config = {"weight_tensor_config": weights, "compute_precision": "INTEGER", "explicit_dequantize": False}
    rule = {"regex": ".*", "algorithm_key": "min_max_uniform_quantize", "operation": "FULLY_CONNECTED"}
    quantizer.load_quantization_recipe(
        [{**rule, "op_config": {**config, "skip_checks": False, "min_weight_elements": 0}}]
    )
    return bytes(quantizer.quantize().quantized_model), work.model.keras


WAYS: dict[str, Callable[[Work], tuple[bytes, Any]]] = {
    FLOAT: _float,
    "int8, one scale a channel": _int8,
    "4 bits, groups of 32: nearest": _nearest,
    "GPTQ": _gptq,
    "AWQ": _awq,
    "AWQ, then GPTQ": _both,
    "AWQ, GPTQ, the worst layers in 8 bits": _mixed,
    "ai-edge-quantizer alone": _others,
}
# Those that calibrate: measured with several seeds.
DRAWN = ("GPTQ", "AWQ", "AWQ, then GPTQ", "AWQ, GPTQ, the worst layers in 8 bits")


def main() -> None:
    """Makes and scores what is missing, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.language", description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "decoder.keras")
    parser.add_argument("--contexts", type=int, default=10_000, help="held-out contexts to score, at most")
    parser.add_argument("--samples", type=int, default=128, help="calibration contexts")
    parser.add_argument("--seeds", type=int, default=3, help="of the choice of calibration contexts")
    parser.add_argument("--way", action="append", choices=[*WAYS, KERAS])
    parser.add_argument("--page", action="store_true", help="write the table")
    said = parser.parse_args()
    for seed in range(said.seeds):
        work = Work(said.model, said.contexts, said.samples, seed)
        for name in said.way or [*WAYS, KERAS]:
            if seed and name not in DRAWN:
                continue
            known = common.kept_rows(RESULTS)
            if not any((row["way"], row["seed"]) == (name, seed) for row in known):
                row = {"way": name, "seed": seed, **(_keras_row(work) if name == KERAS else _row(name, work, known))}
                print({key: value for key, value in row.items() if key not in ("rows", "texts")}, flush=True)
                common.keep_rows(RESULTS, [*known, row])
    if said.page:
        text = common.with_measured(PAGE.read_text(encoding="utf-8"), _BLOCK, table(common.kept_rows(RESULTS)))
        files.atomic_write(PAGE, text)


def _row(name: str, work: Work, known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    start = time.perf_counter()
    content, model = WAYS[name](work)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        file, writer = Path(folder) / "scored.tflite", Path(folder) / "writer.tflite"
        file.write_bytes(content)
        part = work.data.validation.head(work.contexts)
        scored = evaluation.evaluate(file, part, metric="perplexity", threads=2)
        context = work.model.inputs[0].shape[1]
        floating = lower(model, cache=context, prefill=32)
        writer.write_bytes(floating if name == FLOAT else graft(floating, content))
        texts, spoken = _written(writer, work)
        row = {
            "bytes": len(content),
            "writer_bytes": writer.stat().st_size,
            "perplexity": [scored.metric.value, scored.metric.low, scored.metric.high],
            "rows": [np.asarray(each).tolist() for each in scored.rows],
            "texts": texts,
            "seconds": seconds,
            "machine": machine.describe().describe(),
            **spoken,
        }
    reference = next((one for one in known if one["way"] == FLOAT), row)
    off = metric("perplexity").difference(*([np.array(each) for each in one["rows"]] for one in (reference, row)))
    row["worse"] = [off.value, off.p_value, off.low, off.high]
    row["agreement"] = float(np.mean([_agree(a, b) for a, b in zip(reference["texts"], texts)]))
    return row


def _written(writer: Path, work: Work) -> tuple[list[list[int]], dict[str, Any]]:
    """Returns greedy continuations of held-out prompts, and how fast they came, on two threads."""
    generator = open_generator(writer, threads=2)
    arrays = work.data.validation.head(PROMPTS).arrays()
    prompts = next(iter(arrays.inputs.values()))[:, :PROMPT].tolist()
    texts, read, wrote = [], [], []
    for prompt in prompts:
        texts.append(list(generator.generate(prompt, WRITTEN)))
        read.append(generator.timing.read / generator.timing.read_s)
        wrote.append(generator.timing.written / generator.timing.written_s)
    return texts, {
        "prefill": float(np.median(read)),
        "decode": float(np.median(wrote)),
        "cache_bytes": generator.cache_bytes,
    }


def _agree(one: Sequence[int], other: Sequence[int]) -> float:
    """Returns the share of a continuation that is the same, up to the first token that is not."""
    same = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    return same / max(1, len(one))


def _keras_row(work: Work) -> dict[str, Any]:
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
    return {
        "perplexity": [value.value, value.low, value.high],
        "rows": [np.asarray(each).tolist() for each in settled],
        "seconds": seconds,
        "machine": machine.describe().describe(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows in Markdown: the mean of the seeds, with all of them where they differ."""
    header = ("weights", "perplexity, 95 %", "worse than float", "bytes", "prefill", "decode", "same text")
    base = next(row["perplexity"][0] for row in rows if row["way"] == FLOAT)
    lines = []
    for name in [*WAYS, KERAS]:
        of = [row for row in rows if row["way"] == name]
        if not of:
            continue
        first = of[0]
        value, low, high = first["perplexity"]
        worse = ", ".join(f"{100 * (row['perplexity'][0] / base - 1):+.2f} %" for row in of)
        speed = [f"{first[key]:,.0f} /s" if key in first else "" for key in ("prefill", "decode")]
        lines.append(
            (
                name,
                f"{value:.3f} ({low:.3f} to {high:.3f})",
                "" if name == FLOAT else worse,
                f"{first['bytes']:,}" if "bytes" in first else "",
                *speed,
                f"{first['agreement']:.0%}" if "agreement" in first else "",
            )
        )
    return common.markdown(header, lines) + f"\n\n{rows[-1]['machine']}."


if __name__ == "__main__":
    main()
