"""A package's folder of templates goes in, the Jinja2 environment that fills them comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(package: str, **filters: Callable[[Any], str]) -> Environment:
    """Returns the environment of `package`'s templates; a value that is missing there is an error, not a blank.

    Names and texts of users pass one of `filters` in the templates, or are identifiers.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(filters)
    return made
