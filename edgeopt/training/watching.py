"""What is trained and samples that it is not trained on go in; the loss on each of them comes out, at any time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.chance import seed_for
from edgeopt.data.dataset import share_of_each_class
from edgeopt.frameworks import load

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.training.learner import Learner

# More are scored no more closely than chance lets anything be seen, and take their time after every epoch.
MOST = 2000
# Half of a 95 % interval, in standard errors.
_DEVIATIONS = 1.96


def some(part: Part, *, seed: int) -> Part:
    """Returns the part, or of a large one a drawn share of each class."""
    if len(part) <= MOST:
        return part
    return part.subset(np.flatnonzero(share_of_each_class(part, MOST / len(part), seed=seed_for(seed, "watched"))))


class Watched:
    """Samples that are not trained on.

    Args:
        part: bound to the model's inputs.
        trainee: what learns.
    """

    def __init__(self, part: Part, trainee: Learner) -> None:
        tf = load("tensorflow")
        self._part, self._targets = part, trainee.objective.targets

        @tf.function(reduce_retracing=True)
        def losses_of(inputs: Any, labels: Any) -> Any:
            outputs = trainee(inputs, training=False)
            return trainee.losses_of(inputs, labels, tf.nest.flatten(outputs))

        self._losses_of = losses_of

    def losses(self) -> np.ndarray:
        """Returns what is minimized on each sample, float32 [N], as the weights are now."""
        tf = load("tensorflow")
        found = []
        for batch in self._part.batches(256):
            inputs = [tf.constant(batch.inputs[spec.name]) for spec in self._part.specs]
            labels = [
                target.spread(tf.constant(target.of(batch)) if target.given_back is None else inputs[target.given_back])
                for target in self._targets
            ]
            losses = self._losses_of(inputs[0] if len(inputs) == 1 else tuple(inputs), labels).numpy()
            found.append(losses if batch.weights is None else losses * batch.weights)
        return np.concatenate(found)


def is_better(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether losses on the same samples are lower beyond chance: the interval of the mean difference is below zero.

    What is no number is never better, and anything is better than it.
    """
    if not math.isfinite(float(np.sum(ours))):
        return False
    if not math.isfinite(float(np.sum(theirs))):
        return True
    differences = ours.astype(np.float64) - theirs
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return float(differences.mean()) + _DEVIATIONS * error < 0
