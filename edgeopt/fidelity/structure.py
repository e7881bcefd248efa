"""What a `.tflite` graph says of its inputs and outputs: a file goes in; grids and kinds of values come out.

Real values that are quantized behind a float input, or before a float output, have a grid as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.vocabulary import TensorSpec

# They hand values on, each as it is, or rounded.
_CARRIERS = frozenset(
    (
        *("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"),
        *("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK"),
    )
)
# Where the values are among their inputs; it is the first elsewhere.
_VALUES_AT = {"SPLIT": 1}
_JOINERS = ("CONCATENATION", "PACK")
# What is joined along a longer axis is more of the same: boxes of several feature maps.
_MOST_COMPONENTS = 256
_KINDS = {"SOFTMAX": "classes", "LOGISTIC": "score"}
# A chain of operators in a corrupt file may have no end.
_LONGEST_WALK = 64


@dataclass(frozen=True)
class Part:
    """Components of one kind, first to last; `kind` is "classes" (softmax), "score" (sigmoid) or "value"."""

    first: int
    last: int
    kind: str


@dataclass(frozen=True)
class Layout:
    """How the components of an output are laid out.

    Attributes:
        axis: negative, counted from the last: where components lie.
        parts: what was joined along it, in order; one where nothing was.
    """

    axis: int
    parts: tuple[Part, ...]


def input_grids(model: TFLiteModel) -> dict[str, TensorSpec]:
    """Returns for each input whose values are rounded on their way in the tensor that holds them then."""
    graph, found = model.main, {}
    for index, spec in zip(graph.inputs, model.inputs):
        readers = [operator for operator in graph.operators if index in operator.inputs]
        if spec.quantization is None and readers and all(reader.name == "QUANTIZE" for reader in readers):
            index = readers[0].outputs[0]
        quantization = graph.tensors[index].quantization
        if quantization is not None and len(quantization.scales) == 1:
            found[spec.name] = graph.tensors[index].spec
    return found


def output_grids(model: TFLiteModel) -> dict[str, TensorSpec]:
    """Returns for each output whose values are rounded on their way out the tensor that held them last."""
    graph, found, makers = model.main, {}, _makers(model.main)
    for index, spec in zip(graph.outputs, model.outputs):
        maker, tensor = makers.get(index), graph.tensors[index]
        if spec.quantization is None and maker is not None and maker.name == "DEQUANTIZE":
            tensor = graph.operand(maker, 0) or tensor
        if tensor.quantization is not None and len(tensor.quantization.scales) == 1:
            found[spec.name] = tensor.spec
    return found


def whole_numbers(model: TFLiteModel) -> frozenset[str]:
    """Returns the float inputs of a float file whose values it makes whole numbers of: rows of a table, most likely."""
    graph, found = model.main, set()
    for start, spec in zip(graph.inputs, model.inputs):
        carried, made = {start}, False
        for operator in graph.operators:
            at = _VALUES_AT.get(operator.name, 0)
            if spec.dtype != "float32" or len(operator.inputs) <= at or operator.inputs[at] not in carried:
                continue
            if operator.name in _CARRIERS:
                carried |= set(operator.outputs)
            made |= operator.name == "CAST" and graph.tensors[operator.outputs[0]].dtype in ("int32", "int64")
        found |= {spec.name} if made else set()
    return frozenset(found)


def layouts(model: TFLiteModel) -> dict[str, Layout]:
    """Returns for each output of a float file where its components lie, and what they are."""
    walk = _Walk(model)
    return {spec.name: walk.layout(index) for index, spec in zip(model.main.outputs, model.outputs)}


def _makers(graph: Subgraph) -> dict[int, Operator]:
    return {index: operator for operator in graph.operators for index in operator.outputs}


class _Walk:
    """Walks back from outputs over what only carries values."""

    def __init__(self, model: TFLiteModel) -> None:
        self._model = model
        self._tensors = model.main.tensors
        self._makers = _makers(model.main)

    def layout(self, output: int) -> Layout:
        """Returns the components of the output with this index: those that were joined, else those of the last axis.

        Of joins one behind the other the first counts: the later ones put boxes of one kind in a row.
        """
        shape, after = self._tensors[output].shape, list[Operator]()
        size = shape[-1] if len(shape) > 1 else 1
        found = Layout(-1, (Part(0, size - 1, self._kind(output)),))
        for operator in self._back(output):
            if operator.name in _JOINERS:
                axis, sizes = self._joined(operator)
                place = None if axis is None else self._forward(axis, operator, after)
                if place is not None and len(sizes) > 1 and sum(sizes) <= _MOST_COMPONENTS:
                    parts = self._parts(operator, sizes)
                    if place == len(shape) - 1 or len({part.kind for part in parts}) > 1:
                        found = Layout(place - len(shape), parts)
            after.append(operator)
        return found

    def _back(self, index: int) -> Iterator[Operator]:
        """Yields the operators that made a tensor, the last first, as long as they carry or join values."""
        for _ in range(_LONGEST_WALK):
            operator = self._makers.get(index)
            if operator is None or operator.name not in (*_CARRIERS, *_JOINERS):
                return
            yield operator
            values = self._model.main.operand(operator, _VALUES_AT.get(operator.name, 0))
            if values is None:
                return
            index = values.index

    def _joined(self, operator: Operator) -> tuple[int | None, list[int]]:
        """Returns the axis that an operator joins its inputs along, and how long each is there."""
        result = self._tensors[operator.outputs[0]].shape
        shapes = [self._tensors[index].shape for index in operator.inputs]
        if operator.name == "PACK":
            fits = (i for i in reversed(range(1, len(result))) if (*result[:i], *result[i + 1 :]) == shapes[0])
            return next(fits, None), [1] * len(shapes)
        axis = int(operator.options["axis"])
        axis += len(result) if axis < 0 else 0
        if not 0 < axis < len(result) or any(len(shape) != len(result) for shape in shapes):
            return None, []
        return axis, [shape[axis] for shape in shapes]

    def _forward(self, axis: int, joiner: Operator, after: Sequence[Operator]) -> int | None:
        """Returns where an axis of what was joined lies behind the operators `after`, the last of them first."""
        old = self._tensors[joiner.outputs[0]].shape
        for operator in reversed(after):
            new = self._tensors[operator.outputs[0]].shape
            if operator.name == "TRANSPOSE":
                order = self._model.main.operand(operator, 1)
                axes = [] if order is None or not order.is_constant else self._model.values(order).tolist()
                places = [i for i, moved in enumerate(axes) if moved == axis]
            elif len(new) == len(old) and new[axis] == old[axis]:
                places = [axis]
            else:
                size, inner = old[axis], math.prod(old[axis + 1 :])
                places = [i for i in range(len(new)) if new[i] == size and math.prod(new[i + 1 :]) == inner]
            if not places:
                return None
            old, axis = new, places[0]
        return axis

    def _parts(self, joiner: Operator, sizes: Sequence[int]) -> tuple[Part, ...]:
        ends = list(itertools.accumulate(sizes))
        kinds = [self._kind(index) for index in joiner.inputs]
        return tuple(Part(end - size, end - 1, kind) for size, end, kind in zip(sizes, ends, kinds))

    def _kind(self, index: int) -> str:
        """Returns what the values of a tensor are: "classes", "score" or "value"."""
        for operator in self._back(index):
            if operator.name in _JOINERS:
                return "value"
            values = self._model.main.operand(operator, _VALUES_AT.get(operator.name, 0))
            index = -1 if values is None else values.index
        maker = self._makers.get(index)
        return _KINDS.get(maker.name, "value") if maker is not None else "value"
