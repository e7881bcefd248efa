"""A `.tflite` file and the name of a Cortex-M go in; what plain C99 of the model computes and takes there comes out.

The library of `edgeopt.c99` is cross-compiled with a small program around it and run by qemu-system-arm, which counts
instructions. It knows no wait states, caches or pipelines: instructions are not cycles, and nothing here is a time.
"""

from __future__ import annotations

import functools
import math
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeopt import c99
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import read_file, require_inputs
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Footprint, TensorSpec

COMPILER, SIZE, SIMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
INSTALL = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
OPTIMIZATION = "-O2"
SUPPORT = Path(__file__).parent / "cortex_m"
TIMEOUT_S = 600
# Of the library that is generated, and thereby of its header, macros and functions: cortex_m/runner.c calls them.
_NAME = "model"
_FAULT_STATUS = 70
# A fault in the program stops it with a status; these say what the linker, or we, found too large.
_TOO_LARGE = re.compile(r"region `(\w+)' overflowed")
# Sections of object files by what they become: code and constants in flash, data in both memories, the rest in RAM.
_KINDS = {".text": "code", ".rodata": "constants", ".data": "data", ".bss": "bss"}


@dataclass(frozen=True)
class Memory:
    """A memory of a board: its first address and its size."""

    origin: int
    size_bytes: int


@dataclass(frozen=True)
class Board:
    """A board that QEMU simulates.

    Attributes:
        core: for `-mcpu`.
        machine: for `-M`.
        float_options: which float instructions the compiler may use.
        flash, ram: what program and data are put into; the vectors stand at address 0 in any case.
        clock_mhz: of SysTick; under `-icount shift=0` an instruction takes a nanosecond.
    """

    core: str
    machine: str
    float_options: tuple[str, ...]
    flash: Memory
    ram: Memory
    clock_mhz: int

    @property
    def options(self) -> tuple[str, ...]:
        """Of the compiler, for the core."""
        return (f"-mcpu={self.core}", "-mthumb", *self.float_options)

    @property
    def linker_options(self) -> tuple[str, ...]:
        """Of the compiler where it links: a program without the C library's start, in the board's memories."""
        numbers = {
            "FLASH_ORIGIN": self.flash.origin,
            "FLASH_BYTES": self.flash.size_bytes,
            "RAM_ORIGIN": self.ram.origin,
            "RAM_BYTES": self.ram.size_bytes,
        }
        symbols = (f"-Wl,--defsym={name}={value:#x}" for name, value in numbers.items())
        return ("-nostartfiles", "--specs=nosys.specs", "-T", str(SUPPORT / "memory.ld"), *symbols, "-Wl,--gc-sections")

    @property
    def simulator(self) -> tuple[str, ...]:
        """The command that runs a program, but for `-kernel PROGRAM`; its exit status is the program's."""
        quiet = ("-nographic", "-monitor", "none", "-serial", "null")
        return (
            *(SIMULATOR, "-M", self.machine, *quiet),
            *("-semihosting-config", "enable=on,target=native", "-icount", "shift=0"),
        )

    @property
    def instructions_per_tick(self) -> float:
        """Of SysTick."""
        return 1000 / self.clock_mhz


