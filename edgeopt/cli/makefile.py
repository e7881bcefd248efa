"""`edgeopt makefile`."""

from __future__ import annotations

import click


@click.command("makefile", short_help="Print the path of the packaged pattern rules for make.")
def command() -> None:
    """Print the path of the packaged pattern rules for make.

    \b
    In any project's Makefile:
      include $(shell edgeopt makefile)
    """
    from edgeopt.makefile import path

    click.echo(path())
