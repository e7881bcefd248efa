"""The main job: a model and data go in; measured variants, the recommended file and a report come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt import files
from edgeopt.data import Dataset
from edgeopt.recipe import write_recipe
from edgeopt.report import Report, broken_budgets, write_report
from edgeopt.report.verdict import faster, smaller
from edgeopt.report.words import Numbers
from edgeopt.stages import Run, Settings
from edgeopt.vocabulary import Variant

# Percentage points for shares, per cent of the value otherwise: a model that no longer works is small and fast, too.
DEFAULT_MAX_DROP = 1.0


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
        output: a folder; receives report.{html,json,md}, variants/*.tflite, best.tflite and recipe.yaml; for an Ethos-U
            also best.vela.tflite; with a recipe of steps models/*.keras and training/, logs for TensorBoard.
        settings: everything else.
        force: write into a folder that holds other files.
        commands: the command lines that reproduce the run, for the report.

    Returns:
        The report. When no variant keeps the budgets its `best` is the nearest, and `broken_budgets` says what broke.

    Raises:
        EdgeoptError: the model or data cannot be used, or not one variant could be made.
    """
    with Run(model, data, output, settings, force=force) as run:
        variants = run.converted()
        variants = run.compressed(variants)
        variants = run.scored(variants)
        variants = run.tried_on_runtimes(variants)
        variants = run.timed(variants)
        variants = run.judged_on_target(variants)
        variants = run.compared_by_layer(variants)
        report = recommended(run.report(variants, commands))
        files.atomic_write(output / "recipe.yaml", write_recipe(run.reproducing))
        write_report(report, output)
        if best := report.variant(report.best):
            files.atomic_write(output / "best.tflite", (output / str(best.file)).read_bytes())
            run.compiled(best)
    return report


def recommended(report: Report) -> Report:
    """Returns the report with the variant to ship, and why.

    Of the variants that work on the report's runtime and keep every budget, the one with the smallest product of size
    and latency, both relative to the float baseline, the first of equal ones; where none does, the one that breaks the
    fewest budgets. Without a budget for the loss, one that loses more than DEFAULT_MAX_DROP is only taken where no
    other keeps the budgets.
    """
    rolled_back = {step.after for step in report.steps if step.rolled_back}
    made = [v for v in report.variants if v.error is None and v.name not in rolled_back]
    if not made:
        return report
    made = [variant for variant in made if _works(report, variant)] or made
    strict = report
    if report.budgets.max_drop is None and any(variant.drop for variant in made):
        strict = replace(report, budgets=replace(report.budgets, max_drop=DEFAULT_MAX_DROP))
    keeping = [variant for variant in made if not broken_budgets(report, variant)]
    sound = [variant for variant in keeping if not broken_budgets(strict, variant)]
    best = min(sound or keeping or made, key=lambda v: (len(broken_budgets(report, v)), _cost(report, v)))
    return replace(report, best=best.name, best_reason=_reason(report, len(keeping), len(sound)))


def _works(report: Report, variant: Variant) -> bool:
    rows = [row for row in variant.runtimes if row.name == report.runtime]
    return all(row.loads and row.matches_reference is not False for row in rows)


def _reason(report: Report, keeping: int, sound: int) -> str:
    if not keeping:
        return "none keeps every budget; this one breaks the fewest"
    allowance, count = Numbers.of(report).allowance(DEFAULT_MAX_DROP), sound or keeping
    keeps, loses = ("keeps", "loses") if count == 1 else ("keep", "lose")
    condition = f"{keeps} every budget" + (f" and {loses} at most {allowance}" if 0 < sound < keeping else "")
    doubt = "" if sound else f"; it loses more than {allowance}"
    if count == 1:
        return f"the only one that {condition}{doubt}"
    return f"of the {count} that {condition}, the one with the least size times latency{doubt}"


def _cost(report: Report, variant: Variant) -> float:
    return 1.0 / ((smaller(report, variant) or 1.0) * (faster(report, variant) or 1.0))
