"""What is known of a model and its budgets goes in; the recipes that may bring what lacks come out, rung by rung."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from edgeopt.advice import OPERATORS
from edgeopt.prospects import ModelFacts
from edgeopt.recipe import Recipe, load_recipe
from edgeopt.runtimes import parse
from edgeopt.schemes import SCHEMES, scheme
from edgeopt.steps import TrainedStep
from edgeopt.targets import Target
from edgeopt.techniques import Need, technique
from edgeopt.vocabulary import Gain, Variant

FOUR_BITS = "int4"
# A file is made a little smaller than it has to be: what it takes is known exactly only when it is there.
_ROOM = 0.95
# What is left of a file's graph, scales and biases after a cut: fewer channels have fewer scales.
_GRAPH_LEFT = 0.7
# The second cut, in parts of the first.
_DEEPER = 0.7
# Of weights or arithmetic, the least and the most that a cut keeps.
_DEEPEST, _MILDEST = 0.15, 0.9


@dataclass(frozen=True)
class Situation:
    """What candidates are chosen by.

    Attributes:
        asked: what the command says of schemes, budgets, target, training and seed; it has no steps.
        lacking: what is to be brought: what the nearest variants lack, or what the aim goes on gaining.
        facts: of the model as it came.
        base: the model as it came in integers, what every cut is measured against.
        drop: what that loses, in points or per cent; None where it is not known.
        latency_ms: what it takes of a budget of latency; None where that is not known.
        target: None where the model is for no device in particular.
        allowed: the schemes that were named, all where none was.
    """

    asked: Recipe
    lacking: frozenset[Gain]
    facts: ModelFacts
    base: Variant
    drop: float | None = None
    latency_ms: float | None = None
    target: Target | None = None
    allowed: frozenset[str] = frozenset(SCHEMES)

    @property
    def scheme(self) -> str:
        """What files are made in, where they are not made in fewer bits."""
        return self.base.scheme

    def wants(self, *gains: Gain) -> bool:
        """Whether one of these lacks."""
        return bool(self.lacking & set(gains))

    @property
    def in_eight_bits(self) -> tuple[str, ...]:
        """Operators here of which the target's runtimes take no weights in fewer bits."""
        promised = () if self.target is None else self.target.runtimes
        refused = frozenset[str]().union(*(parse(text).runtime.eight_bits for text in promised))
        return tuple(sorted(refused & {OPERATORS.get(weight.kind, "") for weight in self.facts.weights}))

    @property
    def weights_share(self) -> float:
        """Of the bytes of the base, those that are weights."""
        return self.base.bytes_by_kind.get("weights", 0) / (self.base.size_bytes or 1)

    @property
    def size_share(self) -> float | None:
        """The share of the base's bytes that a file may have; None where no size is asked for."""
        limit, size = self.asked.budgets.max_size_bytes, self.base.size_bytes
        return None if limit is None or not size else limit / size

    @property
    def cut(self) -> tuple[str, float]:
        """What a cut should keep of which count, "bytes" of weights or "macs": as the budgets need, else a half."""
        shares = {"macs": 0.5}
        if self.wants(Gain.BYTES) and self.size_share is not None:
            rest = _GRAPH_LEFT * (1 - self.weights_share)
            shares = {"bytes": (self.size_share * _ROOM - rest) / max(self.weights_share, 0.1)}
        limit = self.asked.budgets.max_latency_ms
        if self.wants(Gain.LATENCY) and limit is not None and self.latency_ms:
            shares["macs"] = _ROOM * limit / self.latency_ms
        count = min(shares, key=lambda name: shares[name])
        return count, _share(shares[count])


def _share(value: float) -> float:
    return round(min(max(value, _DEEPEST), _MILDEST), 2)


# candidates(situation) gives the recipes of a rung, the mildest first.
Candidates = Callable[[Situation], Iterable[Recipe]]
# idle(situation) says why a rung brings nothing to this very model, "" where it may.
Idle = Callable[[Situation], str]


@dataclass(frozen=True)
class Rung:
    """A row of RUNGS.

    Attributes:
        name: what it is called.
        summary: what is done there, in words.
        brings: what it can bring at all; a rung that brings nothing of what lacks is skipped.
        candidates, idle: see above.
    """

    name: str
    summary: str
    brings: frozenset[Gain]
    candidates: Candidates
    idle: Idle = lambda situation: ""


def needs(recipe: Recipe) -> tuple[Need, ...]:
    """Returns what a recipe takes beside the model, in the order of Need."""
    found: set[Need] = set()
    for step in recipe.steps:
        training = step.training(recipe.training) if isinstance(step, TrainedStep) else None
        found |= set(technique(step.technique).needs_of(training))
    if any(scheme(name).needs_calibration for name in recipe.schemes):
        found.add(Need.CALIBRATION)
    return tuple(need for need in Need if need in found)


def touches_model(recipe: Recipe) -> bool:
    """Whether a recipe changes layers, and not files alone."""
    return any(technique(step.technique).acts_on == "model" for step in recipe.steps)


# --- what is tried on each --------------------------------------------------------------------------------------------


def _packaged(name: str, situation: Situation, scheme: str, called: str = "", **changed: Any) -> Recipe:
    """Returns a packaged recipe with what the command says in place of the recipe's own; `changed` in all its steps."""
    asked, recipe = situation.asked, load_recipe(name)
    steps = tuple(
        replace(step, **{key: value for key, value in changed.items() if hasattr(step, key)}) for step in recipe.steps
    )
    whole = replace(asked, name=called or name, summary=recipe.summary, schemes=(scheme,), steps=steps, formats=())
    return whole.with_training(asked.training.said())


