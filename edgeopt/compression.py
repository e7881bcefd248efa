"""A recipe goes in; its plan, and each of its steps done in a worker process and remembered, come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import files, workers
from edgeopt.errors import ModelError
from edgeopt.plain import to_plain
from edgeopt.plan import Plan, PlannedStep, plan
from edgeopt.store import Store
from edgeopt.vocabulary import StepRecord
from edgeopt.workshop import Done, Job, Survey

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.recipe import Recipe

# Training threads share one pool, and allocate from it: a fifth faster on CPUs.
_ENVIRONMENT = {"TF_CPU_ALLOCATOR_USE_BFC": "true"}


@dataclass(frozen=True)
class _Kept:
    """A finished step: where its model is, relative to the output folder, which may be moved, and its content then."""

    model: Path
    sha256: str
    record: StepRecord


class Compression:
    """The steps of one recipe on one model.

    Args:
        recipe: its `steps` are taken in turn; the caller says how it went.
        model: before any step.
        data: trains.
        output: receives models/ and training/ (TensorBoard logs, and checkpoints while a step runs).
        store: remembers finished steps.
        inputs: everything beside the step that its result depends on, by content.
        trust, custom_objects: see `loading.load_model`.

    Raises:
        ConfigError, DataError: the recipe cannot be done with this model and these data, in this order.
        ModelError: the model has no layers that can be trained here.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Path,
        data: Dataset,
        output: Path,
        *,
        store: Store,
        inputs: Mapping[str, str],
        trust: bool = False,
        custom_objects: Path | None = None,
    ) -> None:
        self._recipe, self._original, self._data, self._output = recipe, model, data, output
        self._store, self._inputs = store, dict(inputs)
        self._trust, self._custom_objects = trust, custom_objects
        self._worker = workers.Worker("training", environment=_ENVIRONMENT)
        self._survey: Survey = self._call("survey", model, trust=trust, custom_objects=custom_objects)
        self.model, self._properties, self._start = model, self._survey.properties, 0
        self.plan = self._planned()

    def close(self) -> None:
        """Ends the worker."""
        self._worker.close()

    def upcoming(self) -> PlannedStep | None:
        """Returns the next step as the model at hand needs it, or None after the last."""
        return self._planned().steps[0] if self._start < len(self._recipe.steps) else None

    def do(self, planned: PlannedStep, number: int) -> Done:
        """Does a step on the model at hand, or brings back what it was when it was done before."""
        key = {
            **self._inputs,
            "step": {planned.technique: planned.step.said()},
            "training": planned.training,
            "of": files.sha256(self.model),
            "properties": sorted(p.value for p in planned.properties_before),
            "seed": self._recipe.seed,
        }
        digest = hashlib.sha256(json.dumps(to_plain(key), sort_keys=True).encode()).hexdigest()[:8]
        name = f"{number}-{planned.technique}"
        job = Job(
            step=planned.step,
            model=self.model,
            original=self._original,
            data=self._data,
            output=self._output / "models" / name,
            # Of this very step: what is found there from one that was killed is gone on with.
            folder=self._output / "training" / f"{name}-{digest}",
            properties=planned.properties_before,
            training=self._recipe.training,
            seed=self._recipe.seed,
            trust=self._trust,
            custom_objects=self._custom_objects,
        )

        def compute() -> _Kept:
            done: Done = self._call("work", job)
            record = replace(done.record, variant=planned.variant or done.record.variant, settings=planned.step.said())
            return _Kept(done.model.relative_to(self._output), files.sha256(done.model), record)

        def untouched(kept: _Kept) -> bool:
            model = self._output / kept.model
            return model.exists() and files.sha256(model) == kept.sha256

        kept = self._store.remember("step", key, _Kept, compute, still_holds=untouched)
        return Done(self._output / kept.model, kept.record)

    def accept(self, planned: PlannedStep, model: Path) -> None:
        """Goes on with what a step made."""
        self.model, self._properties = model, planned.properties_after
        self._start += 1

    def skip(self) -> None:
        """Goes on with the model of before the step."""
        self._start += 1

    def _planned(self) -> Plan:
        return plan(
            self._recipe,
            start=self._start,
            properties=self._properties,
            facts=self._survey.facts,
            has_labels=self._data.training.has_labels,
            has_training=len(self._data.training) > 0,
            has_calibration=len(self._data.calibration) > 0,
        )

    def _call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._worker.call(f"edgeopt.workshop:{function}", *args, **kwargs)
        except workers.WorkerCrashed as crash:
            raise ModelError(
                f"Training ended its process: {crash.reason}. {crash.log.splitlines()[-1] if crash.log else ''} "
                "Try a smaller --batch-size where memory ran out; the same command goes on where it stopped."
            ) from None
