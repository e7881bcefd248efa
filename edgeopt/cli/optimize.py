"""`edgeopt optimize`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.cli.choices import choice_options, said
from edgeopt.compilers import maker_of
from edgeopt.errors import INTERRUPTED, BudgetError, ConfigError
from edgeopt.formats import FORMATS
from edgeopt.schemes import SCHEMES
from edgeopt.steps import Training
from edgeopt.units import parse_duration_s, parse_shapes, parse_size, parse_time_ms
from edgeopt.vocabulary import AIMS, Budgets, Variant

if TYPE_CHECKING:
    from edgeopt.report import Report


@click.command("optimize", short_help="Meet budgets of quality, size and latency on real runtimes.")
@common.model_argument
@common.output_option
@common.data_options(required=False)
@common.recipe_option("Carry this one out and no ladder: a packaged one (edgeopt recipe list) or FILE.yaml.")
@choice_options(Training)
@common.budget_options(latency="Of one inference, on the target where that is known")
@click.option("--for", "aim", type=common.Named(AIMS), help="Without a recipe: gain this beyond the budgets.")
@click.option("--time", "duration", metavar="TIME", help="Without a recipe: of the whole command, 90s, 30m, 2h …")
@common.runtime_option
@common.target_option
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    type=common.Named(SCHEMES),
    help="Repeatable; the recipe's or all if not given. float32 is always made, as the baseline.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=common.Named([name for name in FORMATS if maker_of(name)]),
    help="Repeatable: files are made in this format, too, beside .tflite.",
)
@common.keep_8bit_option
@common.scoring_options
@common.threads_option
@common.delegate_options
@common.shape_option
@common.model_options
@click.option("--seed", type=int, help="Of every random choice; the recipe's, or 0, if not given.")
@common.force_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    output: Path,
    recipe: str | None,
    max_drop: float | None,
    max_size: str | None,
    max_latency: str | None,
    max_ram: str | None,
    aim: str | None,
    duration: str | None,
    runtimes: tuple[str, ...],
    target: str | None,
    schemes: tuple[str, ...],
    formats: tuple[str, ...],
    keep_8bit: tuple[str, ...],
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    threads: int,
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    shapes: tuple[str, ...],
    custom_objects: Path | None,
    trust: bool,
    seed: int | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Convert a model in every scheme, measure each file on real runtimes, and recommend one.

    Where no scheme keeps the budgets, what may is tried, from what costs seconds to what costs training: repair, fewer
    bits, training for int8, fewer channels, a student. --for goes on as far as it gains; --time bounds the whole
    command. The best so far is always there as best.tflite, and Ctrl-C ends it well.

    With --recipe that one alone is carried out, step by step, each measured before and after and rolled back where it
    breaks its promise.

    Writes report.html, report.md and report.json, variants/*.tflite and best.tflite into the output folder. The first
    --runtime is where variants are scored and timed; each is also a promise that the recommended file runs there.
    With --target each file is judged on that device: what does not run or fit there is not recommended.
    The same command continues where it was stopped. Exit status 3: no variant keeps the budgets.

    \b
      edgeopt optimize model.keras --data data.npz -o out --max-drop 1.0 --max-size 64KB --time 30m
      edgeopt optimize model.keras --data data.npz -o out --recipe small-and-safe --target cortex-m4
    """
    import edgeopt

    common.conversion_begins()
    training = said(Training, options)
    chosen = None if recipe is None else edgeopt.load_recipe(recipe)
    with common.spoken_as_options():
        chosen = chosen and chosen.with_training(training)
    if chosen is not None and seed is not None:
        chosen = replace(chosen, seed=seed)
    own = Budgets() if chosen is None else chosen.budgets
    budgets = Budgets(
        own.max_drop if max_drop is None else max_drop,
        own.max_size_bytes if max_size is None else parse_size(max_size),
        own.max_latency_ms if max_latency is None else parse_time_ms(max_latency),
        runtimes or own.runtimes,
        own.max_ram_bytes if max_ram is None else parse_size(max_ram),
    )
    time_s = parse_duration_s(duration)
    climbs = chosen is None and (budgets.bound or aim is not None or time_s is not None)
    if training and chosen is None and not climbs:
        raise ConfigError(
            f"Expected --recipe, or a budget, with --{next(iter(training)).replace('_', '-')}: nothing is trained "
            "without."
        )
    # A recipe has its own words.
    spoken = common.spoken_as_options() if chosen is None else contextlib.nullcontext()
    with spoken, common.progress_shown(quiet=quiet or as_json):
        report = edgeopt.optimize(
            model,
            common.data_or_recipe_s(chosen, seed=(seed or 0) if chosen is None else chosen.seed, **options),
            output,
            force=force,
            recipe=chosen,
            schemes=schemes,
            formats=formats,
            keep_8bit=keep_8bit,
            budgets=budgets,
            target=target,
            aim=aim or "",
            time_s=time_s,
            training=Training(**training) if chosen is None else Training(),
            seed=seed or 0,
            runtime=runtimes[0] if runtimes else "litert",
            metric=metric,
            tasks=tasks,
            output_name=output_name,
            threads=threads,
            delegate=common.delegate_from(delegate, delegate_settings),
            shapes=parse_shapes(shapes),
            custom_objects=custom_objects,
            trust=trust,
            commands=(shlex.join(["edgeopt", *sys.argv[1:]]),),
        )
    from edgeopt.report import broken_budgets, headline, ladder_lines, terminal_table, to_json
    from edgeopt.report.words import chosen_on

    best = report.variant(report.best)
    assert best is not None  # a run without any variant raises
    broken = broken_budgets(report, best)
    if as_json:
        common.print_json(to_json(report))
    else:
        console = common.console()
        console.print(terminal_table(report))
        for line in ladder_lines(report, width=console.width):
            console.print(line)
        console.print(f"{headline(report)}.")
        if best.tuning_metric is not None:
            console.print(chosen_on(report))
        for warning in report.warnings:
            console.print(f"Note: {warning}")
        common.print_problems(console, {variant.name: variant.fidelity for variant in report.variants})
        console.print(f"Report: {output / 'report.html'}")
        console.print(f"{'Nearest' if broken else 'Recommended'} file: {output / 'best.tflite'}")
        for artifact in best.artifacts[1:]:
            console.print(f"The same for {report.target}: {output / artifact.file}")
        for obstacle in report.climb.obstacles if report.climb else ():
            console.print(f"In the way: {obstacle}.")
    if report.climb is not None and report.climb.ended == "interrupted":
        return INTERRUPTED
    if broken:
        raise BudgetError(not_kept(report, best, broken, output / "best.tflite"))
    return 0


def not_kept(report: Report, best: Variant, broken: Sequence[str], file: Path) -> str:
    """Returns in words which budgets the file that was chosen does not keep, and how far it is known."""
    from edgeopt.report import kept_where_chosen

    written = f"It was written as {file} all the same."
    if not kept_where_chosen(report):
        return f"No variant keeps every budget. The nearest, {best.name}, {'; '.join(broken)}. {written}"
    return (
        f"{best.name} keeps every budget on the samples that it was chosen on, but where it is scored it "
        f"{'; '.join(broken)}. {written} Try data with a val split: the more samples choose, the seldomer that happens."
    )
