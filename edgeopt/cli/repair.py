"""`edgeopt repair`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import TECHNIQUES

if TYPE_CHECKING:
    from edgeopt.api.repair import Repaired
    from edgeopt.vocabulary import Variant

_REPAIRS = [name for name, row in TECHNIQUES.items() if row.repairs]


@click.command("repair", short_help="Mend without training what quantization breaks.")
@common.model_argument
@common.output_option
@click.option(
    "--scheme",
    type=common.Named(name for name, row in SCHEMES.items() if row.algorithm),
    default="int8",
    show_default=True,
    help="What the file is quantized to.",
)
@click.option(
    "--steps",
    default="auto",
    show_default=True,
    metavar="auto|STEP,…",
    help=f"Repairs in their order, of {', '.join(_REPAIRS)}; auto takes those that may help.",
)
@common.keep_8bit_option
@common.data_options(required=True)
@common.scoring_options
@common.model_options
@common.seed_option
@common.force_option
@common.json_option
@common.quiet_option
def command(
    model: Path,
    output: Path,
    scheme: str,
    steps: str,
    keep_8bit: tuple[str, ...],
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    custom_objects: Path | None,
    trust: bool,
    seed: int,
    force: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Quantize a model and mend what that breaks, without training and without labels.

    Each step is measured by how far the outputs lie from the float model's, and dropped where no gain is shown.

    \b
      edgeopt repair model.keras --data data.npz --scheme int8 -o model.tflite
      edgeopt repair float.tflite --data data.npz --steps calibrate,correct-bias -o model.tflite
    """
    import edgeopt

    common.conversion_begins()
    with common.progress_shown(quiet=quiet or as_json):
        result = edgeopt.repair(
            model,
            common.required_data(seed=seed, **options),
            output,
            scheme=scheme,
            steps="auto" if steps == "auto" else [name.strip() for name in steps.split(",") if name.strip()],
            keep_8bit=keep_8bit or ("auto",),
            metric=metric,
            tasks=tasks,
            output_name=output_name,
            seed=seed,
            custom_objects=custom_objects,
            trust=trust,
            force=force,
        )
    common.print_json(result) if as_json else _show(result)


def _show(result: Repaired) -> None:
    from rich.table import Table

    from edgeopt.report import fidelity
    from edgeopt.report.words import promise_words

    console = common.console()
    best = next(variant for variant in result.variants if variant.name == result.best)
    console.print(
        f"{result.output}: {best.scheme}, after {', '.join(best.steps) or 'no repair: none is shown to help'}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    metric = next((variant.metric for variant in result.variants if variant.metric), None)
    columns = ["measured in the .tflite", *([metric.name] if metric else []), "output error", "bytes", "seconds", ""]
    for column in columns:
        table.add_column(column, justify="left" if column in ("", columns[0]) else "right", no_wrap=True)
    records = {record.after: record for record in result.steps}
    for variant in result.variants:
        record = records.get(variant.name)
        name = variant.name if not variant.steps else f"+ {variant.steps[-1]}"
        cells = [name if variant.name != best.scheme else f"{name} as converted"]
        if metric:
            cells.append(_score(variant))
        error = result.errors.get(variant.name)
        cells.append("" if error is None else f"{error:.2%}")
        cells.append("-" if variant.size_bytes is None else f"{variant.size_bytes:,}")
        cells.append(f"{record.seconds:.1f}" if record else "")
        cells.append("" if record is None else "dropped" if record.rolled_back else "kept")
        table.add_row(*cells)
    console.print(table)
    if metric:
        console.print(f"  scored on {metric.samples:,} samples; the output error is a share of the outputs' spread")
    if best.fidelity is not None:
        console.print(f"  {fidelity.summary(best.fidelity)}")
    for record in result.steps:
        if record.rolled_back:
            console.print(f"  {record.technique} dropped: {record.rolled_back}")
            continue
        for promise in record.promises:
            mark = "kept" if promise.kept else "BROKEN" if promise.kept is False else "not measured"
            console.print(f"  {record.technique}: {promise_words(promise)} ({mark})")
    for row in best.runtimes:
        console.print(f"  {row.name} {row.version}: {common.describe_runtime(row)}")
    for name, why in result.left_out.items():
        console.print(f"  not tried: {name}: {why}")
    for note in result.notes:
        console.print(f"  note: {note}")
    common.print_problems(console, {"": best.fidelity})


def _score(variant: Variant) -> str:
    if variant.metric is None:
        return "-"
    return f"{variant.metric.value:.2%}" if variant.metric.is_share else f"{variant.metric.value:.5g}"
