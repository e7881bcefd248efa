"""The ladder: what is tried for which budgets, what is skipped and why, how it ends, and what its report says."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgeopt
from edgeopt import workers
from edgeopt.carry_out import Outcome
from edgeopt.errors import ConfigError
from edgeopt.ladder.costs import Costs
from edgeopt.ladder.costs import trained as costs_trained
from edgeopt.ladder.merging import fresh, joined
from edgeopt.ladder.rungs import RUNGS, Situation, needs, touches_model
from edgeopt.ladder.wanted import Doubt, doubt, lacking
from edgeopt.plan import plan
from edgeopt.prospects import ModelFacts as WhatIsKnown
from edgeopt.prospects import WeightFacts
from edgeopt.recipe import Recipe, load_recipe, read_recipe, write_recipe
from edgeopt.report import ModelFacts, Report, broken_budgets, ladder_lines, render_html, render_markdown
from edgeopt.schemes import DEFAULTS
from edgeopt.statistics import samples_to_show
from edgeopt.targets import target
from edgeopt.techniques import Need, technique
from edgeopt.units import parse_duration_s
from edgeopt.vocabulary import (
    Artifact,
    Budgets,
    Climb,
    Difference,
    Gain,
    MetricValue,
    OnTarget,
    RungRecord,
    StepRecord,
    Variant,
)

INT8_BYTES, WEIGHTS_BYTES = 100_000, 80_000
FIRST, MIDDLE, LAST = 2_000, 76_000, 2_000
CHANNELS = 64 + 64 + 10
FACTS = WhatIsKnown(
    "",
    "",
    4 * WEIGHTS_BYTES,
    WEIGHTS_BYTES,
    3,
    0.0,
    (
        WeightFacts("convolution", FIRST, 10**6, FIRST, 64),
        WeightFacts("convolution", MIDDLE, 10**6, MIDDLE, 64),
        WeightFacts("convolution", LAST, 10**6, LAST, 10),
    ),
    {},
)


def variant(name: str, content: str, size: int = INT8_BYTES, scheme: str = "int8", **said: Any) -> Variant:
    return Variant(name, scheme, (Artifact("tflite", f"{name}.tflite", content * 64, size, size),), **said)


def situation(*lacking: Gain, **said: Any) -> Situation:
    base = variant("int8", "a", bytes_by_kind={"weights": WEIGHTS_BYTES, "graph": INT8_BYTES - WEIGHTS_BYTES})
    budgets = said.pop("budgets", Budgets())
    return Situation(Recipe(schemes=DEFAULTS, budgets=budgets), frozenset(lacking), FACTS, base, **said)


# --- rungs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_every_candidate_is_a_recipe_that_can_be_planned_and_written(rung: Any) -> None:
    budgets = Budgets(max_drop=1.0, max_size_bytes=int(0.7 * INT8_BYTES), max_latency_ms=1.0)
    at_hand = situation(*Gain, budgets=budgets, drop=1.5, latency_ms=1.5)
    assert rung.idle(at_hand) == ""
    recipes = list(rung.candidates(at_hand))
    assert recipes
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        assert recipe.budgets == budgets
        plan(recipe, facts=FACTS, has_labels=True, has_training=True, has_calibration=True)
        assert replace(read_recipe(write_recipe(recipe)), name=recipe.name) == recipe


def test_needs_are_those_of_the_techniques() -> None:
    assert needs(load_recipe("qat")) == (Need.TRAINING, Need.LABELS, Need.CALIBRATION)
    assert Need.TRAINING not in needs(load_recipe("repair"))
    assert needs(Recipe(schemes=("float16",))) == ()
    assert not touches_model(load_recipe("repair"))
    assert touches_model(load_recipe("qat"))


def test_a_cut_is_as_deep_as_the_budgets_need() -> None:
    limit = INT8_BYTES // 2
    at_hand = situation(Gain.BYTES, budgets=Budgets(max_size_bytes=limit))
    graph = INT8_BYTES - WEIGHTS_BYTES - 13 * CHANNELS
    # The first and the last layer stay at eight bits.
    in_four_bits = (FIRST + MIDDLE / 2 + LAST) / WEIGHTS_BYTES

    def size(left: float, stored: float) -> float:
        channels = CHANNELS * left**0.8
        return graph + stored * (left * (WEIGHTS_BYTES + 8 * CHANNELS) - 8 * channels) + 13 * channels

    for scheme, stored in (("", 1.0), ("int4", in_four_bits)):
        count, share = at_hand.cut(scheme)
        assert count == "bytes"
        assert size(share, stored) <= 0.95 * limit < size(share + 0.01, stored)
    fast = situation(Gain.LATENCY, budgets=Budgets(max_latency_ms=1.0), latency_ms=4.0)
    # Fewer bits are no faster.
    assert fast.cut() == fast.cut("int4") == ("macs", round(0.95 / 4, 2))
    assert situation(Gain.LATENCY).cut() == ("macs", 0.5)
    assert situation(Gain.BYTES, budgets=Budgets(max_size_bytes=1)).cut() == ("bytes", 0.15)


def test_what_was_cut_and_is_a_little_too_large_is_cut_deeper() -> None:
    at_hand = situation(Gain.BYTES, budgets=Budgets(max_size_bytes=INT8_BYTES // 2))
    off = replace(at_hand, missed_by={"int4": 1.05})
    assert off.cut() == at_hand.cut()
    budgets = Budgets(max_size_bytes=int(0.98 * INT8_BYTES / 2 / 1.05))
    assert off.cut("int4") == situation(Gain.BYTES, budgets=budgets).cut("int4") < at_hand.cut("int4")


def test_a_cut_without_training_is_not_deeper_than_what_may_survive() -> None:
    rung = next(rung for rung in RUNGS if rung.name == "cut")

    def cuts(at_hand: Situation) -> list[tuple[Any, ...]]:
        recipes = list(rung.candidates(at_hand))
        assert not any(costs_trained(recipe) for recipe in recipes)
        return [(recipe.schemes, *(step.technique for step in recipe.steps)) for recipe in recipes]

    mild = situation(Gain.BYTES, budgets=Budgets(max_size_bytes=int(0.75 * INT8_BYTES)))
    assert cuts(mild) == [(("int4",), "shrink", "round"), (("int8",), "shrink")]
    half = situation(Gain.BYTES, budgets=Budgets(max_size_bytes=int(0.45 * INT8_BYTES)))
    assert cuts(half) == [(("int4",), "shrink", "round")]
    lost = replace(half, four_bits_lose="weights of four bits alone lose 9 points")
    assert cuts(lost) == []
    assert rung.idle(lost) == "weights of four bits alone lose 9 points"
    deep = situation(Gain.BYTES, budgets=Budgets(max_size_bytes=INT8_BYTES // 4))
    share = deep.cut("int4")[1]
    assert rung.idle(deep) == f"a cut to {share:.0%} of the weights, in four bits, is too deep to do without training"
    fast = situation(Gain.LATENCY, budgets=Budgets(max_latency_ms=1.0), latency_ms=4.0)
    assert rung.idle(fast) == "a cut to 24% of the arithmetic is too deep to do without training"


@pytest.mark.parametrize(
    ("name", "at_hand", "why"),
    [
        ("repair", situation(Gain.QUALITY, drop=-0.2), "int8 loses nothing that could be mended"),
        (
            "four bits",
            situation(Gain.BYTES, allowed=frozenset({"int8"})),
            "four bits were not asked for, only int8",
        ),
        ("four bits", situation(Gain.BYTES, target=target("edge-tpu")), "edge-tpu takes no weights of four bits: "),
        (
            "mixed precision",
            situation(Gain.BYTES, budgets=Budgets(max_size_bytes=INT8_BYTES // 2)),
            "in four bits the file would still take about 60,000 bytes",
        ),
        *(
            (
                name,
                situation(Gain.BYTES, budgets=Budgets(max_size_bytes=9_000)),
                f"with 15% of its weights{in_bits}, the least that is tried, the file would still take about "
                f"{situation().bytes_at(0.15, scheme):,.0f} bytes",
            )
            for name, in_bits, scheme in (
                ("shrink", "", "int8"),
                ("student", "", "int8"),
                ("shrink and four bits", " in four bits", "int4"),
                ("cut", " in four bits", "int4"),
            )
        ),
    ],
)
def test_what_brings_nothing_here_says_why(name: str, at_hand: Situation, why: str) -> None:
    rung = next(rung for rung in RUNGS if rung.name == name)
    assert why in rung.idle(at_hand)


@pytest.mark.parametrize("name", ["four bits", "quantization-aware training", "shrink and four bits"])
def test_nothing_is_begun_for_four_bits_that_no_weight_would_have(name: str) -> None:
    """The first layer and the last keep eight bits. A GRU is unrolled to what takes four, and cannot be trained so; an
    LSTM that is one operator takes none."""
    rung, cut = (next(rung for rung in RUNGS if rung.name == one) for one in (name, "cut"))
    first, middle, last = FACTS.weights
    dense, recurrent = (replace(FACTS, weights=(first, replace(middle, kind=k), last)) for k in ("dense", "recurrent"))
    fused = replace(recurrent, fused_lstm=True)
    asked = Recipe(schemes=DEFAULTS, budgets=Budgets(max_size_bytes=int(0.7 * INT8_BYTES)))

    def idle(facts: WhatIsKnown, **said: Any) -> str:
        return rung.idle(replace(situation(Gain.BYTES), asked=replace(asked, **said), facts=facts))

    assert idle(dense) == ""
    untrained = "no weight would be trained in four bits: all layers are small, first, last or of kinds that are not"
    assert idle(recurrent) == (untrained if name == "quantization-aware training" else "")
    words = "no weight would have four bits: all layers are small, first, last or of kinds that stay at eight"
    assert idle(fused) == words
    for facts, schemes in ((dense, {("int4",), ("int8",)}), (fused, {("int8",)})):
        at_hand = replace(situation(Gain.BYTES), asked=asked, facts=facts)
        assert {recipe.schemes for recipe in cut.candidates(at_hand)} == schemes
    # Who says which layers keep eight bits has them tried.
    assert idle(fused, keep_8bit=("none",)) == idle(recurrent, keep_8bit=("none",)) == ""


@pytest.mark.parametrize("name", ["repair", "quantization-aware training"])
def test_what_the_base_lacks_and_a_rung_does_not_bring_is_no_reason_to_climb_it(name: str) -> None:
    """A smaller file loses too much; int8, which could be mended, stays too large."""
    rung = next(rung for rung in RUNGS if rung.name == name)
    budgets = Budgets(max_drop=1.0, max_size_bytes=INT8_BYTES // 2)
    large = situation(
        Gain.QUALITY, Gain.BYTES, budgets=budgets, drop=1.5, base_lacks=frozenset({Gain.QUALITY, Gain.BYTES})
    )
    assert rung.idle(large) in (
        "it does not bring bytes, which int8 lacks",
        f"with every weight in four bits the file would still take about {INT8_BYTES - WEIGHTS_BYTES // 2:,} bytes",
    )
    assert rung.idle(replace(large, asked=Recipe(schemes=DEFAULTS), base_lacks=frozenset({Gain.QUALITY}))) == ""


def test_cuts_are_fine_where_time_does_not_count() -> None:
    def multiples(*lacking: Gain) -> set[int]:
        budgets = Budgets(max_size_bytes=int(0.7 * INT8_BYTES), max_latency_ms=1.0)
        at_hand = situation(*lacking, budgets=budgets, latency_ms=1.5)
        rungs = [rung for rung in RUNGS if rung.name in ("cut", "shrink")]
        return {recipe.steps[0].multiple_of for rung in rungs for recipe in rung.candidates(at_hand)}  # type: ignore[attr-defined]

    assert multiples(Gain.BYTES) == {4}
    assert multiples(Gain.BYTES, Gain.LATENCY) == {8}


def test_layers_keep_eight_bits_whose_fewer_the_target_s_runtimes_refuse() -> None:
    """TFLM's FULLY_CONNECTED takes weights of four bits with one scale only, and there is one for each channel."""
    rung = next(rung for rung in RUNGS if rung.name == "mixed precision")
    dense = replace(FACTS, weights=(*FACTS.weights, replace(FACTS.weights[0], kind="dense")))

    def spared(at_hand: Situation) -> list[Any]:
        return [step.said().get("spare") for recipe in rung.candidates(at_hand) for step in recipe.steps]

    on_device = situation(Gain.BYTES, target=target("cortex-m4"))
    assert spared(replace(on_device, facts=dense)) == [("FULLY_CONNECTED",)]
    # A word that means no layer would be refused.
    assert spared(on_device) == spared(replace(situation(Gain.BYTES), facts=dense)) == [None]


