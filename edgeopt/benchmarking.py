"""Converted files and runtimes go in; latencies with their doubt, memory and per-operator times come out.

Each file on each runtime is opened in a process of its own and timed in blocks that take turns, in an order drawn
anew for every round: whatever the machine does meanwhile hits all of them alike, and single-threaded ratios stay
true on a noisy one. Only one process works at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import formats, machine, progress, workers
from edgeopt.errors import ConfigError, EdgeoptError, ModelError, UnavailableError
from edgeopt.formats import signatures
from edgeopt.machine import Machine
from edgeopt.runtimes import Delegate, Runtime, isolated, main_for, module, open_session, parse, stream_in
from edgeopt.runtimes.isolation import crashed, died_words
from edgeopt.runtimes.samples import arbitrary, from_data, generated
from edgeopt.showing.values import Shown
from edgeopt.vocabulary import Interval, Latency, OperatorTime, RuntimeResult, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part

ROUNDS = 10
# Runs when none are asked for: as many as fit into `min_seconds`, but between these.
FEWEST_RUNS, MOST_RUNS = 20, 5000
# A round of a few microseconds' work must not be all cold caches: untimed invocations before each block.
SETTLE_RUNS = 3
STABLE = 0.05
WARMUP_SECONDS = 1.0
NOISY = 0.1
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One file on one runtime.

    Attributes:
        file: as it was given.
        result: status, latency, load time, memory and delegation; where no time is measured the footprint alone.
        ratio: its time over the base row's, by rounds, with the 95 % interval of a bootstrap over rounds; None for
            the base itself and for rows that did not run.
        ratio_to: what the base is: the first file on the same runtime, or the first runtime where there is one file.
        operators: the per-operator profile, in the order they run, where one was asked for.
        notes: what must be known to read the row.
    """

    file: Path
    result: RuntimeResult
    ratio: Interval | None = None
    ratio_to: str = ""
    operators: tuple[OperatorTime, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark(Shown):
    """What `benchmark` found.

    Attributes:
        rows: files in the order given, each on the runtimes in the order given.
        machine: what it ran on, taken before the first run.
        versions: distribution to version.
        order: the rows' numbers in the order their blocks ran, one tuple a round.
        notes: what must be known to read the table.
    """

    rows: tuple[Row, ...]
    machine: Machine
    versions: Mapping[str, str]
    order: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]


