"""LiteRT: the interpreter of ai-edge-litert, with XNNPACK, with its own kernels, or with the reference ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import frameworks
from edgeopt.runtimes import Delegate, Runtime
from edgeopt.runtimes.interpreter import InterpreterSession
from edgeopt.runtimes.profiler import profiled
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import OperatorTime

if TYPE_CHECKING:
    import numpy as np

INSTALL = frameworks.install_command("litert", upgrade=True)

_RESOLVERS = {
    "litert": "BUILTIN",
    "litert-builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "litert-reference": "BUILTIN_REF",
}


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return frameworks.installed_version("litert") or ""


def load() -> None:
    """Imports the package."""
    frameworks.load("litert")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns the reasons by the operator versions in `file`."""
    return unsupported_by(read_once(file), "ai-edge-litert", version)


def open(
    file: Path,
    runtime: Runtime,
    *,
    threads: int,
    delegate: Delegate | None,
    keep_intermediates: bool,
    one_by_one: bool = False,
) -> InterpreterSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`.

    Args:
        one_by_one: XNNPACK gets every operator as a graph of its own, for a profile.
    """
    module = frameworks.load("litert")
    options: dict[str, Any] = {
        "experimental_op_resolver_type": getattr(module.OpResolverType, _RESOLVERS[runtime.name])
    }
    if one_by_one:
        options["experimental_disable_delegate_node_fusion"] = True
    return InterpreterSession(
        module,
        runtime,
        file,
        options=options,
        threads=threads,
        delegate=delegate,
        own_delegate=runtime.name == "litert",
        keep_intermediates=keep_intermediates,
    )


def profile(
    file: Path, runtime: Runtime, inputs: Mapping[str, np.ndarray], *, threads: int, delegate: Delegate | None
) -> tuple[OperatorTime, ...]:
    """Returns the time of each operator; see `profiler.profiled`."""
    return profiled(
        open(file, runtime, threads=threads, delegate=delegate, keep_intermediates=False, one_by_one=True), inputs
    )
