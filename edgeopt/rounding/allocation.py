"""What each layer loses and costs with each choice goes in; the choices that lose least within budgets come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Budget:
    """What all layers together may cost.

    Attributes:
        costs: of each layer with each choice, [layers, choices].
        limit: of their sum.
    """

    costs: np.ndarray
    limit: float

    def allows(self, chosen: np.ndarray) -> bool:
        """Whether choices keep it."""
        return bool(self.costs[np.arange(len(chosen)), chosen].sum() <= self.limit)

    @property
    def least(self) -> float:
        """The smallest sum that there is."""
        return float(self.costs.min(1).sum())

    @property
    def cheapest(self) -> np.ndarray:
        """The choices that it is the sum of, int [layers]."""
        found: np.ndarray = self.costs.argmin(1)
        return found


def allocate(losses: np.ndarray, budgets: Sequence[Budget], *, time_limit: float) -> np.ndarray | None:
    """Returns the choice of each layer, int [layers], that loses least within all budgets; None where none was found.

    An integer programme (HiGHS, through `scipy.optimize.milp`); where its time is over the best found so far stays.
    What is left of the budgets is spent then, on whatever wins most.

    Args:
        losses: of each layer with each choice, [layers, choices].
        budgets: each allows its cheapest choice of all layers; together they may allow nothing.
        time_limit: in seconds.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers, choices = losses.shape
    one_each = np.kron(np.eye(layers), np.ones(choices))
    constraints = [LinearConstraint(one_each, 1, 1)]
    constraints += [LinearConstraint(budget.costs.reshape(1, -1), -np.inf, budget.limit) for budget in budgets]
    found = milp(
        losses.reshape(-1) / (float(np.abs(losses).max()) or 1.0),
        integrality=np.ones(losses.size),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"time_limit": time_limit},
    )
    tried = [] if found.x is None else [found.x.reshape(layers, choices).argmax(1)]
    # Solvers keep limits up to a tolerance.
    tried += [budget.cheapest for budget in budgets]
    chosen = next((one for one in tried if all(budget.allows(one) for budget in budgets)), None)
    return None if chosen is None else _spent(chosen, losses, budgets)


def _spent(chosen: np.ndarray, losses: np.ndarray, budgets: Sequence[Budget]) -> np.ndarray:
    """Returns choices with what is left of the budgets spent, the largest gain first."""
    while True:
        gains = losses[np.arange(len(chosen)), chosen][:, None] - losses
        for layer, choice in sorted(np.argwhere(gains > 0).tolist(), key=lambda at: -gains[tuple(at)]):
            other = chosen.copy()
            other[layer] = choice
            if all(budget.allows(other) for budget in budgets):
                chosen = other
                break
        else:
            return chosen
