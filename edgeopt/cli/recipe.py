"""`edgeopt recipe`: list, show and check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli import common

if TYPE_CHECKING:
    from edgeopt.plan import Plan, PlannedStep
    from edgeopt.recipe import Recipe


@click.group("recipe", short_help="List, show and check recipes: techniques and their order.")
def command() -> None:
    """List, show and check recipes: YAML files that say which techniques are applied to a model, in which order.

    \b
      edgeopt recipe show pqat
    """


@command.command("list", short_help="The recipes that ship with edgeopt.")
@common.json_option
def list_(as_json: bool) -> None:
    """List the recipes that ship with edgeopt.

    \b
      edgeopt recipe list
    """
    from edgeopt.recipe import packaged, to_values

    recipes = packaged()
    if as_json:
        common.print_json({"recipes": [{"name": name, **to_values(recipe)} for name, recipe in recipes.items()]})
        return
    rows = [(name, ", ".join(step.technique for step in r.steps), r.summary) for name, r in recipes.items()]
    common.console().print(_table(("recipe", "steps", "for"), rows))


@command.command("show", short_help="Print a recipe, to use it or to start from it.")
@click.argument("name")
@common.json_option
def show(name: str, as_json: bool) -> None:
    """Print a packaged recipe or a recipe file, with its comments. A copy of it is a good start for one of your own.

    \b
      edgeopt recipe show pqat > mine.yaml
    """
    from edgeopt.recipe import load_recipe, recipe_file, to_values

    recipe = load_recipe(name)
    if as_json:
        common.print_json({"name": recipe.name, **to_values(recipe)})
    else:
        click.echo(recipe_file(name).read_bytes(), nl=False)


@command.command("check", short_help="Say what a recipe would do, before any training.")
@click.argument("file")
@common.json_option
def check(file: str, as_json: bool) -> None:
    """Check a recipe file, or a packaged recipe, and say what each step needs, keeps and brings, before any training.

    \b
      edgeopt recipe check mine.yaml
    """
    from edgeopt.plan import plan
    from edgeopt.recipe import load_recipe

    recipe = load_recipe(file)
    made = plan(recipe)
    if as_json:
        common.print_json(_plain(recipe, made))
        return
    console = common.console()
    console.print(f"{recipe.name}: {recipe.summary}" if recipe.summary else recipe.name)
    if made.steps:
        console.print(_table(("", "step", "keeps", "the model then is", "needs", "trains"), _rows(recipe, made)))
    else:
        console.print("No steps: the model is converted as it is.")
    console.print(f"Schemes: {', '.join(recipe.schemes)}")
    for note in made.notes:
        console.print(f"Note: {note}")


def _rows(recipe: Recipe, made: Plan) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            f"{planned.technique} ({planned.variant})" if planned.variant else planned.technique,
            ", ".join(_names(planned.properties_before)),
            ", ".join(_names(planned.properties_after)),
            ", ".join(planned.needs),
            "" if planned.training is None else _training(planned, recipe),
        )
        for number, planned in enumerate(made.steps, start=1)
    ]


def _training(planned: PlannedStep, recipe: Recipe) -> str:
    training: Any = planned.training
    if not training.epochs:
        return "none"
    said = {"learning_rate"} & {*planned.step.said(), *recipe.training.said()}
    rate = f"{'at' if said else 'around'} {training.learning_rate:g}"  # what is not said, short trials choose
    words = f"{common.counted(training.epochs, 'epoch')}, {training.optimizer} {rate}"
    return words if training.teacher == "none" else f"{words}, teacher {training.teacher}"


def _plain(recipe: Recipe, made: Plan) -> dict[str, Any]:
    from edgeopt.recipe import to_values

    steps = [
        {
            "technique": planned.technique,
            "settings": planned.step.said(),
            "variant": planned.variant,
            "properties_before": _names(planned.properties_before),
            "properties_after": _names(planned.properties_after),
            "needs": planned.needs,
            "training": planned.training,
        }
        for planned in made.steps
    ]
    return {"recipe": {"name": recipe.name, **to_values(recipe)}, "steps": steps, "notes": made.notes}


def _names(properties: Any) -> list[str]:
    return sorted(prop.value for prop in properties)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    return table
