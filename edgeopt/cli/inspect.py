"""`edgeopt inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt.cli import common


@click.command("inspect", short_help="Show what a model holds, and what each technique can do for it.")
@click.argument("file", type=click.Path(path_type=Path))
@common.target_option
@common.model_options
@common.json_option
@common.quiet_option
def command(
    file: Path, target: str | None, custom_objects: Path | None, trust: bool, as_json: bool, quiet: bool
) -> None:
    """Show what a Keras model or a .tflite file holds, and what each technique can do for it.

    With --target also what the file costs on that device: whether it fits, what runs well, and about how fast.

    \b
      edgeopt inspect model.int8.tflite --target cortex-m4
    """
    import edgeopt
    from edgeopt.inspection import inspection_tables

    with common.progress_shown(quiet=quiet or as_json):
        inspection = edgeopt.inspect(file, target=target, custom_objects=custom_objects, trust=trust)
    if as_json:
        common.print_json(inspection)
        return
    console = common.console()
    for number, table in enumerate(inspection_tables(inspection)):
        if number:
            console.print()
        console.print(table)
