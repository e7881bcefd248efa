"""A model file and one planned step go in; the changed model's file and the record of what was done come out.

What runs in the worker process: everything that holds a Keras model in memory or trains one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import data as datasets
from edgeopt import fake_quantization, files, formats, frameworks, progress
from edgeopt.conversion.unconvertible import require_some_scheme
from edgeopt.errors import ModelError
from edgeopt.keras_bridge import Unbridgeable
from edgeopt.loading import LoadedModel, load_model, save_keras3
from edgeopt.prospects import ModelFacts
from edgeopt.steps import TrainedStep
from edgeopt.tasks.losses import Goal
from edgeopt.techniques import Carried, technique
from edgeopt.vocabulary import Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part
    from edgeopt.rounding.losses import Losses
    from edgeopt.steps import Step, Training

# A model with so many zeros was pruned; trained weights have next to none.
SPARSE_SHARE = 0.3
# More distinct values than any clustering leaves.
MOST_CLUSTERS = 256


@dataclass(frozen=True)
class Job:
    """One step to do.

    Attributes:
        model: the file to start from.
        original: the file before any step.
        output: of the changed model, without a suffix: that follows from what it is.
        folder: for checkpoints and logs.
        properties: what the model's weights have and keep.
        keep_8bit: see `Carried`.
        tasks: see `Goal`.
        output_name: the output that labels without a name are for, where there are several.
    """

    step: Step
    model: Path
    original: Path
    data: Dataset
    output: Path
    folder: Path
    properties: frozenset[Property]
    training: Training
    seed: int = 0
    trust: bool = False
    custom_objects: Path | None = None
    keep_8bit: tuple[str, ...] = ("auto",)
    tasks: Mapping[str, str] = field(default_factory=dict)
    output_name: str | None = None


@dataclass(frozen=True)
class FileJob:
    """One step to do on a converted file.

    Attributes:
        file: the model as it was converted without quantization.
        converted: the same in `scheme`, as conversion and the steps before made it.
        source: the model that `file` was converted from.
        folder: receives what the step makes.
        losses: see `Carried`.
        properties, training, seed, trust, custom_objects, tasks: see `Job`.
    """

    step: Step
    file: Path
    converted: Path
    source: Path
    scheme: Scheme
    calibration: Part
    folder: Path
    properties: frozenset[Property]
    training: Training
    losses: Mapping[str, Losses] = field(default_factory=dict)
    seed: int = 0
    trust: bool = False
    custom_objects: Path | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A step that was done: what it wrote and what it says."""

    model: Path
    record: StepRecord


@dataclass(frozen=True)
class Survey:
    """What a plan needs to know of a model.

    Attributes:
        properties: what its weights have already.
        facts: for predictions.
        unbridged: layer and reason, for each that keeps techniques from it; empty where it can be trained.
    """

    properties: frozenset[Property]
    facts: ModelFacts
    unbridged: tuple[tuple[str, str], ...]


def survey(model: Path, *, layers: bool = True, trust: bool = False, custom_objects: Path | None = None) -> Survey:
    """Returns what a plan needs to know of the model in a file.

    Args:
        layers: whether steps work on its layers; those that work on files take any model.

    Raises:
        ModelError: there are no layers that can be trained, and steps work on them.
    """
    from edgeopt.inspection import inspect_keras
    from edgeopt.inspection.keras_layers import KerasCount

    if not layers:
        opened = load_model(model, custom_objects=custom_objects, trust=trust)
        held = frozenset() if opened.keras is None else properties_of(opened.keras)
        return Survey(held, inspect_keras(opened).facts, opened.unbridged)
    loaded = _loaded(model, trust, custom_objects)
    facts = KerasCount(loaded.keras).facts("")
    return Survey(properties_of(loaded.keras), facts, loaded.unbridged)


def pace(
    model: Path,
    data: Dataset,
    training: Training,
    *,
    tasks: Mapping[str, str],
    output_name: str | None = None,
    trust: bool = False,
    custom_objects: Path | None = None,
) -> float:
    """Returns the seconds that a sample takes in training the model in a file, with itself as the teacher.

    Raises:
        ModelError: there are no layers that can be trained.
        EdgeoptError: the data do not fit.
    """
    from edgeopt.training.pace import sample_seconds

    loaded, teacher = (_loaded(model, trust, custom_objects) for _ in range(2))
    teachers = () if training.teacher == "none" else (teacher.keras,)
    goal = _goal(loaded, tasks, output_name)
    return sample_seconds(loaded.keras, datasets.bind(data, loaded.inputs), training, teachers=teachers, goal=goal)


