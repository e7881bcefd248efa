"""A float file, a quantized one and samples go in; the quantized one with better integers comes out, layer by layer.

Layers are taken in the order in which they compute, each on the inputs that really arrive: those of the file with all
layers before it rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeopt import files, progress
from edgeopt.data import Part
from edgeopt.errors import DataError
from edgeopt.repairing import closeness
from edgeopt.rounding import softmaxed, tables
from edgeopt.rounding.adaround import Activation
from edgeopt.rounding.blocks import Weights, blocks, computable, reconstruct
from edgeopt.rounding.evidence import gather, joined
from edgeopt.rounding.fitting import Rounded, Use, error, fit
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.layout import LINEAR, Layout, layout
from edgeopt.tflite.model import Operator
from edgeopt.tflite.pairing import Pair, Pairing, pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import STORED_BITS, StoredWeights, layers, stored_bias, stored_weights, with_weights

TASK = "rounding weights"
# One in so many samples is not fitted on, so that what is said of the result was not made by fitting.
_HELD = 5
LEAST_SAMPLES = 8
# Half of what 32 bits hold: a bias may grow a little when it is fitted.
_LARGEST_BIAS = 2.0**30
# The only operator with kernels for weights of two bits.
_TWO_BITS = "FULLY_CONNECTED"
# Inputs whose covariance is kept: 128 MB in 64 bits.
MOST_COLUMNS = 4096
# Layers by gptq, then their integers block by block.
BLOCKWISE = "brecq"
# Bits below which there is something to choose together.
_FEW_BITS = 8


@dataclass(frozen=True)
class Settings:
    """How to round.

    Attributes:
        method: one of `fitting.METHODS`, or BLOCKWISE.
        iterations: of adaround and BLOCKWISE.
        sparse, clustered: zeros stay zeros, equal weights stay equal.
        by_activations: see `gptq.round_rows`.
        task: key of TASKS that was said; None where the samples have to tell.
        seed: of every random choice.
    """

    method: str = "gptq"
    iterations: int = 1000
    by_activations: bool = True
    task: str | None = None
    sparse: bool = False
    clustered: bool = False
    seed: int = 0

    @property
    def by_layer(self) -> str:
        """How each layer is rounded alone."""
        return "gptq" if self.method == BLOCKWISE else self.method


@dataclass(frozen=True)
class LayerResult:
    """What became of a layer.

    Attributes:
        name: of the tensor that it writes.
        kind: of its operator.
        weight: name of its weight tensor.
        bits: of its integers.
        before, after: squared error of its outputs as a share of their variance, on samples that were not fitted on.
        softmaxed: whether errors count by what the softmax behind it makes of them.
        reason: why it was left alone, "" where it was not.
        trace: errors while it was learned.
    """

    name: str
    kind: str
    weight: str = ""
    bits: int = 0
    before: float | None = None
    after: float | None = None
    softmaxed: bool = False
    reason: str = ""
    trace: tuple[float, ...] = ()


@dataclass(frozen=True)
class BlockResult:
    """What became of layers that were chosen together.

    Attributes:
        names: of the tensors that they write.
        before, after: squared error of the block's output as a share of its variance, on samples held out.
    """

    names: tuple[str, ...]
    before: float
    after: float


@dataclass(frozen=True)
class Result:
    """What became of a file.

    Attributes:
        content: the file.
        layers: each that computes with weights.
        before, after: squared error of the file's outputs as a share of their variance, on the samples held out.
        samples, held: how many it was fitted on, and how many not.
        kept_as_it_was: nothing brought the outputs nearer.
        blocks: those whose integers were chosen together.
    """

    content: bytes
    layers: tuple[LayerResult, ...]
    before: float
    after: float
    samples: int
    held: int
    kept_as_it_was: bool = False
    blocks: tuple[BlockResult, ...] = ()


@dataclass(frozen=True)
class _Job:
    """One weight tensor and the layers that compute with it."""

    uses: tuple[tuple[Pair, Layout], ...]
    stored: StoredWeights
    weights: np.ndarray
    grid: Grid
    softmaxed: bool = False

    @property
    def tensor(self) -> int:
        return self.uses[0][0].quantized.weight.index

    @property
    def name(self) -> str:
        return self.uses[0][0].name

    def steps(self, stored: StoredWeights) -> np.ndarray:
        """Returns the scales of its weights, stored so, as steps: [groups, rows, 1 or columns]."""
        lies, scales = self.uses[0][1], stored.scales.astype(np.float64)
        if stored.block:
            return np.repeat(scales, stored.block, axis=1)[None]
        return np.broadcast_to(scales, lies.groups * lies.rows).reshape(lies.groups, lies.rows, 1)


def round_file(
    floating: bytes,
    quantized: bytes,
    samples: Part,
    settings: Settings = Settings(),
    *,
    chosen: Sequence[str] | None = None,
) -> Result:
    """Returns a file whose weights were rounded by what their layers compute.

    Args:
        floating: the model without quantization.
        quantized: the same with integer weights.
        samples: as the float file takes them; one in five is held out.
        settings: how.
        chosen: names of layers to round, all where None.

    Raises:
        DataError: there are too few samples.
        ModelError: a file cannot be read, or does not run.
    """
    fit_part, held_part = split(samples, seed=settings.seed)
    pairing = pair_weights(floating, quantized)
    jobs, results = _jobs(pairing, chosen)
    speaks = softmaxed.speaks(pairing.floating, samples, said=settings.task)
    jobs = [replace(job, softmaxed=speaks and _is_softmaxed(pairing, job, settings)) for job in jobs]
    logits = speaks and not softmaxed.probabilities(pairing.floating)
    content = quantized
    for table in tables.tables(pairing.floating, pairing.quantized):
        content, results[table.name] = _looked_up(content, table, chosen)
    ends = _block_ends(pairing, jobs) if settings.method == BLOCKWISE and not settings.clustered else {}
    together = []
    for done, job in enumerate(jobs):
        progress.tell(TASK, done, len(jobs), f"{_short(job.name)}, on {len(fit_part)} samples")
        rounded, result = _rounded(pairing, floating, content, job, fit_part, held_part, settings, (done, len(jobs)))
        results[job.name] = result
        for pair, _ in job.uses[1:]:
            results[pair.name] = replace(result, name=pair.name, kind=pair.quantized.operator.name)
        if rounded is not None:
            content = _written(content, job, rounded)
        # What comes after it makes up for what is left.
        if job.tensor in ends:
            progress.tell(TASK, done, len(jobs), f"up to {_short(job.name)} together")
            content, block = _in_block(floating, content, ends[job.tensor], fit_part, held_part, settings)
            together += [block] if block is not None else []
    progress.tell(TASK, len(jobs), len(jobs))
    before = output_error(floating, quantized, held_part, logits=logits)
    after = before if content == quantized else output_error(floating, content, held_part, logits=logits)
    worse = after >= before
    return Result(
        content=quantized if worse else content,
        layers=tuple(results.values()),
        before=before,
        after=before if worse else after,
        samples=len(fit_part),
        held=len(held_part),
        kept_as_it_was=worse,
        blocks=() if worse else tuple(together),
    )


def stored_in(floating: bytes, quantized: bytes, bits: Mapping[str, int], *, block: int = 0) -> bytes:
    """Returns the file with the weights of some layers in other bits, rounded to the nearest integers.

    Args:
        floating, quantized: see `round_file`.
        bits: name of a layer → 2 to 8; it is stored in the next of 2, 4 and 8 that its operator has kernels for.
        block: numbers in a row that share a scale below eight bits, which have one for each channel; 0: all do.
    """
    pairing = pair_weights(floating, quantized)
    jobs, _ = _jobs(pairing, tuple(bits))
    return _nearest(quantized, pairing, [_in_bits(job, bits[job.name], block) for job in jobs])


def _in_bits(job: _Job, bits: int, block: int) -> _Job:
    kinds = {pair.quantized.operator.name for pair, _ in job.uses}
    held = next(held for held in STORED_BITS if held >= bits and (held > 2 or kinds == {_TWO_BITS}))
    grid, block = Grid.of(bits), block if held < STORED_BITS[-1] else 0
    scales = _scales(grid.widest(job.weights, block), job.stored.axis, block)
    stored = StoredWeights(np.zeros_like(job.stored.values), scales, held, job.stored.axis, block)
    return replace(job, stored=stored, grid=grid)


def _scales(steps: np.ndarray, axis: int | None, block: int) -> np.ndarray:
    """Returns steps [groups, rows, 1 or columns] as the scales of stored weights, float32."""
    if block:
        return steps[0, :, ::block].astype(np.float32)
    flat = steps.reshape(-1).astype(np.float32)
    return flat if axis is not None else flat[:1]


def split(samples: Part, *, seed: int) -> tuple[Part, Part]:
    """Returns the samples to fit on, and those to hold the result against.

    Raises:
        DataError: there are too few.
    """
    if len(samples) < LEAST_SAMPLES:
        raise DataError(
            f"Expected at least {LEAST_SAMPLES} calibration samples to choose the rounding of weights by, got "
            f"{len(samples)}. Try more calibration data; some 500 are a good number."
        )
    mixed = np.random.default_rng(seed).permutation(len(samples))
    held = np.zeros(len(samples), bool)
    held[mixed[: max(2, len(samples) // _HELD)]] = True
    return samples.subset(np.flatnonzero(~held)), samples.subset(np.flatnonzero(held))


def output_error(floating: bytes, quantized: bytes, samples: Part, *, logits: bool = False) -> float:
    """Returns the squared error of a file's outputs as a share of their variance, the mean over all outputs.

    Args:
        floating, quantized: see `round_file`.
        samples: that they are compared on.
        logits: a softmax follows the outputs, so that errors count by what it makes of them.
    """
    with files.temporary(floating, "float.tflite") as ours, files.temporary(quantized, "quantized.tflite") as theirs:
        known = closeness.reference(ours, samples, heed=softmaxed.counts if logits else None)
        return float(closeness.errors(known, theirs, samples).mean()) / len(known.values)


def _jobs(pairing: Pairing, chosen: Sequence[str] | None) -> tuple[list[_Job], dict[str, LayerResult]]:
    """Returns the weights to round in their order, and what is to be said of each layer so far."""
    kinds = {pair.name: pair.quantized.operator.name for pair in pairing.pairs}
    results = {name: LayerResult(name, kinds.get(name, ""), reason=why) for name, why in pairing.alone.items()}
    together: dict[int, list[Pair]] = {}
    for pair in pairing.pairs:
        together.setdefault(pair.quantized.weight.index, []).append(pair)
    jobs = []
    for pairs in together.values():
        stored = pairing.stored(pairs[0])
        layouts = [_layout(pairing, pair) for pair in pairs]
        reason = _why_not(pairs, layouts, chosen)
        for pair in pairs:
            quantized = pair.quantized
            results[pair.name] = LayerResult(
                pair.name, quantized.operator.name, quantized.weight.name, _used_bits(stored), reason=reason
            )
        if not reason:
            uses = tuple((pair, lies) for pair, lies in zip(pairs, layouts) if lies is not None)
            weights = uses[0][1].matrix(pairing.float_weights(pairs[0])).astype(np.float64)
            jobs.append(_Job(uses, stored, weights, Grid.of(_used_bits(stored))))
    return jobs, results


def _used_bits(stored: StoredWeights) -> int:
    """Returns of how many bits the integers are, which may be stored in more: 3 in 4."""
    lowest, highest = int(stored.values.min(initial=0)), int(stored.values.max(initial=0))
    needed = max(highest.bit_length(), (-lowest - 1).bit_length() if lowest else 0) + 1
    return min(stored.bits, max(2, needed))


def _layout(pairing: Pairing, pair: Pair) -> Layout | None:
    return layout(pairing.quantized.main, pair.quantized.operator, pair.quantized.weight)


def _why_not(
    pairs: Sequence[Pair],
    layouts: Sequence[Layout | None],
    chosen: Sequence[str] | None,
) -> str:
    if chosen is not None and not any(pair.name in chosen for pair in pairs):
        return "it was not asked for"
    if strange := [pair.quantized.operator.name for pair, lies in zip(pairs, layouts) if lies is None]:
        return f"rounding knows {', '.join(LINEAR)}, not {strange[0]}"
    for lies in layouts:
        if lies is not None and lies.groups * lies.columns**2 > MOST_COLUMNS**2:
            of = f" in {lies.groups:,} groups" if lies.groups > 1 else ""
            return f"the covariance of its {lies.columns:,} inputs{of} would take too much memory"
    return ""


def _is_softmaxed(pairing: Pairing, job: _Job, settings: Settings) -> bool:
    """Whether a layer writes what a softmax gets, and each of its units may have a covariance of its own."""
    lies = job.uses[0][1]
    alone = len(job.uses) == 1 and lies.groups == 1 and lies.rows > 1 and job.stored.axis is not None
    if not alone or settings.clustered or settings.by_layer == "adaround":
        return False
    if not softmaxed.affordable(lies.rows, lies.columns):
        return False
    return softmaxed.behind(pairing.floating, job.uses[0][0].floating.operator)


def _looked_up(content: bytes, table: tables.Table, chosen: Sequence[str] | None) -> tuple[bytes, LayerResult]:
    """Returns the file with better scales in a table, and what is to be said of it."""
    result = LayerResult(table.name, tables.KIND, table.tensor[1], table.stored.bits, reason="it was not asked for")
    if chosen is not None and table.name not in chosen:
        return content, result
    best = table.best
    before, after = table.error(table.stored), table.error(best)
    if after >= before:
        return content, replace(result, before=before, after=before, reason="its error did not fall")
    return tables.written(content, table, best), replace(result, before=before, after=after, reason="")


def _nearest(content: bytes, pairing: Pairing, jobs: Sequence[_Job]) -> bytes:
    """Returns the file with the nearest integers of so many bits in all weights that are to be rounded."""
    for job in jobs:
        steps = job.grid.widest(job.weights, job.stored.block)
        if job.stored.axis is None:
            steps = np.broadcast_to(steps.max(), steps.shape)
        biases = tuple(_bias(pairing, pair, lies) for pair, lies in job.uses)
        rounded = Rounded(job.grid.nearest(job.weights, steps), steps, biases)
        content = _written(content, job, _with_room_for_biases(job, rounded))
    return content


def _rounded(
    pairing: Pairing,
    floating: bytes,
    content: bytes,
    job: _Job,
    fit_part: Part,
    held_part: Part,
    settings: Settings,
    place: tuple[int, int],
) -> tuple[Rounded | None, LayerResult]:
    """Returns better weights of one layer, None where there are none, and what is to be said of it."""
    uses = [Use(_bias(pairing, pair, lies), _activation(pair)) for pair, lies in job.uses]
    evidence = gather(
        floating,
        content,
        job.uses,
        fit_part,
        held_part,
        with_rows=job.softmaxed or settings.by_layer == "adaround",
        seed=settings.seed,
    )
    held, heed = [one.held for one in evidence], softmaxed.counts if job.softmaxed else None
    now = _now(content, job)
    before = error(now.values, now.biases, uses, held, heed)
    zeros = job.weights == 0 if settings.sparse else None
    found = (
        softmaxed.fit(
            job.weights,
            joined(evidence[0].fitted),
            job.grid,
            method=settings.by_layer,
            zeros=zeros,
            block=job.stored.block,
            by_activations=settings.by_activations,
        )
        if job.softmaxed
        else fit(
            job.weights,
            uses,
            evidence,
            job.grid,
            method=settings.by_layer,
            together=job.stored.axis is None,
            zeros=zeros,
            block=job.stored.block,
            by_activations=settings.by_activations,
            alike=settings.clustered,
            iterations=settings.iterations,
            seed=settings.seed,
            told=lambda done: progress.tell(TASK, *place, f"{_short(job.name)}, step {done} of {settings.iterations}"),
        )
    )
    found = _with_room_for_biases(job, found)
    after = error(found.values, found.biases, uses, held, heed)
    bits = int(job.grid.highest + 1).bit_length()
    first = job.uses[0][0].quantized
    result = LayerResult(
        job.name, first.operator.name, first.weight.name, bits, before, after, job.softmaxed, trace=found.trace
    )
    if after < before:
        return found, result
    return None, replace(result, after=before, reason="its error did not fall")


@dataclass(frozen=True)
class _BlockJob:
    """Operators, and the weights of theirs by operator; those of `fixed` tensors stay as they are."""

    operators: tuple[Operator, ...]
    jobs: Mapping[int, _Job]
    fixed: frozenset[int]


def _block_ends(pairing: Pairing, jobs: Sequence[_Job]) -> dict[int, _BlockJob]:
    """Returns the blocks whose integers may be chosen together, by the weights after which that is done."""
    free = {job.tensor for job in jobs if job.grid.highest < Grid.of(_FEW_BITS).highest}
    alone = [job for job in _jobs(pairing, None)[0] if len(job.uses) == 1 and not job.stored.block]
    every = [job for job in alone if computable(job.uses[0][1])]
    of = {job.uses[0][0].quantized.operator.index: job for job in every}
    found = {}
    for block in blocks(pairing.quantized.main, {index for index, job in of.items() if job.tensor in free}):
        own = [operator.index for operator in block if operator.name in LINEAR]
        if all(index in of for index in own):
            known = {index: of[index] for index in own}
            last = [job.tensor for job in jobs if job.tensor in {one.tensor for one in known.values()}][-1]
            found[last] = _BlockJob(block, known, frozenset(job.tensor for job in known.values()) - free)
    return found


def _in_block(
    floating: bytes, content: bytes, block: _BlockJob, fit_part: Part, held_part: Part, settings: Settings
) -> tuple[bytes, BlockResult | None]:
    """Returns the file with the integers of a block chosen together, and what became of it; None where it is as was."""
    found = reconstruct(
        floating,
        content,
        block.operators,
        {i: _to_choose(content, job, settings, fixed=job.tensor in block.fixed) for i, job in block.jobs.items()},
        fit_part,
        held_part,
        iterations=settings.iterations,
        seed=settings.seed,
    )
    if found is None or found[2] >= found[1]:
        return content, None
    for index, rounded in found[0].items():
        content = _written(content, block.jobs[index], _with_room_for_biases(block.jobs[index], rounded))
    return content, BlockResult(tuple(job.name for job in block.jobs.values()), found[1], found[2])


def _to_choose(content: bytes, job: _Job, settings: Settings, *, fixed: bool) -> Weights:
    return Weights(
        real=job.weights,
        now=_now(content, job),
        lies=job.uses[0][1],
        grid=job.grid,
        zeros=job.weights == 0 if settings.sparse else None,
        own_scales=job.stored.axis is not None,
        fixed=fixed,
    )


def _with_room_for_biases(job: _Job, rounded: Rounded) -> Rounded:
    """Returns weights whose steps are large enough for biases in 32 bits: those of channels of next to nothing grow."""
    least = np.zeros(rounded.steps.shape)
    for (pair, _), bias in zip(job.uses, rounded.biases):
        inputs = pair.quantized.activations
        if inputs.dtype == "int8" and inputs.quantization is not None:
            needed = np.abs(bias)[..., None] / (inputs.quantization.scales[0] * _LARGEST_BIAS)
            least = np.maximum(least, needed if job.stored.axis is not None else needed.max())
    if (rounded.steps >= least).all():
        return rounded
    steps = np.maximum(rounded.steps, least)
    return replace(rounded, integers=job.grid.nearest(rounded.values, steps), steps=steps)


def _now(content: bytes, job: _Job) -> Rounded:
    """Returns the weights and biases that the file has."""
    model = read(content)
    found = {layer.operator.index: layer for layer in layers(model)}
    own = [found[pair.quantized.operator.index] for pair, _ in job.uses]
    stored = stored_weights(model, own[0])
    assert stored is not None
    lies = job.uses[0][1]
    biases = tuple(_channels(stored_bias(model, layer), lies) for layer in own)
    return Rounded(lies.matrix(stored.values).astype(np.float64), job.steps(stored), biases)


def _written(content: bytes, job: _Job, rounded: Rounded) -> bytes:
    """Returns the file with other weights and biases in the layers of one weight tensor."""
    lies, stored = job.uses[0][1], job.stored
    values = lies.stored(rounded.integers).astype(np.int8)
    scales = _scales(rounded.steps, stored.axis, stored.block)
    biases = {pair.quantized.operator.index: bias.reshape(-1) for (pair, _), bias in zip(job.uses, rounded.biases)}
    return with_weights(
        content, {job.tensor: StoredWeights(values, scales, stored.bits, stored.axis, stored.block)}, biases
    )


def _bias(pairing: Pairing, pair: Pair, lies: Layout) -> np.ndarray:
    """Returns the bias of the float layer, [groups, rows]."""
    return _channels(pairing.float_bias(pair), lies)


def _channels(bias: np.ndarray | None, lies: Layout) -> np.ndarray:
    values = np.zeros(lies.groups * lies.rows) if bias is None else bias
    return np.asarray(values, np.float64).reshape(lies.groups, lies.rows)


def _activation(pair: Pair) -> Activation:
    return Activation.named(str(pair.floating.operator.options.get("fused_activation_function", "NONE")))


def _short(name: str) -> str:
    """Returns the last part of a name that a converter joined of all that it fused."""
    return name.rpartition(";")[2]
