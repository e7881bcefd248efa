"""Trials in their database: drawn once, repeatable, resumed where they were stopped, and never of something else."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import cheap_trials
from bench.cheap_trials import Cheap, measured
from edgeopt.errors import ConfigError, ModelError, UnavailableError
from edgeopt.front import exact
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.recipe import Recipe, from_values, to_values
from edgeopt.search import sampling
from edgeopt.search.choosing import chosen, is_constant, unknown
from edgeopt.search.expecting import Expecting, dominated
from edgeopt.search.hands import Ended
from edgeopt.search.sampling import SAMPLERS, chosen_sampler
from edgeopt.search.settings import SearchSettings as Settings
from edgeopt.search.settings import checked
from edgeopt.search.study import Outcome, Study
from edgeopt.search.tuning import Leader, first_trials
from edgeopt.vocabulary import Budgets


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def led(study: Study, hands: Cheap | None = None, **settings: Any) -> str:
    search = cheap_trials.search(**settings)
    return Leader(search, study, search.space(cheap_trials.DATA), time.monotonic()).lead(hands or Cheap())


def recipes(study: Study, *states: str) -> list[Any]:
    return [trial.recipe for trial in study.trials if trial.outcome.state in (states or ("done",))]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_makes_as_many_different_trials_as_are_asked_for(url: str, sampler: str) -> None:
    study, hands = cheap_trials.study(url), Cheap()
    assert led(study, hands, trials=12, sampler=sampler) == "trials"
    found = recipes(study)
    assert len(found) == hands.given == study.tried == 12
    assert all(found.count(recipe) == 1 for recipe in found)
    assert hands.closed


def test_one_seed_is_one_search_and_another_seed_another(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        study = cheap_trials.study(f"sqlite:///{tmp_path / str(number)}.db")
        led(study, trials=12, seed=seed)
        found.append(recipes(study))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_search_that_was_stopped_goes_on_as_it_would_have_gone(tmp_path: Path) -> None:
    whole = cheap_trials.study(f"sqlite:///{tmp_path / 'whole.db'}")
    led(whole, trials=13)
    address = f"sqlite:///{tmp_path / 'parts.db'}"
    for trials in (4, 11, 13):
        hands = Cheap()
        study = cheap_trials.study(address)
        led(study, hands, trials=trials)
    assert hands.given == 2
    assert recipes(study) == recipes(whole)


def test_trials_of_a_killed_process_are_begun_anew_at_once(url: str) -> None:
    search = cheap_trials.search()
    space = search.space(cheap_trials.DATA)
    study = cheap_trials.study(url)
    drawn = [study.draw(space, "random", 0) for _ in range(2)]  # and nothing more is heard of them
    again = cheap_trials.study(url)
    found = [again.draw(space, "random", 0) for _ in range(2)]
    assert {one.key for one in drawn if one} == {one.key for one in found if one}


def test_a_search_that_was_killed_in_a_trial_goes_on_as_it_would_have_gone(tmp_path: Path) -> None:
    whole = cheap_trials.study(f"sqlite:///{tmp_path / 'whole.db'}")
    led(whole, trials=18)
    address = f"sqlite:///{tmp_path / 'parts.db'}"
    space = cheap_trials.search().space(cheap_trials.DATA)
    for trials in (5, 12):
        study = cheap_trials.study(address)
        led(study, trials=trials)
        assert study.draw(space, "expected", 0) is not None  # and nothing more is heard of it
    parts = cheap_trials.study(address)
    led(parts, trials=18)
    assert recipes(parts) == recipes(whole)


@pytest.mark.parametrize("sampler", ["expected", "near", "tpe", "nsga2"])
def test_one_more_trial_is_as_much_work_after_many_as_after_few(
    url: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SHOWN", 8)
    sqlalchemy = pytest.importorskip("sqlalchemy")
    study, spent = cheap_trials.study(url), []
    work = Counter[str]()
    early, late, window = 35, 85, 15

    def outcome(hand: int, recipe: Recipe) -> Ended:
        spent.append(Counter(work))
        # Counting calls takes several times what they do.
        counted = any(few - 1 <= len(spent) < few + window for few in (early, late))
        sys.setprofile(called if counted else None)
        return Ended(hand, measured(recipe))

    def called(frame: Any, event: str, argument: Any) -> None:
        work["calls"] += event in ("call", "c_call")

    def asked(*_: Any) -> None:
        work["statements"] += 1

    sqlalchemy.event.listen(study._storage.engine, "before_cursor_execute", asked)
    try:
        space = {"schemes": ["int8", "int4"], "steps": [{"prune": {"sparsity": {"from": 0.001, "to": 0.95}}}]}
        led(study, Cheap(outcome=outcome), trials=100, sampler=sampler, recipe=space)
    finally:
        sys.setprofile(None)

    def of_one(first: int, kind: str) -> float:
        return statistics.median(b[kind] - a[kind] for a, b in itertools.pairwise(spent[first : first + window]))

    assert of_one(late, "statements") == of_one(early, "statements")
    assert 0 < of_one(late, "calls") < 1.05 * of_one(early, "calls")


def test_a_sampler_is_shown_the_best_and_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHOWN", 3)
    optuna = pytest.importorskip("optuna")
    shown = sampling.Sampling(optuna, 2)
    # The first of them beat all later ones, but one that breaks a budget.
    good = [(0.0, 4.0), (1.0, 3.9), (2.0, 2.0), (4.0, 0.0)]
    for values in [*good, *((9.0 + i, 9.0) for i in range(8))]:
        shown.ended(optuna.create_trial(values=values))
    shown.ended(optuna.create_trial(values=(-1.0, -1.0), constraints={"size": 1.0}))
    space = cheap_trials.search().space(cheap_trials.DATA)
    assert shown.draw(space, "random", 0).recipe is not None
    # (1.0, 3.9) lies nearest to its neighbours.
    left = [tuple(trial.values) for trial in shown._study.get_trials() if trial.values]
    assert left == [(0.0, 4.0), (2.0, 2.0), (4.0, 0.0), (15.0, 9.0), (16.0, 9.0), (-1.0, -1.0)]


def test_two_leaders_of_one_study_try_different_recipes_and_learn_of_each_other(url: str) -> None:
    space = cheap_trials.search().space(cheap_trials.DATA)
    leaders = [cheap_trials.study(url, folder=folder) for folder in ("here", "there")]
    found = []
    for _ in range(4):
        for study in leaders:
            drawn = study.draw(space, "random", 0)
            assert drawn is not None
            found.append(drawn.key)
            study.done(drawn, Outcome("done", "", measured(drawn.recipe)), {})
    assert len(set(found)) == len(found)
    assert all(len(study.trials) >= 6 for study in leaders)


def test_a_trial_that_another_leader_took_over_ends_without_a_word(url: str) -> None:
    space = cheap_trials.search().space(cheap_trials.DATA)
    study = cheap_trials.study(url)
    drawn = study.draw(space, "random", 0)
    assert drawn is not None
    study._storage.set_trial_state_values(drawn.row, pytest.importorskip("optuna").trial.TrialState.FAIL)
    study.done(drawn, Outcome("done", "", measured(drawn.recipe)), {})
    assert study.tried == 1


def test_trials_of_another_folder_are_left_to_their_leader(url: str) -> None:
    space = cheap_trials.search().space(cheap_trials.DATA)
    ours = cheap_trials.study(url, folder="here").draw(space, "random", 0)
    theirs = cheap_trials.study(url, folder="there").draw(space, "random", 0)
    assert ours is not None
    assert theirs is not None
    assert ours.key != theirs.key


def test_a_lost_trial_is_begun_anew_once_and_then_has_failed(url: str) -> None:
    seen: list[Any] = []

    def outcome(hand: int, recipe: Recipe) -> Ended:
        seen.append(to_values(recipe))
        return Ended(hand, lost="killed (out of memory?)") if len(seen) in (2, 3) else Ended(hand, measured(recipe))

    study = cheap_trials.study(url)
    led(study, Cheap(outcome=outcome), trials=4)
    assert seen[1] == seen[2]
    states = [trial.outcome.state for trial in study.trials if trial.outcome.state != "again"]
    assert states == ["done", "lost", "failed", "done", "done"]
    failed = next(trial for trial in study.trials if trial.outcome.state == "failed")
    assert failed.outcome.words == "whoever ran it died twice: killed (out of memory?)"


def test_trials_that_all_fail_end_the_search(url: str) -> None:
    hands = Cheap(outcome=lambda hand, recipe: Ended(hand, failed="Expected labels, got none."))
    with pytest.raises(ModelError, match=r"Not one of the first 5 trials could be made\. Expected labels, got none\."):
        led(cheap_trials.study(url), hands, trials=20)
    assert hands.closed


def test_a_space_that_was_tried_out_ends_the_search(url: str) -> None:
    study = cheap_trials.study(url)
    space = {"schemes": ["float16", "int8"], "steps": [["none", {"prune": {"sparsity": 0.5}}]]}
    assert led(study, trials=50, recipe=space) == "space"
    assert study.tried == 4


def test_time_ends_the_search_and_what_is_running_goes_on_later(url: str) -> None:
    class Slow(Cheap):
        def take(self, timeout_s: float) -> Ended | None:
            time.sleep(0.02)
            return None

    study = cheap_trials.study(url)
    assert led(study, Slow(2), time_s=0.2) == "time"
    assert study.tried == 0
    again = cheap_trials.study(url)
    led(again, trials=2)
    assert len(recipes(again)) == 2


def test_an_interruption_ends_it_well(url: str) -> None:
    def outcome(hand: int, recipe: Recipe) -> Ended:
        if hands.given == 4:
            raise KeyboardInterrupt
        return Ended(hand, measured(recipe))

    hands = Cheap(outcome=outcome)
    study = cheap_trials.study(url)
    assert led(study, hands, trials=9) == "interrupted"
    assert hands.closed
    assert study.tried == 3
    assert led(cheap_trials.study(url), trials=9) == "trials"


@pytest.mark.parametrize("changed", ["model", "data"])
def test_a_study_of_another_model_or_other_data_is_refused(url: str, changed: str) -> None:
    led(cheap_trials.study(url), trials=2)
    with pytest.raises(
        ConfigError, match=f"to be of the same {changed}, got one of another: .*Try another -o, or study"
    ):
        cheap_trials.study(url, **{changed: "changed"})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("sqlite:////no/such/folder/study.db", "cannot be used: unable to open database file. Nothing .* is lost"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"postgresql://me:\*\*\*@127.0.0.1:1/x cannot be used"),
        ("nonsense", "cannot be used: .*parse"),
    ],
)
def test_a_database_that_is_not_to_be_reached_is_said_in_a_line(address: str, words: str) -> None:
    with pytest.raises(UnavailableError, match=words) as caught:
        cheap_trials.study(address)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_that_vanishes_in_the_middle_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    file = tmp_path / "study.db"

    def outcome(hand: int, recipe: Recipe) -> Ended:
        if hands.given == 4:
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("DROP TABLE trial_user_attributes")
        return Ended(hand, measured(recipe))

    hands = Cheap(outcome=outcome)
    with pytest.raises(UnavailableError, match=r"cannot be used: .*the same command goes on when it is there"):
        led(cheap_trials.study(f"sqlite:///{file}"), hands, trials=9)
    assert hands.closed


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Thirty trials that are done."""
    study = cheap_trials.study(f"sqlite:///{tmp_path_factory.mktemp('study') / 'study.db'}")
    led(study, trials=30)
    return study


