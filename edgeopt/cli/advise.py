"""`edgeopt advise`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgeopt.cli import common
from edgeopt.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from edgeopt.advising import Guide, Item

_HEADS = {
    "do": "Do, in this order",
    "try": "Worth trying, in this order",
    "unknown": "Not known yet",
    "skip": "Do not bother with",
}
# Options that say nothing of data, model or score.
_OWN = ("model", "target", "why", "folder", "as_json", "quiet", "verbose")


@click.command("advise", short_help="Say what to apply to a model, in which order, and why.")
@common.model_argument
@common.data_options(required=False)
@common.target_option
@click.option("--why", metavar="STEP", help="Show what the advice on one step rests on.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for what is measured; an `optimize` into it shares it.",
)
@common.scoring_options
@common.model_options
@common.json_option
@common.quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    model: Path,
    target: str | None,
    why: str | None,
    folder: Path | None,
    metric: str | None,
    tasks: dict[str, str],
    output_name: str | None,
    custom_objects: Path | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
    **data: Any,
) -> None:
    """Say what to apply to a model, in which order, what each step will bring here, and what not to bother with.

    Measures a little of the model itself: with samples what int8 and four bits leave of its answers, with labels what
    int8 costs of its score. Each sentence rests on such a fact or on a document that --why names; what is not known is
    said to be. Ends with the command to type.

    \b
      edgeopt advise model.keras --data data.npz --target cortex-m4
    """
    import edgeopt
    from edgeopt.advising import steps

    if why is not None and why not in steps():
        raise ConfigError(f"Expected a step of the guide as --why, got {why!r}.{suggestion(why, steps())}")
    common.conversion_begins()
    with common.progress_shown(quiet=quiet or as_json):
        guide = edgeopt.advise(
            model,
            common.load_data(**data),
            target=target,
            metric=metric,
            tasks=tasks,
            output_name=output_name,
            given=tuple(_typed(ctx)),
            folder=folder,
            custom_objects=custom_objects,
            trust=trust,
        )
    if as_json:
        common.print_json(guide)
    elif why is not None:
        _show_why(next(item for item in guide.items if item.step == why))
    else:
        _show(guide)


def _typed(context: click.Context) -> Iterator[str]:
    """Yields the options of data, score and code that were typed, as they were."""
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in _OWN or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        yield from (parameter.opts[0],) if value is True else (parameter.opts[0], str(value))


def _show(guide: Guide) -> None:
    console = common.console()
    for verdict, head in _HEADS.items():
        items = [item for item in guide.items if item.verdict == verdict]
        if not items:
            continue
        console.print(head, style="bold")
        # Steps of which the same is said are one line.
        lines: dict[str, list[str]] = {}
        for item in items:
            lines.setdefault(f"{item.why}{_gain(item)}", []).append(item.step)
        for number, (words, names) in enumerate(lines.items(), 1):
            mark = f"{number}." if verdict in ("do", "try") else "-"
            console.print(f"{mark} {', '.join(names)}: {words}")
    if not any(fact.value for fact in guide.facts if fact.name == "samples") and guide.of("unknown"):
        console.print("\nWith --data, some hundred inputs and their labels if there are any, more would be known.")
    console.print(f"\nWhy, in full: edgeopt advise … --why {guide.items[0].step}")
    # In one line, to be copied.
    console.print(f"Type: {shlex.join(guide.command)}", soft_wrap=True)


def _gain(item: Item) -> str:
    if item.verdict == "skip" or item.gain.startswith("none"):
        return ""
    size = f", about {item.size_bytes:,} bytes" if item.size_bytes is not None and "→" not in item.gain else ""
    risk = (
        "not known before it is tried" if item.most_lost is None else f"{item.most_lost:g} points or per cent at most"
    )
    return f". Will bring: {item.gain}{size}. May cost: {risk}"


def _show_why(item: Item) -> None:
    console = common.console()
    console.print(f"{item.step}: {item.verdict}, because {item.condition}", style="bold")
    console.print(item.why)
    console.print(f"Foretold: {item.gain}")
    for fact in item.facts:
        console.print(f"- {fact.words} ({fact.origin})")
    for source in item.sources:
        console.print(f"- {source.says}: {source.url}")
