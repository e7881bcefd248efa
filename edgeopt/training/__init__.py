"""A model, data and a choice go in; the model trained in place and its history come out."""

from __future__ import annotations

from edgeopt.training.loop import Fit, Hint, fit
from edgeopt.training.stream import steps_per_epoch

__all__ = ["Fit", "Hint", "fit", "steps_per_epoch"]
