"""`edgeopt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.errors import ConfigError
from edgeopt.plain import to_plain

if TYPE_CHECKING:
    from edgeopt.vocabulary import Breakdown

# A wider one does not fit a terminal; then the most frequent mistakes are listed.
_WIDEST_MATRIX = 12
_MOST_MISTAKES = 10


@click.command("evaluate", short_help="Score a converted file on your data, with a 95 % interval.")
@click.argument("file", type=click.Path(path_type=Path))
@common.data_options(required=True)
@common.scoring_options
@common.one_runtime_option
@click.option("--threads", type=click.IntRange(1), help="Interpreters at the same time; all cores if not given.")
@click.option("--batch-size", type=click.IntRange(1), help="Samples per invocation; chosen if not given.")
@click.option("--details", is_flag=True, help="Also the score of each class or target, and what is taken for what.")
@common.delegate_options
@common.signature_option
@common.code_option
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    file: Path,
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    runtime: str,
    threads: int | None,
    batch_size: int | None,
    details: bool,
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    signature: str | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Score a converted file on the test split of your data, or on all where there is none, with a 95 % interval.

    \b
      edgeopt evaluate model.int8.tflite --data data.npz --runtime tflite-runtime
    """
    import edgeopt
    from edgeopt.data import guessing
    from edgeopt.metrics.breakdown import LARGEST_TABLE
    from edgeopt.tasks.finding import metric_said

    if trust:
        common.allow_code([file])
    # What is not split already is scored whole.
    dataset = common.required_data(**data, validation_share=1.0)
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.evaluate(
            file,
            dataset.validation,
            metric=metric or metric_said(tasks),
            output=output_name,
            runtime=runtime,
            threads=threads,
            batch_size=batch_size,
            delegate=common.delegate_from(delegate, delegate_settings),
            signature=signature,
        )
    if as_json:
        plain = to_plain(result)
        for each in (plain, *plain["outputs"]):
            del each["rows"]  # a number or more for each sample, for paired tests
        common.print_json({"file": file, **plain, "preprocessing": dataset.validation.preprocessing})
        return
    console = common.console()
    console.print(
        f"{file}: {common.describe_metric(result.metric)} on {result.runtime} "
        f"({result.seconds:.2f} s, batches of {result.batch_size}, {common.counted(result.threads, 'thread')})"
    )
    for one in result.outputs:
        console.print(f"  {one.output}: {common.describe_metric(one.metric)}")
    if result.outputs:
        console.print("  outputs: their mean; an error counts as what it saves beside answering the labels' mean")
    for note in (*result.notes, *guessing(dataset.validation, result.metric)):
        console.print(f"  note: {note}")
    if details:
        tables = {"": result.breakdown} | {one.output: one.breakdown for one in result.outputs}
        found = {output: table for output, table in tables.items() if table is not None}
        if not found:
            raise ConfigError(
                f"Expected classes or targets, at most {LARGEST_TABLE} of them, with --details, got a score by "
                f"{result.metric.name}. Try --metric top1, f1, mean-iou or mse."
            )
        for output, table in found.items():
            console.print(f"\n{output}:" if output else "")
            _print_details(console, table)


def _print_details(console: Any, breakdown: Breakdown) -> None:
    """Prints a row for each class or target, and which classes are taken for which."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(
        {"classes": "class", "labels": "label", "targets": "target", "scores": "errors from"}[breakdown.of]
    )
    for name in (*breakdown.columns, *(("labelled",) if breakdown.counts else ())):
        table.add_column(name, justify="right")
    form = ".4g" if breakdown.of == "targets" else ".1%"
    for number, name in enumerate(breakdown.names):
        values = (column[number] for column in breakdown.columns.values())
        cells = ["-" if value is None else f"{value:{form}}" for value in values]
        table.add_row(name, *cells, *([f"{breakdown.counts[number]:,}"] if breakdown.counts else []))
    console.print(table)
    if 2 < len(breakdown.confusion) <= _WIDEST_MATRIX:
        console.print("\nRows are labels, columns what they are taken for:")
        matrix = Table(box=None, pad_edge=False, header_style="bold")
        matrix.add_column("")
        for name in breakdown.names:
            matrix.add_column(name, justify="right", overflow="ellipsis", no_wrap=True)
        for name, row in zip(breakdown.names, breakdown.confusion):
            matrix.add_row(name, *(f"{count:,}" if count else "." for count in row))
        console.print(matrix)
    elif breakdown.confusion:
        for count, label, taken in _mistakes(breakdown)[:_MOST_MISTAKES]:
            console.print(f"{label} is taken for {taken} {common.counted(count, 'time')}")


def _mistakes(breakdown: Breakdown) -> list[tuple[int, str, str]]:
    """Returns how often which label is taken for which other class, most often first."""
    found = [
        (count, breakdown.names[label], breakdown.names[taken])
        for label, row in enumerate(breakdown.confusion)
        for taken, count in enumerate(row)
        if count and taken != label
    ]
    return sorted(found, key=lambda mistake: -mistake[0])
