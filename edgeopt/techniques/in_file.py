"""Kernels by their Keras names and a file's facts go in; the stored tensors that they became, and MACs, come out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeopt.vocabulary import Promise, StoredWeight

if TYPE_CHECKING:
    from edgeopt.formats.contract import FileFacts


@dataclass(frozen=True)
class Sought:
    """A kernel: its variable's path, "conv2d_3/kernel", and how many numbers it holds."""

    path: str
    elements: int


def find(file: FileFacts, sought: Sequence[Sought]) -> tuple[list[StoredWeight | None], tuple[StoredWeight, ...]]:
    """Returns the tensor of each kernel, None where it cannot be told, and all weights of the file.

    The converter transposes and folds kernels and names them after operators, but each keeps its number of elements.
    Where the layer is not in the name, kernels and tensors of a size are matched in order, if as many are left.
    """
    weights = tuple(t for t in file.weights if t.kind == "weights" and t.zeros is not None)
    found: dict[int, StoredWeight] = {}
    for index, kernel in enumerate(sought):
        parts = kernel.path.split("/")[:-1]
        for tensor in weights:
            words = set(re.split(r"[/;]", tensor.name))
            if tensor.elements == kernel.elements and tensor not in found.values() and words.issuperset(parts):
                found[index] = tensor
                break
    for elements in {kernel.elements for kernel in sought}:
        missing = [i for i, kernel in enumerate(sought) if kernel.elements == elements and i not in found]
        # The reader's list of tensors need not be in the order of the operators: an order is only sure for one.
        left = [t for t in weights if t.elements == elements and t not in found.values()]
        if len(missing) == len(left) == 1:
            found[missing[0]] = left[0]
    return [found.get(index) for index in range(len(sought))], weights


def left_out(file: FileFacts, sought: Sequence[Sought], found: Sequence[StoredWeight | None]) -> frozenset[str]:
    """Returns the kernels that a file does not hold, as no output needs them: what only training used.

    Those that are there in parts, as of a recurrent layer, are not among them: then the file has no fewer numbers.
    """
    weights = [tensor for tensor in file.weights if tensor.kind == "weights"]
    if sum(tensor.elements for tensor in weights) >= sum(kernel.elements for kernel in sought):
        return frozenset()
    left = {tensor.elements for tensor in weights if tensor not in found}
    return frozenset(k.path for k, tensor in zip(sought, found) if tensor is None and k.elements not in left)


def multiplied(promise: Promise, file: FileFacts) -> Promise:
    """Returns a promise of multiply-accumulates as the file computes; of one with loops there is nothing to hold."""
    if any(operator.name == "WHILE" for operator in file.operators):
        note = "the file computes in a loop, whose rounds it does not tell: not counted"
        return replace(promise, measured=None, kept=None, note=note)
    return promise.found(file.macs)
