"""A table and a terminal's width go in; the columns that have room there, and the names of the others, come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Column, Table

# Characters behind each column, and how narrow a column whose words may be broken becomes if it does not say.
_GAP = 2
_NARROWEST = 12


def narrowed(table: Table, width: int, spare: Sequence[str]) -> Table:
    """Takes columns from a table in place, until the rest has room in `width` with nothing cut off; returns it.

    A line below names what went.

    Args:
        table: without a box; its columns are found by their headers.
        width: in characters.
        spare: headers of the columns that may go, the first to go first.
    """
    gone = []
    for header in spare:
        if sum(_least(column) + _GAP for column in table.columns) <= width:
            break
        kept = [column for column in table.columns if column.header != header]
        gone += [header] * (len(kept) < len(table.columns))
        # Rich asks a column for its place, to know where the edges are.
        table.columns = [dataclasses.replace(column, _index=place) for place, column in enumerate(kept)]
    if gone:
        table.caption = f"no room for {', '.join(gone)}: a wider terminal or --json shows all"
        table.caption_justify = "left"
    return table


def _least(column: Column) -> int:
    """Returns how many characters a column takes at least."""
    widest = max(len(line) for text in (column.header, *column.cells) for line in str(text).split("\n"))
    return widest if column.no_wrap else min(widest, column.min_width or _NARROWEST)
