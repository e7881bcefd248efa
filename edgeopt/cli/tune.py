"""`edgeopt tune`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from edgeopt.cli import common
from edgeopt.cli.choices import choice_options, said
from edgeopt.errors import INTERRUPTED, BudgetError
from edgeopt.steps import Training
from edgeopt.units import parse_duration_s, parse_shapes, parse_size, parse_time_ms
from edgeopt.vocabulary import Budgets


@click.command("tune", short_help="Search recipes for the best of quality, size, latency and RAM.")
@common.model_argument
@common.output_option
@common.data_options(required=False)
@common.recipe_option(
    "What is searched: a packaged recipe or FILE.yaml, whose values may be lists and ranges; all techniques that "
    "can be applied if not given."
)
@choice_options(Training)
@click.option("--trials", type=int, help="How many recipes are tried, those of earlier runs of this among them; 40.")
@click.option("--time", "time", metavar="DURATION", help="For how long: 90s, 30m, 2h …")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that work at the same time.")
@click.option("--ray", metavar="ADDRESS", help="A Ray cluster that they run on, or local.")
@click.option("--storage", metavar="URL", help="A database for the study: sqlite:///FILE, postgresql://…, mysql://…")
@click.option("--study", metavar="NAME", help="Of the study in the database; the output folder's name if not given.")
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="quality|size|latency|ram",
    help="Repeatable. Quality and size, and with --target its latency, if not given.",
)
@common.budget_options(latency="Of one inference, as --objective latency is")
@click.option(
    "--sampler", metavar="expected|near|tpe|nsga2|random", help="What draws; by the number of trials if not given."
)
@click.option(
    "--pruner",
    metavar="budget|median|none",
    default="budget",
    show_default=True,
    help="When a trial is given up before its last step.",
)
@common.runtime_option
@common.target_option
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
    time: str | None,
    max_drop: float | None,
    max_size: str | None,
    max_latency: str | None,
    max_ram: str | None,
    runtimes: tuple[str, ...],
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    shapes: tuple[str, ...],
    seed: int | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    data: str | None,
    **options: Any,
) -> int:
    """Try recipes, and keep those that no other one is shown to beat in quality, size, latency or RAM.

    A list in a recipe stands for one of its items, {from: 0.3, to: 0.9} for a number between. What cannot combine is
    never run, and recipes that begin alike share their beginning.

    Writes front/N.yaml, the recipe of each point of the front, study.html and study.json with all trials, and
    report.html, variants/*.tflite and best.tflite of the front into the output folder. Trials are compared on the
    tuning samples; the scores shown are of the validation samples.
    The same command continues where it was stopped. Exit status 3: no trial keeps the budgets.

    \b
      edgeopt tune model.keras --data data.npz -o out --trials 60 --max-drop 1.0
      edgeopt tune model.keras --data data.npz -o out --recipe space.yaml --workers 2 --time 30m
    """
    import edgeopt
    from edgeopt.search.result import front_table, headline
    from edgeopt.search.settings import SearchSettings, checked

    common.conversion_begins()
    training = said(Training, options)
    names = (
        "trials",
        "workers",
        "ray",
        "storage",
        "study",
        "objectives",
        "sampler",
        "pruner",
        "target",
        "metric",
        "tasks",
    )
    own = {name: options.pop(name) for name in (*names, "output_name", "threads", "custom_objects", "trust")}
    settings = dict(
        **own,
        recipe=recipe,
        training=Training(**training),
        time_s=parse_duration_s(time),
        budgets=Budgets(max_drop, parse_size(max_size), parse_time_ms(max_latency), runtimes, parse_size(max_ram)),
        runtime=runtimes[0] if runtimes else "litert",
        delegate=common.delegate_from(delegate, delegate_settings),
        shapes=parse_shapes(shapes),
        seed=seed,
    )
    with common.spoken_as_options(), common.progress_shown(quiet=quiet or as_json):
        base = checked(SearchSettings(**settings)).base
        found = common.data_or_recipe_s(base, data=data, seed=base.seed, **options)
        commands = (shlex.join(["edgeopt", *sys.argv[1:]]),)
        tuned = edgeopt.tune(model, found, output, force=force, commands=commands, **settings)
    if as_json:
        common.print_json(tuned)
    else:
        console = common.console()
        console.print(front_table(tuned))
        console.print(f"{headline(tuned)}.")
        for warning in tuned.report.warnings:
            console.print(f"Note: {warning}")
        console.print(f"Recipes of the front: {output / 'front'}")
        console.print(f"All trials: {output / 'study.html'}")
        console.print(f"Recommended file: {output / 'best.tflite'}")
    if tuned.ended == "interrupted":
        return INTERRUPTED
    if not tuned.kept:
        raise BudgetError(
            f"No trial keeps every budget: {tuned.obstacle}. What comes nearest was written all the same."
        )
    return 0
