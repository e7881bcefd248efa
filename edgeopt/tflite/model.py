"""A `.tflite` file as frozen dataclasses: graph, tensors and operators; the weights stay views of the file's bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.tflite.sparse import SparseEncoding, expand
from edgeopt.vocabulary import Quantization, Shape, TensorSpec

# Bits of one element; strings, resources and variants have no fixed size.
BITS: dict[str, int] = {
    "int2": 2,
    "int4": 4,
    "uint4": 4,
    **dict.fromkeys(("bool", "int8", "uint8", "float8_e4m3fn", "float8_e5m2"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    "complex128": 128,
}


def printable(text: bytes | str | None) -> str:
    """Returns a name of an untrusted file with nothing in it that a terminal obeys: "a\x1b[2J" as "a\\x1b[2J".

    Names are the same wherever they come from, so every reader of them has to pass this.
    """
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


class Broken(ValueError):
    """A file contradicts itself; the message says where."""


# A sparse tensor stands for more than the file holds, but a claim beyond this factor is not believed.
_MOST_EXPANSION = 64


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        shape: as stored: free dimensions are 1 here and None in `signature`.
        quantization: None for tensors that are not quantized, and for those quantized in blocks.
        block_size: elements that share a scale along the last dimension; 0 when not quantized in blocks.
        block_scales: index of the tensor that holds these scales; -1 where there are none.
        buffer: index into the model's buffers.
        size_bytes: of its constant data; 0 for what is computed.
        stray_dimension: along which the file says that it is quantized, where it has no such dimension.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: Shape
    dtype: str
    quantization: Quantization | None
    block_size: int
    buffer: int
    size_bytes: int
    is_variable: bool
    sparsity: SparseEncoding | None
    stray_dimension: int | None = None
    block_scales: int = -1

    @property
    def elements(self) -> int:
        """Number of elements, whether they are stored or not."""
        return math.prod(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether its values stand in the file."""
        return self.size_bytes > 0

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating-point numbers."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def is_quantized(self) -> bool:
        """Whether it has scales: one, one for each channel, or one for each block."""
        return self.quantization is not None or self.block_size > 0

    @property
    def is_per_channel(self) -> bool:
        """Whether it has a scale for each slice."""
        return self.quantization is not None and len(self.quantization.scales) > 1

    @property
    def spec(self) -> TensorSpec:
        """What a caller of the model has to know of it."""
        return TensorSpec(self.name, self.signature, self.dtype, self.quantization)


@dataclass(frozen=True)
class Operator:
    """An operator: builtin name in capitals, or the name of a custom one.

    Attributes:
        code: index of its entry in the model's `codes`.
        inputs, outputs: tensor indices; -1 for an optional input that is absent.
        subgraphs: the subgraphs that a control-flow operator runs, in the schema's order.
        adjoint: BATCH_MATMUL reads its first operand transposed.
        asymmetric: a dynamic-range kernel quantizes its input with a zero point.
        keeps_dimensions: FULLY_CONNECTED keeps the leading dimensions of its input.
        options: what its kernel needs, by the schema's names in snake case: "stride_h", "padding" ("SAME"),
            "fused_activation_function" ("RELU6"), "keep_dims" …; see `reader.KERNEL_OPTIONS`.
    """

    index: int
    name: str
    version: int
    code: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: tuple[int, ...] = ()
    adjoint: bool = False
    asymmetric: bool = False
    keeps_dimensions: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatorCode:
    """An entry of the file's operator table; a runtime must know all of them, used or not."""

    name: str
    version: int
    custom: bool


@dataclass(frozen=True)
class Subgraph:
    """One graph; the first of a model is its main one."""

    index: int
    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]

    def operand(self, operator: Operator, position: int) -> Tensor | None:
        """Returns the operator's input at `position`, or None where there is none."""
        if position >= len(operator.inputs) or operator.inputs[position] < 0:
            return None
        return self.tensors[operator.inputs[position]]

    def result(self, operator: Operator) -> Tensor | None:
        """Returns the operator's first output, or None where it has none."""
        return self.tensors[operator.outputs[0]] if operator.outputs else None


@dataclass(frozen=True)
class Signature:
    """A named way to call a subgraph: its inputs and outputs as name → tensor index."""

    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Extent:
    """Where a buffer's bytes lie in the file."""

    offset: int
    size: int


