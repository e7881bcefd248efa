"""Two runtimes and one file go in; whether they compute the same comes out.

Operator versions say whether a runtime accepts a file, not whether it computes it: some files that an old runtime
accepts come out as garbage there. So a promise is checked by running.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import files, formats, runtimes, workers
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import FAMILIES, Delegate, Request, Runtime
from edgeopt.runtimes.numbers import dequantize
from edgeopt.runtimes.samples import arbitrary, from_data, generated, sizes, take
from edgeopt.tflite.stored_weights import without_dynamic_range
from edgeopt.vocabulary import RuntimeResult

if TYPE_CHECKING:
    from edgeopt.data import Part

# How many samples are run: as many as these multiply-accumulates are good for, but between the two.
_MACS, _FEWEST_SAMPLES, _MOST_SAMPLES = 4_000_000_000, 4, 32
_LEAST_SPREAD = 0.2
# A reference that rounding takes further than this from what its file stands for excuses nobody.
_MOST_ROUNDING = 0.3
_BOTH_OFF = (
    "its results are off by {:.2g} of their spread from the reference kernels', and these by {:.2g} from the float "
    "model's: in this scheme the model is lost, and which kernels are right cannot be told; "
    "edgeopt repair may win some of it back"
)
# Two sound runtimes part on a sample now and then, where the model itself is of two minds. It is a difference where
# more samples are off than one in twenty explains at a level of 5 %; one sample alone says nothing.
_TIES, _LEVEL = 0.05, 0.05


@dataclass(frozen=True)
class Outputs:
    """What a runtime made of some samples.

    Attributes:
        values: by output name, real values of each run.
        steps: by output name, what one step of its quantization is worth, 0 for floats.
        delegated_share, delegated, undelegated: what a delegate took of it.
    """

    values: Mapping[str, Sequence[np.ndarray]]
    steps: Mapping[str, float]
    delegated_share: float | None = None
    delegated: tuple[str, ...] = ()
    undelegated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """How far two runtimes agree.

    Attributes:
        difference: see `relative_difference`.
        runs: how many were compared.
        off: how many of them differ by more than the tolerance and more than a step of the output's quantization.
    """

    difference: float
    runs: int
    off: int

    @property
    def holds(self) -> bool | None:
        """Whether they compute the same; None where one run alone differs."""
        if self.off and self.runs == 1:
            return None
        return self.off == 0 or _chance(self.off, self.runs) >= _LEVEL


def run_here(
    file: Path, runtime: Runtime, part: Part | None, *, count: int, delegate: Delegate | None = None
) -> Outputs:
    """Runs `count` samples of `part`, or generated ones, one by one on `runtime` in this process."""
    session = runtimes.open_session(file, runtime, delegate=delegate)
    try:
        session.reshape(arbitrary(session) if part is None else sizes(part, session))
        if part is None:
            samples = [generated(session.inputs, seed=seed, indices=session.indices) for seed in range(count)]
        else:
            samples = from_data(take(part, count), session.inputs, count=count)
        results = [session.run(sample) for sample in samples]
        return Outputs(
            {spec.name: [dequantize(result[spec.name], spec) for result in results] for spec in session.outputs},
            {spec.name: max(spec.quantization.scales) if spec.quantization else 0.0 for spec in session.outputs},
            session.delegated_share,
            session.delegated,
            session.undelegated,
        )
    finally:
        session.close()


def run(file: Path, runtime: Runtime, part: Part | None, *, count: int, delegate: Delegate | None = None) -> Outputs:
    """As run_here, in the worker that all sessions of the runtime's package share.

    Raises:
        ModelError: the runtime refused the file or died on it.
        UnavailableError: the runtime or the delegate is not to be had here.
    """
    try:
        worker = workers.shared(runtime.package)
        return worker.call("edgeopt.parity:run_here", file, runtime, part, count=count, delegate=delegate)
    except workers.WorkerCrashed as crash:
        last_words = f" Its last words: {crash.log.splitlines()[-1]}" if crash.log else ""
        raise ModelError(f"{runtime.name} died on {file.name}: {crash.reason}.{last_words}") from None


def check(
    file: Path,
    requests: Sequence[Request],
    part: Part | None = None,
    *,
    delegate: Delegate | None = None,
    source: Path | None = None,
    floats: Path | None = None,
) -> tuple[RuntimeResult, ...]:
    """Runs `file` on every runtime asked for and compares each with the reference of its format on the same samples.

    A version that is not the installed one is judged by what is known of it without running, and says so. Where the
    reference does not run the file, the first runtime that does is what the others are compared with. Where rounding
    takes the reference itself off, see `_rounding`, they may part by as much beyond the tolerance of their family.

    Args:
        file: of any format.
        requests: runtimes.
        part: data; seeded random inputs where None.
        delegate: for the runtimes that load one.
        source: the file that it was compiled from, whose reference is what it is compared with.
        floats: the same model in float32, where that is known.
    """
    facts, original = formats.facts(file), source or file
    count = min(max(_FEWEST_SAMPLES, _MACS // max(facts.macs, 1)), _MOST_SAMPLES)
    reference: Outputs | None = None
    rows = []
    for request in requests:
        runtime = request.runtime
        availability = runtimes.available(runtime)
        row = RuntimeResult(runtime.name, request.version or availability.version)
        if reasons := runtimes.refusals(file, request):
            rows.append(replace(row, status="failed", reason="; ".join(reasons)))
            continue
        if not availability.available:
            rows.append(replace(row, status="skipped", reason=availability.reason))
            continue
        if request.version and not _same_release(request.version, availability.version):
            reason = f"{availability.version} is installed, not {request.version}: its operator versions fit, not run"
            rows.append(replace(row, status="skipped", reason=reason))
            continue
        taken = delegate if "delegates" in runtime.can else None
        try:
            outputs = run(file, runtime, part, count=count, delegate=taken)
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
            reference = (
                _reference(original, formats.format_of(original).name, part, count, own=source is None) or outputs
            )
        if reference is not outputs:
            tolerance = FAMILIES[runtime.family].tolerance(facts)
            found = agreement(outputs, reference, tolerance=tolerance)
            if not found.holds and (rounding := _rounding(original, reference, part, count, floats)):
                if rounding <= _MOST_ROUNDING:
                    found = agreement(outputs, reference, tolerance=tolerance + rounding)
                elif found.holds is False and math.isfinite(rounding):
                    row = replace(row, reason=_BOTH_OFF.format(found.difference, rounding))
            row = replace(row, matches_reference=found.holds, max_difference=found.difference)
        rows.append(row)
    return tuple(rows)


def _reference(file: Path, form: str, part: Part | None, count: int, *, own: bool) -> Outputs | None:
    """Returns what the reference runtime of a format computes, or None where there is none or it refuses the file.

    Args:
        own: whether the file is the one that is checked; for the one it was made from the main runtime serves as well.
    """
    runtime = runtimes.reference_for(form) or (None if own else runtimes.main_for(form))
    if runtime is None:
        return None
    try:
        with runtimes.as_reference_takes(file) as lent:
            return run(lent, runtime, part, count=count)
    except (ModelError, UnavailableError):
        return None


def _rounding(file: Path, reference: Outputs, part: Part | None, count: int, floats: Path | None) -> float:
    """Returns how far rounding takes the reference from what the file stands for, as a relative difference.

    Every family of kernels rounds in a way of its own, so that two of them may part by as much although both compute
    the file. A dynamic-range file stands for its weights without quantizing activations at each inference; any other
    for `floats`, 0 where that is not known.
    """
    content = file.read_bytes() if formats.format_of(file).name == "tflite" else b""
    plain = without_dynamic_range(content) if content else content
    if plain != content:
        with files.temporary(plain, file.name) as lent:
            exact = _reference(lent, "tflite", part, count, own=True)
    elif floats is not None:
        exact = _reference(floats, "tflite", part, count, own=True)
    else:
        return 0.0
    return math.inf if exact is None else relative_difference(reference.values, exact.values)


def agreement(a: Outputs, b: Outputs, *, tolerance: float) -> Agreement:
    """Returns how far `a` agrees with the reference `b`, run by run."""
    pairs = _paired(a.values, b.values)
    runs = max((len(right) for _, _, right in pairs), default=0)
    off = np.zeros(runs, bool)
    for name, left, right in pairs:
        limit = max(tolerance * _spread(right), a.steps[name])
        off |= [_error(x, y) > limit for x, y in zip(left, right)]
    return Agreement(relative_difference(a.values, b.values), runs, int(off.sum()))


def relative_difference(a: Mapping[str, Sequence[np.ndarray]], b: Mapping[str, Sequence[np.ndarray]]) -> float:
    """Returns the largest over outputs of rms(a - b) / spread(b): 0 equal, about 1 unrelated.

    The spread is the standard deviation of all values, or a fifth of their rms where that is more: outputs that hardly
    differ from one another must not hide a difference, nor one step of their quantization look like one.

    Infinite where one of the two is, or is NaN, and the other is not. Outputs are matched by name, or in order where a
    runtime has names of its own.
    """
    largest = 0.0
    for _, left, right in _paired(a, b):
        error, spread = _error(_joined(left), _joined(right)), _spread(right)
        largest = max(largest, error / spread if spread else error)
    return largest


def _paired(
    a: Mapping[str, Sequence[np.ndarray]], b: Mapping[str, Sequence[np.ndarray]]
) -> list[tuple[str, Sequence[np.ndarray], Sequence[np.ndarray]]]:
    """Returns each output of `a`, by its name there, beside its counterpart."""
    names = a if set(a) == set(b) else b
    return [(name, values, b[other]) for (name, values), other in zip(a.items(), names)]


def _joined(runs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(values) for values in runs])


def _error(a: np.ndarray, b: np.ndarray) -> float:
    """Returns rms(a - b), infinite where one of the two is and the other is not, or they have other shapes."""
    if a.shape != b.shape:
        return math.inf
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    return _rms(a[finite].astype(np.float64) - b[finite]) if finite.any() else 0.0


def _spread(runs: Sequence[np.ndarray]) -> float:
    values = _joined(runs).astype(np.float64)
    values = values[np.isfinite(values)]
    return max(float(values.std()), _LEAST_SPREAD * _rms(values)) if values.size else 0.0


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _chance(off: int, runs: int) -> float:
    """Returns how likely so many runs are off, or more, where one in twenty is."""
    from scipy.special import bdtrc  # scipy.stats would take a second to import

    return float(bdtrc(off - 1, runs, _TIES))


def _same_release(asked: str, installed: str) -> bool:
    wanted = asked.split(".")
    return installed.split(".")[: len(wanted)] == wanted
