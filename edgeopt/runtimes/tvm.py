"""A shared library that TVM made goes in, a session on TVM's runtime comes out: one thread, one sample after another.

What is for this machine runs in this process. What is for ARM64 runs in QEMU, in a program of its own: whether it
computes what it should is seen there, how fast it does is not.
"""

from __future__ import annotations

import abc
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, places, trust
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.formats.sealed import Library, described, sealed
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import one_line, require_inputs, times_ns
from edgeopt.tflite.model import printable
from edgeopt.vocabulary import TensorSpec

INSTALL = frameworks.install_command("tvm", upgrade=True)
RUNNER = Path(__file__).parent / "tvm_host" / "runner.c"
EMULATOR, COMPILER, SYSROOT = "qemu-aarch64", "aarch64-linux-gnu-gcc", Path("/usr/aarch64-linux-gnu")
TOOLS = "apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstdc++6-arm64-cross"
TIMEOUT_S = 600
# Where edgeopt finds TVM's own libraries for ARM64.
LIBRARIES = "EDGEOPT_TVM_ARM64"
# NumPy's kinds as DLPack counts them.
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return frameworks.installed_version("tvm") or ""


def load() -> None:
    """Imports the package, for one thread."""
    os.environ["TVM_NUM_THREADS"] = "1"  # read when the first library runs
    frameworks.load("tvm")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns whether that version runs what another one compiled: none promises to."""
    library = described(file)
    if _release(library.made_with) != _release(version):
        return (f"it was compiled by TVM {library.made_with}, whose code TVM {version} does not promise to run",)
    return ()


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> TvmSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`."""
    library = described(file)
    trust.require_trusted(file)
    if library.architecture == platform.machine():
        return NativeSession(file, runtime, library)
    if library.architecture == "aarch64":
        return EmulatedSession(file, runtime, library)
    raise ModelError(
        f"Expected code for this machine, {platform.machine()}, or for ARM64, got {file.name} for {library.triple}. "
        "Try it there."
    )


def small_file() -> bytes:
    """Returns a library for this machine that doubles four numbers."""
    load()
    tvm, relax = frameworks.load("tvm"), frameworks.load("tvm_relax")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.add(x, x)))
    triple, cpu = tvm.target.codegen.llvm_get_system_triple(), tvm.target.codegen.llvm_get_system_cpu()
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        library = Path(folder) / "add.so"
        tvm.compile(builder.finalize(), target=target).export_library(str(library), cc="cc")
        specs = (TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 4)),)
        said = Library(*specs, (), 0, 0, False, "float32", triple, cpu, "relax", version())
        content = sealed(library.read_bytes(), said)
    trust.trust(content)
    return content


class TvmSession(Session):
    """A library; what it was compiled for is one batch, larger ones are run one after another."""

    def __init__(self, file: Path, runtime: Runtime, library: Library) -> None:
        self.runtime, self._file, self._library = runtime, file, library
        self.inputs, self.outputs, self._repeated = library.inputs, library.outputs, 1

    @abc.abstractmethod
    def _series(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Runs one batch after another, in the shapes of the library."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        require_inputs(inputs, self.inputs)
        if self._repeated == 1:
            return self._series([inputs])[0]
        alone = [{name: array[i : i + 1] for name, array in inputs.items()} for i in range(self._repeated)]
        found = self._series(alone)
        return {spec.name: np.concatenate([one[spec.name] for one in found]) for spec in self.outputs}

    def resize(self, batch_size: int) -> bool:
        """See Session.resize: a batch is its samples by construction."""
        library = self._library
        if any(spec.shape[:1] != (1,) for spec in (*library.inputs, *library.outputs)):
            return super().resize(batch_size)
        self.inputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in library.inputs)
        self.outputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in library.outputs)
        self._repeated = batch_size
        return True

    def _refused(self, verb: str, words: str) -> ModelError:
        return ModelError(
            f"{self.runtime.name} could not {verb} {self._file.name}: {printable(words).rstrip('.')}. "
            "Expected a library made by this version of TVM; try making it anew."
        )


