"""What a search found goes in; study.json, study.html, a terminal table and what a notebook shows come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.files import atomic_write
from edgeopt.plain import to_plain
from edgeopt.report import Report
from edgeopt.report.words import ABSENT, Numbers, shortened, whole
from edgeopt.search.study import Trial
from edgeopt.search.trying import Measured
from edgeopt.vocabulary import Variant

if TYPE_CHECKING:
    from rich.table import Table

VERSION = 1


@dataclass(frozen=True)
class Point:
    """A point of the front.

    Attributes:
        number: from 1, the smallest file first.
        trial: number of the trial that found it.
        variant: its name in the report.
        file: its recipe, relative to the report.
        recipe: the same as keys and values.
        measured: what it was chosen by.
    """

    number: int
    trial: int
    variant: str
    file: str
    recipe: Mapping[str, Any]
    measured: Measured


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        report: of the front: its files, scored on samples that no trial has seen, and the one that is recommended.
        objectives: keys of `trying.OBJECTIVES`.
        limits: budgets by objective.
        front: the points that no other is shown to beat.
        trials: all that was tried.
        ended: "trials", "time", "space" (every recipe was tried) or "interrupted".
        kept: whether the front keeps the budgets; `obstacle` says why not.
        study, storage: the name of the study and its database.
        sampler: what drew.
    """

    report: Report
    objectives: tuple[str, ...]
    limits: Mapping[str, float]
    front: tuple[Point, ...]
    trials: tuple[Trial, ...]
    ended: str
    kept: bool
    obstacle: str
    study: str
    storage: str
    sampler: str

    def _repr_html_(self) -> str:
        """Returns it as a notebook shows it."""
        from edgeopt.search.page import notebook

        return notebook(self)

    def variant(self, point: Point) -> Variant:
        """Returns the variant of a point."""
        found = self.report.variant(point.variant)
        assert found is not None
        return found


def write_tuned(tuned: Tuned, folder: Path) -> None:
    """Writes study.json and study.html into the folder that holds the report."""
    from edgeopt.search.page import render

    plain = to_plain(tuned)
    plain.pop("report")
    text = json.dumps({"version": VERSION, **plain}, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(folder / "study.json", text + "\n")
    atomic_write(folder / "study.html", render(tuned))


def counts(tuned: Tuned) -> dict[str, int]:
    """Returns how many trials ended in each way."""
    states = [trial.outcome.state for trial in tuned.trials]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def headline(tuned: Tuned) -> str:
    """Returns the outcome in one sentence."""
    found = counts(tuned)
    tried = sum(found.get(state, 0) for state in ("done", "stopped", "failed"))
    parts = [
        f"{found[state]} {words}"
        for state, words in (
            ("stopped", "given up early"),
            ("failed", "failed"),
            ("lost", "lost with their process and begun anew"),
        )
        if found.get(state)
    ]
    front = f"{len(tuned.front)} that no other is shown to beat"
    more = f" ({', '.join(parts)})" if parts else ""
    return f"{tried} recipes tried{more}, {front}"


def recipe_words(recipe: Mapping[str, Any]) -> str:
    """Returns the steps of a recipe of one scheme in a line: "prune sparsity 0.5, int8"."""
    steps = []
    for step in recipe.get("steps", ()):
        if isinstance(step, str):
            steps.append(step)
        else:
            ((name, settings),) = step.items()
            steps.append(" ".join([name, *(f"{key} {value}" for key, value in settings.items())]))
    return ", ".join([*steps, *recipe.get("schemes", ())])


def on_target(tuned: Tuned) -> dict[str, Callable[[Point], str]]:
    """Returns what is sought on the target, as titles of columns, with what stands there for a point."""
    if tuned.report.target is None:
        return {}

    def latency(point: Point) -> str:
        found = point.measured.costs.get("latency")
        return ABSENT if found is None else f"{found.value:.3g}"

    def ram(point: Point) -> str:
        found = point.measured.costs.get("ram")
        return ABSENT if found is None else whole(int(found.value))

    columns = {"latency": ("target ms", latency), "ram": ("RAM", ram)}
    return dict(columns[name] for name in columns if name in tuned.objectives)


def front_table(tuned: Tuned, *, width: int = 80) -> Table:
    """Returns one row a point: bytes, the score on samples that no trial has seen, what is sought, the recipe."""
    from rich.table import Table
    from rich.text import Text

    report = tuned.report
    numbers = Numbers.of(report)
    unit = " %" if numbers.is_share else ""
    columns = ["", "bytes", f"{shortened(numbers.metric_name, 12)}{unit}", f"+/- {'pt' if numbers.is_share else '%'}"]
    further = on_target(tuned)
    # What this machine takes is of no interest where the target's latency is sought.
    has_time = any(report.latency(v) for v in report.variants) and "target ms" not in further
    columns += [numbers.time_unit] if has_time else []
    columns += further
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for name in columns:
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("recipe", overflow="fold")
    rows: list[tuple[Point | None, Variant, str]] = [
        (point, tuned.variant(point), recipe_words(point.recipe)) for point in tuned.front
    ]
    baseline = report.variant(report.baseline)
    if baseline is not None:
        rows.append((None, baseline, "as it came"))
    for point, variant, words in rows:
        latency = report.latency(variant)
        metric = variant.metric
        cells = [
            "" if point is None else str(point.number),
            whole(variant.size_bytes),
            ABSENT if metric is None else numbers.metric(metric.value, unit=False),
            numbers.change(variant.drop),
            *([numbers.time(latency.p50, unit=False) if latency else ABSENT] if has_time else []),
            *(ABSENT if point is None else told(point) for told in further.values()),
        ]
        style = "bold" if variant.name == report.best else ""
        mark = "→ " if variant.name == report.best else ""
        table.add_row(*(Text(cell, style) for cell in (mark + cells[0], *cells[1:], words)))
    return table
