"""`edgeopt compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common

if TYPE_CHECKING:
    from edgeopt.comparison import Comparison


@click.command("compare", short_help="Say how far two files lie apart, and from where on.")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@common.data_options(required=True)
@common.scoring_options
@common.one_runtime_option
@click.option("--runtime-b", metavar="NAME", help="What B runs on, where that is not the same.")
@click.option("--layer-samples", type=click.IntRange(0), default=16, show_default=True, help="0 leaves layers out.")
@common.signature_option
@common.code_option
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    a: Path,
    b: Path,
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    runtime: str,
    runtime_b: str | None,
    layer_samples: int,
    signature: str | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Say how far converted file B lies from A on your data: agreement, paired test, and the layer where they part.

    The same file twice, with --runtime-b, compares two runtimes.

    \b
      edgeopt compare model.float32.tflite model.int8.tflite --data data.npz
    """
    import edgeopt
    from edgeopt.tasks.finding import metric_said

    if trust:
        common.allow_code((a, b))
    dataset = common.required_data(**data, validation_share=1.0)
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.compare(
            a,
            b,
            dataset.validation,
            metric=metric or metric_said(tasks),
            output=output_name,
            runtime=runtime,
            runtime_b=runtime_b,
            layer_samples=layer_samples,
            signature=signature,
        )
    common.print_json(result) if as_json else _show(result)


def _show(result: Comparison) -> None:
    from rich.table import Table

    console = common.console()
    for role, metric in (("A", result.metric_a), ("B", result.metric_b)):
        if metric is not None:
            console.print(f"{role}: {common.describe_metric(metric)}")
    if result.difference is not None:
        unit = "points" if result.metric_a is not None and result.metric_a.is_share else "%"
        p_value = result.difference.p_value
        doubt = "" if p_value is None else f", p = {p_value:.3g}"
        console.print(f"B is {_apart(result.difference.value, unit)}{doubt}")
    if result.agreement is not None:
        share = result.agreement
        samples = common.counted(result.samples, "sample")
        console.print(f"same class on {share.value:.2%} [{share.low:.2%}, {share.high:.2%}] of {samples}")
    for output in result.outputs:
        console.print(
            f"output {output.name}: SQNR {output.sqnr_db:.1f} dB, cosine {output.cosine:.6f}, "
            f"largest difference {output.max_difference:.4g}"
        )
    if result.layers:
        table = Table(box=None, pad_edge=False)
        table.add_column("tensor", overflow="fold")
        table.add_column("SQNR dB", justify="right")
        table.add_column("cosine", justify="right")
        for layer in result.layers:
            table.add_row(layer.tensor, f"{layer.sqnr_db:.1f}", f"{layer.cosine:.6f}")
        console.print(table)
    console.print(result.first_difference)
    for note in result.notes:
        console.print(f"note: {note}")


def _apart(loss: float, unit: str) -> str:
    if f"{abs(loss):.3g}" == "0":
        return "as good as A"
    return f"{abs(loss):.3g} {unit} {'worse' if loss > 0 else 'better'}"
