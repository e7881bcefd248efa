"""A recipe whose values may be lists and ranges goes in; what is to be drawn, and a recipe from what was, come out.

What cannot combine is asked of the plan and of nobody else: `Space.refused` is the one place that says why.
"""

from __future__ import annotations

import functools
import itertools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeopt import targets
from edgeopt.advice import of_scheme
from edgeopt.choices import Key, Range, checked, keys
from edgeopt.errors import ConfigError, EdgeoptError, place, suggestion
from edgeopt.plan import plan
from edgeopt.prospects import ModelFacts
from edgeopt.recipe import Recipe, from_values
from edgeopt.schemes import scheme as scheme_named
from edgeopt.steps import Step, Training
from edgeopt.techniques import TECHNIQUES, Technique, technique
from edgeopt.vocabulary import Property

# Stands among the alternatives of a step for doing none of them.
NONE = "none"
# Digits that a drawn number keeps: more would not be told apart, and nobody wants to read them in a recipe.
DIGITS = 3
# Combinations of values that are looked at for one that the plan takes.
_LOOKED_AT = 256


@dataclass(frozen=True)
class Parameter:
    """Something that is drawn.

    Attributes:
        name: where it stands: "steps[0].prune.sparsity".
        values: one of these is taken; empty for a range.
        range: of numbers.
        whole: whether they are whole ones.
        only_with: see `choices.Option`.
    """

    name: str
    values: tuple[Any, ...] = ()
    range: Range | None = None
    whole: bool = False
    only_with: tuple[str, Any] | None = None

    @property
    def some(self) -> Any:
        """One of what may be drawn."""
        return self.values[0] if self.range is None else self.near(self.range.low)

    def near(self, value: float) -> float:
        """Returns a number of the range as a recipe has it: whole, or with few digits."""
        assert self.range is not None
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.range.low), self.range.high)


# Returns what was drawn for a parameter.
Pick = Callable[[Parameter], Any]


@dataclass(frozen=True)
class Alternative:
    """One of what may stand in a step's place.

    Attributes:
        technique: its name, NONE for leaving the step out.
        said: settings that are held.
        drawn: parameters by setting.
    """

    technique: str
    said: Mapping[str, Any] = field(default_factory=dict)
    drawn: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A step's place: its name, "steps[0]", and what may stand there."""

    name: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Known:
    """What is known of the model and its data before anything is drawn; None where it is not.

    Attributes:
        properties: what the weights of the model have already.
        untrainable: why it has no layers that a step could change, "" where it has.
    """

    facts: ModelFacts | None = None
    properties: frozenset[Property] = frozenset()
    untrainable: str = ""
    has_labels: bool | None = None
    has_training: bool | None = None
    has_calibration: bool | None = None


class ImpossibleError(Exception):
    """What was drawn does not combine: the search hears it, and no user."""