def test_the_front_keeps_the_budgets_and_holds_what_no_other_beats(thirty: Study) -> None:
    choice = chosen(thirty.trials, ("quality", "size"), Budgets(max_drop=2.0))
    assert choice.kept
    costs = [trial.outcome.measured.costs for trial in choice.front]  # type: ignore[union-attr]
    assert all(cost["quality"].value <= 2.0 for cost in costs)
    assert [cost["size"].value for cost in costs] == sorted(cost["size"].value for cost in costs)
    for cost in costs:
        smaller = [other for other in costs if other["size"].value < cost["size"].value]
        assert all(other["quality"].value > cost["quality"].value for other in smaller)


def test_a_cost_that_is_not_known_counts_as_the_worst(url: str) -> None:
    """No source tells the latency of weights of four bits on that device: the file may still be the smallest."""
    study = cheap_trials.study(url, objectives=("quality", "size", "latency"))

    def outcome(hand: int, recipe: Recipe) -> Ended:
        found = measured(recipe)
        known = {} if "int4" in recipe.schemes else {"latency": exact(5.0)}
        return Ended(hand, replace(found, costs={**found.costs, **known}))

    led(study, Cheap(outcome=outcome), trials=12, objectives=("quality", "size", "latency"))
    assert study.states["failed"] == 0
    front = chosen(study.trials, study.objectives, Budgets()).front
    assert {"int4", "int8"} <= {trial.recipe["schemes"][0] for trial in front}
    slow = sum("int4" in trial.recipe["schemes"] for trial in study.trials if trial.outcome.state == "done")
    assert unknown(study.trials, study.objectives) == {"latency": slow}
    kept = chosen(study.trials, study.objectives, Budgets(max_latency_ms=6.0)).front
    assert "int4" not in {trial.recipe["schemes"][0] for trial in kept}


