"""Whether a converted file holds what its scheme says: bytes and a scheme go in; an error or remarks come out.

A scheme speaks of the weights that operators multiply with, and of tables that they look up, which may as well have
the dtype of activations. Two kinds may stay in float: in dynamic range, tensors under SMALLEST_DYNAMIC elements; and
weights of operators that have no kernel for the scheme's numbers. The second are remarked, and a file in which nothing
is as the scheme says has failed. So has one that holds other integers than the scheme's, whatever their number. In
schemes below eight bits some layers stay at eight on purpose (`eight_bits`), and that is remarked, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgeopt.conversion import eight_bits
from edgeopt.errors import ConversionError
from edgeopt.schemes import SMALLEST_DYNAMIC
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import Layer, layers
from edgeopt.tflite.weight_grid import limits
from edgeopt.tflite.weights import stored_operand, trained_operands
from edgeopt.vocabulary import Scheme


def require(content: bytes, scheme: Scheme) -> None:
    """Raises ConversionError where a file does not hold what `scheme` says."""
    model = read(content)
    found = _sorted(model, scheme)
    wrong = any(not tensor.is_float for _, tensor in found.left)
    if wrong or (found.left and not found.held and not found.kept):
        dtypes = ", ".join(sorted({tensor.dtype for _, tensor in found.left}))
        why = "" if wrong else ": the quantizer has no such form of them"
        raise ConversionError(
            f"Expected {scheme.weights} weights of the scheme {scheme.name}, got {dtypes} in {_listed(found.left)}"
            f"{why}. Try --scheme {'dynamic' if scheme.weights == 'float16' else 'float16'}, or, of a .tflite, the "
            "model that it was made from."
        )
    if scheme.is_low_bit and not found.held:
        stay = f"only some that stay at eight bits ({_reasons(found.kept)})" if found.kept else "none at all"
        if scheme.dynamic:
            stay = f"none of {SMALLEST_DYNAMIC} elements and more that it takes"
        raise ConversionError(
            f"Expected weights that {scheme.name} makes smaller, got {stay}. "
            f"Try --scheme {'float16' if scheme.dynamic else 'int8'}"
            + (", or --keep-8bit none." if found.kept and "auto" in scheme.keep_8bit else ".")
        )
    _require_interface(model, scheme)
    if scheme.needs_calibration and not _computed(model, scheme.activations):
        raise ConversionError(
            f"Expected {scheme.activations} arithmetic of the scheme {scheme.name}, got a file that computes in "
            "floats alone. Try --scheme dynamic or float16."
        )


def require_numbers(content: bytes) -> None:
    """Raises ConversionError where a float file has weights or biases that are NaN or infinite: no scale holds them."""
    model = read(content)
    for layer in layers(model):
        for tensor in (layer.weight, layer.bias):
            if tensor is None or not tensor.is_float:
                continue
            if odd := int(np.count_nonzero(~np.isfinite(model.values(tensor)))):
                raise ConversionError(
                    f"Expected weights to make integers of, got {odd:,} that {'is' if odd == 1 else 'are'} NaN or "
                    f"infinite among the {tensor.elements:,} of {tensor.name!r}. Try a checkpoint of before its "
                    "training broke."
                )


def remarks(content: bytes, scheme: Scheme) -> tuple[str, ...]:
    """Returns in words what of a file that holds its scheme stays as it was, or at eight bits, all the same."""
    if scheme.weights == "float32":
        return ()
    found = _sorted(read(content), scheme)
    said = []
    if found.left:
        said.append(f"weights left in float, for want of {scheme.name} kernels: {_listed(found.left)}")
    elif not found.held and not scheme.needs_calibration:
        least = f" of {SMALLEST_DYNAMIC} elements and more" if scheme.dynamic else ""
        said.append(f"{scheme.name} changed no weights: the model has none{least}")
    if found.kept:
        said.append(f"weights that stay at eight bits: {_reasons(found.kept)}")
    if wider := sorted({tensor.dtype for _, tensor in found.held} - {scheme.weights, scheme.activations}):
        there = [(name, tensor) for name, tensor in found.held if tensor.dtype in wider]
        said.append(
            f"weights of {scheme.weight_bits} bits stored as {', '.join(wider)}, for want of kernels: {_listed(there)}"
        )
    return tuple(said)


_LOOK_UPS = ("GATHER", "EMBEDDING_LOOKUP")


@dataclass
class _Weights:
    """Weights of a file, with the names of the operators that read them.

    Attributes:
        held: as the scheme says.
        kept: layers at eight bits in a scheme below, and why.
        left: what the scheme speaks of, and is not so.
    """

    held: list[tuple[str, Tensor]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, Tensor]] = field(default_factory=list)


def _sorted(model: TFLiteModel, scheme: Scheme) -> _Weights:
    found = _Weights()
    stay = eight_bits.kept(model, scheme) if scheme.is_low_bit and not scheme.dynamic else {}
    by_operator = {layer.operator.index: layer for layer in layers(model)}
    for graph in model.subgraphs:
        for operator, tensor in _weights(graph):
            layer = by_operator.get(operator.index) if graph is model.main else None
            if _holds(model, operator, tensor, scheme, layer):
                found.held.append((operator.name, tensor))
            elif scheme.is_low_bit and tensor.dtype == "int8" and (layer is None or operator.index in stay):
                name = eight_bits.layer_name(layer) if layer is not None else tensor.name.split(";")[0]
                found.kept.append((name, stay.get(operator.index, f"no kernel of fewer bits for {operator.name}")))
            elif not (scheme.dynamic and tensor.is_float and tensor.elements < SMALLEST_DYNAMIC):
                found.left.append((operator.name, tensor))
    return found


def _holds(model: TFLiteModel, operator: Operator, tensor: Tensor, scheme: Scheme, layer: Layer | None) -> bool:
    if operator.name in _LOOK_UPS and tensor.dtype == scheme.activations != "float32":
        return True
    if not scheme.is_low_bit or layer is None or scheme.dynamic:
        return tensor.dtype == scheme.weights
    if tensor.dtype != f"int{eight_bits.stored_bits(layer, scheme)}" or tensor.dtype == "int8":
        return False
    least, greatest = limits(scheme.weight_bits)
    values = model.stored_values(tensor)
    return least <= int(values.min(initial=0)) and int(values.max(initial=0)) <= greatest


def _reasons(kept: list[tuple[str, str]]) -> str:
    """Returns layers by why they stay: "conv2d (first layer), 4 depthwise"."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in kept:
        by_reason.setdefault(reason, []).append(name)
    return ", ".join(
        f"{names[0] if len(names) == 1 else f'{len(names)} layers'} ({reason})" for reason, names in by_reason.items()
    )