@dataclass(frozen=True)
class Space:
    """All recipes that may be drawn.

    Attributes:
        base: what all of them have.
        schemes: each recipe has one of them.
        training: parameters by key of the recipe's training.
        places: of the steps, in their order.
        sensible: leave out as well what a technique says of itself that it will not bring here: nobody asked for it.
    """

    base: Recipe
    schemes: tuple[str, ...]
    places: tuple[Place, ...] = ()
    training: Mapping[str, Parameter] = field(default_factory=dict)
    known: Known = Known()
    sensible: bool = False

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All that may be drawn, whether it counts in the end or not."""
        found = [self._scheme, *self.training.values()]
        for at in self.places:
            found.append(_which(at))
            found += [one for alternative in at.alternatives for one in alternative.drawn.values()]
        return tuple(found)

    @functools.cached_property
    def _target(self) -> targets.Target | None:
        return None if self.base.target is None else targets.target(self.base.target)

    @property
    def _scheme(self) -> Parameter:
        return Parameter("schemes", self.schemes)

    def recipe(self, pick: Pick) -> Recipe:
        """Returns the recipe of what `pick` draws; what can be one thing alone is not drawn.

        Raises:
            ImpossibleError: it does not combine; the message says why not.
        """
        scheme = _drawn(self._scheme, self.schemes, pick)
        training = {key: _drawn(one, one.values, pick) for key, one in self.training.items()}
        recipe = replace(self.base, schemes=(scheme,), training=replace(self.base.training, **training))
        for at in self.places:
            reasons = {one.technique: self._why_not(recipe, one) for one in at.alternatives}
            left = [name for name, why in reasons.items() if not why]
            if not left:
                raise ImpossibleError("; ".join(dict.fromkeys(reasons.values())))
            name = _drawn(_which(at), left, pick)
            chosen = next(one for one in at.alternatives if one.technique == name)
            if reasons[name]:
                raise ImpossibleError(reasons[name])
            if name != NONE:
                recipe = _with(recipe, self._step(recipe, chosen, pick))
        if why := self.refused(recipe):
            raise ImpossibleError(why)
        return recipe

    def _step(self, recipe: Recipe, chosen: Alternative, pick: Pick) -> Step:
        values: dict[str, Any] = dict(chosen.said)
        for key, one in chosen.drawn.items():
            if not _counts(chosen, one, values):
                continue
            left = [v for v in one.values if not self._why_not(recipe, chosen, {**values, key: v})]
            values[key] = _drawn(one, left or one.values, pick)
        return _made(chosen, values)

    def refused(self, recipe: Recipe) -> str:
        """Returns why a recipe is not run, "" where it may be."""
        known = self.known
        try:
            plan(
                recipe,
                properties=known.properties,
                has_labels=known.has_labels,
                has_training=known.has_training,
                has_calibration=known.has_calibration,
            )
        except EdgeoptError as error:
            return str(error)
        if why := self._refused_by_target(recipe):
            return why
        if known.untrainable and any(technique(step.technique).acts_on == "model" for step in recipe.steps):
            return known.untrainable
        schemes = [scheme_named(name) for name in recipe.schemes]
        for number, step in enumerate(recipe.steps if self.sensible else ()):
            row = technique(step.technique)
            reasons = [*row.remarks(step, recipe.steps[:number], schemes), *_vain(row, step, recipe, known.facts)]
            if reasons:
                return f"{row.name}: {reasons[0]}"
        return ""

    def foretold_bytes(self, recipe: Recipe) -> float | None:
        """Returns about how many bytes a recipe's file will have; None where nothing is known of the model."""
        facts = self.known.facts
        if facts is None:
            return None
        size = float(of_scheme(scheme_named(recipe.schemes[0]), facts).size_bytes or facts.float_bytes)
        for step in recipe.steps:
            prospect = technique(step.technique).predict(step, facts)
            size = min(size, prospect.size_bytes or size) * prospect.left * prospect.share
        return size

    def _refused_by_target(self, recipe: Recipe) -> str:
        if self._target is None:
            return ""
        try:
            for name in recipe.schemes:
                targets.refuse_scheme(self._target, scheme_named(name))
        except ConfigError as error:
            return str(error)
        return ""

    def _why_not(self, recipe: Recipe, chosen: Alternative, values: Mapping[str, Any] | None = None) -> str:
        """Returns why a step of no values at all can follow, these aside; "" where one can."""
        if chosen.technique == NONE:
            return ""
        why = ""
        for one in _combinations(chosen, chosen.said if values is None else values):
            try:
                found = self.refused(_with(recipe, _made(chosen, one)))
            except ConfigError as error:
                found = str(error)
            if not found:
                return ""
            why = why or found
        return why

    def first(self) -> Recipe:
        """Returns one recipe of the space.

        Raises:
            ConfigError: there is none; the message says why.
        """
        reasons: dict[str, str] = {}
        for scheme in self.schemes:
            found = self._completed(replace(self.base, schemes=(scheme,)), self.places, reasons)
            if found is not None:
                return found
        told = " ".join(dict.fromkeys(reasons.values()))
        raise ConfigError(f"Expected a space with something valid in it, got none: {told}")

    def _completed(self, recipe: Recipe, left: Sequence[Place], reasons: dict[str, str]) -> Recipe | None:
        if not left:
            return recipe
        for one in left[0].alternatives:
            if why := self._why_not(recipe, one):
                reasons.setdefault(f"{left[0].name} {recipe.schemes[0]}", why)
                continue
            further = recipe
            if one.technique != NONE:
                usable = (v for v in _combinations(one, one.said) if not self._why_not(recipe, one, v))
                further = _with(recipe, _made(one, next(usable)))
            if (found := self._completed(further, left[1:], reasons)) is not None:
                return found
        return None

    def plain(self) -> tuple[Mapping[str, Any], ...]:
        """Returns what to draw for each scheme without any step, where steps may be left out: what is tried first."""
        if not all(any(one.technique == NONE for one in at.alternatives) for at in self.places):
            return ()
        none = {_which(at).name: NONE for at in self.places}
        return tuple({self._scheme.name: scheme, **none} for scheme in self.schemes)


