"""What an operator becomes: calls of C kernels with the fields of their structs; and what lowering one may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeopt.c99.memory import Elementwise, Trace
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel

# A number, the values of a C array, those of a const table, or a struct of them.
Field = int | float | tuple[int, ...] | np.ndarray | Mapping[str, Any] | None


class Unsupported(Exception):
    """No kernel for this operator or this form of it; the message says which."""


@dataclass(frozen=True)
class Packing:
    """Weights of a call in fewer bits than 8.

    Attributes:
        bits: of a weight.
        on_grid: whether weights are steps of a grid; they are looked up in a codebook otherwise.
        saved_bytes: of const data, tables counted.
        more_instructions: for looking up, by `Call.instructions`' measure; grids take none.
    """

    bits: int
    on_grid: bool
    saved_bytes: int
    more_instructions: int


@dataclass(frozen=True)
class Call:
    """One call of a kernel: `kernel(&fields, inputs..., output, scratch)`.

    Attributes:
        kernel: name of the function and of its file in `kernels`.
        fields: of the kernel's struct.
        inputs: tensors.
        output: tensor.
        scratch_bytes: memory that it needs while it runs.
        traces: for each input that the output may share memory with, how.
        has_direction: whether the struct has a field `backward`, set once the plan is made.
        rounding: of the kernel's `requantize`, "upward" or as in Node; empty for that of the node.
        instructions: about how many an inference takes on a Cortex-M4, unpacked; 0 for what hardly counts.
        packing: of its weights, where they are packed.
    """

    kernel: str
    fields: Mapping[str, Field]
    inputs: tuple[int, ...]
    output: int
    scratch_bytes: int = 0
    traces: Mapping[int, Trace | Elementwise] = field(default_factory=dict)
    has_direction: bool = False
    rounding: str = ""
    instructions: int = 0
    packing: Packing | None = None


@dataclass(frozen=True)
class Alias:
    """The operator's output is its input under another name."""

    source: int
    output: int


@dataclass(frozen=True, eq=False)
class Folded:
    """The operator's output is known while generating."""

    output: int
    values: np.ndarray


@dataclass(frozen=True)
class Node:
    """An operator in its graph.

    Attributes:
        folded: values of tensors that were computed while generating, by tensor.
        rounding: "tflm", "xnnpack", or "builtin", which is LiteRT's own kernels: these compute what XNNPACK leaves.
        form: which of `packing.forms` the weights take; None for one byte each.
    """

    model: TFLiteModel
    graph: Subgraph
    operator: Operator
    folded: Mapping[int, np.ndarray]
    rounding: str
    form: int | None

    def input(self, position: int) -> Tensor:
        """Returns an operand that has to be there, as `checking` has found it."""
        return self.graph.tensors[self.operator.inputs[position]]

    @property
    def output(self) -> Tensor:
        """Returns the first output."""
        return self.graph.tensors[self.operator.outputs[0]]

    def option(self, name: str) -> Any:
        """Returns an option of the operator, as `Operator.options` names it; the schema's default where none is set."""
        return self.operator.options.get(name, _DEFAULTS.get(name, 0))

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether the values are known while generating."""
        return tensor.is_constant or tensor.index in self.folded

    def constant(self, position: int) -> np.ndarray:
        """Returns the values of a constant operand.

        Raises:
            Unsupported: they are computed.
        """
        tensor = self.input(position)
        if tensor.index in self.folded:
            return self.folded[tensor.index]
        if not tensor.is_constant:
            raise Unsupported(f"{self.operator.name} with operand {position} computed instead of constant")
        return self.model.values(tensor)

    def expect(self, condition: bool, what: str) -> None:
        """Refuses shapes that contradict one another, which a kernel would read or write beyond.

        Raises:
            Unsupported: the condition does not hold.
        """
        if not condition:
            raise Unsupported(f"{self.operator.name} with {what}")

    def require(self, *dtypes: str) -> str:
        """Returns the dtype that the first input and the output share.

        Raises:
            Unsupported: they differ, or are none of `dtypes`.
        """
        source, target = self.input(0).dtype, self.output.dtype
        if source != target or source not in dtypes:
            raise Unsupported(f"{self.operator.name} from {source} to {target}")
        return source


# Where the schema's default is not 0.
_DEFAULTS: dict[str, Any] = {
    "padding": "SAME",
    "fused_activation_function": "NONE",
    "dilation_h_factor": 1,
    "dilation_w_factor": 1,
    "weights_format": 0,
}


def elementwise(node: Node, *inputs: Tensor) -> dict[int, Elementwise]:
    """Returns how the output may share the memory of those inputs that have as many elements and are computed."""
    count, width = node.output.elements, np.dtype(node.output.dtype).itemsize
    return {
        tensor.index: Elementwise(count, width, np.dtype(tensor.dtype).itemsize)
        for tensor in inputs
        if tensor.elements == count and not node.is_constant(tensor)
    }
