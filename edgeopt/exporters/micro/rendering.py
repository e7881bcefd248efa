"""A template of this folder and values go in, the text of a project's file comes out."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from edgeopt.exporters.micro.ports import number, numbers
from edgeopt.exporters.names import c_string, comment
from edgeopt.exporters.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Returns `templates/<template>.j2` with `values`."""
    return _environment().get_template(f"{template}.j2").render(values)


@cache
def _environment() -> Environment:
    return environment("edgeopt.exporters.micro", c_string=c_string, comment=comment, number=number, numbers=numbers)
