"""A model, samples and a scheme go in; the quantized file, repaired without training, comes out with what it won."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import files, progress
from edgeopt.api.models import as_path
from edgeopt.carry_out import BASELINE, carry_out
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.measuring import held_against_float, scored, settled, tried_on_runtimes
from edgeopt.outlook import stages
from edgeopt.plan import plan
from edgeopt.recipe import Recipe, steps_from
from edgeopt.schemes import SCHEMES
from edgeopt.schemes import scheme as scheme_named
from edgeopt.showing.values import Shown
from edgeopt.steps import Step
from edgeopt.techniques import TECHNIQUES, technique
from edgeopt.vocabulary import Scheme, StepRecord, Variant
from edgeopt.workspace import Conditions, Workspace

AUTO = "auto"


@dataclass(frozen=True)
class Repaired(Shown):
    """What repair made of a quantized file.

    Attributes:
        output: the file written.
        variants: the float model, its file as it was converted, and one for each step that was tried, as measured.
        errors: of each variant but the first, by name: how far its outputs lie from the float model's, as a share of
            their spread.
        best: the name of the variant that was written.
        steps: what each step did, and why it was dropped where it was.
        left_out: technique → why it cannot help, of those that `auto` did not try.
        notes: what is worth saying.
    """

    output: Path
    variants: tuple[Variant, ...]
    errors: Mapping[str, float]
    best: str
    steps: tuple[StepRecord, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def repair(
    model: Any,
    data: Any,
    output: Path | str,
    *,
    scheme: str = "int8",
    steps: Sequence[Any] | str = AUTO,
    keep_8bit: Sequence[str] = ("auto",),
    metric: str | None = None,
    tasks: Mapping[str, str] | None = None,
    output_name: str | None = None,
    seed: int = 0,
    custom_objects: Path | None = None,
    trust: bool = False,
    force: bool = False,
) -> Repaired:
    """Converts `model` and mends what that breaks, without training and without labels.

    A step is kept where the outputs are shown to come nearer to the float model's, and dropped where they are not.

    Args:
        model: a path, or a Keras model at hand; a float `.tflite` takes those steps that work on files.
        data: a Dataset, or what `edgeopt.load_data` takes; calibrates and measures, labels or not.
        output: a `.tflite`.
        scheme: a key of SCHEMES that quantizes.
        steps: what `recipe.steps_from` takes, of techniques that repair; "auto" takes those that may help.
        keep_8bit: see `convert`.
        metric, tasks, output_name, seed, custom_objects, trust, force: see `compress`.

    Raises:
        ConfigError: the scheme rounds nothing, or a step repairs nothing.
        EdgeoptError: the model, the data or a step cannot be used.
    """
    output, row = Path(output), scheme_named(scheme)
    if output.suffix != ".tflite":
        raise ConfigError(
            f"Expected an output file ending in .tflite, got {output}. Try -o {output.stem or 'model'}.tflite."
        )
    if not row.algorithm:
        quantized = ", ".join(name for name, one in SCHEMES.items() if one.algorithm)
        raise ConfigError(f"Expected a scheme with something to mend, {quantized}, got {scheme}. Try --scheme int8.")
    chosen = None if steps == AUTO else _repairs(steps)
    files.require_free(output, force=force)
    dataset, work = datasets.load(data, seed=seed), output.with_name(f".{output.name}.edgeopt")
    conditions = Conditions(
        metric=metric, output_name=output_name, tasks=tasks or {}, custom_objects=custom_objects, trust=trust
    )
    with as_path(model) as path, Workspace(path, dataset, work, conditions) as workspace:
        left_out: dict[str, str] = {}
        if chosen is None:
            chosen, left_out = _that_may_help(workspace, row)
        recipe = Recipe(steps=chosen, schemes=(scheme,), keep_8bit=tuple(keep_8bit), seed=seed)
        plan(recipe, has_calibration=len(dataset.calibration) > 0)
        progress.foresee(stages(recipe, samples=len(dataset.training), measured=False))
        warnings = workspace.warnings
        outcome = carry_out(recipe, workspace)
        converted = next(v for v in outcome.variants if v.name == scheme)
        if converted.error is not None:
            raise ConversionError(converted.error)
        kept = [record for record in outcome.records if not record.rolled_back]
        best = kept[-1].after if kept else scheme
        variants = list(outcome.variants)
        if workspace.data.validation.has_labels or conditions.scoring is not None:
            variants = scored(workspace, variants)
            warnings = settled(workspace, variants, warnings)
        variants = held_against_float(workspace, variants, outcome.references)
        checked = tried_on_runtimes(
            workspace, [v for v in variants if v.name == best], (), references=outcome.references
        )
        variants = [checked[0] if v.name == best else v for v in variants]
        errors = dict(_errors(workspace, variants))
    made = next(v for v in variants if v.name == best)
    files.atomic_write(output, (work / str(made.file)).read_bytes())
    shutil.rmtree(work)
    notes = dict.fromkeys((*warnings, *outcome.notes, *made.notes))
    return Repaired(output, tuple(variants), errors, best, outcome.records, left_out, tuple(notes))


def _repairs(steps: Sequence[Any] | str) -> tuple[Step, ...]:
    """Returns the steps that were asked for.

    Raises:
        ConfigError: there are none, or one of them repairs nothing.
    """
    chosen = steps_from([steps] if isinstance(steps, str) else steps)
    names = ", ".join(name for name, row in TECHNIQUES.items() if row.repairs)
    if not chosen:
        raise ConfigError(f"Expected repairs, {names}, got none. Try --steps auto.")
    for step in chosen:
        if not technique(step.technique).repairs:
            raise ConfigError(
                f"Expected repairs, {names}, got {step.technique}, which does more than mend. "
                f"Try `edgeopt {step.technique}`, or a recipe of both for `edgeopt optimize`."
            )
    return chosen


def _that_may_help(workspace: Workspace, scheme: Scheme) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Returns the repairs that may help a model in a scheme, in the order in which they combine, and why not others."""
    facts = workspace.survey(layers=False).facts
    steps, left_out = [], {}
    for row in TECHNIQUES.values():
        if not row.repairs:
            continue
        why = row.suits(scheme, facts)
        if not row.fits(row.typical, scheme):
            why = row.why_unfit
        elif row.acts_on == "model" and facts.untrainable:
            why = facts.untrainable
        if why:
            left_out[row.name] = why
        else:
            steps.append(row.typical)
    return tuple(steps), left_out


def _errors(workspace: Workspace, variants: Sequence[Variant]) -> Iterator[tuple[str, float]]:
    """Yields how far each variant lies from the float model."""
    baseline, *others = variants
    assert baseline.name == BASELINE
    for variant in others:
        if variant.file and baseline.file:
            yield variant.name, workspace.nearer(variant, variant, baseline).after
