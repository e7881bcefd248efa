"""What is known of a model and its budgets goes in; the recipes that may bring what lacks come out, rung by rung."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeopt.advice import OPERATORS, weight_bytes
from edgeopt.prospects import ModelFacts
from edgeopt.recipe import Recipe, load_recipe
from edgeopt.runtimes import parse
from edgeopt.schemes import SCHEMES, scheme
from edgeopt.steps import TrainedStep
from edgeopt.targets import Target
from edgeopt.techniques import Need, technique
from edgeopt.techniques.qat import narrowed
from edgeopt.techniques.shrink import Shrink
from edgeopt.vocabulary import Gain, Variant

FOUR_BITS, EIGHT_BITS = "int4", "int8"
# A file is made a little smaller than it has to be: what it takes is known exactly only when it is there.
_ROOM = 0.95
# So much less again than what is known from a file that missed the budget.
_AGAIN = 0.98
# Of each channel a file has a bias, two scales, the weight's and the bias', and more of which there is less; `shrink`
# counts a bias and a scale.
_CHANNEL_BYTES, _COUNTED_BYTES = 13, 8
# Channels go more slowly than weights, which most layers have on two sides of them: this power of the share is left.
_CHANNELS_LEFT = 0.8
# Channel counts are kept multiples of this where time does not count, of the recipe's number where it does.
_FINE = 4
# The second cut, in parts of the first.
_DEEPER = 0.7
# Of weights or arithmetic, the least and the most that a cut keeps.
_DEEPEST, _MILDEST = 0.15, 0.9
# The least that a cut keeps which nothing is trained after. A DS-CNN bears to lose a half, a ResNet-8 does not: what
# survives is measured, and this only spares what is hopeless.
_DEEPEST_UNTRAINED = 0.33


@dataclass(frozen=True)
class Situation:
    """What candidates are chosen by.

    Attributes:
        asked: what the command says of schemes, budgets, target, training and seed; it has no steps.
        lacking: what is to be brought: what the nearest variants lack, or what the aim goes on gaining.
        facts: of the model as it came.
        base: the model as it came in integers, what every cut is measured against.
        base_lacks: what that lacks: it stays where a rung does not bring it.
        drop: what that loses, in points or per cent; None where it is not known.
        latency_ms: what it takes of a budget of latency; None where that is not known.
        target: None where the model is for no device in particular.
        four_bits_lose: what weights of four bits alone are shown to lose, in words; "" where that is not too much.
        missed_by: by scheme, how many times larger than the budget a file was that was cut for it.
        allowed: the schemes that were named, all where none was.
    """

    asked: Recipe
    lacking: frozenset[Gain]
    facts: ModelFacts
    base: Variant
    drop: float | None = None
    latency_ms: float | None = None
    target: Target | None = None
    base_lacks: frozenset[Gain] = frozenset()
    four_bits_lose: str = ""
    missed_by: Mapping[str, float] = field(default_factory=dict)
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

    def bytes_at(self, left: float, scheme_name: str = "") -> float:
        """Returns the bytes of a file that keeps a share of the bytes of weights, as `shrink` counts them.

        Args:
            scheme_name: that the weights are stored in; the base's where it is not said.
        """
        weights = self.base.bytes_by_kind.get("weights", 0)
        channels = sum(weight.channels for weight in self.facts.weights)
        graph = max(0, (self.base.size_bytes or 0) - weights - _CHANNEL_BYTES * channels)
        stored = [weight_bytes(scheme(name), self.facts) or 1 for name in (scheme_name or self.scheme, self.scheme)]
        few = left**_CHANNELS_LEFT * channels
        kept = max(0.0, left * (weights + _COUNTED_BYTES * channels) - _COUNTED_BYTES * few)
        return graph + kept * stored[0] / stored[1] + _CHANNEL_BYTES * few

    def cut(self, scheme_name: str = "") -> tuple[str, float]:
        """Returns what a cut should keep of which count, "bytes" of weights or "macs": as budgets need, else a half.

        Args:
            scheme_name: see `bytes_at`.
        """
        shares = {"macs": 0.5}
        limit = self.asked.budgets.max_size_bytes
        if self.wants(Gain.BYTES) and limit is not None:
            missed = self.missed_by.get(scheme_name or self.scheme)
            most = _ROOM * limit if missed is None else _AGAIN * _ROOM * limit / missed
            fitting = (k / 100 for k in range(100, 0, -1) if self.bytes_at(k / 100, scheme_name) <= most)
            shares = {"bytes": next(fitting, 0.0)}
        most_ms = self.asked.budgets.max_latency_ms
        if self.wants(Gain.LATENCY) and most_ms is not None and self.latency_ms:
            shares["macs"] = _ROOM * most_ms / self.latency_ms
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
    if situation.wants(Gain.QUALITY) and not _stays(situation, Gain.QUALITY):
        yield _packaged("qat", situation, situation.scheme)
    if situation.wants(Gain.BYTES) and not _not_trained_in_four_bits(situation):
        yield _packaged("qat-int4", situation, FOUR_BITS)


def _cut_untrained(situation: Situation) -> Iterable[Recipe]:
    """Yields cuts that nothing is trained after, the milder one first."""
    for scheme_name in _schemes_of_cuts(situation):
        if situation.cut(scheme_name)[1] >= _DEEPEST_UNTRAINED:
            yield _untrained(_cut_to_four_bits(situation) if scheme_name == FOUR_BITS else _cut_alone(situation))


def _schemes_of_cuts(situation: Situation) -> tuple[str, ...]:
    """Returns the schemes in which a cut without training may do, the one that takes the milder one first."""
    four_bits = situation.wants(Gain.BYTES) and not (situation.four_bits_lose or _nothing_in_four_bits(situation))
    return (FOUR_BITS, situation.scheme) if four_bits else (situation.scheme,)


def _shrunk(situation: Situation) -> Iterable[Recipe]:
    count, share = situation.cut()
    for kept in dict.fromkeys((share, _share(_DEEPER * share))):
        yield _cut(situation, situation.scheme, count, kept)


def _shrunk_to_four_bits(situation: Situation) -> Iterable[Recipe]:
    yield _cut_to_four_bits(situation)


def _cut_alone(situation: Situation) -> Recipe:
    return _cut(situation, situation.scheme, *situation.cut())


def _cut_to_four_bits(situation: Situation) -> Recipe:
    cut = _cut(situation, FOUR_BITS, *situation.cut(FOUR_BITS))
    rounded = _packaged("few-values", situation, FOUR_BITS)
    return replace(cut, name=f"{cut.name}-in-four-bits", steps=(*cut.steps, *rounded.steps))


def _cut(situation: Situation, scheme: str, count: str, kept: float) -> Recipe:
    changed: dict[str, Any] = {"macs": None, count: kept}
    if not situation.wants(Gain.LATENCY):
        changed["multiple_of"] = _FINE
    return _packaged("half-macs", situation, scheme, f"{100 * kept:.0f}%-of-{count}", **changed)


def _untrained(recipe: Recipe) -> Recipe:
    """Returns a recipe of cuts without the training after them."""
    steps = tuple(replace(one, epochs=0, rounds=1) if isinstance(one, Shrink) else one for one in recipe.steps)
    return replace(recipe, name=f"{recipe.name}-untrained", steps=steps)


def _student(situation: Situation) -> Iterable[Recipe]:
    # Weights and arithmetic fall with the square of the width.
    yield _packaged("student", situation, situation.scheme, width=round(max(situation.cut()[1] ** 0.5, 0.25), 2))


# --- what brings nothing here -----------------------------------------------------------------------------------------


def _stays(situation: Situation, *brought: Gain) -> str:
    """Says what stays of that which the base lacks where only some of it is brought, "" where nothing does."""
    left = situation.base_lacks - set(brought) - {Gain.RUNS}
    lacks = " and ".join(gain.value for gain in Gain if gain in left)
    return f"it does not bring {lacks}, which {situation.base.name} lacks" if left else ""


def _nothing_to_mend(situation: Situation) -> str:
    if situation.drop is not None and situation.drop <= 0:
        return f"{situation.base.name} loses nothing that could be mended"
    return _stays(situation, Gain.QUALITY)


def _refused_four_bits(situation: Situation) -> str:
    if FOUR_BITS not in situation.allowed:
        return f"weights of four bits were not asked for, only {', '.join(sorted(situation.allowed))}"
    if situation.target is not None and (why := situation.target.refused.get(FOUR_BITS)):
        return f"{situation.target.name} takes no weights of four bits: {why}"
    return ""


def _nothing_in_four_bits(situation: Situation) -> str:
    """Says why no weight would be stored in four bits where the scheme chooses which, "" where one would."""
    if why := _refused_four_bits(situation):
        return why
    in_four, in_eight = (weight_bytes(scheme(name), situation.facts) for name in (FOUR_BITS, EIGHT_BITS))
    if "auto" in situation.asked.keep_8bit and in_four == in_eight:
        return "no weight would have four bits: all layers are small, first, last or of kinds that stay at eight"
    return ""


def _no_four_bits(situation: Situation) -> str:
    return _nothing_in_four_bits(situation) or _no_mixed_bits(situation)


def _not_trained_in_four_bits(situation: Situation) -> str:
    if why := _no_four_bits(situation):
        return why
    if "auto" in situation.asked.keep_8bit and not narrowed(situation.facts):
        return "no weight would be trained in four bits: all layers are small, first, last or of kinds that are not"
    return ""


def _no_mixed_bits(situation: Situation) -> str:
    every = 1 - situation.weights_share / 2
    return (
        _refused_four_bits(situation)
        or _too_large(situation, every, "with every weight in four bits")
        or _stays(situation, Gain.BYTES, Gain.QUALITY)
    )


def _too_large(situation: Situation, least: float, how: str) -> str:
    """Says that a file is too large at best, where it is; `least` is the share of the base's bytes that it has then."""
    share, size = situation.size_share, situation.base.size_bytes or 0
    if share is not None and least > share:
        return f"{how} the file would still take about {least * size:,.0f} bytes"
    return ""


