"""`edgeopt convert`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.compilers import CALIBRATIONS
from edgeopt.errors import ConfigError
from edgeopt.formats import FORMATS
from edgeopt.units import parse_duration_s, parse_sizes

if TYPE_CHECKING:
    from edgeopt.api.convert import Conversion
    from edgeopt.api.sizes import Sized


def _only(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> str | None:
    if len(set(given)) > 1:
        raise click.BadParameter(
            f"expected one, as one file is written, got {' and '.join(given)}. Try convert once for each, or `edgeopt "
            "optimize`, which makes a .tflite of each scheme and with --format the other format as well.",
            context,
            option,
        )
    return given[0] if given else None


@click.command("convert", short_help="Convert in one scheme, calibrated with your data and verified.")
@common.model_argument
@common.output_option
@click.option(
    "--format",
    "form",
    type=common.Named(FORMATS),
    multiple=True,
    callback=_only,
    help="Of the file, where -o has no suffix that says it; the suffix is appended.",
)
@common.scheme_option
@common.keep_8bit_option
@common.data_options(required=False)
@common.runtime_option
@common.target_option
@click.option(
    "--calibration-method",
    type=common.Named(CALIBRATIONS),
    help="How ONNX Runtime sets the ranges of int8-float-io in an .onnx; those of the .tflite if not given.",
)
@common.scoring_options
@click.option(
    "--opset",
    type=click.IntRange(1),
    help="Operator set of an .onnx; the newest that all of --runtime onnxruntime==VERSION know, at most 17, if not "
    "given.",
)
@click.option("--tune", metavar="TIME", help="Search so long for faster code of a .so, by timing it here, such as 2m.")
@click.option("--batch-size", type=click.IntRange(0), default=1, show_default=True, help="0 leaves it free.")
@common.sizes_option
@click.option(
    "--stream",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=0,
    metavar="[FRAMES]",
    help="Read a sample step by step, with the states as further inputs and outputs: so many frames at a time, as few "
    "as the model's strides allow if no number is given.",
)
@click.option("--time-axis", type=click.IntRange(1), default=1, show_default=True, help="Of the frames of --stream.")
@common.model_options
@common.seed_option
@common.force_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    output: Path,
    form: str | None,
    scheme: str,
    keep_8bit: tuple[str, ...],
    runtimes: tuple[str, ...],
    target: str | None,
    calibration_method: str | None,
    metric: str | None,
    tasks: dict[str, str],
    opset: int | None,
    tune: str | None,
    output_name: str | None,
    batch_size: int,
    shapes: tuple[str, ...],
    stream: int | None,
    time_axis: int,
    custom_objects: Path | None,
    trust: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Convert a model in one scheme, calibrated with your data, and verify the file by running it.

    With --data it is held against the float model on up to 300 samples, and what it has lost is told.

    With --runtime the file is promised to load and compute correctly there; with --target also that it fits the
    device, and for an Ethos-U the file is what Vela makes of it.

    \b
      edgeopt convert model.keras -o model.int8.tflite --scheme int8 --data data.npz
      edgeopt convert model.keras -o model.int8.tflite --scheme int8 --data data.npz --target cortex-m4
      edgeopt convert model.keras -o model.int8.onnx --scheme int8 --data data.npz
      edgeopt convert model.int8.tflite -o model.int8.so
    """
    import edgeopt

    common.conversion_begins()
    with common.progress_shown(quiet=quiet or as_json), common.spoken_as_options():
        result = edgeopt.convert(
            model,
            output if form is None else _with_suffix(output, form),
            scheme=scheme,
            keep_8bit=keep_8bit or ("auto",),
            data=common.load_data(**data),
            runtimes=runtimes,
            target=target,
            calibration=calibration_method or "",
            metric=metric,
            tasks=tasks,
            opset=opset or 0,
            tune_s=parse_duration_s(tune) or 0,
            output_name=output_name,
            batch_size=batch_size or None,
            shapes=parse_sizes(shapes),
            stream=stream,
            time_axis=time_axis,
            custom_objects=custom_objects,
            trust=trust,
            force=force,
        )
    common.print_json(result) if as_json else _show(result)


def _with_suffix(output: Path, form: str) -> Path:
    suffix = FORMATS[form].suffix
    if output.suffix == suffix:
        return output
    if any(output.suffix == row.suffix for row in FORMATS.values()):
        raise ConfigError(f"Expected -o to end in {suffix} with --format {form}, got {output}. Try one of the two.")
    return output.with_name(output.name + suffix)


def _show(result: Conversion) -> None:
    from edgeopt.report import fidelity

    console = common.console()
    console.print(
        f"{result.file}: {result.scheme}, {result.size_bytes:,} bytes ({result.gzip_bytes:,} gzipped)"
        + (f", loads from TensorFlow Lite {result.minimum_runtime}" if result.minimum_runtime else "")
        + (", for the NPU's driver" if result.target and not result.minimum_runtime else "")
    )
    for one in result.signatures or (result,):
        _show_interface(console, one)
    for row in result.runtimes:
        console.print(f"  {row.name} {row.version}: {common.describe_runtime(row)}")
    if result.fidelity is not None:
        console.print(f"  {fidelity.summary(result.fidelity)}")
    if result.float_operators:
        console.print(f"  in float: {', '.join(result.float_operators)}")
    if result.target is not None:
        console.print(f"  {common.describe_assessment(result.target)}")
    unscored = () if result.fidelity is None else result.fidelity.notes
    for note in (*result.notes, *unscored, *(result.target.estimate.notes if result.target else ())):
        console.print(f"  note: {note}")
    common.print_problems(console, {one.name: one.fidelity for one in result.signatures} or {"": result.fidelity})


def _show_interface(console: Any, one: Conversion | Sized) -> None:
    """Prints inputs and outputs, and of a signature all that was verified of it."""
    from edgeopt.api.sizes import Sized
    from edgeopt.report import fidelity

    indent = "  "
    if isinstance(one, Sized):
        console.print(f"  signature {one.name}: {one.macs:,} MACs")
        indent = "    "
    for role, specs in (("input", one.inputs), ("output", one.outputs)):
        for spec in specs:
            console.print(f"{indent}{role} {common.describe_spec(spec)}")
    if not isinstance(one, Sized):
        return
    if not math.isnan(one.keras_db):
        loudness = "the same outputs" if math.isinf(one.keras_db) else f"SQNR {one.keras_db:.1f} dB"
        console.print(f"{indent}beside Keras: {loudness}")
    if one.fidelity is not None:
        console.print(f"{indent}{fidelity.summary(one.fidelity)}")
    for note in (*one.notes, *(one.fidelity.notes if one.fidelity else ())):
        console.print(f"{indent}note: {note}")
