"""A recipe: YAML or Python values go in; checked steps, schemes and budgets come out, and the YAML again.

The dataclasses are the truth and YAML is one spelling of them. Recipe files may come from anybody: they are small,
flat, plain YAML, and every key is known or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeopt import runtimes
from edgeopt.choices import Choices, from_mapping, keys, option
from edgeopt.compilers import maker_of
from edgeopt.errors import ConfigError, place, suggestion
from edgeopt.formats import FORMATS
from edgeopt.plain import to_plain
from edgeopt.schemes import SCHEMES
from edgeopt.steps import Step, TrainedStep, Training
from edgeopt.techniques import technique
from edgeopt.units import parse_size, parse_time_ms
from edgeopt.vocabulary import Budgets

if TYPE_CHECKING:
    import yaml

Result = TypeVar("Result")

VERSION = 1
FOLDER = Path(__file__).with_name("recipes")
# Many times the longest recipe anybody wrote, and too little to keep a parser busy.
MAX_BYTES = 64 * 1024
_MAX_DEPTH = 8
_SHOWN = "Try `edgeopt recipe show pqat` for one that is right"


@dataclass(frozen=True, kw_only=True)
class BudgetKeys(Choices):
    """Budgets as a recipe spells them.

    Raises:
        ConfigError: a size, a time or a runtime is none.
    """

    max_drop: float | None = option(None, "Loss allowed against float32: points for shares, else per cent.", low=0.0)
    max_size: str | None = option(None, "Of the file: 64KB, 1.5MB, 200000 …", metavar="SIZE")
    max_latency: str | None = option(
        None, "Of one inference, on the target where that is known: 5ms, 800us …", metavar="TIME"
    )
    max_ram: str | None = option(None, "Of the target, for the model alone: 64KB …", metavar="SIZE")
    runtimes: tuple[str, ...] = option((), "The file must load and run on each.", metavar="NAME[==VERSION]")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budgets()
        for name in self.runtimes:
            runtimes.parse(name)

    def budgets(self) -> Budgets:
        """Returns them in bytes and milliseconds."""
        return Budgets(
            self.max_drop,
            parse_size(self.max_size),
            parse_time_ms(self.max_latency),
            self.runtimes,
            parse_size(self.max_ram),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe(Choices):
    """What is done to a model, and what has to come out.

    Attributes:
        name: of the packaged recipe or the file.

    Raises:
        ConfigError: a value cannot be used.
    """

    name: str = ""
    version: int = option(VERSION, "Of this form of recipes.")
    summary: str = option("", "One line: what the recipe is for.")
    schemes: tuple[str, ...] = option(
        ("int8",),
        "What is made of the model; in the first one every step is measured.",
        choices=tuple(SCHEMES),
        tried=("float16", "dynamic", "int8", "int16x8", "int4", "int4-weights"),
    )
    formats: tuple[str, ...] = option(
        (), "What every file is made in beside .tflite.", choices=tuple(row for row in FORMATS if maker_of(row))
    )
    keep_8bit: tuple[str, ...] = option(
        ("auto",),
        "Layers that keep int8 weights in schemes below eight bits: auto (first, last, depthwise and small ones), "
        "none, or names and globs.",
        metavar="LAYER",
    )
    training: Training = option(Training(), "How steps train that say nothing else.")  # noqa: RUF009 - it is frozen
    steps: tuple[Step, ...] = option((), "Techniques in their order, each with its settings.")
    budgets: Budgets = option(Budgets(), "What the recommended file must keep.")  # noqa: RUF009 - it is frozen
    data: str | None = option(None, "Samples, as for `--data`, where the command names none.", metavar="DATA")
    target: str | None = option(None, "The device it is meant for.", metavar="NAME")
    strict: bool = option(False, "Hold every step's max_drop as a step with `strict` does.")
    seed: int = option(0, "Of every random choice.", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version != VERSION:
            raise ConfigError(
                f"Expected version {VERSION} of recipes, got {self.version}. Try the edgeopt that it was written for, "
                f"or writing it anew as version {VERSION}."
            )
        if not self.schemes:
            raise ConfigError("Expected at least one scheme, got none. Try schemes: [int8].")
        if len(set(self.schemes)) < len(self.schemes):
            raise ConfigError(f"Expected each scheme once, got {', '.join(self.schemes)}.")

    def step_name(self, number: int) -> str:
        """Returns what the step at that place, from 0, is called: "qat", and "prune-2" for the second of its kind."""
        technique = self.steps[number].technique
        same = sum(step.technique == technique for step in self.steps[: number + 1])
        return technique + (f"-{same}" if same > 1 else "")

    def with_training(self, said: Mapping[str, Any]) -> Recipe:
        """Returns the recipe with these fields of Training said anew, for all steps."""
        steps = tuple(replace(step, **said) if isinstance(step, TrainedStep) else step for step in self.steps)
        return replace(self, training=replace(self.training, **said), steps=steps)


# --- reading ---------------------------------------------------------------------------------------------------------


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Returns the packaged recipe of that name, or the one in that file.

    Raises:
        ConfigError: there is neither, or it cannot be used.
    """
    return read_recipe(recipe_file(name_or_path))


