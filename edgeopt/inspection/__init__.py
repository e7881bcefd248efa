"""What a model holds: a converted file or a Keras model goes in, an Inspection comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt import c99, files, formats, runtimes
from edgeopt.formats import Format
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.inspection.rows import Row
from edgeopt.inspection.tables import inspection_tables
from edgeopt.prospects import Advice, ModelFacts, WeightFacts
from edgeopt.targets.assessing import Assessment
from edgeopt.tflite.op_versions import RuntimeNeed
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import OperatorUse, TensorSpec

if TYPE_CHECKING:
    from edgeopt.loading import LoadedModel

__all__ = [
    "Inspection",
    "Row",
    "inspect_converted",
    "inspect_file",
    "inspect_keras",
    "inspection_tables",
]


@dataclass(frozen=True)
class Inspection:
    """Everything that `edgeopt inspect` shows.

    Attributes:
        format: a key of `formats.FORMATS`, or the Keras format that was loaded.
        size_bytes: of the file (a folder: of all its files).
        gzip_bytes: of a converted file after gzip; None for Keras models, which are not what ships.
        quantization: how it computes, in words.
        rows: operators in the order they run, or layers.
        parameters, macs, sparsity: totals; sparsity is the share of exactly-zero weights, None without weights.
        bytes_by_kind: of a converted file, adding up to the file; of a Keras model, as float32.
        operators: operator versions with their number of uses; empty for Keras models.
        runtime: the oldest that loads it; None for Keras models.
        verdicts: why what might run it cannot, by its name, empty where nothing speaks against it: runtimes as far as
            can be told without them, "c99", and the device asked for. Empty for Keras models.
        facts: of its weights, what advice goes by.
        advice: a verdict for each scheme and technique; `api.inspect` adds it, but for formats that end a model's way.
        target: what the file costs on the device asked for.
    """

    path: str
    format: str
    size_bytes: int
    gzip_bytes: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantization: str
    rows: tuple[Row, ...]
    parameters: int
    macs: int
    sparsity: float | None
    bytes_by_kind: dict[str, int]
    operators: tuple[OperatorUse, ...]
    runtime: RuntimeNeed | None
    verdicts: Mapping[str, tuple[str, ...]]
    facts: ModelFacts
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()
    target: Assessment | None = None


def inspect_file(path: Path, *, custom_objects: Path | None = None, trust: bool = False) -> Inspection:
    """Inspects a model file of any format; other than a converted one it is loaded, so this runs in a worker."""
    from edgeopt.loading import load_model

    return inspect_keras(load_model(path, custom_objects=custom_objects, trust=trust))


def inspect_converted(path: Path | str) -> Inspection:
    """Inspects a converted file of any format of `formats.FORMATS`, without what converts or runs it.

    Raises:
        ModelError: it has no known format, or cannot be read.
    """
    path = Path(path)
    form = formats.format_of(path)
    file = formats.facts(path)
    return Inspection(
        path=str(path),
        format=file.format,
        size_bytes=file.size_bytes,
        gzip_bytes=files.gzip_size(path.read_bytes()),
        inputs=file.inputs,
        outputs=file.outputs,
        quantization=file.computes,
        rows=tuple(_row(index, operator) for index, operator in enumerate(file.operators)),
        parameters=file.parameters,
        macs=file.macs,
        sparsity=file.sparsity,
        bytes_by_kind=dict(file.bytes_by_kind),
        operators=file.operator_uses,
        runtime=file.runtime,
        verdicts=_verdicts(path, form),
        facts=_model_facts(file, form),
        notes=file.notes,
    )


def inspect_keras(loaded: LoadedModel) -> Inspection:
    """Inspects a loaded model; layer by layer where it has layers."""
    from edgeopt.inspection.keras_layers import KerasCount

    if loaded.source_format in formats.FORMATS:
        return inspect_converted(loaded.path)
    bridged = loaded.keras is not None
    count = KerasCount(loaded.keras if bridged else loaded.original)
    facts = count.facts("" if bridged else "its layers cannot be trained here: start from a model of standard layers")
    facts = replace(facts, kinds=loaded.layer_kinds)
    path = Path(loaded.path)
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
    return Inspection(
        path=str(path),
        format=loaded.source_format,
        size_bytes=size,
        gzip_bytes=None,
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        quantization="float32",
        rows=tuple(count.rows),
        parameters=facts.parameters,
        macs=sum(row.macs for row in count.rows),
        sparsity=facts.zeros if facts.elements else None,
        bytes_by_kind=count.bytes_by_kind,
        operators=(),
        runtime=None,
        verdicts={},
        facts=facts,
        notes=(*loaded.notes, *(f"{layer} could not be bridged: {why}" for layer, why in loaded.unbridged)),
    )


def _verdicts(path: Path, form: Format) -> dict[str, tuple[str, ...]]:
    """Returns the reasons against each runtime that takes the format, one for those that open files alike, and C99."""
    found: dict[str, tuple[str, ...]] = {}
    modules: set[str] = set()
    for row in runtimes.RUNTIMES.values():
        if form.name in row.takes and row.by_default and row.module not in modules:
            modules.add(row.module)
            module = runtimes.module(row)
            found[row.name] = module.refusals(path, module.version())
    if form.name == c99.TAKES:
        found["c99"] = c99.unsupported(read_once(path))
    return found


def _row(index: int, operator: OperatorFacts) -> Row:
    kernels = [t for t in operator.weights if t.kind == "weights"]
    largest = max(kernels, key=lambda t: t.elements, default=None)
    elements = sum(t.elements for t in kernels)
    notes = [f"graph {operator.graph}"] * (operator.graph > 0) + [t.encoding for t in kernels if t.encoding]
    return Row(
        index=index,
        name=_short(operator.layer),
        kind=operator.name,
        version=operator.version,
        output_shape=operator.output_shape,
        parameters=sum(t.elements for t in operator.weights if t.is_parameter),
        macs=operator.macs,
        weight_dtype=largest.dtype if largest else "",
        sparsity=sum(t.zeros or 0 for t in kernels) / elements if elements else None,
        unique_weights=largest.unique if largest else None,
        note="; ".join(notes),
    )


def _short(name: str) -> str:
    """Returns the first of the names that fused layers left in a tensor's name."""
    return next((part for part in name.split(";") if part), name)


