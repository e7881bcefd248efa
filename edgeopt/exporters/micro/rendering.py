"""A template of this folder and values go in, the text of a project's file comes out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from edgeopt.exporters.micro.ports import number, numbers
from edgeopt.exporters.names import c_string, comment

if TYPE_CHECKING:
    import jinja2


def render(template: str, **values: Any) -> str:
    """Returns `templates/<template>.j2` with `values`; a value that is missing is an error, not a blank.

    Names and texts of users pass the filters `comment` and `c_string` there.
    """
    return _environment().get_template(f"{template}.j2").render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeopt.exporters.micro"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(c_string=c_string, comment=comment, number=number, numbers=numbers)
    return environment
