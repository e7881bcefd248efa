"""`.tflite` files and a device go in, rows that stand beside this machine's come out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeopt import progress
from edgeopt.benchmarking import Row
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import adb
from edgeopt.vocabulary import RuntimeResult


def benchmark_on_device(
    files: Sequence[Path | str],
    benchmark_model: Path | str,
    *,
    device: str = "adb",
    gpu: bool = False,
    threads: int = 1,
    runs: int | None = None,
    warmup: int = 10,
    profile: bool = False,
) -> tuple[Row, ...]:
    """Times every file on an Android device, one after the other, with LiteRT's program benchmark_model.

    Args:
        files: `.tflite` files.
        benchmark_model: the program, built for the device; it is pushed there and removed at the end.
        device: "adb" for the only one that is connected, or "adb:SERIAL".
        gpu: time them on the GPU as well.
        threads: of the CPU.
        runs, warmup: timed and untimed inferences of each file; 50 are timed where `runs` is None.
        profile: time every operator too.

    Raises:
        ConfigError: there is no such program, or `device` is no device.
        ModelError: a file is not there.
        UnavailableError: there is no adb, no such device, it cannot be used, or went away before a file was timed.
    """
    paths = [Path(file) for file in files]
    for file in paths:
        if not file.is_file():
            raise ModelError(f"Expected a .tflite file, got {file}, which does not exist. Try another path.")
    found = adb.connected(device)
    wanted = [(file, on_gpu) for file in paths for on_gpu in ((False, True) if gpu else (False,))]
    rows: list[Row] = []
    lost = ""
    with adb.lent(found, Path(benchmark_model)) as folder:
        for file, on_gpu in progress.track(wanted, f"timing on {found.model}", len(wanted)):
            if not lost:
                try:
                    measured = adb.measured(
                        found, folder, file, gpu=on_gpu, threads=threads, runs=runs, warmup=warmup, profile=profile
                    )
                    rows.append(_row(file, measured))
                    continue
                except UnavailableError as error:
                    if not any(row.result.loads for row in rows):
                        raise
                    lost = str(error)
            rows.append(Row(file, RuntimeResult(adb.GPU if on_gpu else adb.CPU, found.version, "skipped", lost)))
    return tuple(rows)


def _row(file: Path, measured: adb.Measured) -> Row:
    printed = measured.printed
    operators, notes = (printed.operators, printed.notes) if printed else ((), ())
    return Row(file, measured.result, operators=operators, notes=notes)
