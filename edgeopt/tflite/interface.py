"""The dtype and shape of a `.tflite` file's inputs and outputs: bytes go in, a file of the same arithmetic comes out.

QUANTIZE operators are added at its edges, or take the place of the DEQUANTIZE ones that stand there; weights and
everything between stay as they are, but for what only puts outputs into another shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.tflite import reader, rewrite
from edgeopt.tflite.model import Operator, Subgraph, printable

KINDS = ("float32", "uint8")
# What is converted at the edges; indices, flags and strings stay.
_CONVERTED = ("int8", "uint8", "float32")
# What moves values and computes nothing, and the first version that takes integers of eight bits.
_MOVERS = {"RESHAPE": 1, "SQUEEZE": 2, "EXPAND_DIMS": 1, "TRANSPOSE": 2}
# The offset between the two ways to store a byte: uint8 = int8 + 128, at the same scale.
_OFFSET = 128


def with_interface(content: bytes, dtype: str) -> bytes:
    """Returns the file with `dtype`, one of KINDS, at every input and output that is int8, uint8 or float32.

    The outputs stay the same real values, on inputs of the same real values; unchanged where all have it already.

    Raises:
        ModelError: a float input or output has no scale for `dtype`, or `content` is no `.tflite` file.
    """
    model = reader.read(content)
    edges = [model.main.tensors[i].dtype for i in (*model.main.inputs, *model.main.outputs)]
    if all(edge == dtype for edge in edges if edge in _CONVERTED):
        return content

    def change(model: Any, schema: Any) -> None:
        _Edges(model, schema, dtype).convert()

    return rewrite.changed(content, change)


def with_static_shapes(content: bytes) -> bytes:
    """Returns the file with every free dimension fixed at the size that it stores, 1 for a batch.

    CompiledModel makes no buffers for free ones, and delegates leave such a file alone. Unchanged where none is free.

    Raises:
        ModelError: `content` is no `.tflite` file.
    """
    parsed = reader.read(content)
    if not any(None in tensor.signature for graph in parsed.subgraphs for tensor in graph.tensors):
        return content

    def change(model: Any, schema: Any) -> None:
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                tensor.shapeSignature = None

    return rewrite.changed(content, change)


def with_moved_integers(content: bytes) -> bytes:
    """Returns the file with outputs in integers that are such already and, made floats, only take another shape.

    So TensorFlow's quantizer leaves what is read in two scales: a sigmoid that is an output and goes into a
    concatenation. Unchanged where there are no such outputs.

    Raises:
        ModelError: `content` is no `.tflite` file.
    """
    main = reader.read(content).main
    chains = [chain for index in main.outputs if (chain := _moved(main, index))]

    def change(model: Any, schema: Any) -> None:
        graph = model.subgraphs[0]
        operators = list(graph.operators)
        for floats, *movers in chains:
            source = int(floats.inputs[0])
            first = operators[movers[0].index]
            first.inputs = [source, *first.inputs[1:]]
            for mover in movers:
                tensor = graph.tensors[mover.outputs[0]]
                tensor.type, tensor.quantization = graph.tensors[source].type, graph.tensors[source].quantization
                code = model.operatorCodes[operators[mover.index].opcodeIndex]
                code.version = max(code.version, _MOVERS[mover.name])
            if not any(floats.outputs[0] in o.inputs for o in operators) and floats.outputs[0] not in graph.outputs:
                graph.operators.remove(operators[floats.index])

    return rewrite.changed(content, change) if chains else content


def _moved(main: Subgraph, output: int) -> list[Operator]:
    """Returns the DEQUANTIZE and what moves its values until they are an output; empty where anything else does."""
    readers = Counter(index for operator in main.operators for index in set(operator.inputs))
    makers = {index: operator for operator in main.operators for index in operator.outputs}
    chain: list[Operator] = []
    while (maker := makers.get(output)) is not None and main.tensors[output].dtype == "float32":
        chain.insert(0, maker)
        if maker.name == "DEQUANTIZE":
            return chain if len(chain) > 1 and main.tensors[maker.inputs[0]].dtype in ("int8", "uint8") else []
        if maker.name not in _MOVERS or readers[output] != (len(chain) > 1):
            break
        output = maker.inputs[0]
    return []


class _Edges:
    def __init__(self, model: Any, schema: Any, dtype: str) -> None:
        self._model, self._schema, self._dtype = model, schema, dtype
        self._graph = model.subgraphs[0]
        self._names = {number: name.lower() for name, number in vars(schema.TensorType).items() if name[0] != "_"}
        self._type = {name: number for number, name in self._names.items()}[dtype]

    def convert(self) -> None:
        self._graph.inputs = [self._converted(tensor, "inputs", self._input) for tensor in self._graph.inputs]
        self._graph.outputs = [self._converted(tensor, "outputs", self._output) for tensor in self._graph.outputs]

    def _converted(self, tensor: int, side: str, convert: Callable[[int], int]) -> int:
        if not self._has_other_type(tensor):
            return tensor
        new = convert(tensor)
        for signature in self._model.signatureDefs or []:
            if signature.subgraphIndex == 0:
                for entry in getattr(signature, side) or []:
                    if entry.tensorIndex == tensor:
                        entry.tensorIndex = new
        return new

    def _has_other_type(self, tensor: int) -> bool:
        kind = self._names[self._graph.tensors[tensor].type]
        return kind in _CONVERTED and kind != self._dtype

    def _input(self, index: int) -> int:
        tensor = self._graph.tensors[index]
        if tensor.type != self._schema.TensorType.FLOAT32:
            new = self._beside(tensor)
            self._graph.operators.insert(0, self._operator("QUANTIZE", new, index))
            return new
        # A float input that is quantized first: the operator can start from the bytes as well.
        users = [o for o in self._graph.operators if index in list(o.inputs)]
        quantized = all(self._kind(user) == "QUANTIZE" and len(user.outputs) == 1 for user in users)
        if not users or not quantized or index in self._graph.outputs:
            raise self._without_a_scale(tensor)
        target = self._graph.tensors[users[0].outputs[0]]
        tensor.type, tensor.quantization = self._type, self._parameters(target)
        return index

    def _output(self, index: int) -> int:
        tensor = self._graph.tensors[index]
        if tensor.type != self._schema.TensorType.FLOAT32:
            new = self._beside(tensor)
            kind = "DEQUANTIZE" if self._dtype == "float32" else "QUANTIZE"
            self._graph.operators.append(self._operator(kind, index, new))
            return new
        source = next((o for o in self._graph.operators if index in list(o.outputs)), None)
        users = [o for o in self._graph.operators if index in list(o.inputs)]
        if source is None or self._kind(source) != "DEQUANTIZE" or len(source.inputs) != 1 or users:
            raise self._without_a_scale(tensor)
        tensor.type, tensor.quantization = self._type, self._parameters(self._graph.tensors[source.inputs[0]])
        source.opcodeIndex = self._code("QUANTIZE")
        return index

    def _without_a_scale(self, tensor: Any) -> ModelError:
        return ModelError(
            f"Expected a file quantized to int8 for {self._dtype} inputs and outputs, got {printable(tensor.name)!r}, "
            "which is computed in float. Try a file made by `edgeopt convert --scheme int8`."
        )

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return next((name for name, value in vars(self._schema.BuiltinOperator).items() if value == number), "")

    def _beside(self, tensor: Any) -> int:
        """Adds a tensor of the wanted dtype with the shape and name of `tensor`, which gets another name."""
        new = self._schema.TensorT()
        new.shape, new.shapeSignature, new.hasRank = tensor.shape, tensor.shapeSignature, tensor.hasRank
        new.name, tensor.name = tensor.name, tensor.name + b"_" + self._names[tensor.type].encode()
        new.type, new.quantization = self._type, self._parameters(tensor)
        self._graph.tensors.append(new)
        return len(self._graph.tensors) - 1

    def _parameters(self, tensor: Any) -> Any:
        """Returns how `tensor`'s values are stored as the wanted dtype; None for floats."""
        if self._dtype == "float32":
            return None
        stored = tensor.quantization
        wide = stored is None or stored.scale is None or len(stored.scale) != 1
        if wide or tensor.type not in (self._schema.TensorType.INT8, self._schema.TensorType.UINT8):
            raise self._without_a_scale(tensor)
        new = self._schema.QuantizationParametersT()
        offset = _OFFSET if tensor.type == self._schema.TensorType.INT8 else 0
        zero_point = 0 if stored.zeroPoint is None or not len(stored.zeroPoint) else stored.zeroPoint[0]
        new.scale, new.zeroPoint = stored.scale, np.array([zero_point + offset], np.int64)
        return new

    def _operator(self, kind: str, source: int, target: int) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(kind)
        operator.inputs, operator.outputs = [source], [target]
        return operator

    def _code(self, kind: str) -> int:
        number = getattr(self._schema.BuiltinOperator, kind)
        codes = self._model.operatorCodes
        known = (i for i, c in enumerate(codes) if max(c.builtinCode, c.deprecatedBuiltinCode) == number)
        found = next(known, None)
        # int8 and uint8 take version 1 of QUANTIZE and 2 of DEQUANTIZE.
        version = 2 if kind == "DEQUANTIZE" else 1
        if found is not None:
            codes[found].version = max(codes[found].version, version)
            return found
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, version
        codes.append(code)
        return len(codes) - 1
