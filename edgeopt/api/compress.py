"""A model, data and techniques go in; one changed model, measured before and after, comes out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import files, progress
from edgeopt.api.models import as_path
from edgeopt.carry_out import carry_out
from edgeopt.errors import ConfigError, DataError
from edgeopt.measuring import held_against_float, scored, settled, with_losses
from edgeopt.outlook import stages
from edgeopt.plan import plan
from edgeopt.recipe import Recipe, steps_from
from edgeopt.schemes import SCHEMES
from edgeopt.showing.values import Shown
from edgeopt.steps import Step, Training
from edgeopt.techniques import Technique, technique
from edgeopt.vocabulary import Property, StepRecord, Variant
from edgeopt.workspace import Conditions, Workspace

_SUFFIXES = (".keras", ".tflite")


@dataclass(frozen=True)
class Compressed(Shown):
    """What techniques made of a model.

    Attributes:
        output: the file written.
        before, after: the model as a `.tflite` before any step and after the last, in the same scheme, as measured.
        steps: what each step did and promised.
        broken: the promises that were not kept, in words; the file was written all the same.
        notes: what is worth saying.
    """

    output: Path
    before: Variant
    after: Variant
    steps: tuple[StepRecord, ...]
    broken: tuple[str, ...]
    notes: tuple[str, ...]


def compress(
    model: Any,
    data: Any,
    output: Path | str,
    steps: Sequence[Any],
    *,
    scheme: str | None = None,
    keep_8bit: Sequence[str] = ("auto",),
    training: Training | None = None,
    metric: str | None = None,
    tasks: Mapping[str, str] | None = None,
    output_name: str | None = None,
    seed: int = 0,
    custom_objects: Path | None = None,
    trust: bool = False,
    logs: Path | None = None,
    force: bool = False,
) -> Compressed:
    """Applies techniques to `model` and writes one file; a call that was killed goes on where it was.

    Args:
        model: a path, or a Keras model at hand.
        data: a Dataset, or what `edgeopt.load_data` takes; trains and scores.
        output: a Keras 3 model (`.keras`), or a converted one (`.tflite`).
        steps: what `recipe.steps_from` takes: names, names with settings, Steps.
        scheme: of the `.tflite`, and of the files that are measured; float32 if None, after qat and what works on
            files int8, or what the step is for.
        keep_8bit: see `convert`.
        training: for all steps that say nothing else.
        metric: see `metrics.metric`; chosen from model and labels when None.
        tasks: what the model is for, keys of TASKS, by the output's name, "" for all; found from model and labels where
            nothing is said.
        output_name: which output the labels are for, where the model has several.
        seed: of every random choice.
        custom_objects, trust: see `loading.load_model`.
        logs: a folder that receives TensorBoard's logs.
        force: overwrite `output`.

    Raises:
        ConfigError: the steps cannot be done in this order, or `output` cannot be what they make.
        EdgeoptError: a step cannot be done.
    """
    output, chosen = Path(output), steps_from(steps)
    last = chosen[-1] if chosen else None
    if last is None:
        raise ConfigError("Expected at least one technique, got none. Try steps=['prune'].")
    row = technique(last.technique)
    in_file = row.acts_on == "file" or Property.FAKE_QUANTIZED in row.ensures
    _require_suffix(output, last, in_file)
    files.require_free(output, force=force)
    recipe = Recipe(
        steps=chosen,
        schemes=(scheme or (_scheme_of(row, last) if in_file else "float32"),),
        keep_8bit=tuple(keep_8bit),
        training=training or Training(),
        seed=seed,
    )
    dataset, work = datasets.load(data, seed=seed), output.with_name(f".{output.name}.edgeopt")
    plan(recipe, has_labels=dataset.training.has_labels, has_training=len(dataset.training) > 0)
    conditions = Conditions(
        metric=metric, output_name=output_name, tasks=tasks or {}, custom_objects=custom_objects, trust=trust
    )
    with as_path(model) as path, Workspace(path, dataset, work, conditions) as workspace:
        progress.foresee(stages(recipe, samples=len(dataset.training), measured=False))
        warnings = workspace.warnings
        outcome = carry_out(recipe, workspace)
        variants = _scored(workspace, outcome.variants)
        records = with_losses(workspace, outcome.records, variants)
        warnings = settled(workspace, variants, warnings)
        variants = held_against_float(workspace, variants, outcome.references)
    after = next(v for v in variants if v.name == records[-1].after)
    if after.error is not None:
        raise ConfigError(f"{output.name} was not written: {records[-1].rolled_back}")
    made = work / (records[-1].model if output.suffix == ".keras" else str(after.file))
    files.atomic_write(output, made.read_bytes())
    if logs is not None:
        for folder in (work / "training").rglob("logs"):
            shutil.copytree(folder, logs / folder.parent.name, dirs_exist_ok=True)
    shutil.rmtree(work)
    return Compressed(
        output,
        next(v for v in variants if v.name == recipe.schemes[0]),
        after,
        records,
        tuple(f"{record.technique}: {record.rolled_back}" for record in records if record.rolled_back),
        tuple(dict.fromkeys((*warnings, *outcome.notes, *(note for record in records for note in record.notes)))),
    )


def _scheme_of(row: Technique, step: Step) -> str:
    """Returns the scheme that a step is for: int8 where it may be that, else the smallest."""
    fit = [scheme for scheme in SCHEMES.values() if row.fits(step, scheme)]
    return min(fit, key=lambda scheme: (scheme.name != "int8", scheme.weight_bits)).name


def _scored(workspace: Workspace, variants: Sequence[Variant]) -> list[Variant]:
    """Returns the variants with their scores; as they are where there are no labels, and no metric does without."""
    try:
        return scored(workspace, variants)
    except DataError:
        if workspace.data.validation.has_labels or workspace.conditions.scoring is not None:
            raise
        return list(variants)


def _require_suffix(output: Path, last: Step, in_file: bool) -> None:
    if output.suffix not in _SUFFIXES:
        raise ConfigError(
            f"Expected an output file ending in .keras or .tflite, got {output}. Try {output.stem or 'model'}.keras."
        )
    if in_file and output.suffix == ".keras":
        raise ConfigError(
            f"Expected an output file ending in .tflite after {last.technique}, got {output}: what it did is in "
            f"the converted file alone. Try -o {output.stem}.tflite --scheme int8."
        )