def _not_cut(situation: Situation, scheme_name: str = "") -> str:
    left = f"with {_DEEPEST:.0%} of its weights{' in four bits' if scheme_name == FOUR_BITS else ''}"
    least = situation.bytes_at(_DEEPEST, scheme_name) / (situation.base.size_bytes or 1)
    if why := _too_large(situation, least, f"{left}, the least that is tried,"):
        return why
    if not any(weight.kind != "depthwise" for weight in situation.facts.weights):
        return "there are no layers with channels to cut"
    return ""


def _not_cut_untrained(situation: Situation) -> str:
    scheme_name = _schemes_of_cuts(situation)[0]
    if (why := _not_cut(situation, scheme_name)) or list(_cut_untrained(situation)):
        return why
    if situation.four_bits_lose:
        return situation.four_bits_lose
    count, share = situation.cut(scheme_name)
    how = f"{'arithmetic' if count == 'macs' else 'weights'}{', in four bits,' if scheme_name == FOUR_BITS else ''}"
    return f"a cut to {share:.0%} of the {how} is too deep to do without training"


def _not_cut_to_four_bits(situation: Situation) -> str:
    return _nothing_in_four_bits(situation) or _not_cut(situation, FOUR_BITS)


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
        _nothing_to_mend,
    ),
    Rung("four bits", "four bits a weight, rounded by what each layer computes", _SMALLER, _four_bits, _no_four_bits),
    Rung(
        "mixed precision",
        "four bits for the layers that bear them, eight for the others",
        _SMALLER,
        _mixed,
        _no_mixed_bits,
    ),
    Rung(
        "cut",
        "cut channels and fit what is left on samples, alone and with four bits; nothing is trained",
        _CUT,
        _cut_untrained,
        _not_cut_untrained,
    ),
    Rung(
        "quantization-aware training",
        "train with simulated integers",
        frozenset({Gain.QUALITY, Gain.BYTES}),
        _trained,
        lambda situation: (
            "" if list(_trained(situation)) else _not_trained_in_four_bits(situation) or _stays(situation, Gain.QUALITY)
        ),
    ),
    Rung(
        "shrink and four bits",
        "cut channels, and round what is left to four bits",
        _SMALLER,
        _shrunk_to_four_bits,
        _not_cut_to_four_bits,
    ),
    Rung("shrink", "cut channels in rounds, and let the model teach what is left", _CUT, _shrunk, _not_cut),
    Rung("student", "a narrower model that learns from this one", _CUT, _student, _not_cut),
)
