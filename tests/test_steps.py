"""Options of steps: one dataclass is recipe keys, command-line options and docs, and one check meets every value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from edgeopt.choices import Choices, from_mapping, keys, option
from edgeopt.errors import ConfigError
from edgeopt.schemes import SCHEMES
from edgeopt.steps import DEFAULTS, Step, TrainedStep, Training
from edgeopt.techniques import TECHNIQUES


@dataclass(frozen=True, kw_only=True)
class Paint(TrainedStep):
    """A step that no model needs."""

    technique: ClassVar[str] = "paint"
    defaults: ClassVar[Training] = Training(epochs=3, optimizer="sgd")

    share: float = option(0.5, "How much.", above=0.0, below=1.0, hint="0.8")
    coats: int = option(1, "How often.", low=1, high=100_000)
    colour: str = option("red", "Which.", choices=("red", "green"))
    glossy: bool = option(False, "Whether it shines.")
    hurry: float | None = option(None, "When to stop.", low=0.0)
    walls: tuple[str, ...] = option((), "Only these.", metavar="NAME")
    tools: tuple[str, ...] = option(("brush",), "With what.", choices=("brush", "roll"))
    shares: Mapping[str, float] = option({}, "Others.", low=0.0, below=1.0, metavar="NAME=SHARE")
    names: Mapping[str, str] = option({}, "Other names.")


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"share": 1e-3}, 0.001),
        ({"share": "1e-3"}, 0.001),  # how YAML 1.1 gives what has no point
        ({"coats": 100_000}, 100_000),
        ({"hurry": 2}, 2.0),
        ({"hurry": None}, None),
        ({"walls": ["a", "b"]}, ("a", "b")),
        ({"tools": ["roll", "brush"]}, ("roll", "brush")),
        ({"shares": {"a": "0.25"}}, {"a": 0.25}),
        ({"names": {"a": "b"}}, {"a": "b"}),
        ({"glossy": True}, True),
    ],
)
def test_values_become_the_type_of_their_field(said: dict[str, Any], kept: Any) -> None:
    ((name, _),) = said.items()
    value = getattr(Paint(**said), name)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"share": 0}, r"Expected more than 0 and less than 1 as share, got 0\.0\. Try 0\.8\.$"),
        ({"share": 1.0}, "more than 0 and less than 1"),
        ({"share": math.nan}, "more than 0 and less than 1 as share, got nan"),
        ({"share": "much"}, "Expected a number as share, got 'much'"),
        ({"share": True}, "Expected a number as share, got True"),
        ({"share": None}, "Expected a number as share, got None"),
        ({"share": 10**400}, "Expected a number as share, got 1000"),
        ({"coats": 0}, "Expected at least 1 and at most 100000 as coats, got 0"),
        ({"coats": 1.0}, r"Expected a whole number as coats, got 1\.0"),
        ({"coats": "1"}, "Expected a whole number as coats, got '1'"),
        ({"coats": True}, "Expected a whole number as coats, got True"),
        ({"colour": "gren"}, r"Expected one of red, green as colour, got 'gren'\. Did you mean 'green'\?"),
        ({"colour": 3}, "Expected text as colour, got 3"),
        ({"teacher": "a\nb"}, r"Expected one line of text as teacher, got 'a\\nb'"),
        ({"walls": ["\x1b[2J"]}, "Expected one line of text as walls"),
        ({"glossy": 1}, "Expected true or false as glossy, got 1"),
        ({"hurry": -1}, r"Expected at least 0 as hurry, got -1\.0"),
        ({"hurry": math.inf}, "Expected at least 0 as hurry, got inf"),
        ({"walls": "north"}, "Expected a list as walls, got 'north'"),
        ({"walls": [1]}, "Expected text as walls, got 1"),
        ({"walls": None}, "Expected a list as walls, got None"),
        ({"tools": ["rol"]}, r"Expected one of brush, roll as tools, got 'rol'\. Did you mean 'roll'\?"),
        ({"shares": ["a"]}, r"Expected names with a value each as shares, got \['a'\]"),
        ({"shares": {"a": 1}}, r"Expected at least 0 and less than 1 as shares, got 1\.0"),
        ({"shares": {3: 0.1}}, "Expected text as shares, got 3"),
        ({"names": {"a": 1}}, "Expected text as names, got 1"),
        ({"epochs": 0}, "Expected at least 1 and at most 100000 as epochs, got 0"),
        ({"max_drop": -1}, r"Expected at least 0 as max_drop, got -1\.0"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_python_and_in_recipes_alike(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Paint(**said)
    with pytest.raises(ConfigError, match=f"^At steps\\[0\\].paint: .*{message}"):
        from_mapping(Paint, said, "steps[0].paint")


def test_a_number_without_limits() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Free(Choices):
        number: float = option(0.0, "Any.")

    assert Free(number=-(10.0**9)).number == -(10.0**9)
    with pytest.raises(ConfigError, match="Expected a number as number, got inf"):
        Free(number=math.inf)


def test_steps_do_not_share_what_is_mutable() -> None:
    first, second = Paint(), Paint()
    assert first.shares is not second.shares


# --- mappings --------------------------------------------------------------------------------------------------------


def test_from_mapping() -> None:
    assert from_mapping(Paint, {"coats": 2}, "here") == Paint(coats=2)
    assert from_mapping(Paint, None, "here") == Paint()
    with pytest.raises(ConfigError, match=r"Expected keys and values at here, got \['coats'\]. Try here: \{\}"):
        from_mapping(Paint, ["coats"], "here")
    with pytest.raises(ConfigError, match=r"Unknown key 'coat' at here\. Did you mean 'coats'\?"):
        from_mapping(Paint, {"coat": 2}, "here")
    with pytest.raises(ConfigError, match="Unknown key 3 at here"):
        from_mapping(Paint, {3: 2}, "here")
    for internal in ("technique", "defaults"):
        with pytest.raises(ConfigError, match=f"Unknown key '{internal}' at here"):
            from_mapping(Paint, {internal: "x"}, "here")


def test_said_is_what_differs_from_the_defaults() -> None:
    said = {"share": 0.25, "walls": ("a",), "epochs": 5}
    assert Paint(**said).said() == said
    assert Paint(share=0.5, colour="red").said() == {}
    assert from_mapping(Paint, Paint(**said).said(), "here") == Paint(**said)


# --- training --------------------------------------------------------------------------------------------------------


def test_the_step_is_asked_first_then_the_recipe_then_the_technique_then_the_defaults() -> None:
    step = Paint(learning_rate=0.5)
    training = step.training(Training(learning_rate=0.1, epochs=7))
    assert (training.learning_rate, training.epochs, training.optimizer, training.batch_size) == (
        0.5,  # the step's
        7,  # the recipe's
        "sgd",  # the technique's
        DEFAULTS.batch_size,
    )
    assert step.training().epochs == 3


@pytest.mark.parametrize(
    "row", [row for row in TECHNIQUES.values() if issubclass(row.step, TrainedStep)], ids=lambda row: row.name
)
def test_nothing_is_left_unsaid_but_what_means_something_then(row: Any) -> None:
    meaningful = {"loss", "class_weight", "patience", "train_samples"}
    assert {key.name for key in keys(Training) if getattr(DEFAULTS, key.name) is None} == meaningful
    defaults = row.step.defaults.over(DEFAULTS)
    unsaid = {key.name for key in keys(Training) if getattr(defaults, key.name) is None}
    assert unsaid in (meaningful, meaningful - {"patience"})


def test_over_fills_in_fields_of_the_same_name_alone() -> None:
    filled = Training(epochs=2).over(Paint(epochs=9, patience=4))
    assert filled == Training(epochs=2, patience=4)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_the_step_s_own_then_its_budget_then_those_of_training() -> None:
    names = [key.name for key in keys(Paint)]
    own = ["share", "coats", "colour", "glossy", "hurry", "walls", "tools", "shares", "names"]
    assert names == [*own, "max_drop", "strict", *(key.name for key in keys(Training))]
    hurry = next(key for key in keys(Paint) if key.name == "hurry")
    assert (hurry.type, hurry.default, hurry.flag) == (float, None, "--hurry")
    assert next(key for key in keys(Training) if key.name == "batch_size").flag == "--batch-size"


@pytest.mark.parametrize("row", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_technique_that_does_not_fit_all_schemes_says_why(row: Any) -> None:
    assert bool(row.why_unfit) is not all(row.fits(row.typical, scheme) for scheme in SCHEMES.values())


@pytest.mark.parametrize("row", TECHNIQUES.values(), ids=TECHNIQUES)
def test_every_technique_says_what_its_keys_mean(row: Any) -> None:
    assert issubclass(row.step, Step)
    assert row.step.technique == row.name
    for key in keys(row.step):
        assert key.option.help.endswith("."), key.name
        assert key.option.help[0].isupper() or key.option.help.startswith(("N:M", "1 ")), key.name
        words = set(re.findall(r"\w+_\w+", re.sub("\x1e.*?\x1e", "", key.option.help)))
        assert not words & {other.name for other in keys(row.step)}, f"{key.name} names a key that is not marked"
        many = key.type not in (int, float, str, bool)
        assert key.option.choices or key.option.metavar or not many, f"{key.name} has nothing that stands for a value"


def test_limits_in_words() -> None:
    limits = {key.name: key.option.limits for key in keys(Paint)}
    assert limits["coats"] == "at least 1 and at most 100000"
    assert limits["share"] == "more than 0 and less than 1"
    assert limits["colour"] == ""
