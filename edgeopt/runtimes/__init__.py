"""What runs a `.tflite` file: a file and a runtime's name go in, an open session comes out.

Every runtime is one module with `available()` and `open(...)`; the table below is all that is known of it elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeopt.errors import ConfigError, suggestion
from edgeopt.vocabulary import Availability, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class Session(Protocol):
    """A file opened on a runtime, its tensors allocated."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegated_share: float | None

    def resize(self, batch_size: int) -> bool:
        """Sets the first dimension of every input; False (and unchanged) where the graph or runtime cannot."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch. Arrays must have the dtype and shape of `inputs`; outputs are copies."""

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """Sets the inputs once, then times `runs` bare invocations: int64 nanoseconds [runs]."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Every intermediate tensor of the last run by name (only when opened with keep_intermediates)."""

    def close(self) -> None:
        """Frees it."""


@dataclass(frozen=True)
class Delegate:
    """An external delegate: a shared library and its options."""

    library: Path
    options: Mapping[str, str]


@dataclass(frozen=True)
class Runtime:
    """A row of RUNTIMES.

    Attributes:
        name: as in `--runtime`.
        module: where `available()` and `open()` are.
        package: key of `frameworks.FRAMEWORKS`, whose version is the runtime's.
        family: kernels of one family round alike, so their integer outputs are equal; across families they differ
            by a quantization step or so.
        summary: one line for help and docs.
        delegates: whether external delegates can be loaded.
    """

    name: str
    module: str
    package: str
    family: str
    summary: str
    delegates: bool = False


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
        Runtime("tflm", "edgeopt.runtimes.tflm", "tflite_micro", "tflm", "TensorFlow Lite for Microcontrollers"),
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


def available(runtime: Runtime) -> Availability:
    """Says whether `runtime` works on this machine, by trying it."""
    return importlib.import_module(runtime.module).available(runtime)


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
        UnavailableError: the runtime or delegate is not to be had here.
        ModelError: the runtime refuses the file; the message holds the runtime's own words.
    """
    return importlib.import_module(runtime.module).open(
        file, runtime, threads=threads, delegate=delegate, keep_intermediates=keep_intermediates
    )
