"""The errors a user may meet: what was expected, what came and what to try, with the exit status of each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Row = TypeVar("Row")

# Exit status of what Ctrl-C ended.
INTERRUPTED = 130


class EdgeoptError(Exception):
    """Base of every error that is the user's to mend; the message is shown as it is, without a traceback.

    What the user has set is marked in it (`setting`, `place`) and spoken as a recipe writes it, or as the command line.
    """

    exit_code = 2

    def __str__(self) -> str:
        """Returns the message with keys as in a recipe: "epochs: 6"."""
        return in_keys(self.marked)

    @property
    def on_command_line(self) -> str:
        """The message with options: "--epochs 6"."""
        return in_options(self.marked)

    @property
    def marked(self) -> str:
        """The message for one that quotes it."""
        return super().__str__()


class ConfigError(EdgeoptError):
    """An option, a recipe key or a combination of them cannot be used."""


class DataError(EdgeoptError):
    """The data do not fit the model, the task or their own labels."""


class ModelError(EdgeoptError):
    """A model file cannot be read, is not what it says, or cannot be brought to the form a step needs."""


class ConversionError(EdgeoptError):
    """A converter refused the model or died on it."""


class UnavailableError(EdgeoptError):
    """A runtime, delegate, package or device that was asked for is not here, or does not work here."""


class BudgetError(EdgeoptError):
    """Everything ran, but nothing met the budgets; what came nearest was still written."""

    exit_code = 3


def in_keys(marked: str) -> str:
    """Returns a text with marked settings as a recipe writes them."""
    return _MARK.sub(_as_keys, marked)


def in_options(marked: str) -> str:
    """Returns a text with marked settings as the command line writes them."""
    return _MARK.sub(_as_options, marked)


def setting(name: str, value: object = None) -> str:
    """Returns a key of a recipe or step for a message, which is an option on the command line; with a value, both."""
    return f"\x1e{name}\x1e" if value is None else f"\x1e{name}\x1f{value}\x1e"


def place(where: str) -> str:
    """Returns "At steps[0].prune: " for a message's start; nothing on the command line, where there is one step."""
    return f"\x1eat\x1f\x1f{where}\x1e"


# A name, or a name and its value, or a place; the control characters stand in no message otherwise.
_MARK = re.compile("\x1e([^\x1e\x1f]+)(?:\x1f(\x1f?)([^\x1e]*))?\x1e")


def _as_keys(mark: re.Match[str]) -> str:
    name, is_place, value = mark.groups()
    return f"At {value}: " if is_place else name if value is None else f"{name}: {value}"


def _as_options(mark: re.Match[str]) -> str:
    name, is_place, value = mark.groups()
    option = "--" + name.replace("_", "-")
    return "" if is_place else option if value is None else f"{option} {value}"


def named(table: Mapping[str, Row], name: str, kind: str) -> Row:
    """Returns the row of `table` that is called `name`; `kind` is what it is, "a technique".

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in table:
        raise ConfigError(f"Expected {kind}, got {name!r}.{suggestion(name, table)}")
    return table[name]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns `` Did you mean 'x'?`` for the nearest known name, or the list of them when none is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(choices)}." if choices else ""
