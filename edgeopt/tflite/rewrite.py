"""Small changes to a `.tflite` file: bytes go in, bytes come out; the graph stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.tflite import op_versions, reader
from edgeopt.tflite.inlining import LARGEST_FLATBUFFER
from edgeopt.tflite.model import TFLiteModel, printable

# Kernels and TFLM read weights in place; the schema asks for this alignment.
_ALIGNMENT = 16
# What converters write about themselves: it changes with the converter's version, not with the model.
_CONVERTER_METADATA = ("CONVERSION_METADATA", "min_runtime_version")


def with_metadata(content: bytes, name: str, payload: bytes) -> bytes:
    """Returns the file with the metadata entry `name` holding `payload`, replaced or added.

    Raises:
        ModelError: see `changed`.
    """

    def change(model: Any, schema: Any) -> None:
        entry = next((m for m in model.metadata or [] if m.name == name.encode()), None)
        if entry is None:
            entry = schema.MetadataT()
            entry.name = name
            model.metadata = [*(model.metadata or []), entry]
        # Buffer 0 is that of all tensors without data.
        if entry.buffer in {0, *_used(model, but=entry)}:
            entry.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
        model.buffers[entry.buffer].data = payload

    return changed(content, change)


def with_truthful_versions(content: bytes) -> bytes:
    """Returns the file with operator versions raised to what the operands demand (`op_versions.DEMANDS`).

    An old runtime then refuses the file where it would have computed it wrongly. Unchanged where all is true already.
    """
    versions = op_versions.truthful_versions(reader.read(content))

    def change(model: Any, schema: Any) -> None:
        for code, version in versions.items():
            model.operatorCodes[code].version = version

    return changed(content, change) if versions else content


def without_blocks(content: bytes) -> bytes:
    """Returns the file with weights that have a scale for each block as the float32 numbers that they stand for.

    Every kernel computes with those; with the blocks only XNNPACK's does, the others take them and give garbage.
    Unchanged where there are none.

    Raises:
        ModelError: see `changed`; a tensor has other scales than its blocks need.
    """
    parsed = reader.read(content)
    blocked = [(g, t) for g, graph in enumerate(parsed.subgraphs) for t in graph.tensors if t.block_size]

    def change(model: Any, schema: Any) -> None:
        for graph, stored in blocked:
            tensors = model.subgraphs[graph].tensors
            index, others = tensors[stored.index].quantization.details.scales, parsed.subgraphs[graph].tensors
            scales = parsed.values(others[index]) if 0 <= index < len(others) else np.empty(0)
            if scales.size * stored.block_size != stored.elements:
                raise ModelError(
                    f"Expected a scale for every {stored.block_size} of the {stored.elements} numbers of "
                    f"{stored.name!r}, got {scales.size}. Try converting it again."
                )
            values = parsed.values(stored).reshape(-1, stored.block_size) * scales.astype(np.float32).reshape(-1, 1)
            store_floats(model, schema, tensors[stored.index], values)

    return changed(content, change) if blocked else content


def store_floats(model: Any, schema: Any, tensor: Any, values: np.ndarray) -> None:
    """Puts numbers, as float32 and in a buffer of their own, into a tensor of a parsed file."""
    tensor.type, tensor.quantization, tensor.sparsity = schema.TensorType.FLOAT32, None, None
    tensor.buffer = add_buffer(model, schema, values.astype(np.float32))


def add_buffer(model: Any, schema: Any, values: np.ndarray) -> int:
    """Adds a buffer of these very numbers to a parsed file; that of a tensor may be another's, too."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def operator_code(model: Any, schema: Any, name: str) -> int:
    """Returns the place of an operator's code, of version 1, in a parsed file, which gets one where it has none."""
    number = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == number and code.version == 1:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def without_sparsity(content: bytes) -> bytes:
    """Returns the file with all zeros of its weights written out, and without what would do that at each inference.

    Unchanged where no zeros are left out.

    Raises:
        ModelError: see `changed` and `TFLiteModel.values`.
    """
    parsed = reader.read(content)
    sparse = [(g, t) for g, graph in enumerate(parsed.subgraphs) for t in graph.tensors if t.sparsity is not None]

    def change(model: Any, schema: Any) -> None:
        for number, stored in sparse:
            tensor = model.subgraphs[number].tensors[stored.index]
            tensor.sparsity, tensor.buffer = None, add_buffer(model, schema, parsed.values(stored))
        for graph, read in zip(model.subgraphs, parsed.subgraphs):
            written = {one.outputs[0]: one.inputs[0] for one in read.operators if one.name == "DENSIFY"}
            kept = [one.index for one in read.operators if one.name != "DENSIFY"]
            graph.operators = [graph.operators[index] for index in kept]
            for operator in graph.operators:
                operator.inputs = [written.get(int(index), int(index)) for index in operator.inputs]
            for index in written:
                graph.tensors[index].buffer = 0  # the empty one: nothing writes this tensor any more
        forget_unused_codes(model)
        drop_unused_buffers(model)

    return changed(content, change) if sparse else content


def normalized(content: bytes) -> bytes:
    """Returns the file without what its converter says of itself, so that two conversions compare by their bytes."""

    def change(model: Any, schema: Any) -> None:
        model.description = None
        drop_metadata(model, keep=lambda name: name not in _CONVERTER_METADATA)

    return changed(content, change)


