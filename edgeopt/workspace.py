"""A model, data and a folder go in; every file made of them and every score, each done once, come out.

What is made lies in the folder's store under the digest of all that it depends on, and of nothing else: recipes that
begin alike share their beginning, in one process or in several.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeopt import __version__, comparison, files, formats, frameworks, metrics, runtimes, user_code, workers
from edgeopt import data as datasets
from edgeopt.choices import Choices
from edgeopt.compilers import CALIBRATED, Compiler, compile_content, maker_of
from edgeopt.conversion import ConvertOptions, IsolatedConverter, ModelSummary, convert_for
from edgeopt.data import Dataset, Part, tuning
from edgeopt.errors import ConversionError, EdgeoptError, ModelError, UnavailableError
from edgeopt.evaluation import Evaluation, evaluate, in_worker, require
from edgeopt.fidelity import measure
from edgeopt.plan import PlannedStep
from edgeopt.repairing.closeness import Change
from edgeopt.repairing.running import RUNS
from edgeopt.rounding.alone import CHOICES, Choice
from edgeopt.rounding.losses import SAMPLES, Losses
from edgeopt.runtimes import Delegate, Request
from edgeopt.runtimes.samples import from_data
from edgeopt.schemes import scheme as scheme_named
from edgeopt.steps import Training
from edgeopt.store import Store, digest
from edgeopt.tasks import task
from edgeopt.tasks.finding import metric_said
from edgeopt.techniques import technique
from edgeopt.vocabulary import Fidelity, Scheme, Shape, StepRecord, TensorSpec, Variant
from edgeopt.workshop import Done, FileJob, Job, Survey

Result = TypeVar("Result")

# Keys of `frameworks.FRAMEWORKS` whose versions a result depends on.
_LOADING = ("tensorflow", "keras", "tf_keras")
_TRAINING = (*_LOADING, "tfmot")
_CONVERTING = (*_LOADING, "litert", "ai_edge_quantizer")
# Training threads share one pool, and allocate from it: a fifth faster on CPUs.
_TRAINER_ENVIRONMENT = {"TF_CPU_ALLOCATOR_USE_BFC": "true"}


@dataclass(frozen=True)
class Conditions:
    """How files are made and measured, whatever is done to the model.

    Attributes:
        runtime: where variants are scored and timed.
        metric: key of METRICS or "module:function"; that of the tasks, or chosen from the model and labels, when None.
        output_name: which output the labels are for, where the model has several.
        tasks: keys of TASKS, by the output's name, "" for all; found from the model and labels where nothing is said.
        threads: of the interpreter that is timed.
        delegate: an external delegate for the runtimes that take one.
        batch_size: of the converted models; None leaves it free.
        shapes: sizes that the model leaves free; see `ConvertOptions`.
        stream, time_axis: how the files read a sample; see `ConvertOptions`.
        calibration: how ONNX Runtime sets the ranges of int8 there, one of CALIBRATIONS; "" keeps the `.tflite`'s.
        processor: that compiled code is for, as LLVM's TRIPLE/CPU; "" for this machine's.
        opset: the operator set of `.onnx` files; 0 for the one that most releases of onnxruntime know.
        tune_s: seconds in which a compiler looks for faster code.
        custom_objects, trust: see `loading.load_model`.
    """

    runtime: str = "litert"
    metric: str | None = None
    output_name: str | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    delegate: Delegate | None = None
    batch_size: int | None = 1
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    stream: int | None = None
    time_axis: int = 1
    calibration: str = ""
    processor: str = ""
    opset: int = 0
    tune_s: float = 0
    custom_objects: Path | None = None
    trust: bool = False

    @property
    def scoring(self) -> str | None:
        """What scores are by, as far as it is said."""
        return self.metric or metric_said(self.tasks)

    @property
    def compiling(self) -> dict[str, str]:
        """What compilers are told whose settings name it, "" for what nobody said."""
        return {"processor": self.processor, "opset": str(self.opset or ""), "tune": str(self.tune_s or "")}

    @property
    def free_labels(self) -> tuple[str, ...]:
        """The outputs, "" for all, whose labels need not have their form, as their metric or task takes others."""
        said = metrics.for_outputs(self.metric)
        by_metric = [output for output, name in said.items() if metrics.metric(name).free_labels]
        return (*by_metric, *(output for output, name in self.tasks.items() if task(name).free_labels))


@dataclass(frozen=True)
class Made:
    """A model that steps made, or the one before any.

    Attributes:
        file: a model file or folder.
        content: its digest.
        steps: the techniques that it has been through.
        label: what its variants are called before their schemes.
    """

    file: Path
    content: str
    steps: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class _Loaded:
    summary: ModelSummary
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Kept:
    """A finished step: the name of its model in the store, its content then, and what was done."""

    model: str
    content: str
    record: StepRecord


@dataclass(frozen=True)
class _KeptFile:
    variant: Variant
    record: StepRecord


@dataclass(frozen=True)
class _Words:
    words: str


class Workspace:
    """Where recipes are carried out on one model and its data.

    Nothing is done before it is asked for. Any number of workspaces, in any number of processes, may share a folder.

    Args:
        model: `.keras`, `.h5`, SavedModel or float `.tflite`.
        data: calibrates, trains and scores; None where a file is only converted.
        folder: its `.edgeopt` holds the store.
        conditions: how files are made and measured.
        held: how many models stay in memory for their conversion; whoever goes back and forth between them saves to
            load each anew, and a process with TensorFlow is what each takes.
    """

    def __init__(
        self,
        model: Path,
        data: Dataset | None,
        folder: Path,
        conditions: Conditions = Conditions(),
        *,
        held: int = 1,
    ) -> None:
        self.folder, self.conditions = folder, conditions
        self.seconds: dict[str, float] = {}
        self._given, self._data = model, data
        self._store = Store(folder)
        self._held = held
        self._converters: dict[str, IsolatedConverter] = {}
        self._trainer: workers.Worker | None = None

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes that worked for it; they begin anew where more is asked for."""
        self._close_converters()
        if self._trainer is not None:
            self._trainer.close()
            self._trainer = None

    # --- what came in ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def original(self) -> Made:
        """The model that was given."""
        return Made(self._given, _content(self._given))

    @property
    def summary(self) -> ModelSummary:
        """What is worth saying of the model.

        Raises:
            EdgeoptError: see `warnings`.
        """
        return self._loaded.summary

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is remarked on model and data together.

        Raises:
            ModelError: the model cannot be read, or not safely.
            DataError: the data do not fit it.
        """
        return self._loaded.warnings

    @functools.cached_property
    def _loaded(self) -> _Loaded:
        """Both in one: of a run that cannot begin nothing is left, not even that its model was read."""

        def load() -> _Loaded:
            found = self._opened(self.original).summary()
            if self._data is None:
                return _Loaded(found, ())
            warnings = datasets.check(
                self._data, found.inputs, found.outputs, rescaling=found.rescaling, free_labels=free
            )
            return _Loaded(found, warnings)

        free = self.conditions.free_labels
        key = {
            "free labels": free,
            "model": self.original.content,
            "data": "" if self._data is None else datasets.fingerprint(self._data),
            "custom objects": self._custom_objects,
        }
        return self.remember("load", key, _Loaded, load, uses=_LOADING)

    @functools.cached_property
    def data(self) -> Dataset:
        """The data with its tuning part, under the names and shapes of the model's inputs.

        Raises:
            ConfigError: there are none.
        """
        assert self._data is not None
        return datasets.bind(tuning.divided(self._data), self.summary.inputs)

    @property
    def has_data(self) -> bool:
        """Whether there are samples at all."""
        return self._data is not None

    @functools.cached_property
    def changed(self) -> tuple[str, ...]:
        """What came in otherwise than at the last run in this folder, by name."""
        inputs = {"model": self.original.content, "custom objects": self._custom_objects}
        if self._data is not None:
            inputs["data"] = datasets.fingerprint(self._data)
        return self._store.changes(inputs)

    @functools.cached_property
    def runtime(self) -> Request:
        """Where variants are scored and timed.

        Raises:
            ConfigError: there is no such runtime.
            UnavailableError: it does not work here.
        """
        return require(self.conditions.runtime)

    @functools.cached_property
    def delegate_content(self) -> Mapping[str, Any]:
        """The delegate by content, like everything that a stored result depends on."""
        delegate = self.conditions.delegate
        return {} if delegate is None else {"library": _content(delegate.library), "options": delegate.options}

    # --- what is made ------------------------------------------------------------------------------------------------

    def survey(self, *, layers: bool = True) -> Survey:
        """Returns what a plan needs to know of the model.

        Args:
            layers: see `workshop.survey`.

        Raises:
            ModelError: it has no layers that can be trained here.
            ConversionError: it has layers that no file can hold.
        """
        return self.remember(
            "survey",
            {"model": self.original.content, "custom objects": self._custom_objects, "layers": layers},
            Survey,
            lambda: self._train(
                "survey",
                self.original.file,
                layers=layers,
                trust=self.conditions.trust,
                custom_objects=self.conditions.custom_objects,
            ),
            uses=_LOADING,
        )

    def pace(self, training: Training) -> float:
        """Returns the seconds that a sample takes in training here, by a few steps; it is not remembered.

        Raises:
            EdgeoptError: the model cannot be trained, or not with these data.
        """
        seconds: float = self._train(
            "pace",
            self.original.file,
            self.data.without_validation(),
            training,
            tasks=self.conditions.tasks,
            output_name=self.conditions.output_name,
            trust=self.conditions.trust,
            custom_objects=self.conditions.custom_objects,
        )
        return seconds

    def converted(
        self, model: Made, scheme: str, *, promises: Sequence[Request] = (), keep_8bit: tuple[str, ...] = ("auto",)
    ) -> Variant:
        """Returns the variant of a model in a scheme; a failure is part of it.

        Args:
            model: the original, or what a step made.
            scheme: name of a row of SCHEMES.
            promises: runtimes that the file has to suit.
            keep_8bit: see `Scheme`.
        """
        name = f"{model.label}.{scheme}" if model.label else scheme
        row, conditions = scheme_named(scheme), self.conditions
        if row.is_low_bit:
            row = replace(row, keep_8bit=keep_8bit)
        key = {
            "model": model.content,
            "scheme": row,
            "promises": promises,
            "batch size": conditions.batch_size,
            "shapes": (conditions.shapes, self.data.calibration.own_specs if self.has_data else ()),
            "stream": (conditions.stream, conditions.time_axis),
            "calibration": self.data.calibration.digest() if row.needs_calibration and self.has_data else "",
            "custom objects": self._custom_objects,
        }
        file = self._store.folder / "artifacts" / f"{digest(key)}.tflite"

        def convert() -> Variant:
            notes = convert_for(self._opened(model), row, file, promises=promises)
            return self._variant(name, row, file, made_by=row.maker, notes=notes)

        try:
            made = self.remember("convert", key, Variant, convert, uses=_CONVERTING, still_holds=self._untouched)
        except ConversionError as error:
            # Not remembered: what failed for want of memory or time may work the next time.
            made = Variant(name, scheme, error=str(error))
        # Equal content may have come about in several ways: which one is the asker's affair.
        return replace(made, name=name, steps=model.steps)

    def worked(self, model: Made, planned: PlannedStep, *, training: Training, seed: int) -> tuple[Made, StepRecord]:
        """Returns what a step makes of a model, and the record of what was done.

        Args:
            model: what the steps before it made.
            planned: the step.
            training: what the recipe says about all its trainings.
            seed: of every random choice.

        Raises:
            EdgeoptError: the step cannot be done.
        """
        seen = self.data.without_validation()
        key = {
            "model": model.content,
            "original": self.original.content,
            "step": {planned.technique: planned.step.said()},
            "training": planned.training,
            "named": {**_named_content(planned.step), **_named_content(planned.training)},
            "goal": [self.conditions.tasks, self.conditions.output_name],
            "properties": planned.properties_before,
            "keep_8bit": planned.keep_8bit,
            "data": {name: part.digest() for name, part in seen.parts.items() if len(part)},
            "seed": seed,
            "custom objects": self._custom_objects,
        }
        name = f"{planned.technique}-{digest(key)}"
        job = Job(
            step=planned.step,
            model=model.file,
            original=self.original.file,
            data=seen,
            output=self._store.folder / "models" / name,
            # Of this very step: what is found there from one that was killed is gone on with.
            folder=self.folder / "training" / name[:-16],
            properties=planned.properties_before,
            training=training,
            seed=seed,
            trust=self.conditions.trust,
            custom_objects=self.conditions.custom_objects,
            keep_8bit=planned.keep_8bit,
            tasks=self.conditions.tasks,
            output_name=self.conditions.output_name,
        )

        def compute() -> _Kept:
            done: Done = self._train("work", job)
            record = replace(done.record, variant=planned.variant or done.record.variant, settings=planned.step.said())
            return _Kept(done.model.relative_to(self.folder).as_posix(), files.sha256(done.model), record)

        def untouched(kept: _Kept) -> bool:
            return _content(self.folder / kept.model) == kept.content

        kept = self.remember("step", key, _Kept, compute, uses=_TRAINING, still_holds=untouched)
        label = f"{model.label}+{planned.name}" if model.label else planned.name
        made = Made(self.folder / kept.model, kept.content, (*model.steps, planned.technique), label)
        return made, replace(kept.record, model=kept.model)

    def worked_on_file(
        self,
        model: Made,
        converted: Variant,
        baseline: Variant,
        planned: PlannedStep,
        *,
        training: Training,
        seed: int,
    ) -> tuple[Variant, StepRecord]:
        """Returns what a technique on files makes of a converted file, and the record of what was done.

        Args:
            model: what both files were converted from.
            converted: the file in its scheme, as conversion and the steps before made it.
            baseline: the same model as a float file.
            planned, training, seed: see `worked`.

        Raises:
            EdgeoptError: the step cannot be done.
        """
        part = self.data.calibration
        key = {
            "model": model.content,
            "file": converted.sha256,
            "float": baseline.sha256,
            "scheme": scheme_named(converted.scheme),
            "step": {planned.technique: planned.step.said()},
            "named": _named_content(planned.step),
            "calibration": part.digest(),
            "tasks": self.conditions.tasks,
            "seed": seed,
        }
        name = f"{planned.technique}-{digest(key)}"
        label = converted.name.rpartition(".")[0]
        named = f"{label}+{planned.name}" if label else planned.name
        job = FileJob(
            step=planned.step,
            file=self.folder / str(baseline.file),
            converted=self.folder / str(converted.file),
            source=model.file,
            scheme=scheme_named(converted.scheme),
            calibration=part,
            folder=self._store.folder / "files" / name,
            properties=planned.properties_before,
            training=training,
            seed=seed,
            trust=self.conditions.trust,
            custom_objects=self.conditions.custom_objects,
            tasks=self.conditions.tasks,
        )

        def compute() -> _KeptFile:
            weighed = technique(planned.technique).weighs
            lost = {name: self.losses(baseline, converted, CHOICES[name], seed=seed) for name in weighed}
            done: Done = self._train("work_on_file", replace(job, losses=lost))
            made = self._variant(
                f"{named}.{converted.scheme}", job.scheme, done.model, made_by=planned.technique, notes=()
            )
            return _KeptFile(made, replace(done.record, settings=planned.step.said()))

        kept = self.remember(
            "file-step", key, _KeptFile, compute, uses=_CONVERTING, still_holds=lambda k: self._untouched(k.variant)
        )
        steps = (*converted.steps, planned.technique)
        return replace(kept.variant, name=f"{named}.{converted.scheme}", steps=steps), kept.record

    def compiled(
        self, source: Variant, compiler: Compiler, scheme: str, *, asked: Mapping[str, str] | None = None
    ) -> Variant:
        """Returns what a compiler makes of a converted file, as a variant of its own; a failure is part of it.

        Args:
            source: in the scheme that the compiler starts from; it is an artifact of the variant, after its own.
            compiler: one of those that make files of any scheme.
            scheme: of what it makes.
            asked: settings that another compiler, which takes what this one makes, wants it to have.
        """
        assert source.primary is not None
        name = f"{source.name.removesuffix(source.scheme)}{scheme}-{compiler.makes}"
        if source.primary.format not in compiler.takes:
            before = maker_of(compiler.takes[0])
            assert before is not None
            between = self.compiled(source, before, compiler.sources[scheme], asked=compiler.asks)
            if between.primary is None:
                return replace(between, name=name, scheme=scheme)
            source = between
        calibration = self.conditions.calibration if scheme == CALIBRATED else ""
        told = {
            **self.conditions.compiling,
            "scheme": scheme,
            "calibration": calibration,
            "symmetric": "",
            **((asked or {}) if scheme == CALIBRATED else {}),
        }
        if told["calibration"] and not self.has_data:
            error = f"Expected data to find the ranges of {scheme} on, got none. Try --data."
            return Variant(name, scheme, error=error, steps=source.steps)
        part = self.data.calibration if told["calibration"] and "samples" in compiler.settings else None
        told["samples"] = "" if part is None else part.digest()
        settings = {name: told[name] for name in compiler.settings}
        key = {"file": source.sha256, "compiler": compiler.name, "scheme": scheme, "settings": settings}
        file = self._store.folder / "artifacts" / f"{digest(key)}{compiler.suffix}"

        def compute() -> Variant:
            content = (self.folder / str(source.file)).read_bytes()
            with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
                own = dict(settings)
                if part is not None:
                    specs = formats.facts(self.folder / str(source.file)).inputs
                    own["samples"] = str(_stored(part, specs, Path(folder)))
                files.atomic_write(file, compile_content(content, compiler, own).content)
            return self._variant(name, scheme_named(scheme), file, made_by=compiler.name, notes=())

        try:
            made = self.remember("compile", key, Variant, compute, uses=(compiler.needs,), still_holds=self._untouched)
        except (ConversionError, UnavailableError) as error:
            return Variant(name, scheme, error=str(error), steps=source.steps)
        return replace(made, name=name, steps=source.steps, artifacts=(*made.artifacts[:1], *source.artifacts))

    def runtime_for(self, form: str) -> Request:
        """Returns where files of a format are scored and timed: the runtime of the conditions, if that takes it."""
        return self.runtime if form in self.runtime.runtime.takes else Request(runtimes.main_for(form))

    def _variant(self, name: str, row: Scheme, file: Path, *, made_by: str, notes: tuple[str, ...]) -> Variant:
        facts = formats.facts(file)
        return Variant(
            name,
            row.name,
            artifacts=(formats.artifact(file, self.folder, made_by=made_by),),
            macs=facts.macs,
            sparsity=facts.sparsity,
            bytes_by_kind=facts.bytes_by_kind,
            notes=notes,
        )

    def _untouched(self, variant: Variant) -> bool:
        return variant.file is None or _content(self.folder / variant.file) == variant.sha256

    # --- what it is worth --------------------------------------------------------------------------------------------

    def score(self, variant: Variant, part: Part) -> Evaluation | EdgeoptError:
        """Returns the score of a variant on some samples, or why the main runtime gives none."""
        assert variant.primary is not None
        request = self.runtime_for(variant.primary.format)
        delegate = self.conditions.delegate if "delegates" in request.runtime.can else None
        key = {
            "file": variant.sha256,
            "part": part.digest(),
            "runtime": request,
            "metric": self.metric_content,
            "delegate": self.delegate_content if delegate else {},
        }

        def score() -> Evaluation:
            return evaluate(
                self.folder / str(variant.file),
                part,
                metric=self.conditions.scoring,
                output=self.conditions.output_name,
                runtime=request.runtime.name,
                delegate=delegate,
            )

        try:
            return self.remember("score", key, Evaluation, score, uses=(request.runtime.package,))
        except (ModelError, UnavailableError) as error:
            return error

    @property
    def compared_on(self) -> Part:
        """The samples that a file is held against its float model on."""
        return self.data.deciding if len(self.data.deciding) else self.data.calibration

    def fidelity(self, variant: Variant, reference: Variant) -> Fidelity | EdgeoptError:
        """Returns how faithful a variant is to the same model in float32, or why that cannot be told.

        On LiteRT, wherever variants are scored: what a file holds is the same everywhere. It has a say in what is
        recommended.
        """
        part = self.compared_on
        key = {
            "file": variant.sha256,
            "reference": reference.sha256,
            "part": part.digest(),
            "metric": self.metric_content,
        }

        def compare() -> Fidelity:
            ours, theirs = self.folder / str(variant.file), self.folder / str(reference.file)
            return measure(theirs, ours, part, metric=self.conditions.scoring, output=self.conditions.output_name)

        try:
            return self.remember("fidelity", key, Fidelity, compare, uses=("litert",))
        except EdgeoptError as error:
            return error

    def nearer(self, before: Variant, after: Variant, baseline: Variant) -> Change:
        """Returns how far two files of a model lie from its float file, on the samples that choices are made on.

        Raises:
            EdgeoptError: the main runtime does not run one of them.
        """
        part = self.compared_on

        def compare() -> Change:
            files = {name: self.folder / str(one.file) for name, one in (("before", before), ("after", after))}
            found: Change = in_worker(
                "edgeopt.repairing.closeness:compared",
                self.folder / str(baseline.file),
                part,
                self.runtime.runtime,
                **files,
            )
            return found

        key = {
            "files": [before.sha256, after.sha256],
            "reference": baseline.sha256,
            "part": part.digest(),
            "runtime": self.runtime,
        }
        return self.remember("nearer", key, Change, compare, uses=(self.runtime.runtime.package,))

    def losses(self, baseline: Variant, converted: Variant, choice: Choice, *, seed: int = 0) -> Losses:
        """Returns what a model loses by each of its layers alone, on calibration samples; labels are not looked at.

        Args:
            baseline: its float file.
            converted: its file in integers, whose ranges count.
            choice: what a layer becomes.
            seed: of every random choice.

        Raises:
            DataError: there are too few samples.
            ModelError: a file does not run.
        """
        part = self.data.calibration.take(SAMPLES, seed=seed)
        key = {
            "float": baseline.sha256,
            "file": converted.sha256,
            "part": part.digest(),
            "choice": choice,
            "seed": seed,
        }

        def measure() -> Losses:
            found: Losses = in_worker(
                "edgeopt.rounding.losses:losses",
                self.folder / str(baseline.file),
                part,
                RUNS,
                quantized=self.folder / str(converted.file),
                choice=choice,
                seed=seed,
            )
            return found

        return self.remember("losses", key, Losses, measure, uses=(RUNS.package,))

    def as_trained(self, model: Made, variant: Variant) -> str:
        """Says whether the file of a fake-quantized model computes what was trained, and where it parts from it."""

        def compare() -> _Words:
            with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
                trained = Path(folder) / "trained.tflite"
                self._opened(model).simulate(trained)
                found = comparison.compare(
                    trained,
                    self.folder / str(variant.file),
                    self.data.validation,
                    runtime_b=self.runtime.runtime.name,
                    metric=self.conditions.scoring,
                    output=self.conditions.output_name,
                )
            return _Words(comparison.kept(found))

        key = {
            "model": model.content,
            "file": variant.sha256,
            "part": self.data.validation.digest(),
            "runtime": self.runtime,
            "metric": self.metric_content,
        }
        try:
            return self.remember("trained", key, _Words, compare, uses=_CONVERTING).words
        except EdgeoptError as error:
            return f"the file was not compared to the trained model: {error}"

    def remember(
        self,
        stage: str,
        key: Mapping[str, Any],
        kind: type[Result],
        compute: Callable[[], Result],
        *,
        uses: Sequence[str] = (),
        still_holds: Callable[[Result], bool] = lambda _: True,
    ) -> Result:
        """As `Store.remember`; the versions of the packages that the stage uses are part of the key.

        Args:
            uses: keys of `frameworks.FRAMEWORKS`, or names of runtimes' own programs.
        """
        versions = {"edgeopt": __version__, **{name: _version(name) for name in uses}}
        with self.clocked(stage):
            return self._store.remember(stage, {**key, "versions": versions}, kind, compute, still_holds=still_holds)

    @contextlib.contextmanager
    def clocked(self, name: str) -> Iterator[None]:
        """Adds the time of a block to `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @functools.cached_property
    def _custom_objects(self) -> str:
        return "" if self.conditions.custom_objects is None else _content(self.conditions.custom_objects)

    @functools.cached_property
    def metric_content(self) -> Any:
        """What is scored by what; for a user's own metric the code of its module: one that was edited scores anew."""
        names = metrics.for_outputs(self.conditions.scoring)  # whether there are such
        return [
            self.conditions.output_name,
            names,
            [user_code.digest(name.rpartition("@")[2]) for name in names.values()],
        ]

    @property
    def trainer(self) -> workers.Worker:
        """The process that holds models in memory and trains them."""
        if self._trainer is None:
            self._trainer = workers.Worker("training", environment=_TRAINER_ENVIRONMENT)
        return self._trainer

    def _train(self, function: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.trainer.call(f"edgeopt.workshop:{function}", *args, **kwargs)
        except workers.WorkerCrashed as crash:
            raise ModelError(
                f"Training ended its process: {crash.reason}. {crash.log.splitlines()[-1] if crash.log else ''} "
                "Try a smaller --batch-size where memory ran out; the same command goes on where it stopped."
            ) from None

    def _opened(self, model: Made) -> IsolatedConverter:
        converter = self._converters.pop(model.content, None)
        if converter is None:
            while len(self._converters) >= self._held:
                self._converters.pop(self._least_needed()).close()
            options = ConvertOptions(
                batch_size=self.conditions.batch_size,
                shapes=self.conditions.shapes,
                stream=self.conditions.stream,
                time_axis=self.conditions.time_axis,
                calibration=None if self._data is None else self._data.calibration,
                custom_objects=self.conditions.custom_objects,
                trust=self.conditions.trust,
            )
            converter = IsolatedConverter(model.file, options)
        self._converters[model.content] = converter
        return converter

    def _least_needed(self) -> str:
        """Returns the model that was longest not asked for; the original is where every recipe begins."""
        others = [content for content in self._converters if content != self.original.content]
        return others[0] if others and self._held > 1 else next(iter(self._converters))

    def _close_converters(self) -> None:
        for converter in self._converters.values():
            converter.close()
        self._converters.clear()


def _stored(part: Part, specs: Sequence[TensorSpec], folder: Path) -> Path:
    """Writes the inputs of samples, in the order of `specs`, as an `.npz` and returns its path."""
    samples = from_data(part, specs, count=len(part))
    arrays = {str(i): np.concatenate([one[spec.name] for one in samples]) for i, spec in enumerate(specs)}
    np.savez(folder / "samples.npz", **arrays)
    return folder / "samples.npz"


def _content(path: Path) -> str:
    """Returns a hash; what is missing is for its reader to say."""
    return files.sha256_once(path) if path.exists() else ""


def _named_content(choices: Choices | None) -> dict[str, str]:
    """Returns hashes of the files and the code that settings name: what they hold now is what counts."""
    said = {} if choices is None else choices.said()
    values = [item for value in said.values() for item in (value if isinstance(value, tuple) else (value,))]
    # Of one output a setting is said with its name before it.
    words = [word for value in values if isinstance(value, str) for word in (value, value.rpartition("=")[2])]
    return {word: found for word in words if (found := _content(Path(word)) or user_code.digest(word))}


def _version(name: str) -> str:
    row = runtimes.RUNTIMES.get(name)
    return runtimes.module(row).version() if row is not None else frameworks.installed_version(name) or ""
