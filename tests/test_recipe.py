"""Recipes: what is read is what was written, and whatever is no recipe is refused with its place."""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from command_line import assert_clean, edgeopt
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from edgeopt import recipe as recipes
from edgeopt.choices import Key, keys
from edgeopt.cli import cli
from edgeopt.cli.recipe import command
from edgeopt.errors import ConfigError
from edgeopt.plan import plan
from edgeopt.recipe import (
    MAX_BYTES,
    Recipe,
    from_values,
    load_recipe,
    packaged,
    read_recipe,
    steps_from,
    to_values,
    write_recipe,
)
from edgeopt.runtimes import RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.steps import Step, Training
from edgeopt.techniques import TECHNIQUES
from edgeopt.techniques.cluster import Cluster
from edgeopt.techniques.prune import Prune
from edgeopt.techniques.qat import QAT
from edgeopt.vocabulary import Budgets

WHOLE = """
version: 1
summary: Everything a recipe can say.
schemes: [int8, int8-float-io]
training: {epochs: 10, learning_rate: 1e-3, augment: image}
steps:
  - prune: {sparsity: 0.6, layer_sparsity: {head: 0.1}}
  - cluster:
      clusters: 8
      spare: [conv2d, Dense]
  - qat
budgets: {max_drop: 1, max_size: 64KB, max_latency: 5ms, runtimes: [tflm, litert==2.3]}
data: digits
target: a small board
seed: 7
"""


def test_a_recipe_is_its_dataclasses() -> None:
    assert read_recipe(WHOLE) == Recipe(
        summary="Everything a recipe can say.",
        schemes=("int8", "int8-float-io"),
        training=Training(epochs=10, learning_rate=0.001, augment="image"),
        steps=(
            Prune(sparsity=0.6, layer_sparsity={"head": 0.1}),
            Cluster(clusters=8, spare=("conv2d", "Dense")),
            QAT(),
        ),
        budgets=Budgets(1.0, 64 * 1000, 5.0, ("tflm", "litert==2.3")),
        data="digits",
        target="a small board",
        seed=7,
    )


def test_what_is_not_said_is_as_it_is_by_default() -> None:
    assert read_recipe("steps: [qat]") == Recipe(steps=(QAT(),))
    assert read_recipe("steps: [qat: , prune: {}]") == Recipe(steps=(QAT(), Prune()))
    assert read_recipe("training:\nbudgets:\nschemes: [int8]") == Recipe()


@pytest.mark.parametrize(("size", "latency"), [("64KB", "5ms"), ("64000", "5"), ("64_000", "5.0"), ("6.4e+4", "5e+0")])
def test_budgets_are_numbers_or_words(size: str, latency: str) -> None:
    read = read_recipe(f"budgets: {{max_size: {size}, max_latency: {latency}}}")
    assert read.budgets == Budgets(max_size_bytes=64 * 1000, max_latency_ms=5.0)


def test_steps_in_three_spellings() -> None:
    assert steps_from(["qat", {"prune": {"sparsity": 0.6}}, Cluster(clusters=4), {"qat": None}]) == (
        QAT(),
        Prune(sparsity=0.6),
        Cluster(clusters=4),
        QAT(),
    )


# --- writing ---------------------------------------------------------------------------------------------------------

LINES = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
NAMES = st.text(LINES, max_size=12)
# Keys whose text has a form of its own.
FORMS = {"pattern": st.sampled_from(["2:4", "1x16"]), "units": st.just(("channels",)), "teacher": st.just("none")}
# What a technique cannot do without.
NEEDED = {"distill": {"width": st.just(0.5)}, "shrink": {"macs": st.just(0.5)}}


def values_of(key: Key) -> st.SearchStrategy[Any]:
    """Any value that a key may have."""
    option = key.option
    number = st.floats(
        min_value=option.low if option.low is not None else option.above,
        max_value=option.high if option.high is not None else option.below,
        exclude_min=option.low is None and option.above is not None,
        exclude_max=option.high is None and option.below is not None,
        allow_nan=False,
        allow_infinity=False,
    )
    if key.name in FORMS:
        return FORMS[key.name]
    if option.choices:
        return st.sampled_from(option.choices)
    if key.type is bool:
        return st.booleans()
    if key.type is int:
        return st.integers(int(option.low or 0), int(option.high or 10**6))
    if key.type is float:
        return number
    if key.type is str:
        return NAMES
    if key.type == tuple[str, ...]:
        return st.lists(NAMES, max_size=3).map(tuple)
    return st.dictionaries(NAMES, number if "float" in str(key.type) else NAMES, max_size=2)


