"""The plan: orders that work are planned with the form of each step, and those that do not are refused in words."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.errors import ConfigError, DataError
from edgeopt.plan import Plan, plan
from edgeopt.prospects import ModelFacts, WeightFacts
from edgeopt.recipe import Recipe, packaged, steps_from
from edgeopt.schemes import SCHEMES
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques import TECHNIQUES, Need, Technique
from edgeopt.vocabulary import Budgets, Property

# What a technique cannot do without.
SETTINGS: dict[str, Mapping[str, Any]] = {"distill": {"width": 0.5}, "shrink": {"macs": 0.5}}
SPARSE, CLUSTERED, FAKE_QUANTIZED = Property.SPARSE, Property.CLUSTERED, Property.FAKE_QUANTIZED
ROWS = list(TECHNIQUES.values())
TRAINED = [row for row in ROWS if Need.TRAINING in row.needs]


def recipe_of(*steps: Any, **fields: Any) -> Recipe:
    """A recipe of technique names and steps as recipes spell them."""
    spelled = [{step: dict(SETTINGS.get(step, {}))} if isinstance(step, str) else step for step in steps]
    return Recipe(steps=steps_from(spelled), **fields)


def advised(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    """The order that a message names."""
    found = re.search(r"Try the order: ([a-z, -]+)\.$", str(error.value))
    assert found is not None, error.value
    return found[1].split(", ")


# --- contracts: every technique and property -------------------------------------------------------------------------


@pytest.mark.parametrize("prop", Property)
@pytest.mark.parametrize("row", ROWS, ids=TECHNIQUES)
def test_what_a_model_brings_is_kept_or_the_step_is_refused(row: Technique, prop: Property) -> None:
    recipe = recipe_of(row.name)
    if prop in row.keeps:
        (step,) = plan(recipe, properties=frozenset({prop})).steps
        assert step.properties_before == {prop}
        assert step.properties_after == {prop} | row.ensures
    else:
        message = f"got {row.name} .*the model is {prop.value} already.*{row.name} would destroy|{row.name} makes other"
        with pytest.raises(ConfigError, match=message):
            plan(recipe, properties=frozenset({prop}))


@pytest.mark.parametrize(("first", "second"), itertools.product(ROWS, ROWS), ids=lambda row: row.name)
def test_what_a_step_gave_is_kept_or_the_next_is_refused(first: Technique, second: Technique) -> None:
    recipe = recipe_of(first.name, second.name)
    if first.ensures <= second.keeps and (first.acts_on, second.acts_on) != ("file", "model"):
        planned = plan(recipe).steps
        assert [step.technique for step in planned] == [first.name, second.name]
        assert planned[0].properties_after == planned[1].properties_before == first.ensures
        assert planned[1].properties_after == first.ensures | second.ensures
        return
    with pytest.raises(ConfigError, match=re.escape(f"{second.name} (steps[1])") + "|once, got it at") as error:
        plan(recipe)
    assert plan(recipe_of(*advised(error)))


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(TECHNIQUES)), max_size=6))
def test_an_order_is_planned_as_it_is_or_the_one_advised_works(names: list[str]) -> None:
    try:
        made = plan(recipe_of(*names))
    except ConfigError as error:
        order = re.search(r"Try the order: ([a-z, -]+)\.$", str(error))
        assert order is not None
        better = order[1].split(", ")
        assert set(better) == set(names)
        assert len(plan(recipe_of(*better)).steps) == len(better)
        return
    assert [step.technique for step in made.steps] == names


@pytest.mark.parametrize("row", ROWS, ids=TECHNIQUES)
def test_the_order_of_the_table_works(row: Technique) -> None:
    after = list(TECHNIQUES)[list(TECHNIQUES).index(row.name) :]
    assert [step.technique for step in plan(recipe_of(*after)).steps] == after


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "cluster qat shrink prune",
            "Expected shrink before qat, got shrink (steps[2]) after qat (steps[1]): nothing may follow qat, and "
            "shrink would destroy the simulated int8 that the weights were trained for. Try the order: shrink, prune, "
            "cluster, qat.",
        ),
        (
            "cluster prune",
            "Expected prune before cluster, got prune (steps[1]) after cluster (steps[0]): prune would destroy the "
            "shared values. Try the order: prune, cluster.",
        ),
        (
            "prune distill",
            "Expected distill before prune, got distill (steps[1]) after prune (steps[0]): distill makes other "
            "tensors, and the zeros in the old ones would be lost. Try the order: distill, prune.",
        ),
        (
            "qat qat",
            "Expected qat once, got it at steps[0] and steps[1]: nothing may follow qat, and qat would destroy the "
            "simulated int8 that the weights were trained for. Try the order: qat.",
        ),
    ],
)
def test_a_wrong_order_is_told_with_the_right_one(names: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plan(recipe_of(*names.split()))


def test_a_model_that_has_something_already() -> None:
    message = (
        "Expected steps that keep what the model has, got shrink (steps[1]): the model is sparse already, and shrink "
        "makes other tensors, and the zeros in the old ones would be lost. Try the model before that was done to it, "
        "or leaving shrink out."
    )
    # Nor does another order help, which would be the advice for cluster's sake.
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plan(recipe_of("cluster", "shrink"), properties=frozenset({SPARSE}))


# --- variants and training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "properties", "variants"),
    [
        ("qat", (), [""]),
        ("prune qat", (), ["", "PQAT"]),
        ("cluster qat", (), ["", "CQAT"]),
        ("prune cluster qat", (), ["", "sparsity-preserving", "PCQAT"]),
        ("prune prune cluster cluster", (), ["", "", "sparsity-preserving", "sparsity-preserving"]),
        ("qat", (SPARSE,), ["PQAT"]),
        ("cluster qat", (SPARSE,), ["sparsity-preserving", "PCQAT"]),
        ("distill shrink", (), ["", ""]),
    ],
)
def test_the_form_that_keeps_what_is_there(names: str, properties: tuple[Property, ...], variants: list[str]) -> None:
    made = plan(recipe_of(*names.split()), properties=frozenset(properties))
    assert [step.variant for step in made.steps] == variants


def test_every_form_is_of_a_technique_that_keeps_so_much() -> None:
    forms = {(row.name, kept) for row in ROWS for kept in row.variants}
    for name, kept in forms:
        assert kept <= TECHNIQUES[name].keeps, name
    reachable = {
        (step.technique, step.properties_before)
        for names in ("prune prune cluster cluster qat", "prune qat", "cluster qat")
        for step in plan(recipe_of(*names.split())).steps
    }
    assert forms <= reachable


def test_steps_of_one_technique_have_names_of_their_own_also_in_what_is_left() -> None:
    recipe = recipe_of("prune", "prune", "cluster")
    assert [step.name for step in plan(recipe).steps] == ["prune", "prune-2", "cluster"]
    left = plan(recipe, start=1).steps
    assert [(step.name, step.properties_before) for step in left] == [("prune-2", frozenset()), ("cluster", {SPARSE})]
    # What an earlier step would have given is not there where it was rolled back; places stay those of the recipe.
    wrong = recipe_of("qat", {"prune": {"begin_epoch": 9, "epochs": 2}})
    with pytest.raises(ConfigError, match=r"At steps\[1\]\.prune: Expected .*begin_epoch: 9"):
        plan(wrong, start=1)


def test_a_loss_is_held_as_measured_where_the_step_or_the_recipe_says_so() -> None:
    def said(**recipe: Any) -> list[bool]:
        return [step.strict for step in plan(recipe_of("prune", {"qat": {"strict": True}}, **recipe)).steps]

    assert said() == [False, True]
    assert said(strict=True) == [True, True]


def test_training_is_filled_in() -> None:
    training = Training(epochs=3, batch_size=8)
    made = plan(recipe_of({"prune": {"epochs": 5}}, "qat", training=training))
    assert [(s.training.epochs, s.training.batch_size) for s in made.steps if s.training] == [(5, 8), (3, 8)]
    for step in made.steps:
        assert isinstance(step.step, TrainedStep)
        assert step.training == step.step.training(training)


def test_no_steps_is_a_plan() -> None:
    assert plan(Recipe(schemes=tuple(SCHEMES))) == Plan(())


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_training_needs_samples_and_labels(row: Technique) -> None:
    recipe = recipe_of(row.name)
    assert plan(recipe, has_labels=True, has_training=True).steps[0].needs[:2] == (Need.TRAINING, Need.LABELS)
    with pytest.raises(DataError, match=rf"Expected training samples for {row.name}, got none"):
        plan(recipe, has_training=False)
    with pytest.raises(DataError, match=rf"Expected labels for {row.name}, got samples without"):
        plan(recipe, has_labels=False)


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_a_teacher_with_all_the_weight_needs_no_labels(row: Technique) -> None:
    recipe = recipe_of(row.name, training=Training(alpha=1.0))
    assert Need.LABELS not in plan(recipe, has_labels=False).steps[0].needs
    with pytest.raises(DataError, match="Expected training samples"):
        plan(recipe, has_labels=False, has_training=False)


def test_nobody_to_learn_from() -> None:
    training = Training(alpha=1.0, teacher="none")
    with pytest.raises(ConfigError, match=r"^At steps\[0\]\.prune: Expected a teacher, got teacher none with alpha 1"):
        plan(recipe_of("prune", training=training))
    # A student learns from the model itself, whoever teaches recoveries.
    assert plan(recipe_of("distill", training=training), has_labels=False).steps[0].needs == (Need.TRAINING,)


def test_without_training_the_recipe_for_it_works() -> None:
    assert plan(packaged()["no-training-data"], has_labels=False, has_training=False).steps == ()


# --- settings of a step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prune", "training"),
    [({"end_epoch": 20, "epochs": 10}, {}), ({"end_epoch": 20}, {"epochs": 10}), ({"end_epoch": 10.5}, {})],
)
def test_a_schedule_ends_with_the_training(prune: dict[str, Any], training: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"At steps\[0\]\.prune: Expected .*epoch"):
        plan(recipe_of({"prune": prune}, training=Training(**training)))


@pytest.mark.parametrize("epochs", [20, 21])
def test_a_schedule_within_the_training(epochs: int) -> None:
    assert plan(recipe_of({"prune": {"end_epoch": 20}}, training=Training(epochs=epochs))).steps


def test_labels_count_in_a_recovery_as_much_as_the_teacher() -> None:
    """A model that was not trained to its end goes on learning from them; one that was does as well with them."""
    recoveries = [row.name for row in TRAINED if row.name != "distill"]
    trainings = {name: plan(recipe_of(name)).steps[0].training for name in recoveries}
    weights = {name: training.alpha for name, training in trainings.items() if training is not None}
    assert weights == dict.fromkeys(recoveries, 0.5)


def test_every_round_of_a_cut_can_recover() -> None:
    shrink = recipe_of({"shrink": {"macs": 0.5, "rounds": 20}})
    with pytest.raises(ConfigError, match=r"At steps\[0\]\.shrink: Expected at least one epoch for each of 20 rounds"):
        plan(shrink)
    assert plan(recipe_of({"shrink": {"macs": 0.5, "rounds": 20, "epochs": 0}}), has_calibration=True).steps


# --- schemes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_can_be_made_of_a_model_with_simulated_int8(scheme: str) -> None:
    for others in ((), ("int8",)):
        schemes = tuple(dict.fromkeys((*others, scheme)))
        if scheme in ("int8", "int8-float-io"):
            assert plan(recipe_of("qat", schemes=schemes)).notes == ()
        else:
            message = rf"Expected schemes that qat is for, int8 or int8-float-io, got {scheme}: its weights"
            with pytest.raises(ConfigError, match=message):
                plan(recipe_of("prune", "qat", schemes=schemes))
        assert plan(recipe_of("prune", schemes=schemes)).steps


def test_weights_of_four_bits_are_for_files_of_four_bits() -> None:
    narrow = {"qat": {"weight_bits": 4}}
    assert plan(recipe_of(narrow, schemes=("int4",))).notes == ()
    with pytest.raises(ConfigError, match=r"schemes that qat is for, int4, got int8: its weights were trained for"):
        plan(recipe_of(narrow, schemes=("int4", "int8")))


# --- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "fields", "notes"),
    [
        (["shrink", "qat"], {}, []),
        (
            ["prune"],
            {"schemes": ("int8", "dynamic")},
            [
                "zeros: the file is as large as without; what stores or sends it compressed gains",
                "zeros: no faster as int8, dynamic, since sparse kernels compute in float only",
            ],
        ),
        (
            ["prune"],
            {"schemes": ("float16",)},
            [
                "zeros: the file is as large as without; what stores or sends it compressed gains",
                "zeros: as float16, XNNPACK's sparse kernels take 1x1 convolutions with more than 2/3 zeros and "
                "nothing else",
            ],
        ),
        (
            [{"cluster": {"clusters": 255}}],
            {"budgets": Budgets(max_latency_ms=5.0)},
            [
                "shared values: the file is as large as without; what stores or sends it compressed gains",
                "max_latency: cluster will not make the model faster; distill and shrink do",
                "steps[0].cluster: int8 knows 255 weights anyway; 16 or 32 clusters compress",
            ],
        ),
        (
            [{"cluster": {"clusters": 255}}, {"cluster": {"clusters": 16}}, {"cluster": {"clusters": 16}}],
            {"schemes": ("float32",)},
            [
                "shared values: the file is as large as without; what stores or sends it compressed gains",
                "steps[2].cluster: an earlier step asks for as few values as its 16, or fewer",
            ],
        ),
        (["shrink"], {"budgets": Budgets(max_latency_ms=5.0)}, []),
        (["qat"], {"budgets": Budgets(max_latency_ms=5.0)}, []),
    ],
)
def test_what_will_disappoint_is_told_before(steps: list[Any], fields: dict[str, Any], notes: list[str]) -> None:
    assert list(plan(recipe_of(*steps, **fields)).notes) == notes


def test_pruning_twice() -> None:
    def told(*sparsities: float) -> tuple[str, ...]:
        return plan(recipe_of(*({"prune": {"sparsity": sparsity}} for sparsity in sparsities))).notes[2:]

    assert told(0.5, 0.8) == ()
    assert told(0.8, 0.5) == ("steps[1].prune: an earlier step asks for as many zeros as its 50%, or more",)


def test_pruning_for_kernels_that_no_scheme_uses() -> None:
    step = {"prune": {"for_xnnpack": True, "sparsity": 0.8}}
    note = "steps[0].prune: for_xnnpack restricts pruning for the sake of kernels that int8 does not use"
    assert note in plan(recipe_of(step)).notes
    assert note not in plan(recipe_of(step, schemes=("int8", "float32"))).notes


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    """A convolution and a Dense layer, as inspection tells them."""
    convolution = WeightFacts("convolution", 3 * 3 * 16 * 32, 3 * 3 * 16 * 32 * 64, 3 * 3 * 16 * 32, 32)
    dense = WeightFacts("dense", 32 * 10, 32 * 10, 32 * 10, 10)
    numbers = convolution.elements + dense.elements + 32 + 10
    return ModelFacts("", "", 4 * numbers, numbers, 4, 0.0, (convolution, dense), Counter(Conv2D=1, Dense=1))


@pytest.mark.parametrize("row", ROWS, ids=TECHNIQUES)
def test_facts_of_the_model_give_a_prediction(row: Technique, facts: ModelFacts) -> None:
    recipe = recipe_of(row.name)
    (step,) = plan(recipe, facts=facts).steps
    assert step.prediction == row.predict(step.step, facts).words != ""
    assert plan(recipe).steps[0].prediction == ""
