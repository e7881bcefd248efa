"""The float model's `.tflite`, a converted file and samples go in; how faithful the file is comes out, as numbers.

Kernels agree with kernels whatever a file holds. Here the file is held against the model that it was made from: each
output and each component of it against its own spread, classes and scores against one another, real data against the
steps of quantized inputs. What is lost without doubt is a problem, with the cause that an experiment showed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import comparison, formats, metrics, progress
from edgeopt.errors import DataError
from edgeopt.evaluation import Predictor, compared, in_threads, in_worker, required_for
from edgeopt.fidelity.structure import input_grids, layouts, output_grids, whole_numbers
from edgeopt.fidelity.sums import Sums, inputs_left, parts, worst
from edgeopt.fidelity.verdict import Findings, Judged, Output, Precision, problems
from edgeopt.metrics import Metric, Rows, heads
from edgeopt.runtimes import Runtime
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.tasks.finding import metric_of
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Batch, Fidelity, OutputFidelity, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part as Samples

# Enough to show a loss of some points, and done in the time that a calibration takes.
SAMPLES = 300
# A look at outputs and labels decides the metric: the same on every machine.
_FIRST = 64

Values = Callable[[Batch], Mapping[str, np.ndarray]]


def measure(
    reference: Path | str,
    file: Path | str,
    part: Samples,
    *,
    metric: str | None = None,
    output: str | None = None,
    runtime: str | None = None,
    isolate: bool = True,
) -> Fidelity:
    """Runs a file and the float file of the same model on up to SAMPLES samples, and says what the first has lost.

    Args:
        reference: the float model.
        file: what was made of it.
        part: real samples, and labels if there are any; of more than SAMPLES some are drawn.
        metric, output: see `evaluation.evaluate`; where labels fit no metric nothing is scored, and a note says so.
        runtime: what both run on; each on the main one of its format when None.
        isolate: run in a worker process.

    Raises:
        ConfigError: `metric`, `output` or `runtime` names nothing that is there.
        DataError: there are no samples, or they do not fit the model.
        ModelError: the runtime refuses a file or dies on it, or the two have no outputs of the same shapes.
        UnavailableError: the runtime is not to be had here.
    """
    reference, file = Path(reference), Path(file)
    used = [required_for(one, runtime).runtime for one in (reference, file)]
    some = part
    if len(part) > SAMPLES:
        some = part.take(SAMPLES) if part.reads_any_row else part.head(SAMPLES)
    settings = {"other": file, "metric": metric, "output": output}
    if not isolate:
        return measure_here(reference, some, *used, **settings)  # type: ignore[arg-type]
    found: Fidelity = in_worker("edgeopt.fidelity:measure_here", reference, some, *used, **settings)
    return found


def measure_here(
    reference: Path,
    part: Samples,
    runtime: Runtime,
    other_runtime: Runtime,
    *,
    other: Path,
    metric: str | None,
    output: str | None,
) -> Fidelity:
    """As `measure`, in this process and on all samples."""
    with Predictor(reference, part, runtime) as left, Predictor(other, part, other_runtime) as right:
        pair = _Pair(reference, other, left, right, metric, output)
        first = pair.findings(right.values)
        found = problems(first, pair.precision)
        if pair.grids_in and any(problem.cause == "inside" for problem in found):
            # What the float model makes of the rounded inputs shows whether these alone do it.
            found = problems(first, pair.precision, rounded=pair.findings(pair.of_rounded_inputs))
    return Fidelity(
        len(part),
        other_runtime.name,
        first.inputs,
        tuple(output.found for output in first.outputs),
        first.reference_metric,
        first.metric,
        first.difference,
        found,
        (*pair.notes, *first.notes),
    )


@dataclass(frozen=True)
class _Piece:
    """What is kept of a batch."""

    samples: int
    inputs: Mapping[str, Sums]
    outputs: Mapping[str, Sums]
    classes: Mapping[str, tuple[np.ndarray, np.ndarray]]
    mistaken: Mapping[str, float]
    rows: tuple[Rows, Rows] | None
    refusal: str


def _numbers(file: Path) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec], bool]:
    """Returns what inputs and outputs of a file are rounded to, by name, and whether it holds float16."""
    if formats.format_of(file).name == "tflite":
        model = read_once(file)
        return input_grids(model), output_grids(model), any(t.dtype == "float16" for t in model.main.tensors)
    facts = formats.facts(file)
    inputs, outputs = (
        {spec.name: spec for spec in specs if spec.quantization} for specs in (facts.inputs, facts.outputs)
    )
    return inputs, outputs, any(weight.dtype == "float16" for weight in facts.weights)


class _Pair:
    """The float model and a file of it, both open on the same samples."""

    def __init__(
        self, reference: Path, file: Path, left: Predictor, right: Predictor, metric: str | None, output: str | None
    ) -> None:
        grids, self._grids_out, halved = _numbers(file)
        self._left, self._right = left, right
        self._outputs = comparison.paired_outputs(left, right)
        floating = read_once(reference)
        self._layouts = layouts(floating)
        ours, theirs = ([spec.name for spec in one.part.specs] for one in (left, right))
        named = set(ours) == set(theirs)
        pairs = zip(ours, ours if named else theirs)
        self.grids_in: dict[str, TensorSpec] = {name: grids[other] for name, other in pairs if other in grids}
        self._whole = whole_numbers(floating) & set(self.grids_in)
        every = (*self.grids_in.values(), *self._grids_out.values())
        bits = min((8 * np.dtype(grid.dtype).itemsize for grid in every), default=0)
        few = any(weight.bits < 8 for weight in formats.facts(file).weights)
        self.precision = Precision(bits, "float32" if halved else "float16", few_bits=few)
        self._first = next(left.part.head(_FIRST).batches(_FIRST))
        self.notes: tuple[str, ...] = ()
        self._asked = metric is not None
        self._scored, self._labels_are_classes = "", False
        self._metric = self._chosen(metric, output)

    def of_rounded_inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Returns what the float model makes of a batch whose inputs were rounded as the file rounds them."""
        rounded = {name: self._rounded(name, values) for name, values in batch.inputs.items()}
        found = self._left.values(Batch(rounded, batch.labels))
        return {other: found[name] for name, other in self._outputs.items()}

    def _rounded(self, name: str, values: np.ndarray) -> np.ndarray:
        grid = self.grids_in.get(name)
        return values if grid is None else dequantize(quantize(values, grid), grid)

    def _mistaken(self, batch: Batch) -> dict[str, float]:
        """Returns of inputs that the float model makes whole numbers of how many values of a batch become another."""
        values = {name: batch.inputs[name] for name in self._whole}
        return {name: len(v) * np.mean(np.trunc(v) != np.trunc(self._rounded(name, v))) for name, v in values.items()}

    def findings(self, values: Values) -> Findings:
        """Returns what one pass shows of `values`, by the file's names of outputs, beside the float model's."""
        size = max(self._left.chunk_size, self._right.chunk_size)
        samples = self._left.part if values == self.of_rounded_inputs else self._right.part
        batches = zip(self._left.part.batches(size), samples.batches(size))
        pieces: list[_Piece] = []
        done, total = 0, len(self._left.part)
        for piece in in_threads(lambda both: self._piece(*both, values), batches, threads=self._left.threads):
            pieces.append(piece)
            done += piece.samples
            progress.tell("comparing with the float model", done, total)
        inputs = tuple(
            inputs_left(name, grid, _summed(piece.inputs[name] for piece in pieces))
            for name, grid in self.grids_in.items()
        )
        outputs = tuple(self._output(name, pieces) for name in self._outputs)
        mistaken = {name: sum(piece.mistaken[name] for piece in pieces) / total for name in sorted(self._whole)}
        found = Findings(total, inputs, outputs, self._scored, mistaken=mistaken)
        refusal = next((piece.refusal for piece in pieces if piece.refusal), "")
        if self._metric is None or refusal:
            return replace(found, notes=(f"not scored: {refusal}",) if refusal else ())
        try:
            metrics_of = comparison.scores(self._metric, [piece.rows for piece in pieces if piece.rows is not None])
        except DataError as error:
            return replace(found, notes=(f"not scored: {self._refused(error)}",))
        return replace(found, reference_metric=metrics_of[0], metric=metrics_of[1], difference=metrics_of[2])

    def _chosen(self, name: str | None, output: str | None) -> Metric | None:
        """Returns the metric that fits outputs and labels, and notes why there is none."""
        part = self._left.part
        if not (part.has_labels or name):
            return None
        try:
            self._scored, name = compared(list(self._outputs), part, name, output)
        except DataError as error:
            self.notes += (f"not scored: {error}",)
            return None
        if self._scored == heads.ALL:
            return metrics.metric(str(name))
        try:
            fitting = metric_of(self._left.values(self._first)[self._scored], self._first.of_output(self._scored))
        except DataError as error:
            if name is None:
                self.notes += (f"not scored: {error}",)
            fitting = ""
        self._labels_are_classes = fitting == "top1"
        return metrics.metric(name or fitting) if name or fitting else None

    def _refused(self, error: DataError) -> str:
        """Returns why nothing can be scored; what was asked for has to be.

        Raises:
            DataError: the metric was asked for by name.
        """
        if self._asked:
            raise error
        return str(error)

    def _piece(self, ours: Batch, theirs: Batch, values: Values) -> _Piece:
        a, b = self._left.values(ours), values(theirs)
        inputs = {name: Sums.of(ours.inputs[name], ours.inputs[name], -1, grid) for name, grid in self.grids_in.items()}
        outputs, classes = {}, {}
        for name, other in self._outputs.items():
            own = ours.of_output(name)
            labels = own.labels if self._are_targets(name, a[name], own) else None
            outputs[name] = Sums.of(a[name], b[other], self._layouts[name].axis, self._grids_out.get(other), labels)
            decided = [self._classes(name, one[key]) for one, key in ((a, name), (b, other))]
            if decided[0] is not None and decided[1] is not None:
                classes[name] = (decided[0], decided[1])
        rows, refusal = None, ""
        if self._metric is not None:
            try:
                named = {name: b[other] for name, other in self._outputs.items()}
                rows = (
                    self._metric.per_sample(*heads.read(self._scored, a, ours)),
                    self._metric.per_sample(*heads.read(self._scored, named, theirs)),
                )
            except DataError as error:
                refusal = self._refused(error)
        return _Piece(len(ours), inputs, outputs, classes, self._mistaken(ours), rows, refusal)

    def _are_targets(self, name: str, values: np.ndarray, batch: Batch) -> bool:
        """Whether the labels are the numbers that an output is to give."""
        labels = batch.labels
        return name == self._scored and labels is not None and labels.shape == values.shape

    def _classes(self, name: str, values: np.ndarray) -> np.ndarray | None:
        kinds = {part.kind for part in self._layouts[name].parts}
        if kinds != {"classes"} and not (name == self._scored and self._labels_are_classes):
            return None
        return metrics.class_scores(values, classes=self._left.part.of_output(name).classes)

    def _output(self, name: str, pieces: Sequence[_Piece]) -> Output:
        sums = _summed(piece.outputs[name] for piece in pieces)
        grid, layout = self._grids_out.get(self._outputs[name]), self._layouts[name]
        values = self._left.values(self._first)[name]
        alike = any(array.shape == values.shape for array in self._first.inputs.values())
        judged = tuple(
            Judged(part, sums.component(part, grid), sums.own_error(part))
            for part in parts(layout, alike=alike, targets=self._are_targets(name, values, self._first))
        )
        decided = [piece.classes[name] for piece in pieces if name in piece.classes]
        found = OutputFidelity(
            name,
            sums.sqnr_db,
            len(sums.count),
            worst([one.left for one in judged]),
            comparison.agreement(*map(np.concatenate, zip(*decided))) if decided else None,
            int(sums.not_finite.sum()),
        )
        return Output(found, judged)


def _summed(sums: Iterable[Sums]) -> Sums:
    return functools.reduce(operator.add, sums)
