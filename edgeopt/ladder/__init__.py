"""A workspace and budgets go in; what meets them, tried from what costs seconds to what costs training, comes out."""

from __future__ import annotations

from edgeopt.ladder.climbing import Aim, climb
from edgeopt.ladder.rungs import RUNGS, Rung

__all__ = ["RUNGS", "Aim", "Rung", "climb"]
