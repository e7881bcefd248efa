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
    """

    kinds: frozenset[str]
    schemes: Callable[[Scheme], bool]
    reason: str


REFUSALS = (
    Refusal(
        frozenset({"CategoryEncoding", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"}),
        lambda scheme: True,
        "texts and tables have no operators: let the app do this, and the model begin behind it",
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


def unconvertible(kinds: Iterable[str], scheme: Scheme) -> str:
    """Returns which of these layers no file in `scheme` can hold and why, in words; "" where there are none."""
    there = set(kinds)
    found = ((sorted(refusal.kinds & there), refusal) for refusal in REFUSALS if refusal.schemes(scheme))
    return "; ".join(f"{', '.join(names)}: {refusal.reason}" for names, refusal in found if names)
