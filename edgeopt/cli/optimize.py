"""`edgeopt optimize`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from edgeopt.cli import common
from edgeopt.errors import BudgetError, ConfigError
from edgeopt.schemes import SCHEMES
from edgeopt.vocabulary import Budgets

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "kib": 1024, "mib": 1024**2}


@click.command("optimize", short_help="Make every scheme, measure it on real runtimes, recommend one.")
@common.model_argument
@common.output_option
@common.data_options(required=True)
@click.option("--max-drop", type=float, help="Loss allowed against float32: points for shares, else per cent.")
@click.option("--max-size", metavar="SIZE", help="Of the file: 64KB, 1.5MB, 200000 …")
@click.option("--max-latency", metavar="TIME", help="Median of one inference: 5ms, 800us …")
@common.runtime_option
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    type=common.Named(SCHEMES),
    help="Repeatable; all of them if not given. float32 is always made, as the baseline.",
)
@common.metric_option
@common.threads_option
@common.delegate_options
@common.model_options
@common.seed_option
@common.force_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    output: Path,
    max_drop: float | None,
    max_size: str | None,
    max_latency: str | None,
    runtimes: tuple[str, ...],
    schemes: tuple[str, ...],
    metric: str | None,
    threads: int,
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    custom_objects: Path | None,
    trust: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Convert a model in every scheme, measure each file on real runtimes, and recommend one.

    Writes report.html, report.md and report.json, variants/*.tflite and best.tflite into the output folder. The first
    --runtime is where variants are scored and timed; each is also a promise that the recommended file runs there.
    The same command continues where it was stopped. Exit status 3: no variant keeps the budgets.

    \b
      edgeopt optimize model.keras --data data.npz -o out --max-drop 1.0 --max-size 64KB
    """
    import edgeopt

    budgets = Budgets(max_drop, parse_size(max_size), parse_time_ms(max_latency), runtimes)
    with common.progress_shown(quiet=quiet or as_json):
        report = edgeopt.optimize(
            model,
            common.required_data(**data),
            output,
            force=force,
            schemes=schemes,
            budgets=budgets,
            runtime=runtimes[0] if runtimes else "litert",
            metric=metric,
            threads=threads,
            delegate=common.delegate_from(delegate, delegate_settings),
            custom_objects=custom_objects,
            trust=trust,
            commands=(shlex.join(["edgeopt", *sys.argv[1:]]),),
        )
    from edgeopt.report import broken_budgets, headline, terminal_table, to_json

    best = report.variant(report.best)
    assert best is not None  # a run without any variant raises
    broken = broken_budgets(report, best)
    if as_json:
        common.print_json(to_json(report))
    else:
        console = common.console()
        console.print(terminal_table(report))
        console.print(f"{headline(report)}.")
        for warning in report.warnings:
            console.print(f"Note: {warning}")
        console.print(f"Report: {output / 'report.html'}")
        console.print(f"{'Nearest' if broken else 'Recommended'} file: {output / 'best.tflite'}")
    if broken:
        raise BudgetError(
            f"No variant keeps every budget. The nearest, {best.name}, {'; '.join(broken)}. It was written as "
            f"{output / 'best.tflite'} all the same."
        )


def parse_size(text: str | None) -> int | None:
    """Returns a size such as "64KB" or "1.5MiB" in bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ConfigError(f"Expected a size such as 64KB, 1.5MB or 200000, got {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_time_ms(text: str | None) -> float | None:
    """Returns a time such as "5ms", "800us" or "0.2s" in milliseconds."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(us|µs|ms|s|)\s*", text)
    if match is None:
        raise ConfigError(f"Expected a time such as 5ms, 800us or 0.2s, got {text!r}.")
    return float(match[1]) * {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "": 1.0, "s": 1e3}[match[2]]
