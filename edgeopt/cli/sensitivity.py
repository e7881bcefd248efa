"""`edgeopt sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common

if TYPE_CHECKING:
    from edgeopt.vocabulary import Sensitivity

# In the order of `report.heat.shade`.
_STYLES = ("white on #b2182b", "black on #e8735c", "black on #f9c8a5", "", "")
# Below this a layer is worth sparing: the noise is more than a tenth of the signal.
_BAD_DB = 20.0
# What changes a layer so, and whose --spare leaves it alone.
_TECHNIQUES = {"int8": "qat", "int4": "mixed", "zeros": "prune", "width": "shrink"}


@click.command("sensitivity", short_help="Say which layers lose what: by bits, zeros and width.")
@click.argument("model", type=click.Path(path_type=Path))
@common.data_options(required=True)
@click.option(
    "--choices",
    default="int8,int4,int16,float,sparsity,width",
    show_default=True,
    metavar="NAME,NAME,…",
    help="What each layer alone becomes: int8, int4 (weights; rounded by GPTQ), int16 (what it writes), float (all "
    "others in int8), sparsity, width.",
)
@click.option(
    "--sparsity",
    "sparsities",
    type=float,
    multiple=True,
    default=(0.5, 0.8),
    show_default=True,
    help="Repeatable. Share of a layer's smallest weights that become zero.",
)
@click.option(
    "--width",
    "widths",
    type=float,
    multiple=True,
    default=(0.5,),
    show_default=True,
    help="Repeatable. Share of a layer's channels that are left.",
)
@click.option(
    "--exact",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Layers whose score is measured, for each choice at most; needs labels.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for sensitivity.html and .json; an `optimize` into it shares what was measured.",
)
@common.scoring_options
@common.model_options
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    choices: str,
    sparsities: tuple[float, ...],
    widths: tuple[float, ...],
    exact: int,
    output: Path | None,
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    custom_objects: Path | None,
    trust: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Say what a model loses when one layer alone has fewer bits, zeros or channels: which layers to spare.

    Nothing is trained: what a recovery brings back is not in the numbers. Labels are needed for scores alone.

    \b
      edgeopt sensitivity model.keras --data data.npz
    """
    import edgeopt

    common.conversion_begins()
    dataset = common.required_data(seed=seed, **data)
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.sensitivity(
            model,
            dataset,
            choices=tuple(name.strip() for name in choices.split(",") if name.strip()),
            sparsities=sparsities,
            widths=widths,
            exact=exact,
            metric=metric,
            tasks=tasks,
            output_name=output_name,
            folder=output,
            seed=seed,
            custom_objects=custom_objects,
            trust=trust,
        )
    if as_json:
        common.print_json(result)
        return
    show(result)
    if output is not None:
        common.console().print(f"Heat map: {output / 'sensitivity.html'}")


def show(result: Sensitivity) -> None:
    """Prints the heat map, and for each choice the layer that loses most."""
    from rich.table import Table
    from rich.text import Text

    from edgeopt.report.heat import cell, exact_words, shade

    console = common.console()
    lost, unit = "", "%"
    if result.metric is not None:
        console.print(f"float model: {common.describe_metric(result.metric)}")
        unit = "points" if result.metric.is_share else "%"
        lost = f", and the {unit} of {result.metric.name} lost"
    console.print(f"SQNR of the outputs in dB, {result.samples} samples, one layer alone changed{lost}")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    table.add_column("weights", justify="right")
    for choice in result.choices:
        table.add_column(choice, justify="right")
    rows = [(one.layer, one.kind, f"{one.weights:,}" if one.weights else "", one.losses) for one in result.layers]
    for name, kind, weights, losses in [*rows, ("all at once", "", "", result.together)]:
        there = (losses.get(choice) for choice in result.choices)
        cells = ("" if one is None else Text(cell(one), style=_STYLES[shade(one.sqnr_db)]) for one in there)
        table.add_row(name, kind, weights, *cells)
    console.print(table)
    for choice in result.choices:
        worst = result.worst(choice)
        if worst is None:
            continue
        loss = worst.losses[choice]
        exact = exact_words(loss, unit)
        if choice == "float":
            words = f"int8 gains most by sparing {worst.layer}: {result.together[choice].sqnr_db:.1f} dB become "
            words += f"{loss.sqnr_db:.1f}"
        else:
            words = f"loses most by {choice}: {worst.layer}, {loss.sqnr_db:.1f} dB left"
        words += f", {exact}" if exact else ""
        technique = _TECHNIQUES.get(choice.rpartition(" ")[2])
        if technique and worst.weights and loss.sqnr_db < _BAD_DB:
            words += f"; edgeopt {technique} --spare {worst.layer} leaves it alone"
        console.print(words)
    for note in result.notes:
        console.print(f"note: {note}")
