"""The command line: words go in; results, messages and an exit status come out. One thin file per command.

Nothing here computes. A command's module is imported when it is needed, and heavy packages by nobody here.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from edgeopt import __version__
from edgeopt.errors import EdgeoptError, suggestion

# The order is that of `edgeopt --help`.
COMMANDS: dict[str, str] = {
    "optimize": "edgeopt.cli.optimize",
    "convert": "edgeopt.cli.convert",
    "inspect": "edgeopt.cli.inspect",
    "evaluate": "edgeopt.cli.evaluate",
    "benchmark": "edgeopt.cli.benchmark",
    "compare": "edgeopt.cli.compare",
    "doctor": "edgeopt.cli.doctor",
    "view": "edgeopt.cli.view",
    "makefile": "edgeopt.cli.makefile",
}


class _Commands(click.Group):
    """The table above as a click group that imports a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return importlib.import_module(COMMANDS[name]).command if name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No command is called {args[0]!r}.{suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgeopt")
def cli() -> None:
    """Make a trained Keras model small and fast, and prove it on the runtimes it will meet.

    \b
    The main job, on a model and data of yours:
      edgeopt optimize model.keras --data data.npz -o out
    """


def main() -> None:
    """Runs the command line; the exit status says what happened: 0 done, 1 our defect, 2 the user's, 3 a budget."""
    # Worker processes do the heavy work; what a user has said about logs reaches them through the environment.
    try:
        status = cli.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.exceptions.Abort:
        _say("Interrupted. What was finished is kept.")
        sys.exit(130)
    except EdgeoptError as error:
        _say(f"Error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("Interrupted. What was finished is kept.")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("EDGEOPT_DEBUG"):
            traceback.print_exc()
        _say(
            f"This is a defect of edgeopt, not yours: {type(error).__name__}: {error}\n"
            "Please report it with the output of the same command under EDGEOPT_DEBUG=1."
        )
        sys.exit(1)


def _say(message: str) -> None:
    click.echo(message, err=True)