def _schemes(situation: Situation) -> Iterable[Recipe]:
    yield replace(situation.asked, name="schemes")


def _repairs(situation: Situation) -> Iterable[Recipe]:
    yield _packaged("repair", situation, situation.scheme)
    if not situation.facts.untrainable:
        yield _packaged("per-tensor", situation, situation.scheme, "equalize-and-repair")


def _four_bits(situation: Situation) -> Iterable[Recipe]:
    yield _packaged("few-values", situation, FOUR_BITS, "four-bits")


def _mixed(situation: Situation) -> Iterable[Recipe]:
    limit, size = situation.asked.budgets.max_size_bytes, situation.base.size_bytes or 0
    if limit is not None and situation.wants(Gain.BYTES) and limit < size:
        most = str(limit)
    else:
        # Of what weights of four bits can take off at most, a half.
        most = f"{100 * (1 - situation.weights_share / 4):.0f}%"
    yield _packaged("mixed-bits", situation, situation.scheme, size=most, spare=situation.in_eight_bits)


def _trained(situation: Situation) -> Iterable[Recipe]:
    if situation.wants(Gain.QUALITY):
        yield _packaged("qat", situation, situation.scheme)
    if situation.wants(Gain.BYTES) and not _no_four_bits(situation):
        yield _packaged("qat-int4", situation, FOUR_BITS)


def _shrunk(situation: Situation) -> Iterable[Recipe]:
    count, share = situation.cut
    for kept in dict.fromkeys((share, _share(_DEEPER * share))):
        yield _cut(situation, situation.scheme, count, kept)


def _shrunk_to_four_bits(situation: Situation) -> Iterable[Recipe]:
    count, share = situation.cut
    # Four bits take about half of the weights; the cut has to bring the rest.
    kept = share if situation.size_share is None else _share(2 * share)
    cut, rounded = _cut(situation, FOUR_BITS, count, kept), _packaged("few-values", situation, FOUR_BITS)
    yield replace(cut, name=f"{cut.name}-in-four-bits", steps=(*cut.steps, *rounded.steps))


def _cut(situation: Situation, scheme: str, count: str, kept: float) -> Recipe:
    budget: dict[str, float | None] = {"macs": None, count: kept}
    return _packaged("half-macs", situation, scheme, f"{100 * kept:.0f}%-of-{count}", **budget)


def _student(situation: Situation) -> Iterable[Recipe]:
    # Weights and arithmetic fall with the square of the width.
    yield _packaged("student", situation, situation.scheme, width=round(max(situation.cut[1] ** 0.5, 0.25), 2))


# --- what brings nothing here -----------------------------------------------------------------------------------------


def _nothing_lost(situation: Situation) -> str:
    if situation.drop is not None and situation.drop <= 0:
        return f"{situation.base.name} loses nothing that could be mended"
    return ""


def _refused_four_bits(situation: Situation) -> str:
    if FOUR_BITS not in situation.allowed:
        return f"weights of four bits were not asked for, only {', '.join(sorted(situation.allowed))}"
    if situation.target is not None and (why := situation.target.refused.get(FOUR_BITS)):
        return f"{situation.target.name} takes no weights of four bits: {why}"
    return ""


def _no_four_bits(situation: Situation) -> str:
    return _refused_four_bits(situation) or _too_large(
        situation, 1 - situation.weights_share / 2, "with every weight in four bits"
    )


def _too_large(situation: Situation, least: float, how: str) -> str:
    """Says that a file is too large at best, where it is; `least` is the share of the base's bytes that it has then."""
    share, size = situation.size_share, situation.base.size_bytes or 0
    only = situation.lacking <= {Gain.BYTES}
    if only and share is not None and least > share:
        return f"{how} the file would still take about {least * size:,.0f} bytes"
    return ""


def _not_cut(situation: Situation) -> str:
    if why := _too_large(situation, _GRAPH_LEFT * (1 - situation.weights_share), "without one weight"):
        return why
    if not any(weight.kind != "depthwise" for weight in situation.facts.weights):
        return "there are no layers with channels to cut"
    return ""


def _not_cut_to_four_bits(situation: Situation) -> str:
    return _not_cut(situation) or _refused_four_bits(situation)


_SMALLER = frozenset({Gain.BYTES})
_CUT = frozenset({Gain.BYTES, Gain.LATENCY, Gain.RAM})

# From what costs seconds to what costs training.
RUNGS: tuple[Rung, ...] = (
    Rung("schemes", "convert in each scheme", frozenset(Gain), _schemes),
    Rung(
        "repair",
        "mend ranges and biases without training",
        frozenset({Gain.QUALITY}),
        _repairs,
        _nothing_lost,
    ),
    Rung("four bits", "four bits a weight, rounded by what each layer computes", _SMALLER, _four_bits, _no_four_bits),
    Rung(
        "mixed precision",
        "four bits for the layers that bear them, eight for the others",
        _SMALLER,
        _mixed,
        _no_four_bits,
    ),
    Rung(
        "quantization-aware training",
        "train with simulated integers",
        frozenset({Gain.QUALITY, Gain.BYTES}),
        _trained,
        lambda situation: "" if list(_trained(situation)) else _no_four_bits(situation),
    ),
    Rung("shrink", "cut channels in rounds, and let the model teach what is left", _CUT, _shrunk, _not_cut),
    Rung(
        "shrink and four bits",
        "cut channels, and round what is left to four bits",
        _SMALLER,
        _shrunk_to_four_bits,
        _not_cut_to_four_bits,
    ),
    Rung("student", "a narrower model that learns from this one", _CUT, _student, _not_cut),
)
