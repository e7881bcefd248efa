"""TensorRT: all but the engine, everywhere; the engine where an NVIDIA GPU is."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runtime_models

import edgeopt
from edgeopt import data, formats, frameworks, runtimes, trust
from edgeopt.compilers import COMPILERS, starts_from
from edgeopt.compilers.onnx import translated
from edgeopt.compilers.tensorrt import built, problems, require_gpu
from edgeopt.errors import ConversionError, ModelError, UnavailableError
from edgeopt.formats.sealed import Library, plain_code, sealed
from edgeopt.runtimes.probe import model
from edgeopt.vocabulary import TensorSpec

ROW = COMPILERS["tensorrt"]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The float net with ranges found by ONNX Runtime as TensorRT wants them."""
    samples = tmp_path_factory.mktemp("tensorrt") / "samples.npz"
    np.savez(samples, **{"0": np.random.default_rng(0).standard_normal((8, 8, 8, 1)).astype(np.float32)})
    settings = {"scheme": "int8-float-io", "samples": str(samples), "opset": "", **ROW.asks}
    return translated(runtime_models.models()["float32"].read_bytes(), settings)


def fixed(content: bytes) -> bytes:
    """The same model for one sample at a time."""
    model = frameworks.load("onnx").ModelProto.FromString(content)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return bytes(model.SerializeToString())


def test_integers_are_as_tensorrt_has_them(int8: bytes) -> None:
    assert list(problems(int8)) == ["sizes that are not fixed in 'picture'"]
    assert list(problems(fixed(int8))) == []
    nodes = frameworks.load("onnx").ModelProto.FromString(int8).graph.node
    assert "QuantizeLinear" in {node.op_type for node in nodes}


def test_what_it_cannot_have_is_named() -> None:
    asked = {"scheme": "int8-float-io", "calibration": "", "symmetric": "", "samples": "", "opset": ""}
    tflite = runtime_models.models()
    zeros = list(problems(fixed(translated(tflite["int8-float-io"].read_bytes(), asked))))
    assert zeros
    assert all(words.startswith("a zero point that is not 0 (") for words in zeros)
    dynamic = translated(tflite["float32"].read_bytes(), {**asked, "scheme": "dynamic"})
    assert any(words.startswith("activations quantized at each inference") for words in problems(dynamic))
    with pytest.raises(ConversionError, match=r"a file that TensorRT can have, got one with sizes that are not"):
        built(dynamic)


def test_every_scheme_starts_from_a_file_of_the_converter() -> None:
    made = {scheme: starts_from(ROW, scheme) for scheme in ROW.sources}
    assert made == {"float32": "float32", "float16": "float32", "int8-float-io": "float32"}


@pytest.mark.skipif(frameworks.installed_version("tensorrt") is not None, reason="TensorRT is here")
def test_what_is_missing_is_said(digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match=r"needed here .* Try: pip install 'edgeopt\[tensorrt\]' \(from"):
        edgeopt.convert(digits_model, tmp_path / "digits.engine", scheme="int8-float-io", data="digits")
    with pytest.raises(UnavailableError, match="needed here"):
        edgeopt.optimize(digits_model, "digits", tmp_path / "out", formats=["tensorrt"])
    assert not (tmp_path / "out").exists()
    installed = frameworks.installed_version
    monkeypatch.setattr(frameworks, "installed_version", lambda name: "11" if name == "tensorrt" else installed(name))
    with pytest.raises(ConversionError, match=r"Expected data to find the ranges of int8-float-io on, got none\. Try"):
        edgeopt.convert(runtime_models.models()["float32"], tmp_path / "net.engine", scheme="int8-float-io")
    found = runtimes.available(runtimes.RUNTIMES["tensorrt"])
    assert (found.available, "with an NVIDIA GPU and its driver" in found.reason) == (False, True)