def benchmark(
    files: Sequence[Path | str],
    *,
    runtimes: Sequence[str] = (),
    threads: int = 1,
    delegate: Delegate | None = None,
    runs: int | None = None,
    warmup: int = 10,
    min_seconds: float = 0.5,
    inputs: Part | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    profile: bool = False,
    signature: str | None = None,
    seed: int = 0,
) -> Benchmark:
    """Times every file on every runtime; on those that measure no time it counts instructions and bytes instead.

    A time is one call of the interpreter's `invoke` from Python, inputs set before: about half a microsecond of it
    is the call itself, and nothing is subtracted.

    Args:
        files: converted files; ratios are taken to the first.
        runtimes: names as in `--runtime`; each file runs on those that take its format, and on the main one of its
            format where there are none.
        threads: of each interpreter.
        delegate: an external delegate, used on the runtimes that load one.
        runs: of each file; by default what fits into `min_seconds`, at least 20 and at most 5000.
        warmup: untimed runs at least; more until the median is steady within 5 %, for up to a second.
        min_seconds: timed for each file, where `runs` is None.
        inputs: data whose first sample is run; seeded random inputs where None.
        shapes: of random inputs, the batch first, by name or by "" for the only input, where a file leaves sizes
            free; they are 64 otherwise.
        profile: time every operator as well, in a second session (see `runtimes.profiler`).
        signature: of the files that have several; that of their main graphs when None.
        seed: of the order of blocks, the random inputs and the intervals.

    Raises:
        ConfigError: no file, or an unknown runtime; a number that is no count.
        ModelError: a file is not there, or no converted one.
    """
    if not files:
        raise ConfigError("Expected at least one file to time, got none. Try FILE.tflite.")
    if (runs is not None and runs < 1) or warmup < 0 or min_seconds < 0:
        raise ConfigError(f"Expected positive numbers, got runs={runs}, warmup={warmup}, min_seconds={min_seconds}.")
    paths = [Path(file) for file in files]
    for file in paths:
        if not file.is_file():
            raise ModelError(f"Expected a converted file, got {file}, which does not exist. Try another path.")
    asked_for = [parse(name).runtime for name in runtimes]
    description, versions = machine.describe(), machine.versions()
    with contextlib.ExitStack() as stack:
        chosen = [stack.enter_context(signatures.of(file, signature)) for file in paths]
        rows = [(file, runtime) for file, _ in chosen for runtime in _runtimes_of(file, asked_for)]
        lanes = []
        for file, runtime in progress.track(rows, "opening files", len(rows)):
            lane = _Lane(file, runtime, threads, delegate if "delegates" in runtime.can else None)
            if "time" in runtime.can:
                lane.clock = _Clock(file, runtime, threads=threads, delegate=lane.delegate)
                stack.callback(lane.clock.close)
            _open(lane, inputs, shapes=shapes, warmup=warmup, seed=seed)
            lanes.append(lane)
        order = _take_turns(lanes, runs=runs, min_seconds=min_seconds, seed=seed)
        if profile:
            for lane in lanes:
                _profile(lane)
        done = [
            _row(lane, _base(lanes, lane, by_runtime=len(files) > 1 and bool(asked_for)), seed=seed, asked=delegate)
            for lane in lanes
        ]
    given = {file: path for path, (file, _) in zip(paths, chosen)}
    done = [replace(row, file=given[row.file]) for row in done]
    notes = [*dict.fromkeys(note for _, said in chosen for note in said)]
    notes.append("inputs: seeded random values" if inputs is None else "inputs: the first sample of the data")
    for compiler in dict.fromkeys(row.result.footprint.compiler for row in done if row.result.footprint):
        notes.append(f"simulated, compiled by {compiler}: instructions are not cycles, and no time follows from them")
    if description.is_busy and any("time" in runtime.can for _, runtime in rows):
        # Threads that wait for one another lose whole time slices, each runtime in its own way: ratios suffer too.
        advice = "trust the ratios more than the milliseconds" if threads == 1 else "repeat it with --threads 1"
        notes.append(
            f"the machine was busy before the first run (load {description.load_average:g}, "
            f"{description.usable_cores:g} usable cores): {advice}"
        )
    if threads > description.usable_cores:
        notes.append(f"{threads} threads were asked for, and {description.usable_cores:g} cores are usable here")
    return Benchmark(tuple(done), description, versions, order, tuple(notes))


def _runtimes_of(file: Path, asked: Sequence[Runtime]) -> Sequence[Runtime]:
    """Returns those of the runtimes that take a file's format; all where none does, which say so in their rows."""
    form = formats.format_of(file).name
    return [runtime for runtime in asked if form in runtime.takes] or asked or [main_for(form)]


class _Clock:
    """A Stopwatch in a worker process of its own; its death is a ModelError."""

    def __init__(self, file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None) -> None:
        self._what = died_words(file, runtime, delegate)
        self._worker = workers.Worker("running")
        self._given = file, runtime, threads, delegate
        self._stopwatch: workers.Remote | None = None

    def first(self, inputs: Part | None, *, shapes: Mapping[str, tuple[int, ...]] | None, seed: int) -> RuntimeResult:
        """Opens the file, runs it once and returns all that is known but the latency."""
        file, runtime, threads, delegate = self._given
        with self._deaths():
            self._stopwatch = self._worker.create(
                "edgeopt.benchmarking:Stopwatch", file, runtime, threads=threads, delegate=delegate
            )
            given = None if inputs is None else from_data(inputs, self._stopwatch.get("declared"))[0]
            return self._stopwatch.call("first", given, shapes=shapes, seed=seed)

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the Stopwatch."""
        assert self._stopwatch is not None
        with self._deaths():
            return self._stopwatch.call(method, *args)

    def close(self) -> None:
        """Ends the worker."""
        self._worker.close()

    @contextlib.contextmanager
    def _deaths(self) -> Iterator[None]:
        try:
            yield
        except workers.WorkerCrashed as crash:
            self._stopwatch = None
            raise crashed(self._what, crash) from None


@dataclass
class _Lane:
    """One row while it is measured.

    Attributes:
        clock: what times it; None where nothing is timed, or not any more.
        result: what is known of it so far.
        median_ns: of a run, after the warm-up.
        blocks: the times of each round, int64 nanoseconds.
    """

    file: Path
    runtime: Runtime
    threads: int
    delegate: Delegate | None
    clock: _Clock | None = None
    result: RuntimeResult = field(default_factory=lambda: RuntimeResult(""))
    median_ns: float = 0.0
    blocks: list[np.ndarray] = field(default_factory=list)
    operators: tuple[OperatorTime, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def used_threads(self) -> int:
        return self.threads if "threads" in self.runtime.can else 1

    @contextlib.contextmanager
    def mishaps(self) -> Iterator[None]:
        """Turns what may happen to one row into its status, so that the others go on."""
        try:
            yield
        except EdgeoptError as error:
            status = "skipped" if isinstance(error, UnavailableError) else "failed"
            self.result = RuntimeResult(self.runtime.name, module(self.runtime).version(), status, str(error))
            self.clock = None


def _open(
    lane: _Lane, inputs: Part | None, *, shapes: Mapping[str, tuple[int, ...]] | None, warmup: int, seed: int
) -> None:
    """Opens a lane's file, and measures all that needs no turns."""
    with lane.mishaps():
        if lane.clock is None:
            lane.result = _footprint(lane.file, lane.runtime, inputs, seed=seed)
        else:
            lane.result = lane.clock.first(inputs, shapes=shapes, seed=seed)
            lane.median_ns = lane.clock.call("warm_up", warmup)