def work(job: Job) -> Done:
    """Does one step and writes the model it makes; nothing is left under its name where that fails.

    Raises:
        ModelError: a model cannot be brought to tf_keras.
        EdgeoptError: the step cannot be done.
    """
    row = technique(job.step.technique)
    with _devices():
        progress.tell("loading the model")
        loaded = _loaded(job.model, job.trust, job.custom_objects)
        first = loaded if job.original == job.model else _loaded(job.original, job.trust, job.custom_objects)
        carried = Carried(
            job.folder,
            job.properties,
            None if first is loaded else first.keras,
            job.training,
            job.seed,
            job.trust,
            job.custom_objects,
            keep_8bit=job.keep_8bit,
            goal=_goal(first, job.tasks, job.output_name),
        )
        start = time.perf_counter()
        changed, record = row.apply(job.step, loaded.keras, _given(job, loaded), carried)
        seconds = time.perf_counter() - start
    if Property.FAKE_QUANTIZED in row.ensures:
        fake_quantization.save_fake_quantized(changed, job.output)
        return Done(job.output, replace(record, seconds=seconds))
    output = job.output.with_name(f"{job.output.name}.keras")
    notes = _save(changed, output, first)
    return Done(output, replace(record, seconds=seconds, notes=record.notes + notes))


def work_on_file(job: FileJob) -> Done:
    """Does one step on a converted file; what it makes lies in the job's folder.

    Raises:
        EdgeoptError: the step cannot be done.
    """
    row = technique(job.step.technique)
    carried = Carried(
        job.folder,
        job.properties,
        training=job.training,
        seed=job.seed,
        trust=job.trust,
        custom_objects=job.custom_objects,
        converted=job.converted,
        source=job.source,
        losses=job.losses,
        goal=Goal(tasks=job.tasks),
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    part = datasets.bind(job.calibration, formats.facts(job.file).inputs)
    start = time.perf_counter()
    made, record = row.apply(job.step, job.file, job.scheme, part, carried)
    return Done(made, replace(record, seconds=time.perf_counter() - start))


def properties_of(model: Any) -> frozenset[Property]:
    """Returns what the kernels of a tf_keras model have: many zeros, few distinct values."""
    import numpy as np

    kernels = [np.asarray(w) for layer in model.layers for w in layer.get_weights() if w.ndim > 1 and w.size >= 1024]
    elements = sum(kernel.size for kernel in kernels)
    if not elements:
        return frozenset()
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    few = sum(kernel.size for kernel in kernels if _distinct(kernel) <= MOST_CLUSTERS)
    found = set()
    if zeros / elements >= SPARSE_SHARE:
        found.add(Property.SPARSE)
    if few / elements >= 0.5:
        found.add(Property.CLUSTERED)
    return frozenset(found)


def _distinct(kernel: Any) -> int:
    """Returns how many values one output channel has, at most, or the whole kernel, where these are fewer."""
    import numpy as np

    channels = kernel.reshape(-1, kernel.shape[-1]).T
    # A channel of no more weights than clusters says nothing.
    if channels.shape[1] <= MOST_CLUSTERS:
        return len(np.unique(kernel))
    return min(len(np.unique(kernel)), max(len(np.unique(channel)) for channel in channels))


def _given(job: Job, loaded: LoadedModel) -> Dataset:
    """Returns the data of a job under the model's names, with the training samples that it is to train on."""
    data = datasets.bind(job.data, loaded.inputs)
    most = job.step.training(job.training).train_samples if isinstance(job.step, TrainedStep) else None
    return data if most is None else replace(data, training=data.training.take(most, seed=job.seed))


def _goal(loaded: LoadedModel, tasks: Mapping[str, str], output_name: str | None) -> Goal:
    """Returns what is known of the outputs of the model that came in; its successors have the same ones."""
    return Goal(tuple(spec.name for spec in loaded.outputs), tasks, loaded.compiled, output_name)


def _loaded(path: Path, trust: bool, custom_objects: Path | None) -> LoadedModel:
    loaded = load_model(path, custom_objects=custom_objects, trust=trust)
    require_some_scheme(loaded.layer_kinds)
    if loaded.keras is None:
        raise ModelError(
            f"Expected a model of layers that can be trained here, got {path} ({loaded.why_closed}). Try the .keras "
            "file it was made from, or `edgeopt convert`, which needs no training."
        )
    return loaded


def _save(model: Any, output: Path, like: LoadedModel) -> tuple[str, ...]:
    """Writes a Keras 3 file, or one of Keras 2 where Keras 3 has no such layers, and says so."""
    try:
        save_keras3(model, output, like=like)
    except Unbridgeable as error:
        layers = ", ".join(problem.layer for problem in error.problems)
        with files.atomic_path(output) as temporary:
            model.save(temporary)
        return (f"written as a Keras 2 file: Keras 3 cannot express {layers}",)
    return ()


@contextlib.contextmanager
def _devices() -> Iterator[None]:
    """Spreads training over all GPUs where there are several."""
    tf = frameworks.load("tensorflow")
    if len(tf.config.list_physical_devices("GPU")) < 2:
        yield
        return
    with tf.distribute.MirroredStrategy().scope():
        yield
