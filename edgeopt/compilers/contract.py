"""What every compiler gives: the file that it made, and what its own model of the hardware says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OnCpu:
    """An operator that a compiler leaves to the CPU.

    Attributes:
        name: of the tensor it writes.
        reason: in the compiler's words.
    """

    operator: str
    name: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """An operator of the file as the accelerator runs it.

    Attributes:
        latency_ms: by the compiler's model; None for what the CPU runs.
    """

    operator: str
    name: str
    macs: int
    latency_ms: float | None


@dataclass(frozen=True)
class Figures:
    """What a compiler says of a file that it compiled; these are no measurements.

    Attributes:
        settings: what it was told.
        clock_hz: of the accelerator.
        cycles: of one inference on the accelerator; what the CPU runs is not in them, nor in the two that follow.
        ram_bytes: of activations and buffers; a runtime's own structures come on top.
        flash_bytes: of weights and commands, as the accelerator reads them.
        accelerated_operators, cpu_operators: how many run where, as the compiler counts them after its own rewriting.
        on_cpu: each of those on the CPU, with the reason.
        notes: what its user should know, in words.
    """

    settings: Mapping[str, str]
    clock_hz: float
    cycles: int
    latency_ms: float
    inferences_per_second: float
    ram_bytes: int
    flash_bytes: int
    accelerated_operators: int
    cpu_operators: int
    on_cpu: tuple[OnCpu, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a file.

    Attributes:
        content: of the new file.
        figures: None where the compiler tells none.
        layers: in the order they run; empty where it tells none.
    """

    content: bytes
    figures: Figures | None = None
    layers: tuple[Layer, ...] = ()
