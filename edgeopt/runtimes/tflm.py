"""TensorFlow Lite for Microcontrollers on this host: exact outputs, and the arena that a file needs."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, workers
from edgeopt.errors import ModelError
from edgeopt.native_log import native_log
from edgeopt.runtimes import RUNTIMES, Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import one_line, quantization, read_file, require_inputs, times_ns
from edgeopt.runtimes.isolation import crashed, died_words
from edgeopt.runtimes.state import variables
from edgeopt.tflite import lifetimes
from edgeopt.tflite.model import BITS, TFLiteModel, printable
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read, read_once
from edgeopt.vocabulary import TensorSpec

INSTALL = frameworks.install_command("tflite_micro", upgrade=True)
_LEAST_ARENA_BYTES = 64 * 1024
_LARGEST_ARENA_BYTES = 1024**3
_ARENA_STEP_BYTES = 16  # TFLM aligns its buffers to this
_TOO_SMALL = re.compile(r"Requested: \d+, available")
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
# RuntimeError is the interpreter's own; the rest comes from the schema code on a damaged file.
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, struct.error)


@dataclass(frozen=True)
class Arena:
    """The tensor arena that a file needs, in bytes.

    Attributes:
        used: what the interpreter has allocated after the first run.
        minimum: the smallest arena it starts and runs with, above `used` by what planning takes for a moment.
            Pointers of this 64-bit host make both 2 to 3 % more than on a Cortex-M.
    """

    used: int
    minimum: int


class TFLMSession(Session):
    """A file on the interpreter of tflite-micro, in an arena of `arena_bytes` that is large enough."""

    runtime = RUNTIMES["tflm"]

    def __init__(self, runtime: Any, file: Path, *, keep_intermediates: bool) -> None:
        self._runtime, self._file, self._content = runtime, file, read_file(file)
        self._keep_intermediates = keep_intermediates
        try:
            graph = runtime.convert_bytearray_to_object(self._content)
            signature = next((s for s in graph.signatureDefs or () if s.subgraphIndex == 0), None)
            self._names = [printable(tensor.name) for tensor in graph.subgraphs[0].tensors]
            in_names = {m.tensorIndex: printable(m.name) for m in (signature.inputs if signature else ())}
            out_names = {m.tensorIndex: printable(m.name) for m in (signature.outputs if signature else ())}
            inputs = [in_names.get(i, self._names[i]) for i in graph.subgraphs[0].inputs]
            outputs = [out_names.get(i, self._names[i]) for i in graph.subgraphs[0].outputs]
        except _REFUSALS as error:
            raise _refused(file, one_line(error)) from error
        if any(buffer.offset > 1 for buffer in graph.buffers or ()):
            raise ModelError(
                f"Expected weights inside the flatbuffer of {file.name}, got some behind it, where TFLM finds none and "
                "computes without them. Try edgeopt export micro, which puts them inside, or --runtime litert."
            )
        model = read(self._content)
        self.arena_bytes = _first_arena(file, model)
        self._interpreter = self._open_in_enough()
        self._has_variables = bool(variables(model))
        made = {i for operator in model.main.operators for i in operator.outputs}
        # Asking for the value of a resource ends the process.
        self._activations = sorted(i for i in made if model.main.tensors[i].dtype in BITS)
        self.inputs = tuple(_spec(name, self._interpreter.get_input_details(i)) for i, name in enumerate(inputs))
        self.outputs = tuple(_spec(name, self._interpreter.get_output_details(i)) for i, name in enumerate(outputs))
        self._fresh = True

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        self._renew()
        self._set(inputs)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            with native_log() as log, contextlib.suppress(RuntimeError):
                self._interpreter.invoke()  # once more, for its words: listening to every run would cost too much
            raise _refused(self._file, log.words or one_line(error)) from error
        return {spec.name: np.array(self._interpreter.get_output(i)) for i, spec in enumerate(self.outputs)}

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns. These are a host's times of portable kernels, no microcontroller's."""
        self._renew()
        self._set(inputs)
        return times_ns(self._interpreter.invoke, runs)

    def tensors(self) -> dict[str, np.ndarray]:
        """See Session.tensors."""
        if not self._keep_intermediates:
            raise ModelError("Expected a session opened with keep_intermediates, got one without. Try opening it anew.")
        return {self._names[i]: np.array(self._interpreter.GetTensor(i, 0)["tensor_data"]) for i in self._activations}

    def close(self) -> None:
        """See Session.close."""
        self._interpreter = None

    def arena(self) -> Arena:
        """Measures the arena: runs once, reads what was allocated, and bisects for the least that still runs."""
        used = self.used_arena()
        return Arena(used, _least(used, self.arena_bytes, self.runs_in))

    def used_arena(self) -> int:
        """Returns the bytes that are allocated after a run."""
        self.run(self._zeros())
        with native_log() as log:
            self._interpreter.print_allocations()
        total = _TOTAL.search(log.text)
        if total is None:
            raise ModelError(
                f"Expected tflite-micro to print its arena for {self._file.name}, got: {log.words or 'nothing'}. "
                "Try another version of tflite-micro."
            )
        return int(total[1])

    def runs_in(self, arena_bytes: int) -> bool:
        """Says whether the file opens and runs in an arena of that size; TFLM may crash where it does not."""
        inputs = self._zeros()
        try:
            with native_log():
                interpreter = self._open(arena_bytes)
                for i, spec in enumerate(self.inputs):
                    interpreter.set_input(inputs[spec.name], i)
                interpreter.invoke()
        except RuntimeError:
            return False
        return True

    def _renew(self) -> None:
        """Puts the interpreter into the state of a file that was just opened."""
        if not self._fresh and self._has_variables:
            self._interpreter = self._open(self.arena_bytes)  # its reset gives zeros, whatever CALL_ONCE assigned
        elif not self._fresh:
            self._interpreter.reset()
        self._fresh = False

    def _zeros(self) -> dict[str, np.ndarray]:
        return {spec.name: np.zeros(_shape(spec), spec.dtype) for spec in self.inputs}

    def _set(self, inputs: Mapping[str, np.ndarray]) -> None:
        require_inputs(inputs, self.inputs)
        for i, spec in enumerate(self.inputs):
            self._interpreter.set_input(inputs[spec.name], i)

    def _open_in_enough(self) -> Any:
        while True:
            try:
                with native_log() as log:
                    return self._open(self.arena_bytes)
            except _REFUSALS as error:
                if not _TOO_SMALL.search(log.text) or self.arena_bytes >= _LARGEST_ARENA_BYTES:
                    raise _refused(self._file, log.words or one_line(error)) from error
            self.arena_bytes *= 2

    def _open(self, arena_bytes: int) -> Any:
        kinds = self._runtime.InterpreterConfig
        kind = kinds.kPreserveAllTensors if self._keep_intermediates else kinds.kAllocationRecording
        return self._runtime.Interpreter.from_bytes(self._content, arena_size=arena_bytes, intrepreter_config=kind)


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return frameworks.installed_version("tflite_micro") or ""