def _weights(graph: Subgraph) -> Iterator[tuple[Operator, Tensor]]:
    """Yields each weight that an operator of `graph` multiplies with; look-up tables of plain integers are none."""
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    for operator in graph.operators:
        for position in trained_operands(operator)[0]:
            tensor = stored_operand(graph, operator, position, makers)
            if tensor is not None and (tensor.is_float or tensor.is_quantized):
                yield operator, tensor


def _computed(model: TFLiteModel, dtype: str) -> bool:
    """Whether any operator writes `dtype`; a model without operators computes nothing at all."""
    written = [graph.tensors[index] for graph in model.subgraphs for o in graph.operators for index in o.outputs]
    return not written or any(tensor.dtype == dtype for tensor in written)


def _require_interface(model: TFLiteModel, scheme: Scheme) -> None:
    """Raises ConversionError when quantizable inputs or outputs are not of the scheme's dtype."""
    for spec in (*model.inputs, *model.outputs):
        if spec.dtype != scheme.inputs and (spec.dtype.startswith("float") or spec.quantization is not None):
            raise ConversionError(
                f"The scheme {scheme.name} promises {scheme.inputs} inputs and outputs, and the converter made "
                f"{spec.name!r} {spec.dtype}. Try --scheme int8-float-io."
            )


def _listed(weights: list[tuple[str, Tensor]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(name for name, _ in weights).most_common())
