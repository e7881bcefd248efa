"""`edgeopt doctor`."""

from __future__ import annotations

import click

from edgeopt.cli import common


@click.command("doctor")
@common.json_option
@common.quiet_option
def command(as_json: bool, quiet: bool) -> None:
    """Say what works on this machine, and of the rest why not and what to try.

    \b
      edgeopt doctor
    """
    import edgeopt

    with common.progress_shown(quiet=quiet or as_json):
        findings = edgeopt.examine()
    if as_json:
        common.print_json({"findings": findings})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "version", ""):
        table.add_column(heading, overflow="fold")
    kind = ""
    for finding in findings:
        if finding.kind != kind:
            kind = finding.kind
            table.add_row(f"[bold]{kind}", "", "", "")
        words = finding.detail if finding.works else f"{finding.detail} {finding.hint}".strip()
        mark = "[green]works[/]" if finding.works else "[yellow]no[/]"
        table.add_row(f"  {finding.name}", mark, finding.version, words)
    common.console().print(table)
