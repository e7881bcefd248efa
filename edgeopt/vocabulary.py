"""The nouns of edgeopt, as frozen dataclasses that every other module shares; nothing here runs anything.

Shapes are tuples with None for a free dimension; dtypes are NumPy's names; sizes are bytes, times milliseconds.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (q - zero_point), one pair per tensor or per slice along `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a model's input or output."""

    name: str
    shape: Shape
    dtype: str = "float32"
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: arrays [N, ...] by the input's name.
        labels: [N, ...]; None where there are none, or several.
        several: arrays [N, ...] by the output's name, where each output has labels of its own.
        weights: how much each sample counts in training, [N]; None where all count alike.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    several: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray | None = None

    def of_output(self, name: str) -> Batch:
        """Returns the samples with the labels of one output alone; labels without a name are every output's."""
        return replace(self, labels=self.several.get(name), several={}) if self.several else self

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every raw sample before the model sees it, in this order; given once, applied everywhere.

    Attributes:
        resize: height and width that images are resized to (bilinear), or None.
        scale: every value is multiplied by it first ...
        mean: ... then this is subtracted, one number or one per channel (last axis) ...
        std: ... and the difference divided by this.
        dtype: what the model receives; None keeps float32.
    """

    resize: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: str = "float32"

    @property
    def is_identity(self) -> bool:
        """Whether samples pass unchanged but for their dtype."""
        return self.resize is None and self.scale == 1.0 and set(self.mean) == {0.0} and set(self.std) == {1.0}


@dataclass(frozen=True)
class Scheme:
    """How numbers are stored and computed in a converted model; conversion is driven by these fields alone.

    Attributes:
        weights: dtype of stored weights.
        activations: dtype that kernels compute on.
        inputs: dtype of the model's inputs and outputs.
        summary: one line for help texts and reports: what runs, not what the converter's flag is called.
        maker: key of `conversion.quantizers.QUANTIZERS`.
        granularity: what shares a scale: "tensor", "channel", "block:32" (numbers in a row); "" for floats.
        dense_granularity: the same of Dense layers, where theirs is another.
        symmetric: the zero points of weights are 0.
        algorithm: how scales are found: "min-max", "mse" …, or "trained" where the weights were rounded in training,
            which then decides what has how many bits; "" for floats.
        dynamic: activations are quantized at run time, from the values of each inference.
        needs_calibration: a representative dataset sets the activations' ranges.
        by_default: it is made where no scheme is named.
        bits: that weights use of those that `weights` stores; 0 for all.
        keep_8bit: which layers of a scheme below eight bits have int8 weights all the same: "auto" (the first, the
            last, depthwise and small ones), "none", or names and globs.
    """

    name: str
    weights: str
    activations: str
    inputs: str
    summary: str
    maker: str
    granularity: str = ""
    dense_granularity: str = ""
    symmetric: bool = True
    algorithm: str = ""
    dynamic: bool = False
    needs_calibration: bool = False
    by_default: bool = True
    bits: int = 0
    keep_8bit: tuple[str, ...] = ("auto",)

    @property
    def weight_bits(self) -> int:
        """Bits that a weight uses."""
        return self.bits or int("".join(filter(str.isdigit, self.weights)))

    @property
    def is_low_bit(self) -> bool:
        """Whether weights have fewer than eight bits."""
        return self.weight_bits < 8

    @property
    def granularity_of_dense(self) -> str:
        """What shares a scale in a Dense layer."""
        return self.dense_granularity or self.granularity


@dataclass(frozen=True)
class Availability:
    """Whether something works on this machine; `reason` says why not and what to install."""

    available: bool
    reason: str = ""
    version: str = ""


@dataclass(frozen=True)
class OperatorUse:
    """An operator of a converted file: its name, the version written there if there is one, how often it is used."""

    name: str
    version: int | None
    count: int


@dataclass(frozen=True)
class StoredWeight:
    """A tensor that is stored in a converted file, of whatever format.

    Attributes:
        dtype, bits: as stored; 0 bits where elements have no fixed size, as strings.
        kind: "weights", "biases" or "constants".
        operator: name of the operator that computes with it, "" where none reads it.
        elements: of its shape, stored or not.
        size_bytes: in the file, with the index of a sparse encoding.
        zeros: elements that stand for exactly 0; None where they cannot be counted.
        unique: distinct values, zeros of a sparse encoding included; None as above.
        unique_per_channel: the most distinct values in any output channel; None for biases and sparse encodings.
        scales: 0 not quantized, 1 one scale, more: per channel or block.
        encoding: "" for dense tensors, else in words.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    kind: str
    operator: str
    elements: int
    size_bytes: int
    zeros: int | None
    unique: int | None
    unique_per_channel: int | None
    scales: int
    encoding: str

    @property
    def sparsity(self) -> float | None:
        """Share of its elements that are exactly zero, 0 to 1."""
        return None if self.zeros is None or not self.elements else self.zeros / self.elements

    @property
    def is_parameter(self) -> bool:
        """Whether it holds trained numbers: weights, biases, and float or quantized constants."""
        return self.kind != "constants" or self.scales > 0 or self.dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True)
