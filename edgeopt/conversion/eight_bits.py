"""A file and a scheme below eight bits go in; the layers whose weights stay at eight, and why, come out.

Rounding the first and the last layer and depthwise ones costs more accuracy than their few weights are worth in bytes
(Krishnamoorthi 2018, arXiv 1806.08342; MQBench, arXiv 2111.03759, leaves the first and the last at eight bits, too).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence

from edgeopt.errors import ConfigError, setting, suggestion
from edgeopt.schemes import SMALLEST_LOW
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.tflite.stored_weights import STORED_BITS, Layer, layers, other_readers
from edgeopt.tflite.weight_grid import TRAINED
from edgeopt.tflite.weights import stored_operand, trained_operands
from edgeopt.vocabulary import Scheme

# Fewest bits of stored weights that LiteRT has a right kernel for, by operator and activations; measured on 2.3, one
# layer at a time. What is not named has none: DEPTHWISE_CONV_2D takes int4 with int16 activations, and computes
# garbage.
_KERNELS = {
    ("CONV_2D", "int8"): 4,
    ("CONV_2D", "int16"): 4,
    ("CONV_2D", "float32"): 4,
    ("DEPTHWISE_CONV_2D", "int8"): 4,
    ("FULLY_CONNECTED", "int8"): 2,
    ("FULLY_CONNECTED", "int16"): 2,
    ("FULLY_CONNECTED", "float32"): 2,
}
# What operators that multiply are called in names of tensors: "model/dense/MatMul".
_MULTIPLIES = re.compile(r"(Conv|conv|depthwise|MatMul|Tensordot|einsum)")


def stored_bits(layer: Layer, scheme: Scheme) -> int:
    """Returns the bits in which a file stores a layer's weights, so that a kernel computes with them; 8 where none."""
    # What a DEQUANTIZE widens first may be of any bits, as a Dense kernel's.
    behind = layer.weight.index not in layer.operator.inputs
    operator = "FULLY_CONNECTED" if behind else layer.operator.name
    return bits_for(operator, layer.activations.dtype, scheme.weight_bits)


def bits_for(operator: str, activations: str, bits: int) -> int:
    """Returns the fewest stored bits, at least `bits`, that an operator's kernel takes beside such activations."""
    least = _KERNELS.get((operator, activations), 8)
    return min(each for each in STORED_BITS if each >= max(least, bits))


def fragile(*, first: bool, last: bool, depthwise: bool, elements: int) -> str:
    """Returns why a layer stays at eight bits where nobody said which shall, "" where it does not."""
    if first or last:
        return "first layer" if first else "last layer"
    if depthwise:
        return "depthwise"
    return f"under {SMALLEST_LOW:,} weights" if elements < SMALLEST_LOW else ""


def kept(model: TFLiteModel, scheme: Scheme) -> dict[int, str]:
    """Returns the layers that stay at eight bits: index of the operator → why.

    Raises:
        ConfigError: the scheme names layers that the model does not have.
    """
    found = layers(model)
    if scheme.algorithm == TRAINED:
        return {layer.operator.index: "trained so" for layer in found if layer.weight.dtype == "int8"}
    asked = [word for word in scheme.keep_8bit if word not in ("auto", "none")]
    _require_names(found, asked)
    first, last = _ends(model.main)
    reasons: dict[int, str] = {}
    for layer in found:
        index = layer.operator.index
        if stored_bits(layer, scheme) == 8:
            reasons[index] = f"no kernel for {layer.operator.name} with {layer.activations.dtype} activations"
        elif others := sorted({operator.name for operator in other_readers(model, layer)}):
            reasons[index] = f"{', '.join(others)} reads its weights, too"
        elif any(_is_called(layer, word) for word in asked):
            reasons[index] = "as asked"
        elif "auto" in scheme.keep_8bit:
            depthwise = layer.operator.name == "DEPTHWISE_CONV_2D"
            elements = layer.weight.elements
            if why := fragile(first=index in first, last=index in last, depthwise=depthwise, elements=elements):
                reasons[index] = why
    shared = {layer.weight.index: reasons[layer.operator.index] for layer in found if layer.operator.index in reasons}
    return {
        layer.operator.index: reasons.get(
            layer.operator.index, f"shares its weights with one: {shared[layer.weight.index]}"
        )
        for layer in found
        if layer.weight.index in shared
    }


def layer_name(layer: Layer) -> str:
    """Returns what the model's author calls a layer, as far as the file tells: "conv2d_1"."""
    for name in (layer.weight.name, layer.name):
        for piece in name.split(";"):
            *path, last = piece.split("/")
            if path and _MULTIPLIES.match(last):
                return path[-1]
    return layer.name.split(";")[0]


def _is_called(layer: Layer, word: str) -> bool:
    """Whether a name or glob is one of the words in the names of the layer's tensors, or its operator."""
    words = {layer.operator.name, *re.split(r"[/;]", f"{layer.name};{layer.weight.name}")}
    return any(fnmatch.fnmatchcase(each, word) for each in words)


def _require_names(found: Sequence[Layer], words: Sequence[str]) -> None:
    for word in words:
        if not any(_is_called(layer, word) for layer in found):
            raise ConfigError(
                f"Expected auto, none, or names or globs of layers as {setting('keep_8bit')}, got {word!r}, which no "
                f"layer with weights has.{suggestion(word, {layer_name(layer) for layer in found})}"
            )


def ends(
    nodes: Sequence[tuple[Collection[int], Collection[int], bool]], inputs: Iterable[int], outputs: Iterable[int]
) -> tuple[set[int], set[int]]:
    """Returns the nodes with weights that an input reaches, or that reach an output, without another between.

    Args:
        nodes: in the order in which they compute: the tensors that each reads and writes, and whether it has weights.
        inputs, outputs: the tensors of the whole.

    Returns:
        Positions of the first and of the last.
    """

    def met(start: Iterable[int], *, backwards: bool) -> set[int]:
        reached, found = set(start), set()
        for place, (near, far, multiplies) in reversed([*enumerate(nodes)]) if backwards else enumerate(nodes):
            if backwards:
                near, far = far, near
            if not reached.isdisjoint(near):
                if multiplies:
                    found.add(place)
                else:
                    reached.update(far)
        return found

    return met(inputs, backwards=False), met(outputs, backwards=True)


def _ends(graph: Subgraph) -> tuple[set[int], set[int]]:
    """Returns the operators with weights nearest to the inputs, and those nearest to the outputs."""
    makers = {index: operator for operator in graph.operators for index in operator.outputs}

    def multiplies(operator: Operator) -> bool:
        return any(stored_operand(graph, operator, place, makers) for place in trained_operands(operator)[0])

    nodes = [(operator.inputs, operator.outputs, multiplies(operator)) for operator in graph.operators]
    return ends(nodes, graph.inputs, graph.outputs)
