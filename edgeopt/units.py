"""Sizes, times and shapes as people write them go in, "64KB", "5ms" or "1,64,64,3"; bytes, ms and tuples come out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeopt.errors import ConfigError

_NUMBER = r"\s*([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*"
_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_MILLISECONDS = {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def parse_size(text: str | None) -> int | None:
    """Returns a size such as "64KB" or "1.5MiB" in bytes.

    Raises:
        ConfigError: it is no size.
    """
    if text is None:
        return None
    match = re.fullmatch(_NUMBER + r"([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _BYTES or (size := float(match[1]) * _BYTES[match[2].lower()]) > 2**63:
        raise ConfigError(f"Expected a size such as 64KB, 1.5MB or 200000, got {text!r}.")
    return int(size)


def parse_time_ms(text: str | None) -> float | None:
    """Returns a time such as "5ms", "800us" or "0.2s" in milliseconds.

    Raises:
        ConfigError: it is no time.
    """
    if text is None:
        return None
    match = re.fullmatch(_NUMBER + r"(us|µs|ms|s|)\s*", text)
    if match is None or (time_ms := float(match[1]) * _MILLISECONDS[match[2]]) == float("inf"):
        raise ConfigError(f"Expected a time such as 5ms, 800us or 0.2s, got {text!r}.")
    return time_ms


def parse_duration_s(text: str | None) -> float | None:
    """Returns a duration such as "30m", "90s" or "2h" in seconds.

    Raises:
        ConfigError: it is none, or no time at all.
    """
    if text is None:
        return None
    match = re.fullmatch(_NUMBER + r"(s|min|m|h|)\s*", text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"Expected a duration such as 90s, 30m or 2h, got {text!r}.")
    return seconds


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns shapes such as "image=1,64,64,3" by name; "" is the name of one without.

    Raises:
        ConfigError: one is no shape, or there are two for a name.
    """
    sizes = parse_sizes(texts)
    if len(sizes) > 1:
        raise ConfigError(f"Expected one shape for an input, got {' and '.join(texts)}. Try one of them at a time.")
    return dict(sizes[0]) if sizes else {}


def parse_sizes(texts: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Returns shapes as `parse_shapes` does, several sets of them where names are said more than once.

    The second shape of a name is of the second set; a name that is said once has one shape in all of them.

    Raises:
        ConfigError: one is no shape, or names are said so many times that it cannot be told what belongs together.
    """
    each: dict[str, list[tuple[int, ...]]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not re.fullmatch(r"\s*[1-9]\d{0,8}(\s*,\s*[1-9]\d{0,8})*\s*", sizes):
            raise ConfigError(f"Expected a shape such as 1,64,64,3 or NAME=1,64,64,3, the batch first, got {text!r}.")
        each.setdefault(name, []).append(tuple(int(size) for size in sizes.split(",")))
    count = max(map(len, each.values()), default=0)
    if odd := [name for name, shapes in each.items() if len(shapes) not in (1, count)]:
        raise ConfigError(
            f"Expected as many shapes for each input, or one for all, got {len(each[odd[0]])} for {odd[0]!r} and "
            f"{count} for another. Try NAME=SIZES {count} times."
        )
    return tuple(
        {name: shapes[min(number, len(shapes) - 1)] for name, shapes in each.items()} for number in range(count)
    )
