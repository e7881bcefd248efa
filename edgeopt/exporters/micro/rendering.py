"""A template of this folder and values go in, the text of a project's file comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from edgeopt import __version__
from edgeopt.exporters.contract import Source
from edgeopt.exporters.micro.ports import number, numbers, ports
from edgeopt.exporters.names import c_string, comment
from edgeopt.exporters.templates import environment

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Returns `templates/<template>.j2` with `values`."""
    return _environment().get_template(f"{template}.j2").render(values)


def model_values(source: Source) -> dict[str, Any]:
    """Returns what every template may say of the model."""
    return {
        "source": source,
        "name": source.name,
        "NAME": source.name.upper(),
        "inputs": ports(source.model.inputs, "input"),
        "outputs": ports(source.model.outputs, "output"),
    }


def project_values(source: Source, expected: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Returns that, our version, and the self-test's samples with the outputs that are `expected` of them."""
    return {
        **model_values(source),
        "version": __version__,
        "samples": [
            {
                "inputs": [sample[spec.name] for spec in source.model.inputs],
                "outputs": [result[spec.name] for spec in source.model.outputs],
            }
            for sample, result in zip(source.samples, expected)
        ],
    }


@cache
def _environment() -> Environment:
    return environment("edgeopt.exporters.micro", c_string=c_string, comment=comment, number=number, numbers=numbers)
