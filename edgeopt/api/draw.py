"""A converted file goes in, a picture of its graph comes out, coloured by what it holds or by what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeopt import drawing, files, formats
from edgeopt.drawing import colouring
from edgeopt.drawing.colouring import COLOURS, MEASURED, Colouring
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.formats import signatures
from edgeopt.formats.contract import FileFacts
from edgeopt.plain import from_plain
from edgeopt.tflite.model import printable
from edgeopt.vocabulary import LayerError, OperatorTime


def draw(
    file: Path | str,
    output: Path | str,
    *,
    colour: str = "kind",
    measured: Path | str | None = None,
    signature: str | None = None,
    force: bool = False,
) -> Path:
    """Draws the graph of a converted file as an SVG.

    Args:
        file: of a format of `formats.FORMATS`.
        output: the picture.
        colour: one of COLOURS: "bytes" of weights, "macs", measured "time" or "error", or the "kind" of operator.
        measured: what the command of MEASURED printed, for "time" and "error".
        signature: of a `.tflite` that has several, which is drawn alone; all graphs when None.
        force: write over a file that is there.

    Raises:
        ConfigError: there is no such colour, it needs a measurement, or none; or `output` is taken.
        DataError: `measured` holds no such measurement of this file.
        ModelError: the file is of no such format, or cannot be read.
    """
    file, output = Path(file), Path(output)
    files.require_free(output, force=force)
    if not formats.is_converted(file):
        suffixes = " or ".join(row.suffix for row in formats.FORMATS.values())
        raise ModelError(
            f"Expected a {suffixes} to draw, got {file}. Try edgeopt view {file}, which shows models of every format."
        )
    with signatures.of(file, signature) as (one, _):
        facts = formats.facts(one)
        colours = _colouring(facts, file, colour, measured)
        files.atomic_write(output, drawing.svg(facts, printable(file.name), colours))
    return output


def _colouring(facts: FileFacts, file: Path, colour: str, measured: Path | str | None) -> Colouring | None:
    if colour not in COLOURS:
        raise ConfigError(f"Expected one of {', '.join(COLOURS)} as colour, got {colour!r}.")
    if (colour in MEASURED) != (measured is not None):
        wanted = f"a measurement: edgeopt {MEASURED[colour]}" if colour in MEASURED else "no measurement"
        raise ConfigError(f"Expected {wanted}, for the colour {colour}, got {measured or 'none'}.")
    if measured is None:
        return None if colour == "kind" else colouring.COUNTED[colour](facts)
    found = _read(Path(measured), colour)
    if colour == "error":
        layers = from_plain(tuple[LayerError, ...], found.get("layers"), "layers")
        return _known(colouring.by_error(facts, layers), file, measured)
    rows = [row for row in found.get("rows") or () if isinstance(row, dict) and row.get("operators")]
    rows = [row for row in rows if Path(str(row.get("file"))).name == file.name] or rows
    if not rows:
        raise _other(file, measured, "it has no profile: --profile was not given, or no runtime tells one")
    where = printable(str((rows[0].get("result") or {}).get("name")))
    profile = from_plain(tuple[OperatorTime, ...], rows[0]["operators"], "operators")
    return _known(colouring.by_time(facts, profile, where), file, measured)


def _read(measured: Path, colour: str) -> dict[str, Any]:
    try:
        found = json.loads(measured.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Expected what `edgeopt {MEASURED[colour]}` prints, got {measured}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"Expected what `edgeopt {MEASURED[colour]}` prints, got {measured}, which is no object.")
    return found


def _known(found: Colouring, file: Path, measured: Path | str) -> Colouring:
    if all(shade.share is None for shade in found.shades):
        raise _other(file, measured, "none of its tensors are in it")
    return found


def _other(file: Path, measured: Path | str, why: str) -> DataError:
    return DataError(f"Expected a measurement of {file.name}, got {measured}: {why}. Try measuring this file.")