# The first KiB is the vectors'.
_MPS2 = Memory(0x400, (4 << 20) - 0x400), Memory(0x2000_0000, 4 << 20), 25
_MPS3 = Memory(0x6000_0000, 64 << 20), Memory(0x6800_0000, 64 << 20), 32
BOARDS: dict[str, Board] = {
    "qemu-cortex-m3": Board("cortex-m3", "mps2-an385", ("-mfloat-abi=soft",), *_MPS2),
    "qemu-cortex-m4": Board("cortex-m4", "mps2-an386", ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), *_MPS2),
    "qemu-cortex-m7": Board("cortex-m7", "mps2-an500", ("-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), *_MPS2),
    "qemu-cortex-m55": Board("cortex-m55", "mps3-an547", ("-mfloat-abi=hard",), *_MPS3),
}


class QemuSession(Session):
    """A file compiled for a board. Every run is one start of the simulator, however many samples it is given."""

    def __init__(self, file: Path, runtime: Runtime) -> None:
        require_tools()
        self._file, self.runtime, self._board = file, runtime, BOARDS[runtime.name]
        content = read_file(file)
        try:
            library = c99.generate(read(content), name=_NAME, rounding="tflm")
        except ModelError as error:
            raise self._refused(str(error)) from error
        self.inputs = tuple(replace(spec, shape=_sizes(spec)) for spec in library.inputs)
        self.outputs = tuple(replace(spec, shape=_sizes(spec)) for spec in library.outputs)
        self._samples = 1
        self._temporary = tempfile.TemporaryDirectory(prefix="edgeopt-qemu-")
        self._folder = Path(self._temporary.name)
        try:
            self._objects = self._compile(library.files)
            self._link()
        except BaseException:
            self.close()
            raise

    def resize(self, batch_size: int) -> bool:
        """See Session.resize: samples run one after another, so a batch is its samples by construction."""
        specs = (*self.inputs, *self.outputs)
        if any(spec.shape[:1] != (self._samples,) for spec in specs):
            return batch_size == 1
        self.inputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in self.inputs)
        self.outputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in self.outputs)
        self._samples = batch_size
        return True

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        return self._simulate(inputs)[0]

    def footprint(self, inputs: Mapping[str, np.ndarray]) -> Footprint:
        """See Session.footprint."""
        _, ticks, stack_bytes = self._simulate(inputs)
        sizes = self._section_bytes()
        return Footprint(
            code_bytes=sizes["code"],
            weights_bytes=sizes["constants"] + sizes["data"],
            ram_bytes=sizes["data"] + sizes["bss"] + stack_bytes,
            stack_bytes=stack_bytes,
            instructions=round(ticks * self._board.instructions_per_tick),
            core=self._board.core,
            compiler=f"{COMPILER} {tool_version(COMPILER)} {OPTIMIZATION}",
        )

    def close(self) -> None:
        """Removes the program."""
        self._temporary.cleanup()

    def _compile(self, files: Mapping[str, str]) -> list[Path]:
        """Returns the object files of the library."""
        for name, text in files.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        objects = []
        for source in sorted(self._folder.rglob("*.c")):
            objects.append(source.with_suffix(".o"))
            self._call(COMPILER, *self._options, "-c", str(source), "-o", str(objects[-1]))
        return objects

    def _link(self) -> None:
        """Puts the library and our program around it together."""
        self._call(
            COMPILER,
            *self._options,
            f"-DINPUT_BYTES={_macros('INPUT', len(self.inputs))}",
            f"-DOUTPUT_BYTES={_macros('OUTPUT', len(self.outputs))}",
            *(str(SUPPORT / name) for name in ("startup.c", "runner.c")),
            *map(str, self._objects),
            *self._board.linker_options,
            *("-lm", "-o", "program.elf"),
        )

    @property
    def _options(self) -> tuple[str, ...]:
        sections = ("-ffunction-sections", "-fdata-sections")
        return (*self._board.options, OPTIMIZATION, "-std=gnu99", *sections, "-Iinclude", f"-I{SUPPORT}")

    def _simulate(self, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int, int]:
        """Returns the outputs, and what the first sample took: clock ticks and bytes of stack."""
        require_inputs(inputs, self.inputs)
        arrays = [np.ascontiguousarray(inputs[spec.name]).reshape(self._samples, -1) for spec in self.inputs]
        content = b"".join(array[i].tobytes() for i in range(self._samples) for array in arrays)
        (self._folder / "inputs.bin").write_bytes(struct.pack("<I", self._samples) + content)
        self._call(*self._board.simulator, "-kernel", "program.elf")
        counts = [math.prod(_sizes(spec)) // self._samples for spec in self.outputs]
        row = np.dtype([(str(i), spec.dtype, (count,)) for i, (spec, count) in enumerate(zip(self.outputs, counts))])
        rows = np.frombuffer((self._folder / "outputs.bin").read_bytes(), row)
        outputs = {spec.name: rows[str(i)].reshape(_sizes(spec)).copy() for i, spec in enumerate(self.outputs)}
        ticks, stack_bytes = struct.unpack("<2Q", (self._folder / "report.bin").read_bytes())
        return outputs, ticks, stack_bytes

    def _section_bytes(self) -> dict[str, int]:
        """Returns the bytes of the library's own sections, by what they become."""
        found = dict.fromkeys(_KINDS.values(), 0)
        for line in self._call(SIZE, "-A", *map(str, self._objects)).splitlines():
            kind = next((kind for start, kind in _KINDS.items() if line.startswith(start)), None)
            if kind is not None:
                found[kind] += int(line.split()[1])
        return found

    def _call(self, *command: str) -> str:
        """Runs a tool in the session's folder and returns what it printed.

        Raises:
            ModelError: it failed, or did not end.
        """
        try:
            done = subprocess.run(
                command, cwd=self._folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise self._refused(f"{command[0]} did not end within {TIMEOUT_S} s") from None
        if done.returncode == 0:
            return done.stdout
        if too_large := _TOO_LARGE.search(done.stderr):
            memory = self._board.flash if too_large[1] == "flash" else self._board.ram
            room = f"{memory.size_bytes:,} bytes of {too_large[1]}"
            raise self._refused(f"it does not fit the {room} of {self._board.machine}")
        if command[0] == SIMULATOR and done.returncode == _FAULT_STATUS:
            raise self._refused("the program faulted")
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it left no message"]
        words = next((line for line in lines if "error" in line), lines[-1])
        raise self._refused(f"{command[0]} ended with {done.returncode}: {words}")

    def _refused(self, why: str) -> ModelError:
        remedy = "" if "Try --runtime tflm" in why else " Try --runtime tflm."
        return ModelError(f"{self.runtime.name} refused {self._file.name}: {why.rstrip('.')}.{remedy}")


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> QemuSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`. A core has one thread and no delegates, whatever is asked."""
    return QemuSession(file, runtime)


def require_tools() -> None:
    """Raises UnavailableError where a tool is not installed."""
    missing = [name for name in (COMPILER, SIMULATOR) if shutil.which(name) is None]
    if missing:
        raise UnavailableError(f"{' and '.join(missing)} not found. Try: {INSTALL}.")


def load() -> None:
    """Imports nothing: what it takes are programs."""


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns nothing: what plain C99 of a model lacks is said when it is opened."""
    return ()


def version() -> str:
    """Returns the simulator's version, "" where it is not installed."""
    return tool_version(SIMULATOR) if shutil.which(SIMULATOR) else ""


@functools.cache
def tool_version(program: str) -> str:
    """Returns the last version in the first line that `program --version` prints."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    found: Sequence[str] = re.findall(r"(?<![\w:.+-])\d+(?:\.\d+)+(?![\w.+-])", done.stdout.splitlines()[0])
    return found[-1] if found else ""


def _macros(kind: str, count: int) -> str:
    return ",".join(f"{_NAME.upper()}_{kind}_{i}_BYTES" for i in range(count))


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in spec.shape)
