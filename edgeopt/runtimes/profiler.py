"""An open session goes in; the time of each operator comes out.

A delegate of a few lines of C that claims nothing puts a clock around every node (profiler.c). It is compiled when
it is needed, so a C compiler must be there.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.resources
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgeopt.errors import UnavailableError
from edgeopt.runtimes.interpreter import InterpreterSession, Node, counted, members
from edgeopt.vocabulary import OperatorTime

_WARMUP_RUNS = 5


def profiled(
    session: InterpreterSession, inputs: Mapping[str, np.ndarray], *, runs: int = 100
) -> tuple[OperatorTime, ...]:
    """Returns the operators of `session` in the order they run, each with the median of its time over `runs` runs.

    XNNPACK's operators appear one by one only in a session that was opened so (`one_by_one`): each is then a graph
    of its own, which costs a fraction of a microsecond and keeps neighbours from being fused. The session is of no
    other use afterwards.

    Raises:
        UnavailableError: no C compiler is here, or it cannot build the profiler.
    """
    session.reshape({name: array.shape for name, array in inputs.items()})
    with compiled() as library:
        nodes = session.attach(library, {"runs": str(runs)})
        functions = ctypes.CDLL(str(library))
        session.continue_ns(inputs, runs=_WARMUP_RUNS)
        functions.edgeopt_profiler_reset()
        session.continue_ns(inputs, runs=runs)
        medians = {}
        for i in range(functions.edgeopt_profiler_nodes()):
            samples, count = ctypes.POINTER(ctypes.c_int64)(), ctypes.c_int64()
            index = functions.edgeopt_profiler_node(i, ctypes.byref(samples), ctypes.byref(count))
            if count.value:
                medians[index] = float(np.median(np.ctypeslib.as_array(samples, (count.value,))))
    total = sum(medians.values()) or 1.0
    operators = [node for node in nodes if not node.is_delegate]
    return tuple(
        OperatorTime(
            _kinds(nodes[index], operators),
            session.layer(nodes[index]),
            time / total,
            time / 1e3,
            nodes[index].is_delegate,
        )
        for index, time in medians.items()
    )


@contextlib.contextmanager
def compiled() -> Iterator[Path]:
    """Yields the path of the profiling delegate's shared library, built here.

    Raises:
        UnavailableError: see `profiled`.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise UnavailableError("A per-operator profile needs a C compiler, and none is here. Try installing gcc.")
    folder = importlib.resources.files("edgeopt.runtimes")
    with (
        importlib.resources.as_file(folder / "profiler.c") as source,
        importlib.resources.as_file(folder / "delegate.h") as header,
        tempfile.TemporaryDirectory() as build,
    ):
        library = Path(build) / "profiler.so"
        command = [*compiler.split(), "-O2", "-std=c99", "-shared", "-fPIC", f"-I{header.parent}", str(source)]
        try:
            subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise UnavailableError(
                f"The C compiler {compiler} could not build the profiler: {said.strip()}. Expected a compiler for "
                "this machine; try installing gcc, or setting CC."
            ) from error
        yield library


def _kinds(node: Node, operators: list[Node]) -> str:
    if not node.is_delegate:
        return node.kind
    return " + ".join(counted(operators[i].kind for i in sorted(members(node, operators)))) or node.kind
