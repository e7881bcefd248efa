"""`.tflite` files written operator by operator, without a converter: milliseconds each, any form of any operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt import frameworks


class Graph:
    """A graph under construction; tensors are their indices."""

    def __init__(self, seed: int = 0) -> None:
        self._schema = frameworks.load("litert_schema")
        self.random = np.random.default_rng(seed)
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[tuple[str, int]] = []
        empty = self._schema.BufferT()
        self._buffers = [empty]

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: str = "int8",
        *,
        scale: float | np.ndarray = 0.05,
        zero: int = 0,
        axis: int = 0,
        values: np.ndarray | None = None,
    ) -> int:
        """Adds a tensor, a constant one where `values` are given; int8 and int32 have scales."""
        schema = self._schema
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._tensors)}"
        tensor.shape = list(shape)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = _stored(values, dtype)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if dtype in ("int2", "int4", "int8", "uint8", "int16") or (dtype == "int32" and np.any(scale)):
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(scale, np.float32)).tolist()
            quantization.zeroPoint = [zero] * len(quantization.scale)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, values: Any, dtype: str = "int32") -> int:
        """Adds a constant without scales: axes, shapes, floats."""
        array = np.asarray(values, dtype)
        return self.tensor(array.shape, dtype, scale=0.0, values=array)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        return tuple(self._tensors[tensor].shape)

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor's values stand in the file."""
        return self._tensors[tensor].buffer > 0

    def scale(self, tensor: int) -> float:
        """Returns the scale of a tensor."""
        return float(np.float32(self._tensors[tensor].quantization.scale[0]))

    def operator(
        self, name: str, inputs: list[int], outputs: list[int], kind: str = "", *, version: int = 1, **options: Any
    ) -> None:
        """Adds an operator; `kind` is the schema's name of its options, whose fields `options` sets."""
        schema = self._schema
        operator = schema.OperatorT()
        code = (name, version)
        if code not in self._codes:
            self._codes.append(code)
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = inputs, outputs
        if kind:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, kind + "T")()
            for key, value in options.items():
                assert hasattr(operator.builtinOptions, key), key
                setattr(operator.builtinOptions, key, value)
        self._operators.append(operator)

    def build(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Returns the file."""
        import flatbuffers

        schema = self._schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self._buffers
        model.operatorCodes = []
        for name, version in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = version
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 14)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # The operators with weights, as a converter would quantize them.

    def weighted(
        self,
        name: str,
        source: int,
        weights: tuple[int, ...],
        result: tuple[int, ...],
        *,
        axis: int,
        kind: str,
        per_channel: bool = True,
        bias: bool = True,
        version: int = 3,
        scale: float = 0.1,
        zero: int = 3,
        extra: tuple[int, ...] = (),
        values: np.ndarray | None = None,
        dtype: str = "int8",
        weights_zero: int = 0,
        **options: Any,
    ) -> int:
        """Adds a convolution of any kind with these int8 weights, or random ones; returns its output."""
        channels = weights[axis]
        steps = self.random.uniform(0.002, 0.01, channels if per_channel else 1).astype(np.float32)
        if values is None:
            values = self.random.integers(-127, 128, weights)
        kernel = self.tensor(weights, dtype, scale=steps, zero=weights_zero, axis=axis, values=values)
        inputs = [*extra, kernel, source] if extra else [source, kernel]
        if bias:
            biases = self.random.integers(-2000, 2000, channels)
            inputs.append(self.tensor((channels,), "int32", scale=steps * self.scale(source), values=biases))
        elif name == "FULLY_CONNECTED":
            inputs.append(-1)
        out = self.tensor(result, scale=scale, zero=zero)
        self.operator(name, inputs, [out], kind, version=version, **options)
        return out


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of a buffer; of int4 and int2 two and four values in each, the first one low."""
    bits = {"int4": 4, "int2": 2}.get(dtype, 8)
    if bits == 8:
        return np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)
    fields = (np.asarray(values).reshape(-1) & (1 << bits) - 1).astype(np.uint8)
    fields = np.append(fields, np.zeros(-fields.size % (8 // bits), np.uint8)).reshape(-1, 8 // bits)
    return np.bitwise_or.reduce(fields << np.arange(0, 8, bits, dtype=np.uint8), axis=1)
