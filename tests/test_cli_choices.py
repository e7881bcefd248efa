"""Fields of choices are options of the command line, and what is said there are fields again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edgeopt.choices import Choices, option
from edgeopt.cli.choices import choice_options, said


@dataclass(frozen=True, kw_only=True)
class Paint(Choices):
    colour: str = option("red", "Of the paint.", choices=("red", "blue"))
    gloss: bool = option(True, "Make it shine.")
    thin: bool = option(False, "Add water.")
    coats: tuple[str, ...] = option((), "Where.", metavar="WALL")


def parsed(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @choice_options(Paint)
    def command(**options: Any) -> None:
        found.update(said(Paint, options))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {}),
        (("--thin",), {"thin": True}),
        (("--no-gloss",), {"gloss": False}),
        (("--gloss",), {"gloss": True}),
        (("--colour", "blue", "--coats", "north", "--coats", "south"), {"colour": "blue", "coats": ("north", "south")}),
    ],
)
def test_what_is_said_is_what_the_fields_get(arguments: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert parsed(*arguments) == expected
    Paint(**expected)
