"""Two runtimes and one file go in; whether they compute the same comes out.

Operator versions say whether a runtime accepts a file, not whether it computes it: some files that an old runtime
accepts come out as garbage there. So a promise is checked by running.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeopt import runtimes, workers
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import RUNTIMES, Delegate, Request, Runtime
from edgeopt.runtimes.numbers import dequantize
from edgeopt.runtimes.promises import refusals
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import RuntimeResult

# Of `relative_difference`. Kernel families round differently, by design: up to 0.03 on real int8 models. A runtime that
# misreads a file is off by 1, and by 0.14 at least where all that the outputs tell apart is little, as in a network
# that has not been trained.
FLOAT_TOLERANCE = 1e-3
QUANTIZED_TOLERANCE = 0.1
_LEAST_SPREAD = 0.2
REFERENCE = "litert-builtin"


@dataclass(frozen=True)
class Outputs:
    """What a runtime made of some samples: real values by output name, [N, ...], and what a delegate took of it."""

    values: Mapping[str, np.ndarray]
    delegated_share: float | None
    delegated: tuple[str, ...]
    undelegated: tuple[str, ...]


def run_here(
    file: Path,
    runtime: Runtime,
    samples: Sequence[Mapping[str, np.ndarray]],
    *,
    threads: int = 1,
    delegate: Delegate | None = None,
) -> Outputs:
    """Runs `samples` one by one on `runtime` in this process; outputs are dequantized."""
    session = runtimes.open_session(file, runtime, threads=threads, delegate=delegate)
    try:
        results = [session.run(sample) for sample in samples]
        values = {
            spec.name: np.concatenate([dequantize(result[spec.name], spec) for result in results])
            for spec in session.outputs
        }
        return Outputs(values, session.delegated_share, session.delegated, session.undelegated)
    finally:
        session.close()


def run(
    file: Path,
    runtime: Runtime,
    samples: Sequence[Mapping[str, np.ndarray]],
    *,
    delegate: Delegate | None = None,
) -> Outputs:
    """As run_here, in the worker that all sessions of the runtime's package share.

    Raises:
        ModelError: the runtime refused the file or died on it.
        UnavailableError: the runtime or the delegate is not to be had here.
    """
    try:
        worker = workers.shared(runtime.package)
        return worker.call(
            "edgeopt.parity:run_here",
            file,
            runtime,
            samples,
            delegate=delegate,
            timeout_s=workers.limits_of("running").seconds,
        )
    except workers.WorkerCrashed as crash:
        last_words = f" Its last words: {crash.log.splitlines()[-1]}" if crash.log else ""
        raise ModelError(f"{runtime.name} died on {file.name}: {crash.reason}.{last_words}") from None


def check(
    file: Path,
    requests: Sequence[Request],
    samples: Sequence[Mapping[str, np.ndarray]],
    *,
    delegate: Delegate | None = None,
) -> tuple[RuntimeResult, ...]:
    """Runs `file` on every runtime asked for and compares each with LiteRT's built-in kernels on the same samples.

    A version that is not the installed one is judged by the operator versions in the file alone, and says so. Where
    LiteRT's built-in kernels do not run the file, the first runtime that does is what the others are compared with.
    """
    quantized = any(tensor.quantization is not None for tensor in read(file).subgraphs[0].tensors)
    tolerance = QUANTIZED_TOLERANCE if quantized else FLOAT_TOLERANCE
    reference: Outputs | None = None
    rows = []
    for request in requests:
        runtime = request.runtime
        availability = runtimes.available(runtime)
        row = RuntimeResult(runtime.name, request.version or availability.version)
        if reasons := refusals(file, request):
            rows.append(replace(row, status="failed", reason="; ".join(reasons)))
            continue
        if not availability.available:
            rows.append(replace(row, status="skipped", reason=availability.reason))
            continue
        if request.version and not _same_release(request.version, availability.version):
            reason = f"{availability.version} is installed, not {request.version}: its operator versions fit, not run"
            rows.append(replace(row, status="skipped", reason=reason))
            continue
        try:
            outputs = run(file, runtime, samples, delegate=delegate if runtime.delegates else None)
        except (ModelError, UnavailableError) as error:
            status = "failed" if isinstance(error, ModelError) else "skipped"
            rows.append(replace(row, status=status, reason=str(error)))
            continue
        row = replace(
            row,
            delegated_share=outputs.delegated_share,
            delegated=outputs.delegated,
            undelegated=outputs.undelegated,
        )
        if reference is None:
            reference = _reference(file, samples) or outputs
        if reference is not outputs:
            difference = relative_difference(outputs.values, reference.values)
            row = replace(row, matches_reference=difference <= tolerance, max_difference=difference)
        rows.append(row)
    return tuple(rows)


def _reference(file: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> Outputs | None:
    """Returns what LiteRT's built-in kernels compute, or None where they do not run the file."""
    try:
        return run(file, RUNTIMES[REFERENCE], samples)
    except (ModelError, UnavailableError):
        return None


def relative_difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Returns the largest over outputs of rms(a - b) / spread(b): 0 equal, about 1 unrelated.

    The spread is the standard deviation of all values, or a fifth of their rms where that is more: outputs that hardly
    differ from one another must not hide a difference, nor one step of their quantization look like one.

    Infinite where one of the two is, or is NaN, and the other is not. Outputs are matched by name, or in order where a
    runtime has names of its own.
    """
    pairs = [(a[name], b[name]) for name in b] if set(a) == set(b) else list(zip(a.values(), b.values()))
    largest = 0.0
    for left, right in pairs:
        finite = np.isfinite(left) & np.isfinite(right)
        if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
            return math.inf
        if finite.any():
            expected = right[finite].astype(np.float64)
            spread = max(float(expected.std()), _LEAST_SPREAD * _rms(expected))
            error = _rms(left[finite] - expected)
            largest = max(largest, error / spread if spread else error)
    return largest


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _same_release(asked: str, installed: str) -> bool:
    wanted = asked.split(".")
    return installed.split(".")[: len(wanted)] == wanted
