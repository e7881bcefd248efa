"""Templates of an Android project: one's name and its values go in, the file's text comes out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.exporters.names import comment, java_string
from edgeopt.exporters.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, object]) -> str:
    """Returns `template` filled with `values`; a text of users passes one of the filters, or an identifier."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    filters = {"java_string": java_string, "comment": comment, "java_float": _java_float, "code": _code}
    return environment("edgeopt.exporters.android", **filters)


def _java_float(value: Any) -> str:
    """Returns a number as the shortest literal that Java and Kotlin read as the same float."""
    return f"{np.float32(value)!s}f"


def _code(text: str) -> str:
    """Returns text of users as a code span of Markdown that fits into a table."""
    plain = comment(text).replace("`", "'").replace("|", "/")
    return f"`{plain}`"
