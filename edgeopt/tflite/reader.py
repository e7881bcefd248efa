"""Reads a `.tflite` file: a path or its bytes go in, a TFLiteModel comes out, or a ModelError says what is wrong.

The file is untrusted: every index is checked, and what is read in all may not exceed what a file of its size holds.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.tflite.inlining import LARGEST_FLATBUFFER, inlined, outside
from edgeopt.tflite.model import (
    BITS,
    Broken,
    Extent,
    Operator,
    OperatorCode,
    Signature,
    Subgraph,
    Tensor,
    TFLiteModel,
    printable,
)
from edgeopt.tflite.sparse import SparseDimension, SparseEncoding
from edgeopt.vocabulary import Quantization

IDENTIFIER = b"TFL3"
# Bytes that a table takes at least: its entry in a vector, the way to its vtable, one field.
_TABLE_BYTES = 12
# What reading a corrupt flatbuffer raises: numbers outside the file, offsets that are not numbers, text not UTF-8.
CORRUPT = (struct.error, IndexError, ValueError, TypeError, OverflowError, KeyError, AttributeError, MemoryError)
_EMPTY = Extent(0, 0)
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive: perhaps a .keras model or an app",
    b"\x89HDF": "an HDF5 file: a Keras .h5 model?",
    b"vers": "text: a git-lfs pointer? Then `git lfs pull` fetches the model",
    b"\x7fELF": "a program or library",
    b"\x1f\x8b": "gzip-compressed: unpack it first",
}


# Of the bytes whose parsed form is kept.
_LARGEST_KEPT = 2**25


def read(source: Path | str | bytes) -> TFLiteModel:
    """Reads a `.tflite` file; buffers that lie behind its flatbuffer are inside of it in what comes out.

    Raises:
        ModelError: there is no such file, it is no `.tflite` file, or it is truncated or corrupt.
    """
    # Whoever changes a file layer by layer reads it a dozen times before it is another.
    return _kept_bytes(source) if isinstance(source, bytes) and len(source) <= _LARGEST_KEPT else _parsed(source)


def _parsed(source: Path | str | bytes) -> TFLiteModel:
    content, name = _content(source)
    _check_kind(content, name)
    try:
        whole, outside_bytes = inlined(content)
        return replace(_Reader(whole).model(), size_bytes=content.size, outside_bytes=outside_bytes)
    except CORRUPT as error:
        raise ModelError(
            f"{name} is truncated or corrupt ({_reason(error)}). Try converting or copying it again."
        ) from error


def read_once(path: Path) -> TFLiteModel:
    """As `read` of a path, whose last files are kept parsed while they stay as they are.

    Raises:
        ModelError: as `read`.
    """
    try:
        found = path.stat()
    except OSError:
        return read(path)
    return _kept(path, found.st_ino, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=3)
def _kept_bytes(content: bytes) -> TFLiteModel:
    return _parsed(content)


# A file is compared with one other at most; more would be memory that nobody asks for.
@functools.lru_cache(maxsize=2)
def _kept(path: Path, *identity: int) -> TFLiteModel:
    return read(path)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, Broken) else "it points outside of itself"


def _content(source: Path | str | bytes) -> tuple[np.ndarray, str]:
    if isinstance(source, bytes):
        return np.frombuffer(source, np.uint8), "The model"
    path = Path(source)
    try:
        if path.is_dir():
            raise ModelError(
                f"Expected a .tflite file, got the folder {path}. Try the file inside it, or `edgeopt convert`."
            )
        if path.stat().st_size <= LARGEST_FLATBUFFER:
            return np.frombuffer(path.read_bytes(), np.uint8), str(path)
        # Mapped: flatbuffers cannot be longer, what follows are buffers addressed from its start.
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8), str(path)
    except FileNotFoundError:
        raise ModelError(f"Expected a .tflite file, got {path}, which does not exist. Try another path.") from None
    except OSError as error:
        raise ModelError(
            f"Expected a readable .tflite file, got {path}: {error.strerror}. Try another path."
        ) from error


def _check_kind(content: np.ndarray, name: str) -> None:
    head = bytes(content[:8])
    if head[4:8] == IDENTIFIER:
        return
    kind = next((words for start, words in _OTHER_KINDS.items() if head.startswith(start)), "")
    if not kind:
        kind = "an empty file" if not content.size else f"a file that starts with {head!r}"
    raise ModelError(
        f"{name} is no .tflite file: expected 'TFL3' in bytes 4 to 8, got {kind}. "
        "Try a file made by `edgeopt convert` or another TensorFlow Lite converter."
    )


class _Reader:
    def __init__(self, content: np.ndarray) -> None:
        schema = frameworks.load("litert_schema")
        self._schema = schema
        self._content = content
        self._size = content.size
        # A memoryview, because struct unpacks from it faster than from an array.
        self._root = schema.Model.GetRootAs(content.data, 0)
        # Shared vectors are legal, but one that is read over and over is a bomb. Zero points of all layers are one
        # vector, twice as long as the scales of each: a file without weights may tell three times what it holds.
        self._left = 4 * min(self._size, LARGEST_FLATBUFFER) + 4096
        self._dtypes = _names(schema.TensorType)
        self._builtins = _names(schema.BuiltinOperator)
        self._options = _names(schema.BuiltinOptions)
        self._options2 = _names(schema.BuiltinOptions2)
        self._paddings = _names(schema.Padding)
        self._activations = _names(schema.ActivationFunctionType)

    def model(self) -> TFLiteModel:
        root = self._root
        if root.Version() != 3:
            raise Broken(f"schema version {root.Version()}, expected 3")
        # The first buffer is that of all tensors without data; a file without any buffers leaves it out.
        self._buffers = tuple(self._extent(b) for b in self._tables(root.BuffersLength(), root.Buffers)) or (_EMPTY,)
        self._codes = tuple(self._code(c) for c in self._tables(root.OperatorCodesLength(), root.OperatorCodes))
        self._subgraphs = root.SubgraphsLength()
        graphs = self._tables(self._subgraphs, root.Subgraphs)
        subgraphs = tuple(self._subgraph(i, graph) for i, graph in enumerate(graphs))
        if not subgraphs:
            raise Broken("it has no graph")
        signatures = self._tables(root.SignatureDefsLength(), root.SignatureDefs)
        metadata = {
            self._text(m.Name()): self._index(m.Buffer(), len(self._buffers), "metadata buffer")
            for m in self._tables(root.MetadataLength(), root.Metadata)
        }
        return TFLiteModel(
            codes=self._codes,
            subgraphs=subgraphs,
            signatures=tuple(self._signature(s, subgraphs) for s in signatures),
            buffers=self._buffers,
            metadata=metadata,
            description=self._text(root.Description()),
            size_bytes=self._size,
            content=self._content,
        )

    def _spend(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise Broken("its parts are longer than itself")

    def _tables(self, count: int, get: Callable[[int], Any]) -> Iterator[Any]:
        self._spend(count * _TABLE_BYTES)
        return (get(i) for i in range(count))

    def _numbers(self, vector: Any) -> tuple[Any, ...]:
        # The generated accessors answer 0 where there is no vector.
        if isinstance(vector, int):
            return ()
        self._spend(vector.nbytes)
        return tuple(vector.tolist())

    def _text(self, value: bytes | None) -> str:
        self._spend(len(value or b""))
        return printable(value)

    @staticmethod
    def _index(value: int, count: int, what: str, *, lowest: int = 0) -> int:
        if not lowest <= value < count:
            raise Broken(f"{what} {value} of {count}")
        return value

    def _extent(self, buffer: Any) -> Extent:
        extent = outside(buffer)
        if extent is None and buffer.DataLength():
            extent = Extent(buffer._tab.Vector(buffer._tab.Offset(4)), buffer.DataLength())
        if extent is None:
            return _EMPTY
        if extent.offset + extent.size > self._size:
            raise Broken(f"a buffer ends at byte {extent.offset + extent.size} of {self._size}")
        return extent

    def _code(self, code: Any) -> OperatorCode:
        # Codes under 127 are written to the old one-byte field too, and old files have only that.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self._builtins.get(number, f"BUILTIN_{number}")
        if name == "CUSTOM":
            return OperatorCode(self._text(code.CustomCode()) or "CUSTOM", code.Version(), True)
        return OperatorCode(name, code.Version(), False)

    def _subgraph(self, index: int, graph: Any) -> Subgraph:
        tensors = tuple(self._tensor(i, t) for i, t in enumerate(self._tables(graph.TensorsLength(), graph.Tensors)))
        operators = tuple(
            self._operator(i, op, len(tensors))
            for i, op in enumerate(self._tables(graph.OperatorsLength(), graph.Operators))
        )
        inputs, outputs = (self._numbers(v) for v in (graph.InputsAsNumpy(), graph.OutputsAsNumpy()))
        for tensor in inputs + outputs:
            self._index(tensor, len(tensors), "graph input or output")
        return Subgraph(index, self._text(graph.Name()), tensors, inputs, outputs, operators)

    def _tensor(self, index: int, tensor: Any) -> Tensor:
        name = self._text(tensor.Name())
        if tensor.Type() not in self._dtypes:
            raise Broken(f"tensor {name!r} has the unknown type {tensor.Type()}; a newer ai-edge-litert may know it")
        dtype = self._dtypes[tensor.Type()].lower()
        shape = self._numbers(tensor.ShapeAsNumpy())
        if any(d < 0 for d in shape):
            raise Broken(f"tensor {name!r} has shape {shape}")
        signature = self._numbers(tensor.ShapeSignatureAsNumpy())
        extent = self._buffers[self._index(tensor.Buffer(), len(self._buffers), "buffer")]
        quantization, block_size, block_scales = self._quantization(tensor.Quantization(), name, shape)
        sparsity = self._sparsity(tensor.Sparsity())
        result = Tensor(
            index=index,
            name=name,
            shape=shape,
            signature=tuple(None if d < 0 else d for d in signature) if len(signature) == len(shape) else shape,
            dtype=dtype,
            quantization=quantization,
            block_size=block_size,
            buffer=tensor.Buffer(),
            size_bytes=extent.size,
            is_variable=bool(tensor.IsVariable()),
            sparsity=sparsity,
            stray_dimension=_stray_dimension(tensor.Quantization(), shape),
            block_scales=block_scales,
        )
        if extent.size and sparsity is None and dtype in BITS:
            needed = -(-result.elements * BITS[dtype] // 8)
            if needed != extent.size:
                raise Broken(f"tensor {name!r}, {dtype}{list(shape)}, needs {needed} bytes and has {extent.size}")
        return result

    def _quantization(self, table: Any, name: str, shape: tuple[int, ...]) -> tuple[Quantization | None, int, int]:
        """Returns the scales of a tensor, or the size of its blocks and the tensor that holds their scales."""
        if table is None:
            return None, 0, -1
        if table.DetailsType() == self._schema.QuantizationDetails.BlockwiseQuantization:
            blockwise = self._schema.BlockwiseQuantization()
            union = table.Details()
            blockwise.Init(union.Bytes, union.Pos)
            return None, blockwise.BlockSize(), blockwise.Scales()
        scales = self._numbers(table.ScaleAsNumpy())
        if not scales:
            return None, 0, -1
        zero_points = tuple(int(z) for z in self._numbers(table.ZeroPointAsNumpy())) or (0,) * len(scales)
        axis = None
        if len(scales) > 1:
            # Of a vector there is one dimension; converters of 2019 gave a bias that of its weights.
            dimension = table.QuantizedDimension() if len(shape) > 1 else 0
            axis = self._index(dimension, len(shape), f"quantized dimension of {name!r}")
            if shape[axis] != len(scales) or len(zero_points) not in (1, len(scales)):
                raise Broken(f"tensor {name!r} of shape {shape} has {len(scales)} scales along dimension {axis}")
        return Quantization(scales, zero_points, axis), 0, -1

    def _sparsity(self, table: Any) -> SparseEncoding | None:
        if table is None:
            return None
        before = self._left
        dimensions = tuple(
            self._sparse_dimension(d) for d in self._tables(table.DimMetadataLength(), table.DimMetadata)
        )
        return SparseEncoding(
            order=self._numbers(table.TraversalOrderAsNumpy()),
            blocks=self._numbers(table.BlockMapAsNumpy()),
            dimensions=dimensions,
            index_bytes=before - self._left,
        )

    def _sparse_dimension(self, table: Any) -> SparseDimension:
        if table.Format() == self._schema.DimensionType.DENSE:
            return SparseDimension(table.DenseSize())
        return SparseDimension(
            table.DenseSize(),
            self._sparse_index(table.ArraySegmentsType(), table.ArraySegments()),
            self._sparse_index(table.ArrayIndicesType(), table.ArrayIndices()),
        )

    def _sparse_index(self, kind: int, union: Any) -> np.ndarray:
        names = _names(self._schema.SparseIndexVector)
        if union is None or names.get(kind, "NONE") == "NONE":
            raise Broken("a sparse dimension has no index")
        vector = getattr(self._schema, names[kind])()
        vector.Init(union.Bytes, union.Pos)
        values = vector.ValuesAsNumpy()
        if isinstance(values, int):
            return np.zeros(0, np.int32)
        self._spend(values.nbytes)
        return values

    def _operator(self, index: int, operator: Any, tensors: int) -> Operator:
        number = self._index(operator.OpcodeIndex(), len(self._codes), "operator code")
        code = self._codes[number]
        inputs, outputs = (self._numbers(v) for v in (operator.InputsAsNumpy(), operator.OutputsAsNumpy()))
        for tensor in inputs:
            self._index(tensor, tensors, f"input of {code.name}", lowest=-1)
        for tensor in outputs:
            self._index(tensor, tensors, f"output of {code.name}")
        return Operator(
            index, code.name, code.version, number, code.custom, inputs, outputs, **self._relevant_options(operator)
        )

    def _relevant_options(self, operator: Any) -> dict[str, Any]:
        kind = self._options.get(operator.BuiltinOptionsType(), "NONE")
        union = operator.BuiltinOptions()
        if self._options2.get(operator.BuiltinOptions2Type()) == "StableHLOCompositeOptions":
            kind, union = "StableHLOCompositeOptions", operator.BuiltinOptions2()
        if union is None or (kind not in _OPTIONS and kind not in KERNEL_OPTIONS):
            return {}
        options = getattr(self._schema, kind)()
        options.Init(union.Bytes, union.Pos)
        relevant = _OPTIONS[kind](options) if kind in _OPTIONS else {}
        if kind in KERNEL_OPTIONS:
            relevant["options"] = {
                _snake(field): self._option(kind, field, getattr(options, field)()) for field in KERNEL_OPTIONS[kind]
            }
        for graph in relevant.get("subgraphs", ()):
            self._index(graph, self._subgraphs, "called graph")
        return relevant

    def _option(self, kind: str, field: str, value: Any) -> Any:
        if value is None or isinstance(value, bytes):
            return self._text(value)
        names = {"Padding": self._paddings, "FusedActivationFunction": self._activations}.get(field)
        if names is None:
            return value
        if value not in names:
            raise Broken(f"{kind} has the unknown {_snake(field)} {value}")
        return names[value]

    def _signature(self, signature: Any, subgraphs: tuple[Subgraph, ...]) -> Signature:
        graph = subgraphs[self._index(signature.SubgraphIndex(), len(subgraphs), "graph of a signature")]

        def tensor_map(count: int, get: Callable[[int], Any]) -> dict[str, int]:
            named = {
                self._text(entry.Name()): self._index(entry.TensorIndex(), len(graph.tensors), "tensor of a signature")
                for entry in self._tables(count, get)
            }
            if len(named) < count:
                raise Broken("a signature has one name for two tensors")
            return named

        return Signature(
            key=self._text(signature.SignatureKey()),
            subgraph=graph.index,
            inputs=tensor_map(signature.InputsLength(), signature.Inputs),
            outputs=tensor_map(signature.OutputsLength(), signature.Outputs),
        )


def _dynamic_range(options: Any) -> dict[str, Any]:
    return {"asymmetric": bool(options.AsymmetricQuantizeInputs())}


# The options that counting and versions depend on, by the schema's name of their table.
_OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "WhileOptions": lambda o: {"subgraphs": (o.CondSubgraphIndex(), o.BodySubgraphIndex())},
    "IfOptions": lambda o: {"subgraphs": (o.ThenSubgraphIndex(), o.ElseSubgraphIndex())},
    "CallOnceOptions": lambda o: {"subgraphs": (o.InitSubgraphIndex(),)},
    "StableHLOCompositeOptions": lambda o: {"subgraphs": (o.DecompositionSubgraphIndex(),)},
    "BatchMatMulOptions": lambda o: {"adjoint": bool(o.AdjX()), **_dynamic_range(o)},
    "FullyConnectedOptions": lambda o: {"keeps_dimensions": bool(o.KeepNumDims()), **_dynamic_range(o)},
    "UnidirectionalSequenceLSTMOptions": _dynamic_range,
    "LSTMOptions": _dynamic_range,
    "SVDFOptions": _dynamic_range,
}

_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_DILATION = ("DilationHFactor", "DilationWFactor")

# The options that kernels need: numbers, texts, and the names of paddings and activations.
KERNEL_OPTIONS: dict[str, tuple[str, ...]] = {
    "Conv2DOptions": (*_WINDOW, *_DILATION),
    "DepthwiseConv2DOptions": (*_WINDOW, *_DILATION, "DepthMultiplier"),
    "TransposeConvOptions": _WINDOW,
    "Pool2DOptions": (*_WINDOW, "FilterHeight", "FilterWidth"),
    "FullyConnectedOptions": ("FusedActivationFunction", "WeightsFormat", "KeepNumDims"),
    "AddOptions": ("FusedActivationFunction",),
    "SubOptions": ("FusedActivationFunction",),
    "MulOptions": ("FusedActivationFunction",),
    "DivOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "ReducerOptions": ("KeepDims",),
    "SoftmaxOptions": ("Beta",),
    "LeakyReluOptions": ("Alpha",),
    "ResizeBilinearOptions": ("AlignCorners", "HalfPixelCenters"),
    "ResizeNearestNeighborOptions": ("AlignCorners", "HalfPixelCenters"),
    "StridedSliceOptions": ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    "SplitOptions": ("NumSplits",),
    "VarHandleOptions": ("Container", "SharedName"),
    "UnidirectionalSequenceLSTMOptions": ("FusedActivationFunction",),
}


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def _stray_dimension(table: Any, shape: tuple[int, ...]) -> int | None:
    if table is None or not shape or not table.ScaleLength() or table.QuantizedDimension() in range(len(shape)):
        return None
    return int(table.QuantizedDimension())


def _names(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if not name.startswith("_")}
