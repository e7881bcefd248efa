"""The options of `edgeopt benchmark` that name an Android device, and what they add to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.errors import ConfigError

if TYPE_CHECKING:
    from edgeopt.benchmarking import Benchmark, Row

device_options = common.options(
    click.option("--device", metavar="adb[:SERIAL]", help="An Android device; with --runtime this machine too."),
    click.option(
        "--benchmark-model",
        type=click.Path(path_type=Path),
        help="LiteRT's benchmark_model, built for the device; it is pushed there and removed at the end.",
    ),
    click.option("--gpu", is_flag=True, help="Time them on the device's GPU as well."),
    click.option(
        "--merge",
        "report",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Add the device's rows to the report there, to the variants that are these files.",
    ),
)


def rows(
    files: Sequence[Path], device: str | None, benchmark_model: Path | None, report: Path | None, **settings: Any
) -> tuple[Row, ...]:
    """Returns the rows of the device that the options name, none without one; `report` has them too then.

    Raises:
        ConfigError: one of the options was given without those that it needs.
    """
    if device is None:
        if benchmark_model is not None or settings["gpu"] or report is not None:
            raise ConfigError("Expected --device adb with --benchmark-model, --gpu and --merge, got none.")
        return ()
    if benchmark_model is None:
        raise ConfigError("Expected --benchmark-model FILE with --device, got none. Try LiteRT's build for the device.")
    from edgeopt.api.device import benchmark_on_device

    if report is None:
        return benchmark_on_device(files, benchmark_model, device=device, **settings)
    from edgeopt.files import sha256
    from edgeopt.report import read_report, write_report
    from edgeopt.report.merging import merged

    before = read_report(report)
    measured = benchmark_on_device(files, benchmark_model, device=device, **settings)
    results = {sha256(file): [row.result for row in measured if row.file == file] for file in files}
    write_report(merged(before, results), report if report.is_dir() else report.parent)
    return measured


def combined(here: Benchmark | None, there: tuple[Row, ...]) -> Benchmark:
    """Returns the rows of this machine, where it was asked for, and of the device as one result."""
    if not there:
        assert here is not None
        return here
    note = "adb rows were measured on the device; the machine told here is the one it is connected to"
    if here is None:
        from edgeopt import machine
        from edgeopt.benchmarking import Benchmark

        return Benchmark(there, machine.describe(), machine.versions(), (), (note,))
    return replace(here, rows=(*here.rows, *there), notes=(*here.notes, note))
