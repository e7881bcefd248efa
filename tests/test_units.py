"""Sizes and times as people write them."""

from __future__ import annotations

import pytest

from edgeopt.errors import ConfigError
from edgeopt.units import parse_size, parse_time_ms


def test_sizes() -> None:
    written = {
        "64KB": 64 * 1000,
        "2GB": 2 * 10**9,
        "1GiB": 1024**3,
        "1.5MiB": 3 * 1024**2 // 2,
        "200000": 200_000,
        "2e3": 2000,
        " 7 b ": 7,
    }
    assert {text: parse_size(text) for text in written} == written
    assert parse_size(None) is None


def test_times() -> None:
    written = {"5ms": 5.0, "800us": 0.8, "800µs": 0.8, "0.2s": 200.0, "3": 3.0, "1e-05": 1e-5}
    assert {text: parse_time_ms(text) for text in written} == pytest.approx(written)
    assert parse_time_ms(None) is None


@pytest.mark.parametrize("text", ["64 apples", "-1KB", "", "1e999", "True", "9e9MiB9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"Expected a size such as 64KB, 1\.5MB or 200000, got '{text}'"):
        parse_size(text)


@pytest.mark.parametrize("text", ["-1ms", "5 minutes", "", "1e999", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"Expected a time such as 5ms, 800us or 0\.2s, got '{text}'"):
        parse_time_ms(text)
