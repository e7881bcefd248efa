"""The commands of the techniques: a row of TECHNIQUES and a help text go in, a click command comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.cli.choices import choice_options, said
from edgeopt.errors import BudgetError
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import technique

if TYPE_CHECKING:
    from edgeopt.api.compress import Compressed
    from edgeopt.vocabulary import Variant

# Layers or promises of a long list that are shown; the rest are counted.
_SHOWN = 12


def technique_command(name: str, help: str, *, argument: str = "MODEL") -> click.Command:
    """Returns the command of the technique called `name`; `help` is its text, with one real command line."""
    row = technique(name)

    @click.command(name, help=help, short_help=row.summary)
    @click.argument("model", type=click.Path(path_type=Path), metavar=argument)
    @common.output_option
    @choice_options(row.step)
    @common.data_options(required=True)
    @click.option(
        "--scheme",
        type=common.Named(SCHEMES),
        help="Of the .tflite; if not given float32, or where integers are made int8, or what fits.",
    )
    @common.keep_8bit_option
    @common.scoring_options
    @click.option("--logs", type=click.Path(path_type=Path), help="A folder for TensorBoard's logs.")
    @common.model_options
    @common.seed_option
    @common.force_option
    @common.json_option
    @common.quiet_option
    def command(
        model: Path,
        output: Path,
        scheme: str | None,
        keep_8bit: tuple[str, ...],
        metric: str | None,
        tasks: dict[str, str],
        output_name: str | None,
        logs: Path | None,
        custom_objects: Path | None,
        trust: bool,
        seed: int,
        force: bool,
        as_json: bool,
        quiet: bool,
        **options: Any,
    ) -> None:
        import edgeopt

        common.conversion_begins()
        with common.progress_shown(quiet=quiet or as_json), common.spoken_as_options():
            step = row.step(**said(row.step, options))
            result = edgeopt.compress(
                model,
                common.required_data(seed=seed, **options),
                output,
                [step],
                scheme=scheme,
                keep_8bit=keep_8bit or ("auto",),
                metric=metric,
                tasks=tasks,
                output_name=output_name,
                seed=seed,
                custom_objects=custom_objects,
                trust=trust,
                logs=logs,
                force=force,
            )
        common.print_json(result) if as_json else _show(result)
        if result.broken:
            raise BudgetError(f"{'; '.join(result.broken)}. {result.output} was written all the same.")

    return command


def _show(result: Compressed) -> None:
    from rich.table import Table

    from edgeopt.report import fidelity
    from edgeopt.report.words import ended_worse, promise_words

    console = common.console()
    console.print(f"{result.output}: {result.after.scheme}, after {', '.join(result.after.steps)}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("measured in the .tflite", "before", "after"):
        table.add_column(column, justify="left" if column.startswith("measured") else "right", no_wrap=True)
    for row in _rows(result.before, result.after):
        table.add_row(*row)
    console.print(table)
    if result.after.fidelity is not None:
        console.print(f"  {fidelity.summary(result.after.fidelity)}")
    for record in result.steps:
        told = record.promises
        if len(told) > _SHOWN:
            kept = sum(promise.kept is True for promise in told)
            console.print(f"  {kept} of {len(told)} promises kept; --json lists all")
            told = tuple(promise for promise in told if promise.kept is False)
        for promise in told:
            mark = "kept" if promise.kept else "BROKEN" if promise.kept is False else "not measured"
            console.print(f"  {promise_words(promise)} ({mark})")
        left = [change for change in record.layers if change.reason]
        for change in left[:_SHOWN]:
            console.print(f"  left alone: {change.layer} ({change.kind}): {change.reason}")
        if len(left) > _SHOWN:
            console.print(f"  … and {len(left) - _SHOWN} more; --json lists all")
    for note in result.notes:
        console.print(f"  note: {note}")
    common.print_problems(console, {"": result.after.fidelity})
    before = result.before.metric
    for record in result.steps:
        if lost := ended_worse(record, before):
            console.print(f"{lost[0].upper()}{lost[1:]}.")


def _rows(before: Variant, after: Variant) -> list[tuple[str, str, str]]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:,}"

    rows = [
        ("bytes", number(before.size_bytes), number(after.size_bytes)),
        ("bytes gzipped", number(before.gzip_bytes), number(after.gzip_bytes)),
        ("MACs", number(before.macs), number(after.macs)),
        ("zeros", f"{before.sparsity or 0:.1%}", f"{after.sparsity or 0:.1%}"),
    ]
    if before.metric and after.metric:
        form = ".2%" if after.metric.is_share else ".5g"
        interval = f"95 % interval {after.metric.low:{form}} to {after.metric.high:{form}}"
        rows.append((after.metric.name, f"{before.metric.value:{form}}", f"{after.metric.value:{form}}"))
        rows.append((f"  {interval}, {after.metric.samples:,} samples", "", ""))
    return rows