def recipe_file(name_or_path: str | Path) -> Path:
    """Returns the path of a packaged recipe, or the path given where a file is there.

    Raises:
        ConfigError: there is neither.
    """
    files = {path.stem: path for path in FOLDER.glob("*.yaml")}
    if str(name_or_path) in files:
        return files[str(name_or_path)]
    if not Path(name_or_path).is_file():
        raise ConfigError(
            f"Expected a packaged recipe or a recipe file, got {str(name_or_path)!r}."
            f"{suggestion(str(name_or_path), files)}"
        )
    return Path(name_or_path)


def packaged() -> dict[str, Recipe]:
    """Returns the recipes that ship with edgeopt, by name."""
    return {path.stem: read_recipe(path) for path in sorted(FOLDER.glob("*.yaml"))}


def read_recipe(text_or_path: str | Path) -> Recipe:
    """Returns the recipe that YAML text, or the file of a Path, holds.

    Raises:
        ConfigError: it is no plain YAML, a key is unknown or a value cannot be used; the message says where.
    """
    if not isinstance(text_or_path, Path):
        return from_values(_yaml_values(text_or_path.encode("utf-8", "surrogatepass")))
    return replace(read_as(text_or_path, from_values), name=text_or_path.stem)


def read_as(path: Path, reader: Callable[[Any], Result]) -> Result:
    """Returns what `reader` makes of the keys and values of a recipe file.

    Raises:
        ConfigError: it is no plain YAML, or the reader refuses it; the message names the file.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return reader(_yaml_values(content))
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None


def from_values(values: Any) -> Recipe:
    """Returns a recipe from keys and values as YAML gives them.

    Raises:
        ConfigError: a key is unknown or a value cannot be used; the message says where.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"Expected keys and values in a recipe, got {values!r}. {_SHOWN}.")
    # Another version may have other keys; that is the better message.
    version = values.get("version", VERSION)
    if version != VERSION:
        Recipe(version=version)
    readers = {"training": _training, "budgets": _budgets, "steps": steps_from}
    return from_mapping(
        Recipe,
        {key: readers[key](value) if key in readers else value for key, value in values.items()},
        "the top level",
    )


