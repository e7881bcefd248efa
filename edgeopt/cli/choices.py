"""Fields of a dataclass of choices as click options, and what click gives back as its fields."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from edgeopt.choices import Choices, Key, keys
from edgeopt.cli import common
from edgeopt.errors import ConfigError, in_options, setting
from edgeopt.steps import DEFAULTS, TrainedStep


def choice_options(kind: type[Choices]) -> Callable[[Any], Any]:
    """Returns a decorator that adds an option for every field of `kind`."""
    trained = kind.defaults.over(DEFAULTS) if issubclass(kind, TrainedStep) else None
    return common.options(*(_option(key, getattr(trained, key.name, None)) for key in keys(kind)))


def said(kind: type[Choices], options: dict[str, Any]) -> dict[str, Any]:
    """Takes the fields of `kind` out of what click gives, and returns those that were said."""
    values = {key.name: options.pop(key.name) for key in keys(kind)}
    mappings = {key.name for key in keys(kind) if _is_mapping(key)}
    return {
        name: _pairs(name, value) if name in mappings else value
        for name, value in values.items()
        if value not in (None, ())
    }


def _option(key: Key, in_force: Any) -> Callable[[Any], Any]:
    """Returns the option of a field; `in_force` is what holds where nobody says it, if it is not its default."""
    option, default = key.option, in_force if key.default is None else key.default
    told = "" if default in (None, (), {}) else f"  [default: {_in_words(default)}]"
    if key.type is bool:
        flags = f"{key.flag}/--no-{key.flag.removeprefix('--')}" if key.default else key.flag
        on = "  [default: on]" if key.default else ""
        return click.option(flags, key.name, is_flag=True, default=None, help=in_options(option.help) + on)
    several = typing.get_origin(key.type) is tuple or _is_mapping(key)
    kind: Any = str if several else key.type
    if option.choices:
        kind = common.Named(option.choices)
    return click.option(
        key.flag,
        key.name,
        type=kind,
        multiple=several,
        metavar=option.metavar or None,
        help=f"{'Repeatable. ' if several else ''}{in_options(option.help)}{told}",
    )


def _is_mapping(key: Key) -> bool:
    origin = typing.get_origin(key.type)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _in_words(default: Any) -> str:
    return ", ".join(default) if isinstance(default, tuple) else str(default)


def _pairs(name: str, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for key, separator, value in pairs:
        if not separator or not key:
            raise ConfigError(f"Expected NAME=VALUE as {setting(name)}, got {key or value!r}.")
    return {key: value for key, _, value in pairs}