class NativeSession(TvmSession):
    """A library for this machine, in TVM's virtual machine."""

    def __init__(self, file: Path, runtime: Runtime, library: Library) -> None:
        super().__init__(file, runtime, library)
        load()
        self._tvm = frameworks.load("tvm")
        try:
            code = self._tvm.runtime.load_module(str(file.absolute()))
            self._main = frameworks.load("tvm_relax").VirtualMachine(code, self._tvm.cpu())["main"]
        except Exception as error:  # of every kind
            raise self._refused("load", one_line(error)) from error

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns."""
        require_inputs(inputs, self.inputs)
        given = self._given(inputs)
        return times_ns(lambda: self._main(*given), runs)

    def close(self) -> None:
        """See Session.close."""
        self._main = None

    def _series(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        results = []
        for sample in samples:
            try:
                found = self._main(*self._given(sample))
            except Exception as error:  # of every kind
                raise self._refused("run", one_line(error)) from error
            values = [found] if hasattr(found, "numpy") else list(found)
            results.append({spec.name: value.numpy() for spec, value in zip(self.outputs, values)})
        return results

    def _given(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        return [self._tvm.runtime.tensor(np.ascontiguousarray(inputs[spec.name])) for spec in self.inputs]


class EmulatedSession(TvmSession):
    """A library for ARM64 in QEMU's user mode; each run is one start of the program around it."""

    def __init__(self, file: Path, runtime: Runtime, library: Library) -> None:
        super().__init__(file, runtime, library)
        libraries = arm64_libraries()
        if missing := [name for name in (EMULATOR, COMPILER) if shutil.which(name) is None]:
            raise UnavailableError(f"{' and '.join(missing)} not found, which run {file.name} here. Try: {TOOLS}.")
        self._temporary = tempfile.TemporaryDirectory(prefix="edgeopt-")
        self._folder = Path(self._temporary.name)
        rows = (_described(spec) for spec in library.inputs)
        (self._folder / "inputs.txt").write_text("".join(f"{row}\n" for row in rows))
        paths = [str(library.parent) for library in libraries]
        include = Path(frameworks.load("tvm_ffi").__file__).parent
        self._call(
            *(COMPILER, "-O2", "-std=gnu11", str(RUNNER), "-o", "runner", "-Wl,--no-as-needed"),
            *(f"-I{include / name}" for name in ("include", "3rdparty/dlpack/include")),
            *(str(library) for library in libraries),
            "-Wl,--allow-shlib-undefined",
        )
        self._command = (EMULATOR, "-L", str(SYSROOT), "-E", f"LD_LIBRARY_PATH={':'.join(paths)}", "./runner")

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """Raises UnavailableError: an emulator's times are not those of what it emulates."""
        raise UnavailableError(
            f"Expected a library for this machine to time, got {self._file.name} for {self._library.processor}, which "
            "QEMU runs here: its times say nothing. Try timing it there."
        )

    def close(self) -> None:
        """See Session.close."""
        self._temporary.cleanup()

    def _series(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        given, outputs = self._library.inputs, self._library.outputs
        arrays = (np.ascontiguousarray(sample[spec.name]) for sample in samples for spec in given)
        (self._folder / "inputs.bin").write_bytes(b"".join(array.tobytes() for array in arrays))
        self._call(*self._command, str(self._file.absolute()), "inputs.txt", "inputs.bin", "outputs.bin")
        row = np.dtype([(str(i), spec.dtype, spec.shape) for i, spec in enumerate(outputs)])
        content = (self._folder / "outputs.bin").read_bytes()
        if len(content) != len(samples) * row.itemsize:
            raise self._refused("run", f"{len(content):,} bytes came out of {len(samples)} samples")
        rows = np.frombuffer(content, row)
        return [{spec.name: one[str(i)].copy() for i, spec in enumerate(outputs)} for one in rows]

    def _call(self, *command: str) -> None:
        try:
            done = subprocess.run(
                command, cwd=self._folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise self._refused("run", f"{command[0]} did not end within {TIMEOUT_S} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and no message"]
            raise self._refused("run", f"{command[0]}: {lines[-1]}")


def arm64_libraries() -> tuple[Path, Path]:
    """Returns TVM's libraries for ARM64.

    Raises:
        UnavailableError: they are not here; the message says what to type.
    """
    folder = Path(os.environ.get(LIBRARIES) or places.cache() / "tvm-arm64")
    found = folder / "tvm" / "lib" / "libtvm_runtime.so", folder / "tvm_ffi" / "lib" / "libtvm_ffi.so"
    if not all(library.is_file() for library in found):
        wanted = f"apache-tvm=={version()} apache-tvm-ffi=={frameworks.installed_version('tvm_ffi')}"
        raise UnavailableError(
            f"Expected TVM's libraries for ARM64 in {folder}, got none. Try: pip install --no-deps --target {folder} "
            f"--platform manylinux_2_28_aarch64 --only-binary=:all: {wanted} (100 MB), or {LIBRARIES}=FOLDER."
        )
    return found


def _described(spec: TensorSpec) -> str:
    """Returns an input as the runner reads it."""
    dtype = np.dtype(spec.dtype)
    return " ".join(map(str, (_CODES[dtype.kind], 8 * dtype.itemsize, len(spec.shape), *spec.shape)))


def _release(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")[:2])
