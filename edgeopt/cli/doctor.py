"""`edgeopt doctor`."""

from __future__ import annotations

from itertools import groupby

import click

from edgeopt.cli import common


@click.command("doctor", short_help="Say what works on this machine, and why the rest does not.")
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
    from rich.text import Text

    console = common.console()
    for kind, group in groupby(findings, lambda finding: finding.kind):
        table = Table(title=kind, title_style="bold", title_justify="left", box=None, show_header=False)
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for finding in group:
            words = finding.detail
            if not finding.works and "Try" not in words:
                words = f"{words.rstrip('.')}. Try: {finding.hint}"
            mark = Text("works", "green") if finding.works else Text("no", "yellow")
            table.add_row(finding.name, mark, finding.version, words)
        console.print(table)
