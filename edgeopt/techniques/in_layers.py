"""The layers of a file and what a person said of them go in; the names of those that are meant come out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from edgeopt.errors import ConfigError, setting, suggestion


def chosen_layers(there: Sequence[tuple[str, str]], layers: Sequence[str], spare: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of layers in their order.

    A word means what has it as name, as a part of its name ("conv2d" of "net/conv2d/Conv2D;net/relu"), or as operator,
    and what its glob matches.

    Args:
        there: name and operator of each.
        layers: only these; all where empty.
        spare: all but these.

    Raises:
        ConfigError: a word means no layer, or none is left.
    """
    for key, words in (("layers", layers), ("spare", spare)):
        for word in words:
            if not any(_means(word, *layer) for layer in there):
                known = sorted({part for name, kind in there for part in (kind, *_parts(name))})
                raise ConfigError(
                    f"Expected names, operators or globs of layers as {setting(key)}, got {word!r}, which no layer "
                    f"of the file has.{suggestion(word, known)}"
                )
    found = [
        (name, kind)
        for name, kind in there
        if (not layers or any(_means(word, name, kind) for word in layers))
        and not any(_means(word, name, kind) for word in spare)
    ]
    if there and not found:
        raise ConfigError(
            f"Expected some layers to be left, got {setting('layers', ' '.join(layers) or '(all)')} and "
            f"{setting('spare', ' '.join(spare))}. Try sparing fewer."
        )
    return tuple(name for name, _ in found)


def _means(word: str, name: str, kind: str) -> bool:
    return word == kind or any(fnmatch.fnmatchcase(part, word) for part in (name, *_parts(name)))


def _parts(name: str) -> list[str]:
    return [part for part in re.split("[;/]", name) if part]
