"""The techniques: a model, data and a choice go in; a changed model and a record of what was done come out.

The order of the table is the order in which techniques combine: each keeps what those above it gave the model.
"""

from __future__ import annotations

from edgeopt.errors import named
from edgeopt.techniques import awq, calibrate, cluster, correct_bias, distill, equalize, mixed, prune, qat, shrink
from edgeopt.techniques import round as rounding
from edgeopt.techniques.contract import Carried, Need, Technique

__all__ = ["TECHNIQUES", "Carried", "Need", "Technique", "technique"]

TECHNIQUES: dict[str, Technique] = {
    row.name: row
    for row in (
        distill.TECHNIQUE,
        shrink.TECHNIQUE,
        prune.TECHNIQUE,
        equalize.TECHNIQUE,
        awq.TECHNIQUE,
        cluster.TECHNIQUE,
        qat.TECHNIQUE,
        calibrate.TECHNIQUE,
        mixed.TECHNIQUE,
        rounding.TECHNIQUE,
        correct_bias.TECHNIQUE,
    )
}


def technique(name: str) -> Technique:
    """Returns the technique called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    return named(TECHNIQUES, name, "a technique")
