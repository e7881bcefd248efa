"""A float decoder with signatures and a quantized file of the same model go in; the decoder with its weights comes out.

Weights are told by what they stand for, so the quantized file may come from anybody: GPTQ, AWQ, mixed bits. All
signatures read one copy of each.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.tflite.lookups import with_lookups
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import add_buffer, changed, drop_unused_buffers, with_truthful_versions

# Least cosine between float weights and what integers stand for: see `tflite.pairing`.
_LEAST_LIKENESS = 0.5
_TAKEN = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")


@dataclass(frozen=True)
class _Donor:
    """An operator of the quantized file: its place, and what its weights stand for."""

    operator: Operator
    values: np.ndarray


def graft(floating: bytes, quantized: bytes) -> bytes:
    """Returns the float file with the weights and biases of the quantized one, in all of its signatures.

    Raises:
        ModelError: a layer of the quantized file has no counterpart: it is of another model.
    """
    ours = with_lookups(floating)
    donor_file = read(quantized)
    donors, parsed_donor = _donors(donor_file), []
    changed(quantized, lambda parsed, schema: parsed_donor.append(copy.deepcopy(parsed)))
    (theirs,) = parsed_donor
    model = read(ours)
    used: set[int] = set()
    matches, halved = [], []
    for graph in model.subgraphs:
        for operator, values in _readers(model, graph):
            if (best := _like(operator, values, donors)) is not None:
                used.add(best.operator.index)
                matches.append((graph.index, operator, best))
            elif _is_held_in_halves(values, donor_file):
                halved.append((graph.index, operator.inputs[1], values.astype(np.float16).astype(np.float32)))
    if missing := [donor for donor in donors if donor.operator.index not in used]:
        names = [theirs.subgraphs[0].tensors[one.operator.outputs[0]].name.decode() for one in missing]
        raise ModelError(
            f"Expected weights of the same model, got a file with {len(missing)} layers that it has not, as "
            f"{names[0]!r}. Try the model that the file was made of; awq and other steps before conversion change it."
        )

    def change(parsed: Any, schema: Any) -> None:
        buffers: dict[int, int] = {}
        for place, operator, donor in matches:
            _give(parsed, schema, parsed.subgraphs[place], operator, theirs, donor.operator, buffers)
        for place, index, values in halved:
            parsed.subgraphs[place].tensors[index].buffer = add_buffer(parsed, schema, values)
        _share(parsed)
        drop_unused_buffers(parsed)

    return with_truthful_versions(changed(ours, change))


def _donors(model: TFLiteModel) -> list[_Donor]:
    found = []
    for operator in model.main.operators:
        values = None if operator.name not in _TAKEN else _stands_for(model, model.main, operator)
        if values is not None:
            found.append(_Donor(operator, values))
    return found


def _readers(model: TFLiteModel, graph: Subgraph) -> Iterator[tuple[Operator, np.ndarray]]:
    for operator in graph.operators:
        if operator.name in _TAKEN:
            weight = graph.operand(operator, 1)
            if weight is not None and weight.is_constant and weight.dtype == "float32":
                yield operator, model.values(weight)


def _stands_for(model: TFLiteModel, graph: Subgraph, operator: Operator) -> np.ndarray | None:
    """Returns what stored integers stand for, float32; None for floats."""
    weight = graph.operand(operator, 1)
    if weight is None or not weight.is_constant or weight.is_float:
        return None
    values = model.values(weight).astype(np.float32)
    if weight.block_size:
        scales = model.values(graph.tensors[weight.block_scales]).astype(np.float32).reshape(len(values), -1)
        return values * np.repeat(scales, weight.block_size, axis=1)
    if weight.quantization is None:
        return None
    return values * np.array(weight.quantization.scales, np.float32)[:, None]


def _is_held_in_halves(values: np.ndarray, donor: TFLiteModel) -> bool:
    """Whether a table is a constant of the quantized file, in float16: what is looked up at each of all positions."""
    halves = values.astype(np.float16).reshape(-1)
    return any(
        tensor.is_constant
        and tensor.dtype == "float16"
        and not tensor.quantization
        and tensor.elements == halves.size
        and np.array_equal(donor.values(tensor).reshape(-1), halves)
        for tensor in donor.main.tensors
    )


def _like(operator: Operator, values: np.ndarray, donors: list[_Donor]) -> _Donor | None:
    best, most = None, _LEAST_LIKENESS
    for donor in donors:
        if donor.operator.name == operator.name and donor.values.shape == values.shape:
            lengths = float(np.linalg.norm(values)) * float(np.linalg.norm(donor.values))
            likeness = float(np.vdot(values, donor.values)) / lengths if lengths else 1.0
            if likeness > most:
                best, most = donor, likeness
    return best


def _give(
    parsed: Any, schema: Any, graph: Any, operator: Operator, theirs: Any, donor: Operator, buffers: dict[int, int]
) -> None:
    """Puts the donor's weights and bias in an operator's place."""
    source = theirs.subgraphs[0]
    taker, giver = graph.operators[operator.index], source.operators[donor.index]
    inputs = [int(index) for index in taker.inputs]
    for position in range(1, len(giver.inputs)):
        index = int(giver.inputs[position])
        data = None if index < 0 else theirs.buffers[source.tensors[index].buffer].data
        if data is None or not len(data):
            continue
        inputs += [-1] * (position + 1 - len(inputs))
        inputs[position] = _moved(parsed, schema, graph, theirs, index, buffers)
    taker.inputs = np.array(inputs, np.int32)
    if hasattr(giver.builtinOptions, "asymmetricQuantizeInputs"):
        taker.builtinOptions.asymmetricQuantizeInputs = giver.builtinOptions.asymmetricQuantizeInputs


def _moved(parsed: Any, schema: Any, graph: Any, theirs: Any, index: int, buffers: dict[int, int]) -> int:
    """Adds a tensor of the donor to a graph, its bytes once for all graphs, and returns its index."""
    tensor = copy.deepcopy(theirs.subgraphs[0].tensors[index])
    if tensor.buffer not in buffers:
        buffer = schema.BufferT()
        buffer.data = theirs.buffers[tensor.buffer].data
        buffers[tensor.buffer] = len(parsed.buffers)
        parsed.buffers.append(buffer)
    tensor.buffer = buffers[tensor.buffer]
    details = tensor.quantization.details if tensor.quantization is not None else None
    if isinstance(details, schema.BlockwiseQuantizationT):
        details.scales = _moved(parsed, schema, graph, theirs, details.scales, buffers)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _share(parsed: Any) -> None:
    """Lets tensors with the same bytes read one buffer."""
    for graph in parsed.subgraphs:
        read_by = {int(index) for operator in graph.operators for index in operator.inputs}
        read_by |= {t.quantization.details.scales for t in graph.tensors if _in_blocks(t)}
        for index, tensor in enumerate(graph.tensors):
            if index not in read_by and index not in graph.inputs and index not in graph.outputs:
                tensor.buffer = 0  # weights that nothing reads any more
    first: dict[bytes, int] = {}
    for graph in parsed.subgraphs:
        for tensor in graph.tensors:
            data = parsed.buffers[tensor.buffer].data
            if data is not None and len(data):
                tensor.buffer = first.setdefault(bytes(data), tensor.buffer)


def _in_blocks(tensor: Any) -> bool:
    return tensor.quantization is not None and hasattr(tensor.quantization.details, "blockSize")