class Artifact:
    """A file that ships.

    Attributes:
        format: key of `formats.FORMATS`.
        file: relative to the report.
        sha256: of its content, as hex.
        gzip_bytes: after gzip at its highest level.
        made_by: what wrote it: a converter's or a compiler's name, "" where that is not told.
    """

    format: str
    file: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    made_by: str = ""


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricValue:
    """A metric over a set of samples.

    Attributes:
        name: key of `metrics.METRICS`, or "module:function".
        value: accuracies as a share of 1, errors in their own unit.
        low, high: the 95 % interval.
        samples: how many samples it was measured on.
        higher_is_better: the direction.
        is_share: whether it is written in per cent and its differences are in points; None where that is not told.
    """

    name: str
    value: float
    low: float
    high: float
    samples: int
    higher_is_better: bool = True
    is_share: bool | None = None


@dataclass(frozen=True)
class Breakdown:
    """A score taken apart.

    Attributes:
        of: what the rows are: "classes" (one each of a sample, position or box), "labels" (yes or no each), "targets",
            or "scores" (of the ordinary, and of anomalies).
        names: of the rows.
        columns: name to the values of all rows, None where one is not defined: precision, recall and f1 of
            classes and labels, iou too where each position has one; ap of boxes; rmse, mae and r2 of targets; of
            scores the share that lies from the column's name to that of the next.
        counts: how many samples or positions are labelled so; () for targets.
        confusion: of classes, where they are few: how many of each row are taken for each class.
    """

    of: str
    names: tuple[str, ...]
    columns: Mapping[str, tuple[float | None, ...]]
    counts: tuple[int, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class OutputMetric:
    """The score of one of several outputs.

    Attributes:
        output: its name.
        breakdown: its score by class or target, where there are several.
    """

    output: str
    metric: MetricValue
    breakdown: Breakdown | None = None


@dataclass(frozen=True)
class Difference:
    """How much worse `value` a model is than the reference, in percentage points for shares, with its p-value.

    `p_value` comes from a paired test on the same samples, `low` and `high` are the 95 % interval of the difference;
    None where none applies.
    """

    value: float
    p_value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def most(self) -> float:
        """What chance does not rule out: the upper end of the interval, the value itself where there is none."""
        return self.value if self.high is None else self.high

    def exceeds(self, limit: float, *, strict: bool = False) -> bool:
        """Whether more than `limit` is lost: as the whole interval shows, or with `strict` as measured."""
        return (self.value if strict or self.low is None else self.low) > limit


@dataclass(frozen=True)
class Latency:
    """Time of one inference, over `runs` runs after a warm-up, in milliseconds.

    Attributes:
        min: the fastest run.
        noise: spread of the medians of blocks of runs, taken some time apart, as a share of their median (10th to
            90th percentile): what the machine did, not the model.
    """

    p50: float
    p90: float
    p99: float
    runs: int
    threads: int
    min: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class OperatorTime:
    """A row of a per-operator profile.

    Attributes:
        operator: its kind; several, "2 x CONV_2D + ADD", where a delegate runs them as one.
        layer: name of the tensor it writes.
        share: of the time of all operators, 0 to 1.
        p50_us: median of its time, in microseconds.
        delegated: whether a delegate ran it.
    """

    operator: str
    layer: str
    share: float
    p50_us: float
    delegated: bool = False


@dataclass(frozen=True)
class Footprint:
    """What a model takes of a microcontroller, found by running it in a simulator; no time is known.

    Attributes:
        core: "cortex-m4".
        code_bytes: of flash, kernels and what calls them; without the C library's own functions.
        weights_bytes: of flash, weights and other constants.
        ram_bytes: static memory and the deepest stack.
        stack_bytes: the part of it that is stack.
        instructions: of one inference, to the simulator's clock tick; instructions are not cycles.
        compiler: with its version and optimization.
    """

    core: str
    code_bytes: int
    weights_bytes: int
    ram_bytes: int
    stack_bytes: int
    instructions: int
    compiler: str

    @property
    def flash_bytes(self) -> int:
        """Code and constants."""
        return self.code_bytes + self.weights_bytes


@dataclass(frozen=True)
class RuntimeResult:
    """One file on one runtime: a row of the report.

    Attributes:
        name, version: the runtime.
        status: "ok", "failed" (it refused the file, or died) or "skipped" (it is not available here).
        reason: why not "ok", or why its outputs may differ from the reference's where they do.
        delegated_share: share of operators that a delegate took, 0 to 1; None where the runtime has no delegates.
        latency_ms: None where nothing was timed.
        matches_reference: whether its outputs agree with the reference runtime's within the tolerance of its
            kernel family; None where not compared.
        max_difference: the largest relative difference of an output to the reference runtime's: rms of the
            difference over the spread of the output's values; None where not compared.
        load_ms: opening the file and allocating its tensors, in a process that has imported the runtime.
        peak_memory_bytes: by how much opening and the first run raised the process's resident memory at its peak.
        first_ms: the first inference.
        delegated, undelegated: which operators the delegate took and which stayed, as "2 x CONV_2D".
        footprint: what it takes of a microcontroller, where the runtime is a simulated one.
        artifact: file of the artifact of the variant that ran, "" outside of reports.
    """

    name: str
    version: str = ""
    status: str = "ok"
    reason: str = ""
    delegated_share: float | None = None
    latency_ms: Latency | None = None
    matches_reference: bool | None = None
    max_difference: float | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    first_ms: float | None = None
    delegated: tuple[str, ...] = ()
    undelegated: tuple[str, ...] = ()
    footprint: Footprint | None = None
    artifact: str = ""

    @property
    def loads(self) -> bool:
        """Whether the file opened and ran there."""
        return self.status == "ok"


@dataclass(frozen=True)
class OnTarget:
    """What a file costs on the device that a run is for.

    Attributes:
        problems: why it does not run there, in words; empty where it does.
        flash_bytes, ram_bytes: of the model alone, without the program around it.
        memory_how: how RAM was found: "measured", "simulated" or "estimated".
        latency_ms: of one inference; None where it cannot be told here.
        latency_how: "measured", "simulated", "estimated", or "" where there is none.
    """

    problems: tuple[str, ...] = ()
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    memory_how: str = ""
    latency_ms: float | None = None
    latency_how: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One converted model of a run, with all that was measured on its bytes.

    Attributes:
        artifacts: its files, first the primary one, which is what is measured; none where it could not be made.
        steps: the techniques that were applied before it was converted, in their order.
        metric, drop: on the validation samples; the loss is against the baseline.
        macs: multiply-accumulates of one inference.
        sparsity: share of its weights that are exactly zero, 0 to 1.
        on_target: None where the run is for no device in particular.
        fidelity: how faithful it is to the same model in float32; None for that itself, and where it was not measured.
        tuning_metric, tuning_drop: what it was chosen by; None where the data have no tuning part.
        breakdown: its score by class or target on the validation samples, where there are several.
        outputs: its score of each output there, where several have labels.
    """

    name: str
    scheme: str
    artifacts: tuple[Artifact, ...] = ()
    steps: tuple[str, ...] = ()
    metric: MetricValue | None = None
    drop: Difference | None = None
    runtimes: tuple[RuntimeResult, ...] = ()
    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)
    layer_errors: tuple[LayerError, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    macs: int | None = None
    sparsity: float | None = None
    on_target: OnTarget | None = None
    fidelity: Fidelity | None = None
    tuning_metric: MetricValue | None = None
    tuning_drop: Difference | None = None
    breakdown: Breakdown | None = None
    outputs: tuple[OutputMetric, ...] = ()

    @property
    def primary(self) -> Artifact | None:
        """The file that is measured, None where there is none."""
        return self.artifacts[0] if self.artifacts else None

    @property
    def file(self) -> str | None:
        """Path of the primary file, relative to the report."""
        return self.primary.file if self.primary else None

    @property
    def sha256(self) -> str | None:
        """Of the primary file."""
        return self.primary.sha256 if self.primary else None

    @property
    def size_bytes(self) -> int | None:
        """Of the primary file."""
        return self.primary.size_bytes if self.primary else None

    @property
    def gzip_bytes(self) -> int | None:
        """Of the primary file after gzip."""
        return self.primary.gzip_bytes if self.primary else None

    def latency_on(self, runtime: str) -> Latency | None:
        """Returns the latency measured on the runtime called `runtime`, if any."""
        return next((r.latency_ms for r in self.runtimes if r.name == runtime), None)


@dataclass(frozen=True)
class Loss:
    """What one change to a model costs, nothing trained.

    Attributes:
        sqnr_db: of the outputs, 10 log10(variance / mean squared difference): infinite where they are equal, 20 where
            the noise is a tenth of the signal, 0 where nothing is left.
        exact: how much worse the score is, on the samples that choices are made on; None where it was not measured.
    """

    sqnr_db: float
    exact: Difference | None = None


@dataclass(frozen=True)
class LayerLosses:
    """What a model loses by one of its layers.

    Attributes:
        layer: its name, as far as the file's tensor tells it.
        tensor: that it writes in the quantized file.
        kind: its operator; "INPUT".
        weights: how many numbers it multiplies with, 0 where none.
        losses: choice → loss, "int8" or "50% zeros"; what means nothing for it is not there.
    """

    layer: str
    tensor: str
    kind: str
    weights: int
    losses: Mapping[str, Loss]


@dataclass(frozen=True)
class Sensitivity:
    """What a model loses by each of its layers alone: which to spare.

    Attributes:
        samples: that the losses were measured on.
        metric: of the float model, on the samples that exact scores are of; None where there are none.
        choices: the keys of the losses, in order.
        layers: in the order in which they compute.
        together: choice → loss with all layers in it at once; of "float", with all in int8.
        notes: what was left out, and why.
    """

    samples: int
    metric: MetricValue | None
    choices: tuple[str, ...]
    layers: tuple[LayerLosses, ...]
    together: Mapping[str, Loss]
    notes: tuple[str, ...] = ()

    def worst(self, choice: str) -> LayerLosses | None:
        """Returns the layer that loses most by a choice, None where none has it.

        Of "float", the layer that the int8 model gains most by.
        """
        those = [layer for layer in self.layers if choice in layer.losses]
        turn = -1 if choice == "float" else 1
        return min(those, key=lambda layer: turn * layer.losses[choice].sqnr_db, default=None)


@dataclass(frozen=True)
class LayerError:
    """How far one intermediate tensor of a variant lies from the float model's: signal to noise in dB, cosine."""

    tensor: str
    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class InputComponent:
    """What a file's quantization leaves of one component of an input.

    Attributes:
        index: along the input's last axis.
        spread: standard deviation of real data.
        steps: the spread in steps of the quantization: below 1 the values of most samples become one.
        outside: share of values that lie outside of what the quantization holds.
    """

    index: int
    spread: float
    steps: float
    outside: float = 0.0


@dataclass(frozen=True)
class InputFidelity:
    """A quantized input beside real data.

    Attributes:
        step: of its quantization, in the input's unit.
        components: all of a few; of many those that keep the fewest steps.
    """

    name: str
    step: float
    components: tuple[InputComponent, ...]


@dataclass(frozen=True)
class OutputComponent:
    """What is left of one component of an output, or of several of one kind.

    Attributes:
        first, last: the first and the last index along the output's axis of components.
        spread: standard deviation of the float model's values over the samples.
        error: rms of the file's difference to the float model.
        step: of the output's quantization, in its unit; None where it is not quantized.
        rounding: rms error that this quantization alone makes of the float model's values.
        levels: how many different values the file gave; None where it could give more than 256.
        outside: share of the float model's values that lie outside of what the quantization holds.
    """

    first: int
    last: int
    spread: float
    error: float
    step: float | None = None
    rounding: float = 0.0
    levels: int | None = None
    outside: float = 0.0

    @property
    def relative_error(self) -> float:
        """The error as a share of the spread: 0 is nothing lost, 1 and more is nothing left."""
        if self.spread > 0:
            return self.error / self.spread
        return math.inf if self.error else 0.0


@dataclass(frozen=True)
class OutputFidelity:
    """How far one output of a file lies from the float model's.

    Attributes:
        name: in the float model.
        sqnr_db: signal to quantization noise over all values; infinite where equal.
        size: how many components it has.
        components: all of a few; of many those that lost most. Components of one kind stand together.
        agreement: share of samples that both put into the same class; None where it holds no classes.
        not_finite: values that are NaN or infinite in the file alone.
    """

    name: str
    sqnr_db: float
    size: int
    components: tuple[OutputComponent, ...]
    agreement: Interval | None = None
    not_finite: int = 0


@dataclass(frozen=True)
class Problem:
    """Something that a file has been shown to lose against the float model.

    Attributes:
        what: "component" (its error beside its spread), "step" (one step beside the 0 to 1 of a score), "classes"
            (agreement), "score" (points lost), "not-finite" (values) or "whole-numbers" (of an input, the share that
            becomes another one).
        output: where it shows; "" where it is told of an input.
        measured: the number that `what` names, the worst of `components`.
        components: of the output, where only some are lost.
        cause: "input" or "output" (the step of its quantization alone does it), "range" (values that the calibration
            did not hold), or "inside".
        input: which, where that is the cause.
        columns: its components that keep less than a step, or lie outside.
        ways_out: keys of what mends a fault of this kind, the best first.
    """

    what: str
    output: str
    measured: float
    components: tuple[OutputComponent, ...] = ()
    cause: str = "inside"
    input: str = ""
    columns: tuple[InputComponent, ...] = ()
    ways_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fidelity:
    """How faithful a converted file is to the float model, over real samples.

    Attributes:
        samples: how many.
        runtime: what both ran on.
        inputs: those that the file quantizes.
        outputs: each.
        reference_metric, metric: scores of the float model and of the file; None without labels.
        difference: how much worse the file is, with the p-value of a paired test; None without labels.
        problems: what is shown to be lost; empty for a faithful file.
        notes: what was left out, and why.
    """

    samples: int
    runtime: str
    inputs: tuple[InputFidelity, ...] = ()
    outputs: tuple[OutputFidelity, ...] = ()
    reference_metric: MetricValue | None = None
    metric: MetricValue | None = None
    difference: Difference | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


# The loss that is allowed where no budget says which; percentage points for shares, per cent of the value otherwise: a
# model that no longer works is small and fast, too.
DEFAULT_MAX_DROP = 1.0


@dataclass(frozen=True)
class Budgets:
    """What the recommended model must keep.

    Attributes:
        max_drop: loss against the float model: percentage points for shares, per cent of the value otherwise.
        max_size_bytes: of the file.
        max_latency_ms: of one inference on the target, where that is known; else the median on the runtime asked for.
        runtimes: the file must load and run on each of these ("tflite-runtime==2.14", "tflm" …).
        max_ram_bytes: of the target, for activations; the program around the model left out.
    """

    max_drop: float | None = None
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    runtimes: tuple[str, ...] = ()
    max_ram_bytes: int | None = None

    @property
    def bound(self) -> bool:
        """Whether a number is asked for."""
        return any(
            limit is not None for limit in (self.max_drop, self.max_size_bytes, self.max_latency_ms, self.max_ram_bytes)
        )


class Gain(str, enum.Enum):
    """What a budget may lack, and something may bring."""

    QUALITY = "quality"
    BYTES = "bytes"
    LATENCY = "speed"
    RAM = "RAM"
    RUNS = "that it runs there"


# What may be gained beyond budgets, by the name of an aim.
AIMS: dict[str, frozenset[Gain]] = {
    "size": frozenset({Gain.BYTES}),
    "latency": frozenset({Gain.LATENCY}),
    "balance": frozenset({Gain.BYTES, Gain.LATENCY}),
}


@dataclass(frozen=True)
class RungRecord:
    """What was expected of one rung of a ladder, and what became of it.

    Attributes:
        name: "repair".
        summary: what is done there, in words.
        told_s: what it was told to take before it began; None where it was not begun.
        took_s: what it took, None as above.
        made: names of the variants that came out of it.
        best: name of the variant that would be recommended after it, "" where it was not begun.
        skipped: why it was not begun, in words; "" where it was.
        came_to: what was found, in words, one sentence each.
    """

    name: str
    summary: str
    told_s: float | None = None
    took_s: float | None = None
    made: tuple[str, ...] = ()
    best: str = ""
    skipped: str = ""
    came_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Climb:
    """A ladder as it was climbed.

    Attributes:
        aim: what was gained beyond the budgets: "size", "latency", "balance", or "" for nothing.
        time_s: what the whole command might take; None where that was not said.
        rungs: from what costs seconds to what costs training.
        ended: "met" (the budgets are kept, and no more was asked for), "top" (every rung was looked at), "time" or
            "interrupted".
        why: the same in words.
        obstacles: what stands in the way of budgets that are not kept, in words.
    """

    aim: str = ""
    time_s: float | None = None
    rungs: tuple[RungRecord, ...] = ()
    ended: str = ""
    why: str = ""
    obstacles: tuple[str, ...] = ()


class Property(str, enum.Enum):
    """What a step gave a model's weights, and the next one has to keep or would destroy."""

    SPARSE = "sparse"
    CLUSTERED = "clustered"
    FAKE_QUANTIZED = "fake-quantized"


@dataclass(frozen=True)
class Promise:
    """One thing a step said it would bring, in numbers, and what was measured of it; `report.words` words it.

    Attributes:
        kind: what is counted, "zeros"; each technique has its own.
        subject: what has it, the path of a kernel; "" for the whole model.
        limit: the bound; None where only `note` tells of it.
        bound: "least" where the measured number may not be below the limit, "most" where not above.
        of: the whole that the limit is a part of, or what it was before the step; None where there is none.
        unit: of these numbers, "weights", "ms"; "" where `kind` says it.
        measured: None until somebody measured, or where it cannot be.
        kept: None until then.
        note: what numbers do not say, in words.
    """

    kind: str
    subject: str = ""
    limit: float | None = None
    bound: Literal["least", "most"] = "most"
    of: float | None = None
    unit: str = ""
    measured: float | None = None
    kept: bool | None = None
    note: str = ""

    def __post_init__(self) -> None:
        # Whole numbers, too: what is written reads back the same.
        for name in ("limit", "of", "measured"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))

    def found(self, measured: float, *, slack: float = 0.0, note: str = "") -> Promise:
        """Returns the promise with what was measured.

        Args:
            measured: the number.
            slack: share of the limit by which it may be missed: what a file counts and a model does not.
            note: see the attribute.
        """
        assert self.limit is not None
        least, most = self.limit * (1 - slack), self.limit * (1 + slack)
        kept = measured >= least if self.bound == "least" else measured <= most
        return replace(self, measured=measured, kept=kept, note=note)


