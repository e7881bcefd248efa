"""`edgeopt export`: a subcommand for each row of EXPORTERS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common
from edgeopt.cli.choices import choice_options, said
from edgeopt.errors import ConfigError
from edgeopt.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from edgeopt.exporters import Exported


@click.group("export", short_help="Write an app project around a .tflite, with a self-test.")
def command() -> None:
    """Write an app project around a `.tflite` file: it builds, and tests itself against golden vectors of this model.

    \b
      edgeopt export micro model.int8.tflite -o firmware --runtime c99
    """


def _subcommand(row: Exporter) -> click.Command:
    @command.command(row.name, help=f"{row.summary}\n\n\b\n  {row.example}", short_help=row.summary)
    @click.argument("file", type=click.Path(path_type=Path))
    @common.output_option
    @choice_options(row.settings)
    @click.option("--name", help="What the model is called in the code; the file's name if not given.")
    @click.option(
        "--classes", "class_file", type=click.Path(path_type=Path), help="A text file, one class name on each line."
    )
    @common.data_options(required=False)
    @common.force_option
    @common.json_option
    @common.quiet_option
    def subcommand(
        file: Path,
        output: Path,
        name: str | None,
        class_file: Path | None,
        force: bool,
        as_json: bool,
        quiet: bool,
        **options: Any,
    ) -> None:
        import edgeopt
        from edgeopt import data as datasets

        settings = said(row.settings, options)
        preprocessing = datasets.parse_preprocessing(
            **{key: options[key] for key in ("resize", "scale", "mean", "std")}
        )
        with common.progress_shown(quiet=quiet or as_json):
            result = edgeopt.export(
                row.name,
                file,
                output,
                name=name,
                classes=_lines(class_file),
                data=common.load_data(**options),
                preprocessing=preprocessing,
                force=force,
                **settings,
            )
        common.print_json(result) if as_json else _show(result)

    return subcommand


for _row in EXPORTERS.values():
    _subcommand(_row)


def _lines(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        return tuple(line for line in file.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected a text file of class names in UTF-8, got {file}: {error}.") from error


def _show(result: Exported) -> None:
    console = common.console()
    console.print(f"{result.output}: {common.counted(len(result.files), 'file')}")
    for name, value in result.facts.items():
        shown = f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        console.print(f"  {name.replace('_', ' ')}: {shown}")
    for note in result.notes:
        console.print(f"  note: {note}")
    if result.next_steps:
        console.print(f"Next, in {result.output}:")
        for step in result.next_steps:
            console.print(f"  {step}")
