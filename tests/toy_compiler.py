"""A compiler for tests: a `.tflite` goes in, a file of the toy format comes out."""

from __future__ import annotations

from collections.abc import Mapping

from edgeopt.compilers.contract import Compiled


def compile_content(content: bytes, settings: Mapping[str, str]) -> Compiled:
    """Returns one operator of so many weights as the settings say."""
    return Compiled(f"TOY\ntoy-core {settings['weights']}\n".encode())
