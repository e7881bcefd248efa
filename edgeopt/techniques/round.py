"""A quantized file and samples go in; the file with integers that were chosen by what its layers compute comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques import repairs
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.formats.contract import FileFacts
    from edgeopt.rounding.walk import LayerResult, Result

_OFF, _VALUES = "output error", "distinct values in a channel"
# What is looked up has no channels whose values are counted.
_TABLE = "EMBEDDING_LOOKUP"

# As many values nobody counts.
_MANY_BITS = 8
_TRAINED = "nothing was rounded: the weights were trained for the integers that they have"


@dataclass(frozen=True, kw_only=True)
class Round(Step):
    """What may be said about rounding."""

    technique: ClassVar[str] = "round"

    method: str = option(
        "gptq",
        "Gptq lets each weight make up for the rounding of those before it; adaround learns whether each goes up or "
        "down, which is slower; brecq learns it of the layers of a block together, beginning with gptq's; nearest "
        "takes the nearest integers, and chooses scales and biases.",
        choices=("gptq", "adaround", "brecq", "nearest"),
        tried=("gptq", "brecq"),
    )
    layers: tuple[str, ...] = option(
        (), "Only these: names of tensors, parts of them, operators (CONV_2D) or globs.", metavar="NAME"
    )
    spare: tuple[str, ...] = option((), "All but these: names, parts of them, operators or globs.", metavar="NAME")
    samples: int = option(512, "Calibration samples to choose by, at most.", low=8, high=100_000)
    act_order: bool = option(
        True, "Gptq rounds the columns with the largest inputs first; else in the order in which they are stored."
    )
    iterations: int = option(1000, "Steps of adaround for each layer, of brecq for each block.", low=20, high=1_000_000)


def apply(
    step: Round, float_file: Path, scheme: Scheme, calibration: Part, carried: Carried
) -> tuple[Path, StepRecord]:
    """Returns the file with better integers, or as it was where none are better.

    Raises:
        ConfigError: a word means no layer.
        DataError: there are too few samples.
        ModelError: a file does not run.
    """
    from edgeopt import files
    from edgeopt.rounding import tables
    from edgeopt.rounding.walk import Settings, round_file
    from edgeopt.techniques.in_layers import chosen_layers
    from edgeopt.tflite.pairing import pair_weights

    assert carried.converted is not None
    floating, quantized = float_file.read_bytes(), carried.converted.read_bytes()
    output = carried.folder / "rounded.tflite"
    if Property.FAKE_QUANTIZED in carried.properties:
        files.atomic_write(output, quantized)
        return output, StepRecord(step.technique, step.said(), notes=(_TRAINED,))
    pairing = pair_weights(floating, quantized)
    there = [(pair.name, pair.quantized.operator.name) for pair in pairing.pairs]
    there += [(table.name, tables.KIND) for table in tables.tables(pairing.floating, pairing.quantized)]
    found = round_file(
        floating,
        quantized,
        calibration.take(step.samples, seed=carried.seed),
        Settings(
            step.method,
            step.iterations,
            by_activations=step.act_order,
            sparse=Property.SPARSE in carried.properties,
            clustered=Property.CLUSTERED in carried.properties,
            task=carried.goal.task(""),
            seed=carried.seed,
        ),
        chosen=chosen_layers(there, step.layers, step.spare),
    )
    files.atomic_write(output, found.content)
    return output, StepRecord(
        step.technique,
        step.said(),
        layers=tuple(_told(layer) for layer in found.layers),
        promises=tuple(_promises(found)),
        notes=tuple(_notes(found, carried)),
    )


def _told(layer: LayerResult) -> LayerChange:
    if layer.before is None or layer.after is None:
        return LayerChange(layer.name, layer.kind, reason=layer.reason)
    if layer.reason:
        return LayerChange(layer.name, layer.kind, reason=f"{layer.reason} ({layer.before:.2%} of its variance)")
    learned = f", error while learned {layer.trace[0]:.3g} → {min(layer.trace):.3g}" if layer.trace else ""
    heeded = ", as far as the softmax behind it heeds it" if layer.softmaxed else ""
    return LayerChange(
        layer.name, layer.kind, done=f"{layer.bits} bits: error {layer.before:.2%} → {layer.after:.2%}{heeded}{learned}"
    )


def _promises(found: Result) -> Iterator[Promise]:
    note = f"of the outputs' variance, on {found.held} samples that were not fitted on"
    yield Promise(_OFF, limit=100 * found.before, unit="%").found(100 * found.after, note=note)
    if found.kept_as_it_was:
        return
    rounded = [one for one in found.layers if one.kind != _TABLE and one.before is not None and not one.reason]
    # Layers that are called twice have one weight.
    for weight, bits in {layer.weight: layer.bits for layer in rounded}.items():
        if bits < _MANY_BITS:
            yield Promise(_VALUES, weight, limit=2**bits - 1)


def _notes(found: Result, carried: Carried) -> Iterator[str]:
    if not any(layer.before is not None for layer in found.layers):
        reasons = "; ".join(sorted({layer.reason for layer in found.layers})) or "it has no layers with weights"
        yield f"nothing was rounded: {reasons}"
    elif found.kept_as_it_was:
        yield "the outputs came no nearer to the float model's: the weights are those of before"
    for block in found.blocks:
        names = ", ".join(name.rpartition(";")[2] for name in block.names)
        yield f"{names} together: error {block.before:.2%} → {block.after:.2%}"
    if Property.CLUSTERED in carried.properties:
        yield "equal weights stay equal: only scales and biases were chosen"


def check(step: Round, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises: values are counted in the file, the error was measured in it."""
    counts = {weight.name: weight.unique_per_channel for weight in file.weights if weight.kind == "weights"}
    return tuple(
        promise.found(counts[promise.subject] or 0)
        if promise.kind == _VALUES and promise.subject in counts
        else promise
        for promise in record.promises
    )


def predict(step: Round, facts: ModelFacts) -> Prospect:
    """Returns what rounding will bring."""
    if not facts.weights:
        return Prospect("none", "there are no weights to round", possible=False)
    return Prospect(
        "less loss of accuracy; as many bytes, as fast",
        "most of what 4 bits and fewer lose comes back; of 8 bits there is little to win back. Without labels or "
        "training; seconds a layer, minutes by AdaRound",
    )


def suits(scheme: Scheme, facts: ModelFacts) -> str:
    """Says why rounding cannot help."""
    if scheme.weight_bits == 8 and scheme.granularity == "channel":
        return "of 8 bits with a scale for each channel there is next to nothing to win back"
    return ""


def remarks(step: Round, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields what of a step is pointless."""
    if any(isinstance(other, Round) for other in earlier):
        yield "an earlier step rounds the same weights"


TECHNIQUE = Technique(
    "round",
    "Choose the integers of weights by what layers compute.",
    Round,
    apply,
    check,
    predict,
    typical=Round(),
    acts_on="file",
    needs=frozenset({Need.CALIBRATION, Need.SCHEME}),
    keeps=frozenset({Property.SPARSE, Property.CLUSTERED, Property.FAKE_QUANTIZED}),
    remarks=remarks,
    repairs=True,
    suits=suits,
    fits=repairs.fits,
    why_unfit=repairs.WHY_UNFIT,
)
