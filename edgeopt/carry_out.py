"""A recipe and a workspace go in; the files that it makes of the model, and what each of its steps did, come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgeopt import formats, progress, targets
from edgeopt.data import Part
from edgeopt.errors import ConversionError, DataError, EdgeoptError
from edgeopt.evaluation import Evaluation
from edgeopt.plan import Plan, PlannedStep, plan
from edgeopt.recipe import Recipe
from edgeopt.report.words import promise_words
from edgeopt.runtimes import Request, parse
from edgeopt.schemes import scheme
from edgeopt.techniques import Need, technique
from edgeopt.vocabulary import Property, StepRecord, Variant
from edgeopt.workshop import Survey
from edgeopt.workspace import Workspace

BASELINE = "float32"
# A step that loses more is rolled back, where it says nothing else: points for shares, per cent for other metrics.
COLLAPSE = 10.0


@dataclass(frozen=True)
class Outcome:
    """What a recipe made.

    Attributes:
        variants: the model as it came in each scheme, the float baseline first; a variant for each step in the
            recipe's first scheme; what came out of the last in the other schemes.
        records: what each step did, in their order.
        notes: what of the recipe is pointless, or will disappoint, and why.
        references: of each variant that is none itself, by name, the same model in float32.
    """

    variants: tuple[Variant, ...]
    records: tuple[StepRecord, ...] = ()
    notes: tuple[str, ...] = ()
    references: Mapping[str, Variant] = field(default_factory=dict)


def carry_out(recipe: Recipe, workspace: Workspace) -> Outcome:
    """Makes what a recipe says.

    A step is measured as a file in the recipe's first scheme. Where it breaks a promise, or loses too much, the model
    of before it goes on.

    Raises:
        ConfigError, DataError: the recipe cannot be done with this model and these data, in this order.
        ModelError: the model cannot be read, or a step needs layers that can be trained and there are none.
        ConversionError: not one file could be made of the model as it came.
    """
    on_model = [step for step in recipe.steps if technique(step.technique).acts_on == "model"]
    survey = workspace.survey(layers=bool(on_model)) if recipe.steps else None
    planned = _planned(recipe, workspace, survey)
    promises = promised(recipe)
    schemes = tuple(dict.fromkeys((BASELINE, *recipe.schemes)))
    variants = [
        workspace.converted(workspace.original, name, promises=promises, keep_8bit=recipe.keep_8bit)
        for name in progress.track(schemes, "converting", len(schemes))
    ]
    if all(variant.error for variant in variants):
        raise ConversionError(f"Not one variant of {workspace.original.file} could be made. {variants[0].error}")
    references = {variant.name: variants[0] for variant in variants[1:]}
    if survey is None:
        return Outcome(tuple(variants), notes=planned.notes, references=references)
    outcome = _with_steps(recipe, workspace, survey, variants, planned.notes)
    return replace(outcome, references={**references, **outcome.references})


def _with_steps(
    recipe: Recipe, workspace: Workspace, survey: Survey, variants: list[Variant], notes: tuple[str, ...]
) -> Outcome:
    """Takes a recipe's steps in turn, after the model was converted as it came."""
    promises = promised(recipe)
    model, properties = workspace.original, survey.properties
    before = next(v for v in variants if v.name == recipe.schemes[0])
    records: list[StepRecord] = []
    references: dict[str, Variant] = {}
    on_files: list[PlannedStep] = []

    def finished(name: str) -> Variant:
        """Returns what the steps so far make of the model in a scheme."""
        made = workspace.converted(model, name, promises=promises, keep_8bit=recipe.keep_8bit)
        baseline = workspace.converted(model, BASELINE, promises=promises)
        for planned in on_files if made.file else ():
            made, _ = workspace.worked_on_file(
                model, made, baseline, planned, training=recipe.training, seed=recipe.seed
            )
        if name != BASELINE:
            references[made.name] = baseline
        return made

    for number in range(len(recipe.steps)):
        # What is left as the model at hand needs it: a step that was rolled back changes what the others have to keep.
        (planned, *_) = _planned(recipe, workspace, survey, properties, start=number).steps
        progress.tell(recipe.step_name(number))
        on_file = technique(planned.technique).acts_on == "file"
        if on_file:
            made = model
            if before.file is None:
                raise ConversionError(f"There is no {recipe.schemes[0]} file for {planned.technique}. {before.error}")
            baseline = workspace.converted(model, BASELINE, promises=promises)
            after, record = workspace.worked_on_file(
                model, before, baseline, planned, training=recipe.training, seed=recipe.seed
            )
        else:
            made, record = workspace.worked(model, planned, training=recipe.training, seed=recipe.seed)
            after = workspace.converted(made, recipe.schemes[0], promises=promises, keep_8bit=recipe.keep_8bit)
        if recipe.schemes[0] != BASELINE:
            references[after.name] = workspace.converted(made, BASELINE, promises=promises)
        record = _judged(workspace, planned, record, before, after, variants[0])
        if Property.FAKE_QUANTIZED in planned.properties_after and after.file is not None:
            record = replace(record, notes=(*record.notes, workspace.as_trained(made, after)))
        if record.rolled_back:
            after = replace(after, notes=(*after.notes, f"rolled back: {record.rolled_back}"))
        else:
            model, properties, before = made, planned.properties_after, after
            on_files += [planned] if on_file else []
        records.append(record)
        variants.append(after)
    if model.steps or on_files:
        variants += [finished(name) for name in recipe.schemes[1:]]
    return Outcome(tuple(variants), tuple(records), notes, references)


