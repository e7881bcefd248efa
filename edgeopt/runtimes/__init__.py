"""What runs a `.tflite` file: a file and a runtime's name go in, an open session comes out.

Every runtime is one module with `open(...)`; the table below is all that is known of it elsewhere.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeopt import frameworks, workers
from edgeopt.errors import ConfigError, UnavailableError, suggestion
from edgeopt.vocabulary import Availability, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class Session(Protocol):
    """A file opened on a runtime, its tensors allocated.

    Attributes:
        inputs, outputs: by the names of the file's signature, or the tensors' own where it has none; shapes are
            those that `run` takes and gives now, and follow `resize`.
        threads: how many the runtime really uses.
        delegated_share: share of the file's operators (of its main graph) that the delegate took, 0 to 1: the
            external one where one was asked for, else the runtime's own (XNNPACK); None where it has none.
        delegated, undelegated: which operators those are, and which stayed, as "2 x CONV_2D".
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    threads: int
    delegated_share: float | None
    delegated: tuple[str, ...]
    undelegated: tuple[str, ...]

    def resize(self, batch_size: int) -> bool:
        """Sets the first dimension of every input; False (and unchanged) where the graph or runtime cannot.

        True was proven by running: outputs of the batch are those of its samples alone, integers bit for bit, floats
        within 1e-4 of the largest.
        """

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch from a fresh state. Arrays have the dtype and shape of `inputs`; outputs are copies."""

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """Sets the inputs once, in a fresh state, then times `runs` bare invocations: int64 nanoseconds [runs]."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Every activation of the last run by tensor name (only when opened with keep_intermediates)."""

    def close(self) -> None:
        """Frees it."""


@dataclass(frozen=True)
class Delegate:
    """An external delegate: a shared library and its options."""

    library: Path
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """A row of RUNTIMES.

    Attributes:
        name: as in `--runtime`.
        module: where `open()` is.
        package: key of `frameworks.FRAMEWORKS`, whose version is the runtime's; of a simulated one the program.
        family: kernels of one family round alike, so their integer outputs are equal; across families they differ
            by a quantization step or so.
        summary: one line for help and docs.
        delegates: whether external delegates can be loaded.
        threads: whether it can use more than one.
        simulated: a simulator of a device: it computes what the device would and says what the model takes there,
            but no time. It wants tools and seconds, and is only tried where it is asked for.
    """

    name: str
    module: str
    package: str
    family: str
    summary: str
    delegates: bool = False
    threads: bool = True
    simulated: bool = False


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("litert", "edgeopt.runtimes.litert", "litert", "xnnpack", "LiteRT with XNNPACK, its default", True),
        Runtime("litert-builtin", "edgeopt.runtimes.litert", "litert", "builtin", "LiteRT's own optimized kernels"),
        Runtime("litert-reference", "edgeopt.runtimes.litert", "litert", "reference", "LiteRT's reference kernels"),
        Runtime(
            "tflite-runtime",
            "edgeopt.runtimes.tflite_runtime",
            "tflite_runtime",
            "builtin",
            "the older interpreter package of many devices",
            True,
        ),
        Runtime(
            "tflm",
            "edgeopt.runtimes.tflm",
            "tflite_micro",
            "tflm",
            "TensorFlow Lite for Microcontrollers",
            threads=False,
        ),
        *(
            Runtime(
                f"qemu-cortex-{core}",
                "edgeopt.runtimes.qemu",
                "qemu",
                "tflm",
                f"plain C99 of the model on a Cortex-{core.upper()} that QEMU simulates",
                threads=False,
                simulated=True,
            )
            for core in ("m3", "m4", "m7", "m55")
        ),
    )
}

# Names that users know the same runtimes by.
ALIASES: dict[str, str] = {"ai-edge-litert": "litert", "tflite-micro": "tflm", "xnnpack": "litert"}


@dataclass(frozen=True)
class Request:
    """A parsed `--runtime NAME[==VERSION]`."""

    runtime: Runtime
    version: str | None = None


def parse(text: str) -> Request:
    """Parses "NAME" or "NAME==VERSION".

    Raises:
        ConfigError: no runtime has that name.
    """
    name, _, version = text.partition("==")
    name = ALIASES.get(name.strip(), name.strip())
    if name not in RUNTIMES:
        raise ConfigError(f"Expected a runtime, as NAME or NAME==VERSION, got {text!r}.{suggestion(name, RUNTIMES)}")
    return Request(RUNTIMES[name], version.strip() or None)


def version(runtime: Runtime) -> str:
    """Returns the version of what runs there, "" where it is not installed; nothing is run for it but `--version`."""
    if runtime.simulated:
        return str(importlib.import_module(runtime.module).version())
    return frameworks.installed_version(runtime.package) or ""


@functools.cache
def available(runtime: Runtime) -> Availability:
    """Says whether `runtime` works on this machine, by running a small model on it, in the package's worker."""
    try:
        worker, limits = workers.shared(runtime.package), workers.limits_of("trying")
        return worker.call("edgeopt.runtimes.probe:probe", runtime, timeout_s=limits.seconds)
    except workers.WorkerCrashed as crash:
        return Availability(False, f"it dies on this machine ({crash.reason})")


def open_session(
    file: Path,
    runtime: Runtime,
    *,
    threads: int = 1,
    delegate: Delegate | None = None,
    keep_intermediates: bool = False,
) -> Session:
    """Opens `file` in this process.

    Raises:
        ConfigError: `threads` is not a positive number.
        UnavailableError: the runtime or delegate is not to be had here, or the delegate takes nothing of the file.
        ModelError: the runtime refuses the file; the message holds the runtime's own words.
    """
    if threads < 1:
        raise ConfigError(f"Expected a positive number of threads, got {threads}. Try --threads 1.")
    if delegate is not None and not runtime.delegates:
        able = " or ".join(row.name for row in RUNTIMES.values() if row.delegates)
        raise UnavailableError(f"{runtime.name} loads no external delegates. Try --runtime {able}.")
    return importlib.import_module(runtime.module).open(
        file, runtime, threads=threads, delegate=delegate, keep_intermediates=keep_intermediates
    )


def isolated(
    file: Path,
    runtime: Runtime,
    *,
    threads: int = 1,
    delegate: Delegate | None = None,
    keep_intermediates: bool = False,
) -> Session:
    """Opens `file` in a worker process of its own, which `close` ends: a crash there is a ModelError here.

    Raises:
        ConfigError, UnavailableError, ModelError: as open_session; also when the runtime dies on the file.
    """
    from edgeopt.runtimes.isolation import IsolatedSession

    return IsolatedSession(file, runtime, threads=threads, delegate=delegate, keep_intermediates=keep_intermediates)
