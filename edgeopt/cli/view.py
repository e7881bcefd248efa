"""`edgeopt view`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt.errors import ModelError


@click.command("view", short_help="Look at a model's graph in Netron.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of the local server.")
@click.option("--no-browser", is_flag=True, help="Only serve; print the address.")
def command(file: Path, port: int, no_browser: bool) -> None:
    """Look at a model's graph in Netron, served on this machine alone. Ctrl-C ends it.

    \b
      edgeopt view model.int8.tflite
    """
    from edgeopt import formats, frameworks

    if not file.exists():
        raise ModelError(f"Expected a model file, got {file}, which does not exist. Try another path.")
    if file.is_dir():
        file /= "saved_model.pb"
        if not file.is_file():
            raise ModelError(f"Expected a model file or a SavedModel, got the folder {file.parent}. Try another path.")
    elif formats.is_converted(file) and (form := formats.format_of(file)).is_code:
        raise ModelError(
            f"Expected a file with a graph that Netron shows, got {file}, {form.summary}: code for a processor. "
            "Try the .tflite or .onnx that it was made of."
        )
    netron = frameworks.load("netron")
    host, used = netron.start(str(file), address=("127.0.0.1", port), browse=not no_browser)
    click.echo(f"http://{host}:{used}")
    netron.wait()
