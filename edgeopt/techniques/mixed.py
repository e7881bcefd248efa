"""A quantized file, samples and a budget go in; the file with as many bits in each layer as it needs comes out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.techniques.timing import TIMES_VARY
from edgeopt.units import parse_size, parse_time_ms
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.formats.contract import FileFacts
    from edgeopt.rounding.mixing import Mixed

_BYTES, _OFF, _LATENCY = "bytes of the file", "output error", "latency"
# Bits of a layer's weights → the choice that says what it loses by them.
_WEIGHED = {4: "int4", 8: "int8"}


@dataclass(frozen=True, kw_only=True)
class Mix(Step):
    """What may be said about bits per layer."""

    technique: ClassVar[str] = "mixed"

    size: str = option(
        "80%",
        "Of the file at most: a share of what it has, or bytes.",
        metavar="SIZE|PERCENT",
        tried=("90%", "80%", "70%", "60%"),
    )
    bit_macs: float | None = option(
        None, "Share of all multiply-accumulates times 8 bits that may stay, as well.", above=0.0, high=1.0, hint="0.75"
    )
    latency: str | None = option(
        None,
        "Of the time at most, as well: a share of what the file takes here on LiteRT, or a time. Layers of 4 bits are "
        "slower there, and floats too.",
        metavar="PERCENT|TIME",
        hint="150%",
    )
    floats: bool = option(
        False,
        "A layer may stay float as well, between the integers of the others: exact, at four times the bytes of 8 bits, "
        "and slower.",
    )
    method: str = option("gptq", "How weights are rounded.", choices=("gptq", "adaround", "nearest"))
    layers: tuple[str, ...] = option(
        (),
        "Choose the bits of these alone: names of tensors, parts of them, operators (CONV_2D) or globs.",
        metavar="NAME",
    )
    spare: tuple[str, ...] = option((), "All but these: names, parts of them, operators or globs.", metavar="NAME")
    samples: int = option(512, "Calibration samples to round by, at most.", low=8, high=100_000)
    time_limit: float = option(30.0, "Seconds for the integer programme.", above=0.0, high=86_400.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        size_bytes(self.size, 100)
        if self.latency is not None:
            latency_ms(self.latency, 1.0)


def apply(step: Mix, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried) -> tuple[Path, StepRecord]:
    """Returns the file with the bits that each layer needs.

    Raises:
        ConfigError: no choice keeps the budget, or a word means no layer.
        DataError: there are too few samples.
        ModelError: no layer can have other bits, or a file does not run.
    """
    from edgeopt import files
    from edgeopt.rounding.alone import BETWEEN, CHOICES
    from edgeopt.rounding.losses import SAMPLES, losses
    from edgeopt.rounding.mixing import FLOAT, Speed, mix
    from edgeopt.rounding.walk import Settings
    from edgeopt.techniques.in_layers import chosen_layers
    from edgeopt.tflite.pairing import pair_weights

    assert carried.converted is not None
    floating, quantized = float_file.read_bytes(), carried.converted.read_bytes()
    there = [(pair.name, pair.quantized.operator.name) for pair in pair_weights(floating, quantized).pairs]
    size = size_bytes(step.size, len(quantized))
    speed = None
    if step.latency is not None:
        (took,) = _milliseconds([quantized])
        speed = Speed(latency_ms(step.latency, took), _milliseconds)
    few = calibration.take(SAMPLES, seed=carried.seed)
    lost = {
        bits: carried.losses.get(name)
        or losses(float_file, few, quantized=carried.converted, choice=CHOICES[name], seed=carried.seed)
        for bits, name in _WEIGHED.items()
    }
    if step.floats:
        lost[FLOAT] = losses(float_file, few, quantized=carried.converted, choice=BETWEEN, seed=carried.seed)
    found = mix(
        floating,
        quantized,
        calibration.take(step.samples, seed=carried.seed),
        Settings(
            step.method,
            sparse=Property.SPARSE in carried.properties,
            clustered=Property.CLUSTERED in carried.properties,
            task=carried.goal.task(""),
            seed=carried.seed,
        ),
        size=size,
        bit_macs=step.bit_macs,
        speed=speed,
        chosen=chosen_layers(there, step.layers, step.spare),
        losses=lost,
        time_limit=step.time_limit,
    )
    output = carried.folder / "mixed.tflite"
    files.atomic_write(output, found.result.content)
    result = found.result
    note = f"of the outputs' variance, on {result.held} samples that were not fitted on"
    promises = [
        Promise(_BYTES, limit=size, of=len(quantized)),
        Promise(_OFF, limit=100 * result.before, unit="%").found(100 * result.after, note=note),
    ]
    if speed is not None:
        before, after = _milliseconds([quantized, result.content])
        kept = Promise(_LATENCY, limit=speed.latency_ms, of=before, unit="ms")
        promises.append(kept.found(after, slack=TIMES_VARY, note="LiteRT, one thread"))
    return output, StepRecord(
        step.technique,
        step.said(),
        layers=tuple(_told(name, kind, found) for name, kind in there),
        promises=tuple(promises),
    )


def size_bytes(text: str, whole: int) -> int:
    """Returns a budget in bytes: "60%" of a file, or "48KB"."""
    share = _share(text)
    size = parse_size(text) if share is None else int(share * whole)
    assert size is not None
    return size


def latency_ms(text: str, whole: float) -> float:
    """Returns a budget in milliseconds: "150%" of what a file takes, or "2ms"."""
    share = _share(text)
    latency = parse_time_ms(text) if share is None else share * whole
    assert latency is not None
    return latency


def _share(text: str) -> float | None:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    return None if found is None else float(found[1]) / 100


def _milliseconds(contents: Sequence[bytes]) -> list[float]:
    """Returns what an inference of each file takes here."""
    from edgeopt.techniques.timing import milliseconds

    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        files = [Path(folder) / f"{number}.tflite" for number in range(len(contents))]
        for file, content in zip(files, contents):
            file.write_bytes(content)
        return milliseconds(files)


def _told(name: str, kind: str, found: Mixed) -> LayerChange:
    from edgeopt.rounding.mixing import FLOAT

    reasons = {layer.name: layer.reason for layer in found.result.layers}
    if name not in found.bits:
        return LayerChange(name, kind, reason=reasons.get(name) or "its bits were not to be chosen")
    bits = found.bits[name]
    said = {held: "float" if held == FLOAT else f"{held} bits" for held in found.losses[name]}
    alone = ", ".join(f"{error:.3%} with {said[held]}" for held, error in found.losses[name].items())
    slower = ""
    if found.times:
        slower = "; " + ", ".join(f"{ms:+.3f} ms with {said[held]}" for held, ms in found.times[name].items() if ms)
    return LayerChange(name, kind, done=f"{said[bits]} (alone it makes the error {alone}{slower})")


def check(step: Mix, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises: bytes are counted in the file, error and time were measured with it."""
    return tuple(promise.found(file.size_bytes) if promise.kind == _BYTES else promise for promise in record.promises)