def steps_from(values: Any) -> tuple[Step, ...]:
    """Returns steps from a list of names (`"qat"`), names with settings (`{"prune": {"sparsity": 0.5}}`) and Steps.

    Raises:
        ConfigError: one is none of these, or its settings cannot be used; the message says which.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"Expected a list at steps, got {values!r}. Try steps: [qat].")
    return tuple(_step(value, f"steps[{number}]") for number, value in enumerate(values))


def _step(value: Any, where: str) -> Step:
    if isinstance(value, Step):
        return value
    said = {value: None} if isinstance(value, str) else value
    if not isinstance(said, Mapping) or len(said) != 1:
        got = f"{len(said)}: {', '.join(map(str, said))}" if isinstance(said, Mapping) and said else repr(value)
        raise ConfigError(
            f"Expected one technique at {where}, got {got}. Try a dash before each, and its settings behind it: "
            "`- prune: {sparsity: 0.5}`."
        )
    ((name, settings),) = said.items()
    try:
        row = technique(str(name))
    except ConfigError as error:
        raise ConfigError(f"{place(where)}{error.marked}") from None
    return from_mapping(row.step, settings, f"{where}.{name}")


def _training(values: Any) -> Training:
    return from_mapping(Training, values, "training")


def _budgets(values: Any) -> Budgets:
    if isinstance(values, Mapping):
        measures = ("max_size", "max_latency", "max_ram")
        values = {k: str(v) if k in measures and isinstance(v, (int, float)) else v for k, v in values.items()}
    return from_mapping(BudgetKeys, values, "budgets").budgets()


# --- writing ---------------------------------------------------------------------------------------------------------


def write_recipe(recipe: Recipe) -> str:
    """Returns a recipe as YAML that `read_recipe` reads as the same recipe, but for its name."""
    import yaml

    return yaml.safe_dump(to_values(recipe), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def to_values(recipe: Recipe) -> dict[str, Any]:
    """Returns a recipe as plain keys and values: the version, the schemes and all that is not as it is by default."""
    written: dict[str, Any] = {
        "training": recipe.training.said(),
        "steps": [{step.technique: step.said()} if step.said() else step.technique for step in recipe.steps],
        "budgets": {
            "max_drop": recipe.budgets.max_drop,
            "max_size": recipe.budgets.max_size_bytes,
            "max_latency": recipe.budgets.max_latency_ms,
            "max_ram": recipe.budgets.max_ram_bytes,
            "runtimes": recipe.budgets.runtimes,
        },
    }
    written["budgets"] = {key: value for key, value in written["budgets"].items() if value not in (None, ())}
    said = {**recipe.said(), "version": recipe.version, "schemes": recipe.schemes}
    return {k.name: to_plain(written.get(k.name, said[k.name])) for k in keys(Recipe) if k.name in said}


# --- YAML ------------------------------------------------------------------------------------------------------------


def _yaml_values(content: bytes) -> Any:
    """Returns plain YAML as values.

    Raises:
        ConfigError: it is too large or too deep, no YAML, has a key twice, or an anchor, alias or merge key: a few
            lines of those can stand for gigabytes.
    """
    import yaml

    if len(content) > MAX_BYTES:
        raise ConfigError(f"Expected at most {MAX_BYTES:,} bytes of recipe, got more.")
    try:
        _require_flat(yaml.parse(content, Loader=yaml.SafeLoader))
        loader = yaml.SafeLoader(content)
        try:
            node = loader.get_single_node()
            _require_each_key_once(node)
            return loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"Expected YAML, got what is none{line}: {error.problem}. {_SHOWN}.") from None
    # Numbers and dates that cannot be; bytes that are no text.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"Expected YAML, got what is none: {' '.join(str(error).split())}. {_SHOWN}.") from None


def _require_flat(events: Any) -> None:
    import yaml

    depth = 0
    for event in events:
        if getattr(event, "anchor", None) is not None:
            raise ConfigError(
                f"Expected YAML without anchors and aliases, got {event.anchor!r} in line "
                f"{event.start_mark.line + 1}. Try writing it out."
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"Expected a recipe, got values more than {_MAX_DEPTH} deep. {_SHOWN}.")


def _require_each_key_once(node: yaml.Node | None) -> None:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_each_key_once(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"Expected names as keys, got something else in {line}. Try writing it out.")
            if key.value in seen:
                raise ConfigError(f"Expected each key once, got {key.value!r} a second time in {line}.")
            seen.add(key.value)
            _require_each_key_once(value)
