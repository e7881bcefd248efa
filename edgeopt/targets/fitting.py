"""Whether a model has room on a target: a file goes in, the bytes it needs and the bytes that are over come out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt import files, frameworks, workers
from edgeopt.compilers.contract import Compiled
from edgeopt.errors import EdgeoptError, ModelError
from edgeopt.runtimes import RUNTIMES, parse
from edgeopt.targets.model import Target
from edgeopt.tflite.lifetimes import peak
from edgeopt.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Memory:
    """What a file needs on a target, the program around it left out.

    Attributes:
        how: "measured" (TFLM's arena, by trying), "simulated" (by a compiler) or "estimated" (what is alive at once).
        peak: the operator at which most of them are alive.
    """

    flash_bytes: int
    ram_bytes: int
    how: str
    peak: str = ""


@dataclass(frozen=True)
class Fit:
    """What a file needs, and what the target has.

    Attributes:
        flash_limit_bytes, ram_limit_bytes: None where they limit nothing.
        peak: the operator at which most RAM is taken.
        fits: whether both have room.
        problems: what has none, in words, with the bytes that are over.
    """

    target: str
    flash_bytes: int
    ram_bytes: int
    flash_limit_bytes: int | None
    ram_limit_bytes: int | None
    peak: str
    fits: bool
    problems: tuple[str, ...]


def fit(target: Target, *, flash_bytes: int, ram_bytes: int, peak: str = "") -> Fit:
    """Returns needs beside the target's memories."""
    where = f" (the peak is at {peak})" if peak else ""
    needs = (("flash", flash_bytes, target.flash_bytes, ""), ("RAM", ram_bytes, target.ram_bytes, where))
    problems = tuple(
        f"{need:,} bytes of {name}, {need - limit:,} more than its {limit:,}{words}"
        for name, need, limit, words in needs
        if limit is not None and need > limit
    )
    return Fit(target.name, flash_bytes, ram_bytes, target.flash_bytes, target.ram_bytes, peak, not problems, problems)


def require_fit(target: Target, *, flash_bytes: int, ram_bytes: int, peak: str = "") -> Fit:
    """Returns the fit.

    Raises:
        ModelError: it does not fit; the message says by how many bytes, and where the peak is.
    """
    found = fit(target, flash_bytes=flash_bytes, ram_bytes=ram_bytes, peak=peak)
    if not found.fits:
        board = f" ({target.board})" if target.board else ""
        raise ModelError(
            f"Expected a model that fits {target.name}{board}, got one that takes {' and '.join(found.problems)}. "
            f"Try --scheme {target.best_scheme} where it is another, `edgeopt shrink`, or a target with more memory."
        )
    return found


def memory(target: Target, model: TFLiteModel, *, compiled: Compiled | None = None) -> Memory:
    """Returns what a file needs on `target`: a compiler's figures where `compiled` has them, TFLM's arena measured
    where tflite-micro is here, and else an estimate.
    """
    most = peak(model)
    if compiled is not None and compiled.figures is not None:
        return Memory(len(compiled.content), compiled.figures.ram_bytes, "simulated", most.describe())
    if any(parse(name).runtime.name == "tflm" for name in target.runtimes) and (arena := _arena(model)):
        return Memory(model.size_bytes, arena, "measured", most.describe())
    # Microcontrollers read weights from flash; everything else holds the whole file in memory.
    held = 0 if target.flash_bytes is not None else model.size_bytes
    return Memory(model.size_bytes, most.size_bytes + held, "estimated", most.describe())


def _arena(model: TFLiteModel) -> int | None:
    """Returns TFLM's smallest arena, None where it cannot be tried: that refusal is told elsewhere."""
    if frameworks.installed_version(RUNTIMES["tflm"].package) is None:
        return None
    with files.temporary(model.content.tobytes(), "model.tflite") as file:
        try:
            worker, limits = workers.shared(RUNTIMES["tflm"].package), workers.limits_of("trying")
            return int(worker.call("edgeopt.runtimes.tflm:minimum_arena", file, timeout_s=limits.seconds).minimum)
        except (EdgeoptError, workers.WorkerCrashed):
            return None
