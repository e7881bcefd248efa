"""Kinds of Keras layers and a scheme go in; those that no file of the scheme can hold come out, and why.

What is written here was tried: TensorFlow's converter refuses each of these layers, in whatever model it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeopt.vocabulary import Scheme


@dataclass(frozen=True)
class Refusal:
    """Layers that cannot be had.

    Attributes:
        kinds: their classes.
        schemes: in which schemes.
        reason: why not, and the way round.
        dies: whether the converter fails without a word that names them.
    """

    kinds: frozenset[str]
    schemes: Callable[[Scheme], bool]
    reason: str
    dies: bool = False


REFUSALS = (
    Refusal(
        frozenset({"CategoryEncoding", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"}),
        lambda scheme: True,
        "texts and tables have no operators: let the app do this, and the model begin behind it",
        dies=True,
    ),
    Refusal(
        frozenset({"AveragePooling3D", "MaxPooling3D"}),
        lambda scheme: True,
        "pooling over three axes has no operator: a Conv3D with strides takes its place",
    ),
    Refusal(
        frozenset({"LocallyConnected1D"}),
        lambda scheme: scheme.activations == "int16",
        "its operator has no form with int16 activations: int8, or another layer",
    ),
)


def unconvertible(kinds: Iterable[str], scheme: Scheme, *, dying: bool = False) -> str:
    """Returns which of these layers no file in `scheme` can hold and why, in words; "" where there are none.

    Args:
        kinds: of the model's layers.
        scheme: of the file.
        dying: only those that the converter does not name by itself.
    """
    there = set(kinds)
    refusals = (r for r in REFUSALS if r.schemes(scheme) and (r.dies or not dying))
    found = ((sorted(refusal.kinds & there), refusal) for refusal in refusals)
    return "; ".join(f"{', '.join(names)}: {refusal.reason}" for names, refusal in found if names)
