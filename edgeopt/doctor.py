"""This machine goes in; what works on it, what does not, why, and what to try come out.

Everything is tried for real, in worker processes: an import that fails or dies there is a row, not the end.
"""

from __future__ import annotations

import contextvars
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgeopt import frameworks, progress, runtimes, targets, workers
from edgeopt.compilers import COMPILERS
from edgeopt.errors import EdgeoptError
from edgeopt.frameworks import FRAMEWORKS
from edgeopt.runtimes import RUNTIMES

# Long enough for the slowest import on a slow disk.
_TOOL_TIMEOUT_S = 10


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        kind: "python", "package", "runtime", "delegate", "target" or "tool".
        name: what was looked at.
        works: whether it can be used here.
        version: of what was found; "" where nothing was.
        detail: what it is for, or what works in it; why not, where it does not work.
        hint: what to try where it does not work.
        seconds: what the check took: for a package, its import in a fresh process.
    """

    kind: str
    name: str
    works: bool
    version: str = ""
    detail: str = ""
    hint: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Tool:
    """A program beside Python.

    Attributes:
        programs: names it goes by; the first found counts.
        purpose: what edgeopt does with it.
        package: what installs it on Debian and its kin.
        version_option: prints the version.
    """

    programs: tuple[str, ...]
    purpose: str
    package: str
    version_option: str = "--version"


TOOLS: dict[str, Tool] = {
    "C compiler": Tool(("cc", "gcc", "clang"), "per-operator profiles, C projects", "gcc"),
    "CMake": Tool(("cmake",), "builds of C projects", "cmake"),
    "make": Tool(("make",), "the Makefile and packaged rules", "make"),
    "Arm cross-compiler": Tool(("arm-none-eabi-gcc",), "Cortex-M builds", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
    "QEMU for Arm": Tool(("qemu-system-arm",), "Cortex-M runs without a board", "qemu-system-arm"),
    "Java": Tool(("javac",), "checks of Android projects", "default-jdk-headless", "-version"),
    "adb": Tool(("adb",), "benchmarks on a phone", "adb"),
}

# What shares one worker: these all import TensorFlow, which is paid once.
_OF_TENSORFLOW = ("tensorflow", "keras", "tf_keras", "tfmot")


def examine() -> list[Finding]:
    """Returns a row for Python, and for every package, runtime, delegate loader, target and tool that edgeopt knows."""
    # Some distributions have several rows, for their parts.
    first = {framework.distribution: name for name, framework in reversed(FRAMEWORKS.items())}
    others = [name for name in FRAMEWORKS if name in first.values() and name not in _OF_TENSORFLOW]
    jobs: list[Callable[[], list[Finding]]] = [
        lambda: _packages(_OF_TENSORFLOW),
        lambda: _packages(others) + _runtimes(),
    ]
    # Two at a time: each is a process, and one of them imports TensorFlow.
    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        parts = [done.result() for done in [pool.submit(contextvars.copy_context().run, job) for job in jobs]]
    found = [row for part in parts for row in part]
    order = ["python", "package", "runtime", "delegate", "target", "tool"]
    return sorted([_python(), *found, *_targets(), *_tools()], key=lambda row: order.index(row.kind))


def _python() -> Finding:
    numpy = importlib.metadata.version("numpy")
    version = platform.python_version()
    minor = tuple(int(part) for part in platform.python_version_tuple()[:2])
    old_numpy = numpy.startswith("1.")
    if minor <= (3, 11) and old_numpy:
        detail = f"with NumPy {numpy}: the whole set of packages can run"
    elif minor <= (3, 11):
        detail = f"with NumPy {numpy}: all but tflite-runtime, which was built for NumPy 1"
    else:
        detail = f"with NumPy {numpy}: all but tflite-runtime, which has no wheels past Python 3.11"
    works = (3, 10) <= minor <= (3, 13)
    hint = "" if works else "Python 3.10 to 3.13; 3.11 with 'numpy<2' runs everything"
    return Finding("python", "Python", works, version, detail, hint)


def _packages(names: Sequence[str]) -> list[Finding]:
    with workers.Worker("trying") as worker:
        return [_package(name, worker) for name in progress.track(names, "importing packages", len(names))]


def _package(name: str, worker: workers.Worker) -> Finding:
    framework = FRAMEWORKS[name]
    version = frameworks.installed_version(name) or ""
    extra = f"edgeopt[{framework.extra}]" if framework.extra else framework.distribution
    hint = f"pip install '{extra}'" + (f" ({framework.note})" if framework.note else "")
    if not version:
        return Finding("package", framework.distribution, False, "", "not installed", hint)
    start = time.perf_counter()
    try:
        worker.call("edgeopt.doctor:_import", name)
    except (EdgeoptError, OSError) as error:
        return Finding("package", framework.distribution, False, version, str(error), hint)
    except workers.WorkerDefect as defect:
        return Finding("package", framework.distribution, False, version, defect.gist, hint)
    except workers.WorkerCrashed as crash:
        return Finding(
            "package", framework.distribution, False, version, f"its import ends the process: {crash.reason}", hint
        )
    seconds = round(time.perf_counter() - start, 2)
    return Finding("package", framework.distribution, True, version, f"imported in {seconds:.1f} s", seconds=seconds)


def _import(name: str) -> None:
    """Runs in a worker."""
    frameworks.load(name)


def _runtimes() -> list[Finding]:
    rows = []
    for runtime in progress.track(RUNTIMES.values(), "trying runtimes", len(RUNTIMES)):
        found = runtimes.available(runtime)
        hint = "" if found.available else runtimes.module(runtime).INSTALL
        threads = f", up to {os.cpu_count()} threads" if "threads" in runtime.can else ", one thread"
        detail = f"{runtime.summary}{threads}; ran a model" if found.available else found.reason
        rows.append(Finding("runtime", runtime.name, found.available, found.version, detail, hint))
        if "delegates" in runtime.can:
            detail = "external delegates: --delegate FILE.so" if found.available else f"needs {runtime.name}"
            rows.append(Finding("delegate", f"on {runtime.name}", found.available, found.version, detail, hint))
    return rows


def _targets() -> list[Finding]:
    """Returns how latency and memory on each target can be found here."""
    return [_target(target) for target in targets.TARGETS.values()]


def _target(target: targets.Target) -> Finding:
    how = targets.how(target)
    tflm = frameworks.installed_version("tflite_micro")
    if target.compiler:
        compiler = COMPILERS[target.compiler]
        found = frameworks.installed_version(compiler.needs)
        done = "latency and memory simulated" if how else "compiled"
        detail = (
            f"{done} by {compiler.title}" if found else f"{FRAMEWORKS[compiler.needs].distribution} is not installed"
        )
        hint = "" if found else frameworks.install_command(compiler.needs)
        return Finding("target", target.name, found is not None, found or "", detail, hint)
    measured = "tflm" in target.runtimes and tflm is not None
    memory = "memory measured with tflite-micro" if measured else "memory estimated"
    if how:
        return Finding("target", target.name, True, "", f"latency {how}, {memory}")
    hint = "edgeopt benchmark FILE --device adb" if target.latency.kind == "adb" else "measuring it on the device"
    return Finding("target", target.name, measured, "", f"{memory}; latency not known without the device", hint)


def _tools() -> list[Finding]:
    rows = []
    for name, tool in TOOLS.items():
        path = next((path for path in map(shutil.which, tool.programs) if path), None)
        if path is None:
            rows.append(
                Finding("tool", name, False, "", f"not found; for {tool.purpose}", f"apt-get install {tool.package}")
            )
            continue
        try:
            done = subprocess.run(
                [path, tool.version_option], capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            rows.append(
                Finding("tool", name, False, "", f"{path} does not run: {error}", f"apt-get install {tool.package}")
            )
            continue
        line = (done.stdout or done.stderr).strip().splitlines()
        rows.append(Finding("tool", name, True, _version_in(line[0] if line else ""), f"for {tool.purpose}"))
    return rows


def _version_in(line: str) -> str:
    """Returns the version in what a program says of itself, without its packager's: "gcc (Debian 12.2.0-14) 12.2.0"."""
    found = re.search(r"(?<![\w:.+-])\d+(\.\d+)+(?![\w.+-])", line)
    return found[0] if found else line
