"""What every technique is made of, and what it gets from the steps before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.steps import Step, Training
from edgeopt.vocabulary import Promise, Property, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts
    from edgeopt.inspection.prospects import ModelFacts


@dataclass(frozen=True)
class Carried:
    """What a step gets beside its model and data.

    Attributes:
        folder: for checkpoints and logs; what is found there is of this very step, killed in the middle.
        properties: what earlier steps gave the model's weights, and this one has to keep.
        original: the tf_keras model before any step, the teacher of recoveries; None where the step's own input is it.
        training: what the recipe says about all its trainings.
        seed: of every random choice.
        trust, custom_objects: for model files that the step itself opens; see `loading.load_model`.
    """

    folder: Path
    properties: frozenset[Property] = frozenset()
    original: Any = None
    training: Training = Training()  # noqa: RUF009 - it is frozen
    seed: int = 0
    trust: bool = False
    custom_objects: Path | None = None


# apply(step, model, data, carried) returns a new tf_keras model and what was done; it never edits `model`.
Apply = Callable[[Any, Any, "Dataset", Carried], tuple[Any, StepRecord]]
# check(step, record, file) returns the record's promises as measured in the converted file.
Check = Callable[[Any, StepRecord, "FileFacts"], tuple[Promise, ...]]
# predict(step, facts) says in words what the step will bring to this model, and what it will not.
Predict = Callable[[Any, "ModelFacts"], str]


@dataclass(frozen=True)
class Technique:
    """A row of TECHNIQUES.

    Attributes:
        name: the verb: command, recipe key and module.
        summary: one line for help texts and docs.
        step: the dataclass of its choices.
        apply, check, predict: see above.
        ensures: properties that the model has afterwards.
        keeps: properties that it keeps when they are there; it destroys all others.
        changes_architecture: whether tensors change their shapes: what knows the old ones must come later.
    """

    name: str
    summary: str
    step: type[Step]
    apply: Apply
    check: Check
    predict: Predict
    ensures: frozenset[Property] = frozenset()
    keeps: frozenset[Property] = frozenset()
    changes_architecture: bool = False
