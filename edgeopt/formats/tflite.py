"""A `.tflite` file goes in, FileFacts come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.tflite.reader import read_once
from edgeopt.tflite.weights import WeightTensor, output_axis, stored_operand, trained_operands, weigh
from edgeopt.vocabulary import StoredWeight

# It widens what integers have computed.
_WIDENS = "DEQUANTIZE"


def facts(path: Path) -> FileFacts:
    """Returns the facts of a file.

    Raises:
        ModelError: it cannot be read.
    """
    return _facts(read_once(path), lambda: read_once(path))


def facts_of(model: TFLiteModel) -> FileFacts:
    """Returns the facts of a model that is read already; they keep it."""
    return _facts(model, lambda: model)


def _facts(model: TFLiteModel, again: Callable[[], TFLiteModel]) -> FileFacts:
    weights = weigh(model)
    stored = {tensor.buffer: tensor for tensor in weights.tensors}
    return FileFacts(
        format="tflite",
        inputs=model.inputs,
        outputs=model.outputs,
        operators=tuple(fact for graph in model.subgraphs for fact in _operators(graph, stored)),
        weights=weights.tensors,
        macs=count_macs(model).total,
        bytes_by_kind=weights.bytes_by_kind,
        size_bytes=model.size_bytes,
        is_quantized=any(tensor.quantization is not None for graph in model.subgraphs for tensor in graph.tensors),
        read=lambda weight: _values(again(), weight),
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
        )


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