def test_budgets_that_contradict_each_other_are_told_by_what_was_measured(thirty: Study) -> None:
    choice = chosen(thirty.trials, ("quality", "size"), Budgets(max_drop=0.1, max_size_bytes=30_000))
    assert not choice.kept
    assert choice.front
    assert choice.obstacle.startswith("of 30 files ")
    assert choice.obstacle.endswith("keep max_size, and none keeps all: they contradict each other here")
    none = chosen(thirty.trials, ("quality", "size"), Budgets(max_size_bytes=10))
    assert none.obstacle == "of 30 files none keeps max_size"


def test_recipes_of_one_file_are_one_point_of_the_fewest_steps(url: str) -> None:
    study = cheap_trials.study(url)

    def outcome(hand: int, recipe: Recipe) -> Ended:
        return Ended(hand, measured(Recipe(schemes=recipe.schemes)))  # its steps change nothing

    led(study, Cheap(outcome=outcome), trials=10, sampler="near")
    front = chosen(study.trials, ("quality", "size"), Budgets()).front
    assert [trial.recipe["schemes"] for trial in front] == [["int4"], ["int8"], ["float16"]]
    assert all(not trial.recipe.get("steps") for trial in front)


def test_a_constant_metric_is_seen(url: str) -> None:
    study = cheap_trials.study(url)
    metric = measured(from_values({"schemes": ["int8"]})).metric
    led(study, Cheap(outcome=lambda hand, recipe: Ended(hand, replace(measured(recipe), metric=metric))), trials=6)
    assert is_constant(study.trials)
    assert not is_constant(study.trials[:2])