def predict(step: Mix, facts: ModelFacts) -> Prospect:
    """Returns what fewer bits where they cost little will bring."""
    if not facts.weights:
        return Prospect("none", "there are no weights to give other bits", possible=False)
    is_share = "%" in step.size
    return Prospect(
        f"a file of {step.size}: 4 bits where they cost least, 8 elsewhere{', or float' if step.floats else ''}",
        "smaller, and slower on CPUs with XNNPACK, whose kernels do not take layers of 4 bits; no faster elsewhere",
        size_bytes=None if is_share else size_bytes(step.size, 0),
        share=size_bytes(step.size, 1000) / 1000 if is_share else 1.0,
    )


def remarks(step: Mix, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields what of a step is pointless."""
    if any(other.technique == "round" for other in earlier):
        yield "it rounds all weights anew"


TECHNIQUE = Technique(
    "mixed",
    "Give each layer the bits that a budget allows.",
    Mix,
    apply,
    check,
    predict,
    typical=Mix(),
    acts_on="file",
    needs=frozenset({Need.CALIBRATION, Need.SCHEME}),
    keeps=frozenset({Property.SPARSE, Property.CLUSTERED, Property.FAKE_QUANTIZED}),
    remarks=remarks,
    weighs=tuple(_WEIGHED.values()),
    fits=lambda step, scheme: (
        scheme.needs_calibration or (scheme.dynamic and scheme.is_low_bit and not getattr(step, "floats", False))
    ),
    why_unfit="runtimes know layers of 4 bits beside layers of 8 in integers and in dynamic range alone, and "
    "floats stand between integers",
)
