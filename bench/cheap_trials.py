"""Trials that cost nothing: an arithmetic of recipes in place of training, for what is not about what trials do."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence

from edgeopt.errors import ConfigError
from edgeopt.front import exact
from edgeopt.recipe import Recipe
from edgeopt.search.hands import Ended
from edgeopt.search.settings import Search, SearchSettings, checked
from edgeopt.search.space import Known
from edgeopt.search.study import Study
from edgeopt.search.trying import Address, Measured, Rule
from edgeopt.store import digest
from edgeopt.techniques.prune import Prune
from edgeopt.vocabulary import Difference, Interval, MetricValue

# A thousand recipes and more: pruned or not, in one of three schemes.
SPACE = {
    "schemes": ["float16", "int8", "int4"],
    "steps": [["none", {"prune": {"sparsity": {"from": 0.1, "to": 0.95}}}]],
}
# So many that none is drawn twice by chance: what one more trial costs is then no matter of repetitions.
WIDE = {**SPACE, "training": {"learning_rate": {"from": 1e-4, "to": 1e-2, "log": True}}}
DATA = Known(has_labels=True, has_training=True, has_calibration=True)
IDENTITY = {"model": "a", "data": "b"}
_BYTES = {"float16": 2.0, "int8": 1.0, "int4": 0.5, "dynamic": 1.1, "int16x8": 1.2}
_LOST = {"float16": 0.0, "int8": 0.5, "int4": 4.0, "dynamic": 0.3, "int16x8": 0.1}


def measured(recipe: Recipe) -> Measured:
    """Returns what a recipe would come to: zeros save bytes here, and cost the more the more there are."""
    (scheme,) = recipe.schemes
    sparsity = sum(step.sparsity for step in recipe.steps if isinstance(step, Prune))
    lost = _LOST[scheme] + 20 * sparsity**4
    size = round(1e5 * _BYTES[scheme] * (1 - sparsity))
    metric = MetricValue("top1", 0.9 - lost / 100, 0.8, 0.95, 300, is_share=True)
    costs = {"quality": Interval(lost, lost - 0.5, lost + 0.5), "size": exact(size)}
    sha256 = digest({"size": size, "lost": lost})
    return Measured(scheme, sha256, metric, Difference(lost), costs, scores=(metric.value,))


class Cheap:
    """Hands that are done at once.

    Args:
        count: how many.
        outcome: what becomes of a recipe; `measured` by default.
    """

    def __init__(self, count: int = 1, outcome: Callable[[int, Recipe], Ended] | None = None) -> None:
        self.count, self.given = count, 0
        self.closed = False
        self._outcome = outcome or (lambda hand, recipe: Ended(hand, measured(recipe)))
        self._waiting: deque[Ended] = deque()

    def give(self, hand: int, recipe: Recipe, rule: Rule) -> None:
        """See `Hands`."""
        self.given += 1
        self._waiting.append(self._outcome(hand, recipe))

    def take(self, timeout_s: float) -> Ended | None:
        """See `Hands`."""
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """See `Hands`."""
        self.closed = True


def search(**settings: object) -> Search:
    """Returns a search of SPACE."""
    return checked(SearchSettings(**{"recipe": SPACE, **settings}))  # type: ignore[arg-type]


def study(
    url: str,
    name: str = "cheap",
    folder: str = "here",
    objectives: Sequence[str] = ("quality", "size"),
    **identity: str,
) -> Study:
    """Returns the study of cheap trials in a database."""
    return Study(url, name, identity={**IDENTITY, **identity}, objectives=objectives, folder=folder)


class Mortal:
    """A bench of a process of its own, which a recipe may kill: the first time that its file is not in the folder."""

    def __init__(self, address: Address, share: tuple[int, int]) -> None:
        self._folder = address.folder

    def ready(self) -> None:
        """See `Bench`."""
        if not self._folder.is_dir():
            raise ConfigError(f"Expected {self._folder} to be a folder that this machine reaches too")

    def measure(self, recipe: Recipe, rule: Rule) -> Measured:
        """Returns what a recipe comes to, after a while; int8 kills once, and float16 fails."""
        (scheme,) = recipe.schemes
        mark = self._folder / f"{scheme}-{os.getpid()}"
        mark.touch()
        time.sleep(0.2)
        if scheme == "int8" and len(list(self._folder.glob("int8-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if scheme == "float16":
            raise ConfigError("Expected another scheme, got float16.")
        return measured(recipe)
