"""Microcontrollers: a `.tflite` file goes in; a project around TFLM, or around plain C99 of this very model, comes
out.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt import frameworks
from edgeopt.choices import Choices, option
from edgeopt.errors import ConfigError, UnavailableError
from edgeopt.exporters import streaming

if TYPE_CHECKING:
    from edgeopt.exporters.contract import Make, Project, Source


@dataclass(frozen=True, kw_only=True)
class Micro(Choices):
    """What computes the model on a microcontroller.

    Raises:
        ConfigError: see Choices; also when the rounding is another than TFLM's where TFLM computes.
    """

    runtime: str = option(
        "tflm",
        "tflm: the TensorFlow Lite Micro that your build has; c99: plain C of this model alone.",
        choices=("tflm", "c99"),
    )
    rounding: str = option(
        "tflm",
        "Whose integers c99 reproduces bit for bit: TFLM's and CMSIS-NN's, or XNNPACK's.",
        choices=("tflm", "xnnpack"),
    )
    pack: str = option(
        "auto",
        "Weights of few distinct values (int4, int2, clusters) in 1 to 4 bits each, for c99. auto: where that is "
        "smaller and takes the model at most 1.3 times the instructions; always: where it is smaller.",
        choices=("auto", "never", "always"),
    )
    target: str | None = option(None, "A microcontroller that the model has to fit; see edgeopt targets.")
    arena_margin: float = option(
        0.1,
        "Share by which the tensor arena is larger than TFLM needs on this machine, for other versions of TFLM.",
        low=0.0,
        high=10.0,
    )

    streaming: bool = option(False, streaming.HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime == "c99" and self.streaming:
            raise ConfigError("Expected runtime tflm with streaming, got c99: none of its operators has a state.")
        if self.runtime == "tflm" and self.rounding != "tflm":
            raise ConfigError(
                f"Expected rounding tflm with runtime tflm, whose kernels are not ours, got {self.rounding!r}. "
                "Try --runtime c99 --rounding xnnpack."
            )
        if self.runtime == "tflm" and self.pack != "auto":
            raise ConfigError(
                f"Expected pack auto with runtime tflm, which takes weights as they are stored, got {self.pack!r}. "
                f"Try --runtime c99 --pack {self.pack}."
            )


def project(source: Source, settings: Micro) -> Project:
    """Returns the project of `source`; see `tflm.project` and `c99.project`.

    Raises:
        ConfigError: the target is no microcontroller.
        ModelError: a microcontroller has no use for the file, or the target no room; the message says why.
        UnavailableError: tflite-micro, which measures and proves, is not installed.
    """
    from edgeopt.exporters.micro.fitness import require_fit, require_room

    if settings.runtime == "tflm" and frameworks.installed_version("tflite_micro") is None:
        raise UnavailableError(
            "Expected tflite-micro, whose interpreter measures the arena and proves the file, got none here. "
            "Try: pip install 'edgeopt[micro]', or --runtime c99, which does without."
        )
    require_fit(source, settings.runtime)
    made = _maker(settings.runtime)(source, settings)
    if settings.target is not None:
        require_room(source, made, settings.target)
    return made


def _maker(runtime: str) -> Make:
    make: Make = importlib.import_module(f"edgeopt.exporters.micro.{runtime}").project
    return make
