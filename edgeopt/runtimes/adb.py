"""An Android device over adb: a file and the program benchmark_model go in, what it measured there comes out.

Everything lies in a folder of its own under /data/local/tmp, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import ConfigError, ModelError, UnavailableError
from edgeopt.runtimes.benchmark_model import Printed, parse
from edgeopt.vocabulary import RuntimeResult

# Names of the rows that a device gives.
CPU, GPU = "adb-cpu", "adb-gpu"
_FOLDER = "/data/local/tmp"
_RUNS = 50
_QUICK_S, _LONG_S = 30, 600
# What adb says of a device that it sees and cannot use, and what its user can do.
_STATES = {
    "unauthorized": "confirm this computer on its screen",
    "offline": "plug it in again",
    "no": "let this user at its USB port (udev rules)",
    "recovery": "start Android on it",
    "sideload": "start Android on it",
}


@dataclass(frozen=True)
class Device:
    """A device that answers.

    Attributes:
        serial: as adb names it.
        model, release, abi: "Pixel 8", "15", "arm64-v8a".
    """

    serial: str
    model: str
    release: str
    abi: str

    @property
    def version(self) -> str:
        """What its rows name as their version."""
        return f"{self.model}, Android {self.release}"


@dataclass(frozen=True)
class Measured:
    """A row, the profile of its operators, and what must be known to read it."""

    result: RuntimeResult
    printed: Printed | None = None


def connected(text: str) -> Device:
    """Returns the device of `--device`: "adb" for the only one, or "adb:SERIAL".

    Raises:
        ConfigError: `text` is neither.
        UnavailableError: there is no adb, no such device, none or several, or it cannot be used yet.
    """
    kind, _, serial = text.partition(":")
    if kind != "adb":
        raise ConfigError(f"Expected a device as adb or adb:SERIAL, got {text!r}.")
    _, _, lines = _adb("devices").partition("List of devices attached")
    states = {words[0]: words[1] for words in (line.split() for line in lines.splitlines()) if len(words) > 1}
    if not serial:
        if len(states) != 1:
            raise UnavailableError(_none_or_several(states))
        serial = next(iter(states))
    if serial not in states:
        raise UnavailableError(
            f"Expected the device {serial}, got {', '.join(states) or 'none'}. Try one of `adb devices`."
        )
    if states[serial] != "device":
        advice = _STATES.get(states[serial], "see what `adb devices` says of it")
        raise UnavailableError(f"Expected the device {serial} to answer, got {states[serial]!r}. Try: {advice}.")
    names = ("ro.product.model", "ro.build.version.release", "ro.product.cpu.abi")
    return Device(serial, *(_property(serial, name) for name in names))


@contextlib.contextmanager
def lent(device: Device, program: Path) -> Iterator[str]:
    """Yields a folder on the device that holds `program`, and removes it at the end.

    Raises:
        ConfigError: there is no such file.
        UnavailableError: the device went away.
    """
    if not program.is_file():
        raise ConfigError(
            f"Expected LiteRT's benchmark_model for {device.abi} as --benchmark-model, got {program}, "
            "which does not exist. Try the download that LiteRT's page on performance measurement links."
        )
    folder = f"{_FOLDER}/edgeopt-{uuid.uuid4().hex[:12]}"
    try:
        _on(device, "shell", f"mkdir {folder}")
        _on(device, "push", program, f"{folder}/benchmark_model")
        _on(device, "shell", f"chmod 755 {folder}/benchmark_model")
        yield folder
    finally:
        with contextlib.suppress(UnavailableError, ModelError):
            _on(device, "shell", f"rm -rf {folder}")


def measured(
    device: Device,
    folder: str,
    file: Path,
    *,
    gpu: bool = False,
    threads: int = 1,
    runs: int | None = None,
    warmup: int = 10,
    profile: bool = False,
) -> Measured:
    """Returns what benchmark_model in `folder` measures of `file`, on the CPU with XNNPACK or on the GPU.

    Raises:
        UnavailableError: the device went away.
    """
    name = GPU if gpu else CPU
    words = [
        f"{folder}/benchmark_model",
        f"--graph={folder}/model.tflite",
        f"--num_threads={threads}",
        f"--num_runs={runs or _RUNS}",
        f"--warmup_runs={warmup}",
        "--use_gpu=true" if gpu else "--use_xnnpack=true",
        f"--enable_op_profiling={str(profile).lower()}",
        "--report_peak_memory_footprint=true",
    ]
    try:
        _on(device, "push", file, f"{folder}/model.tflite")
        printed = parse(_on(device, "shell", shlex.join(words)), threads=threads)
        share = _share(printed, gpu=gpu)
    except ModelError as error:
        return Measured(RuntimeResult(name, device.version, "failed", str(error)))
    result = RuntimeResult(
        name,
        device.version,
        delegated_share=share,
        latency_ms=printed.latency,
        load_ms=printed.load_ms,
        first_ms=printed.first_ms,
        peak_memory_bytes=printed.peak_memory_bytes,
    )
    return Measured(result, printed)


def _share(printed: Printed, *, gpu: bool) -> float | None:
    """Returns the share that the delegate took; ModelError where the GPU took nothing and the CPU ran in its place."""
    wanted = "gpu" if gpu else "xnnpack"
    share = next((share for name, share in printed.delegates.items() if wanted in name.lower()), None)
    if gpu and printed.applied == "completely":
        return 1.0
    if gpu and (printed.applied == "not" or not (share or printed.applied)):
        raise ModelError("The GPU took nothing of the model: it ran on the CPU. Try a float32 or float16 file.")
    return share


def _property(serial: str, name: str) -> str:
    return _printable(_adb("-s", serial, "shell", f"getprop {name}").partition("\n")[0])


def _none_or_several(states: dict[str, str]) -> str:
    if not states:
        return "Expected an Android device, got none. Try a cable and USB debugging, until `adb devices` shows it."
    return f"Expected one Android device, got {', '.join(states)}. Try --device adb:{next(iter(states))}."


def _on(device: Device, *words: str | Path) -> str:
    """Runs adb for a device; what fails there is a ModelError with its words, a lost device an UnavailableError."""
    try:
        return _adb("-s", device.serial, *words, timeout_s=_LONG_S)
    except _Failed as failure:
        try:
            state = _adb("-s", device.serial, "get-state").strip()
        except _Failed:
            state = "gone"
        if state != "device":
            raise UnavailableError(
                f"The device {device.serial} ({device.model}) went away in the middle: {failure.words}. "
                "Try again with another cable or port."
            ) from None
        raise ModelError(f"On {device.model} ({device.abi}) this failed: {failure.words}.") from None


class _Failed(UnavailableError):
    """adb said that something failed: in its words, or in the device's."""

    def __init__(self, words: str) -> None:
        super().__init__(f"adb failed: {words}. Try `adb devices`, until it shows the device.")
        self.words = words


def _adb(*words: str | Path, timeout_s: int = _QUICK_S) -> str:
    program = shutil.which("adb")
    if program is None:
        raise UnavailableError("Expected adb on the PATH, got none. Try Android's platform-tools, or apt install adb.")
    try:
        done = subprocess.run(
            [program, *map(str, words)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"no answer in {timeout_s} seconds") from None
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode:
        lines = [_printable(line) for line in said.splitlines() if line.strip()]
        raise _Failed(" / ".join(lines[-3:]).rstrip(".") or f"exit status {done.returncode}")
    return said


def _printable(text: str) -> str:
    return "".join(character for character in text.strip() if character.isprintable())
