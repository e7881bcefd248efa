"""Kernels by their Keras names and a `.tflite` go in; the stored tensors that they became come out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.tflite.weights import WeightTensor, output_axis, weigh

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Sought:
    """A kernel: its variable's path, "conv2d_3/kernel", and how many numbers it holds."""

    path: str
    elements: int


def find(file: TFLiteModel, sought: Sequence[Sought]) -> tuple[list[WeightTensor | None], tuple[WeightTensor, ...]]:
    """Returns the tensor of each kernel, None where it cannot be told, and all weights of the file.

    The converter transposes and folds kernels and names them after operators, but each keeps its number of elements.
    Where the layer is not in the name, kernels and tensors of a size are matched in order, if as many are left.
    """
    weights = tuple(t for t in weigh(file).tensors if t.kind == "weights" and t.zeros is not None)
    found: dict[int, WeightTensor] = {}
    taken: set[int] = set()
    for index, kernel in enumerate(sought):
        parts = kernel.path.split("/")[:-1]
        for tensor in weights:
            words = set(re.split(r"[/;]", tensor.name))
            if tensor.elements == kernel.elements and tensor.buffer not in taken and words.issuperset(parts):
                found[index] = tensor
                taken.add(tensor.buffer)
                break
    for elements in {kernel.elements for kernel in sought}:
        missing = [i for i, kernel in enumerate(sought) if kernel.elements == elements and i not in found]
        # The reader's list of tensors need not be in the order of the operators: an order is only sure for one.
        left = [t for t in weights if t.elements == elements and t.buffer not in taken]
        if len(missing) == len(left) == 1:
            found[missing[0]] = left[0]
    return [found.get(index) for index in range(len(sought))], weights


def values(file: TFLiteModel, stored: WeightTensor) -> np.ndarray | None:
    """Returns what is stored of a tensor, in its shape; None where a sparse encoding leaves zeros out.

    Integers are as stored: zero stands for zero, as the converter quantizes weights symmetrically.
    """
    if stored.encoding:
        return None
    tensor = next(t for graph in file.subgraphs for t in graph.tensors if t.buffer == stored.buffer)
    return file.stored_values(tensor).reshape(stored.shape)


def channels(file: TFLiteModel, stored: WeightTensor) -> np.ndarray | None:
    """Returns `values` as [output channels, weights of a channel]."""
    import numpy as np

    found = values(file, stored)
    if found is None:
        return None
    tensor = next(t for graph in file.subgraphs for t in graph.tensors if t.buffer == stored.buffer)
    rows = np.moveaxis(found, output_axis(stored.operator, tensor), 0)
    return rows.reshape(len(rows), -1)
