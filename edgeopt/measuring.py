"""Variants go in and come out with what was measured of them: scores, runtimes, latencies, what a device says.

Every measurement is remembered in the workspace under the content that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt import comparison, formats, machine, parity, progress, targets
from edgeopt import data as datasets
from edgeopt.benchmarking import NOISY, benchmark
from edgeopt.carry_out import BASELINE, Outcome
from edgeopt.compilers import COMPILERS, maker_of, starts_from
from edgeopt.data import Part
from edgeopt.errors import EdgeoptError, ModelError, UnavailableError
from edgeopt.evaluation import Evaluation
from edgeopt.formats import FORMATS
from edgeopt.runtimes import Request, reference_for, to_try
from edgeopt.schemes import scheme
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import (
    Fidelity,
    LayerError,
    MetricValue,
    OnTarget,
    OutputMetric,
    RuntimeResult,
    StepRecord,
    Variant,
)
from edgeopt.workspace import Workspace


@dataclass(frozen=True)
class _Timings:
    results: tuple[tuple[str, RuntimeResult], ...]


@dataclass(frozen=True)
class _Rows:
    results: tuple[RuntimeResult, ...]


@dataclass(frozen=True)
class _LayerErrors:
    errors: tuple[LayerError, ...]


def measured(
    workspace: Workspace,
    outcome: Outcome,
    *,
    promises: Sequence[Request],
    target: targets.Target | None,
    wholly: Callable[[Sequence[Variant]], Collection[str]] | None = None,
    clocked: bool = True,
) -> tuple[Outcome, tuple[str, ...]]:
    """Adds all that is measured: scores of every variant, and what else is worth the time of some.

    Args:
        workspace: where they were made.
        outcome: the float baseline is among its variants.
        promises: runtimes that the files have to suit.
        target: the device that they are meant for.
        wholly: wholly(variants) gives the names of those that runtimes, clocks and layers are asked about, of variants
            with their scores; None for all.
        clocked: whether these are timed.

    Returns:
        The outcome, and what is to be said about the machine.
    """
    variants = scored(workspace, outcome.variants)
    records = with_losses(workspace, outcome.records, variants)
    if target is not None:
        variants = judged_on_target(workspace, variants, target)
    names = {variant.name for variant in variants} if wholly is None else set(wholly(variants))
    chosen = [variant for variant in variants if variant.name in names]
    chosen = held_against_float(workspace, chosen, outcome.references)
    chosen = tried_on_runtimes(workspace, chosen, promises, references=outcome.references)
    chosen, said = timed(workspace, chosen) if clocked and any(one.file for one in chosen) else (chosen, ())
    baseline = next((v for v in variants if v.name == BASELINE), None)
    chosen = compared_by_layer(workspace, chosen, baseline)
    found = {variant.name: variant for variant in chosen}
    return replace(outcome, variants=tuple(found.get(v.name, v) for v in variants), records=records), said


def translated(workspace: Workspace, outcome: Outcome, further: Sequence[str]) -> Outcome:
    """Adds every variant in further formats, keys of `formats.FORMATS`, as far as these have its scheme."""
    made = {(v.steps, v.scheme): v for v in outcome.variants if v.file}
    compilers = [compiler for form in further if (compiler := maker_of(form))]
    calibration = workspace.conditions.calibration
    pairs = [
        (variant, made[key], compiler)
        for compiler in compilers
        for variant in made.values()
        if variant.scheme in compiler.sources
        and (key := (variant.steps, starts_from(compiler, variant.scheme, calibration=calibration))) in made
    ]
    variants, references = list(outcome.variants), dict(outcome.references)
    for variant, source, compiler in progress.track(pairs, "translating", len(pairs)):
        variants.append(workspace.compiled(source, compiler, variant.scheme))
        references[variants[-1].name] = references.get(variant.name, variant)
    return replace(outcome, variants=tuple(variants), references=references)


def scored(workspace: Workspace, variants: Sequence[Variant]) -> list[Variant]:
    """Adds the metric of each variant on the validation part, and its paired difference to the baseline.

    The same on the tuning part, where there is one: that is for whoever chooses among them.

    Raises:
        UnavailableError: the main runtime or its delegate gives no score of any variant.
    """
    data = workspace.data
    found = _scored_on(workspace, variants, data.validation)
    if not len(data.tuning):
        return found
    tuned = _scored_on(workspace, variants, data.tuning)
    return [replace(v, tuning_metric=other.metric, tuning_drop=other.drop) for v, other in zip(found, tuned)]


def _scored_on(workspace: Workspace, variants: Sequence[Variant], part: Part) -> list[Variant]:
    made = [variant for variant in variants if variant.file]
    scores = {v.name: workspace.score(v, part) for v in progress.track(made, "scoring", len(made))}
    refusals = [score for score in scores.values() if isinstance(score, UnavailableError)]
    if refusals and len(refusals) == len(scores):
        raise refusals[0]
    baseline = scores.get(BASELINE)

    def add(variant: Variant) -> Variant:
        score = scores.get(variant.name)
        if score is None:
            return variant
        if not isinstance(score, Evaluation):
            return replace(variant, notes=(*variant.notes, f"not scored: {score}"))
        compared = isinstance(baseline, Evaluation) and score is not baseline
        drop = score.difference(baseline) if compared and isinstance(baseline, Evaluation) else None
        notes = (*variant.notes, *score.notes)
        outputs = tuple(OutputMetric(one.output, one.metric, one.breakdown) for one in score.outputs)
        return replace(variant, metric=score.metric, drop=drop, notes=notes, breakdown=score.breakdown, outputs=outputs)

    return [add(variant) for variant in variants]


def with_losses(
    workspace: Workspace, records: Sequence[StepRecord], variants: Sequence[Variant]
) -> tuple[StepRecord, ...]:
    """Adds to each record what its step lost, on the validation samples: `variants` were scored on them."""
    part = workspace.data.validation
    files = {variant.name: variant for variant in variants if variant.metric is not None}

    def add(record: StepRecord) -> StepRecord:
        if not {record.before, record.after} <= files.keys():
            return record
        theirs, ours = (workspace.score(files[name], part) for name in (record.before, record.after))
        if not isinstance(theirs, Evaluation) or not isinstance(ours, Evaluation):
            return record
        return replace(record, drop=ours.difference(theirs))

    return tuple(add(record) for record in records)


def settled(workspace: Workspace, variants: Sequence[Variant], warnings: Sequence[str]) -> tuple[str, ...]:
    """Returns the warnings without those that the score of the model as it came refutes, and with those it gives."""
    metric = next((variant.metric for variant in variants if variant.metric and not variant.steps), None)
    return settled_by(metric, workspace, workspace.data.validation, warnings)


def settled_by(
    metric: MetricValue | None, workspace: Workspace, part: Part, warnings: Sequence[str]
) -> tuple[str, ...]:
    """As `settled`, from a score of the model as it came on samples of `part`; None where there is none."""
    if metric is None:
        return tuple(warnings)
    model = workspace.summary
    wrong = datasets.refuted(workspace.data, model.inputs, metric, rescaling=model.rescaling)
    return (*(warning for warning in warnings if warning not in wrong), *datasets.guessing(part, metric))


def held_against_float(
    workspace: Workspace, variants: Sequence[Variant], references: Mapping[str, Variant]
) -> list[Variant]:
    """Adds how faithful each variant is to the same model in float32, which is its reference by name."""

    def add(variant: Variant) -> Variant:
        reference = references.get(variant.name)
        if reference is None or variant.file is None or reference.file is None:
            return variant
        found = workspace.fidelity(variant, reference)
        if isinstance(found, Fidelity):
            return replace(variant, fidelity=found)
        return replace(variant, notes=(*variant.notes, f"not held against float32: {found}"))

    return [add(v) for v in progress.track(variants, "comparing with float32", len(variants))]


def tried_on_runtimes(
    workspace: Workspace,
    variants: Sequence[Variant],
    promises: Sequence[Request],
    *,
    references: Mapping[str, Variant] | None = None,
    everywhere: bool = True,
) -> list[Variant]:
    """Adds a row for every runtime: whether it loads the file, and computes what the others compute.

    Args:
        workspace: its samples are run, or generated ones where there are none.
        variants: those that were not made have no rows.
        promises: runtimes that the files have to suit.
        references: of each variant, by name, the same model in float32, where it is known.
        everywhere: try all that are tried without being asked for; else the promised ones, or the main one alone.
    """
    part = workspace.data.calibration if workspace.has_data else None

    def add(variant: Variant) -> Variant:
        if variant.primary is None:
            return variant
        file, form = workspace.folder / variant.primary.file, variant.primary.format
        main = workspace.runtime_for(form)
        asked = (main, *promises) if everywhere or not promises else promises
        requests = to_try(asked, form=form) if everywhere else list(asked)
        sources = [artifact for artifact in variant.artifacts[1:] if reference_for(artifact.format)]
        if scheme(variant.scheme).is_low_bit:
            sources = []  # what it is made of is rounded on the way: how much is lost is for `held_against_float`
        source = workspace.folder / sources[0].file if sources and not reference_for(form) else None
        reference = (references or {}).get(variant.name)
        floats = workspace.folder / reference.file if reference is not None and reference.file else None

        def check() -> _Rows:
            delegate = workspace.conditions.delegate
            return _Rows(parity.check(file, requests, part, delegate=delegate, source=source, floats=floats))

        key = {
            "file": variant.sha256,
            "source": sources[0].sha256 if source else "",
            "floats": reference.sha256 if reference is not None else "",
            "requests": requests,
            "delegate": workspace.delegate_content,
            "samples": "" if part is None else part.digest(),
        }
        rows = workspace.remember("runtimes", key, _Rows, check, uses=[request.runtime.name for request in requests])
        return replace(variant, runtimes=tuple(replace(row, artifact=str(variant.file)) for row in rows.results))

    return [add(v) for v in progress.track(variants, "trying runtimes", len(variants))]


def timed(workspace: Workspace, variants: Sequence[Variant]) -> tuple[list[Variant], tuple[str, ...]]:
    """Adds latencies on the main runtime, all variants taking turns so that they meet the same machine.

    Returns:
        The variants, and what is to be said about the machine.
    """
    made = [variant for variant in variants if variant.file]
    conditions = workspace.conditions
    requests = dict.fromkeys(workspace.runtime_for(v.primary.format) for v in made if v.primary)
    names = [request.runtime.name for request in requests]

    def measure() -> _Timings:
        table = benchmark(
            [workspace.folder / str(variant.file) for variant in made],
            runtimes=names,
            threads=conditions.threads,
            delegate=conditions.delegate,
            inputs=workspace.data.calibration,
        )
        return _Timings(tuple((v.name, row.result) for v, row in zip(made, table.rows)))

    key = {
        "files": [(variant.name, variant.sha256) for variant in made],
        "runtimes": list(requests),
        "threads": conditions.threads,
        "delegate": workspace.delegate_content,
        "cpu": machine.describe().cpu,
    }
    progress.tell("timing", 0, 1)
    measured = dict(workspace.remember("time", key, _Timings, measure, uses=names).results)
    progress.tell("timing", 1, 1)
    noisy = [name for name, row in measured.items() if row.latency_ms and (row.latency_ms.noise or 0) > NOISY]
    said = (f"the machine was noisy while {', '.join(noisy)} ran: trust ratios more than times",) if noisy else ()
    return [_with_timing(variant, measured.get(variant.name)) for variant in variants], said


def judged_on_target(workspace: Workspace, variants: Sequence[Variant], device: targets.Target) -> list[Variant]:
    """Adds what each variant costs on the device that it is meant for."""
    tools = [COMPILERS[device.compiler].needs] if device.compiler else []

    def add(variant: Variant) -> Variant:
        if variant.primary is None or (device.processor and FORMATS[variant.primary.format].is_code):
            return variant  # compiled for it: only the device can tell
        file = workspace.folder / variant.primary.file
        key = {
            "file": variant.sha256,
            "target": device,
            "cpu": machine.describe().cpu if device.latency.kind == "measured" else "",
        }
        found = workspace.remember(
            "target", key, OnTarget, lambda: _on_target(device, file), uses=(*tools, "tflite_micro")
        )
        return replace(variant, on_target=found)

    return [add(v) for v in progress.track(variants, f"judging for {device.name}", len(variants))]


def compared_by_layer(workspace: Workspace, variants: Sequence[Variant], baseline: Variant | None) -> list[Variant]:
    """Adds how far each intermediate tensor lies from the baseline's."""
    part = workspace.data.calibration

    def add(variant: Variant) -> Variant:
        if baseline is None or not baseline.file or variant.primary is None or variant.name == baseline.name:
            return variant
        if baseline.primary and variant.primary.format != baseline.primary.format:
            return variant  # translated from one that is compared
        ours, theirs = workspace.folder / variant.primary.file, workspace.folder / str(baseline.file)
        key = {"files": [baseline.sha256, variant.sha256], "samples": part.digest()}

        def compare() -> _LayerErrors:
            return _LayerErrors(comparison.layer_errors(theirs, ours, part))

        try:
            errors = workspace.remember("layers", key, _LayerErrors, compare, uses=("litert",))
        except EdgeoptError as error:
            return replace(variant, notes=(*variant.notes, f"layers not compared: {error}"))
        return replace(variant, layer_errors=errors.errors)

    return [add(v) for v in progress.track(variants, "comparing layers", len(variants))]


def _on_target(target: targets.Target, file: Path) -> OnTarget:
    try:
        if formats.format_of(file).name != "tflite":
            raise ModelError(f"{target.name} runs .tflite files alone")
        found = targets.assess(target, read_once(file))
    except EdgeoptError as error:
        return OnTarget((str(error),))
    return OnTarget(
        found.problems,
        found.fit.flash_bytes,
        found.fit.ram_bytes,
        found.memory_how,
        found.estimate.latency_ms,
        found.estimate.how,
        found.estimate.notes,
    )


def _with_timing(variant: Variant, timing: RuntimeResult | None) -> Variant:
    """Returns the variant with latency, load time and memory in the row of the runtime that was timed."""
    if timing is None:
        return variant

    def merged(row: RuntimeResult) -> RuntimeResult:
        if row.name != timing.name or timing.status == "skipped":
            return row
        return replace(
            timing,
            matches_reference=row.matches_reference,
            max_difference=row.max_difference,
            artifact=row.artifact,
        )

    return replace(variant, runtimes=tuple(merged(row) for row in variant.runtimes))
