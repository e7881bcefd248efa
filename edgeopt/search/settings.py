"""What may be said about a search goes in; the same, checked and with what follows from it filled in, comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgeopt import targets
from edgeopt.errors import ConfigError, named, setting
from edgeopt.metrics import for_outputs
from edgeopt.recipe import Recipe, read_as, recipe_file, to_values
from edgeopt.search.sampling import chosen_sampler
from edgeopt.search.space import Known, Space, everything, space_from
from edgeopt.search.trying import OBJECTIVES
from edgeopt.steps import Training
from edgeopt.targets import Target
from edgeopt.vocabulary import Budgets
from edgeopt.workspace import Conditions

# Where neither a number of trials nor a time is said.
DEFAULT_TRIALS = 40
PRUNERS = {
    "budget": "give a trial up when a step is rolled back, or loses more than the budget and what the rest wins back",
    "median": "the same, and when its score after a step is worse than that of most trials there",
    "none": "see every trial through",
}


@dataclass(frozen=True)
class SearchSettings(Conditions):
    """What may be said about a search beside its model, data and output folder.

    Attributes:
        recipe: a recipe whose values may be lists and ranges, as keys and values, as a Recipe, or as the name or file
            of one; None for all techniques that can be applied.
        training: how steps train that say nothing else, over what the recipe says.
        budgets: what a trial has to keep, over what the recipe says; of those that do the front is made.
        target: the device it is meant for; the recipe's if None.
        objectives: keys of OBJECTIVES; quality and size, and with a target its latency, if empty.
        trials: how many recipes are tried in all, those of earlier calls among them; DEFAULT_TRIALS where no time is
            said either.
        time_s: for how long trials are begun and waited for.
        workers: processes that work at the same time.
        ray: address of a Ray cluster that they run on, "local" for one of this machine; None for processes of ours.
        storage: URL of a database; a file in the output folder if None.
        study: name of the study in the database; the output folder's name if None.
        sampler: key of SAMPLERS; by the number of trials if None.
        pruner: key of PRUNERS.
        seed: of every random choice; the recipe's if None.
    """

    recipe: Any = None
    training: Training = Training()  # noqa: RUF009 - it is frozen
    budgets: Budgets = field(default_factory=Budgets)
    target: str | None = None
    objectives: tuple[str, ...] = ()
    trials: int | None = None
    time_s: float | None = None
    workers: int = 1
    ray: str | None = None
    storage: str | None = None
    study: str | None = None
    sampler: str | None = None
    pruner: str = "budget"
    seed: int | None = None


@dataclass(frozen=True)
class Search:
    """A search as it is carried out.

    Attributes:
        settings: with nothing left unsaid.
        given: the space that was given, None for everything; its base has all but the budgets' numbers.
        base: what all recipes have.
        budgets: of the settings and the recipe.
        target: None where the search is for no device in particular.
    """

    settings: SearchSettings
    given: Space | None
    base: Recipe
    budgets: Budgets
    target: Target | None

    def space(self, known: Known) -> Space:
        """Returns the space, with what is known of the model and its data.

        Raises:
            ConfigError: there is nothing valid in it.
        """
        found = everything(self.base, known) if self.given is None else replace(self.given, known=known)
        found.first()
        return found


def checked(settings: SearchSettings) -> Search:
    """Returns the search that settings describe.

    Raises:
        ConfigError: one cannot be used, or two contradict each other.
    """
    for name in ("trials", "workers"):
        if (number := getattr(settings, name)) is not None and number < 1:
            raise ConfigError(f"Expected at least 1 as {setting(name)}, got {number}. Try {setting(name, 1)}.")
    if settings.time_s is not None and not settings.time_s > 0:
        raise ConfigError(f"Expected more than 0 s as {setting('time')}, got {settings.time_s:g}. Try 30m.")
    named(PRUNERS, settings.pruner, "a pruner")
    if settings.metric is not None:
        for_outputs(settings.metric)
    given = _given(settings.recipe)
    base = Recipe() if given is None else given.base
    training = settings.training.over(base.training)
    budgets = Budgets(
        **{f.name: _first(getattr(settings.budgets, f.name), getattr(base.budgets, f.name)) for f in fields(Budgets)}
    )
    _require_sense(budgets)
    target_name = settings.target or base.target
    target = None if target_name is None else targets.target(target_name)
    objectives = settings.objectives or (("quality", "size") if target is None else ("quality", "size", "latency"))
    _require_objectives(objectives, budgets, target)
    chosen_sampler(settings.sampler, settings.trials, objectives)
    seed = base.seed if settings.seed is None else settings.seed
    runtimes = Budgets(runtimes=budgets.runtimes)
    base = replace(base, training=training, budgets=runtimes, target=target_name, seed=seed, name="")
    trials = DEFAULT_TRIALS if settings.trials is None and settings.time_s is None else settings.trials
    settings = replace(settings, objectives=tuple(objectives), trials=trials, seed=seed, target=target_name)
    return Search(settings, given and replace(given, base=base), base, budgets, target)


def _given(recipe: Any) -> Space | None:
    if recipe is None:
        return None
    if isinstance(recipe, Recipe):
        return space_from(to_values(recipe))
    if isinstance(recipe, Mapping):
        return space_from(recipe)
    return read_as(Path(recipe_file(recipe)), space_from)


def _first(ours: Any, theirs: Any) -> Any:
    return theirs if ours in (None, ()) else ours


def _require_sense(budgets: Budgets) -> None:
    limits = {
        "max_drop": budgets.max_drop,
        "max_size": budgets.max_size_bytes,
        "max_latency": budgets.max_latency_ms,
        "max_ram": budgets.max_ram_bytes,
    }
    for name, limit in limits.items():
        if limit is not None and (limit < 0 or (limit == 0 and name != "max_drop")):
            raise ConfigError(f"Expected a {setting(name)} that some model keeps, got {limit:g}. Try a larger one.")


def _require_objectives(objectives: tuple[str, ...], budgets: Budgets, target: Target | None) -> None:
    for name in objectives:
        named(OBJECTIVES, name, "an objective")
    if len(set(objectives)) < len(objectives) or len(objectives) < 2:
        raise ConfigError(
            f"Expected at least two different objectives, got {', '.join(objectives)}. Try quality and size; one thing "
            "alone is what `edgeopt optimize` is for."
        )
    if target is None and ("ram" in objectives or budgets.max_ram_bytes is not None):
        raise ConfigError(
            "Expected a target where RAM counts, got none: what a model takes of it is the device's affair. "
            f"Try {setting('target', 'cortex-m4')}."
        )