@dataclass(frozen=True)
class LayerChange:
    """What a step did to one layer, or why it left it alone.

    Attributes:
        layer: its name in the model before the step.
        kind: its class.
        done: in words, "" where it was left alone.
        reason: why it was left alone, "" where it was not.
    """

    layer: str
    kind: str
    done: str = ""
    reason: str = ""


@dataclass(frozen=True)
class StepRecord:
    """What one step of a recipe did, and whether it kept what it promised.

    Attributes:
        technique: key of `techniques.TECHNIQUES`.
        settings: the step's own fields that were said.
        variant: which form of the technique ran, "sparsity-preserving", "" for the plain one.
        layers: every layer that the step looked at.
        promises: measured in the model, then in the converted file.
        history: a row for each epoch: loss, learning rate …
        seconds: what it took.
        model: the file that it wrote, relative to the report.
        before, after: names of the variants that show the model before and after it.
        rolled_back: why the model of before the step goes on instead, "" where it does not.
        drop: how much worse the second of these variants is than the first, on the validation samples.
    """

    technique: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    layers: tuple[LayerChange, ...] = ()
    promises: tuple[Promise, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    model: str = ""
    before: str = ""
    after: str = ""
    rolled_back: str = ""
    notes: tuple[str, ...] = ()
    drop: Difference | None = None
