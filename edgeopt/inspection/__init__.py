"""What a model holds: a `.tflite` or a Keras model goes in, an Inspection comes out."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import files
from edgeopt.inspection import quantization
from edgeopt.inspection.rows import Row
from edgeopt.inspection.tables import inspection_tables
from edgeopt.plain import to_plain
from edgeopt.prospects import Advice, ModelFacts, WeightFacts
from edgeopt.targets.assessing import Assessment
from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.tflite.op_versions import RuntimeNeed, minimum_runtime, unsupported_by
from edgeopt.tflite.reader import read
from edgeopt.tflite.weights import Weights, WeightTensor, stored_operand, trained_operands, weigh
from edgeopt.vocabulary import OperatorUse, TensorSpec

if TYPE_CHECKING:
    from edgeopt.loading import LoadedModel

__all__ = [
    "Inspection",
    "Row",
    "inspect_file",
    "inspect_keras",
    "inspect_tflite",
    "inspection_tables",
]


@dataclass(frozen=True)
class Inspection:
    """Everything that `edgeopt inspect` shows.

    Attributes:
        format: "tflite", or the Keras format that was loaded.
        size_bytes: of the file (a folder: of all its files).
        gzip_bytes: of a `.tflite` after gzip; None for Keras models, which are not what ships.
        quantization: how it computes, in words.
        rows: operators in the order they run, or layers.
        parameters, macs, sparsity: totals; sparsity is the share of exactly-zero weights, None without weights.
        bytes_by_kind: of a `.tflite`, adding up to the file; of a Keras model, as float32.
        operators: operator versions with their number of uses; empty for Keras models.
        runtime: the oldest that loads it; None for Keras models.
        unsupported_by_tflm: why TensorFlow Lite for Microcontrollers cannot run it; None for Keras models.
        facts: of its weights, what advice goes by.
        advice: a verdict for each scheme and technique; `api.inspect` adds it.
        target: what a `.tflite` costs on the device asked for.
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
    unsupported_by_tflm: tuple[str, ...] | None
    facts: ModelFacts
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()
    target: Assessment | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as what JSON knows."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def inspect_file(path: Path, *, custom_objects: Path | None = None, trust: bool = False) -> Inspection:
    """Inspects a model file of any format; other than a `.tflite` it is loaded, so this runs in a worker."""
    from edgeopt.loading import load_model

    return inspect_keras(load_model(path, custom_objects=custom_objects, trust=trust))


def inspect_tflite(path: Path | str) -> Inspection:
    """Inspects a `.tflite` file, without TensorFlow.

    Raises:
        ModelError: it cannot be read.
    """
    model = read(path)
    with ThreadPoolExecutor(1) as pool:
        # zlib lets go of the interpreter: compressing and counting take two cores.
        gzipped = pool.submit(files.gzip_size, model.content.tobytes())
        weights = weigh(model)
        macs = count_macs(model)
        words = quantization.in_words(model)
        rows = tuple(_rows(model, weights))
        need, reasons = minimum_runtime(model), unsupported_by(model, "tflm")
        facts = _tflite_facts(model, weights, words)
        notes = tuple(_notes(model, weights, macs.loops))
        return Inspection(
            path=str(path),
            format="tflite",
            size_bytes=model.size_bytes,
            gzip_bytes=gzipped.result(),
            inputs=model.inputs,
            outputs=model.outputs,
            quantization=words,
            rows=rows,
            parameters=weights.parameters,
            macs=macs.total,
            sparsity=weights.sparsity,
            bytes_by_kind=weights.bytes_by_kind,
            operators=model.operator_uses,
            runtime=need,
            unsupported_by_tflm=reasons,
            facts=facts,
            notes=notes,
        )


def inspect_keras(loaded: LoadedModel) -> Inspection:
    """Inspects a loaded model; layer by layer where it has layers."""
    from edgeopt.inspection.keras_layers import KerasCount

    if loaded.source_format == "tflite":
        return inspect_tflite(loaded.path)
    bridged = loaded.keras is not None
    count = KerasCount(loaded.keras if bridged else loaded.original)
    facts = count.facts("" if bridged else "its layers cannot be trained here: start from a model of standard layers")
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
        unsupported_by_tflm=None,
        facts=facts,
        notes=(*loaded.notes, *(f"{layer} could not be bridged: {why}" for layer, why in loaded.unbridged)),
    )


