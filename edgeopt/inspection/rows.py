"""A row of an inspection: one operator of a file or one call of a layer."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.vocabulary import Shape


@dataclass(frozen=True)
class Row:
    """One operator or layer.

    Attributes:
        name: the layer's, or the first of the tensor's that the operator writes.
        kind: operator name or Keras class.
        version: of the operator; None for layers.
        parameters: numbers in its weights and biases, shared ones included.
        macs: multiply-accumulates of one inference.
        weight_dtype: as stored, "" without weights.
        sparsity: share of its weights that are exactly zero, 0 to 1; None without weights.
        unique_weights: distinct values in its largest weight (a layer: in any weight); None without weights.
        note: what else there is to say.
    """

    index: int
    name: str
    kind: str
    version: int | None
    output_shape: Shape
    parameters: int
    macs: int
    weight_dtype: str
    sparsity: float | None
    unique_weights: int | None
    note: str = ""