def _model_facts(file: FileFacts, form: Format) -> ModelFacts:
    found: list[WeightFacts] = []
    for operator in file.operators:
        kernels = [t for t in operator.weights if t.kind == "weights"]
        elements = sum(t.elements for t in kernels) or 1
        for kernel in kernels:
            # A fused recurrence is quantized whole or not at all.
            part = min(t.elements for t in kernels) if operator.kind == "recurrent" else kernel.elements
            scaled = operator.kind not in ("recurrent", "embedding", "other", "attention")
            channels = kernel.shape[-1 if operator.kind == "depthwise" else 0] if scaled and kernel.shape else 0
            macs = operator.macs * kernel.elements // elements
            found.append(WeightFacts(operator.kind, kernel.elements, macs, part, channels))
    # Weights in float16 are widened on loading, and the file goes into every scheme as its float32 twin does.
    widened = 0 if file.is_quantized else 2 * sum(t.elements for t in file.weights if t.dtype == "float16")
    return ModelFacts(
        untrainable=f"a {form.suffix} cannot be trained: start from the Keras model",
        quantized=file.computes if file.is_quantized else "",
        float_bytes=file.size_bytes + widened,
        parameters=file.parameters,
        tensors=sum(t.is_parameter for t in file.weights),
        zeros=file.sparsity or 0.0,
        weights=tuple(found),
        layers=Counter(),
        loops=tuple(
            f"{count} {name}" for name, count in Counter(o.name for o in file.operators if o.kind == "loop").items()
        ),
        fused_lstm=any(operator.kind == "recurrent" for operator in file.operators),
    )
