"""`edgeopt makefile`."""

from __future__ import annotations

import click


@click.command("makefile")
def command() -> None:
    """Print the path of the packaged pattern rules for make.

    \b
    In any project's Makefile:
      include $(shell edgeopt makefile)
    """
    from edgeopt.makefile import path

    click.echo(path())
