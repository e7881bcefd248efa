"""What a measurement was taken on: nothing goes in; the CPU, the system and the versions of what ran come out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt import frameworks
from edgeopt.plain import to_plain

# Instruction sets that decide which kernels the runtimes pick.
_TELLING_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "neon",
    "fphp",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)


@dataclass(frozen=True)
class Machine:
    """The machine and its state.

    Attributes:
        cpu: the model's name.
        architecture: "x86_64", "aarch64" …
        cores, logical_cores: physical and logical ones of the machine; cores is None where it is not told.
        usable_cores: what this process may use: its affinity and its container's quota, which may be a fraction.
        flags: the instruction sets that matter to kernels.
        frequency_governor: Linux's policy for the clock; "performance" is steady. None where it is not told.
        memory_bytes: all of it.
        system, python: names and versions.
        load_average: processes that wanted to run over the last minute: others', when taken before a measurement.
    """

    cpu: str
    architecture: str
    cores: int | None
    logical_cores: int
    usable_cores: float
    flags: tuple[str, ...]
    frequency_governor: str | None
    memory_bytes: int
    system: str
    python: str
    load_average: float | None

    @property
    def is_busy(self) -> bool:
        """Whether others already took more than a tenth of the cores when this was taken."""
        return self.load_average is not None and self.load_average > 0.1 * self.usable_cores

    def describe(self) -> str:
        """Returns it in one line of words."""
        facts = [
            f"{self.cpu} ({self.architecture}: {', '.join(self.flags) or 'no vector instructions told'})",
            f"{self.usable_cores:g} of {self.logical_cores} cores usable",
            f"clock governor {self.frequency_governor or 'not told'}",
            self.system,
            self.python,
        ]
        if self.load_average is not None:
            facts.append(f"load {self.load_average:g} before")
        return "; ".join(facts)

    def to_plain(self) -> dict[str, Any]:
        """Returns it as what JSON knows."""
        return to_plain(self)


def describe() -> Machine:
    """Returns a description of this machine as it is now."""
    import psutil

    facts = _cpu_facts()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return Machine(
        cpu=facts.get("model name") or facts.get("Model") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=psutil.cpu_count(logical=False),
        logical_cores=os.cpu_count() or 1,
        usable_cores=_usable_cores(),
        flags=tuple(flag for flag in _TELLING_FLAGS if flag in flags),
        frequency_governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        memory_bytes=psutil.virtual_memory().total,
        system=_system(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def versions() -> dict[str, str]:
    """Returns distribution name to version of every installed package that takes part."""
    found = {row.distribution: frameworks.installed_version(name) for name, row in frameworks.FRAMEWORKS.items()}
    return {
        name: version for name, version in {**found, "numpy": importlib.metadata.version("numpy")}.items() if version
    }


def _cpu_facts() -> Mapping[str, str]:
    lines = (line.partition(":") for line in (_read(Path("/proc/cpuinfo")) or "").splitlines())
    facts: dict[str, str] = {}
    for key, _, value in lines:
        facts.setdefault(key.strip(), value.strip())
    return facts


def _usable_cores() -> float:
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return cores if quota == "max" or not period else min(cores, int(quota) / int(period))


def _system() -> str:
    release = _read(Path("/etc/os-release")) or ""
    names = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    distribution = names.get("PRETTY_NAME", "").strip('"')
    return f"{distribution or platform.system()}, {platform.system()} {platform.release()}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
