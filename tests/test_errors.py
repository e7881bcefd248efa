"""Messages speak of what the user set as he set it: as keys of a recipe, or as options of a command."""

from __future__ import annotations

import pickle

import pytest

from edgeopt.errors import ConfigError, in_keys, in_options, place, setting

ERROR = ConfigError(f"{place('steps[0].shrink')}Expected {setting('multiple_of')}, got {setting('epochs', 3)}. Try 6.")


def test_keys_are_said_as_keys_and_as_options() -> None:
    assert str(ERROR) == "At steps[0].shrink: Expected multiple_of, got epochs: 3. Try 6."
    assert ERROR.on_command_line == "Expected --multiple-of, got --epochs 3. Try 6."


def test_help_is_said_as_keys_and_as_options() -> None:
    marked = f"As {setting('begin_epoch')}, in steps."
    assert in_keys(marked) == "As begin_epoch, in steps."
    assert in_options(marked) == "As --begin-epoch, in steps."


def test_marks_survive_quoting_and_workers() -> None:
    again = pickle.loads(pickle.dumps(ConfigError(f"mine.yaml: {ERROR.marked}")))
    assert str(again) == f"mine.yaml: {ERROR}"
    assert again.on_command_line == f"mine.yaml: {ERROR.on_command_line}"


@pytest.mark.parametrize("text", ["", "epochs: 6", "at 50 %"])
def test_a_message_without_marks_stays_as_it_is(text: str) -> None:
    assert str(ConfigError(text)) == ConfigError(text).on_command_line == text
