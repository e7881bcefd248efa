"""TensorRT: all but the engine, everywhere; the engine where an NVIDIA GPU is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runtime_models

import edgeopt
from edgeopt import data, formats, frameworks, runtimes
from edgeopt.compilers import COMPILERS, starts_from
from edgeopt.compilers.onnx import translated
from edgeopt.compilers.tensorrt import built, problems, require_gpu
from edgeopt.errors import ConversionError, UnavailableError
from edgeopt.formats.sealed import Library, plain_code, sealed
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
def test_what_is_missing_is_said(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"needed here .* Try: pip install 'edgeopt\[tensorrt\]' \(from"):
        edgeopt.convert(digits_model, tmp_path / "digits.engine", scheme="int8-float-io", data="digits")
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


@pytest.mark.skipif(frameworks.installed_version("tensorrt") is None, reason="wants TensorRT and an NVIDIA GPU")
@pytest.mark.parametrize("scheme", ROW.sources)
def test_engines_compute_what_the_tflite_does(scheme: str, digits_model: Path, tmp_path: Path) -> None:
    found = edgeopt.convert(digits_model, tmp_path / "digits.engine", scheme=scheme, data="digits")
    (row,) = found.runtimes
    assert (row.status, row.matches_reference) == ("ok", True)
    assert edgeopt.evaluate(found.file, data.load("digits").validation).metric.value > 0.9
    assert edgeopt.benchmark([found.file], runs=5).rows[0].result.latency_ms