def _rows(model: TFLiteModel, weights: Weights) -> list[Row]:
    stored = {tensor.buffer: tensor for tensor in weights.tensors}
    rows: list[Row] = []
    for graph in model.subgraphs:
        makers = _makers(graph)
        for operator in graph.operators:
            own = _own(graph, operator, makers, stored)
            kernels = [t for t in own if t.kind == "weights"]
            largest = max(kernels, key=lambda t: t.elements, default=None)
            result = graph.result(operator)
            elements = sum(t.elements for t in kernels)
            notes = [f"graph {graph.index}"] * (graph.index > 0)
            notes += [t.encoding for t in kernels if t.encoding]
            rows.append(
                Row(
                    index=len(rows),
                    name=_short(result.name) if result else "",
                    kind=operator.name,
                    version=operator.version,
                    output_shape=result.signature if result else (),
                    parameters=sum(t.elements for t in own if t.is_parameter),
                    macs=operator_macs(graph, operator),
                    weight_dtype=largest.dtype if largest else "",
                    sparsity=sum(t.zeros or 0 for t in kernels) / elements if elements else None,
                    unique_weights=largest.unique if largest else None,
                    note="; ".join(notes),
                )
            )
    return rows


def _makers(graph: Subgraph) -> dict[int, Operator]:
    return {index: operator for operator in graph.operators for index in operator.outputs}


def _own(
    graph: Subgraph, operator: Operator, makers: dict[int, Operator], stored: dict[int, WeightTensor]
) -> list[WeightTensor]:
    """Returns the stored weights and biases that an operator computes with."""
    kernels, biases = trained_operands(operator)
    tensors = (stored_operand(graph, operator, position, makers) for position in (*kernels, *biases))
    own = {t.buffer: stored[t.buffer] for t in tensors if t is not None and t.buffer in stored}
    return [t for t in own.values() if t.kind in ("weights", "biases")]


def _short(name: str) -> str:
    """Returns the first of the names that fused layers left in a tensor's name."""
    return next((part for part in name.split(";") if part), name)


_KINDS = {
    "CONV_2D": "convolution",
    "CONV_3D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transposed",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "attention",
    "EMBEDDING_LOOKUP": "embedding",
    "GATHER": "embedding",
    "LSTM": "recurrent",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "recurrent",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "recurrent",
}
_FUSED = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM")


def _tflite_facts(model: TFLiteModel, weights: Weights, words: str) -> ModelFacts:
    stored = {tensor.buffer: tensor for tensor in weights.tensors}
    found: list[WeightFacts] = []
    for graph in model.subgraphs:
        makers = _makers(graph)
        for operator in graph.operators:
            kernels = [t for t in _own(graph, operator, makers, stored) if t.kind == "weights"]
            macs, elements = operator_macs(graph, operator), sum(t.elements for t in kernels) or 1
            for kernel in kernels:
                pointwise = operator.name == "CONV_2D" and prod(kernel.shape[1:3]) == 1
                # A fused LSTM is quantized whole or not at all.
                part = min(t.elements for t in kernels) if operator.name in _FUSED else kernel.elements
                kind = "pointwise" if pointwise else _KINDS.get(operator.name, "other")
                scaled = kind not in ("recurrent", "embedding", "other", "attention")
                channels = kernel.shape[-1 if kind == "depthwise" else 0] if scaled and kernel.shape else 0
                found.append(WeightFacts(kind, kernel.elements, macs * kernel.elements // elements, part, channels))
    return ModelFacts(
        untrainable="a .tflite cannot be trained: start from the Keras model",
        quantized="" if words.startswith("float32") else words,
        float_bytes=model.size_bytes,
        parameters=weights.parameters,
        tensors=sum(t.is_parameter for t in weights.tensors),
        zeros=weights.sparsity or 0.0,
        weights=tuple(found),
        layers=Counter(),
        loops=tuple(f"{use.count} WHILE" for use in model.operator_uses if use.name == "WHILE"),
        fused_lstm=any(use.name in _FUSED for use in model.operator_uses),
    )


def _notes(model: TFLiteModel, weights: Weights, loops: int) -> list[str]:
    notes = []
    if len(model.subgraphs) > 1:
        notes.append(
            f"{len(model.subgraphs)} graphs; signatures: {', '.join(s.key for s in model.signatures) or 'none'}"
        )
    if loops:
        notes.append(f"{loops} loops: the file does not tell their rounds, so their MACs count once")
    batches = {spec.shape[0] for spec in model.inputs if spec.shape}
    if fixed := {b for b in batches if b is not None and b > 1}:
        notes.append(f"the batch is fixed at {max(fixed)}: MACs are those of the whole batch")
    if any(None in spec.shape[1:] for spec in model.inputs):
        notes.append("free dimensions count as 1 in the MACs")
    if unread := sum(t.operator == "" for t in weights.tensors):
        notes.append(f"{unread} stored tensors are read by no operator")
    return notes
