"""TensorRT: an `.onnx` goes in, an engine for the NVIDIA GPU of this machine comes out.

Networks are strongly typed, as TensorRT 10 can have them and 11 has no others: an engine computes in what the file
says, float16 where the file is in float16 and int8 between its QuantizeLinear and DequantizeLinear. The ranges in these
are found before, on the calibration samples, by ONNX Runtime; TensorRT's own calibrators are gone in 11.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt import formats, frameworks, trust, workers
from edgeopt.compilers.contract import Compiled
from edgeopt.errors import ConversionError, UnavailableError
from edgeopt.formats.sealed import Library, sealed
from edgeopt.tflite.model import printable

# What layers may use beside the engine: more lets TensorRT choose faster kernels.
_WORKSPACE_BYTES = 1 << 30


def compile_content(content: bytes, settings: Mapping[str, str]) -> Compiled:
    """Returns an `.onnx` of fixed sizes as an engine, which says in its tail what it computes.

    Raises:
        ConversionError: TensorRT cannot have it, or dies on it.
        UnavailableError: no GPU is here.
    """
    try:
        found: bytes = workers.shared("tensorrt").call("edgeopt.compilers.tensorrt:built", content)
    except workers.WorkerCrashed as crash:
        raise ConversionError(f"TensorRT died on the file: {crash.reason}. Try an .onnx for ONNX Runtime.") from None
    trust.trust(found)
    return Compiled(found)


def built(content: bytes) -> bytes:
    """As `compile_content`, in this process."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(content)
        facts = formats.facts(source)
    if found := tuple(problems(content)):
        raise ConversionError(
            f"Expected a file that TensorRT can have, got one with {'; '.join(found)}. Try an .onnx for ONNX Runtime."
        )
    trt = frameworks.load("tensorrt")
    gpu = require_gpu()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        words = "; ".join(printable(str(parser.get_error(i))) for i in range(parser.num_errors))
        raise ConversionError(f"Expected operators that TensorRT has as well, got: {words}. Try an .onnx instead.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ConversionError(
            "Expected TensorRT to build an engine, got none; its log, with --verbose, says why. Try an .onnx instead."
        )
    library = Library(
        facts.inputs,
        facts.outputs,
        tuple(replace(operator, weights=()) for operator in facts.operators),
        facts.macs,
        facts.parameters,
        facts.is_quantized,
        facts.computes,
        "nvidia",
        gpu,
        "onnx",
        trt.__version__,
        format="tensorrt",
    )
    return sealed(bytes(plan), library)


def problems(content: bytes) -> Iterator[str]:
    """Yields what TensorRT cannot have of an `.onnx`, as far as that can be told without it."""
    onnx = frameworks.load("onnx")
    model = onnx.ModelProto.FromString(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    for value in given:
        sizes = value.type.tensor_type.shape.dim
        if any(not size.dim_value for size in sizes):
            yield f"sizes that are not fixed in {value.name!r}"
    for node in model.graph.node:
        layer = node.output[0] if node.output else node.name
        if node.domain not in ("", "ai.onnx"):
            yield f"{node.op_type} of {node.domain} ({layer!r})"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = stored.get(node.input[2])
            if zero is not None and onnx.numpy_helper.to_array(zero).any():
                yield f"a zero point that is not 0 ({layer!r})"
        if node.op_type == "DynamicQuantizeLinear":
            yield f"activations quantized at each inference ({layer!r})"


def require_gpu() -> str:
    """Returns the name of the GPU.

    Raises:
        UnavailableError: none is here.
    """
    cuda = frameworks.load("cuda")
    status, count = cuda.cudaGetDeviceCount()
    if status != cuda.cudaError_t.cudaSuccess or not count:
        raise UnavailableError(
            "Expected an NVIDIA GPU with its driver, as TensorRT builds engines on the GPU that runs them, got none. "
            "Try a machine where `nvidia-smi` names one."
        )
    _, properties = cuda.cudaGetDeviceProperties(0)
    return str(properties.name.decode())


def _strongly_typed(trt: Any) -> int:
    """Returns the flag of networks that compute in what the file says; 0 where there are no others."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)
