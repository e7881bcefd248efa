"""LiteRT: the interpreter of ai-edge-litert, with XNNPACK, with its own kernels, or with the reference ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt import frameworks
from edgeopt.runtimes import Delegate, Runtime
from edgeopt.runtimes.interpreter import InterpreterSession

_RESOLVERS = {
    "litert": "BUILTIN",
    "litert-builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "litert-reference": "BUILTIN_REF",
}


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
        runtime.name,
        file,
        options=options,
        threads=threads,
        delegate=delegate,
        own_delegate=runtime.name == "litert",
        keep_intermediates=keep_intermediates,
    )