# --- costs and merging -----------------------------------------------------------------------------------------------


def test_a_training_is_shortened_to_the_time_there_is_and_no_further() -> None:
    recipe = load_recipe("qat")
    costs = Costs(1000, 4, lambda: 0.01, file_s=1.0, tried_s=1.0)
    # Files converted, one measured; then what a training takes before its first epoch.
    files, beginning = 1 + len(recipe.schemes) + 2 + 1, 30
    epoch = technique("qat").takes * 1000 * 0.01
    assert costs.of(recipe) == pytest.approx(files + beginning + 10 * epoch)
    assert costs.shortened(recipe, 1000.0) == recipe
    fitting = costs.shortened(recipe, files + beginning + 5.5 * epoch)
    assert fitting is not None
    assert fitting.steps[0].epochs == 5
    assert costs.shortened(recipe, files + beginning + 2.5 * epoch) is None
    costs.learn(recipe, files + 2 * (beginning + 10 * epoch))
    assert costs.of(fitting) == pytest.approx(files + 2 * (beginning + 5 * epoch))


def test_of_many_samples_some_do_where_there_is_no_time_for_one_epoch() -> None:
    recipe = load_recipe("half-macs")
    costs = Costs(40_000, 4, lambda: 0.001, file_s=0.0, tried_s=0.0)
    epoch = technique("shrink").takes * 40_000 * 0.001

    def training(left_s: float) -> tuple[Any, ...] | None:
        fitting = costs.shortened(recipe, left_s)
        return fitting and tuple(getattr(fitting.steps[0], key) for key in ("epochs", "train_samples", "rounds"))

    assert training(3 * 30 + 6.5 * epoch) == (6, None, 3)
    # A round has two epochs at least: fewer rounds begin less often.
    assert training(30 + 2.5 * epoch) == (2, None, 1)
    assert training(30 + 0.8 * epoch) == (1, 40_000 * 6 // 8, 1)
    # 300 steps of 64 are worth it, half of them are not.
    assert training(30 + 0.5 * epoch) == (1, 20_000, 1)
    assert 20_000 / 64 > technique("shrink").least_steps > 15_000 / 64
    assert training(30 + 0.4 * epoch) is None
    assert costs.steps(recipe) == 10 * 40_000 / 64
    # A student begins with next to nothing.
    student = technique("distill")
    assert student.least_steps > 4 * 40_000 / 64
    assert costs.shortened(load_recipe("student"), 30 + 4.5 * student.takes * 40_000 * 0.001) is None


def test_what_one_cut_took_tells_how_long_another_begins() -> None:
    trained = load_recipe("half-macs")
    (step,) = trained.steps
    cut = replace(trained, steps=(replace(step, epochs=0, rounds=1),))
    costs = Costs(1000, 4, lambda: 0.001, file_s=0.0, tried_s=0.0)
    before = costs.of(trained)
    assert costs.of(cut) == 30
    costs.learn(cut, 90)
    assert costs.of(replace(cut, steps=(replace(cut.steps[0], macs=0.7),))) == 90
    assert costs.of(trained) == pytest.approx(before + 3 * (90 - 30))


def test_what_is_trained_already_costs_no_time_again() -> None:
    shrunk = Recipe(schemes=("int8",), steps=load_recipe("half-macs").steps)
    both = replace(shrunk, schemes=("int4",), steps=(*shrunk.steps, *load_recipe("few-values").steps))
    costs = Costs(1000, 4, lambda: 0.01, file_s=1.0, tried_s=1.0)
    alone, together = costs.of(shrunk), costs.of(both)
    assert together > alone
    costs.learn(shrunk, 5 * alone)
    assert costs.of(both) < alone / 5  # two files more, and the rounding


def test_variants_of_several_recipes_have_names_of_their_own() -> None:
    held = Outcome((variant("float32", "0", scheme="float32"), variant("shrink.int8", "a")))
    record = StepRecord("shrink", before="int8", after="shrink.int8")
    more = Outcome(
        (variant("float32", "0", scheme="float32"), variant("shrink.int8", "b"), variant("shrink+qat.int8", "c")),
        (record,),
        references={"shrink.int8": variant("shrink.float32", "d")},
    )
    new = fresh(held, more)
    assert [one.name for one in new.variants] == ["shrink-2.int8", "shrink+qat.int8"]
    assert new.records[0].after == "shrink-2.int8"
    assert list(new.references) == ["shrink-2.int8"]
    assert fresh(joined(held, new), more) == Outcome(())


def test_how_many_samples_would_show_it() -> None:
    assert samples_to_show(2.0, 100, 1.0) == 100 * 2**2
    assert samples_to_show(2.0, 100, 0.0) is None


def test_a_loss_that_chance_leaves_open_is_looked_into_where_these_samples_can_show_it() -> None:
    def scored(name: str, size: int, low: float, value: float, high: float) -> Variant:
        metric = MetricValue("top1", 0.85 - value / 100, 0.8, 0.9, 667, is_share=True)
        return variant(name, name[0], size, metric=metric, drop=Difference(value, 0.5, low, high))

    def of(*variants: Variant) -> Report:
        budgets = Budgets(max_drop=1.0, max_size_bytes=INT8_BYTES // 2)
        return Report("0", "", ModelFacts("m.keras"), budgets=budgets, variants=variants)

    int8, cut = scored("int8", INT8_BYTES, -0.8, 0.1, 1.0), scored("cut.int4", INT8_BYTES // 2, -1.5, 0.5, 2.5)
    found = doubt(of(int8, cut), int8)
    assert found == Doubt(
        "on 667 samples cut.int4 loses 0.5 points, and chance does not rule out a loss of 2.5 points; about "
        f"{667 * (2.0 / 0.5) ** 2:,.0f} samples would show it to be within 1 point",
        can_be_shown=True,
        is_near=False,
    )
    # What is made on the next rungs begins at the base, which is too large as well.
    assert lacking(of(int8, cut), int8, in_doubt=True) == {Gain.QUALITY, Gain.BYTES}
    assert lacking(of(int8, cut), int8, in_doubt=False) == frozenset()
    gained = doubt(of(int8, scored("gained", INT8_BYTES // 2, -1.9, -0.3, 1.3)), int8)
    assert gained is not None
    assert "gained gains 0.3 points, and chance does not rule out a loss of 1.3 points; about" in gained.words
    # Where plain integers change too many answers to show anything, nothing does.
    noisy = replace(int8, drop=Difference(0.1, 0.5, -1.4, 1.6))
    unshown = doubt(of(noisy, cut), noisy)
    assert unshown is not None
    assert not unshown.can_be_shown
    # Of what changes as few answers as plain integers more training shows nothing.
    small = scored("small", INT8_BYTES // 2, -0.6, 0.3, 1.2)
    near = doubt(of(int8, small), int8)
    assert near is not None
    assert near.is_near
    shown = scored("trained.int4", INT8_BYTES // 2, -0.5, 0.2, 0.9)
    assert doubt(of(int8, cut, shown), int8) is None
    assert doubt(of(int8), int8) is None
    assert lacking(of(int8), int8, in_doubt=False) == {Gain.BYTES}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("1.5h", 5400.0), ("45", 45.0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0m", "-5m", "1e400h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="Expected a duration such as 90s, 30m or 2h, got"):
        parse_duration_s(text)


def test_a_call_to_a_worker_ends_at_its_moment() -> None:
    with workers.Worker() as worker, workers.until(time.monotonic() + 0.5):
        with pytest.raises(workers.TimeIsUp):
            worker.call("time:sleep", 60)
        with pytest.raises(workers.TimeIsUp):
            worker.call("time:sleep", 0)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budgets": Budgets(max_drop=-1.0)}, "Expected a max_drop of at least 0, got -1"),
        ({"budgets": Budgets(max_size_bytes=0)}, "Expected a max_size above 0, which no file keeps, got 0"),
        ({"budgets": Budgets(max_ram_bytes=9)}, "Expected a target with max_ram, got none"),
        ({"aim": "speed"}, "Expected an aim, got 'speed'. Known: balance, latency, size"),
        ({"recipe": Recipe(), "time_s": 9.0}, "Expected a recipe, or an aim and a time for the ladder"),
    ],
)
def test_what_cannot_be_asked_for(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        edgeopt.optimize(tmp_path / "m.keras", "digits", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


# --- what is told ----------------------------------------------------------------------------------------------------


def climbed(*variants: Variant, climb: Climb = Climb(), **budgets: Any) -> Report:  # noqa: B008 - it is frozen
    """Returns a report of variants beside a float32 of 400,000 bytes."""
    baseline = variant("float32", "0", 4 * INT8_BYTES, "float32")
    everything = tuple(
        replace(one, metric=MetricValue("top1", 0.9, 0.88, 0.92, 1000, is_share=True)) for one in (baseline, *variants)
    )
    return Report(
        "0", "", ModelFacts("m.keras"), budgets=Budgets(**budgets), variants=everything, baseline="float32", climb=climb
    )


def test_a_budget_for_ram_says_how_it_was_found() -> None:
    measured = variant("int8", "a", on_target=OnTarget(ram_bytes=5000, memory_how="measured"))
    report = replace(climbed(measured, max_ram_bytes=4000), target="cortex-m4")
    assert broken_budgets(report, measured) == ("takes 5,000 (measured) on cortex-m4, more than 4,000 bytes of RAM",)
    assert broken_budgets(report, variant("int8", "a")) == ("RAM not known (at most 4,000 bytes of RAM allowed)",)
    assert broken_budgets(replace(report, budgets=Budgets(max_ram_bytes=5000)), measured) == ()
    assert read_recipe("version: 1\nbudgets: {max_ram: 4KB}").budgets.max_ram_bytes == 4000


def test_the_report_shows_the_ladder_as_it_was_climbed() -> None:
    rungs = (
        RungRecord("schemes", "convert", None, 12.3, ("int8",), "int8", came_to=("int8: 5 bytes: too <large>",)),
        RungRecord("repair", "mend", skipped="it brings quality, and what lacks is bytes"),
        RungRecord("shrink", "cut", 60.0, 90.0, ("shrink.int8",), "int8"),
        RungRecord("student", "learn", skipped="the time was over"),
    )
    climb = Climb("size", 600.0, rungs, "time", "the time was over", ("weights of head are 61 % of the bytes",))
    report = climbed(variant("int8", "a"), climb=climb, max_size_bytes=5)
    page, text = render_html(report), render_markdown(report)
    for said in (
        "weights of head are 61 % of the bytes.",
        "It ended: the time was over.",
        "gone on with for the smallest one, within 10 min",
        "ot begun: student.",
        "Pruning and clustering are no rungs",
    ):
        assert said in page, said
        assert said in text, said
    assert "Not begun: it brings quality, and what lacks is bytes." in page
    assert "int8: 5 bytes: too &lt;large&gt;" in page
    assert "| shrink | 1 min | 1 min 30 s | int8 |" in text
    assert "The ladder" not in render_html(replace(report, climb=None))


def test_the_terminal_shows_a_line_a_rung() -> None:
    rungs = (
        RungRecord("schemes", "convert", None, 12.3, ("int8",), "int8"),
        RungRecord("repair", "mend", skipped="it brings quality, and what lacks is bytes, " + 9 * "and more of it "),
    )
    report = climbed(variant("int8", "a"), climb=Climb("size", 60.0, rungs, "time", "the time was over"))
    first, second, last = ladder_lines(report, width=80)
    assert first == "schemes       12.3 s  the best so far: int8"
    assert second.startswith("repair       skipped  it brings quality")
    assert len(second) == 80
    assert last == "Ended: the time was over."
    assert ladder_lines(replace(report, climb=None)) == []