class Cuda(SimpleNamespace):
    """As much of cuda.bindings.runtime as tells of GPUs."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)
    count = 0

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return (0, self.count) if self.count else (100, 0)

    def cudaGetDeviceProperties(self, _: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b"NVIDIA H200")


def test_without_a_gpu_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "load", lambda _: Cuda())
    with pytest.raises(UnavailableError, match=r"an NVIDIA GPU with its driver, .* Try a machine where `nvidia"):
        require_gpu()
    monkeypatch.setattr(Cuda, "count", 1)
    assert require_gpu() == "NVIDIA H200"


def test_an_engine_says_what_it_is(tmp_path: Path) -> None:
    spec = TensorSpec("x", (1, 4))
    said = Library((spec,), (spec,), (), 0, 0, False, "float16", "nvidia", "H200", "onnx", "11.4", format="tensorrt")
    (tmp_path / "model.engine").write_bytes(sealed(b"plan", said))
    facts = formats.facts(tmp_path / "model.engine")
    assert (facts.format, facts.inputs, facts.computes) == ("tensorrt", (spec,), "float16")
    assert facts.notes == ("an engine for H200, by TensorRT 11.4 from .onnx: it runs on that GPU, with that version",)
    assert plain_code(tmp_path / "model.engine") == b"plan"
    (words,) = runtimes.refusals(tmp_path / "model.engine", runtimes.parse("tensorrt==10.1"))
    assert words == "it was built by TensorRT 11.4, and runs there alone"


# --- against the published interface (docs.nvidia.com/deeplearning/tensorrt, Python API, 10 and 11) -------------------


class Host(Cuda):
    """cuda.bindings.runtime with the memory of this machine in place of a GPU's."""

    count = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.held[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert stream == 7
        ctypes.memmove(to, source, size)
        return (0,)


class Parser:
    errors: tuple[str, ...] = ()

    def __init__(self, network: Any, logger: Any) -> None:
        assert isinstance(network, dict)
        self.network, self.num_errors = network, len(self.errors)

    def parse(self, content: bytes) -> bool:
        self.network["content"] = content
        return not self.errors

    def get_error(self, index: int) -> str:
        return self.errors[index]


class Builder:
    plan: bytes | None = b"plan"

    def __init__(self, logger: Any) -> None:
        assert logger == "logger at 1"

    def create_network(self, flags: int) -> dict[str, Any]:
        return {"flags": flags}

    def create_builder_config(self) -> Any:
        return SimpleNamespace(set_memory_pool_limit=lambda pool, size: limits.append((pool, size)))

    def build_serialized_network(self, network: dict[str, Any], config: Any) -> bytes | None:
        assert network["content"]
        built_with.append(network["flags"])
        return self.plan


class Context:
    """x + x, where x and y are addresses of four floats."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        four = ctypes.c_float * 4
        x, y = (four.from_address(self.addresses[name]) for name in ("x", "y"))
        y[:] = [2 * value for value in x]
        return stream == 7


limits: list[tuple[str, int]] = []
built_with: list[int] = []


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Host:
    """TensorRT and a GPU."""
    cuda, logger = Host(), lambda severity: f"logger at {severity}"
    logger.ERROR = 1  # type: ignore[attr-defined]
    engines = {b"plan": SimpleNamespace(create_execution_context=Context)}
    trt = SimpleNamespace(
        __version__="11.4.0.106",
        Logger=logger,
        Builder=Builder,
        OnnxParser=Parser,
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=engines.get),
    )
    own = frameworks.load
    stand_ins = {"tensorrt": trt, "cuda": cuda}
    monkeypatch.setattr(frameworks, "load", lambda name: stand_ins.get(name) or own(name))
    limits.clear()
    built_with.clear()
    return cuda


def test_a_network_is_strongly_typed_where_there_is_a_choice(there: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model("onnx")
    sealed_plan = built(content)
    assert sealed_plan.startswith(b"plan")
    assert built_with == [1 << 1]
    assert limits == [("workspace", 1 << 30)]
    monkeypatch.setattr(frameworks.load("tensorrt"), "NetworkDefinitionCreationFlag", SimpleNamespace())
    built(content)
    assert built_with == [1 << 1, 0]


def test_what_tensorrt_says_of_a_network_is_handed_on(there: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builder, "plan", None)
    with pytest.raises(ConversionError, match=r"TensorRT to build an engine, got none; its log, with --verbose, says"):
        built(model("onnx"))
    monkeypatch.setattr(Parser, "errors", ("no importer for NonMaxSuppression", "and another"))
    with pytest.raises(ConversionError, match=r"has as well, got: no importer for NonMaxSuppression; and another\."):
        built(model("onnx"))


def test_an_engine_runs_between_copies(there: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where nothing is trusted yet
    specs = TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))
    said = Library(
        specs[:1], specs[1:], (), 0, 0, False, "float32", "nvidia", "H200", "onnx", "11.4", format="tensorrt"
    )
    file = tmp_path / "add.engine"
    file.write_bytes(sealed(b"plan", said))
    with pytest.raises(ModelError, match="trust"):
        runtimes.open_session(file, runtimes.RUNTIMES["tensorrt"])
    trust.trust(file.read_bytes())
    session = runtimes.open_session(file, runtimes.RUNTIMES["tensorrt"])
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x + x)
    assert len(session.invoke_ns({"x": x}, runs=3)) == 3
    assert len(there.held) == 2
    session.close()
    assert not there.held
    file.write_bytes(sealed(b"of another version", said))
    trust.trust(file.read_bytes())
    with pytest.raises(ModelError, match=r"could not load add\.engine, which TensorRT 11\.4 built for H200"):
        runtimes.open_session(file, runtimes.RUNTIMES["tensorrt"])


@pytest.mark.skipif(frameworks.installed_version("tensorrt") is None, reason="wants TensorRT and an NVIDIA GPU")
@pytest.mark.parametrize("scheme", ROW.sources)
def test_engines_compute_what_the_tflite_does(scheme: str, digits_model: Path, tmp_path: Path) -> None:
    found = edgeopt.convert(digits_model, tmp_path / "digits.engine", scheme=scheme, data="digits")
    (row,) = found.runtimes
    assert (row.status, row.matches_reference) == ("ok", True)
    assert edgeopt.evaluate(found.file, data.load("digits").validation).metric.value > 0.9
    assert edgeopt.benchmark([found.file], runs=5).rows[0].result.latency_ms
