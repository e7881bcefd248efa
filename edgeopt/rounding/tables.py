"""Two files go in; tables of embeddings in groups come out with scales that leave them the least error.

What is looked up goes through all layers, and what it has lost none of them can take back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgeopt.rounding.gptq import block_steps
from edgeopt.rounding.grid import Grid
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.pairing import LEAST_LIKENESS, likeness
from edgeopt.tflite.stored_weights import StoredWeights, stored_tensor, with_tables

KIND = "EMBEDDING_LOOKUP"


@dataclass(frozen=True)
class Table:
    """A table of embeddings.

    Attributes:
        name: of the tensor that is looked up into.
        tensor: index of its own, in the quantized file's main graph, and its name.
        weights: of the float file, [tokens, columns].
        stored: integers in groups.
    """

    name: str
    tensor: tuple[int, str]
    weights: np.ndarray
    stored: StoredWeights

    def error(self, stored: StoredWeights) -> float:
        """Returns the squared error of what is stored as a share of the table's variance."""
        spread = float(self.weights.var(dtype=np.float64)) or 1.0
        return float(np.square(stored.dequantized - self.weights, dtype=np.float64).mean()) / spread

    @property
    def best(self) -> StoredWeights:
        """The nearest integers in units of the scales that leave the least error."""
        grid, weights = Grid.of(self.stored.bits), self.weights[None].astype(np.float64)
        steps = block_steps(weights, np.eye(weights.shape[2])[None], grid, self.stored.block)
        values = grid.nearest(weights, steps)[0].astype(np.int8)
        return replace(self.stored, values=values, scales=steps[0, :, :: self.stored.block].astype(np.float32))


def tables(floating: TFLiteModel, quantized: TFLiteModel) -> Iterator[Table]:
    """Yields the tables in groups of a quantized file that a float file has, too."""
    ours = [tensor for tensor in floating.main.tensors if tensor.is_constant and tensor.dtype == "float32"]
    for operator in quantized.main.operators:
        weight = quantized.main.operand(operator, 1) if operator.name == KIND else None
        stored = None if weight is None or not weight.block_size else stored_tensor(quantized, weight)
        if weight is None or stored is None:
            continue
        alike = [
            (likeness(values, stored.dequantized), values)
            for tensor in ours
            if tensor.shape == weight.shape
            for values in [floating.values(tensor)]
        ]
        most, values = max(alike, key=lambda each: each[0], default=(0.0, None))
        if values is not None and most >= LEAST_LIKENESS:
            name = quantized.main.tensors[operator.outputs[0]].name
            yield Table(name, (weight.index, weight.name), values, stored)


def written(content: bytes, table: Table, stored: StoredWeights) -> bytes:
    """Returns the file with other integers and scales in a table."""
    return with_tables(content, {table.tensor[0]: stored})
