"""What every technique is made of, what it works on, and what it gets from the steps before it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step, Training
from edgeopt.tasks.losses import UNSAID, Goal
from edgeopt.vocabulary import Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.formats.contract import FileFacts
    from edgeopt.rounding.losses import Losses


class Need(str, enum.Enum):
    """What a technique takes beside the model."""

    TRAINING = "training samples"
    LABELS = "labels"
    CALIBRATION = "calibration samples"
    SCHEME = "a scheme that quantizes"


@dataclass(frozen=True)
class Carried:
    """What a step gets beside its model or file and its data.

    Attributes:
        folder: for checkpoints, logs and files; what is found there is of this very step, killed in the middle.
        properties: what earlier steps gave the model's weights, and this one has to keep.
        original: the tf_keras model before any step, the teacher of recoveries; None where the step's own input is it.
        training: what the recipe says about all its trainings.
        seed: of every random choice.
        trust, custom_objects: for model files that the step itself opens; see `loading.load_model`.
        converted: for a technique on files: the file in the scheme, as conversion and the steps before made it.
        source: for a technique on files: the model that the float file was converted from; a float `.tflite` where
            that is what was given.
        losses: for a technique on files: what its layers lose by choices that it weighs, by their names.
        keep_8bit: for a technique on models: which layers have int8 weights in schemes below eight bits; see `Scheme`.
        goal: what is known of the model's outputs: their names and tasks, and the losses that it was compiled with.
    """

    folder: Path
    properties: frozenset[Property] = frozenset()
    original: Any = None
    training: Training = Training()  # noqa: RUF009 - it is frozen
    seed: int = 0
    trust: bool = False
    custom_objects: Path | None = None
    converted: Path | None = None
    source: Path | None = None
    losses: Mapping[str, Losses] = field(default_factory=dict)
    keep_8bit: tuple[str, ...] = ("auto",)
    goal: Goal = UNSAID


# On a model: apply(step, model, data, carried) returns a new tf_keras model and what was done; `model` stays as it is.
Apply = Callable[[Any, Any, "Dataset", Carried], tuple[Any, StepRecord]]
# On a file: apply(step, float_file, scheme, calibration, carried) returns a file in `scheme`, written into
# carried.folder, and what was done; no other file is changed. `float_file` is the model as it was converted without
# quantization, `calibration` is bound to its inputs. Where nothing is to be mended the file holds what
# carried.converted does, and the record says why.
ApplyToFile = Callable[[Any, Path, Scheme, "Part", Carried], tuple[Path, StepRecord]]
# check(step, record, file) returns the record's promises as measured in the converted file.
Check = Callable[[Any, StepRecord, "FileFacts"], tuple[Promise, ...]]
# predict(step, facts) says what the step will bring to this model, and what it will not.
Predict = Callable[[Any, ModelFacts], Prospect]
# validate(step, training) raises a ConfigError where they contradict one another.
Validate = Callable[[Any, Training], None]
# remarks(step, earlier, schemes) yields what of the step is pointless after those before it and in these schemes.
Remarks = Callable[[Any, Sequence[Step], Sequence[Scheme]], Iterable[str]]


# suits(scheme, facts) says why it cannot help this model in this scheme, "" where it may.
Suits = Callable[[Scheme, ModelFacts], str]


def _anything_goes(step: Step, training: Training) -> None:
    """Accepts all that a step's own checks have accepted."""


def _no_remarks(step: Step, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Technique:
    """A row of TECHNIQUES: all that is known of a technique; nothing else names one.

    Attributes:
        name: the verb: command and recipe key; its module has "_" for "-".
        summary: one line for help texts and docs.
        step: the dataclass of its choices.
        apply: an Apply, or an ApplyToFile where it acts on files.
        check, predict, validate, remarks: see above.
        typical: the step that it is judged by where nobody said one.
        acts_on: whether it changes the model before conversion, or the file that came out.
        needs: beside the model, where it trains; see `needs_of`.
        ensures: properties that the model has afterwards.
        keeps: properties that it keeps when they are there; it destroys all others.
        changes_architecture: whether tensors change their shapes: what knows the old ones must come later.
        variants: what it is called when the model has these properties: "PQAT".
        speeds_up: whether less is left to compute; None where the scheme decides.
        repairs: whether it does nothing but bring a quantized file nearer to its float model: it is kept only where
            that is shown, and `edgeopt repair` takes it.
        suits: see above; what repairs by itself leaves out.
        weighs: names of `rounding.alone.CHOICES` whose losses it goes by.
        fits: fits(step, scheme): whether the scheme may be made of the model that it leaves.
        why_unfit: why not the others, in words; "" where it fits all.
        takes: what it takes, in times of a plain training of as many epochs, its trials and slower steps in it.
        least_steps: of training, from which on it may do where there is no time for more.
    """

    name: str
    summary: str
    step: type[Step]
    apply: Callable[..., tuple[Any, StepRecord]]
    check: Check
    predict: Predict
    typical: Step
    acts_on: Literal["model", "file"] = "model"
    needs: frozenset[Need] = frozenset({Need.TRAINING, Need.LABELS})
    ensures: frozenset[Property] = frozenset()
    keeps: frozenset[Property] = frozenset()
    changes_architecture: bool = False
    variants: Mapping[frozenset[Property], str] = field(default_factory=dict)
    speeds_up: bool | None = False
    validate: Validate = _anything_goes
    remarks: Remarks = _no_remarks
    repairs: bool = False
    suits: Suits = lambda scheme, facts: ""
    weighs: tuple[str, ...] = ()
    fits: Callable[[Any, Scheme], bool] = lambda step, scheme: True
    why_unfit: str = ""
    takes: float = 1.0
    least_steps: int = 300

    def needs_of(self, training: Training | None) -> tuple[Need, ...]:
        """Returns what it takes beside the model, trained so, in the order of Need.

        Labels are not needed where a teacher has all the weight, and without an epoch samples of any kind do.
        """
        needs = self.needs
        if training is not None and training.epochs == 0:
            needs = needs - {Need.TRAINING, Need.LABELS} | {Need.CALIBRATION}
        elif training is not None and training.teacher != "none" and training.alpha == 1.0:
            needs = needs - {Need.LABELS}
        return tuple(need for need in Need if need in needs)

    def variant_of(self, properties: frozenset[Property]) -> str:
        """Returns which form of it keeps `properties`, "" for the plain one."""
        return self.variants.get(properties, "")
