"""An engine of TensorRT goes in, a session on the NVIDIA GPU of this machine comes out; times are with the copies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, trust
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.formats.sealed import described, plain_code
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import require_inputs, times_ns

INSTALL = frameworks.install_command("tensorrt", upgrade=True)


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return frameworks.installed_version("tensorrt") or ""


def load() -> None:
    """Imports the package."""
    frameworks.load("tensorrt")
    frameworks.load("cuda")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns whether that version runs what another one built: none does."""
    made_with = described(file).made_with
    return () if made_with == version else (f"it was built by TensorRT {made_with}, and runs there alone",)


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> TensorRTSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`."""
    return TensorRTSession(file, runtime)


def small_file() -> bytes:
    """Raises UnavailableError: an engine is not built to see whether one runs, which takes a minute."""
    load()
    raise UnavailableError("TensorRT is here; it is tried with an engine: edgeopt convert MODEL -o FILE.engine.")


class TensorRTSession(Session):
    """An engine with its memory on the GPU."""

    def __init__(self, file: Path, runtime: Runtime) -> None:
        self.runtime, self._file = runtime, file
        library = described(file)
        self.inputs, self.outputs = library.inputs, library.outputs
        trust.require_trusted(file)
        load()
        trt, self._cuda = frameworks.load("tensorrt"), frameworks.load("cuda")
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plain_code(file))
        if engine is None:
            raise ModelError(
                f"{runtime.name} could not load {file.name}, which TensorRT {library.made_with} built for "
                f"{library.processor}. Expected an engine of this very GPU and version; try building it anew."
            )
        self._engine, self._context = engine, engine.create_execution_context()
        self._stream = self._checked(self._cuda.cudaStreamCreate())
        self._memory: dict[str, int] = {}
        self._results = {spec.name: np.empty(_sizes(spec.shape), spec.dtype) for spec in self.outputs}
        for spec in (*self.inputs, *self.outputs):
            size = int(np.prod(_sizes(spec.shape))) * np.dtype(spec.dtype).itemsize
            self._memory[spec.name] = self._checked(self._cuda.cudaMalloc(size))
            self._context.set_tensor_address(spec.name, self._memory[spec.name])

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        require_inputs(inputs, self.inputs)
        self._once({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        return {name: array.copy() for name, array in self._results.items()}

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns; the copies to and from the GPU are part of it, as in an app."""
        require_inputs(inputs, self.inputs)
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return times_ns(lambda: self._once(given), runs)

    def close(self) -> None:
        """See Session.close."""
        for address in self._memory.values():
            self._cuda.cudaFree(address)
        self._memory.clear()
        self._cuda.cudaStreamDestroy(self._stream)
        self._context = self._engine = None

    def _once(self, inputs: Mapping[str, np.ndarray]) -> None:
        kind = self._cuda.cudaMemcpyKind
        for name, array in inputs.items():
            self._copy(self._memory[name], array.ctypes.data, array.nbytes, kind.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(self._stream):
            raise ModelError(f"{self.runtime.name} could not run {self._file.name}. Try building the engine anew.")
        for name, array in self._results.items():
            self._copy(array.ctypes.data, self._memory[name], array.nbytes, kind.cudaMemcpyDeviceToHost)
        self._checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        self._checked(self._cuda.cudaMemcpyAsync(to, source, size, kind, self._stream))

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        """Returns what a CUDA call gave beside its status.

        Raises:
            ModelError: it failed.
        """
        status, *rest = answer
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise ModelError(f"{self.runtime.name}: CUDA said {status} of {self._file.name}. Try a smaller model.")
        return rest[0] if rest else None


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size or 1 for size in shape)
