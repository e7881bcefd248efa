"""ONNX Runtime's execution providers: those that are not here are refused, and what the CPU computes is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt import frameworks, runtimes
from edgeopt.errors import UnavailableError
from edgeopt.runtimes.probe import model
from edgeopt.runtimes.providers import CPU, PROVIDERS, Taken, taken, version


def event(provider: str, kind: str, name: str = "n_kernel_time") -> dict[str, object]:
    return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": kind}}


def test_each_provider_is_a_runtime() -> None:
    named = {name for name, row in runtimes.RUNTIMES.items() if row.module == "edgeopt.runtimes.onnxruntime"}
    assert named == set(PROVIDERS)
    assert version() == frameworks.load("onnxruntime").__version__


def test_what_the_cpu_computes_is_counted_one_by_one() -> None:
    whole = [event("OpenVINOExecutionProvider", "OpenVINO-EP-subgraph_1"), event("x", "y", name="session_run")]
    assert taken(whole, 9) == Taken(1.0, ())
    assert taken([*whole, event(CPU, "Softmax"), event(CPU, "MemcpyToHost")], 10) == Taken(1 - 1 / 10, ("Softmax",))
    assert taken([event(CPU, "Conv"), event(CPU, "Relu")], 2) == Taken(0.0, ("Conv", "Relu"))


def test_a_provider_that_is_not_here_is_refused_with_what_brings_it(tmp_path: Path) -> None:
    file = tmp_path / "add.onnx"
    file.write_bytes(model("onnx"))
    here = frameworks.load("onnxruntime").get_available_providers()
    for name, provider in PROVIDERS.items():
        if provider.name not in here:
            with pytest.raises(
                UnavailableError,
                match=rf"an ONNX Runtime with its {provider.name}, got .*Try pip install {provider.package}",
            ):
                runtimes.open_session(file, runtimes.RUNTIMES[name])


def test_a_provider_that_takes_nothing_is_no_silent_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "add.onnx"
    file.write_bytes(model("onnx"))
    # The CPU's own stands for one of a device: all of its work is the CPU's.
    monkeypatch.setitem(PROVIDERS, "onnxruntime-cuda", PROVIDERS["onnxruntime"])
    monkeypatch.setattr("edgeopt.runtimes.onnxruntime.CPU", "AzureExecutionProvider")
    with pytest.raises(UnavailableError, match=r"took none of the 1 operators of add\.onnx \(Add\)"):
        runtimes.open_session(file, runtimes.RUNTIMES["onnxruntime-cuda"])
