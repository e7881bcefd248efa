"""Two converted files (or two runtimes for one) and samples go in; how far they agree, and where they part, comes out.

The first is the reference, as a rule the float model. Sums are kept, not outputs: memory does not grow with the data.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import formats, metrics, progress, runtimes, statistics
from edgeopt.data import bind
from edgeopt.errors import DataError, ModelError, UnavailableError
from edgeopt.evaluation import Predictor, compared, in_threads, in_worker, required_for
from edgeopt.files import sha256
from edgeopt.formats import signatures
from edgeopt.metrics import Metric, Rows, heads
from edgeopt.runtimes import RUNTIMES, Runtime
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.samples import sizes
from edgeopt.showing.values import Shown
from edgeopt.tflite.activations import computed, matched
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Batch, Difference, Interval, LayerError, MetricValue, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part

# Below this a tensor has gone bad: noise of a tenth of the signal. A good int8 layer keeps 30 to 40 dB.
_BAD_DB = 20.0
# Worse than a good layer, and so much worse than the tensors it is made of: this operator did it.
_GOOD_DB = 30.0
_SHARP_DROP_DB = 10.0
# A loss that chance alone brings less often than this is one.
_DOUBT = 0.05


@dataclass(frozen=True)
class OutputDifference:
    """How far one output lies from the reference's, over all samples.

    Attributes:
        name: in the reference.
        sqnr_db: signal to quantization noise, 10 log10(sum a² / sum (a - b)²); infinite where equal.
        cosine: of the two as vectors.
        max_difference: the largest of any value, in the output's unit.
        equal: whether all values are the same.
    """

    name: str
    sqnr_db: float
    cosine: float
    max_difference: float
    equal: bool


@dataclass(frozen=True)
class Comparison(Shown):
    """What `compare` found; `a` is the reference.

    Attributes:
        samples: how many.
        outputs: each output of `a` beside its counterpart.
        agreement: share of samples to which both give the same class; None where outputs are no classes.
        metric_a, metric_b: both scores; None without labels.
        difference: how much worse `b` is, with the p-value of a paired test; None without labels.
        layers: intermediate tensors found in both, in order of execution.
        layer_samples: how many samples these were measured on.
        first_difference: where the two part, in words.
        notes: what was left out, and why.
    """

    samples: int
    outputs: tuple[OutputDifference, ...]
    agreement: Interval | None
    metric_a: MetricValue | None
    metric_b: MetricValue | None
    difference: Difference | None
    layers: tuple[LayerError, ...]
    layer_samples: int
    first_difference: str
    notes: tuple[str, ...] = ()


def compare(
    a: Path | str,
    b: Path | str,
    part: Part,
    *,
    runtime: str | None = None,
    runtime_b: str | None = None,
    metric: str | None = None,
    output: str | None = None,
    layer_samples: int = 16,
    threads: int | None = None,
    signature: str | None = None,
    isolate: bool = True,
) -> Comparison:
    """Runs two files on the same samples and says how their outputs and intermediate tensors differ.

    Args:
        a, b: the reference and the other; the same file twice compares two runtimes.
        part: samples, and labels if there are any.
        runtime, runtime_b: what each runs on, else the main one of its format; `runtime_b` is `runtime` when None,
            where both have one format.
        metric, output: see `evaluation.evaluate`; only used with labels.
        layer_samples: how many samples the intermediate tensors are compared on; 0 leaves them out. They are taken
            from LiteRT's built-in kernels where the runtime is litert, since XNNPACK keeps none.
        threads: see `evaluation.evaluate`.
        signature: of the files that have several; that of their main graphs when None.
        isolate: run in a worker process.

    Raises:
        ConfigError, DataError, ModelError, UnavailableError: see `evaluation.evaluate`; ModelError also when the two
            have no outputs of the same shape.
    """
    a, b = Path(a), Path(b)
    alike = formats.format_of(a) == formats.format_of(b)
    used = (required_for(a, runtime).runtime, required_for(b, runtime_b or (runtime if alike else None)).runtime)
    settings = {"metric": metric, "output": output, "layer_samples": layer_samples, "threads": threads}
    with contextlib.ExitStack() as stack:
        several = [one for one in (a, b) if len(signatures.names(one)) > 1] or [a, b]
        (a, notes), (b, more) = (
            stack.enter_context(signatures.of(one, signature if one in several else None)) for one in (a, b)
        )
        if isolate:
            found = in_worker("edgeopt.comparison:compare_here", a, part, *used, b=b, **settings)
        else:
            found = compare_here(a, part, *used, b=b, **settings)  # type: ignore[arg-type]
    return replace(found, notes=tuple(dict.fromkeys((*notes, *more, *found.notes))))


def kept(found: Comparison) -> str:
    """Says whether a file (`b`) does what the model (`a`) that it simulates does, and where the two part if not."""
    count = f"{found.samples:,} samples"
    if found.agreement is not None:
        words = f"the file decides as the trained model does for {found.agreement.value:.2%} of {count}"
    else:
        worst = min(found.outputs, key=lambda output: output.sqnr_db)
        words = f"the file's output {worst.name!r} is {worst.sqnr_db:.1f} dB from the trained model's over {count}"
    if found.metric_a is not None and found.metric_b is not None:
        values = (f"{m.value:.2%}" if m.is_share else f"{m.value:.4g}" for m in (found.metric_b, found.metric_a))
        words += f" ({found.metric_b.name} {' and '.join(values)})"
    p_value = None if found.difference is None else found.difference.p_value
    lost = found.difference is not None and found.difference.value > 0 and p_value is not None and p_value < _DOUBT
    if lost or any(output.sqnr_db < _BAD_DB for output in found.outputs):
        words += f". {found.first_difference.removesuffix('.')}"
    return words


def layer_errors(
    float_file: Path, quantized_file: Path, part: Part, *, samples: int = 16, isolate: bool = True
) -> tuple[LayerError, ...]:
    """Returns how far each intermediate tensor of a quantized file lies from the float one's, in order of execution.

    On the runtime that is the reference for the format, over the first `samples` samples.

    Raises:
        DataError, ModelError, UnavailableError: see `compare`.
    """
    row = formats.format_of(float_file)
    runtime = runtimes.reference_for(row.name)
    if runtime is None or "tensors" not in runtime.can:
        raise UnavailableError(f"No runtime here shows what layers of {row.suffix} files compute. Try another format.")
    if not isolate:
        return layer_errors_here(float_file, part, runtime, b=quantized_file, samples=samples)
    return in_worker(
        "edgeopt.comparison:layer_errors_here", float_file, part, runtime, b=quantized_file, samples=samples
    )


def compare_here(
    a: Path,
    part: Part,
    runtime_a: Runtime,
    runtime_b: Runtime,
    *,
    b: Path,
    metric: str | None,
    output: str | None,
    layer_samples: int,
    threads: int | None,
) -> Comparison:
    """As `compare`, in this process."""
    with (
        Predictor(a, part, runtime_a, threads=threads) as left,
        Predictor(b, part, runtime_b, threads=threads) as right,
    ):
        pairs = paired_outputs(left, right)
        notes = [*left.notes, *(note for note in right.notes if note not in left.notes)]
        one: Metric | None = None
        scored = next(iter(pairs))
        if part.has_labels or metric:
            try:
                scored, said = compared(list(pairs), part, metric, output)
            except DataError as error:
                notes.append(f"not scored: {error}")
            else:
                one = metrics.metric(said or left.default_metric(scored))
        size = max(left.chunk_size, right.chunk_size)
        # The largest of numbers to predict, or of an embedding, is no decision.
        decides = scored != heads.ALL and (one is None or one.by == "classes" or ":" in one.name)

        def measured(both: tuple[Batch, Batch]) -> _Piece:
            values_a, values_b = left.values(both[0]), right.values(both[1])
            sums = {name: _Sums.of(values_a[name], values_b[other]) for name, other in pairs.items()}
            named = (values_a, {name: values_b[other] for name, other in pairs.items()})
            kept = [heads.read(scored, values, batch) for values, batch in zip(named, both)]
            rows = None if one is None else tuple(one.per_sample(*read) for read in kept)
            classes = [metrics.class_scores(values, classes=part.classes) if decides else None for values, _ in kept]
            return _Piece(len(both[0]), sums, classes, rows)

        batches = zip(left.part.batches(size), right.part.batches(size))
        pieces = list(_told(in_threads(measured, batches, threads=left.threads), len(part)))
    kept = [piece.rows for piece in pieces if piece.rows is not None]
    metric_a, metric_b, worse = (None, None, None) if one is None else scores(one, kept)
    layers: tuple[_Layer, ...] = ()
    keepers = _keeper(runtime_a), _keeper(runtime_b)
    if keepers[0] == keepers[1] and sha256(a) == sha256(b):
        notes.append(f"intermediate tensors were not compared: both would be those of {keepers[0].name}")
    elif mute := [keeper for keeper in keepers if "tensors" not in keeper.can]:
        notes.append(f"intermediate tensors were not compared: {mute[0].name} keeps no activations")
    elif layer_samples:
        try:
            layers = _layers(a, b, part, *keepers, layer_samples)
        except (ModelError, UnavailableError) as error:
            notes.append(f"intermediate tensors were not compared: {error}")
        for runtime, keeper in dict.fromkeys(zip((runtime_a, runtime_b), keepers)):
            if keeper is not runtime:
                notes.append(f"intermediate tensors are those of {keeper.name}, since {runtime.name} keeps none")
    return Comparison(
        len(part),
        tuple(sum((p.sums[name] for p in pieces[1:]), pieces[0].sums[name]).difference(name) for name in pairs),
        _agreement(pieces),
        metric_a,
        metric_b,
        worse,
        tuple(layer.error for layer in layers),
        min(layer_samples, len(part)) if layers else 0,
        _first_difference(layers) if layers else "No intermediate tensors were compared.",
        tuple(notes),
    )


def layer_errors_here(a: Path, part: Part, runtime: Runtime, *, b: Path, samples: int) -> tuple[LayerError, ...]:
    """As `layer_errors`, in this process."""
    return tuple(layer.error for layer in _layers(a, b, part, runtime, runtime, samples))


# --- outputs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """Sums over values of two tensors that make their SQNR and cosine; those of two batches add up."""

    aa: float
    bb: float
    ab: float
    noise: float
    largest: float

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> _Sums:
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        apart = x - y
        return cls(
            float(x @ x), float(y @ y), float(x @ y), float(apart @ apart), float(np.abs(apart).max(initial=0.0))
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.aa + other.aa,
            self.bb + other.bb,
            self.ab + other.ab,
            self.noise + other.noise,
            max(self.largest, other.largest),
        )

    @property
    def sqnr_db(self) -> float:
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.aa / self.noise) if self.aa else -math.inf

    @property
    def cosine(self) -> float:
        lengths = math.sqrt(self.aa * self.bb)
        return min(1.0, self.ab / lengths) if lengths else float(self.aa == self.bb)

    def difference(self, name: str) -> OutputDifference:
        return OutputDifference(name, self.sqnr_db, self.cosine, self.largest, self.noise == 0)


@dataclass(frozen=True)
class _Piece:
    """What is kept of a batch."""

    samples: int
    sums: Mapping[str, _Sums]
    classes: Sequence[np.ndarray | None]
    rows: tuple[Rows, ...] | None


def paired_outputs(left: Predictor, right: Predictor) -> dict[str, str]:
    """Returns which output of the other each output of the reference is compared with: the same name, or place."""
    names = [spec.name for spec in right.outputs]
    by_name = {spec.name for spec in left.outputs} == set(names)
    pairs = {spec.name: spec.name if by_name else name for spec, name in zip(left.outputs, names)}
    shapes = {spec.name: spec.shape[1:] for spec in right.outputs}
    unlike = [s.name for s in left.outputs if s.name not in pairs or shapes[pairs[s.name]] != s.shape[1:]]
    if unlike or len(names) != len(left.outputs):
        shown = [", ".join(f"{s.name} {s.shape[1:]}" for s in one.outputs) for one in (left, right)]
        raise ModelError(
            f"Expected two models with outputs of the same shapes, got {shown[0]} and {shown[1]}. "
            "Try files converted from one model."
        )
    return pairs


def agreement(scores_a: np.ndarray, scores_b: np.ndarray) -> Interval:
    """Returns the share of samples that both put into the same class, of what `metrics.class_scores` gave for each."""
    same = metrics.decide(scores_a) == metrics.decide(scores_b)
    return Interval(float(same.mean()), *statistics.wilson(int(same.sum()), len(same)))


def scores(one: Metric, pieces: Sequence[tuple[Rows, ...]]) -> tuple[MetricValue, MetricValue, Difference]:
    """Returns both scores and how much worse the second is, of what the metric keeps of each batch of the two.

    Raises:
        DataError: the metric is not defined on these samples.
    """
    a, b = (
        one.settle(*(np.concatenate(column) for column in zip(*(piece[which] for piece in pieces)))) for which in (0, 1)
    )
    return one.value(a), one.value(b), one.difference(a, b)


def _agreement(pieces: Sequence[_Piece]) -> Interval | None:
    columns = [[scores for piece in pieces if (scores := piece.classes[which]) is not None] for which in (0, 1)]
    return agreement(*map(np.concatenate, columns)) if all(columns) else None


def _told(pieces: Iterator[_Piece], total: int) -> Iterator[_Piece]:
    done = 0
    for piece in pieces:
        yield piece
        done += piece.samples
        progress.tell("compare", done, total)


# --- intermediate tensors --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """An intermediate tensor: its error, the operator that makes it, and the worst of the compared tensors it reads."""

    error: LayerError
    operator: str
    before_db: float


@dataclass(frozen=True)
class _Made:
    """A tensor that an operator makes."""

    name: str
    shape: tuple[int | None, ...]
    operator: str
    reads: tuple[str, ...]


def _made(file: Path) -> tuple[_Made, ...]:
    """Returns what the operators of the main graph make out of its inputs, in order of execution."""
    if formats.format_of(file).name == "tflite":
        model = read_once(file)
        of_inputs = {tensor.index for tensor in computed(model)}
        tensors = model.main.tensors
        return tuple(
            _Made(tensors[i].name, tensors[i].shape, one.name, tuple(tensors[k].name for k in one.inputs if k >= 0))
            for one in model.main.operators
            for i in one.outputs
            if i in of_inputs
        )
    return tuple(
        _Made(name, one.output_shape if name == one.layer else (), one.name, one.reads)
        for one in formats.facts(file).operators
        for name in one.writes
        if one.graph == 0
    )


def _layers(a: Path, b: Path, part: Part, runtime_a: Runtime, runtime_b: Runtime, samples: int) -> tuple[_Layer, ...]:
    made_a, made_b = _made(a), _made(b)
    alike = formats.format_of(a) == formats.format_of(b)
    pairs = matched(made_a, made_b) if alike else matched(*(_without_order(made) for made in (made_a, made_b)))
    sums: dict[str, _Sums] = {}
    runs = zip(_tensor_runs(a, part, runtime_a, samples), _tensor_runs(b, part, runtime_b, samples))
    for values_a, values_b in progress.track(runs, "compare layers", min(samples, len(part))):
        for name, other in pairs.items():
            if name not in values_a or other not in values_b:
                continue
            found = values_b[other] if alike else _in_order(values_b[other], values_a[name])
            if values_a[name].shape == found.shape:
                now = _Sums.of(values_a[name], found)
                sums[name] = sums[name] + now if name in sums else now
    return _with_origins(made_a, sums)


def _without_order(made: Sequence[_Made]) -> tuple[_Made, ...]:
    """Returns tensors with their sizes sorted: channels are last in one format and second in another."""
    return tuple(replace(one, shape=tuple(sorted(n or 1 for n in one.shape))) for one in made)


def _in_order(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Returns values with their channels where another format has them: of the orders that fit, the nearer."""
    orders = [values, *((np.moveaxis(values, 1, -1), np.moveaxis(values, -1, 1)) if values.ndim > 2 else ())]
    fitting = [order for order in orders if order.shape == like.shape]
    return min(fitting, key=lambda order: float(np.abs(order - like).sum()), default=values)


