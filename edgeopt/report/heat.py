"""What a model loses by each of its layers goes in; a heat map comes out: SVG, and a page that holds it."""

from __future__ import annotations

import html
import math
from importlib import resources
from pathlib import Path

from edgeopt.files import atomic_write
from edgeopt.report.words import MINUS
from edgeopt.vocabulary import Loss, Sensitivity

# From which dB on a layer is of each shade, 0 the darkest: nothing left, bad, worth a look, good.
SHADES = (10.0, 20.0, 30.0, 40.0)
_ROW, _COLUMN, _LEFT, _TOP = 20, 92, 250, 28
_CHARACTERS = 34


def shade(sqnr_db: float) -> int:
    """Returns how bad a loss is: 0 where nothing is left, up to len(SHADES) where it does not matter."""
    return len(SHADES) if math.isnan(sqnr_db) else sum(sqnr_db >= limit for limit in SHADES)


def cell(loss: Loss) -> str:
    """Returns a loss in a few characters: dB, and the points or per cent lost where they were measured."""
    number = decibels(loss.sqnr_db)
    return number + ("" if loss.exact is None else f" {loss.exact.value:+.1f}".replace("-", MINUS))


def decibels(sqnr_db: float) -> str:
    """Returns a signal to noise as it is shown; an infinite one comes out of a report's file as NaN."""
    return "∞" if math.isnan(sqnr_db) or sqnr_db == math.inf else f"{sqnr_db:.1f}".replace("-", MINUS)


def exact_words(loss: Loss, unit: str) -> str:
    """Returns in words what was measured of the score; "" where nothing was."""
    if loss.exact is None:
        return ""
    one = loss.exact
    doubt = "" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]"
    return f"{one.value:.2f} {unit} lost{doubt}"


def svg(found: Sensitivity) -> str:
    """Returns the heat map: a row for each layer, a column for each choice; a frame where the score was measured."""
    width, height = _LEFT + _COLUMN * len(found.choices), _TOP + _ROW * (len(found.layers) + 1) + 4
    unit = "points" if found.metric is not None and found.metric.is_share else "%"
    parts = [
        f'<svg class="heatmap" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        'aria-label="What the outputs lose by each layer alone, in dB">'
    ]
    for column, choice in enumerate(found.choices):
        parts.append(f'<text x="{_x(column)}" y="{_TOP - 10}" text-anchor="middle">{html.escape(choice)}</text>')
    for row, layer in enumerate(found.layers):
        name = html.escape(layer.layer if len(layer.layer) <= _CHARACTERS else layer.layer[: _CHARACTERS - 1] + "…")
        parts.append(f'<text x="{_LEFT - 8}" y="{_y(row) + 14}" text-anchor="end">{name}</text>')
        parts += [
            _drawn(found.choices.index(choice), row, loss, f"{layer.layer}, {choice}", unit)
            for choice, loss in layer.losses.items()
        ]
    last = len(found.layers)
    parts.append(f'<text x="{_LEFT - 8}" y="{_y(last) + 18}" text-anchor="end" class="all">all at once</text>')
    parts += [
        _drawn(found.choices.index(choice), last, loss, f"all layers, {choice}", unit, down=4)
        for choice, loss in found.together.items()
    ]
    return "\n".join([*parts, "</svg>"])


def page(found: Sensitivity, title: str) -> str:
    """Returns an HTML page with the heat map; it needs no other file."""
    css = resources.files("edgeopt.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    scored = ""
    if found.metric is not None:
        scored = (
            f" A frame, and the second number, where the score itself was measured ({found.metric.name}, "
            f"{found.metric.samples:,} samples): what is lost of it, with its interval under the pointer."
        )
    notes = "".join(f"<p>Note: {html.escape(note)}</p>" for note in found.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title>
<style>
{css}
</style>
</head>
<body>
<p class="kicker">edgeopt sensitivity</p>
<h1>{html.escape(title)}</h1>
<p>Signal to noise of the outputs, in dB, when one layer alone is changed ({found.samples:,} samples, no labels): at 20
the noise is a tenth of the signal, at 0 nothing of it is left. Of “float” all layers are in int8 but this one.
{html.escape(scored)}</p>
<div class="scroll">
{svg(found)}
</div>
{notes}
</body>
</html>
"""


def write_page(found: Sensitivity, file: Path, title: str) -> None:
    """Writes `page` into a file."""
    atomic_write(file, page(found, title))


def _x(column: int) -> float:
    return _LEFT + _COLUMN * (column + 0.5)


def _y(row: int) -> int:
    return _TOP + _ROW * row


def _drawn(column: int, row: int, loss: Loss, where: str, unit: str, *, down: int = 0) -> str:
    level, y = shade(loss.sqnr_db), _y(row) + down
    words = ", ".join(filter(None, (f"{where}: {decibels(loss.sqnr_db)} dB", exact_words(loss, unit))))
    frame, x = " exact" if loss.exact is not None else "", _x(column)
    return (
        f'<rect class="heat heat{level}{frame}" x="{_LEFT + _COLUMN * column + 1}" y="{y + 1}" width="{_COLUMN - 2}" '
        f'height="{_ROW - 2}"><title>{html.escape(words)}</title></rect>'
        f'<text class="in in{level}" x="{x}" y="{y + 14}" text-anchor="middle">{html.escape(cell(loss))}</text>'
    )
