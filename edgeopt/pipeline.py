"""The main job: a model and data go in; measured variants, the recommended file and a report come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt import files
from edgeopt.data import Dataset
from edgeopt.report import Report, broken_budgets, write_report
from edgeopt.report.verdict import faster, smaller
from edgeopt.stages import Run, Settings
from edgeopt.vocabulary import Variant


def optimize(
    model: Path,
    data: Dataset,
    *,
    output: Path,
    settings: Settings,
    force: bool = False,
    commands: Sequence[str] = (),
) -> Report:
    """Converts `model` in every scheme, measures each file on real runtimes, and recommends one.

    Every stage is remembered in the output folder: the same call continues where it was stopped.

    Args:
        model: `.keras`, `.h5`, SavedModel or float `.tflite`.
        data: calibrates the integer schemes and scores all variants.
        output: a folder; receives report.{html,json,md}, variants/*.tflite and best.tflite.
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
        variants = run.scored(variants)
        variants = run.tried_on_runtimes(variants)
        variants = run.timed(variants)
        variants = run.compared_by_layer(variants)
        report = recommended(run.report(variants, commands))
    write_report(report, output)
    if best := report.variant(report.best):
        files.atomic_write(output / "best.tflite", (output / str(best.file)).read_bytes())
    return report


def recommended(report: Report) -> Report:
    """Returns the report with the variant to ship, and why.

    Of the variants that keep every budget, the one with the smallest product of size and latency, both relative to
    the float baseline; where none does, the one that breaks the fewest budgets.
    """
    made = [variant for variant in report.variants if variant.error is None]
    if not made:
        return report
    keeping = [variant for variant in made if not broken_budgets(report, variant)]
    if len(keeping) == 1:
        best, reason = keeping[0], "the only one that keeps every budget"
    elif keeping:
        best = min(keeping, key=lambda variant: _cost(report, variant))
        reason = f"of the {len(keeping)} that keep every budget, the one with the least size times latency"
    else:
        best = min(made, key=lambda variant: (len(broken_budgets(report, variant)), _cost(report, variant)))
        reason = "none keeps every budget; this one breaks the fewest"
    return replace(report, best=best.name, best_reason=reason)


def _cost(report: Report, variant: Variant) -> float:
    return 1.0 / ((smaller(report, variant) or 1.0) * (faster(report, variant) or 1.0))
