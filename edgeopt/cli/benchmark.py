"""`edgeopt benchmark`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.cli import device as devices
from edgeopt.errors import ModelError
from edgeopt.runtimes import adb

if TYPE_CHECKING:
    from edgeopt.benchmarking import Benchmark, Row


@click.command("benchmark", short_help="Time converted files: percentiles, load time, memory, profile.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@common.data_options(required=False)
@common.runtime_option
@common.threads_option
@click.option("--runs", type=click.IntRange(1), help="Timed inferences of each file; by default half a second's worth.")
@click.option("--warmup", type=click.IntRange(0), default=10, show_default=True, help="Untimed ones first, at least.")
@click.option("--profile", is_flag=True, help="Time every operator too.")
@common.shape_option
@common.delegate_options
@devices.device_options
@common.signature_option
@common.code_option
@common.seed_option
@common.json_option
@common.quiet_option
def command(
    files: tuple[Path, ...],
    runtimes: tuple[str, ...],
    threads: int,
    runs: int | None,
    warmup: int,
    profile: bool,
    shapes: tuple[str, ...],
    delegate: Path | None,
    delegate_settings: tuple[str, ...],
    device: str | None,
    benchmark_model: Path | None,
    gpu: bool,
    report: Path | None,
    signature: str | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Time converted files on this machine: percentiles, load time, memory, share delegated, per-operator profile.

    On a simulated microcontroller (--runtime qemu-cortex-m4): instructions, flash and RAM, and no time. On an Android
    device (--device adb): what LiteRT's program benchmark_model measures there.

    Files take turns, so that a busy machine slows all of them alike; ratios are to the first file.

    \b
      edgeopt benchmark model.float32.tflite model.int8.tflite --runtime litert --threads 2
    """
    import edgeopt
    from edgeopt.units import parse_shapes

    if trust:
        common.allow_code(files)
    dataset = common.load_data(**data)
    with common.progress_shown(quiet=quiet or as_json):
        settings = {"gpu": gpu, "threads": threads, "runs": runs, "warmup": warmup, "profile": profile}
        there = devices.rows(files, device, benchmark_model, report, **settings)
        here = None
        if runtimes or not there:
            here = edgeopt.benchmark(
                files,
                runtimes=runtimes,
                threads=threads,
                runs=runs,
                warmup=warmup,
                profile=profile,
                delegate=common.delegate_from(delegate, delegate_settings),
                inputs=None if dataset is None else dataset.calibration,
                shapes=parse_shapes(shapes),
                signature=signature,
                seed=data["seed"],
            )
    result = devices.combined(here, there)
    if not any(row.result.latency_ms or row.result.footprint for row in result.rows):
        raise ModelError(f"Nothing ran. {' '.join(dict.fromkeys(row.result.reason for row in result.rows))}")
    common.print_json(result) if as_json else _show(result)


def _show(result: Benchmark) -> None:
    console = common.console()
    files = dict.fromkeys(row.file for row in result.rows)
    runtimes = dict.fromkeys(f"{row.result.name} {row.result.version}" for row in result.rows)
    labels = {id(row): _label(row, files, several_runtimes=len(runtimes) > 1) for row in result.rows}
    if any(row.result.footprint is None for row in result.rows):
        console.print(_times(result, labels))
    if any(row.result.footprint for row in result.rows):
        console.print(_footprints(result, labels))
    for row in result.rows:
        if row.result.reason:
            console.print(f"{row.file}, {row.result.name}: {row.result.status}: {row.result.reason}")
        if row.operators:
            console.print(_profile(row.file, row.operators))
    notes = [f"{labels[id(row)]}: {note}" if labels[id(row)] else note for row in result.rows for note in row.notes]
    for note in dict.fromkeys((*notes, *result.notes)):
        console.print(f"note: {note}")
    console.print(f"{', '.join(runtimes)}; {result.machine.describe()}")


def _times(result: Benchmark, labels: Mapping[int, str]) -> Any:
    from rich.table import Table

    timed = [row for row in result.rows if row.result.footprint is None]
    only_file, only_runtime = _only(timed)
    title = f"Milliseconds of one inference{only_file}{only_runtime}"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("p50", "p90", "p99", "ratio [95 %]", "load", "MB", "delegated"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in timed:
        one, ratio = row.result, row.ratio
        if one.latency_ms is None:
            table.add_row(labels[id(row)], one.status)
            continue
        times = (one.latency_ms.p50, one.latency_ms.p90, one.latency_ms.p99)
        table.add_row(
            labels[id(row)],
            *(f"{time:.3g}" for time in times),
            _base_ratio(row) if ratio is None else f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}]",
            "" if one.load_ms is None else f"{one.load_ms:.3g}",
            "" if one.peak_memory_bytes is None else f"{one.peak_memory_bytes / 1e6:.1f}",
            "-" if one.delegated_share is None else f"{one.delegated_share:.0%}",
        )
    return table


def _base_ratio(row: Row) -> str:
    # What ran on a device took no turns with others.
    return "-" if row.result.name in (adb.CPU, adb.GPU) else "1"


def _footprints(result: Benchmark, labels: Mapping[int, str]) -> Any:
    from rich.table import Table

    simulated = [row for row in result.rows if row.result.footprint]
    only_file, only_runtime = _only(simulated)
    title = f"Simulated: instructions of one inference, and bytes{only_file}{only_runtime}"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("instructions", "code", "weights", "flash", "RAM", "of which stack"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in simulated:
        it = row.result.footprint
        assert it is not None
        numbers = (it.instructions, it.code_bytes, it.weights_bytes, it.flash_bytes, it.ram_bytes, it.stack_bytes)
        table.add_row(labels[id(row)], *(f"{number:,}" for number in numbers))
    return table


def _only(rows: Collection[Row]) -> tuple[str, str]:
    """Returns " of FILE" and " on RUNTIME" for a title, "" where there are several."""
    files = {row.file for row in rows}
    runtimes = {f"{row.result.name} {row.result.version}" for row in rows}
    return (
        f" of {next(iter(files))}" if len(files) == 1 else "",
        f" on {next(iter(runtimes))}" if len(runtimes) == 1 else "",
    )


def _label(row: Row, files: Collection[Path], *, several_runtimes: bool) -> str:
    """Returns what tells a row from the others: the file without folder and suffix where that does, the runtime."""
    stems = {file.name.removesuffix(".tflite") for file in files}
    name = row.file.name.removesuffix(".tflite") if len(stems) == len(files) else str(row.file)
    return " on ".join(([name] if len(files) > 1 else []) + ([row.result.name] if several_runtimes else []))


def _profile(file: Path, operators: tuple[Any, ...]) -> Any:
    from rich.table import Table

    table = Table(title=f"{file}: where the time goes", title_justify="left", box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("writes", overflow="fold")
    table.add_column("share", justify="right")
    table.add_column("p50 µs", justify="right")
    for one in sorted(operators, key=lambda operator: -operator.share):
        table.add_row(one.operator, one.layer, f"{one.share:.1%}", f"{one.p50_us:.4g}")
    return table
