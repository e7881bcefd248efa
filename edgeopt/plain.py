"""Dataclasses go in and plain JSON values come out, and back: the one way results are written and read."""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union

from edgeopt.errors import DataError, suggestion

if TYPE_CHECKING:
    import numpy as np

Result = TypeVar("Result")
_ANEW = " Try writing the report anew."


# The one key of what stands in the place of an array that was set aside.
_ARRAY = "$array"


def to_plain(value: Any, *, arrays: dict[str, np.ndarray] | None = None) -> Any:
    """Returns dataclasses, tuples, paths and NumPy scalars as what JSON knows; NaN and infinities become None.

    Args:
        value: what to write.
        arrays: receives the arrays, whose numbers then stand in their places; infinities stay what they are, as
            Python's own `json` writes them. Without it arrays become lists.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), arrays=arrays) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, arrays=arrays) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item, arrays=arrays) for item in value)
    if isinstance(value, (list, tuple)):
        return [to_plain(item, arrays=arrays) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return to_plain(value.item(), arrays=arrays)
    if hasattr(value, "tolist"):
        if arrays is None:
            return to_plain(value.tolist())
        arrays[str(len(arrays))] = value
        return {_ARRAY: str(len(arrays) - 1)}
    if isinstance(value, float) and not math.isfinite(value) and arrays is None:
        return None
    return value


def from_plain(
    kind: type[Result],
    value: Any,
    where: str = "value",
    *,
    derived: Mapping[Any, set[str]] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Result:
    """Returns what `to_plain` wrote as the dataclass `kind`; a None in place of a float becomes NaN.

    Args:
        kind: the dataclass.
        value: plain JSON.
        where: what to call `value` in messages.
        derived: keys by dataclass that are written for readers and not read back.
        arrays: those that `to_plain` set aside.

    Raises:
        DataError: a key is missing, unknown or of another type; the message names it.
    """
    whole = value if arrays is None else _with_arrays(value, arrays)
    built: Result = _build(kind, whole, where, derived or {})
    return built


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns plain values with the arrays back in their places."""
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return value


def _build(hint: Any, value: Any, where: str, derived: Mapping[Any, set[str]]) -> Any:
    """Returns `value`, plain JSON, as the type `hint`: a dataclass, tuple, mapping, optional or leaf."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, value, where, derived)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _build(inner, value, where, derived)
    if origin is tuple:
        items = _expect(list, value, where)
        each = arguments[0] if arguments[-1] is ... else None
        return tuple(_build(each or arguments[i], item, f"{where}[{i}]", derived) for i, item in enumerate(items))
    if origin is typing.Literal:
        if value not in arguments:
            raise DataError(f"Expected {' or '.join(map(repr, arguments))} at {where}, got {value!r}.{_ANEW}")
        return value
    if origin is frozenset:
        return frozenset(_build(arguments[0], item, where, derived) for item in _expect(list, value, where))
    if origin is not None and issubclass(origin, Mapping):
        return {k: _build(arguments[1], v, f"{where}.{k}", derived) for k, v in _expect(dict, value, where).items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(_expect(str, value, where))
    if hint is Path:
        return Path(_expect(str, value, where))
    if getattr(hint, "__name__", "") == "ndarray":
        import numpy as np  # here alone: command lines that print plain values do without

        if isinstance(value, np.ndarray):
            return value
        return np.asarray(_expect(list, value, where))
    if hint is float:
        return math.nan if value is None else float(_expect((int, float), value, where))
    return _expect(hint, value, where) if hint in (str, int, bool) else value


def _build_dataclass(hint: Any, value: Any, where: str, derived: Mapping[Any, set[str]]) -> Any:
    _expect(dict, value, where)
    hints = typing.get_type_hints(hint)
    keys = set(value) - derived.get(hint, set())
    required = {
        f.name
        for f in dataclasses.fields(hint)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if unknown := sorted(keys - set(hints)):
        raise DataError(f"Unknown key {unknown[0]!r} in {where}.{suggestion(unknown[0], hints)}")
    if missing := sorted(required - keys):
        raise DataError(f"Expected {', '.join(missing)} in {where}, got nothing there.{_ANEW}")
    return hint(**{key: _build(hints[key], value[key], f"{where}.{key}", derived) for key in keys})


def _expect(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"Expected {names} at {where}, got {value!r}.{_ANEW}")
    return value