@st.composite
def choices_of(draw: st.DrawFn, kind: Any) -> Any:
    """A step or a training with a few of its keys said."""
    chosen = draw(st.lists(st.sampled_from(keys(kind)), max_size=3, unique_by=lambda key: key.name))
    said = {key.name: draw(values_of(key)) for key in chosen}
    for name, value in NEEDED.get(getattr(kind, "technique", ""), {}).items():
        said.setdefault(name, draw(value))
    try:
        return kind(**said)
    except ConfigError:
        reject()  # keys that exclude one another


STEPS = st.sampled_from([row.step for row in TECHNIQUES.values()]).flatmap(choices_of)
POSITIVE = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
ANY_RECIPE = st.builds(
    Recipe,
    summary=st.text(LINES, max_size=40),
    schemes=st.lists(st.sampled_from(list(SCHEMES)), min_size=1, unique=True).map(tuple),
    training=choices_of(Training),
    steps=st.lists(STEPS, max_size=4).map(tuple),
    budgets=st.builds(
        Budgets,
        max_drop=st.none() | POSITIVE,
        max_size_bytes=st.none() | st.integers(0, 2**50),
        max_latency_ms=st.none() | POSITIVE,
        runtimes=st.lists(st.sampled_from(list(RUNTIMES)), max_size=2).map(tuple),
    ),
    data=st.none() | NAMES,
    target=st.none() | NAMES,
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_RECIPE)
def test_what_is_written_reads_as_the_same(recipe: Recipe) -> None:
    text = write_recipe(recipe)
    assert read_recipe(text) == recipe
    assert write_recipe(read_recipe(text)) == text
    # Reports hold the same as JSON.
    assert from_values(json.loads(json.dumps(to_values(recipe)))) == recipe


