"""`edgeopt inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt.cli import common
from edgeopt.delegates import DELEGATES
from edgeopt.drawing.colouring import COLOURS, MEASURED
from edgeopt.errors import ConfigError

_MEASURED_HELP = "; ".join(f"for {name}: what `edgeopt {command}` printed" for name, command in MEASURED.items())


@click.command("inspect", short_help="Show what a model holds, and what can be done for it.")
@click.argument("file", type=click.Path(path_type=Path))
@common.target_option
@click.option("--delegate", type=common.Named(DELEGATES), help="Android's: what it leaves on the CPU, and why.")
@click.option("--graph", type=click.Path(path_type=Path), metavar="F.svg", help="Draw the graph as well.")
@click.option("--colour", type=common.Named(COLOURS), default="kind", show_default=True, help="What its boxes show.")
@click.option("--measured", type=click.Path(path_type=Path), metavar="F.json", help=f"{_MEASURED_HELP}.".capitalize())
@common.signature_option
@common.force_option
@common.model_options
@common.json_option
@common.quiet_option
def command(
    file: Path,
    target: str | None,
    delegate: str | None,
    graph: Path | None,
    colour: str,
    measured: Path | None,
    force: bool,
    custom_objects: Path | None,
    signature: str | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what a Keras model or a .tflite file holds, and what each technique can do for it.

    With --target also what the file costs on that device: whether it fits, what runs well, and about how fast. With
    --graph a picture of the graph, coloured by bytes, MACs, time or error.

    \b
      edgeopt inspect model.int8.tflite --target cortex-m4
      edgeopt inspect model.int8.tflite --graph model.svg --colour bytes
    """
    import edgeopt
    from edgeopt.inspection import inspection_tables

    if graph is None and (colour != "kind" or measured is not None):
        raise ConfigError("Expected a file for the picture with --colour and --measured, got none. Try --graph F.svg.")
    with common.progress_shown(quiet=quiet or as_json):
        if graph is not None:
            edgeopt.draw(file, graph, colour=colour, measured=measured, signature=signature, force=force)
        inspection = edgeopt.inspect(
            file,
            target=target,
            delegate=delegate,
            signature=signature,
            custom_objects=custom_objects,
            trust=trust,
        )
    if as_json:
        common.print_json(inspection)
        return
    console = common.console()
    for number, table in enumerate(inspection_tables(inspection, width=console.width)):
        if number:
            console.print()
        console.print(table)
    if graph is not None:
        console.print(f"\n{graph}: the graph, coloured by {colour}")
