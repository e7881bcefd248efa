"""A Dataset goes in; the same with a part that choices are made on, apart from validation, comes out.

Whoever picks the best of several on some samples flatters the pick on those very samples. So what is chosen (a rate, an
epoch, whether a step is rolled back, the file that is recommended) is chosen on the tuning part, and what is reported
was measured on samples that no choice has seen.

The rule: a val split beside the test split is the tuning part. Else it is a third of the validation samples, where that
third is large enough to decide anything: LEAST samples. Else there is none, and choices among files are made on the
validation samples, which is said.

Why not of the training samples, of which there are more: the model that came in has learned them. Quantization then
seems to lose too little, as the model answers them with room to spare; and what was trained without them seems to lose
too much, as it no longer knows them by heart. A choice between files would rest on that, not on what the files are
worth. (Within one training, where all candidates begin with the same model and none learns the samples held out, a
share of the training samples does: see `training.fit`.)

Why LEAST: answers that change for the worse only have to be six, to be no chance (sign test: 2 * 0.5**6 = 3 %, and of
five 6 %), and a loss of one point, which is what a recommendation is to avoid, is six of 600. Fewer samples would
decide nothing that matters, and yet make the reported interval wider, by 22 % for a third.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgeopt.chance import seed_for
from edgeopt.data.dataset import Dataset, share_of_each_class

# Changed answers, all for the worse, that are no chance.
_SHOWN = 6
# A loss of one point is so many of them.
LEAST = 100 * _SHOWN
# Of the validation samples.
SHARE = 1 / 3


def divided(data: Dataset) -> Dataset:
    """Returns the dataset with a tuning part where there is enough for one; what was done, and its cost, is noted.

    The same dataset gives the same parts; classes have the same share of both.
    """
    count = len(data.validation)
    if not count:
        return data
    if len(data.tuning):
        if len(data.tuning) >= LEAST:
            return data
        least = 100 * _SHOWN / len(data.tuning)
        note = f"tuning: a loss of less than {least:.2g} points does not show in {len(data.tuning)} samples"
        return replace(data, notes=(*data.notes, note))
    if count < LEAST / SHARE:
        note = (
            f"tuning: none, as a third of {count} validation samples would not show a loss of one point ({LEAST} do). "
            "Choices are made on the validation samples, and the score of what is chosen is flattered by that; a val "
            "split beside the test split ends it"
        )
        return replace(data, notes=(*data.notes, note))
    mask = share_of_each_class(data.validation, SHARE, seed=seed_for(data.seed, "tuning samples"))
    tuning = data.validation.subset(np.flatnonzero(mask))
    validation = data.validation.subset(np.flatnonzero(~mask))
    wider = math.sqrt(count / len(validation)) - 1
    note = (
        f"tuning: {len(tuning)} of the {count} validation samples; choices are made on them, scores are of the other "
        f"{len(validation)}, with intervals {wider:.0%} wider. A val split beside the test split saves that"
    )
    return replace(data, tuning=tuning, validation=validation, notes=(*data.notes, note))
