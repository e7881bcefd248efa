"""Whether a converted file holds what its scheme says: bytes and a scheme go in; an error or remarks come out.

A scheme speaks of the weights that operators multiply with, and of tables that they look up, which may as well have
the dtype of activations. Two kinds may stay in float: in dynamic range, tensors under SMALLEST_DYNAMIC elements; and
weights of operators that have no kernel for the scheme's numbers. The second are remarked, and a file in which nothing
is as the scheme says has failed. So has one that holds other integers than the scheme's, whatever their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgeopt.errors import ConversionError
from edgeopt.schemes import SMALLEST_DYNAMIC
from edgeopt.tflite.model import Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.weights import stored_operand, trained_operands
from edgeopt.vocabulary import Scheme


def require(content: bytes, scheme: Scheme) -> None:
    """Raises ConversionError where a file does not hold what `scheme` says."""
    model = read(content)
    held, left = _sorted(model, scheme)
    wrong = {dtype for _, tensor in left if not tensor.is_float for dtype in [tensor.dtype]}
    if wrong or (left and not held):
        found = ", ".join(sorted({tensor.dtype for _, tensor in left}))
        why = "" if wrong else ": the quantizer has no such form of them"
        raise ConversionError(
            f"Expected {scheme.weights} weights of the scheme {scheme.name}, got {found} in {_listed(left)}{why}. "
            f"Try --scheme {'dynamic' if scheme.weights == 'float16' else 'float16'}, or, of a .tflite, the model that "
            "it was made from."
        )
    _require_interface(model, scheme)
    if scheme.needs_calibration and not _computed(model, scheme.activations):
        raise ConversionError(
            f"Expected {scheme.activations} arithmetic of the scheme {scheme.name}, got a file that computes in "
            "floats alone. Try --scheme dynamic or float16."
        )


def remarks(content: bytes, scheme: Scheme) -> tuple[str, ...]:
    """Returns in words what of a file that holds its scheme stays in float all the same."""
    if scheme.weights == "float32":
        return ()
    held, left = _sorted(read(content), scheme)
    if left:
        return (f"weights left in float, for want of {scheme.name} kernels: {_listed(left)}",)
    if not held and not scheme.needs_calibration:
        least = f" of {SMALLEST_DYNAMIC} elements and more" if scheme.dynamic else ""
        return (f"{scheme.name} changed no weights: the model has none{least}",)
    return ()


_LOOK_UPS = ("GATHER", "EMBEDDING_LOOKUP")


def _sorted(model: TFLiteModel, scheme: Scheme) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Returns the weights that are as the scheme says, and those that it speaks of and are not, by operator."""
    held, left = [], []
    for graph in model.subgraphs:
        for operator, tensor in _weights(graph):
            if tensor.dtype == scheme.weights or (
                operator in _LOOK_UPS and tensor.dtype == scheme.activations != "float32"
            ):
                held.append((operator, tensor))
            elif not (scheme.dynamic and tensor.is_float and tensor.elements < SMALLEST_DYNAMIC):
                left.append((operator, tensor))
    return held, left


def _weights(graph: Subgraph) -> Iterator[tuple[str, Tensor]]:
    """Yields each weight that an operator of `graph` multiplies with; look-up tables of plain integers are none."""
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    for operator in graph.operators:
        for position in trained_operands(operator)[0]:
            tensor = stored_operand(graph, operator, position, makers)
            if tensor is not None and (tensor.is_float or tensor.quantization is not None or tensor.block_size):
                yield operator.name, tensor


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
