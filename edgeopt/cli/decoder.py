"""`edgeopt decoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeopt.cli import common


@click.command("decoder", short_help="Make a language model a file that writes text by tokens.")
@common.model_argument
@common.output_option
@click.option("--weights", type=click.Path(path_type=Path), help="A quantized .tflite of this model: it gets these.")
@common.tokenizer_option()
@click.option(
    "--cache", type=click.IntRange(2), metavar="N", help="Tokens to remember; the model's context if not given."
)
@click.option("--prefill", type=click.IntRange(1), metavar="N", help="Tokens of a prompt to read at once.")
@common.model_options
@common.force_option
@common.json_option
@common.quiet_option
def command(model: Path, output: Path, as_json: bool, quiet: bool, **said: Any) -> None:
    """Write a decoder as a .tflite with the signatures prefill and decode, which remember keys and values.

    Logits token by token are compared with those of the whole model, and with those of --weights. A name that ends in
    .litertlm makes the bundle that LiteRT-LM loads, with --tokenizer.

    \b
      edgeopt decoder decoder.keras --weights int4.tflite -o writer.tflite
      edgeopt generate writer.tflite --tokenizer decoder.tokenizer.json --prompt "Return the"
    """
    import edgeopt

    with common.progress_shown(quiet=quiet or as_json):
        found = edgeopt.decoder(model, output, **said)
    if as_json:
        common.print_json(found)
        return
    console = common.console()
    console.print(
        f"{found.file}: {found.size_bytes:,} bytes, remembers {common.counted(found.cache, 'token')} in "
        f"{found.cache_bytes:,} bytes, reads {found.prefill} at once"
    )
    if found.difference is not None:
        console.print(
            f"  same logits token by token as {said['weights']} (within {found.difference:.2g} of their range)"
        )
