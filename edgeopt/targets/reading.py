"""The YAML of a target goes in, a checked Target comes out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt.choices import from_mapping
from edgeopt.errors import ConfigError
from edgeopt.targets.model import LatencyModel, Source, Target

FOLDER = Path(__file__).parent
MAX_BYTES = 64 * 1024
_MAX_DEPTH = 4


@functools.cache
def read_target(path: Path) -> Target:
    """Returns the target that a data file describes.

    Raises:
        ConfigError: it is no plain YAML, a key is unknown or a value cannot be used; the message says where.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return replace(_target(_values(content)), name=path.stem)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None


def _target(values: Any) -> Target:
    if not isinstance(values, Mapping):
        raise ConfigError(f"Expected keys and values, got {values!r}. Try summary: … and kind: ….")
    readers = {"latency": lambda value: from_mapping(LatencyModel, value, "latency"), "sources": _sources}
    return from_mapping(
        Target,
        {key: readers[key](value) if key in readers else value for key, value in values.items()},
        "the top level",
    )


def _sources(values: Any) -> tuple[Source, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"Expected a list at sources, got {values!r}. Try a dash before each title.")
    return tuple(from_mapping(Source, value, f"sources[{number}]") for number, value in enumerate(values))


def _require_flat(events: Any) -> None:
    """Raises ConfigError where a few bytes could keep a parser busy, or stand for gigabytes."""
    import yaml

    depth = 0
    for event in events:
        if getattr(event, "anchor", None) is not None:
            raise ConfigError("Expected YAML without anchors and aliases, got some. Try writing them out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"Expected a target, got values more than {_MAX_DEPTH} deep.")


def _values(content: bytes) -> Any:
    import yaml

    if len(content) > MAX_BYTES:
        raise ConfigError(f"Expected at most {MAX_BYTES:,} bytes of YAML, got more.")
    try:
        _require_flat(yaml.parse(content, Loader=yaml.SafeLoader))
        return yaml.safe_load(content)
    # Numbers and dates that cannot be, and bytes that are no text, are no YAMLError.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"Expected YAML, got what is none: {' '.join(str(error).split())}.") from None
