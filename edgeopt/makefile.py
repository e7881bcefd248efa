"""Nothing goes in; the path of the packaged pattern rules for make comes out."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """Returns the path of `edgeopt.mk`, for `include $(shell edgeopt makefile)` in any Makefile."""
    return Path(__file__).with_name("edgeopt.mk")
