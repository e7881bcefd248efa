"""The command line: words go in; results, messages and an exit status come out. One thin file per command.

Nothing here computes. A command's module is imported when it is needed, and heavy packages by nobody here.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import Any, NoReturn

import click

from edgeopt import __version__, imports
from edgeopt.errors import INTERRUPTED, EdgeoptError, suggestion
from edgeopt.showing.safe import visible_lines

# The order is that of `edgeopt --help`.
COMMANDS: dict[str, str] = {
    "optimize": "edgeopt.cli.optimize",
    "tune": "edgeopt.cli.tune",
    "advise": "edgeopt.cli.advise",
    "convert": "edgeopt.cli.convert",
    "import-torch": "edgeopt.cli.import_torch",
    "repair": "edgeopt.cli.repair",
    "prune": "edgeopt.cli.prune",
    "cluster": "edgeopt.cli.cluster",
    "shrink": "edgeopt.cli.shrink",
    "awq": "edgeopt.cli.awq",
    "equalize": "edgeopt.cli.equalize",
    "qat": "edgeopt.cli.qat",
    "distill": "edgeopt.cli.distill",
    "round": "edgeopt.cli.round",
    "mixed": "edgeopt.cli.mixed",
    "inspect": "edgeopt.cli.inspect",
    "sensitivity": "edgeopt.cli.sensitivity",
    "evaluate": "edgeopt.cli.evaluate",
    "benchmark": "edgeopt.cli.benchmark",
    "compare": "edgeopt.cli.compare",
    "decoder": "edgeopt.cli.decoder",
    "generate": "edgeopt.cli.generate",
    "export": "edgeopt.cli.export",
    "recipe": "edgeopt.cli.recipe",
    "targets": "edgeopt.cli.targets",
    "doctor": "edgeopt.cli.doctor",
    "view": "edgeopt.cli.view",
    "makefile": "edgeopt.cli.makefile",
}

_INTERRUPTED = "Interrupted: nothing half-written is left. An `edgeopt optimize` continues when it is run again."
_UNBREAKABLE_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class _Formatter(click.HelpFormatter):
    """Help that breaks lines between words, not inside `tflite-runtime`."""

    def write_dl(self, rows: Iterable[tuple[str, str]], *args: Any, **kwargs: Any) -> None:
        super().write_dl([(term, text.replace("-", _UNBREAKABLE_HYPHEN)) for term, text in rows], *args, **kwargs)

    def getvalue(self) -> str:
        return super().getvalue().replace(_UNBREAKABLE_HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _Formatter


class _Commands(click.Group):
    """The table above as a click group that imports a command's module when it is used."""

    context_class = _Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        command.context_class = _Context
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = _step_called(args[0]) or suggestion(args[0], COMMANDS)
            raise click.UsageError(f"No command is called {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


def _step_called(word: str) -> str:
    """Returns how a technique is asked for that has no command of its own: those are repairs."""
    from edgeopt.techniques import TECHNIQUES

    return f" It is a step of repairs. Try edgeopt repair --steps {word}." if word in TECHNIQUES else ""


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
    imports.own_process()
    # Half-written files and worker processes go the same way as after Ctrl-C.
    signal.signal(signal.SIGTERM, _ended)
    try:
        status = cli.main(prog_name="edgeopt", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Abort:
        _say(_INTERRUPTED)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except EdgeoptError as error:
        _say(f"Error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        _show_traceback_if_asked()
        where = f" {error.filename}" if error.filename else ""
        _say(f"Error: Could not read or write{where}: {error.strerror or error}. Try another path, or freeing space.")
        sys.exit(2)
    except Exception as error:
        _show_traceback_if_asked()
        _say(
            f"This is a defect of edgeopt, not yours: {_gist(error)}\n"
            "Please report it with the output of the same command under EDGEOPT_DEBUG=1."
        )
        sys.exit(1)


def _ended(number: int, _: Any) -> NoReturn:
    sys.exit(128 + number)


def _gist(error: Exception) -> str:
    """Returns an unexpected error in a few words; one from a worker process is its whole traceback."""
    from edgeopt.workers import WorkerDefect

    return error.gist if isinstance(error, WorkerDefect) else f"{type(error).__name__}: {error}"


def _show_traceback_if_asked() -> None:
    if os.environ.get("EDGEOPT_DEBUG"):
        traceback.print_exc()


def _say(message: str) -> None:
    click.echo(visible_lines(message), err=True)
