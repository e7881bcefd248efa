"""How a step's model gets its accuracy back: who teaches it, and the one training that every technique shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.errors import ModelError
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques.contract import Carried

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.training import Fit, Hint


def recover(
    step: TrainedStep,
    model: Any,
    data: Dataset,
    carried: Carried,
    *,
    before: Any,
    what: str,
    training: Training | None = None,
    callbacks: Sequence[Any] = (),
    folder: Path | None = None,
    settled_epoch: int | None = None,
    scalable: bool = True,
    hints: Sequence[Hint] = (),
) -> Fit:
    """Trains `model` in place as the step and the recipe say; see `training.fit`.

    Where nobody has said a learning rate it is chosen around the technique's own.

    Args:
        before: the model before the step: the teacher where no step came before it.
        what: for the progress, "pruning".
        training: instead of what step and recipe say.
        folder: instead of the step's own, where a step trains several times.
        settled_epoch: the first epoch (from 0) whose weights may be taken for the best; None: those before any too.
        scalable: whether the training can be done in short, by what the callbacks do in it.
        hints: layers that imitate those of `before`; where somebody else teaches, none of the layers that are others
            there.
    """
    from edgeopt.training import fit

    chosen = training or step.training(carried.training)
    teachers = recovery_teachers(carried, chosen, before)
    return fit(
        model,
        data,
        chosen,
        teachers=teachers,
        callbacks=callbacks,
        goal=carried.goal,
        folder=folder or carried.folder,
        seed=carried.seed,
        what=what,
        settled_epoch=settled_epoch,
        free_rate=scalable and step.learning_rate is None and carried.training.learning_rate is None,
        hints=[hint for hint in hints if teachers and _alike(teachers[0], before, hint.teacher)],
    )


def recovery_teachers(carried: Carried, training: Training, before: Any) -> tuple[Any, ...]:
    """Returns whom a recovery learns from: the original model, the one in a file, or nobody."""
    if training.teacher == "none" or training.alpha == 0.0:
        return ()
    if training.teacher == "original":
        return (before if carried.original is None else carried.original,)
    return (open_model(str(training.teacher), carried),)


def _alike(teacher: Any, before: Any, name: str) -> bool:
    """Whether a layer of the teacher is the one of that name in the model before the step: no channel has gone."""
    theirs, ours = (
        next((tuple(layer.get_output_at(0).shape) for layer in model.layers if layer.name == name), None)
        for model in (teacher, before)
    )
    return theirs is not None and theirs == ours


def open_model(path: str, carried: Carried) -> Any:
    """Returns the tf_keras model in a file that a step names.

    Raises:
        ModelError: it cannot be read, or not brought to tf_keras; the message names the layers.
    """
    from edgeopt.loading import load_model

    loaded = load_model(path, custom_objects=carried.custom_objects, trust=carried.trust)
    if loaded.keras is None:
        raise ModelError(
            f"Expected a Keras model that training can run, got {path} ({loaded.why_closed}). Try its .keras file."
        )
    return loaded.keras
