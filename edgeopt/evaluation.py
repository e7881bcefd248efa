"""A converted file and samples go in; its score with an interval comes out, and the results for a paired test.

Samples are streamed, in batches where the graph allows and on all cores, and yet the outputs are those of one sample
at a time, bit for bit: for every file a batch is compared with its samples run alone before batches are used.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgeopt import formats, metrics, progress, runtimes, workers
from edgeopt.data import bind
from edgeopt.errors import ConfigError, DataError, ModelError, UnavailableError, suggestion
from edgeopt.formats import signatures
from edgeopt.metrics import Rows, heads
from edgeopt.metrics.breakdown import Sums, breakdown, sums
from edgeopt.metrics.several import Scored, naive, together
from edgeopt.runtimes import Delegate, Request, Runtime, Session
from edgeopt.runtimes.isolation import crashed, died_words
from edgeopt.runtimes.not_finite import first_not_finite
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.samples import sizes
from edgeopt.tasks.finding import metric_of
from edgeopt.vocabulary import Batch, Breakdown, Difference, MetricValue

if TYPE_CHECKING:
    from edgeopt.data import Part

Item = TypeVar("Item")
Result = TypeVar("Result")

# One invocation should take about this long: Python no longer counts, and the activations still fit a cache.
_INVOCATION_S = 0.002
_LARGEST_BATCH = 1024
_LARGEST_BATCH_BYTES = 1 << 20
_TIMED_RUNS = 4
# What the metric is chosen from, where none is asked for: so many labels, and outputs of so many of their samples.
_DECIDING_LABELS, _DECIDING_OUTPUTS = 1000, 4
# A thread takes this many batches at a time, but not so many that it ends long after the others.
_BATCHES_PER_CHUNK = 8
_CHUNKS_PER_THREAD = 4
_TELL_EVERY_S = 0.1


@dataclass(frozen=True)
class OutputScore:
    """The score of one of several outputs.

    Attributes:
        output: its name.
        metric: value and interval.
        rows: see `Evaluation`.
        naive: the value of who answers the same to every sample.
        breakdown: see `Evaluation`.
    """

    output: str
    metric: MetricValue
    rows: Rows
    naive: float
    breakdown: Breakdown | None = None


@dataclass(frozen=True)
class Evaluation:
    """The score of one model on some samples.

    Attributes:
        metric: value and interval.
        rows: what the metric keeps of each sample, first axis the samples, in their order: for paired tests.
        runtime: name of the runtime, or "keras".
        batch_size: samples per invocation.
        threads: invocations at the same time.
        seconds: from the first sample to the last, without opening the file.
        notes: what should be known about how the score came about.
        breakdown: the score by class or target, where there are some.
        outputs: of each output that has labels, where several have; `metric` is then of all of them together, and
            decisions go by it: see `metrics.several`.
    """

    metric: MetricValue
    rows: Rows
    runtime: str
    batch_size: int
    threads: int
    seconds: float
    notes: tuple[str, ...] = ()
    breakdown: Breakdown | None = None
    outputs: tuple[OutputScore, ...] = ()

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return self.metric.samples

    def difference(self, reference: Evaluation) -> Difference:
        """Returns how much worse this is than `reference` on the same samples; see `metrics.Metric.difference`.

        Raises:
            ConfigError: the two were scored by different metrics.
            DataError: ... or on different numbers of samples.
        """
        if self.metric.name != reference.metric.name:
            raise ConfigError(
                f"Expected two scores by one metric, got {reference.metric.name} and {self.metric.name}. "
                f"Try --metric {reference.metric.name} for both."
            )
        if not self.outputs:
            return metrics.metric(self.metric.name).difference(reference.rows, self.rows)
        found = [Scored(metrics.metric(one.metric.name), len(one.rows), one.naive) for one in reference.outputs]
        return together(found).difference(reference.rows, self.rows)


def evaluate(
    file: Path | str,
    part: Part,
    *,
    metric: str | None = None,
    output: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    delegate: Delegate | None = None,
    signature: str | None = None,
    isolate: bool = True,
) -> Evaluation:
    """Scores a converted file on the samples of `part`.

    Args:
        file: the model; float samples are quantized to what its inputs store, its outputs dequantized.
        part: samples and labels; read once, in order, a batch at a time.
        metric: see `metrics.metric`; of one output "OUTPUT=NAME", of several with commas between; chosen from outputs
            and labels when None. One of one's own that is said for all of several outputs takes them at once.
        output: which output is scored, where the model has several; those that have labels of their own when None.
        runtime: "NAME" or "NAME==VERSION" as in `--runtime`; the main one of the file's format when None.
        threads: how many interpreters work at the same time, one thread each; all cores when None. With a delegate
            it is one interpreter with as many threads.
        batch_size: samples per invocation; about 2 ms of work when None. 1 where the graph cannot be batched, or
            where its outputs would not be the same bit for bit.
        delegate: an external delegate.
        signature: of a `.tflite` that has several; that of its main graph when None.
        isolate: run in a worker process, so that a crash of the runtime is an error here.

    Raises:
        ConfigError: an option names nothing that is there.
        DataError: the samples or labels do not fit the model or metric.
        ModelError: the runtime refuses the file or dies on it.
        UnavailableError: the runtime, its version or the delegate is not to be had here.
    """
    request = required_for(Path(file), runtime)
    settings = {"metric": metric, "output": output, "threads": threads, "batch_size": batch_size, "delegate": delegate}
    with signatures.of(Path(file), signature) as (chosen_file, notes):
        if isolate:
            found = in_worker("edgeopt.evaluation:evaluate_here", chosen_file, part, request.runtime, **settings)
        else:
            found = evaluate_here(chosen_file, part, request.runtime, **settings)  # type: ignore[arg-type]
    return replace(found, notes=(*notes, *found.notes))


def evaluate_here(
    file: Path,
    part: Part,
    runtime: Runtime,
    *,
    metric: str | None,
    output: str | None,
    threads: int | None,
    batch_size: int | None,
    delegate: Delegate | None,
) -> Evaluation:
    """As `evaluate`, in this process."""
    with Predictor(file, part, runtime, threads=threads, batch_size=batch_size, delegate=delegate) as predictor:
        said = metrics.for_outputs(metric)
        outputs_there = [spec.name for spec in predictor.outputs]
        names = [heads.ALL] if at_once(outputs_there, said, output) else _labelled(outputs_there, part, output)
        used = {n: metrics.metric(said.get(n) or said.get("") or predictor.default_metric(n)) for n in names}
        start = time.perf_counter()

        def scored(batch: Batch) -> list[_Piece]:
            values = predictor.values(batch)
            return [_scored(one, *heads.read(name, values, batch)) for name, one in used.items()]

        batches = predictor.part.batches(predictor.chunk_size)
        collected = _collected(in_threads(scored, batches, threads=predictor.threads), len(part))
        seconds = time.perf_counter() - start
        notes = (*predictor.notes, *_odd_note(max(odd for _, odd, _ in collected), predictor, list(used), file))
        settled = {name: one.settle(*piece[0]) for (name, one), piece in zip(used.items(), collected)}
        tables = {
            name: breakdown(piece[2], part.of_output(name).class_names) or one.apart(*settled[name])
            for (name, one), piece in zip(used.items(), collected)
        }
        if len(used) > 1:
            outputs = tuple(
                OutputScore(name, one.value(settled[name]), settled[name], predictor.naive(name, one), tables[name])
                for name, one in used.items()
            )
            everything = tuple(row for one in outputs for row in one.rows)
            all_of_them = together([Scored(used[o.output], len(o.rows), o.naive) for o in outputs])
            value, table = all_of_them.value(everything), None
        else:
            (name,), outputs = names, ()
            everything = settled[name]
            value, table = used[name].value(everything), tables[name]
        return Evaluation(
            value,
            everything,
            runtime.name,
            predictor.batch_size,
            predictor.threads,
            seconds,
            notes,
            table,
            outputs,
        )


class Predictor:
    """A file opened for many samples: batches of any length go in, outputs come out in the same order.

    Attributes:
        part: the samples under the names, shapes and dtypes of the file's inputs.
        runtime: what it works on.
        outputs: of the file.
        batch_size, threads: how it works; see `evaluate`.
        chunk_size: how many samples are best given at once, so that what is done around the invocations hardly counts.
        notes: why it does not work in larger batches, where it does not.

    Raises:
        DataError, ModelError, UnavailableError: see `evaluate`.
    """

    def __init__(
        self,
        file: Path,
        part: Part,
        runtime: Runtime,
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        delegate: Delegate | None = None,
    ) -> None:
        for option, value in (("--threads", threads), ("--batch-size", batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"Expected a positive number as {option}, got {value}. Try {option} 1.")
        _require_samples(part)
        wanted = threads or _cores()
        several = "threads" in runtime.can and delegate is None
        self.notes: tuple[str, ...] = ()
        self._opening = partial(
            runtimes.open_session, file, runtime, threads=1 if several else wanted, delegate=delegate
        )
        self.part, self.runtime = part, runtime
        self._sessions = [self._open()]
        own = _batch_of(self._sessions[0])
        if not self._sessions[0].resize(1):
            self.notes += (_fixed_first(own),)
        self.outputs = self._sessions[0].outputs
        self.part = bind(part, self._sessions[0].inputs)
        self.threads = min(wanted, len(part)) if several else 1
        self.batch_size = self._settled(batch_size, runtime)
        self.threads = min(self.threads, -(-len(part) // self.batch_size))
        share = len(part) // (_CHUNKS_PER_THREAD * self.threads * self.batch_size)
        self.chunk_size = self.batch_size * max(1, min(_BATCHES_PER_CHUNK, share))
        while len(self._sessions) < self.threads:
            another = self._open()
            another.resize(self.batch_size)
            self._sessions.append(another)
        self._idle: queue.SimpleQueue[Session] = queue.SimpleQueue()
        for one in self._sessions:
            self._idle.put(one)

    def _open(self) -> Session:
        """Opens the file once more, for samples of the data's size."""
        session = self._opening()
        session.reshape(sizes(self.part, session))
        return session

    def raw(self, batch: Batch) -> dict[str, np.ndarray]:
        """Returns the outputs as the runtime stores them, [N, ...]; any number of threads may call it at once."""
        session = self._idle.get()
        try:
            return _run(session, batch, self.batch_size)
        finally:
            self._idle.put(session)

    def values(self, batch: Batch) -> dict[str, np.ndarray]:
        """Returns the outputs as real numbers, [N, ...]; any number of threads may call it at once."""
        stored = self.raw(batch)
        return {spec.name: dequantize(stored[spec.name], spec) for spec in self.outputs}

    def default_metric(self, output: str) -> str:
        """Returns the name of the metric that suits an output and the labels, the same on every machine.

        Raises:
            DataError: no metric suits them.
        """
        outputs, part = self.values(self._head(_DECIDING_OUTPUTS))[output], self.part.of_output(output)
        return metric_of(outputs, _deciding(part), classes=part.classes)

    def naive(self, output: str, metric: metrics.Metric) -> float:
        """Returns the value of who answers the same to every sample; see `metrics.several.naive`."""
        part = self.part.of_output(output).head(_DECIDING_LABELS)
        return naive(metric, self.values(self._head(1))[output], next(part.batches(len(part))))

    def close(self) -> None:
        """Frees the interpreters."""
        for session in self._sessions:
            session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settled(self, asked: int | None, runtime: Runtime) -> int:
        """Returns the batch size to work with, and leaves the session in it."""
        session = self._sessions[0]
        if (single := _batch_of(session)) > 1:
            return single
        size = min(asked or self._most(), len(self.part))
        if "series" in runtime.can and session.resize(size):
            return size
        if asked is None and size > 1:
            size = min(size, max(1, round(_INVOCATION_S / _seconds(session, self._head(1)))))
        if size == 1 or not (reason := _unlike(session, self._head(size))):
            return size
        session.close()
        self._sessions[0] = self._open()
        self._sessions[0].resize(1)
        self.notes += (f"evaluated one sample at a time: {reason}",)
        return 1

    def _most(self) -> int:
        """Returns the largest batch that memory and the threads' even share allow."""
        sample_bytes = sum(array.nbytes for array in self._head(1).inputs.values())
        return min(_LARGEST_BATCH, max(1, _LARGEST_BATCH_BYTES // sample_bytes), -(-len(self.part) // self.threads))

    def _head(self, count: int) -> Batch:
        return next(self.part.head(count).batches(count))


def _batch_of(session: Session) -> int:
    """Returns how many samples a session takes at a time."""
    return session.inputs[0].shape[0] or 1 if session.inputs[0].shape else 1


def _fixed_first(size: int) -> str:
    return (
        f"the first dimension of the inputs is fixed at {size}, read here as so many samples at a time; "
        "the file does not say whether they are steps in time"
    )


def _seconds(session: Session, sample: Batch) -> float:
    """Returns what one run takes."""
    stored = {spec.name: quantize(sample.inputs[spec.name], spec) for spec in session.inputs}
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        session.run(stored)
        times.append(time.perf_counter() - start)
    return min(times)


def _unlike(session: Session, batch: Batch) -> str:
    """Returns why a batch is not its samples bit for bit; "" where it is, and the session then takes such batches."""
    size = len(batch)
    if not session.resize(size):
        return "the graph or runtime takes one sample at a time"
    together = _run(session, batch, size)
    session.resize(1)
    alone = _run(session, batch, 1)
    if any(together[name].tobytes() != alone[name].tobytes() for name in alone):
        return f"outputs of a batch of {size} differ from those of its samples alone"
    session.resize(size)
    return ""


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """Yields `function(item)` in the order of the items, computed by `threads` threads; few items wait at a time."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def require(text: str) -> Request:
    """Parses "NAME[==VERSION]" and makes sure that this very runtime works here.

    Raises:
        ConfigError: no runtime has that name.
        UnavailableError: it does not work here, or is installed in another version.
    """
    request = runtimes.parse(text)
    found = runtimes.available(request.runtime)
    if not found.available:
        raise UnavailableError(f"{request.runtime.name} is not available here: {found.reason}")
    wanted = (request.version or found.version).split(".")
    if found.version.split(".")[: len(wanted)] != wanted:
        raise UnavailableError(
            f"Expected {text}, got {request.runtime.name} {found.version}, which is installed here. "
            f"Try --runtime {request.runtime.name}, or install that version."
        )
    return request


def required_for(file: Path, text: str | None) -> Request:
    """As `require`; where nothing is asked for, of the main runtime of the file's format.

    Raises:
        ModelError: it has no known format.
        ConfigError, UnavailableError: see `require`.
    """
    return require(text or runtimes.main_for(formats.format_of(file).name).name)


def in_worker(function: str, file: Path, part: Part, *runtimes_used: Runtime, **settings: Any) -> Any:
    """Calls `function(file, part, *runtimes_used, **settings)` in the worker that these runtimes' packages share.

    Raises:
        EdgeoptError: as the function raises it; ModelError when the worker dies.
    """
    worker = workers.shared("+".join(sorted({runtime.package for runtime in runtimes_used})))
    try:
        return worker.call(function, file, part, *runtimes_used, **settings)
    except workers.WorkerCrashed as crash:
        raise crashed(died_words(file, runtimes_used[0], settings.get("delegate")), crash) from None


def _run(session: Session, batch: Batch, size: int) -> dict[str, np.ndarray]:
    """Runs a batch of any length, `size` samples at a time; the last ones are filled up with the last sample."""
    count, results = len(batch), []
    for start in range(0, count, size):
        some = {spec.name: quantize(batch.inputs[spec.name][start : start + size], spec) for spec in session.inputs}
        missing = size - min(size, count - start)
        if missing:
            some = {name: np.concatenate([array, *[array[-1:]] * missing]) for name, array in some.items()}
        results.append({name: _rows(array, size)[: size - missing] for name, array in session.run(some).items()})
    if len(results) == 1:
        return results[0]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _rows(array: np.ndarray, size: int) -> np.ndarray:
    """Returns an output with the samples as its first axis; models for one sample may leave it out."""
    if array.ndim and array.shape[0] == size:
        return array
    if size == 1:
        return array[None]
    raise ModelError(
        f"Expected outputs with one row for each of {size} samples, got shape {array.shape}. Try a model with batch 1."
    )


# Rows of a batch of one output, how many of its samples gave outputs that are not finite, and sums for the table.
_Piece = tuple[Rows, int, "Sums | None"]


def _labelled(names: Sequence[str], part: Part, wanted: str | None) -> list[str]:
    """Returns the outputs to score: the one that is said, those with labels of their own, or the only one.

    Raises:
        ConfigError: it cannot be told which they are.
        DataError: there are labels for an output that is not there, or none for any of several.
    """
    own = list(part.labels.outputs)
    if wanted is None and len(names) > 1 and not part.has_labels:
        raise DataError(
            f"Expected labels for one of the outputs {', '.join(names)}, got none. Try data with y_test_{names[0]} "
            f"and the like, a --metric module:function of all outputs, or --output-name {names[0]} and a --metric that "
            "needs none; or `edgeopt compare`, which holds two files against one another without labels."
        )
    if wanted is not None or not own:
        return [chosen(names, wanted)]
    for name in own:
        if name not in names:
            raise DataError(
                f"Expected labels for the outputs {', '.join(names)}, got some for {name!r}.{suggestion(name, names)}"
            )
    return [name for name in names if name in own]


def _scored(one: metrics.Metric, outputs: np.ndarray, batch: Batch) -> _Piece:
    """Returns the rows of a batch, how many of its samples gave outputs that are not finite, and sums for the table."""
    odd = ~heads.are_finite(outputs)
    return one.per_sample(outputs, batch), int(odd.sum()), sums(outputs, batch, one.by)


def _collected(pieces: Iterable[list[_Piece]], total: int) -> list[_Piece]:
    """Returns for each output what its pieces are together, unsettled."""
    kept, done, told = [], 0, 0.0
    progress.tell("evaluate", 0, total)
    for piece in pieces:
        kept.append(piece)
        done += len(piece[0][0][0])
        if done == total or time.monotonic() > told + _TELL_EVERY_S:
            told = time.monotonic()
            progress.tell("evaluate", done, total)
    return [_joined(each) for each in zip(*kept)]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    rows = tuple(np.concatenate(column) for column in zip(*(rows for rows, _, _ in pieces)))
    tables = [table for _, _, table in pieces]
    added = None if any(table is None for table in tables) else functools.reduce(operator.add, tables)
    return rows, sum(odd for _, odd, _ in pieces), added


def _odd_note(odd: int, predictor: Predictor, names: Sequence[str], file: Path) -> tuple[str, ...]:
    """Returns a note of samples whose outputs are not finite, with what is not finite first on the way to one."""
    if not odd:
        return ()
    said, where = f"outputs of {odd} sample{'s' * (odd != 1)} are not finite", ""
    for batch in predictor.part.batches(predictor.chunk_size):
        values = predictor.values(batch)
        strange = ~np.all([heads.are_finite(heads.read(name, values, batch)[0]) for name in names], axis=0)
        if strange.any():
            place = int(strange.argmax())
            sample = {name: array[place : place + 1] for name, array in batch.inputs.items()}
            where = first_not_finite(file, predictor.runtime, sample)
            break
    return (f"{said}; in the first of them it begins with {where}" if where else said,)


def _require_samples(part: Part) -> None:
    if not len(part):
        raise DataError("Expected samples to evaluate on, got none. Try data with a test split (x_test, y_test).")


def chosen(names: Sequence[str], wanted: str | None) -> str:
    """Returns the output to score."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    if wanted is None:
        raise ConfigError(
            f"Expected to know which of the outputs {', '.join(names)} the labels are for. "
            f"Try --output-name {names[0]}."
        )
    raise ConfigError(
        f"Expected one of the model's outputs as --output-name, got {wanted!r}.{suggestion(wanted, names)}"
    )


def at_once(names: Sequence[str], said: Mapping[str, str], output: str | None) -> bool:
    """Whether one metric is said for all of several outputs that takes them at once.

    Args:
        names: of the outputs.
        said: metrics by output, "" for all.
        output: the one that is scored, where that is said.

    Raises:
        ConfigError: another is said of one of them beside it.
    """
    if output is not None or len(names) < 2 or "" not in said or not metrics.metric(said[""]).reads_all:
        return False
    if beside := [one for one in said if one]:
        raise ConfigError(
            f"Expected {said['']} alone as --metric, which takes all {len(names)} outputs at once, got another for "
            f"{beside[0]}. Try --metric OUTPUT=NAME,OUTPUT=NAME for each of them."
        )
    return True


def compared(names: Sequence[str], part: Part, metric: str | None, output: str | None) -> tuple[str, str | None]:
    """Returns the output by whose score two files are compared, or heads.ALL, and its metric where that is said.

    Raises:
        ConfigError: there is no such output or metric.
        DataError: it cannot be told which one.
    """
    said = metrics.for_outputs(metric)
    if at_once(names, said, output):
        return heads.ALL, said[""]
    own = [name for name in said if name]
    wanted = output or (own[0] if len(said) == len(own) == 1 else None)
    if len(names) > 1 and wanted is None and (not said or own or part.labels.outputs):
        why = "one output is scored at a time" if part.labels.outputs else "the labels are for one output"
        raise DataError(f"{why} (--output-name {names[0]})")
    one = chosen(names, wanted)
    return one, said.get(one, said.get(""))


def _deciding(part: Part) -> Batch:
    """Returns the samples that a metric is chosen from: where labels are class numbers, all are known without them."""
    count = _DECIDING_OUTPUTS if part.classes is not None or not part.has_labels else _DECIDING_LABELS
    return next(part.head(count).batches(count))


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # no affinity outside Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