def compact(content: bytes) -> bytes:
    """Returns the file with vectors that are alike stored once, and without the ranges that scales came from.

    A tensor quantized per channel carries as many zero points, all zero, of 8 bytes each; converters write them anew
    for every kernel and bias. In int8 files of small networks they are a tenth to a quarter of the bytes.
    """

    def change(model: Any, schema: Any) -> None:
        for tensor in (tensor for subgraph in model.subgraphs for tensor in subgraph.tensors or []):
            ranges = tensor.quantization
            if ranges is not None and ranges.scale is not None and len(ranges.scale):
                ranges.min = ranges.max = None

    whole = inlined(content)
    return min(whole, changed(whole, change), key=len)


def drop_metadata(model: Any, keep: Callable[[str], bool]) -> None:
    """Takes the metadata entries whose name `keep` does not want out of a parsed file, with what only they hold."""
    model.metadata = [entry for entry in model.metadata or [] if keep((entry.name or b"").decode("utf-8", "replace"))]
    drop_unused_buffers(model)


def without_marks(content: bytes, marks: Collection[str]) -> bytes:
    """Returns the file without the metadata of these names; unchanged where it has none of them."""
    if not any(mark.encode() in content for mark in marks):
        return content
    return changed(content, lambda model, schema: drop_metadata(model, lambda name: name not in marks))


def drop_unused_buffers(model: Any) -> None:
    """Takes the buffers that nothing names out of a parsed file."""
    kept = sorted({0, *_used(model)})
    model.buffers = [model.buffers[index] for index in kept]
    numbers = {old: new for new, old in enumerate(kept)}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        tensor.buffer = numbers[tensor.buffer]
    for entry in model.metadata or []:
        entry.buffer = numbers[entry.buffer]


def forget_unused_codes(model: Any) -> None:
    """Leaves out what no operator uses any more: an interpreter asks for a kernel all the same."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def inlined(content: bytes) -> bytes:
    """Returns the file with all buffers inside its flatbuffer, where every runtime finds them; see `inlining`.

    Unchanged where they are.

    Raises:
        ModelError: `content` is no `.tflite` file, or one of over 2 GB.
    """
    model = reader.read(content)
    return _inside(model) if model.outside_bytes else content


def changed(content: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """Returns a file as `change(model, schema)` left its parsed form, all buffers inside its flatbuffer.

    Raises:
        ModelError: `content` is no `.tflite` file, or one of over 2 GB.
    """
    schema = frameworks.load("litert_schema")
    model = objects_of(content)
    change(model, schema)
    model.buffers = [_AlignedBuffer(schema, buffer.data) for buffer in model.buffers]
    builder = _sharing_builder(len(content) + 1024)
    try:
        builder.Finish(model.Pack(builder), reader.IDENTIFIER)
    except reader.CORRUPT as error:
        raise _unreadable() from error
    return bytes(builder.Output())


def objects_of(content: bytes) -> Any:
    """Returns a file as objects of the schema, all buffers inside, for `changed` and what takes parts of it over.

    Raises:
        ModelError: see `changed`.
    """
    model = reader.read(content)
    schema = frameworks.load("litert_schema")
    try:
        found = schema.ModelT.InitFromPackedBuf(_inside(model), 0)
        _fill_in(found, schema)
    except reader.CORRUPT as error:
        raise _unreadable() from error
    return found


def _used(model: Any, *, but: Any = None) -> set[int]:
    """Returns the buffers that tensors and metadata entries name, several of them perhaps the same one."""
    tensors = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    return tensors | {entry.buffer for entry in model.metadata or [] if entry is not but}


def _inside(model: TFLiteModel) -> bytes:
    if model.size_bytes > LARGEST_FLATBUFFER:
        raise ModelError(
            f"Expected a .tflite file of at most 2 GB, got one of {model.size_bytes:,} bytes. "
            "Try quantizing it first: --scheme dynamic makes it a quarter as large."
        )
    return model.content.tobytes()


def _fill_in(model: Any, schema: Any) -> None:
    """Puts empty lists where the file has none, and the names that the reader tells, so that both know the same."""
    model.buffers = model.buffers or [schema.BufferT()]
    model.operatorCodes = model.operatorCodes or []
    for graph in model.subgraphs:
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
        for tensor in graph.tensors:
            tensor.name = printable(tensor.name).encode()
        for operator in graph.operators:
            operator.inputs = [] if operator.inputs is None else operator.inputs
            operator.outputs = [] if operator.outputs is None else operator.outputs
    for signature in model.signatureDefs or []:
        for entry in (*(signature.inputs or []), *(signature.outputs or [])):
            entry.name = printable(entry.name).encode()


def _unreadable() -> ModelError:
    # The reader reads the options of the operators that it counts; here all have to be.
    return ModelError(
        "The model cannot be rewritten: the options of one of its operators point outside of the file, or are of "
        "another operator. Try converting it again."
    )


def _sharing_builder(size_bytes: int) -> Any:
    """Returns a flatbuffers Builder that writes equal vectors of numbers once."""
    import flatbuffers

    class Sharing(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(size_bytes)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Any) -> int:
            key = x.dtype.str, x.tobytes()
            if key not in self._written:
                self._written[key] = super().CreateNumpyVector(x)
            return self._written[key]

    return Sharing()


class _AlignedBuffer:
    """Stands in for the schema's BufferT, whose `Pack` forgets the alignment."""

    def __init__(self, schema: Any, data: Any) -> None:
        self._schema = schema
        self._data = b"" if data is None else bytes(data)

    def Pack(self, builder: Any) -> int:
        if self._data:
            builder.StartVector(1, len(self._data), _ALIGNMENT)
            builder.head -= len(self._data)
            builder.Bytes[builder.head : builder.head + len(self._data)] = self._data
            vector = builder.EndVector()
        self._schema.BufferStart(builder)
        if self._data:
            self._schema.BufferAddData(builder, vector)
        return int(self._schema.BufferEnd(builder))
