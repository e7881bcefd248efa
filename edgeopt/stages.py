"""The stages of the main job: each takes the variants so far and returns them with what it made or measured.

Every stage is remembered in the output folder under the content it depends on.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from edgeopt import __version__, comparison, files, formats, frameworks, machine, parity, progress, targets
from edgeopt import data as datasets
from edgeopt.benchmarking import NOISY, benchmark
from edgeopt.compilers.vela import compile_file
from edgeopt.compression import Compression
from edgeopt.conversion import ConvertOptions, IsolatedConverter, ModelSummary, convert_for
from edgeopt.data import Dataset
from edgeopt.errors import ConversionError, EdgeoptError, ModelError
from edgeopt.evaluation import Evaluation, evaluate, require
from edgeopt.metrics import metric
from edgeopt.outlook import stages, step_name
from edgeopt.plan import PlannedStep, plan
from edgeopt.recipe import Recipe, to_values
from edgeopt.report import DataFacts, ModelFacts, Report
from edgeopt.report.words import promise_words
from edgeopt.runtimes import Delegate, parse, to_try
from edgeopt.schemes import DEFAULTS, scheme
from edgeopt.store import MARKER, Store
from edgeopt.techniques import technique
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Budgets, LayerError, OnTarget, Property, RuntimeResult, StepRecord, Variant

BASELINE = "float32"
# A step that loses more is rolled back, where it says nothing else: points for shares, per cent for other metrics.
COLLAPSE = 10.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """What may be said about a run beside its model, data and output folder.

    Attributes:
        recipe: its steps are taken before conversion; None converts the model as it is.
        schemes: names of SCHEMES; when empty the recipe's, or DEFAULTS. The float baseline is always made.
        budgets: what the recommended model must keep.
        target: the device it is meant for, a name of `targets.TARGETS` or a data file; the recipe's if None. Its
            runtimes are promises, and what does not fit is not recommended.
        runtime: where variants are scored and timed.
        metric: key of METRICS or "module:function"; chosen from the model and labels when None.
        threads: of the interpreter that is timed.
        delegate: an external delegate for the runtimes that take one.
        batch_size: of the converted models; None leaves it free.
        custom_objects, trust: see `loading.load_model`.
    """

    recipe: Recipe | None = None
    schemes: tuple[str, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)
    target: str | None = None
    runtime: str = "litert"
    metric: str | None = None
    threads: int = 1
    delegate: Delegate | None = None
    batch_size: int | None = 1
    custom_objects: Path | None = None
    trust: bool = False


@dataclass(frozen=True)
class _Loaded:
    summary: ModelSummary
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Timings:
    results: tuple[tuple[str, RuntimeResult], ...]


@dataclass(frozen=True)
class _Rows:
    results: tuple[RuntimeResult, ...]


@dataclass(frozen=True)
class _Words:
    words: str


@dataclass(frozen=True)
class _LayerErrors:
    errors: tuple[LayerError, ...]


class Run:
    """One run of the main job in its output folder; `measured` says whether its files are more than scored."""

    def __init__(
        self,
        model: Path,
        data: Dataset,
        output: Path,
        settings: Settings,
        *,
        force: bool = False,
        measured: bool = True,
    ) -> None:
        files.require_free(output, force=force, made_by_us=MARKER)
        files.require_writable(output)
        self.recipe = settings.recipe or Recipe(schemes=settings.schemes or DEFAULTS)
        name = settings.target or self.recipe.target
        self.target = None if name is None else targets.target(name)
        if self.target is not None:
            settings = replace(settings, target=name, budgets=_with_promises(settings.budgets, self.target.runtimes))
        self.model, self.data, self.output, self.settings = model, data, output, settings
        self._wanted = tuple(scheme(name).name for name in settings.schemes or self.recipe.schemes)
        self.schemes = tuple(dict.fromkeys((BASELINE, *self._wanted)))
        # What no model can mend is said before one is loaded.
        plan(self.recipe, has_labels=data.training.has_labels, has_training=len(data.training) > 0)
        self.steps: tuple[StepRecord, ...] = ()
        if settings.metric is not None:
            metric(settings.metric)  # whether there is such a one
        self.promises = tuple(parse(text) for text in settings.budgets.runtimes)
        self.main_runtime = parse(settings.runtime)
        require(self.main_runtime.runtime.name)
        self._converter: tuple[Path, IsolatedConverter] | None = None
        self._compression: Compression | None = None
        self._store = Store(output)
        self._seconds: dict[str, float] = {}
        self._versions = machine.versions()
        delegate = settings.delegate
        # By content, like everything a stored result depends on.
        self._delegate = delegate and {"library": _content(delegate.library), "options": delegate.options}
        self._inputs = {
            "model": _content(model),
            "data": datasets.fingerprint(data),
            "versions": f"edgeopt {__version__}, {dict(self._versions)}",
            "custom objects": "" if settings.custom_objects is None else _content(settings.custom_objects),
        }
        progress.foresee(stages(self.recipe, samples=len(data.training), measured=measured))
        with _told("loading"):
            loaded = self._stage("load", {}, _Loaded, self._load)
        # Written after what could not be used was refused: a run that never began leaves nothing.
        changed = self._store.changes(self._inputs)
        self.warnings = tuple(f"the {name} changed since the last run in this folder: done anew" for name in changed)
        self.warnings += loaded.warnings
        self.summary = loaded.summary
        self.data = datasets.bind(data, self.summary.inputs)
        if self.recipe.steps:
            self._compression = self._planned()
            self.warnings += self._compression.plan.notes

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_converter()
        if self._compression is not None:
            self._compression.close()

    @property
    def reproducing(self) -> Recipe:
        """The recipe that says all of this run but its model and data."""
        return replace(self.recipe, schemes=self._wanted, budgets=self.settings.budgets, target=self.settings.target)

    def converted(self) -> list[Variant]:
        """Returns a variant for each scheme, its file under variants/; a failure is part of its variant."""
        names = progress.track(self.schemes, "converting", len(self.schemes))
        variants = [self._converted(self.model, (), name) for name in names]
        if all(variant.error for variant in variants):
            raise ConversionError(f"Not one variant of {self.model} could be made. {variants[0].error}")
        return variants

    def compressed(self, variants: Sequence[Variant]) -> list[Variant]:
        """Takes the recipe's steps in turn, and adds a variant for each and for each scheme of what comes out.

        A step is measured as a file in the recipe's first scheme. Where it breaks a promise, or loses too much, the
        model of before it goes on.
        """
        if self._compression is None:
            return list(variants)
        found = list(variants)
        done: tuple[str, ...] = ()
        before = next(v for v in found if v.name == self._wanted[0])
        number = 0
        while (planned := self._compression.upcoming()) is not None:
            number += 1
            progress.tell(step_name(self.recipe, number - 1))
            with self._clocked(planned.technique):
                step = self._compression.do(planned, number)
            after = self._converted(step.model, (*done, planned.name), self._wanted[0])
            record = self._judged(planned, step.record, before, after)
            if Property.FAKE_QUANTIZED in planned.properties_after and after.file is not None:
                record = replace(record, notes=(*record.notes, self._as_trained(step.model, after)))
            if record.rolled_back:
                after = replace(after, notes=(*after.notes, f"rolled back: {record.rolled_back}"))
                self._compression.skip()
            else:
                self._compression.accept(planned, step.model)
                done = (*done, planned.name)
            self.steps += (replace(record, model=step.model.relative_to(self.output).as_posix()),)
            found.append(after)
            before = before if record.rolled_back else after
        if done:
            found += [self._converted(self._compression.model, done, name) for name in self._wanted[1:]]
        self._compression.close()
        return found

    def scored(self, variants: Sequence[Variant]) -> list[Variant]:
        """Adds the metric of each variant on the validation part, and its paired difference to the baseline."""
        scores = {v.name: self._score(v) for v in progress.track(variants, "scoring", len(variants)) if v.file}
        reference = scores.get(BASELINE)
        baseline = reference if isinstance(reference, Evaluation) else None

        def add(variant: Variant) -> Variant:
            score = scores.get(variant.name)
            if score is None:
                return variant
            if isinstance(score, ModelError):
                return replace(variant, notes=(*variant.notes, f"not scored: {score}"))
            drop = None if baseline is None or score is baseline else score.difference(baseline)
            return replace(variant, metric=score.metric, drop=drop, notes=(*variant.notes, *score.notes))

        return [add(variant) for variant in variants]

    def tried_on_runtimes(self, variants: Sequence[Variant]) -> list[Variant]:
        """Adds a row for every runtime: whether it loads the file, and computes what the others compute."""
        requests = to_try((self.main_runtime, *self.promises), form="tflite")

        def add(variant: Variant) -> Variant:
            if variant.file is None:
                return variant
            file = self.output / variant.file

            def check() -> _Rows:
                return _Rows(parity.check(file, requests, self.data.calibration, delegate=self.settings.delegate))

            key = {"file": variant.sha256, "requests": requests, "delegate": self._delegate}
            rows = self._stage("runtimes", key, _Rows, check).results
            return replace(variant, runtimes=tuple(replace(row, artifact=str(variant.file)) for row in rows))

        return [add(v) for v in progress.track(variants, "trying runtimes", len(variants))]

    def timed(self, variants: Sequence[Variant]) -> list[Variant]:
        """Adds latencies on the main runtime, all variants taking turns so that they meet the same machine."""
        made = [variant for variant in variants if variant.file]
        paths = [self.output / str(variant.file) for variant in made]

        def measure() -> _Timings:
            table = benchmark(
                paths,
                runtimes=[self.main_runtime.runtime.name],
                threads=self.settings.threads,
                delegate=self.settings.delegate,
                inputs=self.data.calibration,
            )
            return _Timings(tuple((v.name, row.result) for v, row in zip(made, table.rows)))

        key = {
            "files": [v.sha256 for v in made],
            "runtime": self.settings.runtime,
            "threads": self.settings.threads,
            "delegate": self._delegate,
            "cpu": machine.describe().cpu,
        }
        with _told("timing"):
            timings = self._stage("time", key, _Timings, measure)
        measured = dict(timings.results)
        noisy = [name for name, row in measured.items() if row.latency_ms and (row.latency_ms.noise or 0) > NOISY]
        if noisy:
            self.warnings += (f"the machine was noisy while {', '.join(noisy)} ran: trust ratios more than times",)
        return [_with_timing(variant, measured.get(variant.name)) for variant in variants]

    def judged_on_target(self, variants: Sequence[Variant]) -> list[Variant]:
        """Adds what each variant costs on the device that the run is for, if it is for one."""
        if self.target is None:
            return list(variants)
        device = self.target

        def add(variant: Variant) -> Variant:
            if variant.file is None:
                return variant
            file = self.output / variant.file
            key = {
                "file": variant.sha256,
                "target": device,
                "tools": [frameworks.installed_version(name) for name in ("vela", "tflite_micro")],
                "cpu": machine.describe().cpu if device.latency.kind == "measured" else "",
            }
            return replace(variant, on_target=self._stage("target", key, OnTarget, lambda: _on_target(device, file)))

        return [add(v) for v in progress.track(variants, f"judging for {device.name}", len(variants))]

    def compared_by_layer(self, variants: Sequence[Variant]) -> list[Variant]:
        """Adds how far each intermediate tensor lies from the baseline's."""
        baseline = next((v for v in variants if v.name == BASELINE and v.file), None)

        def add(variant: Variant) -> Variant:
            if baseline is None or variant.file is None or variant is baseline:
                return variant
            ours, theirs = self.output / variant.file, self.output / str(baseline.file)
            key = {"files": [baseline.sha256, variant.sha256]}

            def compare() -> _LayerErrors:
                return _LayerErrors(comparison.layer_errors(theirs, ours, self.data.calibration))

            try:
                errors = self._stage("layers", key, _LayerErrors, compare)
            except EdgeoptError as error:
                return replace(variant, notes=(*variant.notes, f"layers not compared: {error}"))
            return replace(variant, layer_errors=errors.errors)

        return [add(v) for v in progress.track(variants, "comparing layers", len(variants))]

    def compiled(self, best: Variant) -> Path | None:
        """Writes what the target's compiler makes of the recommended file beside best.tflite, where it has one."""
        file = self.output / "best.vela.tflite"
        file.unlink(missing_ok=True)  # an earlier run's, for another target
        chip = None if self.target is None else targets.accelerator(self.target)
        if chip is None or best.on_target is None or best.on_target.latency_how != "simulated":
            return None
        files.atomic_write(file, compile_file(self.output / str(best.file), chip).content)
        return file

    def report(self, variants: Sequence[Variant], commands: Sequence[str]) -> Report:
        """Returns all that was measured as a report without a recommendation."""
        summary, settings = self.summary, self.settings
        baseline = next((v for v in variants if v.name == BASELINE and v.file), None)
        facts = ModelFacts(
            str(self.model),
            self._inputs["model"],
            summary.source_format,
            summary.inputs,
            summary.outputs,
            notes=(*summary.notes, *(f"{layer}: {reason}" for layer, reason in summary.unbridged)),
        )
        if baseline is not None:
            file = formats.facts(self.output / str(baseline.file))
            facts = replace(facts, parameters=file.parameters, macs=file.macs)
        described = self.data.describe()
        data = DataFacts(
            described["path"],
            described["sha256"],
            {spec["name"]: tuple(spec["shape"]) for spec in described["inputs"]},
            described["samples"],
            described["classes"],
            tuple(described["notes"]),
        )
        return Report(
            edgeopt_version=__version__,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            model=facts,
            data=data,
            preprocessing=self.data.validation.preprocessing,
            target=None if self.target is None else self.target.name,
            budgets=settings.budgets,
            steps=self.steps,
            recipe=to_values(self.reproducing),
            runtime=self.main_runtime.runtime.name,
            variants=tuple(variants),
            baseline=baseline.name if baseline else None,
            machine=machine.describe().to_plain(),
            versions=self._versions,
            commands=tuple(commands),
            elapsed_s=dict(self._seconds),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _load(self) -> _Loaded:
        summary = self._opened(self.model).summary()
        return _Loaded(summary, datasets.check(self.data, summary.inputs, summary.outputs, rescales=summary.rescales))

    def _planned(self) -> Compression:
        settings = self.settings
        return Compression(
            self.recipe,
            self.model,
            self.data,
            self.output,
            store=self._store,
            inputs=self._inputs,
            trust=settings.trust,
            custom_objects=settings.custom_objects,
        )

    def _judged(self, planned: PlannedStep, record: StepRecord, before: Variant, after: Variant) -> StepRecord:
        """Returns the record with its promises as measured in the file, and why the step is rolled back, if it is."""
        record = replace(record, before=before.name, after=after.name)
        if after.error is not None:
            return replace(record, rolled_back=f"its model could not be converted: {after.error}")
        file = formats.facts(self.output / str(after.file))
        record = replace(record, promises=technique(planned.technique).check(planned.step, record, file))
        if broken := [p for p in record.promises if p.kept is False]:
            return replace(record, rolled_back=promise_words(broken[0]))
        theirs = self._score(before) if before.file else None
        ours = self._score(after)
        if not isinstance(ours, Evaluation) or not isinstance(theirs, Evaluation):
            return record
        drop = ours.difference(theirs)
        limit = COLLAPSE if planned.step.max_drop is None else planned.step.max_drop
        if drop.value > limit:
            unit = "points" if ours.metric.is_share else "%"
            return replace(record, rolled_back=f"it lost {drop.value:.2f} {unit}, more than {limit:g}")
        return record

    def _as_trained(self, model: Path, variant: Variant) -> str:
        """Says whether the file of a fake-quantized model computes what was trained, and where it parts from it."""

        def compare() -> _Words:
            with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
                trained = Path(folder) / "trained.tflite"
                self._opened(model).simulate(trained)
                found = comparison.compare(
                    trained,
                    self.output / str(variant.file),
                    self.data.validation,
                    runtime_b=self.main_runtime.runtime.name,
                    metric=self.settings.metric,
                )
            return _Words(comparison.kept(found))

        key = {"of": files.sha256(model), "file": variant.sha256, "runtime": self.settings.runtime}
        try:
            return self._stage("trained", {**key, "metric": self.settings.metric}, _Words, compare).words
        except EdgeoptError as error:
            return f"the file was not compared to the trained model: {error}"

    def _converted(self, model: Path, steps: tuple[str, ...], scheme_name: str) -> Variant:
        """Returns the variant of a model that has been through `steps`."""
        name = f"{'+'.join(steps)}.{scheme_name}" if steps else scheme_name
        file = self.output / "variants" / f"{self.model.stem}.{name}.tflite"
        key = {
            "scheme": scheme_name,
            "promises": self.promises,
            "batch_size": self.settings.batch_size,
            "steps": steps,
            "of": files.sha256(model) if steps else "",
        }

        def convert() -> Variant:
            try:
                notes = convert_for(self._opened(model), scheme_name, file, promises=self.promises)
            except ConversionError as error:
                return Variant(name, scheme_name, steps=steps, error=str(error))
            facts = formats.facts(file)
            return Variant(
                name,
                scheme_name,
                steps=steps,
                artifacts=(formats.artifact(file, self.output, made_by=scheme(scheme_name).maker),),
                macs=facts.macs,
                sparsity=facts.sparsity,
                bytes_by_kind=facts.bytes_by_kind,
                notes=notes,
            )

        def untouched(variant: Variant) -> bool:
            return variant.file is None or (file.exists() and files.sha256(file) == variant.sha256)

        return self._stage("convert", key, Variant, convert, still_holds=untouched)

    def _score(self, variant: Variant) -> Evaluation | ModelError:
        """Returns the score, or why the main runtime gives none."""
        key = {
            "file": variant.sha256,
            "runtime": self.settings.runtime,
            "metric": self.settings.metric,
            "delegate": self._delegate,
        }

        def score() -> Evaluation:
            return evaluate(
                self.output / str(variant.file),
                self.data.validation,
                metric=self.settings.metric,
                runtime=self.main_runtime.runtime.name,
                delegate=self.settings.delegate,
            )

        try:
            return self._stage("score", key, Evaluation, score)
        except ModelError as error:
            return error

    def _stage(
        self, name: str, key: Mapping[str, Any], kind: type[Result], compute: Callable[[], Result], **options: Any
    ) -> Result:
        with self._clocked(name):
            return self._store.remember(name, {**self._inputs, **key}, kind, compute, **options)

    @contextlib.contextmanager
    def _clocked(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def _opened(self, model: Path) -> IsolatedConverter:
        if self._converter is None or self._converter[0] != model:
            self._close_converter()  # one model's memory at a time
            options = ConvertOptions(
                batch_size=self.settings.batch_size,
                calibration=self.data.calibration,
                custom_objects=self.settings.custom_objects,
                trust=self.settings.trust,
            )
            self._converter = model, IsolatedConverter(model, options)
        return self._converter[1]

    def _close_converter(self) -> None:
        if self._converter is not None:
            self._converter[1].close()
            self._converter = None


def _with_promises(budgets: Budgets, runtimes: Sequence[str]) -> Budgets:
    return replace(budgets, runtimes=tuple(dict.fromkeys((*budgets.runtimes, *runtimes))))


def _on_target(target: targets.Target, file: Path) -> OnTarget:
    try:
        found = targets.assess(target, read(file))
    except EdgeoptError as error:
        return OnTarget((str(error),))
    return OnTarget(
        found.problems,
        found.fit.flash_bytes,
        found.fit.ram_bytes,
        found.memory_how,
        found.estimate.latency_ms,
        found.estimate.how,
        found.estimate.notes,
    )


def _content(path: Path) -> str:
    """Returns a hash; what is missing is for its reader to say."""
    return files.sha256(path) if path.exists() else ""


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    progress.tell(name, 0, 1)
    yield
    progress.tell(name, 1, 1)


def _with_timing(variant: Variant, timing: RuntimeResult | None) -> Variant:
    """Returns the variant with latency, load time and memory in the row of the runtime that was timed."""
    if timing is None:
        return variant

    def merged(row: RuntimeResult) -> RuntimeResult:
        if row.name != timing.name:
            return row
        return replace(
            timing,
            matches_reference=row.matches_reference,
            max_difference=row.max_difference,
            artifact=row.artifact,
        )

    return replace(variant, runtimes=tuple(merged(row) for row in variant.runtimes))
