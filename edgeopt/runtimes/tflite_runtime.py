"""tflite-runtime: the interpreter package that LiteRT replaced, as many devices still run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt import frameworks
from edgeopt.runtimes import Delegate, Runtime
from edgeopt.runtimes.interpreter import InterpreterSession
from edgeopt.runtimes.profiler import profiled
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import OperatorTime

if TYPE_CHECKING:
    import numpy as np

INSTALL = frameworks.install_command("tflite_runtime", upgrade=True)


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return frameworks.installed_version("tflite_runtime") or ""


def load() -> None:
    """Imports the package."""
    frameworks.load("tflite_runtime")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns the reasons by the operator versions in `file`."""
    return unsupported_by(read_once(file), "tflite-runtime", version)


def open(
    file: Path,
    runtime: Runtime,
    *,
    threads: int,
    delegate: Delegate | None,
    keep_intermediates: bool,
) -> InterpreterSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`. It applies XNNPACK to float operators by itself."""
    return InterpreterSession(
        frameworks.load("tflite_runtime"),
        runtime,
        file,
        options={},
        threads=threads,
        delegate=delegate,
        own_delegate=True,
        keep_intermediates=keep_intermediates,
    )


def profile(
    file: Path, runtime: Runtime, inputs: Mapping[str, np.ndarray], *, threads: int, delegate: Delegate | None
) -> tuple[OperatorTime, ...]:
    """Returns the time of each operator; this package gives XNNPACK's part of a graph as a whole only."""
    return profiled(open(file, runtime, threads=threads, delegate=delegate, keep_intermediates=False), inputs)
