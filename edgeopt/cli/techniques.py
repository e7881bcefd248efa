"""The commands of the techniques: a row of TECHNIQUES and a help text go in, a click command comes out."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.errors import BudgetError, ConfigError
from edgeopt.schemes import SCHEMES
from edgeopt.steps import DEFAULTS, Choices, Key, TrainedStep, keys
from edgeopt.techniques import technique

if TYPE_CHECKING:
    from edgeopt.api.compress import Compressed
    from edgeopt.vocabulary import Variant

# Layers or promises of a long list that are shown; the rest are counted.
_SHOWN = 12


def technique_command(name: str, help: str, *, argument: str = "MODEL") -> click.Command:
    """Returns the command of the technique called `name`; `help` is its text, with one real command line."""
    row = technique(name)

    @click.command(name, help=help, short_help=row.summary)
    @click.argument("model", type=click.Path(path_type=Path), metavar=argument)
    @common.output_option
    @choice_options(row.step)
    @common.data_options(required=True)
    @click.option("--scheme", type=common.Named(SCHEMES), help="Of the .tflite; float32 if not given, after qat int8.")
    @common.metric_option
    @click.option("--logs", type=click.Path(path_type=Path), help="A folder for TensorBoard's logs.")
    @common.model_options
    @common.seed_option
    @common.force_option
    @common.json_option
    @common.quiet_option
    def command(
        model: Path,
        output: Path,
        scheme: str | None,
        metric: str | None,
        logs: Path | None,
        custom_objects: Path | None,
        trust: bool,
        seed: int,
        force: bool,
        as_json: bool,
        quiet: bool,
        **options: Any,
    ) -> None:
        import edgeopt

        step = row.step(**said(row.step, options))
        with common.progress_shown(quiet=quiet or as_json):
            result = edgeopt.compress(
                model,
                common.required_data(seed=seed, **options),
                output,
                [step],
                scheme=scheme,
                metric=metric,
                seed=seed,
                custom_objects=custom_objects,
                trust=trust,
                logs=logs,
                force=force,
            )
        common.print_json(result) if as_json else _show(result)
        if result.broken:
            raise BudgetError(f"{'; '.join(result.broken)}. {result.output} was written all the same.")

    return command


def choice_options(kind: type[Choices]) -> Callable[[Any], Any]:
    """Returns a decorator that adds an option for every field of `kind`."""
    trained = kind.defaults.over(DEFAULTS) if issubclass(kind, TrainedStep) else None
    return common.options(*(_option(key, getattr(trained, key.name, None)) for key in keys(kind)))


def said(kind: type[Choices], options: dict[str, Any]) -> dict[str, Any]:
    """Takes the fields of `kind` out of what click gives, and returns those that were said."""
    values = {key.name: options.pop(key.name) for key in keys(kind)}
    mappings = {key.name for key in keys(kind) if _is_mapping(key)}
    return {
        name: _pairs(name, value) if name in mappings else value
        for name, value in values.items()
        if value not in (None, ())
    }


def _option(key: Key, in_force: Any) -> Callable[[Any], Any]:
    """Returns the option of a field; `in_force` is what holds where nobody says it, if it is not its default."""
    option, default = key.option, in_force if key.default is None else key.default
    told = "" if default in (None, (), {}, False) else f"  [default: {_in_words(default)}]"
    if key.type is bool:
        return click.option(key.flag, key.name, is_flag=True, default=None, help=option.help)
    several = typing.get_origin(key.type) is tuple or _is_mapping(key)
    kind: Any = str if several else key.type
    if option.choices:
        kind = common.Named(option.choices)
    return click.option(
        key.flag,
        key.name,
        type=kind,
        multiple=several,
        metavar=option.metavar or None,
        help=f"{'Repeatable. ' if several else ''}{option.help}{told}",
    )


def _is_mapping(key: Key) -> bool:
    origin = typing.get_origin(key.type)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _in_words(default: Any) -> str:
    return ", ".join(default) if isinstance(default, tuple) else str(default)


def _pairs(name: str, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for key, separator, value in pairs:
        if not separator or not key:
            raise ConfigError(f"Expected NAME=VALUE as {name}, got {key or value!r}.")
    return {key: value for key, _, value in pairs}


def _show(result: Compressed) -> None:
    from rich.table import Table

    console = common.console()
    console.print(f"{result.output}: {result.after.scheme}, after {', '.join(result.after.steps)}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("measured in the .tflite", "before", "after"):
        table.add_column(column, justify="left" if column.startswith("measured") else "right", no_wrap=True)
    for row in _rows(result.before, result.after):
        table.add_row(*row)
    console.print(table)
    for record in result.steps:
        told = record.promises
        if len(told) > _SHOWN:
            kept = sum(promise.kept is True for promise in told)
            console.print(f"  {kept} of {len(told)} promises kept; --json lists all")
            told = tuple(promise for promise in told if promise.kept is False)
        for promise in told:
            mark = "kept" if promise.kept else "BROKEN" if promise.kept is False else "not measured"
            console.print(f"  {promise.what}: promised {promise.promised}, measured {promise.measured} ({mark})")
        left = [change for change in record.layers if change.reason]
        for change in left[:_SHOWN]:
            console.print(f"  left alone: {change.layer} ({change.kind}): {change.reason}")
        if len(left) > _SHOWN:
            console.print(f"  … and {len(left) - _SHOWN} more; --json lists all")
    for note in result.notes:
        console.print(f"  note: {note}")


def _rows(before: Variant, after: Variant) -> list[tuple[str, str, str]]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:,}"

    rows = [
        ("bytes", number(before.size_bytes), number(after.size_bytes)),
        ("bytes gzipped", number(before.gzip_bytes), number(after.gzip_bytes)),
        ("MACs", number(before.macs), number(after.macs)),
        ("zeros", f"{before.sparsity or 0:.1%}", f"{after.sparsity or 0:.1%}"),
    ]
    if before.metric and after.metric:
        form = ".2%" if after.metric.is_share else ".5g"
        interval = f"95 % interval {after.metric.low:{form}} to {after.metric.high:{form}}"
        rows.append((after.metric.name, f"{before.metric.value:{form}}", f"{after.metric.value:{form}}"))
        rows.append((f"  {interval}, {after.metric.samples:,} samples", "", ""))
    return rows