@dataclass(frozen=True)
class TFLiteModel:
    """A parsed `.tflite` file.

    Attributes:
        metadata: name → index of its buffer.
        size_bytes: of the file.
        content: the file; with its buffers inside the flatbuffer, wherever they were, unless it has over 2 GB.
        outside_bytes: of the buffers that lie behind the flatbuffer in the file.
    """

    codes: tuple[OperatorCode, ...]
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    buffers: tuple[Extent, ...]
    metadata: dict[str, int]
    description: str
    size_bytes: int
    content: np.ndarray = field(repr=False, compare=False)
    outside_bytes: int = 0

    @property
    def main(self) -> Subgraph:
        """The subgraph that an interpreter runs."""
        return self.subgraphs[0]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The main subgraph's inputs, named as its signature names them."""
        return self._interface(self.main.inputs, outputs=False)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The main subgraph's outputs, named as its signature names them."""
        return self._interface(self.main.outputs, outputs=True)

    def data(self, tensor: Tensor) -> np.ndarray:
        """Returns the stored bytes of a constant tensor: uint8 [size_bytes], a view of the file."""
        return self.buffer(tensor.buffer)

    def buffer(self, index: int) -> np.ndarray:
        """Returns the bytes of a buffer: uint8 [size], a view of the file."""
        extent = self.buffers[index]
        return self.content[extent.offset : extent.offset + extent.size]

    def stored_values(self, tensor: Tensor) -> np.ndarray:
        """Returns the stored values of a constant tensor, flat; of a sparse one only what is stored.

        int2 and int4 come unpacked as int8, uint4 as uint8.

        Raises:
            ModelError: the tensor holds strings or resources.
        """
        raw, dtype = self.data(tensor), tensor.dtype
        if dtype not in BITS:
            raise ModelError(f"Expected a tensor of numbers, got {tensor.name!r} of {dtype}. Try another tensor.")
        if BITS[dtype] < 8:
            values = _unpack(raw, BITS[dtype], signed=not dtype.startswith("u"))
            return values if tensor.sparsity else values[: tensor.elements]
        if dtype.startswith(("bfloat16", "float8")):
            import ml_dtypes

            return raw.view(getattr(ml_dtypes, dtype))
        # A buffer may start at any byte, and its last element may be cut: views need neither.
        whole = raw[: raw.size - raw.size % (BITS[dtype] // 8)]
        return whole.view(np.dtype(dtype).newbyteorder("<"))

    def values(self, tensor: Tensor) -> np.ndarray:
        """Returns the values of a constant tensor in its shape, a sparse one expanded.

        Raises:
            ModelError: it holds no numbers, or its encoding contradicts its shape.
        """
        stored = self.stored_values(tensor)
        if tensor.sparsity is not None:
            zero = tensor.quantization.zero_points[0] if tensor.quantization else 0
            most = _MOST_EXPANSION * max(self.size_bytes, 1 << 16)
            try:
                return expand(stored, tensor.sparsity, tensor.shape, zero=zero, most=most)
            except ValueError as error:
                raise ModelError(
                    f"The sparse tensor {tensor.name!r} cannot be expanded: {error}. Try converting it again."
                ) from error
        if stored.size != tensor.elements:
            raise ModelError(
                f"Expected {tensor.elements} values stored in {tensor.name!r}, got {stored.size}. "
                "Try a constant tensor."
            )
        return stored.reshape(tensor.shape)

    def _interface(self, indices: tuple[int, ...], *, outputs: bool) -> tuple[TensorSpec, ...]:
        names: dict[int, str] = {}
        for signature in self.signatures:
            if signature.subgraph == 0 and not names:
                names = {i: name for name, i in (signature.outputs if outputs else signature.inputs).items()}
        specs = (self.main.tensors[i].spec for i in indices)
        return tuple(
            TensorSpec(names.get(i, spec.name), spec.shape, spec.dtype, spec.quantization)
            for i, spec in zip(indices, specs)
        )


def _unpack(raw: np.ndarray, bits: int, *, signed: bool) -> np.ndarray:
    """Returns packed numbers of 2 or 4 bits, lowest bits first, one a byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (raw[:, None] >> shifts & (2**bits - 1)).astype(np.uint8).reshape(-1)
    if not signed:
        return values
    # Shifted to the top of the byte and back, so that the sign bit fills in.
    return (values << (8 - bits)).view(np.int8) >> (8 - bits)
