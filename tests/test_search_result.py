"""What a search tells: a page, a table, JSON and what a notebook shows, of the very trials that were made."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench import cheap_trials
from edgeopt.report import DataFacts, ModelFacts, Report
from edgeopt.search.choosing import chosen, limits
from edgeopt.search.page import render
from edgeopt.search.result import Point, Tuned, front_table, headline, recipe_words, write_tuned
from edgeopt.search.tuning import MOST_TIMED, Leader, _some
from edgeopt.vocabulary import Artifact, Budgets, MetricValue, Variant

BUDGETS = Budgets(max_drop=3.0, max_size_bytes=90_000)
BASELINE = Variant("float32", "float32", (Artifact("tflite", "float32.tflite", "0", 400_000, 300_000),))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """What a search of cheap trials found."""
    search = cheap_trials.search(trials=20)
    study = cheap_trials.study(f"sqlite:///{tmp_path_factory.mktemp('study') / 'study.db'}")
    Leader(search, study, search.space(cheap_trials.DATA), time.monotonic()).lead(cheap_trials.Cheap())
    choice = chosen(study.trials, search.settings.objectives, BUDGETS)
    points, variants = [], []
    for number, trial in enumerate(choice.front, start=1):
        found = trial.outcome.measured
        assert found is not None
        name = f"{number}.{found.variant}"
        points.append(Point(number, trial.number, name, f"front/{number}.yaml", trial.recipe, found))
        file = Artifact("tflite", f"{name}.tflite", found.sha256, int(found.costs["size"].value), 1)
        # Other samples give another score.
        metric = MetricValue("top1", found.metric.value - 0.01, 0.75, 0.93, 600, is_share=True)
        variants.append(Variant(name, found.variant, (file,), metric=metric, drop=found.drop))
    report = Report("0.1.0", "2026-11-29T06:00:00+00:00", ModelFacts("<model>.keras"), budgets=BUDGETS)
    report = replace(report, variants=(BASELINE, *variants), baseline="float32", best=variants[0].name)
    report = replace(report, data=DataFacts("data.npz", samples={"tuning": 600, "validation": 600}))
    return Tuned(
        report,
        search.settings.objectives,
        limits(BUDGETS),
        tuple(points),
        tuple(study.trials),
        ended="trials",
        kept=True,
        obstacle="",
        study=study.name,
        storage=study.address,
        sampler="tpe",
    )


def test_the_page_shows_every_trial_and_labels_the_front(tuned: Tuned) -> None:
    page = render(tuned)
    assert page.count('<path class="mark') == sum(t.outcome.state == "done" for t in tuned.trials) == 20
    assert page.count('<text class="label') == len(tuned.front)
    assert page.count('class="mark best"') == 1
    assert "&lt;model&gt;.keras" in page
    assert "<model>" not in page
    for point in tuned.front:
        assert f"./front/{point.number}.yaml" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_says_which_samples_chose(tuned: Tuned) -> None:
    assert "Scores are those on the tuning samples" in (page := render(tuned))
    assert "top1, tuning" in page
    assert "Validation samples were scored once, after everything was chosen." in page
    data = DataFacts("data.npz", samples={"tuning": 0, "validation": 200})
    page = render(replace(tuned, report=replace(tuned.report, data=data)))
    assert "Scores are those on the validation samples" in page
    assert "top1, tuning" not in page
    assert "scored once" not in page
    assert "whose scores flatter what was chosen by them" in page


def test_a_notebook_shows_the_page_in_a_frame(tuned: Tuned) -> None:
    shown = tuned._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert 'title="edgeopt search"' in shown


def test_the_table_has_the_scores_of_samples_that_no_trial_has_seen(tuned: Tuned) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(front_table(tuned))
    text = console.export_text()
    lines = text.splitlines()
    assert len(lines) == 1 + len(tuned.front) + 1
    assert lines[1].startswith("→ 1")
    assert f"{100 * (tuned.front[0].measured.metric.value - 0.01):.1f}" in lines[1]
    assert recipe_words(tuned.front[0].recipe) in lines[1]
    assert "as it came" in lines[-1]


def test_the_files_hold_all_that_was_tried(tuned: Tuned, tmp_path: Path) -> None:
    write_tuned(tuned, tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())
    assert len(found["trials"]) == len(tuned.trials)
    assert [point["file"] for point in found["front"]] == [point.file for point in tuned.front]
    assert "report" not in found
    assert (tmp_path / "study.html").read_text() == render(tuned)


def test_the_headline_counts_what_became_of_the_trials(tuned: Tuned) -> None:
    assert headline(tuned) == f"20 recipes tried, {len(tuned.front)} that no other is shown to beat"
    first, *others = tuned.trials
    stopped = replace(first, outcome=replace(first.outcome, state="stopped"))
    told = headline(replace(tuned, trials=(stopped, *others)))
    assert told.startswith("20 recipes tried (1 given up early), ")


def test_a_recipe_is_told_in_a_line() -> None:
    recipe = {"schemes": ["int8"], "steps": ["equalize", {"prune": {"sparsity": 0.5, "epochs": 2}}]}
    assert recipe_words(recipe) == "equalize, prune sparsity 0.5 epochs 2, int8"


def test_of_a_long_front_some_points_are_timed_the_ends_among_them() -> None:
    names = ["float32", *map(str, range(100))]
    found = _some(names)
    assert len(found) == 1 + MOST_TIMED
    assert {"float32", "0", "99"} <= found
    assert _some(names[:5]) == set(names[:5])