def _tensor_runs(file: Path, part: Part, runtime: Runtime, samples: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields for each sample its activations as real numbers, by tensor name."""
    specs = _specs(file)
    with runtimes.as_reference_takes(file) if runtime.is_reference else contextlib.nullcontext(file) as taken:
        session = runtimes.open_session(taken, runtime, keep_intermediates=True)
        try:
            session.reshape(sizes(part, session))
            session.resize(1)
            for batch in bind(part, session.inputs).head(samples).batches(1):
                session.run({spec.name: quantize(batch.inputs[spec.name], spec) for spec in session.inputs})
                yield {
                    name: dequantize(array, specs[name]) if name in specs else array
                    for name, array in session.tensors().items()
                    if array.dtype.kind == "f" or (name in specs and specs[name].quantization is not None)
                }
        finally:
            session.close()


def _specs(file: Path) -> Mapping[str, TensorSpec]:
    """Returns what activations mean, by name, where the runtime gives them as they are stored."""
    if formats.format_of(file).name != "tflite":
        return {}
    return {tensor.name: tensor.spec for tensor in read_once(file).main.tensors}


def _keeper(runtime: Runtime) -> Runtime:
    """Returns the runtime that shows the activations of `runtime`."""
    return runtime if "tensors" in runtime.can or not runtime.stand_in else RUNTIMES[runtime.stand_in]


def _with_origins(made: Sequence[_Made], sums: Mapping[str, _Sums]) -> tuple[_Layer, ...]:
    """Returns the layers in order of execution, each with the worst SQNR among the tensors it is made of."""
    reached: dict[str, float] = {}
    layers = []
    for one in made:
        before = min((reached[name] for name in one.reads if name in reached), default=math.inf)
        found = sums.get(one.name)
        # What was not compared hands on what it was made of.
        reached[one.name] = before if found is None else found.sqnr_db
        if found is not None:
            layers.append(_Layer(LayerError(one.name, found.sqnr_db, found.cosine), one.operator, before))
    return tuple(layers)


def _first_difference(layers: Sequence[_Layer]) -> str:
    """Says which operator is the first whose output is far from the reference's though its inputs were near."""
    count = len(layers)
    for place, layer in enumerate(layers, start=1):
        now, before = layer.error.sqnr_db, layer.before_db
        dropped = math.isfinite(before) and now < min(_GOOD_DB, before - _SHARP_DROP_DB)
        if now >= _BAD_DB and not dropped:
            continue
        came = "with no difference before it" if math.isinf(before) else f"from {before:.1f} dB before it"
        return f"They part at {layer.operator} {layer.error.tensor!r} ({place} of {count}): {now:.1f} dB, {came}."
    if all(math.isinf(layer.error.sqnr_db) for layer in layers):
        return f"They do not part: all {count} intermediate tensors are equal."
    worst = min(layers, key=lambda layer: layer.error.sqnr_db)
    return (
        f"They do not part anywhere: the worst of {count} intermediate tensors, {worst.operator} "
        f"{worst.error.tensor!r}, keeps {worst.error.sqnr_db:.1f} dB."
    )
