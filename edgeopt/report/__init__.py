"""What a run found: measured variants go in; report.json, report.md, report.html and a terminal table come out."""

from __future__ import annotations

from edgeopt.report.model import (
    SCHEMA_VERSION,
    DataFacts,
    ModelFacts,
    Report,
    from_json,
    read_report,
    to_json,
)
from edgeopt.report.render import render_html, render_markdown, write_report
from edgeopt.report.terminal import ladder_lines, terminal_table
from edgeopt.report.verdict import broken_budgets, faster, headline, kept_where_chosen, smaller

__all__ = [
    "SCHEMA_VERSION",
    "DataFacts",
    "ModelFacts",
    "Report",
    "broken_budgets",
    "faster",
    "from_json",
    "headline",
    "kept_where_chosen",
    "ladder_lines",
    "read_report",
    "render_html",
    "render_markdown",
    "smaller",
    "terminal_table",
    "to_json",
    "write_report",
]
