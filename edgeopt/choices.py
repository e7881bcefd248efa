"""What a person may choose: fields of frozen dataclasses, each a recipe key and a command-line option of one name.

A field carries its help, its limits and its choices; the command line, the recipe reader and the generated docs read
them from there, and whatever way a value came, the same check meets it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import types
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union, cast

from edgeopt.errors import ConfigError, place, setting, suggestion

Said = TypeVar("Said", bound="Choices")


@dataclass(frozen=True)
class Range:
    """Numbers that a search tries.

    Attributes:
        low, high: both may be tried.
        log: by their ratios: as many between 1 and 2 as between 2 and 4.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Option:
    """What is known of a field beside its type and default.

    Attributes:
        help: one line; other settings in it are marked (`errors.setting`).
        choices: the names it may have; any when empty.
        low, high: limits that it may reach; None where there is none.
        above, below: limits that it may not reach.
        hint: what to try when it is out of its limits.
        metavar: what stands for the value in help texts.
        tried: what a search tries where nobody says it; nothing but the default when empty.
        only_with: another field, and the value that it has to have for this one to count.
    """

    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    hint: str = ""
    metavar: str = ""
    tried: Range | tuple[Any, ...] = ()
    only_with: tuple[str, Any] | None = None

    @property
    def limits(self) -> str:
        """The limits in words, "" where there are none."""
        words = {"at least": self.low, "more than": self.above, "at most": self.high, "less than": self.below}
        return " and ".join(f"{word} {limit:.10g}" for word, limit in words.items() if limit is not None)


def option(default: Any, help: str, **limits: Any) -> Any:
    """Returns a dataclass field with `default` that carries an Option; `limits` are its other fields."""
    metadata = {"option": Option(help, **limits)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Key:
    """A field as its readers see it: name, the type without None, whether it repeats, default and Option."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")


def keys(kind: type[Choices]) -> tuple[Key, ...]:
    """Returns the fields of `kind` that a person may set, its own first, then its bases' in their order."""
    # mypy takes the __hash__ of a class's instances for its own.
    return _keys(cast(Any, kind))


@functools.cache
def _keys(kind: Any) -> tuple[Key, ...]:
    hints = typing.get_type_hints(kind)
    found = [
        Key(f.name, _without_none(hints[f.name]), _default(f), f.metadata["option"])
        for f in dataclasses.fields(kind)
        if "option" in f.metadata
    ]
    return tuple(sorted(found, key=lambda key: _declaration(kind, key.name)))


def checked(key: Key, value: Any) -> Any:
    """Returns a value as the type of a field.

    Raises:
        ConfigError: it cannot be that, or is out of its limits.
    """
    return None if value is None and key.default is None else _checked(key, value)


def _declaration(kind: type, name: str) -> tuple[int, int]:
    """Returns which class of `kind`'s line declares the field, nearest first, and as which of its fields."""
    lines = (list(inspect.get_annotations(base)) for base in kind.__mro__)
    return next((depth, names.index(name)) for depth, names in enumerate(lines) if name in names)


def from_mapping(kind: type[Said], values: Any, where: str) -> Said:
    """Returns `values`, as a recipe spells them, as `kind`.

    Raises:
        ConfigError: it is no mapping, a key is unknown, or a value cannot be used; the message says where.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"Expected keys and values at {where}, got {values!r}. Try {where}: {{}}.")
    known = {key.name for key in keys(kind)}
    for name in values:
        if name not in known:
            raise ConfigError(f"Unknown key {name!r} at {where}.{suggestion(str(name), known)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{place(where)}{error.marked}") from None


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _checked(key: Key, value: Any) -> Any:
    """Returns `value` as the field's type.

    Raises:
        ConfigError: it cannot be that, or is out of its limits.
    """
    origin = typing.get_origin(key.type)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _unexpected(key, "a list", value)
        kind = typing.get_args(key.type)[0]
        return tuple(_chosen(key, _of_type(key, kind, item)) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _unexpected(key, "names with a value each", value)
        kind = typing.get_args(key.type)[1]
        each = {_of_type(key, str, name): _of_type(key, kind, item) for name, item in value.items()}
        return {name: _limited(key, item) if kind is float else item for name, item in each.items()}
    value = _chosen(key, _of_type(key, key.type, value))
    return _limited(key, value) if key.type in (int, float) else value


def _chosen(key: Key, value: Any) -> Any:
    choices = key.option.choices
    if choices and value not in choices:
        raise ConfigError(
            f"Expected one of {', '.join(choices)} as {setting(key.name)}, got {value!r}.{suggestion(value, choices)}"
        )
    return value


def _of_type(key: Key, kind: type, value: Any) -> Any:
    # YAML 1.1 reads 1e-3, without a point, as text.
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise _unexpected(key, names.get(kind, kind.__name__), value)
    # Control characters would reach terminals, and YAML does not keep all of them.
    if isinstance(value, str) and any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise _unexpected(key, "one line of text", value)
    return value


def _limited(key: Key, value: float) -> float:
    option = key.option
    within = (
        math.isfinite(value)
        and (option.low is None or value >= option.low)
        and (option.above is None or value > option.above)
        and (option.high is None or value <= option.high)
        and (option.below is None or value < option.below)
    )
    if not within:
        raise _unexpected(key, option.limits or "a number", value)
    return value


def _unexpected(key: Key, expected: str, value: Any) -> ConfigError:
    hint = f" Try {key.option.hint}." if key.option.hint else ""
    return ConfigError(f"Expected {expected} as {setting(key.name)}, got {value!r}.{hint}")


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return next(argument for argument in typing.get_args(hint) if argument is not type(None))
    return hint


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Base of everything a person may choose: checks its fields against their options.

    Raises:
        ConfigError: a value is of another type than its field, out of its limits or none of its choices.
    """

    def __post_init__(self) -> None:
        for key in keys(type(self)):
            value = getattr(self, key.name)
            if value is not None or key.default is not None:
                object.__setattr__(self, key.name, _checked(key, value))

    def said(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults."""
        return {k.name: getattr(self, k.name) for k in keys(type(self)) if getattr(self, k.name) != k.default}

    def over(self: Said, other: Choices) -> Said:
        """Returns this with what is None here taken from the fields of the same names of `other`."""
        theirs = {k.name: getattr(other, k.name) for k in keys(type(other))}
        missing = {
            k.name: theirs[k.name] for k in keys(type(self)) if getattr(self, k.name) is None and k.name in theirs
        }
        return dataclasses.replace(self, **missing)
