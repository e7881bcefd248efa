"""`edgeopt import-torch`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt.cli import common


@click.command("import-torch", short_help="Bring a PyTorch module in as a proven float .tflite.")
@click.argument("function", metavar="MODULE:FUNCTION")
@common.output_option
@click.option(
    "--channels-first", is_flag=True, help="Leave pictures as PyTorch has them: channels before height and width."
)
@common.force_option
@common.json_option
@common.quiet_option
def command(function: str, output: Path, channels_first: bool, force: bool, as_json: bool, quiet: bool) -> None:
    """Bring a PyTorch module in: a float .tflite, proven against PyTorch, for every command that takes one.

    FUNCTION returns the module and a list of inputs, real ones, one sample each; its code runs. The first use gets
    PyTorch and litert-torch into an environment of their own in your cache.

    \b
      edgeopt import-torch my_model:exported -o model.tflite
      edgeopt convert model.tflite -o model.int8.tflite --scheme int8 --data data.npz
    """
    import edgeopt
    from edgeopt.torch_import import environment

    if not environment.is_ready():
        click.echo(f"Getting PyTorch and litert-torch into {environment.folder()}, once: {environment.SIZE}.", err=True)
    with common.progress_shown(quiet=quiet or as_json):
        found = edgeopt.import_torch(function, output, channels_last=not channels_first, force=force)
    if as_json:
        common.print_json(found)
        return
    console = common.console()
    console.print(f"{found.file}: float32, {found.size_bytes:,} bytes")
    for role, specs in (("input", found.inputs), ("output", found.outputs)):
        for spec in specs:
            console.print(f"  {role} {common.describe_spec(spec)}")
    apart = f"within {found.max_difference:.1e} of their spread"
    console.print(f"  as PyTorch computes on {common.counted(found.samples, 'sample')} ({apart})")
    for note in found.notes:
        console.print(f"  note: {note}")
