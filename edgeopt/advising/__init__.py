"""A workspace and a target go in; what to apply, in which order, what it brings, and what not to bother with come out.

Nothing is said that does not rest on a fact of this model or a document that is named; what is not known is said to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeopt.advising.facts import Fact, Known, gather
from edgeopt.advising.rules import RULES, SOURCES, Cited, Rule, Verdict, rule_for, steps
from edgeopt.schemes import SCHEMES
from edgeopt.showing.values import Shown
from edgeopt.targets import Target
from edgeopt.workspace import Workspace

__all__ = ["RULES", "SOURCES", "Cited", "Fact", "Guide", "Item", "Known", "Rule", "advise", "gather", "named", "steps"]

# Which fact says how much noise a step leaves at least.
_NOISE = {
    **dict.fromkeys(("int8", "calibrate", "correct-bias", "equalize", "qat", "dynamic"), "int8_error"),
    **dict.fromkeys(("int4", "round", "mixed"), "int4_error"),
}
_NEARLY_FLOAT = ("float16", "int16x8")
# From so many dB on, at most so much of a score is lost: a rule of thumb, which `bench.advice` holds against files.
_LOSSES = ((30.0, 0.5), (20.0, 2.0), (10.0, 10.0))
_NAMES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Item:
    """What is advised of one step.

    Attributes:
        step: a scheme or a technique.
        verdict: "do", "try", "skip" or "unknown".
        why: in words.
        gain: what it will bring here, in words.
        size_bytes: of the file then, in its scheme, foretold; None where that is not told.
        most_lost: of the score, in points or per cent, foretold; None where that is not known before it is tried.
        condition: the rule's own, in words.
        facts: what `why` rests on.
        sources: documents that it cites.
    """

    step: str
    verdict: Verdict
    why: str
    gain: str
    size_bytes: int | None
    most_lost: float | None
    condition: str
    facts: tuple[Fact, ...]
    sources: tuple[Cited, ...]


@dataclass(frozen=True)
class Guide(Shown):
    """The advice on a model.

    Attributes:
        target: its name, "" where none was named.
        items: of each step, in the order in which they are taken.
        facts: all that is known.
        command: what to type, as words.
    """

    target: str
    items: tuple[Item, ...]
    facts: tuple[Fact, ...]
    command: tuple[str, ...]

    def of(self, verdict: Verdict) -> tuple[Item, ...]:
        """Returns the items of one verdict, in their order."""
        return tuple(item for item in self.items if item.verdict == verdict)


def advise(
    workspace: Workspace, target: Target | None = None, *, given: tuple[str, ...] = (), for_target: tuple[str, ...] = ()
) -> Guide:
    """Returns the advice on a workspace's model.

    Args:
        workspace: data, labels and a training set where there are some.
        target: what it is meant for.
        given: the options that name the data and the model's own code, as they were typed.
        for_target: the same of the target.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
    """
    known = gather(workspace, target)
    items = tuple(_item(step, known) for step in steps())
    model = str(workspace.original.file)
    return Guide(
        target.name if target is not None else "",
        items,
        tuple(known.facts.values()),
        _command(known, items, model, given, for_target),
    )


def named(words: str) -> tuple[str, ...]:
    """Returns the names of the facts that a rule's words hold."""
    return tuple(dict.fromkeys(_NAMES.findall(words)))


def _item(step: str, known: Known) -> Item:
    rule, prospect = rule_for(step, known), known.prospects[step]
    also = tuple(known.facts[name] for name in rule.also if not known.unknown(name))
    facts = (*(known.facts[name] for name in named(rule.why)), *also)
    size = prospect.size_bytes
    if size is None and step not in SCHEMES and prospect.left < 1 and known.int8_bytes is not None:
        # What is cut away are int8 weights of a byte each.
        size = known.int8_bytes - round(known.model.elements * (1 - prospect.left))
    return Item(
        step,
        rule.verdict,
        "; ".join((rule.why.format(**{fact.name: fact.words for fact in facts}), *(fact.words for fact in also))),
        prospect.gain,
        size,
        _most_lost(step, known),
        rule.condition,
        facts,
        tuple(SOURCES[name] for name in rule.cites),
    )


def _most_lost(step: str, known: Known) -> float | None:
    """Returns what a step may cost of the score, by the noise that is left in the outputs."""
    if step in _NEARLY_FLOAT:
        return _LOSSES[0][1]
    left = known.number(_NOISE[step]) if step in _NOISE else None
    return None if left is None else next((most for limit, most in _LOSSES if left >= limit), None)


def _command(
    known: Known, items: tuple[Item, ...], model: str, given: tuple[str, ...], target: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the command that does what is advised."""
    verdicts = {item.step: item.verdict for item in items}
    if known.has("quantized"):
        return ("edgeopt", "inspect", model)
    stem = re.sub(r"\W+", "-", model.rpartition("/")[2].rpartition(".")[0]).strip("-") or "model"
    if not known.has("samples"):
        scheme = "dynamic" if verdicts["dynamic"] == "do" else "float16" if verdicts["float16"] == "do" else "float32"
        return ("edgeopt", "convert", model, "-o", f"{stem}.{scheme}.tflite", "--scheme", scheme, *given, *target)
    if not known.has("labels"):
        scheme = "int8-per-tensor" if verdicts["equalize"] == "do" else "int8"
        return ("edgeopt", "repair", model, "-o", f"{stem}.{scheme}.tflite", "--scheme", scheme, *given)
    return ("edgeopt", "optimize", model, "-o", f"{stem}-optimized", "--max-drop", "1.0", *given, *target)
