"""Text from files that anyone may have written goes in; text that no terminal obeys comes out."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """Returns `text` with control, format and unassigned characters (Unicode's categories C) replaced."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def visible_lines(text: str) -> str:
    """As `visible`, with line ends and tabs kept."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))