def _which(at: Place) -> Parameter:
    return Parameter(at.name, tuple(one.technique for one in at.alternatives))


def _drawn(one: Parameter, left: Sequence[Any], pick: Pick) -> Any:
    return left[0] if len(left) == 1 else pick(one)


def _with(recipe: Recipe, step: Step) -> Recipe:
    return replace(recipe, steps=(*recipe.steps, step))


def _made(chosen: Alternative, values: Mapping[str, Any]) -> Step:
    return technique(chosen.technique).step(**values)


def _counts(chosen: Alternative, one: Parameter, values: Mapping[str, Any]) -> bool:
    if one.only_with is None:
        return True
    key, wanted = one.only_with
    default = next(k.default for k in keys(technique(chosen.technique).step) if k.name == key)
    return bool(values.get(key, default) == wanted)


def _combinations(chosen: Alternative, said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields some settings of a step: these, the least of each range, and all values of other parameters."""
    base = dict(said)
    for key, one in chosen.drawn.items():
        if one.range is not None:
            base.setdefault(key, one.some)
    open_keys = [key for key in chosen.drawn if key not in base]

    def further(values: dict[str, Any], left: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not left:
            yield values
            return
        for value in chosen.drawn[left[0]].values:
            yield from further({**values, left[0]: value}, left[1:])

    for values in itertools.islice(further(base, open_keys), _LOOKED_AT):
        yield {k: v for k, v in values.items() if k not in chosen.drawn or _counts(chosen, chosen.drawn[k], values)}


def _vain(row: Technique, step: Step, recipe: Recipe, facts: ModelFacts | None) -> Iterator[str]:
    """Yields why a step cannot help this very model."""
    if facts is None:
        return
    prospect = row.predict(step, facts)
    if prospect.possible is False:
        yield prospect.words
    for name in recipe.schemes:
        if why := row.suits(scheme_named(name), facts):
            yield why


# --- reading ---------------------------------------------------------------------------------------------------------


def everything(base: Recipe, known: Known) -> Space:
    """Returns the space of all techniques that can be applied to a model with its data, each or none.

    Of those that make another architecture at most one is taken, and of those that change a file, too.
    """
    smaller = [row.name for row in TECHNIQUES.values() if row.changes_architecture]
    on_files = [row.name for row in TECHNIQUES.values() if row.acts_on == "file"]
    others = [[name] for name in TECHNIQUES if name not in (*smaller, *on_files)]
    places: list[Place] = []
    for names in (smaller, *others, on_files):
        number = len(places)
        found = [_alternative(name, f"steps[{number}]") for name in names]
        space = Space(base, _tried_schemes(), (), known=known, sensible=True)
        possible = [
            one for one in found if any(not space._why_not(replace(base, schemes=(s,)), one) for s in space.schemes)
        ]
        if possible:
            places.append(Place(f"steps[{number}]", (Alternative(NONE), *possible)))
    return Space(base, _tried_schemes(), tuple(places), known=known, sensible=True)


def _tried_schemes() -> tuple[str, ...]:
    tried = next(key for key in keys(Recipe) if key.name == "schemes").option.tried
    assert isinstance(tried, tuple)
    return tried


def space_from(values: Mapping[str, Any], known: Known = Known()) -> Space:
    """Returns the space of a recipe's keys and values, where a list stands for one of its items, {from: 0.3, to: 0.9}
    for a number between, by ratios with log: true, and a list in a step's place for one of these steps; `none` among
    them leaves it out. What a technique's settings do not say is searched where the technique knows what to try.

    Raises:
        ConfigError: a key is unknown or a value cannot be used; the message says where.
    """
    values = dict(values) if isinstance(values, Mapping) else values
    if not isinstance(values, dict):
        from_values(values)
        raise AssertionError("a recipe has keys")
    steps = values.pop("steps", None) or ()
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise ConfigError(f"Expected a list at steps, got {steps!r}. Try steps: [qat].")
    said, drawn = _divided(Training, values.pop("training", None) or {}, "training")
    base = from_values({**values, "training": said})
    schemes = base.schemes if "schemes" in values else _tried_schemes()
    places = tuple(_place(value, f"steps[{number}]") for number, value in enumerate(steps))
    return Space(base, schemes, places, drawn, known)


def _place(value: Any, where: str) -> Place:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values:
        raise ConfigError(f"{place(where)}Expected techniques, got an empty list. Try {NONE}.")
    found = tuple(Alternative(NONE) if one == NONE else _alternative(one, where) for one in values)
    names = [one.technique for one in found]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"{place(where)}Expected each technique once, got {', '.join(names)}. Try lists of its settings' values."
        )
    return Place(where, found)


def _alternative(value: Any, where: str) -> Alternative:
    said = {value: None} if isinstance(value, str) else value
    if not isinstance(said, Mapping) or len(said) != 1:
        raise ConfigError(
            f"Expected one technique at {where}, got {value!r}. Try its settings behind it: "
            "`- prune: {sparsity: [0.5, 0.8]}`."
        )
    ((name, settings),) = said.items()
    try:
        row = technique(str(name))
    except ConfigError as error:
        raise ConfigError(f"{place(where)}{error.marked}") from None
    at = f"{where}.{name}"
    held, drawn = _divided(row.step, settings or {}, at)
    for key in keys(row.step):
        if key.name not in held and key.name not in drawn and key.option.tried and _takes(row, held, drawn, key):
            drawn[key.name] = _parameter(key, key.option.tried, f"{at}.{key.name}")
    found = Alternative(row.name, held, drawn)
    try:
        _made(found, next(_combinations(found, held)))
    except ConfigError as error:
        raise ConfigError(f"{place(at)}{error.marked}") from None
    return found


def _takes(row: Technique, held: Mapping[str, Any], drawn: Mapping[str, Parameter], key: Key) -> bool:
    """Whether a setting that nobody said does not contradict those that were."""
    some = {one: parameter.some for one, parameter in drawn.items()}
    value = _parameter(key, key.option.tried, key.name).some
    try:
        row.step(**{**held, **some, key.name: value})
    except ConfigError:
        return False
    return True


def _divided(kind: Any, settings: Any, where: str) -> tuple[dict[str, Any], dict[str, Parameter]]:
    """Returns the settings that are held and those that are drawn."""
    if not isinstance(settings, Mapping):
        raise ConfigError(f"Expected keys and values at {where}, got {settings!r}. Try {where}: {{}}.")
    known = {key.name: key for key in keys(kind)}
    held: dict[str, Any] = {}
    drawn: dict[str, Parameter] = {}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"Unknown key {name!r} at {where}.{suggestion(str(name), known)}")
        key = known[name]
        try:
            several = _several(key, value)
            if several is None:
                held[name] = checked(key, value)
            else:
                drawn[name] = _parameter(key, several, f"{where}.{name}")
        except ConfigError as error:
            raise ConfigError(f"{place(where)}{error.marked}") from None
    return held, drawn


def _several(key: Key, value: Any) -> Range | tuple[Any, ...] | None:
    """Returns the values or the range that stand in a setting's place, None where one value does."""
    origin = typing.get_origin(key.type)
    if isinstance(value, Mapping) and origin is None:
        return _range(key, value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    if origin is tuple and not any(isinstance(item, Sequence) and not isinstance(item, str) for item in value):
        return None  # the setting itself is a list
    if not value:
        raise ConfigError(f"Expected values to try for {key.name}, got an empty list. Try two.")
    return tuple(checked(key, item) for item in value)


def _range(key: Key, value: Mapping[Any, Any]) -> Range:
    spelt = f"{key.name}: {{from: 0.3, to: 0.9}}"
    if key.type not in (int, float):
        raise ConfigError(f"Expected a list of values for {key.name}, got a range. Try {key.name}: [a, b].")
    if not {"from", "to"} <= value.keys() <= {"from", "to", "log"}:
        raise ConfigError(f"Expected from and to, and log or not, for {key.name}, got {dict(value)!r}. Try {spelt}.")
    low, high = (checked(key, value[end]) for end in ("from", "to"))
    log = value.get("log", False)
    if not isinstance(log, bool) or low >= high or (log and low <= 0):
        raise ConfigError(f"Expected a range upwards, above 0 with log: true, got {dict(value)!r}. Try {spelt}.")
    return Range(low, high, log)


def _parameter(key: Key, tried: Range | tuple[Any, ...], name: str) -> Parameter:
    if isinstance(tried, Range):
        return Parameter(name, range=tried, whole=key.type is int, only_with=key.option.only_with)
    return Parameter(name, tried, only_with=key.option.only_with)
