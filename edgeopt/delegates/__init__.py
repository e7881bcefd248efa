"""What Android's delegates leave on the CPU: a `.tflite` and a delegate's name go in, operators with reasons come out.

The rules are data, one file for each delegate, and each names the line of the delegate's source that it was read from.
A rule says what the delegate refuses for certain; what a phone's driver refuses beyond that only the phone tells.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgeopt.errors import named

if TYPE_CHECKING:
    from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel

_FOLDER = resources.files("edgeopt.delegates")


@dataclass(frozen=True)
class Rule:
    """What an operator has to be.

    Attributes:
        source: where that stands, after the delegate's `source`.
        max_version: of the operator; None where none is too new.
        constant: operands whose values have to stand in the file.
        ranks: by operand, how many dimensions it may have.
        dtypes: by operand, what it may hold.
    """

    source: str
    max_version: int | None = None
    constant: tuple[int, ...] = ()
    ranks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """A delegate.

    Attributes:
        title: what it is called in sentences.
        source: address of its code, or of what is known of it.
        unknown: why nothing is known of its operators; "" where the rules are.
    """

    title: str
    source: str
    operators: Mapping[str, Rule]
    unknown: str = ""


@dataclass(frozen=True)
class Left:
    """Operators that stay on the CPU for one reason.

    Attributes:
        source: address of the rule.
    """

    operator: str
    count: int
    reason: str
    source: str


DELEGATES: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))
)


@functools.cache
def rules(name: str) -> Rules:
    """Returns the rules of the delegate called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    import yaml

    named({known: known for known in DELEGATES}, name, "a delegate")
    found: dict[str, Any] = yaml.safe_load(_FOLDER.joinpath(f"{name}.yaml").read_text("utf-8"))
    operators = {operator: Rule(**said) for operator, said in found.pop("operators").items()}
    return Rules(operators=operators, **found)


def left(model: TFLiteModel, name: str) -> tuple[Left, ...]:
    """Returns what the delegate called `name` leaves of the main graph for certain, most frequent first.

    Raises:
        ConfigError: there is no such delegate.
    """
    known = rules(name)
    reasons = Counter(
        (operator.name, reason, source)
        for operator in model.main.operators
        for reason, source in _reasons(model.main, operator, known)
    )
    return tuple(Left(operator, count, reason, source) for (operator, reason, source), count in reasons.most_common())


def unknown(name: str) -> str:
    """Says what is not known of the delegate called `name`, and who knows it; "" where the rules are.

    Raises:
        ConfigError: there is no such delegate.
    """
    known = rules(name)
    if not known.unknown:
        return ""
    return f"which operators stay on the CPU with {known.title} is not known here: {known.unknown} ({known.source})"


def verdict(model: TFLiteModel, name: str) -> tuple[str, ...]:
    """Returns the same in words, empty where nothing speaks against the whole graph."""
    return tuple(
        f"{row.count} x {row.operator} stays on the CPU: {row.reason} ({row.source})" for row in left(model, name)
    )


def _reasons(graph: Subgraph, operator: Operator, known: Rules) -> Iterator[tuple[str, str]]:
    """Yields the first reason against an operator, with its source."""
    if known.unknown:
        return
    rule = known.operators.get(operator.name)
    if rule is None:
        yield "the delegate has no such operator", known.source
        return
    source = f"{known.source}/{rule.source}"
    if rule.max_version is not None and operator.version > rule.max_version:
        yield f"version {operator.version} of it, the delegate knows {rule.max_version} at most", source
        return
    for position in rule.constant:
        tensor = graph.operand(operator, position)
        if tensor is not None and not tensor.is_constant:
            yield f"its operand {position} is computed, the delegate takes a constant", source
            return
    for position, ranks in rule.ranks.items():
        tensor = graph.operand(operator, position)
        if tensor is not None and len(tensor.shape) not in ranks:
            wanted = " or ".join(map(str, ranks))
            yield f"its operand {position} has {len(tensor.shape)} dimensions, the delegate takes {wanted}", source
            return
    for position, dtypes in rule.dtypes.items():
        tensor = graph.operand(operator, position)
        if tensor is not None and tensor.dtype not in dtypes:
            yield f"its operand {position} holds {tensor.dtype}, the delegate takes {' or '.join(dtypes)}", source
            return
