"""Kinds of layers and a scheme go in; those that no file of the scheme can hold come out, and why.

What is written here was tried: TensorFlow's converter refuses each of these layers, in whatever model it stands, or
LiteRT cannot run what is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeopt.errors import ConversionError
from edgeopt.schemes import SCHEMES
from edgeopt.vocabulary import Scheme


@dataclass(frozen=True)
class Refusal:
    """Layers that cannot be had.

    Attributes:
        kinds: their classes.
        schemes: in which schemes.
        reason: why not, and the way round.
        dies: whether the converter fails without a word that names them, or makes a file that nothing runs.
    """

    kinds: frozenset[str]
    schemes: Callable[[Scheme], bool]
    reason: str
    dies: bool = False


REFUSALS = (
    Refusal(
        # The last is what becomes of tables in a SavedModel, which has operations and no layers.
        frozenset(
            {"CategoryEncoding", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization", "LookupTableFindV2"}
        ),
        lambda scheme: True,
        "texts and tables run outside the .tflite: let the app do this, and cut the model behind it",
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
    Refusal(
        # The converter takes them: LiteRT ends its process on int16 RSQRT, and refuses GREATER of int16 and a float.
        frozenset({"LayerNormalization", "GroupNormalization", "ThresholdedReLU"}),
        lambda scheme: scheme.activations == "int16",
        "LiteRT dies on their operators with int16 activations: int8, or float16",
        dies=True,
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


def in_no_scheme(kinds: Iterable[str]) -> str:
    """Returns which of these layers keep a model from every scheme and why, in words; "" where some scheme is left."""
    kinds = tuple(kinds)
    words = [unconvertible(kinds, scheme) for scheme in SCHEMES.values()]
    return words[0] if all(words) else ""


def require_some_scheme(kinds: Iterable[str]) -> None:
    """Raises ConversionError where no file can hold a model of these layers: whatever is done to it is in vain."""
    if words := in_no_scheme(kinds):
        raise ConversionError(f"Expected layers that some .tflite can hold, got {words}.")