def test_few_trials_go_by_what_is_foretold_more_by_a_model_of_the_space_and_many_by_generations() -> None:
    both, timed = ("size", "quality"), ("quality", "size", "latency")
    assert chosen_sampler(None, 40, both) == chosen_sampler(None, None, both) == "expected"
    assert chosen_sampler(None, 40, timed) == "near"
    assert chosen_sampler(None, 100, both) == "tpe"
    assert chosen_sampler(None, 1000, both) == "nsga2"
    assert chosen_sampler("random", 1000, timed) == "random"


SIZES = {"schemes": ["int8"], "steps": [["none", {"mixed": {"size": ["50%", "60%", "70%", "80%", "90%"]}}]]}


def mixed(size: str, values: tuple[float, float] | None) -> Any:
    """Returns a trial of a file of that size, with its bytes and loss, None where it failed."""
    return SimpleNamespace(params={"steps[0]": "mixed", "steps[0].mixed.size": size}, values=values)


def promising(*trials: Any, tried: Sequence[str] = (), **limits: int) -> Any:
    """Returns the size of the recipe that promises most."""
    facts = ModelFacts("", "", 400_000, 100_000, 2, 0.0, (WeightFacts("dense", 90_000, 90_000, 90_000, 10),), {})
    space = cheap_trials.search(recipe=SIZES).space(replace(cheap_trials.DATA, facts=facts))

    def is_known(recipe: Recipe) -> bool:
        return not recipe.steps or str(getattr(recipe.steps[0], "size", "")) in tried

    best = [trial for trial in trials if trial.values is not None]
    expecting = Expecting(space, ("size", "quality"), Budgets(**limits), 0)
    found = expecting.params(trials, best, random.Random(0), is_known)
    return None if found is None else found["steps[0].mixed.size"]


