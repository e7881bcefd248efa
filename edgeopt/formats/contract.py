"""What everybody asks of a converted file: a reader of its format makes FileFacts, all others see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeopt.vocabulary import OperatorUse, Shape, StoredWeight, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.tflite.op_versions import RuntimeNeed


@dataclass(frozen=True)
class OperatorFacts:
    """An operator.

    Attributes:
        name: as the format calls its kind.
        layer: name of the tensor that it writes.
        output_shape: of that tensor.
        float_arithmetic: whether what it computes comes out in floats; what only widens integers does not count.
        macs: multiply-accumulates of one inference, the bodies of loops once.
        weights: the stored weights and biases that it computes with; another operator may share them.
        version: as the file asks for it; None where the format knows no versions of operators.
        kind: "convolution", "pointwise", "depthwise", "transposed", "dense", "attention", "embedding", "recurrent",
            "loop" or "other".
        graph: which graph of the file it is in; 0 is the one that runs.
        reads, writes: what it takes of other operators or of the inputs, and what it makes; each tensor under a name
            of its own in the graph, which need not be the one that people know it by.
    """

    name: str
    layer: str
    output_shape: Shape
    float_arithmetic: bool
    macs: int
    weights: tuple[StoredWeight, ...] = ()
    version: int | None = None
    graph: int = 0
    kind: str = "other"
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileFacts:
    """A file.

    Attributes:
        format: a key of `formats.FORMATS`.
        inputs, outputs: as a caller has to know them, with their quantization.
        operators: in the order they run; those of further graphs after them.
        weights: everything that is stored, constants of the graph included.
        macs: multiply-accumulates of one inference, with free dimensions as 1.
        bytes_by_kind: where the bytes are: "weights", "biases", "constants", "metadata", "graph"; they add up to the
            file.
        size_bytes: of the file.
        computes: how, in words: "full int8, float32 inputs and outputs".
        runtime: the oldest that loads it, where the format can tell.
        notes: what else there is to say of it.
        is_quantized: whether anything in it, stored or computed, has a scale.
        read: returns the stored values of one of `weights` as `values` says.
        parameters_in_code: trained numbers that no tensor holds, as in compiled code.
        in_half: whether its floats are computed in float16, not stored in it alone.
        input_tensors, output_tensors: `inputs` and `outputs` as operators read and write them.
    """

    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[OperatorFacts, ...]
    weights: tuple[StoredWeight, ...]
    macs: int
    bytes_by_kind: Mapping[str, int]
    size_bytes: int
    is_quantized: bool
    read: Callable[[StoredWeight], np.ndarray] = field(repr=False, compare=False)
    computes: str = ""
    runtime: RuntimeNeed | None = None
    notes: tuple[str, ...] = ()
    parameters_in_code: int = 0
    in_half: bool = False
    input_tensors: tuple[str, ...] = ()
    output_tensors: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return self.parameters_in_code + sum(t.elements for t in self.weights if t.is_parameter)

    @property
    def sparsity(self) -> float | None:
        """Share of exactly-zero elements over all weights (biases left out), 0 to 1; None without weights."""
        counted = [t for t in self.weights if t.kind == "weights" and t.zeros is not None]
        elements = sum(t.elements for t in counted)
        return sum(t.zeros or 0 for t in counted) / elements if elements else None

    @property
    def operator_uses(self) -> tuple[OperatorUse, ...]:
        """Each operator and version with the number of its uses, most used first."""
        uses = Counter((operator.name, operator.version) for operator in self.operators)
        return tuple(OperatorUse(name, version, count) for (name, version), count in uses.most_common())

    @property
    def float_operators(self) -> tuple[str, ...]:
        """Names of the operators that compute in floats, one for each, in the order they run."""
        return tuple(operator.name for operator in self.operators if operator.float_arithmetic)

    @property
    def indices(self) -> frozenset[str]:
        """Names of the inputs of floats that say which rows of a stored table are meant, as Keras makes them."""
        floats = zip(self.input_tensors, self.inputs)
        origins = {tensor: {spec.name} for tensor, spec in floats if spec.dtype.startswith("float")}
        found: set[str] = set()
        for operator in (one for one in self.operators if one.graph == 0):
            read = set().union(*(origins.get(tensor, ()) for tensor in operator.reads))
            if operator.kind == "embedding" and operator.weights:
                found |= read
            elif operator.kind == "other":
                origins |= dict.fromkeys(operator.writes, read)
        return frozenset(found)

    def values(self, weight: StoredWeight) -> np.ndarray | None:
        """Returns what is stored of a weight, [output channels, …, input channels]; it is read from the file each time.

        Integers are as stored. None where a sparse encoding leaves zeros out.
        """
        return None if weight.encoding else self.read(weight)
