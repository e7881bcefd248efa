"""The report as a value: what a run measured goes in, the plain dictionary of report.json comes out, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeopt.errors import DataError, suggestion
from edgeopt.plain import from_plain, to_plain
from edgeopt.report.upgrading import upgraded
from edgeopt.runtimes import RUNTIMES
from edgeopt.vocabulary import (
    Budgets,
    Climb,
    Latency,
    Preprocessing,
    RuntimeResult,
    Sensitivity,
    Shape,
    StepRecord,
    TensorSpec,
    Variant,
)

SCHEMA_VERSION = 2

# Derived from the other keys, written for readers of the file.
_DERIVED = {RuntimeResult: {"loads"}}


@dataclass(frozen=True)
class ModelFacts:
    """The model that came in.

    Attributes:
        path, sha256: the file or folder, its content as hex.
        format: "keras-3", "keras-2", "savedmodel", "tflite" …
        inputs, outputs: as the user's model declares them.
        parameters, macs, size_bytes: None where not counted; macs are those of one sample.
        notes: what loading did to it.
    """

    path: str
    sha256: str | None = None
    format: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """The data that calibrated and scored the variants.

    Attributes:
        path, sha256: the file, folder or function; no hash where the content is not a file's.
        shapes: shape of one sample by input name.
        samples: number of samples by part: "calibration", "training", "tuning", "validation".
        classes: None without labels or for other tasks than classification.
        notes: what the checks remarked.
    """

    path: str
    sha256: str | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that one run decided and measured; its fields are the keys of report.json.

    Attributes:
        edgeopt_version, created: of the run; `created` in ISO 8601 with its offset.
        model, data: what came in; `data` is None for a run without data.
        steps: what was done before conversion, in its order.
        variants: in the order in which they are shown.
        baseline: name of the float variant that sizes, metrics and latencies are compared with.
        best: name of the recommended variant, or of the nearest where none meets the budgets.
        best_reason: how it was chosen ("the smallest of the 4 that meet every budget").
        runtime: name of the runtime whose latencies are compared, and held against `budgets.max_latency_ms` where those
            on the target are not known.
        recipe: what reproduces the run, as the recipe file would say it.
        machine: facts in words or numbers; keys ending in `_bytes` are sizes.
        commands: exact command lines that reproduce this report.
        versions: package to version.
        elapsed_s: stage to seconds.
        climb: the ladder as it was climbed; None for a run that carried out a recipe.
        sensitivity: what the model loses by each of its layers alone; None where that was not looked at.

    Raises:
        DataError: `best` or `baseline` names no variant, or two variants share a name.
    """

    edgeopt_version: str
    created: str
    model: ModelFacts
    data: DataFacts | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    target: str | None = None
    budgets: Budgets = field(default_factory=Budgets)
    runtime: str = "litert"
    steps: tuple[StepRecord, ...] = ()
    variants: tuple[Variant, ...] = ()
    baseline: str | None = None
    best: str | None = None
    best_reason: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    climb: Climb | None = None
    sensitivity: Sensitivity | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise DataError(f"Expected variants of different names, got {names}. Try renaming one.")
        for role in ("baseline", "best"):
            name = getattr(self, role)
            if name is not None and name not in names:
                raise DataError(f"Expected {role} to name a variant, got {name!r}.{suggestion(name, names)}")

    def variant(self, name: str | None) -> Variant | None:
        """Returns the variant called `name`, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def _repr_html_(self) -> str:
        """Returns the report as a notebook shows it."""
        from edgeopt.report.render import render_notebook

        return render_notebook(self)

    def latency(self, variant: Variant) -> Latency | None:
        """Returns the latency of `variant` on the runtime that latencies are compared on, or on its format's own."""
        return next((found for name in self._clocks(variant) if (found := variant.latency_on(name))), None)

    @property
    def bounds_target(self) -> bool:
        """Whether a budget of latency is one of the target's: where it is known there, of one variant at least."""
        return any(v.on_target is not None and v.on_target.latency_ms is not None for v in self.variants)

    def bounded_ms(self, variant: Variant) -> float | None:
        """Returns what a budget of latency bounds: one inference on the target, or the median of `latency`."""
        if self.bounds_target:
            return None if variant.on_target is None else variant.on_target.latency_ms
        found = self.latency(variant)
        return None if found is None else found.p50

    @property
    def clocks(self) -> tuple[str, ...]:
        """The runtimes that `latency` is of, the main one first."""
        found = (next(filter(variant.latency_on, self._clocks(variant)), None) for variant in self.variants)
        return tuple(dict.fromkeys((self.runtime, *filter(None, found))))

    def _clocks(self, variant: Variant) -> tuple[str, ...]:
        form = "" if variant.primary is None else variant.primary.format
        return (self.runtime, *(name for name, row in RUNTIMES.items() if form in row.takes and "time" in row.can))[:2]


def to_json(report: Report) -> dict[str, Any]:
    """Returns the report in the layout of report.schema.json; what is not finite becomes None."""
    plain: dict[str, Any] = {"schema_version": report.schema_version, **to_plain(report)}
    for variant, written in zip(report.variants, plain["variants"]):
        for result, row in zip(variant.runtimes, written["runtimes"]):
            row["loads"] = result.loads
    return plain


def from_json(value: Any) -> Report:
    """Returns the report that `to_json` wrote, or that of an earlier version; None where a number is due becomes NaN.

    Raises:
        DataError: it is no report, or one of a newer schema version; the message names the key.
    """
    if not isinstance(value, Mapping) or "schema_version" not in value:
        raise DataError("Expected a report (an object with schema_version), got something else. Try a report.json.")
    value = upgraded(value)
    if value["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"Expected a report of schema version {SCHEMA_VERSION}, got {value['schema_version']!r}. "
            "Try the edgeopt version that wrote it, or write it anew."
        )
    return from_plain(Report, value, "report", derived=_DERIVED)


def read_report(path: Path) -> Report:
    """Reads report.json, or the one in a folder.

    Raises:
        DataError: there is no report at `path`, or it cannot be understood.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return from_json(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"Expected a report at {file}, got: {error.strerror}. Try the folder of a run.") from error
    except ValueError as error:
        raise DataError(f"Expected JSON in {file}, got: {error}. Try the report.json of a run.") from error
