"""Benchmarks: the rows of compression are jobs that both sides accept, and pages say what was measured."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as benchmarks
from bench import budget, common, compression, shrinking, tune
from edgeopt.recipe import steps_from

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("title", compression.ROWS)
def test_a_row_s_steps_are_a_recipe_s(title: str) -> None:
    row = compression.ROWS[title]
    assert [step.technique for step in steps_from(row.steps)] == [name for step in row.steps for name in step]


def test_the_page_is_made_of_the_results() -> None:
    stale = "docs/compression-results.md: try `python -m bench.compression --page`"
    assert compression.PAGE.read_text(encoding="utf-8") == compression.page(), stale


def test_the_page_of_shrinking_is_made_of_the_results() -> None:
    stale = "docs/shrinking-results.md: try `python -m bench.shrinking --page`"
    assert shrinking.PAGE.read_text(encoding="utf-8") == shrinking.page(), stale


def test_the_page_of_budgets_is_made_of_the_results() -> None:
    assert budget.PAGE.read_text(encoding="utf-8") == budget.page(), (
        "docs/budgets.md: try `python -m bench.budget --page`"
    )
    row = {"size_bytes": 50, "limit": 50, "float_score": 0.9, "score": 0.89}
    assert budget.kept(row)
    assert not budget.kept({**row, "size_bytes": 51})
    assert not budget.kept({**row, "score": 0.889})


def test_the_script_by_hand_says_what_it_takes() -> None:
    command = [sys.executable, "-m", "bench.by_hand", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    options = {word for row in compression.ROWS.values() for word in row.by_hand or () if word.startswith("--")}
    assert options <= set(done.stdout.replace(",", " ").split())


def test_a_benchmark_renews_its_section_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "PAGE", tmp_path / "benchmarks.md")
    for title, text in (("Memory", "old\n\n| a |"), ("Start-up", "first\n\nlines"), ("Memory", "new")):
        benchmarks.keep(title, text)
    page = benchmarks.PAGE.read_text(encoding="utf-8")
    assert page == f"{benchmarks.INTRO}\n\n## Start-up\n\nfirst\n\nlines\n\n## Memory\n\nnew\n"


def test_a_ratio_is_that_of_the_medians_beside_it() -> None:
    assert common.ratio([9.0, 1.0, 12.0], [3.0, 6.0, 4.0]) == 9.0 / 4.0


def test_a_hypervolume_is_the_area_below_the_worst() -> None:
    worst = (10.0, 4.0)
    assert tune.hypervolume([(5.0, 1.0)], worst) == (10 - 5) * (4 - 1) / (10 * 4)
    assert tune.hypervolume([(5.0, 1.0), (2.0, 3.0)], worst) == ((10 - 2) * (4 - 3) + (10 - 5) * (3 - 1)) / (10 * 4)
    # What another point beats, or is worse than the worst, adds nothing.
    assert tune.hypervolume([(5.0, 1.0), (6.0, 2.0), (1.0, 9.0)], worst) == (10 - 5) * (4 - 1) / (10 * 4)


def test_a_search_looks_its_trials_up_in_the_table() -> None:
    """Of all recipes no search finds more."""
    found = common.kept_rows(tune.RESULTS)[0]["table"]
    points, worst = tune.points_of(found), (float(found["float_bytes"]), tune.WORST_DROP)
    assert len(points) == len(tune.grid(10**6))
    best = tune.hypervolume([point for point in points.values() if point], worst)
    assert 0 < tune.searched(found, 5, "near", 0) <= best


def test_the_front_of_a_search_dominates_those_of_grids_of_as_many_trials() -> None:
    """Three searches, and even grids from every beginning, in the recorded table of a DS-CNN."""
    found, row = (common.kept_rows(tune.RESULTS)[0][name] for name in ("table", "fronts"))
    (grids,) = (one["grids"] for one in row if one["trials"] == 16)
    ours = [tune.searched(found, 16, "expected", seed) for seed in range(3)]
    assert min(ours) > statistics.mean(grids)


def test_a_grid_has_as_many_different_recipes_as_the_search() -> None:
    recipes = [str(recipe) for recipe in tune.grid(24)]
    assert len(recipes) == len(set(recipes)) == 24
