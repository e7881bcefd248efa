"""`edgeopt generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeopt.cli import common
from edgeopt.showing.safe import visible_lines


@click.command("generate", short_help="Write text from a prompt, with what `decoder` made.")
@click.argument("file", type=click.Path(path_type=Path))
@common.tokenizer_option(required=True)
@click.option("--prompt", required=True, metavar="TEXT", help="What it goes on from.")
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="How many to write at most.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0 takes the most likely token each time; above it tokens are drawn.",
)
@click.option("--top-k", type=click.IntRange(0), default=0, show_default=True, help="Draw among so many; 0: all.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of LiteRT.")
@common.seed_option
@common.quiet_option
def command(file: Path, prompt: str, quiet: bool, **said: Any) -> None:
    """Write on from a prompt, on LiteRT, as the tokens come; how fast it was goes to standard error.

    \b
      edgeopt generate writer.tflite --tokenizer decoder.tokenizer.json --prompt "Return the"
    """
    import edgeopt

    text = edgeopt.generate(file, prompt, **said)
    click.echo(visible_lines(prompt), nl=False)
    for piece in text:
        click.echo(visible_lines(piece), nl=False)
    click.echo()
    if quiet:
        return
    timing = text.timing
    read = f"read {common.counted(timing.read, 'token')}"
    if timing.read_s:
        read += f" at {timing.read / timing.read_s:,.0f} a second"
    wrote = f"wrote {common.counted(timing.written, 'token')}"
    if timing.written_s:
        wrote += f" at {timing.written / timing.written_s:,.0f} a second"
    click.echo(f"{read}, {wrote}, cache {text.cache_bytes:,} bytes", err=True)