def test_only_what_was_said_is_written() -> None:
    assert write_recipe(Recipe(steps=(Prune(sparsity=0.6), QAT()))) == (
        "version: 1\nschemes: [int8]\nsteps:\n- prune: {sparsity: 0.6}\n- qat\n"
    )


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Keys and their places.
        ("step: [qat]", r"Unknown key 'step' at the top level\. Did you mean 'steps'\?"),
        ("name: mine", "Unknown key 'name' at the top level"),
        ("3: x", "Unknown key 3 at the top level"),
        ("training: {epoch: 3}", r"Unknown key 'epoch' at training\. Did you mean 'epochs'\?"),
        ("budgets: {max_bytes: 3}", "Unknown key 'max_bytes' at budgets"),
        ("steps: [qat, {cluster: {cluster: 3}}]", r"Unknown key 'cluster' at steps\[1\]\.cluster\. Did you mean 'cl"),
        ("steps: [prun]", r"At steps\[0\]: Expected a technique, got 'prun'\. Did you mean 'prune'\?"),
        # Values of another kind or out of their limits.
        ("steps: [prune: {sparsity: 2}]", r"At steps\[0\]\.prune: Expected more than 0 and less than 1 as sparsity"),
        ("steps: [prune: {sparsity: }]", r"At steps\[0\]\.prune: Expected a number as sparsity, got None"),
        ("training: {augment: no}", "At training: Expected text as augment, got False"),
        ("schemes: int8", "At the top level: Expected a list as schemes, got 'int8'"),
        ("schemes: [int9]", r"Expected one of float32, .* as schemes, got 'int9'\. Did you mean 'int8'\?"),
        ("schemes: []", r"Expected at least one scheme, got none\. Try schemes: \[int8\]"),
        ("schemes: [int8, int8]", "Expected each scheme once, got int8, int8"),
        ("seed: -1", "Expected at least 0 and at most 4294967295 as seed, got -1"),
        ("data: 2001-12-01", r"Expected text as data, got datetime\.date\(2001, 12, 1\)"),
        (
            "budgets: {max_size: 64 apples}",
            "At budgets: Expected a size such as 64KB, .*, got '64 apples'",
        ),
        ("budgets: {max_size: true}", "At budgets: Expected a size such as .*, got 'True'"),
        ("budgets: {max_latency: -1}", "At budgets: Expected a time such as 5ms, 800us or 0.2s, got '-1'"),
        ("budgets: {runtimes: [tflmm]}", r"At budgets: Expected a runtime.*'tflmm'\. Did you mean 'tflm'\?"),
        ("budgets: 3", "Expected keys and values at budgets, got 3"),
        # Shapes.
        ("", "Expected keys and values in a recipe, got None"),
        ("[qat]", r"Expected keys and values in a recipe, got \['qat'\]"),
        ("steps: qat", r"Expected a list at steps, got 'qat'\. Try steps: \[qat\]"),
        ("steps: {qat: }", r"Expected a list at steps, got \{'qat': None\}"),
        ("steps: [[qat]]", r"Expected one technique at steps\[0\], got \['qat'\]\. Try a dash before each"),
        ("steps: [{}]", r"Expected one technique at steps\[0\], got \{\}"),
        ("steps: [{prune: , qat: }]", r"Expected one technique at steps\[0\], got 2: prune, qat"),
        ("steps: [3]", r"Expected one technique at steps\[0\], got 3"),
        # Versions.
        ("version: 2\nnew: 1", "Expected version 1 of recipes, got 2"),
        ("version: one", "Expected a whole number as version, got 'one'"),
        # YAML that is none, or not plain.
        ("data: 'x", "Expected YAML, got what is none in line 1: found unexpected end of stream"),
        ("data: \x00", "Expected YAML, got what is none: unacceptable character"),
        ("--- {}\n--- {}", "got what is none in line 2: but found another document"),
        ("!!python/object/apply:os.system [x]", "got what is none in line 1: could not determine a constructor"),
        ("seed: 2001-13-45", "got what is none: month must be in 1..12"),
        (f"seed: {'9' * 6000}", "got what is none: Exceeds the limit"),
        ("seed: 1\nsummary: x\nseed: 2", "Expected each key once, got 'seed' a second time in line 3"),
        ("steps: [prune: {sparsity: 0.5, sparsity: 0.6}]", "got 'sparsity' a second time in line 1"),
        ("data: &x digits\ntarget: *x", "Expected YAML without anchors and aliases, got 'x' in line 1"),
        ("training: {<<: {epochs: 3}}", "Expected names as keys, got something else in line 1"),
        ("? [a]\n: 1", "Expected names as keys, got something else in line 1"),
        ("data: " + "[" * 30_000, "Expected a recipe, got values more than 8 deep"),
        ("- " * 30_000, "Expected a recipe, got values more than 8 deep"),
        ("#" * (MAX_BYTES + 1), "Expected at most 65,536 bytes of recipe, got more"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_no_recipe(text: str, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        read_recipe(text)
    assert time.perf_counter() - start < 5


def test_a_billion_laughs_are_refused_at_the_first() -> None:
    lines = ["a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    with pytest.raises(ConfigError, match="without anchors and aliases, got 'a' in line 1"):
        read_recipe("\n".join(lines))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("[]{}:-&*!#|>'\" \nastep", max_size=60))
def test_any_text_is_a_recipe_or_a_message(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(read_recipe(text), Recipe)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_called_by_its_name_and_so_are_its_mistakes(tmp_path: Path) -> None:
    good, bad, binary = tmp_path / "mine.yaml", tmp_path / "bad.yaml", tmp_path / "binary.yaml"
    good.write_text(WHOLE)
    bad.write_text("seeds: 1")
    binary.write_bytes(b"\xff\x00\xfe")
    assert load_recipe(good) == load_recipe(str(good)) == replace(read_recipe(WHOLE), name="mine")
    with pytest.raises(ConfigError, match=r"^bad\.yaml: Unknown key 'seeds' at the top level"):
        load_recipe(bad)
    with pytest.raises(ConfigError, match=r"^binary\.yaml: Expected YAML, got what is none"):
        load_recipe(binary)
    with pytest.raises(ConfigError, match="Expected at most 65,536 bytes"):
        read_recipe(Path("/dev/zero"))


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a packaged recipe or a recipe file, got 'pqta'\. Did you mean 'pqat'\?"):
        load_recipe("pqta")
    with pytest.raises(ConfigError, match="Expected a packaged recipe or a recipe file, got"):
        load_recipe(tmp_path)


# --- those that ship -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_recipe_can_be_done_and_gives_reasons(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe == packaged()[name]
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    assert [step.technique for step in plan(recipe).steps] == [step.technique for step in recipe.steps]
    assert replace(read_recipe(write_recipe(recipe)), name=name) == recipe
    text = recipes.recipe_file(name).read_text(encoding="utf-8")
    assert re.search(r"^ *# .*\.$", text, re.MULTILINE), "settings have reasons"
    # A summary of one line of `edgeopt recipe list`.
    assert len(recipe.summary) <= 110


def test_the_usual_needs_have_a_recipe() -> None:
    assert set(packaged()) >= {
        *("small-and-safe", "smallest", "fastest-on-cpu", "microcontroller", "no-training-data"),
        *("qat", "pqat", "cqat", "pcqat", "prune-50", "prune-80", "binary", "half-macs", "student"),
    }
    used = {step.technique for recipe in packaged().values() for step in recipe.steps}
    assert used == set(TECHNIQUES)


def test_the_names_say_what_is_done() -> None:
    def step(name: str, kind: type[Step]) -> Any:
        return next(step for step in load_recipe(name).steps if isinstance(step, kind))

    assert (step("prune-50", Prune).sparsity, step("prune-80", Prune).sparsity) == (0.5, 0.8)
    for name, clusters in (("binary", 2), ("ternary", 3)):
        few = step(name, Cluster)
        assert (few.clusters, few.per_channel, few.symmetric) == (clusters, True, True)
    assert (step("qat-int4", QAT).weight_bits, load_recipe("qat-int4").schemes) == (4, ("int4",))
    assert load_recipe("no-training-data").steps == ()
    variants = {name: plan(load_recipe(name)).steps[-1].variant for name in ("qat", "pqat", "cqat", "pcqat")}
    assert variants == {"qat": "", "pqat": "PQAT", "cqat": "CQAT", "pcqat": "PCQAT"}


# --- the command -----------------------------------------------------------------------------------------------------


def test_list(tmp_path: Path) -> None:
    done = edgeopt("recipe", "list", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(packaged())
    assert all(recipe.summary in row for recipe, row in zip(packaged().values(), rows, strict=True))
    done = edgeopt("recipe", "list", "--json", folder=tmp_path)
    read = {row.pop("name"): from_values(row) for row in json.loads(done.stdout)["recipes"]}
    assert read == {name: replace(recipe, name="") for name, recipe in packaged().items()}


def test_show_prints_what_can_be_kept(tmp_path: Path) -> None:
    done = edgeopt("recipe", "show", "pqat", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "# " in done.stdout
    (tmp_path / "mine.yaml").write_text(done.stdout)
    assert load_recipe(tmp_path / "mine.yaml") == replace(load_recipe("pqat"), name="mine")
    shown = json.loads(edgeopt("recipe", "show", "mine.yaml", "--json", folder=tmp_path).stdout)
    assert shown.pop("name") == "mine"
    assert shown == to_values(load_recipe("pqat"))


def test_check_tells_the_plan(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("summary: For [red]you[/red].\nsteps: [prune, cluster, qat]\n")
    done = edgeopt("recipe", "check", "mine.yaml", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "mine: For [red]you[/red].",
        "cluster (sparsity-preserving)",
        "qat (PCQAT)",
        "training samples, labels",
        "10 epochs, adam around 0.001,",
        "Schemes: int8",
        "Note: zeros and shared values: the file is as large as without",
    ):
        assert words in done.stdout
    told = json.loads(edgeopt("recipe", "check", "mine.yaml", "--json", folder=tmp_path).stdout)
    assert [step["variant"] for step in told["steps"]] == ["", "sparsity-preserving", "PCQAT"]
    assert told["steps"][2]["properties_before"] == ["clustered", "sparse"]
    assert told["steps"][0]["training"]["epochs"] == 10
    assert told["recipe"]["steps"] == ["prune", "cluster", "qat"]
    assert len(told["notes"]) == len(re.findall("^Note: ", done.stdout, re.MULTILINE))


def test_check_of_a_recipe_without_steps(tmp_path: Path) -> None:
    done = edgeopt("recipe", "check", "no-training-data", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No steps: the model is converted as it is." in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show pqta", "Error: Expected a packaged recipe or a recipe file, got 'pqta'. Did you mean 'pqat'?"),
        ("check wrong.yaml", "Error: Expected prune before qat, got prune (steps[1]) after qat (steps[0])"),
        ("check wrong.yaml", "Try the order: prune, qat."),
        ("check typo.yaml", "Error: typo.yaml: Unknown key 'sparse' at steps[0].prune"),
        ("chek qat", "No such command 'chek'"),
    ],
)
def test_mistakes_end_with_status_2(words: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("steps: [qat, prune]")
    (tmp_path / "typo.yaml").write_text("steps: [prune: {sparse: 0.5}]")
    done = edgeopt("recipe", *words.split(), folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert_clean(done)


@pytest.mark.parametrize("name", command.commands)
def test_each_command_has_one_example_that_parses(name: str) -> None:
    below = command.commands[name]
    assert all(option.help for option in below.params if isinstance(option, click.Option))
    shown = CliRunner().invoke(cli, ["recipe", name, "--help"]).output
    example = next(line.split() for line in shown.splitlines() if line.startswith("    "))
    assert example[:3] == ["edgeopt", "recipe", name]
    below.make_context(name, [word for word in example[3:] if word not in (">", "mine.yaml") or name == "check"])