def load() -> None:
    """Imports the package."""
    frameworks.load("tflite_micro")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns the reasons by the operators in `file`."""
    return unsupported_by(read_once(file), "tflite-micro", version)


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> TFLMSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`. TFLM has one thread and no delegates, whatever is asked."""
    return TFLMSession(frameworks.load("tflite_micro").runtime, file, keep_intermediates=keep_intermediates)


def minimum_arena(file: Path) -> Arena:
    """Returns the tensor arena that TFLM needs for `file`, by trying.

    Raises:
        UnavailableError: tflite-micro is not installed.
        ModelError: TFLM refuses the file.
    """
    session = opened(file)
    try:
        return session.arena()
    finally:
        session.close()


def measured_arena(file: Path) -> Arena:
    """As `minimum_arena`, in worker processes: some kernels crash in an arena that is too small, where others refuse.

    Raises:
        UnavailableError, ModelError: as minimum_arena; ModelError also where it crashes in any arena.
    """
    worker = workers.shared("tflite_micro")
    with contextlib.suppress(workers.WorkerCrashed):
        arena: Arena = worker.call("edgeopt.runtimes.tflm:minimum_arena", file)
        return arena

    def runs_in(arena_bytes: int) -> bool:
        try:
            return bool(worker.create("edgeopt.runtimes.tflm:opened", file).call("runs_in", arena_bytes))
        except workers.WorkerCrashed:
            return False

    try:
        session = worker.create("edgeopt.runtimes.tflm:opened", file)
        used, enough = session.call("used_arena"), session.get("arena_bytes")
    except workers.WorkerCrashed as crash:
        raise crashed(died_words(file, RUNTIMES["tflm"], None), crash) from None
    return Arena(used, _least(used, enough, runs_in))


def opened(file: Path) -> TFLMSession:
    """Opens `file` in this process."""
    return TFLMSession(frameworks.load("tflite_micro").runtime, file, keep_intermediates=False)


def _least(used: int, enough: int, runs_in: Callable[[int], bool]) -> int:
    """Returns the smallest arena in whole steps that a file runs in, between what it uses and what was enough."""
    low, high = used // _ARENA_STEP_BYTES - 1, -(-enough // _ARENA_STEP_BYTES)
    while high - low > 1:
        middle = (low + high) // 2
        if runs_in(middle * _ARENA_STEP_BYTES):
            high = middle
        else:
            low = middle
    return high * _ARENA_STEP_BYTES


def _first_arena(file: Path, model: TFLiteModel) -> int:
    """Returns an arena that is nearly always enough: what is alive at once twice, and scales as many as the file holds.

    In one that is too small some kernels crash, where others say so.
    """
    alive = lifetimes.peak(model).size_bytes
    if alive > _LARGEST_ARENA_BYTES:
        raise _refused(
            file, f"its activations take {alive:,} bytes at once, {_LARGEST_ARENA_BYTES:,} are tried at most"
        )
    return min(_LEAST_ARENA_BYTES + 2 * alive + model.size_bytes, _LARGEST_ARENA_BYTES)


def _refused(file: Path, words: str) -> ModelError:
    return ModelError(
        f"tflm refused {file.name}: {printable(words).rstrip('.')}. Expected a file whose operators and dtypes TFLM "
        "has; try another scheme, or another runtime."
    )


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in spec.shape)


def _spec(name: str, details: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        name,
        tuple(int(size) for size in details["shape"]),
        np.dtype(details["dtype"]).name,
        quantization(details["quantization_parameters"]),
    )
