"""A `.tflite` file goes in, FileFacts come out."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.tflite import arithmetic
from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.model import Operator, Signature, Subgraph, TFLiteModel
from edgeopt.tflite.op_versions import minimum_runtime
from edgeopt.tflite.reader import read_once
from edgeopt.tflite.weights import Weights, WeightTensor, output_axis, stored_operand, trained_operands, weigh
from edgeopt.vocabulary import StoredWeight

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
    "WHILE": "loop",
}
# It widens what integers have computed.
_WIDENS = "DEQUANTIZE"


def facts(path: Path) -> FileFacts:
    """Returns the facts of a file.

    Raises:
        ModelError: it cannot be read.
    """
    model = read_once(path)
    weights, macs = weigh(model), count_macs(model)
    stored = {tensor.buffer: tensor for tensor in weights.tensors}
    return FileFacts(
        format="tflite",
        inputs=model.inputs,
        outputs=model.outputs,
        operators=tuple(fact for graph in model.subgraphs for fact in _operators(graph, stored)),
        weights=weights.tensors,
        macs=macs.total,
        bytes_by_kind=weights.bytes_by_kind,
        size_bytes=model.size_bytes,
        is_quantized=any(tensor.is_quantized for graph in model.subgraphs for tensor in graph.tensors),
        read=lambda weight: _values(read_once(path), weight),
        computes=arithmetic.in_words(model),
        runtime=minimum_runtime(model),
        notes=tuple(_notes(model, weights, macs.loops)),
        input_tensors=tuple(map(str, model.main.inputs)),
        output_tensors=tuple(map(str, model.main.outputs)),
    )


def _operators(graph: Subgraph, stored: dict[int, WeightTensor]) -> Iterator[OperatorFacts]:
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    for operator in graph.operators:
        result = graph.result(operator)
        yield OperatorFacts(
            name=operator.name,
            layer=result.name if result else "",
            output_shape=result.signature if result else (),
            float_arithmetic=operator.name != _WIDENS and any(graph.tensors[i].is_float for i in operator.outputs),
            macs=operator_macs(graph, operator),
            weights=tuple(_own(graph, operator, makers, stored)),
            version=operator.version,
            graph=graph.index,
            kind=_kind(graph, operator),
            reads=tuple(str(i) for i in operator.inputs if i >= 0 and not graph.tensors[i].is_constant),
            writes=tuple(map(str, operator.outputs)),
        )


def _kind(graph: Subgraph, operator: Operator) -> str:
    weight = graph.operand(operator, 1)
    if operator.name == "CONV_2D" and weight is not None and prod(weight.shape[1:3]) == 1:
        return "pointwise"
    return _KINDS.get(operator.name, "other")


def _own(
    graph: Subgraph, operator: Operator, makers: dict[int, Operator], stored: dict[int, WeightTensor]
) -> Iterator[WeightTensor]:
    """Yields the stored weights and biases that an operator computes with."""
    kernels, biases = trained_operands(operator)
    tensors = (stored_operand(graph, operator, position, makers) for position in (*kernels, *biases))
    for buffer in dict.fromkeys(tensor.buffer for tensor in tensors if tensor is not None):
        if buffer in stored and stored[buffer].kind in ("weights", "biases"):
            yield stored[buffer]


def _values(model: TFLiteModel, weight: StoredWeight) -> np.ndarray:
    """Returns the stored values, [output channels, …, input channels].

    Raises:
        ModelError: the file is another one by now.
    """
    assert isinstance(weight, WeightTensor)
    sought = weight.buffer, weight.name, weight.shape, weight.dtype
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        if (tensor.buffer, tensor.name, tensor.shape, tensor.dtype) == sought:
            values = model.stored_values(tensor).reshape(weight.shape)
            return np.moveaxis(values, output_axis(weight.operator, tensor), 0)
    raise ModelError(
        f"Expected the weight {weight.name!r} in the file where it was found, got another file there. Try again, and "
        "write files under new names or in one piece."
    )


def _of_signature(model: TFLiteModel, signature: Signature) -> str:
    """Returns "signature size_64x64: image 1x64x64x3, 44,433,408 MACs"."""
    graph = model.subgraphs[signature.subgraph]
    shapes = (
        f"{name} {'x'.join('?' if n is None else str(n) for n in graph.tensors[index].signature)}"
        for name, index in signature.inputs.items()
    )
    macs = sum(operator_macs(graph, operator) for operator in graph.operators)
    return f"signature {signature.key}: {', '.join(shapes)}, {macs:,} MACs"


def _notes(model: TFLiteModel, weights: Weights, loops: int) -> list[str]:
    notes = []
    if len(model.subgraphs) > 1:
        notes.append(
            f"{len(model.subgraphs)} graphs; signatures: {', '.join(s.key for s in model.signatures) or 'none'}"
        )
    if len({signature.subgraph for signature in model.signatures}) > 1:
        notes += [_of_signature(model, signature) for signature in model.signatures]
    if loops:
        notes.append(f"{loops} loops: the file does not tell their rounds, so their MACs count once")
    first = {spec.shape[0] for spec in model.inputs if spec.shape}
    if fixed := {size for size in first if size is not None and size > 1}:
        notes.append(f"the first dimension, samples or steps in time, is fixed at {max(fixed)}: MACs are those of all")
    if any(None in spec.shape[1:] for spec in model.inputs):
        notes.append("free dimensions count as 1 in the MACs")
    if unread := sum(t.operator == "" for t in weights.tensors):
        notes.append(f"{unread} stored tensors are read by no operator")
    return notes
