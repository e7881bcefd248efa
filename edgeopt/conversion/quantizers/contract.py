"""What every quantizer is made of, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeopt.errors import ConfigError
from edgeopt.vocabulary import Scheme

if TYPE_CHECKING:
    from edgeopt.conversion.calibrating import Calibrated


class Source(Protocol):
    """A model in the forms that quantizers start from; each is made when it is first asked for."""

    @property
    def plain_graph(self) -> Path | None:
        """The folder of a SavedModel; None where there is no float graph."""

    @property
    def float_file(self) -> bytes:
        """The float `.tflite`."""

    @property
    def calibrated(self) -> Calibrated:
        """The float `.tflite` with the ranges of its activations."""


@dataclass(frozen=True)
class Quantizer:
    """A row of QUANTIZERS.

    Attributes:
        summary: whose code it is and what it starts from.
        make: a source and a scheme go in, the bytes of a `.tflite` come out.
        makes: what it can do, as field of Scheme → values; "block" stands for blocks of any size.
        without_graph: the quantizer that stands in for it where there is no float graph; "" where it needs none.
        avoids: operators that it dies on or leaves in float, where the model can be had without them.
    """

    summary: str
    make: Callable[[Any, Scheme], bytes]
    makes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    without_graph: str = ""
    avoids: frozenset[str] = frozenset()

    def refuse(self, scheme: Scheme) -> None:
        """Raises ConfigError where it cannot make what `scheme` says."""
        for name, possible in self.makes.items():
            wanted = getattr(scheme, name)
            kind = wanted.partition(":")[0] if isinstance(wanted, str) else wanted
            if kind not in possible:
                raise ConfigError(
                    f"Expected a scheme that {scheme.maker} can make, with {name} one of "
                    f"{', '.join(map(repr, possible))}, got {scheme.name} with {wanted!r}. Try another maker."
                )
