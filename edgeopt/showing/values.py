"""A result, any dataclass, goes in; the HTML table that a notebook shows of it comes out."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

from edgeopt.showing.safe import visible

_ROWS = 50


class Shown:
    """Base of results, dataclasses, that notebooks show as tables."""

    def _repr_html_(self) -> str:
        return as_html(self)


def as_html(result: Any) -> str:
    """Returns a table of a dataclass' fields; fields that hold several dataclasses are tables inside of it."""
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_cell(value)}</td></tr>" for name, value in _fields(result))
    return f"<table>{rows}</table>"


def _fields(result: Any) -> list[tuple[str, Any]]:
    found = ((f.name.replace("_", " "), getattr(result, f.name)) for f in dataclasses.fields(result) if f.repr)
    return [(name, value) for name, value in found if value not in (None, (), "", {})]


def _cell(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_html(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        more = f"<br>and {len(value) - _ROWS} more" if len(value) > _ROWS else ""
        return "<br>".join(map(_cell, value[:_ROWS])) + more
    if isinstance(value, Mapping):
        return "<br>".join(f"{_text(key)}: {_cell(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return _text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value)


def _text(value: Any) -> str:
    return html.escape(visible(str(value)))