def test_what_promises_most_is_smaller_as_long_as_like_recipes_lose_little_and_do_not_fail() -> None:
    large, fair = mixed("90%", (90_000, 0.1)), mixed("70%", (70_000, 0.1))
    assert promising(large, tried=["90%"]) == "50%"
    # What failed fails when it is to be smaller still, and what is next to it may.
    assert promising(large, mixed("60%", None), tried=["90%", "60%"]) in ("70%", "80%")
    # Below what loses everything there is nothing to be had, and beyond a budget nothing counts.
    collapsed = mixed("60%", (60_000, 40.0))
    assert promising(large, collapsed, tried=["90%", "60%"]) in ("70%", "80%")
    assert promising(fair, mixed("50%", (50_000, 0.1)), tried=["70%", "50%"]) == "60%"
    assert promising(large, max_size_bytes=65_000, tried=["90%"]) in ("50%", "60%")
    assert promising(mixed("70%", None)) is None
    assert promising(large, tried=["50%", "60%", "70%", "80%", "90%"]) is None


def test_the_area_that_a_front_dominates() -> None:
    worst = (10.0, 4.0)
    assert dominated([(5.0, 1.0), (2.0, 3.0), (6.0, 2.0)], worst) == (10 - 2) * (4 - 3) + (10 - 5) * (3 - 1)
    assert dominated([(5.0, -1.0)], worst) == (10 - 5) * 4
    assert dominated([(11.0, 0.0), (1.0, 5.0)], worst) == 0


def test_the_first_trials_lie_evenly_in_the_space() -> None:
    values = {"schemes": ["int8", "int4"], "steps": [["none", {"mixed": {"size": ["60%", "70%", "80%", "90%"]}}]]}
    space = cheap_trials.search(recipe=values).space(cheap_trials.DATA)
    evenly = sampling.spread(space, 8, 0, share=0.75, besides=2)
    # Three quarters of eight, two of them the plain schemes: every other one of what is left.
    assert len(evenly) == 6 - 2
    sizes = {
        name: {one["steps[0].mixed.size"] for one in evenly if one["schemes"] == name} for name in ("int8", "int4")
    }
    assert all(found in ({"60%", "80%"}, {"70%", "90%"}) for found in sizes.values())
    assert sampling.spread(space, 8, 0, share=0.75, besides=2) == evenly
    assert sampling.spread(space, 2, 0, share=0.75, besides=2) == []
    # Of few trials the plain schemes are a part of the grid, of more they come first.
    few, more = (
        first_trials(cheap_trials.search(recipe=values, trials=trials, sampler="near"), space) for trials in (4, 20)
    )
    assert len(few) == 3
    assert [one.get("steps[0]") for one in more[:2]] == ["none", "none"]
    assert "none" not in [one.get("steps[0]") for one in more[2:]]
    ranged = cheap_trials.search().space(cheap_trials.DATA)
    drawn = sorted(one["steps[0].prune.sparsity"] for one in sampling.spread(ranged, 40, 1, share=0.75, besides=3))
    assert len(drawn) == 30 - 3
    for low in (0.1, 0.4, 0.7):
        assert any(low < value < low + 0.25 for value in drawn)