def _time_block(lane: _Lane, runs: int) -> None:
    if lane.clock is not None:
        with lane.mishaps():
            lane.blocks.append(lane.clock.call("block", runs))


def _profile(lane: _Lane) -> None:
    if lane.clock is None:
        return
    try:
        lane.operators = lane.clock.call("profile")
    except EdgeoptError as error:
        lane.notes.append(f"no per-operator profile: {error}")


def _row(lane: _Lane, base: _Lane | None, *, seed: int, asked: Delegate | None) -> Row:
    """Returns what was measured in a lane, its ratio to that of `base`."""
    if not lane.blocks or not lane.result.loads:
        return Row(lane.file, lane.result)
    latency = _latency(lane.blocks, lane.used_threads)
    notes = list(lane.notes)
    if latency.noise is not None and latency.noise > NOISY:
        advice = "trust the ratio more than the time" if lane.used_threads == 1 else "repeat it with --threads 1"
        notes.append(f"noisy: the medians of its blocks differ by {latency.noise:.0%}; {advice}")
    if asked is not None and lane.delegate is None:
        notes.append(f"{lane.runtime.name} loads no external delegates: timed without")
    if lane.result.loads and (stream := stream_in(lane.file)) is not None:
        notes.append(f"one step of {stream.step} frames; a sample of {stream.frames} takes {stream.steps}")
    if lane.used_threads != lane.threads:
        notes.append(f"{lane.runtime.name} uses {lane.used_threads} thread, whatever is asked")
    ratio, ratio_to = None, ""
    if base is not None and base is not lane:
        ratio = ratio_by_rounds(lane.blocks, base.blocks, seed=seed)
        ratio_to = f"{base.file.name} on {base.runtime.name}"
    return Row(lane.file, replace(lane.result, latency_ms=latency), ratio, ratio_to, lane.operators, tuple(notes))


