"""`edgeopt targets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeopt.cli import common

if TYPE_CHECKING:
    from edgeopt.targets import Target


@click.command("targets", short_help="Show the devices that edgeopt knows: what each has and runs.")
@click.argument("name", required=False, metavar="[NAME|FILE.yaml]")
@common.json_option
def command(name: str | None, as_json: bool) -> None:
    """Show the devices that --target takes, or one of them in full, with the documents its figures come from.

    A data file of one's own is a target too: copy one of edgeopt's.

    \b
      edgeopt targets cortex-m4
    """
    from edgeopt import targets

    if name is None:
        known = list(targets.TARGETS.values())
        common.print_json({"targets": known}) if as_json else _list(known)
        return
    found = targets.target(name)
    common.print_json(found) if as_json else _show(found)


def _list(known: list[Target]) -> None:
    from rich.table import Table

    from edgeopt.showing.narrow import narrowed
    from edgeopt.targets import how

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("target", "kind", "flash", "RAM", "runtimes", "best scheme", "latency"):
        table.add_column(header, no_wrap=True, justify="right" if header in ("flash", "RAM") else "left")
    for target in known:
        flash, ram = (size_in_words(size) for size in (target.flash_bytes, target.ram_bytes))
        runtimes = ", ".join(target.runtimes)
        table.add_row(
            target.name, target.kind, flash, ram, runtimes, target.best_scheme, how(target) or "on the device"
        )
    console = common.console()
    console.print(narrowed(table, console.width, ("best scheme", "kind", "runtimes", "latency")))


def size_in_words(size: int | None) -> str:
    """Returns 655360 as "640 KiB", "" for no limit."""
    if size is None:
        return ""
    for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << bits:
            return f"{size / (1 << bits):.4g} {unit}"
    return f"{size} bytes"


def _show(target: Target) -> None:
    from rich.table import Table
    from rich.text import Text

    latency = target.latency
    rates = {kind: getattr(latency, kind) for kind in ("float32", "int8", "int16x8")}
    rows: dict[str, str] = {
        "kind": target.kind,
        "board": target.board,
        "flash": size_in_words(target.flash_bytes),
        "RAM": size_in_words(target.ram_bytes),
        "runtimes": ", ".join(target.runtimes),
        "best scheme": target.best_scheme,
        **{
            words: "\n".join(f"{name}: {why}" for name, why in said.items())
            for words, said in (("runs well", target.well), ("runs", target.runs), ("refuses", target.refused))
        },
        "fast kernels": ", ".join(target.operators),
        **target.techniques,
        "latency": latency.kind,
        "clock": f"{latency.clock_hz / 1e6:g} MHz" if latency.clock_hz else "",
        "compiler": ", ".join((target.compiler, *target.compiler_settings.values())),
        "cycles for a MAC": "\n".join(
            f"{kind}: {', '.join(f'{name} {cycles:g}' for name, cycles in table.items())}"
            for kind, table in rates.items()
            if table
        ),
        "derived": latency.derivation,
        "notes": "\n".join(target.notes),
        "sources": "\n".join(f"{source.title}\n  {source.url}\n  {source.says}" for source in target.sources),
    }
    table = Table(title=f"{target.name}: {target.summary}", box=None, pad_edge=False, show_header=False)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column(style="bold", max_width=16)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    common.console().print(table)
