"""LiteRT's CompiledModel on the GPU: a `.tflite` goes in, a session on WebGPU comes out, with what stays on the CPU.

What the GPU cannot run goes to the CPU, and LiteRT calls a model of the CPU alone fully accelerated as well: the share
and the reasons are those that the delegate itself writes into its log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.native_log import NativeLog, native_log
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import counted, one_line, read_file, require_inputs, times_ns
from edgeopt.runtimes.state import state
from edgeopt.tflite import interface
from edgeopt.tflite.model import TFLiteModel, printable
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read, read_once
from edgeopt.vocabulary import TensorSpec

# Chromium's GPU in software.
SOFTWARE = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
INSTALL = (
    "apt-get install libvulkan1, and a Vulkan driver for the GPU (mesa-vulkan-drivers, or its maker's); without a GPU "
    f"the software one of chromium: apt-get install chromium, and VK_ICD_FILENAMES={SOFTWARE}"
)
# CompiledModel, and what it says of the operators that it leaves.
_OLDEST = (2, 0)
_LEFT = re.compile(r"^(?P<operator>[A-Z0-9_]+): (?P<reason>.+)$", re.MULTILINE)
_SHARE = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_HEADING = "Following operations are not supported by GPU delegate:"
_REFUSALS = (RuntimeError, ValueError)


def version() -> str:
    """Returns the installed version of LiteRT, "" where there is none that has a CompiledModel."""
    found = frameworks.installed_version("litert") or ""
    return found if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) >= _OLDEST else ""


def load() -> None:
    """Imports the package."""
    frameworks.load("litert_compiled_model")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns the reasons by the operator versions in `file`, and by what it would have to remember."""
    model = read_once(file)
    kept = state(model)
    memory = ("it remembers its last call, which CompiledModel has no way to set back",)
    return (*unsupported_by(model, "ai-edge-litert", version), *(memory if kept.tensors or kept.resources else ()))


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> GpuSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`."""
    return GpuSession(file, runtime)


class GpuSession(Session):
    """A file in a CompiledModel with static shapes; samples of a batch run one after another.

    Attributes:
        reasons: of the operators that stay on the CPU, in the delegate's words, by operator.
    """

    def __init__(self, file: Path, runtime: Runtime) -> None:
        self.runtime, self._file = runtime, file
        load()
        content = interface.with_static_shapes(read_file(file))
        model = read(content)
        if why := refusals(file, version()):
            raise self._refused("takes", "; ".join(why))
        self.inputs = self._given = _fixed(model.inputs)
        self.outputs = self._taken = _fixed(model.outputs)
        self._compile(content, model)

    def _compile(self, content: bytes, model: TFLiteModel) -> None:
        module = frameworks.load("litert_compiled_model")
        kinds, log = module.HardwareAccelerator, NativeLog()
        try:
            with native_log() as log:
                self._compiled = module.CompiledModel.from_buffer(content, kinds.GPU | kinds.CPU)
                self._signature = self._compiled.get_signature_by_index(0)
                self._in = dict(zip(self._signature["inputs"], self._compiled.create_input_buffers(0)))
                self._out = dict(zip(self._signature["outputs"], self._compiled.create_output_buffers(0)))
        except _REFUSALS as error:
            if "No adapters found" in log.text:
                raise UnavailableError(f"{self.runtime.name} finds no GPU here. Try: {INSTALL}.") from error
            raise self._refused("takes", log.words or one_line(error)) from error
        if self._in.keys() != {spec.name for spec in self.inputs}:
            raise self._refused("takes", "its first signature is not that of its main graph")
        self.reasons = left_on_cpu(log.text)
        names = [operator.name for operator in model.main.operators]
        share = _SHARE.search(log.text)
        taken, stayed = (int(share[1]), int(share[2])) if share else (len(names), 0)
        self.delegated_share = taken / (taken + stayed) if taken + stayed else None
        if not taken:
            raise UnavailableError(
                f"The GPU took none of the {stayed} operators of {self._file.name} ({self._because()}): everything "
                "would run on the CPU. Try --runtime litert."
            )
        if not stayed:
            self.delegated = counted(names)
            return
        self.delegated = (f"{taken} operators",)
        between = stayed - sum(name in self.reasons for name in names)
        self.undelegated = (
            *(f"{name}: {reason}" for name, reason in self.reasons.items()),
            *((f"{between} that the GPU would take, in parts of the graph of their own",) if between > 0 else ()),
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        require_inputs(inputs, self.inputs)
        count = self.inputs[0].shape[0] or 1 if self.inputs != self._given else 1
        if count == 1:
            return self._one(inputs)
        found = [self._one({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(count)]
        return {spec.name: np.concatenate([one[spec.name] for one in found]) for spec in self._taken}

    def resize(self, batch_size: int) -> bool:
        """See Session.resize: a batch is its samples by construction."""
        if any(spec.shape[:1] != (1,) for spec in (*self._given, *self._taken)):
            return super().resize(batch_size)
        self.inputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in self._given)
        self.outputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in self._taken)
        return True

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns. Reading the outputs is part of each time: until then they may not be there."""
        require_inputs(inputs, self.inputs)
        if self.inputs != self._given:
            raise self.runtime.refuses_shape(self._given[0], {name: array.shape for name, array in inputs.items()})
        self._write(inputs)
        return times_ns(self._computed, runs)

    def close(self) -> None:
        """See Session.close."""
        self._compiled, self._in, self._out = None, {}, {}

    def _one(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            self._write(inputs)
            return self._computed()
        except _REFUSALS as error:
            raise self._refused("can run", one_line(error)) from error

    def _write(self, inputs: Mapping[str, np.ndarray]) -> None:
        for name, array in inputs.items():
            self._in[name].write(np.ascontiguousarray(array))

    def _computed(self) -> dict[str, np.ndarray]:
        self._compiled.run_by_index(0, list(self._in.values()), list(self._out.values()))
        return {spec.name: self._read(spec) for spec in self._taken}

    def _read(self, spec: TensorSpec) -> np.ndarray:
        shape = tuple(size or 1 for size in spec.shape)
        values = self._out[spec.name].read(int(np.prod(shape, dtype=np.int64)), np.dtype(spec.dtype))
        return np.array(values, dtype=spec.dtype).reshape(shape)

    def _because(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items()) or "it does not say why"

    def _refused(self, verb: str, words: str) -> ModelError:
        return ModelError(
            f"{self.runtime.name} does not run {self._file.name}: {printable(words).rstrip('.')}. Expected a file "
            f"that it {verb}; try --runtime litert, or a model with fixed sizes."
        )


def left_on_cpu(log: str) -> dict[str, str]:
    """Returns why operators stay on the CPU, from the delegate's log: kind of operator → its words."""
    _, found, rest = log.partition(_HEADING)
    block = _SHARE.split(rest, maxsplit=1)[0] if found else ""
    return {row["operator"]: printable(row["reason"]).rstrip(".") for row in _LEFT.finditer(block)}


def _fixed(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=tuple(size or 1 for size in spec.shape)) for spec in specs)
