"""The main job: a model and data go in; measured variants, the recommended file and a report come out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from edgeopt import __version__, drawing, files, formats, machine, measuring, progress, sensitivities, targets
from edgeopt.carry_out import BASELINE, Outcome, carry_out, promised
from edgeopt.compilers import COMPILERS, maker_of, require
from edgeopt.data import Dataset
from edgeopt.drawing.colouring import by_bytes, by_error
from edgeopt.errors import ConfigError, EdgeoptError, UnavailableError, named, setting
from edgeopt.formats import FORMATS
from edgeopt.formats.onnx import opset_for
from edgeopt.ladder import Aim, climb
from edgeopt.ladder.climbing import Climbed
from edgeopt.metrics import for_outputs
from edgeopt.outlook import stages
from edgeopt.plan import plan
from edgeopt.recipe import Recipe, to_values, write_recipe
from edgeopt.recommendation import recommended
from edgeopt.report import DataFacts, ModelFacts, Report, write_report
from edgeopt.runtimes import releases
from edgeopt.schemes import DEFAULTS, scheme
from edgeopt.steps import Training
from edgeopt.store import MARKER
from edgeopt.vocabulary import AIMS, Budgets, Sensitivity, StepRecord, Variant
from edgeopt.workers import TimeIsUp, until
from edgeopt.workspace import Conditions, Workspace

# What a ladder's report shows of each layer: choices of `sensitivities`.
_BITS = ("int8", "int4")


@dataclass(frozen=True)
class Settings(Conditions):
    """What may be said about a run beside its model, data and output folder.

    Attributes:
        recipe: its steps are taken before conversion; None converts the model as it is.
        schemes: names of SCHEMES; when empty the recipe's, or DEFAULTS. The float baseline is always made.
        formats: keys of FORMATS that files are made in beside `.tflite`; when empty the recipe's.
        keep_8bit: layers that keep int8 weights in schemes below eight bits; when empty as the recipe says.
        budgets: what the recommended model must keep.
        target: the device it is meant for, a name of `targets.TARGETS` or a data file; the recipe's if None. Its
            runtimes are promises, and what does not fit is not recommended.
        aim: key of `vocabulary.AIMS`: what to gain beyond the budgets; "" for nothing.
        time_s: what the whole run may take; None for as long as it takes.
        training, seed: how techniques train, where no recipe says it.
    """

    recipe: Recipe | None = None
    schemes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    keep_8bit: tuple[str, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)
    target: str | None = None
    aim: str = ""
    time_s: float | None = None
    training: Training = Training()  # noqa: RUF009 - it is frozen
    seed: int = 0

    @property
    def climbs(self) -> bool:
        """Whether the ladder is climbed: no recipe says what to do, and something is asked for."""
        return self.recipe is None and (self.budgets.bound or bool(self.aim) or self.time_s is not None)

    def require_sense(self) -> None:
        """Raises ConfigError where budgets cannot be kept by anything, or settings do not go together."""
        budgets = self.budgets
        for key, limit in (
            ("max_size", budgets.max_size_bytes),
            ("max_latency", budgets.max_latency_ms),
            ("max_ram", budgets.max_ram_bytes),
        ):
            if limit is not None and not limit > 0:
                raise ConfigError(f"Expected a {setting(key)} above 0, which no file keeps, got {limit:g}.")
        if budgets.max_drop is not None and not budgets.max_drop >= 0:
            raise ConfigError(f"Expected a {setting('max_drop')} of at least 0, got {budgets.max_drop:g}. Try 1.0.")
        if (
            budgets.max_ram_bytes is not None
            and self.target is None
            and (self.recipe is None or not self.recipe.target)
        ):
            raise ConfigError(
                f"Expected a target with {setting('max_ram')}, got none: what a model takes of RAM is the device's "
                f"affair. Try {setting('target', 'cortex-m4')}."
            )
        if self.aim:
            named(AIMS, self.aim, "an aim")
        if self.recipe is not None and (self.aim or self.time_s is not None):
            raise ConfigError(
                "Expected a recipe, or an aim and a time for the ladder, which finds one, got both. "
                "Try one without the other."
            )

    def whole_recipe(self) -> Recipe:
        """Returns the recipe that says all of a run but its model, its data and its conditions.

        Raises:
            ConfigError: a scheme or the target is none.
        """
        recipe = self.recipe or Recipe(schemes=self.schemes or DEFAULTS, training=self.training, seed=self.seed)
        schemes = tuple(scheme(name).name for name in self.schemes or recipe.schemes)
        target, budgets = self.target or recipe.target, self.budgets
        if target is not None:
            runtimes = dict.fromkeys((*budgets.runtimes, *targets.target(target).runtimes))
            budgets = replace(budgets, runtimes=tuple(runtimes))
        keep_8bit = tuple(self.keep_8bit) or recipe.keep_8bit
        formats = tuple(self.formats) or recipe.formats
        return replace(recipe, schemes=schemes, formats=formats, keep_8bit=keep_8bit, budgets=budgets, target=target)


def optimize(
    model: Path,
    data: Dataset,
    *,
    output: Path,
    settings: Settings,
    force: bool = False,
    commands: Sequence[str] = (),
) -> Report:
    """Compresses and converts `model`, measures each file on real runtimes, and recommends one.

    Every stage is remembered in the output folder: the same call continues where it was stopped.

    Args:
        model: `.keras`, `.h5`, SavedModel or float `.tflite`.
        data: calibrates the integer schemes and scores all variants.
        output: a folder; receives report.{html,json,md}, variants/*.tflite, best.tflite and recipe.yaml; what
            the target's compiler makes of it, where there is one; with a recipe of steps models/*.keras and training/,
            logs for TensorBoard.
        settings: everything else.
        force: write into a folder that holds other files.
        commands: the command lines that reproduce the run, for the report.

    Returns:
        The report. When no variant keeps the budgets its `best` is the nearest, and `broken_budgets` says what broke.

    Raises:
        EdgeoptError: the model or data cannot be used, or not one variant could be made.
    """
    began = time.monotonic()
    settings.require_sense()
    files.require_free(output, force=force, made_by_us=MARKER)
    files.require_writable(output)
    recipe = settings.whole_recipe()
    for compiler in filter(None, map(maker_of, recipe.formats)):
        require(compiler)
    # What no model can mend is said before one is loaded.
    promises = promised(recipe)
    plan(
        recipe,
        has_labels=data.training.has_labels,
        has_training=len(data.training) > 0,
        has_calibration=len(data.calibration) > 0,
    )
    if settings.metric is not None:
        for_outputs(settings.metric)
    if recipe.target is not None:
        settings = replace(settings, processor=targets.target(recipe.target).processor)
    settings = replace(settings, opset=opset_for(releases(promises, form="onnx")))
    with Workspace(model, data, output, settings) as workspace:
        progress.foresee(stages(recipe, samples=len(data.training), measured=True))
        progress.tell("loading", 0, 1)
        warnings = _warned(workspace)
        progress.tell("loading", 1, 1)
        written = partial(write_up, workspace, recipe, warnings=warnings, commands=commands)
        if settings.climbs:
            aim = Aim(settings.aim or ("" if settings.budgets.bound else "balance"), settings.time_s, began)
            found = climb(workspace, recipe, aim, keep=written)
            return written(*_with_sensitivity(workspace, found, aim))
        outcome = measuring.translated(workspace, carry_out(recipe, workspace), recipe.formats)
        target = None if recipe.target is None else targets.target(recipe.target)
        outcome, said = measuring.measured(workspace, outcome, promises=promises, target=target)
        return written(Climbed(outcome, None, {}, said))


def _with_sensitivity(workspace: Workspace, found: Climbed, aim: Aim) -> tuple[Climbed, Sensitivity | None]:
    """Adds what each layer bears, where a ladder needed more than its schemes and has the time to look."""
    assert found.climb is not None
    tried = any(rung.took_s is not None for rung in found.climb.rungs[1:])
    if not tried or found.climb.ended in ("time", "interrupted"):
        return found, None
    try:
        with until(float("inf") if aim.time_s is None else aim.began + aim.time_s):
            return found, sensitivities.measure(workspace, sensitivities.chosen(_BITS), exact=0)
    except TimeIsUp:
        why = "there was no time to look at what each layer bears"
    except EdgeoptError as error:
        why = f"what each layer bears was not found out: {error}"
    return replace(found, said=(*found.said, why)), None


def write_up(
    workspace: Workspace,
    recipe: Recipe,
    found: Climbed,
    sensitivity: Sensitivity | None = None,
    *,
    warnings: Sequence[str],
    commands: Sequence[str],
) -> Report:
    """Recommends one of the variants that were found, writes the report, and gives the files names for people."""
    output = workspace.folder
    warnings = measuring.settled(workspace, found.outcome.variants, warnings)
    outcome = _shown(workspace, found.outcome)
    report = _report(workspace, recipe, outcome, (*warnings, *outcome.notes, *found.said), commands)
    report = recommended(replace(report, climb=found.climb, sensitivity=sensitivity))
    best = report.best or ""
    whole = replace(found.recipes.get(best, recipe), formats=recipe.formats)
    report = _compiled(replace(report, recipe=to_values(whole)), recipe, output)
    files.atomic_write(output / "recipe.yaml", write_recipe(whole))
    write_report(report, output)
    for variant in report.variants:
        if variant.primary and variant.name in (best, f"{best}-{variant.primary.format}"):
            files.link(output / variant.primary.file, output / f"best{FORMATS[variant.primary.format].suffix}")
    chosen = report.variant(best)
    if chosen is not None and chosen.file is not None:
        files.atomic_write(output / "best.svg", _drawn(output / chosen.file, chosen))
    return report


def _drawn(file: Path, variant: Variant) -> str:
    """Returns the graph of a variant's file, coloured by the error of its layers where that was measured."""
    facts = formats.facts(file)
    shown = by_error(facts, variant.layer_errors) if variant.layer_errors else by_bytes(facts)
    return drawing.svg(facts, file.name, shown)


def _warned(workspace: Workspace) -> tuple[str, ...]:
    """Loads what came in, and returns what is remarked on it.

    Raises:
        EdgeoptError: it cannot be used; nothing was written then.
    """
    _ = workspace.runtime, workspace.summary
    found = workspace.warnings
    return (
        *(f"the {name} changed since the last run in this folder: done anew" for name in workspace.changed),
        *found,
    )


def _shown(workspace: Workspace, outcome: Outcome) -> Outcome:
    """Gives the files of an outcome names for people beside those in the store, which is by content."""
    folder, stem = workspace.folder, workspace.original.file.stem

    def variant(one: Variant) -> Variant:
        if one.file is None:
            return one
        row = FORMATS[formats.format_of(folder / one.file).name]
        name = f"variants/{stem}.{one.name.removesuffix(f'-{row.name}')}{row.suffix}"
        files.link(folder / one.file, folder / name)
        first, *others = one.artifacts
        rows = tuple(replace(row, artifact=name if row.artifact == one.file else row.artifact) for row in one.runtimes)
        return replace(one, artifacts=(replace(first, file=name), *others), runtimes=rows)

    def record(number: int, one: StepRecord) -> StepRecord:
        if not one.model:
            return one
        name = f"models/{number}-{one.technique}{Path(one.model).suffix}"
        files.link(folder / one.model, folder / name)
        return replace(one, model=name)

    return replace(
        outcome,
        variants=tuple(variant(one) for one in outcome.variants),
        records=tuple(record(number, one) for number, one in enumerate(outcome.records, start=1)),
    )


def _report(
    workspace: Workspace, recipe: Recipe, outcome: Outcome, warnings: Sequence[str], commands: Sequence[str]
) -> Report:
    """Returns all that was measured as a report without a recommendation."""
    summary = workspace.summary
    baseline = next((v for v in outcome.variants if v.name == BASELINE and v.file), None)
    facts = ModelFacts(
        str(workspace.original.file),
        workspace.original.content,
        summary.source_format,
        summary.inputs,
        summary.outputs,
        notes=(*summary.notes, *(f"{layer}: {reason}" for layer, reason in summary.unbridged)),
    )
    if baseline is not None:
        file = formats.facts(workspace.folder / str(baseline.file))
        facts = replace(facts, parameters=file.parameters, macs=file.macs)
    described = workspace.data.describe()
    data = DataFacts(
        described["path"],
        described["sha256"],
        {spec["name"]: tuple(spec["shape"]) for spec in described["inputs"]},
        described["samples"],
        described["classes"],
        tuple(described["notes"]),
    )
    return Report(
        edgeopt_version=__version__,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        model=facts,
        data=data,
        preprocessing=workspace.data.validation.preprocessing,
        target=None if recipe.target is None else targets.target(recipe.target).name,
        budgets=recipe.budgets,
        steps=outcome.records,
        recipe=to_values(recipe),
        runtime=workspace.runtime.runtime.name,
        variants=outcome.variants,
        baseline=baseline.name if baseline else None,
        machine=machine.describe().to_plain(),
        versions=machine.versions(),
        commands=tuple(commands),
        elapsed_s=dict(workspace.seconds),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _compiled(report: Report, recipe: Recipe, output: Path) -> Report:
    """Writes what the target's compiler makes of the recommended variant, and adds it to the variant's artifacts."""
    for compiler in COMPILERS.values():
        (output / f"best{compiler.suffix}").unlink(missing_ok=True)  # an earlier run's, for another target
    best = report.variant(report.best)
    target = None if recipe.target is None else targets.target(recipe.target)
    if best is None or target is None or not target.compiler or best.on_target is None or best.on_target.problems:
        return report
    compiler = COMPILERS[target.compiler]
    taken = next((artifact for artifact in best.artifacts if artifact.format in compiler.takes), None)
    if taken is None:
        kinds = " and ".join(compiler.takes)
        why = f"{best.name} was not compiled for {target.name}: {compiler.title} takes {kinds} files only"
        return replace(report, warnings=(*report.warnings, why))
    source = output / taken.file
    try:
        compiled = targets.compiled_for(target, source.read_bytes())
    except UnavailableError:
        return report  # judging it for the target has said so
    assert compiled is not None
    file = source.with_name(source.name.removesuffix(FORMATS[taken.format].suffix) + compiler.suffix)
    files.atomic_write(file, compiled.content)
    files.link(file, output / f"best{compiler.suffix}")
    best = replace(best, artifacts=(*best.artifacts, formats.artifact(file, output, made_by=compiler.name)))
    return replace(report, variants=tuple(best if v.name == best.name else v for v in report.variants))
