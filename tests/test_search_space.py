"""Spaces of recipes: what lists and ranges mean, and that nothing is drawn that the plan refuses."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgeopt.advice import of_scheme
from edgeopt.choices import Range, keys
from edgeopt.errors import ConfigError
from edgeopt.plan import plan
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.recipe import Recipe, from_values, to_values
from edgeopt.schemes import scheme
from edgeopt.search.space import ImpossibleError, Known, Parameter, Space, everything, space_from
from edgeopt.techniques import TECHNIQUES

DATA = Known(has_labels=True, has_training=True, has_calibration=True)


def drawing(seed: int) -> Callable[[Parameter], Any]:
    generator = random.Random(seed)

    def pick(parameter: Parameter) -> Any:
        if parameter.range is None:
            return generator.choice(parameter.values)
        return parameter.near(generator.uniform(parameter.range.low, parameter.range.high))

    return pick


def drawn(space: Space, count: int = 60) -> list[Recipe]:
    found = []
    for seed in range(count):
        try:
            found.append(space.recipe(drawing(seed)))
        except ImpossibleError:
            continue
    return found


def test_a_list_is_one_of_its_items_and_a_range_a_number_between() -> None:
    space = space_from(
        {
            "schemes": ["int8", "dynamic"],
            "training": {"epochs": [1, 2], "learning_rate": {"from": 1e-4, "to": 1e-2, "log": True}},
            "steps": [["none", {"prune": {"sparsity": {"from": 0.5, "to": 0.75}}}], {"cluster": {"clusters": [8, 32]}}],
        },
        DATA,
    )
    found = drawn(space)
    assert {recipe.schemes for recipe in found} == {("int8",), ("dynamic",)}
    assert {recipe.training.epochs for recipe in found} == {1, 2}
    assert all(1e-4 <= (recipe.training.learning_rate or 0) <= 1e-2 for recipe in found)
    assert {recipe.steps[-1].clusters for recipe in found} == {8, 32}  # type: ignore[attr-defined]
    pruned = [recipe.steps[0] for recipe in found if len(recipe.steps) == 2]
    assert 0 < len(pruned) < len(found)
    assert all(0.5 <= step.sparsity <= 0.75 for step in pruned)  # type: ignore[attr-defined]
    assert len({step.sparsity for step in pruned}) > 5  # type: ignore[attr-defined]


def test_numbers_are_short_enough_for_a_recipe() -> None:
    parameter = Parameter("x", range=Range(0.3, 0.9))
    assert parameter.near(0.456789) == 0.457
    assert parameter.near(0.89999) == 0.9
    assert Parameter("n", range=Range(4, 64), whole=True).near(7.6) == 8


def test_what_is_said_is_held_and_what_is_not_is_searched() -> None:
    held = space_from({"steps": [{"prune": {"sparsity": 0.5}}, {"shrink": {"width": 0.5}}]})
    assert [parameter.name for parameter in held.parameters] == ["schemes", "steps[0]", "steps[1]"]
    free = space_from({"schemes": ["int8"], "steps": ["prune"]})
    assert [parameter.name for parameter in free.parameters][-1] == "steps[0].prune.sparsity"


def test_a_setting_that_is_a_list_itself_is_held_and_lists_of_it_are_drawn_from() -> None:
    held = space_from({"steps": [{"prune": {"spare": ["Dense"], "sparsity": 0.5}}]})
    assert held.places[0].alternatives[0].said["spare"] == ("Dense",)
    several = space_from({"steps": [{"prune": {"spare": [["Dense"], []], "sparsity": 0.5}}]})
    assert several.places[0].alternatives[0].drawn["spare"].values == (("Dense",), ())


def test_everything_that_is_drawn_is_taken_by_the_plan_and_helps() -> None:
    space = everything(Recipe(), DATA)
    found = drawn(space)
    assert len(found) > 30
    for recipe in found:
        plan(recipe, has_labels=True, has_training=True, has_calibration=True)
        assert space.refused(recipe) == ""
    used = {step.technique for recipe in found for step in recipe.steps}
    # One scale a layer is what equalizing helps, and no scheme that is tried has one.
    assert used == TECHNIQUES.keys() - {"equalize"}
    assert all(sum(TECHNIQUES[s.technique].acts_on == "file" for s in recipe.steps) <= 1 for recipe in found)


def test_without_training_samples_nothing_that_trains_is_drawn() -> None:
    space = everything(Recipe(), Known(has_labels=True, has_training=False, has_calibration=True))
    used = {step.technique for recipe in drawn(space) for step in recipe.steps}
    assert used
    assert not used & {"prune", "cluster", "qat", "distill"}


def test_a_model_without_layers_has_files_repaired_alone() -> None:
    space = everything(Recipe(), Known(untrainable="there are no layers", has_training=True, has_calibration=True))
    used = {step.technique for recipe in drawn(space) for step in recipe.steps}
    assert used
    assert all(TECHNIQUES[name].acts_on == "file" for name in used)


def test_values_follow_from_the_scheme() -> None:
    space = space_from({"schemes": ["int8", "int4"], "steps": ["qat"]}, DATA)
    bits = {recipe.schemes: recipe.steps[0].weight_bits for recipe in drawn(space)}  # type: ignore[attr-defined]
    assert bits[("int8",)] == 8
    assert bits[("int4",)] <= 4


def test_a_setting_counts_only_with_another() -> None:
    space = space_from({"schemes": ["int8"], "steps": ["calibrate"]}, DATA)
    found = [recipe.steps[0].said() for recipe in drawn(space)]
    assert any("percentile" in said for said in found)
    assert all(said["activations"] == "percentile" for said in found if "percentile" in said)


def test_what_cannot_combine_is_refused_in_the_plans_words() -> None:
    space = space_from({"schemes": ["int8"], "steps": [["none", "qat"], {"prune": {"sparsity": 0.5}}]}, DATA)
    with pytest.raises(ImpossibleError, match="nothing may follow qat"):
        space.recipe(lambda parameter: parameter.values[-1])
    assert drawn(space)


def test_a_space_with_nothing_valid_in_it_says_why() -> None:
    with pytest.raises(ConfigError, match=r"something valid in it, got none: .*nothing may follow qat"):
        space_from({"schemes": ["int8"], "steps": ["qat", "prune"]}, DATA).first()
    with pytest.raises(ConfigError, match=r"got none: .*Expected schemes that mixed is for"):
        space_from({"schemes": ["float16", "dynamic"], "steps": ["mixed"]}, DATA).first()
    assert space_from({"schemes": ["float16", "int8"], "steps": ["mixed"]}, DATA).first().schemes == ("int8",)


def test_each_scheme_alone_comes_first_where_steps_may_be_left_out() -> None:
    space = space_from({"schemes": ["int8", "dynamic"], "steps": [["none", "qat"]]})
    assert [one["schemes"] for one in space.plain()] == ["int8", "dynamic"]
    assert space_from({"schemes": ["int8"], "steps": ["qat"]}).plain() == ()


def test_a_recipe_is_a_space_of_its_values() -> None:
    recipe = Recipe(schemes=("int8",), seed=3)
    space = space_from(to_values(recipe))
    assert space.recipe(drawing(0)) == recipe


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": [[]]}, r"At steps\[0\]: Expected techniques, got an empty list"),
        ({"steps": "qat"}, "Expected a list at steps"),
        ({"steps": [{"prune": {"sparsity": []}}]}, r"At steps\[0\].prune: Expected values to try for sparsity"),
        ({"steps": [{"prune": {"sparsity": {"from": 0.9, "to": 0.3}}}]}, "Expected a range upwards"),
        ({"steps": [{"prune": {"sparsity": {"from": 0.3}}}]}, "Expected from and to, and log or not, for sparsity"),
        ({"steps": [{"prune": {"sparsity": {"from": 0.3, "to": 1.5}}}]}, "less than 1 as sparsity, got 1.5"),
        ({"steps": [{"prune": {"schedule": {"from": 1, "to": 2}}}]}, "Expected a list of values for schedule"),
        ({"steps": [{"prune": {"sparsty": [0.5, 0.6]}}]}, "Unknown key 'sparsty'.*'sparsity'"),
        ({"steps": [{"prune": [0.5]}]}, "Expected keys and values at steps"),
        ({"steps": [["prune", {"prune": {"sparsity": 0.5}}]]}, "Expected each technique once, got prune, prune"),
        ({"steps": ["prun"]}, "Expected a technique, got 'prun'"),
        ({"steps": [{"prune": None, "qat": None}]}, r"Expected one technique at steps\[0\]"),
        ({"steps": [{"shrink": {"macs": 0.5, "width": 0.5}}]}, r"At steps\[0\].shrink: Expected one of macs"),
        ({"training": {"epochs": [0, 1]}}, "At training: Expected at least 1 .*as epochs, got 0"),
        ("schemes", "Expected keys and values in a recipe"),
    ],
)
def test_what_cannot_be_read_is_said(values: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        space_from(values)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_a_technique_tries_is_among_what_it_takes(name: str) -> None:
    for key in keys(TECHNIQUES[name].step):
        tried, option = key.option.tried, key.option
        values = (tried.low, tried.high) if isinstance(tried, Range) else tried
        for value in values:
            assert not option.choices or value in option.choices
            assert option.low is None or value >= option.low
            assert option.high is None or value <= option.high
        if option.only_with is not None:
            other, wanted = option.only_with
            assert any(
                k.name == other and wanted in (None, k.default, *k.option.tried) for k in keys(TECHNIQUES[name].step)
            )


def test_a_scheme_that_the_target_refuses_is_never_drawn() -> None:
    space = space_from({"schemes": ["float16", "int8", "dynamic"], "target": "cortex-m4"}, DATA)
    assert {recipe.schemes for recipe in drawn(space)} == {("int8",)}
    with pytest.raises(ImpossibleError, match="that cortex-m4 can run, got float16: TFLM's DEQUANTIZE"):
        space.recipe(lambda parameter: "float16")
    with pytest.raises(
        ConfigError, match=r"Expected a space with something valid in it, got none: .*can run, got dynamic"
    ):
        space_from({"schemes": ["dynamic"], "steps": ["correct-bias"], "target": "cortex-m4"}, DATA).first()


def test_bytes_are_foretold_by_the_scheme_and_what_steps_leave() -> None:
    facts = ModelFacts("", "", 400_000, 100_000, 2, 0.0, (WeightFacts("dense", 90_000, 90_000, 90_000, 10),), {})
    space = replace(space_from({"schemes": ["int8"]}), known=Known(facts))
    plain = space.foretold_bytes(from_values({"schemes": ["int8"]}))
    assert plain == of_scheme(scheme("int8"), facts).size_bytes

    def of(size: str) -> float | None:
        return space.foretold_bytes(from_values({"schemes": ["int8"], "steps": [{"mixed": {"size": size}}]}))

    assert of("60%") == pytest.approx(0.6 * plain)
    assert of("48KB") == 48_000
    assert of("900KB") == plain
    assert replace(space, known=Known()).foretold_bytes(from_values({"schemes": ["int8"]})) is None
