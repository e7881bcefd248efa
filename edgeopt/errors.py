"""The errors a user may meet: what was expected, what came and what to try, with the exit status of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Row = TypeVar("Row")


class EdgeoptError(Exception):
    """Base of every error that is the user's to mend; the message is shown as it is, without a traceback."""

    exit_code = 2


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
