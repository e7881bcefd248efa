"""PyTorch in: a module becomes a proven `.tflite`; all but PyTorch itself is tried without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import runtime_models

import edgeopt
from edgeopt import torch_import
from edgeopt.errors import ConfigError, ConversionError, UnavailableError
from edgeopt.runtimes import RUNTIMES, isolated
from edgeopt.tflite.rewrite import with_metadata
from edgeopt.torch_import import environment


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that answers as `there.py` does, with a real file and what it computes, as `answer.json` there says."""
    (tmp_path / "said.json").write_text(json.dumps({"error": "", "stage": "convert", "notes": ["as asked"]}))
    session = isolated(runtime_models.models()["float32"], RUNTIMES["litert-builtin"])
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((3, *session.inputs[0].shape)).astype(np.float32)
    results = np.stack([session.run({"picture": sample})["kind"] for sample in samples])
    session.close()
    np.savez(tmp_path / "samples.npz", in0=samples, out0=results)
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        f"model = {str(runtime_models.models()['float32'])!r}\nhere, folder = {str(tmp_path)!r}, sys.argv[3]\n"
        "shutil.copy(model, folder + '/model.tflite')\nshutil.copy(here + '/samples.npz', folder)\n"
        "shutil.copy(here + '/said.json', folder + '/answer.json')\n"
    )
    script.chmod(0o755)
    return script


def test_a_file_that_computes_the_same_is_written(python: Path, tmp_path: Path) -> None:
    found = edgeopt.import_torch("net:exported", tmp_path / "net.tflite", python=lambda: python)
    assert found.file.read_bytes() == runtime_models.models()["float32"].read_bytes()
    assert (found.samples, found.notes) == (3, ("as asked",))
    assert found.max_difference == pytest.approx(0, abs=1e-6)


def test_a_file_that_computes_something_else_is_not(python: Path, tmp_path: Path) -> None:
    with np.load(tmp_path / "samples.npz") as kept:
        np.savez(tmp_path / "samples.npz", in0=kept["in0"], out0=1 - kept["out0"])
    with pytest.raises(ConversionError, match=r"what PyTorch does on 3 samples, got outputs .* spread apart"):
        edgeopt.import_torch("net:exported", tmp_path / "net.tflite", python=lambda: python)
    assert not (tmp_path / "net.tflite").exists()


def test_what_litert_torch_writes_becomes_int8(tmp_path: Path) -> None:
    """TensorFlow's quantizer leaves the weights of such a file in floats."""
    content = runtime_models.models()["float32"].read_bytes()
    (tmp_path / "net.tflite").write_bytes(with_metadata(content, "keep_stablehlo_constant", b"true"))
    samples = np.random.default_rng(0).standard_normal((60, 8, 8, 1)).astype(np.float32)
    data = edgeopt.load_data((samples, np.arange(60) % 10))
    found = edgeopt.convert(tmp_path / "net.tflite", tmp_path / "int8.tflite", scheme="int8", data=data)
    assert found.float_operators == ()
    assert found.fidelity is not None
    assert not found.fidelity.problems


@pytest.mark.parametrize(
    ("stage", "error", "said"),
    [
        (
            "function",
            ConfigError,
            r"a function that returns a torch\.nn\.Module .*, got no. Try: return model",
        ),
        ("run", ConversionError, r"Expected a module that runs on the inputs .*, got no\. Try it in PyTorch first\."),
        ("convert", ConversionError, r"Expected a module that torch\.export traces .*, got no\. Try a module without"),
    ],
)
def test_where_it_failed_is_said(stage: str, error: type[Exception], said: str, python: Path, tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text(json.dumps({"error": "no", "stage": stage, "notes": []}))
    with pytest.raises(error, match=said):
        edgeopt.import_torch("net:exported", tmp_path / "net.tflite", python=lambda: python)


def test_a_death_over_there_is_an_error_here(tmp_path: Path) -> None:
    dying = tmp_path / "python"
    dying.write_text(f"#!{sys.executable}\nimport sys\nprint('so much memory', file=sys.stderr)\nsys.exit(137)\n")
    dying.chmod(0o755)
    with pytest.raises(ConversionError, match=r"process died on net:exported: so much memory\. Try a smaller"):
        edgeopt.import_torch("net:exported", tmp_path / "net.tflite", python=lambda: dying)


def test_what_cannot_be_meant_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected package\.module:function, got 'net'\. Try my_model:exported\."):
        edgeopt.import_torch("net", tmp_path / "net.tflite")
    with pytest.raises(ConfigError, match=r"Expected an output file ending in \.tflite, got .*net\.onnx"):
        edgeopt.import_torch("net:exported", tmp_path / "net.onnx")


def test_the_environment_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[tuple[str, ...]] = []

    def call(*command: str) -> None:
        asked.append(command)
        if "venv" in command:
            (environment.folder() / "bin").mkdir(parents=True)
            (environment.folder() / "bin" / "python").touch()
        if environment.CPU_INDEX in command:
            raise UnavailableError("no such index")
        if len(asked) == 4:
            raise UnavailableError("the network is gone")

    monkeypatch.setattr(environment, "_call", call)
    assert not environment.is_ready()
    with pytest.raises(UnavailableError, match="the network is gone"):
        environment.python()
    assert not environment.is_ready()
    assert environment.python() == environment.folder() / "bin" / "python"
    assert environment.is_ready()
    assert sum("venv" in command for command in asked) == 1
    assert asked[-1][-2:] == tuple(f"{name}=={version}" for name, version in environment.PINS.items())
    before = len(asked)
    environment.python()
    assert len(asked) == before


def test_what_pip_says_last_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"make the environment for PyTorch in .*: ERROR: no disk\. Try"):
        environment._call(sys.executable, "-c", "import sys; print('ERROR: no disk', file=sys.stderr); sys.exit(1)")
    with pytest.raises(UnavailableError, match=r"Could not make the environment for PyTorch: .*No such file"):
        environment._call(str(tmp_path / "no-python"))


@pytest.mark.slow
def test_a_module_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole, where the environment is there already: nothing is downloaded for a test."""
    if not environment.is_ready():
        pytest.skip(f"PyTorch is not in {environment.folder()}; one `edgeopt import-torch` puts it there")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef exported():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))\n"
        "    return net, [torch.randn(1, 3, 8, 8) for _ in range(3)]\n\n\ndef forks():\n"
        "    class Forks(nn.Module):\n        def forward(self, x):\n            return x if x.sum() > 0 else -x\n\n"
        "    return Forks(), [torch.ones(1, 4)]\n"
    )
    monkeypatch.chdir(tmp_path)
    found = torch_import.import_torch("net:exported", tmp_path / "net.tflite")
    assert [spec.shape for spec in found.inputs] == [(1, 8, 8, 3)]
    assert found.max_difference < 1e-5
    assert "the module was in training mode: exported in that of inference" in found.notes
    with pytest.raises(ConversionError, match=r"traces and litert-torch converts, got GuardOnDataDependent"):
        torch_import.import_torch("net:forks", tmp_path / "forks.tflite")
