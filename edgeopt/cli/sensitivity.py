"""`edgeopt sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common

if TYPE_CHECKING:
    from edgeopt.sensitivities import Loss, Sensitivity


@click.command("sensitivity", short_help="Say which layers lose what in int8 and by sparsity.")
@click.argument("model", type=click.Path(path_type=Path))
@common.data_options(required=True)
@click.option(
    "--sparsity",
    "sparsities",
    type=float,
    multiple=True,
    default=(0.5, 0.8, 0.9),
    show_default=True,
    help="Repeatable. Share of a layer's smallest weights that become zero.",
)
@click.option("--samples", type=click.IntRange(1), default=500, show_default=True, help="How many are asked about.")
@common.metric_option
@common.model_options
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    sparsities: tuple[float, ...],
    samples: int,
    metric: str | None,
    custom_objects: Path | None,
    trust: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Say what a Keras model loses when one layer alone is in int8, or has zeros: which layers to spare.

    Nothing is trained: what a recovery brings back is not in the numbers.

    \b
      edgeopt sensitivity model.keras --data data.npz
    """
    import edgeopt

    dataset = common.required_data(seed=seed, **data)
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.sensitivity(
            model,
            dataset,
            sparsities=sparsities,
            samples=samples,
            metric=metric,
            seed=seed,
            custom_objects=custom_objects,
            trust=trust,
        )
    common.print_json(result) if as_json else _show(result)


def _show(result: Sensitivity) -> None:
    from rich.table import Table

    from edgeopt.sensitivities import BAD_DB, INT8

    console = common.console()
    lost = ""
    if result.metric is not None:
        console.print(f"float model: {common.describe_metric(result.metric)}")
        lost = f", and the {'points' if result.metric.is_share else '%'} of {result.metric.name} lost"
    console.print(f"SQNR of the outputs in dB when one layer alone is changed{lost}")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    table.add_column("weights", justify="right")
    for change in result.changes:
        table.add_column(change if change == INT8 else f"{change} zeros", justify="right")
    for layer in result.layers:
        cells = (_cell(layer.losses.get(change)) for change in result.changes)
        table.add_row(layer.layer, layer.kind, f"{layer.weights:,}" if layer.weights else "", *cells)
    console.print(table)
    for change in result.changes:
        worst = result.worst(change)
        if worst is None:
            continue
        name, left = worst.layer, worst.losses[change].sqnr_db
        where, technique = ("in int8", "qat") if change == INT8 else (f"by {change} zeros", "prune")
        words = f"loses most {where}: {name}, {left:.1f} dB left"
        if left < BAD_DB:
            words += f"; edgeopt {technique} --spare {name} leaves it alone"
        console.print(words)


def _cell(loss: Loss | None) -> str:
    if loss is None:
        return ""
    return f"{loss.sqnr_db:.1f}" + ("" if loss.drop is None else f" {loss.drop:+5.1f}")