def promised(recipe: Recipe) -> tuple[Request, ...]:
    """Returns the runtimes that the files have to suit: the budgets' and the target's."""
    own = () if recipe.target is None else targets.target(recipe.target).runtimes
    return tuple(parse(text) for text in dict.fromkeys((*recipe.budgets.runtimes, *own)))


def _planned(
    recipe: Recipe,
    workspace: Workspace,
    survey: Survey | None,
    properties: frozenset[Property] | None = None,
    start: int = 0,
) -> Plan:
    if survey is None:
        return plan(recipe)
    data = workspace.data
    return plan(
        recipe,
        start=start,
        properties=survey.properties if properties is None else properties,
        facts=survey.facts,
        has_labels=data.training.has_labels,
        has_training=len(data.training) > 0,
        has_calibration=len(data.calibration) > 0,
    )


def _judged(
    workspace: Workspace,
    planned: PlannedStep,
    record: StepRecord,
    before: Variant,
    after: Variant,
    baseline: Variant,
) -> StepRecord:
    """Returns the record with its promises as measured in the file, and why the step is rolled back, if it is.

    What it lost is what the samples say that choices are made on. A repair goes on only where they show it to bring the
    file nearer to the float one: nothing else is its use.
    """
    record, row = replace(record, before=before.name, after=after.name), technique(planned.technique)
    if after.error is not None:
        return replace(record, rolled_back=f"its model could not be converted: {after.error}")
    file = formats.facts(workspace.folder / str(after.file))
    record = replace(record, promises=row.check(planned.step, record, file))
    if broken := [p for p in record.promises if p.kept is False]:
        return replace(record, rolled_back=promise_words(broken[0]))
    part = workspace.data.deciding
    theirs, ours = (_score(workspace, variant, part, planned) for variant in (before, after))
    if isinstance(ours, Evaluation) and isinstance(theirs, Evaluation):
        drop = ours.difference(theirs)
        most = 0.0 if row.repairs else COLLAPSE
        limit = most if planned.step.max_drop is None else planned.step.max_drop
        if drop.exceeds(limit, strict=planned.strict):
            unit = "points" if ours.metric.is_share else "%"
            return replace(record, rolled_back=f"it lost {drop.value:.2f} {unit}, more than {limit:g}")
    if row.repairs and scheme(after.scheme).algorithm and before.file and baseline.file:
        if before.sha256 == after.sha256:
            return replace(record, rolled_back=record.notes[0] if record.notes else "it changed nothing")
        found = workspace.nearer(before, after, baseline)
        if not found.nearer:
            return replace(record, rolled_back=f"no gain is shown: {found.words}")
        record = replace(record, notes=(*record.notes, found.words))
    return record


def _score(
    workspace: Workspace, variant: Variant, part: Part, planned: PlannedStep
) -> Evaluation | EdgeoptError | None:
    """Returns the score of a variant; None where there is no file, or there are no labels and the step needs none."""
    try:
        return workspace.score(variant, part) if variant.file else None
    except DataError:
        if Need.LABELS not in planned.needs and not part.has_labels:
            return None
        raise
