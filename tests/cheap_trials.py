"""Trials that cost nothing: an arithmetic of recipes in place of training, for what is not about what trials do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edgeopt.front import exact
from edgeopt.recipe import Recipe
from edgeopt.search.hands import Ended
from edgeopt.search.settings import Search, SearchSettings, checked
from edgeopt.search.space import Known
from edgeopt.search.study import Study
from edgeopt.search.trying import Measured, Rule
from edgeopt.store import digest
from edgeopt.techniques.prune import Prune
from edgeopt.vocabulary import Difference, Interval, MetricValue

# A thousand recipes and more: pruned or not, in one of three schemes.
SPACE = {
    "schemes": ["float16", "int8", "int4"],
    "steps": [["none", {"prune": {"sparsity": {"from": 0.1, "to": 0.95}}}]],
}
DATA = Known(has_labels=True, has_training=True, has_calibration=True)
IDENTITY = {"model": "a", "data": "b"}
_BYTES = {"float16": 2.0, "int8": 1.0, "int4": 0.5}
_LOST = {"float16": 0.0, "int8": 0.5, "int4": 4.0}


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


def study(url: str, name: str = "cheap", folder: str = "here", **identity: str) -> Study:
    """Returns the study of cheap trials in a database."""
    return Study(url, name, identity={**IDENTITY, **identity}, objectives=("quality", "size"), folder=folder)