class Stopwatch:
    """One session and its clock; lives in a worker process.

    Args:
        file, runtime, threads, delegate: as `runtimes.open_session`.
    """

    def __init__(self, file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None) -> None:
        self._file, self._runtime, self._threads, self._delegate = file, runtime, threads, delegate
        module(runtime).load()
        formats.facts(file)  # what random inputs are made by is no memory of the runtime's
        self._memory = _MemoryRise()
        start = time.perf_counter_ns()
        self._session = open_session(file, runtime, threads=threads, delegate=delegate)
        self._load_ms = (time.perf_counter_ns() - start) / 1e6
        self.declared: tuple[TensorSpec, ...] = self._session.declared

    def first(
        self,
        inputs: Mapping[str, np.ndarray] | None,
        *,
        shapes: Mapping[str, tuple[int, ...]] | None,
        seed: int,
    ) -> RuntimeResult:
        """Runs once and returns all that is known but the latency; random inputs where `inputs` is None."""
        if inputs is None:
            self._session.reshape(arbitrary(self._session, shapes))
            inputs = generated(self._session.inputs, seed=seed, indices=self._session.indices)
        self._session.reshape({name: array.shape for name, array in inputs.items()})
        self._inputs = dict(inputs)
        start = time.perf_counter_ns()
        self._session.run(self._inputs)
        first_ms = (time.perf_counter_ns() - start) / 1e6
        return RuntimeResult(
            self._runtime.name,
            module(self._runtime).version(),
            delegated_share=self._session.delegated_share,
            load_ms=self._load_ms,
            peak_memory_bytes=self._memory.bytes(),
            first_ms=first_ms,
            delegated=self._session.delegated,
            undelegated=self._session.undelegated,
        )

    def warm_up(self, runs: int) -> float:
        """Runs until the median of a few runs is steady; returns it in nanoseconds."""
        deadline = time.perf_counter() + WARMUP_SECONDS
        before = 0.0
        while True:
            median = float(np.median(self._session.invoke_ns(self._inputs, runs=max(runs, 1))))
            if abs(median - before) <= STABLE * median or time.perf_counter() > deadline:
                return median
            before = median

    def block(self, runs: int) -> np.ndarray:
        """Returns int64 nanoseconds [runs], after a few untimed ones."""
        self._session.invoke_ns(self._inputs, runs=SETTLE_RUNS)
        return self._session.invoke_ns(self._inputs, runs=runs)

    def profile(self) -> tuple[OperatorTime, ...]:
        """Returns the time of each operator, from a session opened for that."""
        if "profile" not in self._runtime.can:
            raise self._runtime.cannot("profile")
        inputs = self._session.invocation(self._inputs)
        return module(self._runtime).profile(
            self._file, self._runtime, inputs, threads=self._threads, delegate=self._delegate
        )


class _MemoryRise:
    """By how much this process's resident memory has risen at its peak since the object was made."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        # Linux keeps a peak for the whole life of a process; this makes it forget what the imports took.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        peak = self._process.memory_info().rss
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
        return max(0, peak - self._before)


def _footprint(file: Path, runtime: Runtime, inputs: Part | None, *, seed: int) -> RuntimeResult:
    """Returns what `file` takes of a device, in flash, RAM and instructions."""
    session = isolated(file, runtime)
    try:
        sample = (
            generated(session.inputs, seed=seed, indices=session.indices)
            if inputs is None
            else from_data(inputs, session.inputs)[0]
        )
        return RuntimeResult(runtime.name, module(runtime).version(), footprint=session.footprint(sample))
    finally:
        session.close()


def ratio_by_rounds(blocks: Sequence[np.ndarray], base: Sequence[np.ndarray], *, seed: int) -> Interval:
    """Returns the median over rounds of median(block) / median(base's block), with its 95 % bootstrap interval.

    Blocks of one round ran next to each other, so what slowed one down slowed the other: pairing cancels it.
    """
    ratios = np.array([np.median(a) / np.median(b) for a, b in zip(blocks, base)])
    draws = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Interval(float(np.median(ratios)), float(low), float(high))


def _take_turns(
    lanes: Sequence[_Lane], *, runs: int | None, min_seconds: float, seed: int
) -> tuple[tuple[int, ...], ...]:
    generator = np.random.default_rng(seed)
    rounds = min(ROUNDS, runs) if runs else ROUNDS
    counts = []
    for lane in lanes:
        fitting = int(min_seconds * 1e9 / lane.median_ns) if lane.median_ns else FEWEST_RUNS
        counts.append(-(-(runs or min(max(fitting, FEWEST_RUNS), MOST_RUNS)) // rounds))
    order = []
    for _ in progress.track(range(rounds), "taking turns", rounds):
        turn = tuple(int(i) for i in generator.permutation(len(lanes)) if lanes[i].clock is not None)
        for i in turn:
            _time_block(lanes[i], counts[i])
        order.append(turn)
    return tuple(order)


def _base(lanes: Sequence[_Lane], lane: _Lane, *, by_runtime: bool) -> _Lane | None:
    """Returns the first lane that a lane's ratio is taken to, if that one ran."""
    timed = (other for other in lanes if "time" in other.runtime.can)
    base = next((other for other in timed if not by_runtime or other.runtime is lane.runtime), None)
    return base if base is not None and base.result.loads else None


def _latency(blocks: Sequence[np.ndarray], threads: int) -> Latency:
    times = np.concatenate(blocks) / 1e6
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    medians = np.array([np.median(block) for block in blocks])
    low, middle, high = np.percentile(medians, [10, 50, 90])
    return Latency(p50, p90, p99, len(times), threads, float(times.min()), float((high - low) / middle))