def test_a_neighbour_differs_in_one_thing_and_lies_beside_it() -> None:
    values = {"schemes": ["int8"], "steps": [{"round": {"samples": [32, 64, 128, 200], "method": ["gptq", "nearest"]}}]}
    space = cheap_trials.search(recipe=values).space(cheap_trials.DATA)
    best = {"steps[0].round.samples": 64, "steps[0].round.method": "gptq"}
    generator, found = random.Random(0), set()
    for _ in range(50):
        drawn = sampling.near(space, [SimpleNamespace(params=best)], generator, lambda recipe: False)
        assert drawn is not None
        found.add(tuple(drawn[name] for name in best))
    assert found == {(32, "gptq"), (128, "gptq"), (64, "nearest")}
    assert sampling.near(space, [SimpleNamespace(params=best)], generator, lambda recipe: True) is None
    assert sampling.near(space, [], generator, lambda recipe: False) is None
    ranged = cheap_trials.search(recipe=cheap_trials.WIDE).space(cheap_trials.DATA)
    params = {"schemes": "int8", "training.learning_rate": 1e-3, "steps[0]": "prune", "steps[0].prune.sparsity": 0.5}
    for _ in range(50):
        drawn = sampling.near(ranged, [SimpleNamespace(params=params)], generator, lambda recipe: False)
        assert drawn is not None
        changed = {name for name in params if drawn.get(name) != params[name]}
        assert len(changed) == 1 or changed == {"steps[0]", "steps[0].prune.sparsity"}
        if changed == {"steps[0].prune.sparsity"}:
            assert 0 < abs(drawn["steps[0].prune.sparsity"] - 0.5) <= 0.25 * (0.95 - 0.1) + 0.001
        if changed == {"training.learning_rate"}:
            assert 1e-4 <= drawn["training.learning_rate"] <= 1e-2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trials": 0}, "Expected at least 1 as trials, got 0"),
        ({"workers": 0}, "Expected at least 1 as workers, got 0"),
        ({"time_s": 0.0}, "Expected more than 0 s as time, got 0"),
        ({"pruner": "hope"}, "Expected a pruner, got 'hope'"),
        ({"sampler": "tpa"}, "Expected a sampler, got 'tpa'.*'tpe'"),
        (
            {"sampler": "expected", "objectives": ("quality", "latency")},
            "Expected quality and size as what is sought with sampler: expected.*got quality, latency",
        ),
        ({"objectives": ("quality", "speed")}, "Expected an objective, got 'speed'"),
        ({"objectives": ("quality",)}, "Expected at least two different objectives, got quality"),
        ({"objectives": ("quality", "ram")}, "Expected a target where RAM counts, got none"),
        ({"budgets": Budgets(max_ram_bytes=1000)}, "Expected a target where RAM counts, got none"),
        ({"budgets": Budgets(max_drop=-1.0)}, "Expected a max_drop that some model keeps, got -1"),
        ({"budgets": Budgets(max_size_bytes=0)}, "Expected a max_size that some model keeps, got 0"),
        ({"metric": "toppest"}, "Expected a metric, got 'toppest'"),
        ({"recipe": "no-such-recipe"}, "Expected a packaged recipe or a recipe file, got 'no-such-recipe'"),
        ({"target": "cortex-m99"}, "cortex-m99"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checked(Settings(**settings))


def test_a_recipes_budgets_hold_where_none_are_said() -> None:
    said = {"budgets": {"max_drop": 1.0, "max_size": "64KB"}, "steps": ["qat"], "seed": 7}
    search = checked(Settings(recipe=said, budgets=Budgets(max_drop=2.0)))
    assert search.budgets == Budgets(max_drop=2.0, max_size_bytes=64_000)
    # A budget that changes makes no other trial of the same recipe.
    assert search.base.budgets == Budgets()
    assert search.base.seed == 7
