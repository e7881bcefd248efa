"""Places with some choices each, and how far off a file with certain ones is, go in; the choices to take come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeopt import progress
from edgeopt.repairing.closeness import change

KEEP = "keep"

Choices = dict[str, str]
# Errors of the samples with these choices; None where no file can have them.
Measure = Callable[[Mapping[str, str]], "np.ndarray | None"]


def search(places: Mapping[str, Sequence[str]], measure: Measure) -> Choices:
    """Returns the choices that bring a file nearer than what it has; a place without one keeps what it has.

    First one kind of choice everywhere, as people try it by hand; from the best, one place after another. What is not
    shown to be nearer is not taken.

    Args:
        places: name → kinds of choices that differ there.
        measure: see `Measure`; the same samples each time.
    """
    best: Choices = {}
    least = measure(best)
    if least is None:
        return best
    kinds = dict.fromkeys(kind for offered in places.values() for kind in offered)
    tries: list[Choices] = [{name: kind for name, offered in places.items() if kind in offered} for kind in kinds]
    count = len(tries) + sum(len(offered) for offered in places.values())
    done = 0

    def consider(trial: Choices) -> None:
        nonlocal best, least, done
        done += 1
        progress.tell("choosing ranges", done, count)
        found = measure(trial) if trial != best else None
        if found is not None and least is not None and change(least, found).nearer:
            best, least = trial, found

    for trial in tries:
        consider(trial)
    for name, offered in places.items():
        for kind in (KEEP, *offered):
            if kind != best.get(name, KEEP):
                rest = {other: chosen for other, chosen in best.items() if other != name}
                consider(rest if kind == KEEP else {**rest, name: kind})
    return best
