"""A model and what its app has to know go in, one header comes out: shapes, classes, preprocessing, conversions."""

from __future__ import annotations

from edgeopt.exporters.contract import Source
from edgeopt.exporters.micro.rendering import model_values, render


def file_name(source: Source) -> str:
    """Returns what the header is called: two models may live in one app."""
    return f"{source.name}_settings.h"


def settings_header(source: Source) -> str:
    """Returns the text of the header: all its names begin with the model's.

    It includes `<name>.h`, which has to define `<NAME>_INPUT_0_SCALE`, `_ZERO_POINT` (of quantized tensors) and
    `<NAME>_OUTPUT_0_SIZE`.
    """
    return render("settings.h", **model_values(source), preprocessing=source.preprocessing)
