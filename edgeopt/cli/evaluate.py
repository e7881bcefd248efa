"""`edgeopt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeopt.cli import common
from edgeopt.plain import to_plain


@click.command("evaluate", short_help="Score a converted file on your data, with a 95 % interval.")
@click.argument("file", type=click.Path(path_type=Path))
@common.data_options(required=True)
@common.metric_option
@common.output_name_option
@common.one_runtime_option
@click.option("--threads", type=click.IntRange(1), help="Interpreters at the same time; all cores if not given.")
@click.option("--batch-size", type=click.IntRange(1), help="Samples per invocation; chosen if not given.")
@common.delegate_options
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    file: Path,
    metric: str | None,
    output_name: str | None,
    runtime: str,
    threads: int | None,
    batch_size: int | None,
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Score a .tflite file on the validation part of your data, with a 95 % interval, on any runtime.

    \b
      edgeopt evaluate model.int8.tflite --data data.npz --runtime tflite-runtime
    """
    import edgeopt

    # What is not split already is scored whole.
    dataset = common.required_data(**data, validation_share=1.0)
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.evaluate(
            file,
            dataset.validation,
            metric=metric,
            output=output_name,
            runtime=runtime,
            threads=threads,
            batch_size=batch_size,
            delegate=common.delegate_from(delegate, delegate_settings),
        )
    if as_json:
        plain = to_plain(result)
        del plain["rows"]  # a number or more for each sample, for paired tests
        common.print_json({"file": file, **plain, "preprocessing": dataset.validation.preprocessing})
        return
    console = common.console()
    console.print(
        f"{file}: {common.describe_metric(result.metric)} on {result.runtime} "
        f"({result.seconds:.2f} s, batches of {result.batch_size}, {common.counted(result.threads, 'thread')})"
    )
    for note in result.notes:
        console.print(f"  note: {note}")
