"""The main job through the Python API: what it writes, what it recommends, what it does again and what not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from test_delegates import built

import edgeopt
from edgeopt import files, formats, progress, recommendation
from edgeopt.errors import ConfigError, DataError, ModelError, UnavailableError
from edgeopt.evaluation import Predictor
from edgeopt.ladder.obstacles import obstacles
from edgeopt.report import ModelFacts, Report, broken_budgets, read_report, render_markdown, schema, to_json
from edgeopt.runtimes import RUNTIMES, Delegate, to_try
from edgeopt.schemes import DEFAULTS, SCHEMES
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import (
    Artifact,
    Budgets,
    Climb,
    Difference,
    Fidelity,
    Latency,
    MetricValue,
    OnTarget,
    Problem,
    RuntimeResult,
    Variant,
)

CHOSEN = ("float16", "int8")


@pytest.fixture(scope="module")
def finished(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """All schemes of the digits model."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    return edgeopt.optimize(digits_model, "digits", folder, budgets=Budgets(max_drop=1.0)), folder


def stored(folder: Path) -> dict[str, int]:
    """Returns when each stored result was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / ".edgeopt").iterdir() if file.is_file()}


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_the_report_is_as_documented_and_reads_back(finished: tuple[Report, Path]) -> None:
    report, folder = finished
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema.load_schema())
    assert to_json(read_report(folder)) == to_json(report)
    for name in ("report.html", "report.md"):
        assert report.best is not None
        assert report.best in (folder / name).read_text()


def test_every_scheme_is_there_with_the_numbers_of_its_file(finished: tuple[Report, Path]) -> None:
    report, folder = finished
    assert [variant.name for variant in report.variants] == list(DEFAULTS)
    for variant in report.variants:
        file = folder / str(variant.file)
        content = file.read_bytes()
        assert variant.error is None
        assert variant.sha256 == files.sha256(file)
        assert variant.size_bytes == len(content) == sum(variant.bytes_by_kind.values())
        assert variant.gzip_bytes == files.gzip_size(content)
        assert [row.name for row in variant.runtimes] == [one.runtime.name for one in to_try((), form="tflite")]
        inputs = {spec.dtype for spec in read(file).inputs}
        assert inputs == {SCHEMES[variant.scheme].inputs}
    sizes = {variant.name: variant.size_bytes for variant in report.variants}
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]


def test_metrics_and_drops_are_of_one_set_of_samples(finished: tuple[Report, Path]) -> None:
    report, _ = finished
    baseline = report.variant(report.baseline)
    assert baseline is not None
    assert baseline.name == "float32"
    assert baseline.drop is None
    assert baseline.metric is not None
    assert baseline.metric.value > 0.85  # it has learned
    assert report.data is not None
    for variant in report.variants:
        assert variant.metric is not None
        assert variant.metric.samples == report.data.samples["validation"]
        if variant is not baseline:
            assert variant.drop is not None
            points = 100 * (baseline.metric.value - variant.metric.value)
            assert variant.drop.value == pytest.approx(points)
            assert 0 <= variant.drop.p_value <= 1


def test_runtimes_are_told_apart(finished: tuple[Report, Path]) -> None:
    report, _ = finished
    for name in ("float32", "int8"):
        variant = report.variant(name)
        assert variant is not None
        for row in variant.runtimes:
            assert row.loads == (row.status == "ok")
            assert row.matches_reference is (True if row.loads else None)
        timed = variant.latency_on("litert")
        assert timed is not None
        assert 0 < timed.min <= timed.p50 <= timed.p90 <= timed.p99
        assert variant.latency_on("litert-reference") is None
    float16 = report.variant("float16")
    assert float16 is not None
    refused = next(row for row in float16.runtimes if row.name == "tflm")
    assert refused.status in ("failed", "skipped")
    assert refused.reason


def test_every_tensor_but_the_baseline_s_is_compared(finished: tuple[Report, Path]) -> None:
    report, _ = finished
    compared = {variant.name: bool(variant.layer_errors) for variant in report.variants}
    assert compared == {name: name != "float32" for name in DEFAULTS}


def test_the_best_file_is_the_recommended_variant(finished: tuple[Report, Path]) -> None:
    report, folder = finished
    best = report.variant(report.best)
    assert best is not None
    assert files.sha256(folder / "best.tflite") == best.sha256
    assert "signal to quantization noise" in (folder / "best.svg").read_text("utf-8")
    assert best.name not in ("float32", "int16x8")  # both are larger and slower than int8


# --- again -----------------------------------------------------------------------------------------------------------


def test_the_same_call_works_on_nothing_again(finished: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = finished
    before, variants = stored(folder), {f.name: f.stat().st_mtime_ns for f in (folder / "variants").iterdir()}
    again = edgeopt.optimize(digits_model, "digits", folder, budgets=Budgets(max_drop=1.0))
    after = stored(folder)
    assert {**after, "inputs.json": 0} == {**before, "inputs.json": 0}
    assert {f.name: f.stat().st_mtime_ns for f in (folder / "variants").iterdir()} == variants
    assert to_json(again)["variants"] == to_json(report)["variants"]
    assert again.best == report.best


def test_other_budgets_only_choose_again(finished: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = finished
    before = stored(folder)
    smallest = min(report.variants, key=lambda variant: variant.size_bytes or 0)
    again = edgeopt.optimize(digits_model, "digits", folder, budgets=Budgets(max_size_bytes=smallest.size_bytes))
    assert again.best == smallest.name
    assert stored(folder).keys() == before.keys()


def test_a_size_that_no_scheme_keeps_is_met_a_rung_higher(finished: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = finished
    sizes = {variant.name: variant.size_bytes or 0 for variant in report.variants}
    limit = int(0.8 * sizes["int8"])  # of which four bits save more than a third
    budgets = Budgets(max_drop=5.0, max_size_bytes=limit)
    again = edgeopt.optimize(digits_model, "digits", folder, budgets=budgets)
    best, climb = again.variant(again.best), again.climb
    assert climb is not None
    assert best is not None
    assert (best.size_bytes or 0) <= limit
    assert files.sha256(folder / "best.tflite") == best.sha256
    assert (climb.ended, climb.why) == ("met", f"{best.name} keeps every budget, and no more was asked for")
    told = {rung.name: rung for rung in climb.rungs}
    assert told["repair"].skipped == "it brings quality, and what lacks is bytes"
    last = [rung for rung in climb.rungs if not rung.skipped][-1]
    assert last.name in ("four bits", "mixed precision")  # nothing is trained
    assert last.best == best.name
    assert best.name in last.made
    assert told["shrink"].skipped == climb.why
    # Where the schemes were not enough, what each layer bears is of interest.
    assert again.sensitivity is not None
    assert again.sensitivity.choices == ("int8", "int4")
    assert report.sensitivity is None
    # The recipe is that of the best one, and makes it again.
    assert edgeopt.load_recipe(folder / "recipe.yaml").schemes == (best.scheme,)
    assert to_json(read_report(folder)) == to_json(again)


@pytest.fixture
def begun(finished: tuple[Report, Path], tmp_path: Path) -> tuple[Report, Path]:
    """The same folder, in which something else may be done."""
    return finished[0], shutil.copytree(finished[1], tmp_path / "out")


def test_ctrl_c_ends_the_ladder_well(begun: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = begun
    (int8,) = (variant for variant in report.variants if variant.name == "int8")
    told: list[str] = []

    def interrupting(news: progress.News) -> None:
        if isinstance(news, progress.Announcement):
            told.append(news.text)
            raise KeyboardInterrupt

    budgets = Budgets(max_drop=5.0, max_size_bytes=int(0.8 * (int8.size_bytes or 0)))
    with progress.listening(interrupting):
        again = edgeopt.optimize(digits_model, "digits", folder, budgets=budgets)
    assert len(told) == 1
    assert ": may take " in told[0]  # what it costs is told before it begins
    assert again.climb is not None
    assert (again.climb.ended, again.climb.why) == ("interrupted", "it was interrupted")
    assert to_json(read_report(folder)) == to_json(again)
    best = again.variant(again.best)
    assert best is not None
    assert files.sha256(folder / "best.tflite") == best.sha256
    assert " too many: weights of " in again.climb.obstacles[0]


def test_a_time_too_short_for_the_schemes_makes_the_integers_alone(digits_model: Path, tmp_path: Path) -> None:
    report = edgeopt.optimize(digits_model, "digits", tmp_path, budgets=Budgets(max_size_bytes=60_000), time_s=0.001)
    assert report.climb is not None
    assert report.climb.ended == "time"
    left_out = [name for name in DEFAULTS if name not in ("float32", "int8")]
    assert report.climb.why == f"there was no time for {', '.join(left_out)}"
    assert [variant.name for variant in report.variants] == ["float32", "int8"]
    assert all(rung.skipped == report.climb.why for rung in report.climb.rungs[1:])
    best = report.variant(report.best)
    assert best is not None
    assert best.name == "int8"
    # It runs, and nobody waited for a clock.
    assert best.runtimes
    assert report.latency(best) is None
    assert (tmp_path / "best.tflite").read_bytes() == (tmp_path / str(best.file)).read_bytes()
    # With time the same command goes on from there.
    whole = edgeopt.optimize(digits_model, "digits", tmp_path, budgets=Budgets(max_size_bytes=60_000), time_s=600)
    assert [variant.name for variant in whole.variants] == list(DEFAULTS)


def test_nothing_is_trained_for_a_doubt_that_the_samples_may_settle(
    finished: tuple[Report, Path], digits_model: Path, tmp_path: Path
) -> None:
    """Six of 300 answers changed: two points are lost, 2.5 allowed, and chance does not rule out 3.7."""
    x = next(iter(edgeopt.load_data("digits").training.arrays().inputs.values()))
    first, other = np.random.default_rng(0).integers(len(x), size=(2, 4000))
    mixed = ((x[first] + x[other]) / 2).astype(np.float32)
    answers = [_answers(finished[1] / f"variants/digits.{name}.tflite", mixed) for name in ("float32", "dynamic")]
    changed, same = (np.flatnonzero((answers[0] == answers[1]) == alike) for alike in (False, True))
    tested, trained = np.concatenate([changed[:6], same[:294]]), same[294:306]  # too few to repair anything with
    given = {"x_train": mixed[trained], "x_test": mixed[tested]}
    labels = {"y_train": answers[0][trained], "y_test": answers[0][tested]}
    float_bytes = finished[0].variants[0].size_bytes or 0
    budgets = Budgets(max_drop=2.5, max_size_bytes=float_bytes - 1)
    report = edgeopt.optimize(digits_model, given | labels, tmp_path / "out", schemes=["dynamic"], budgets=budgets)
    dynamic = report.variant("dynamic")
    assert dynamic is not None
    assert dynamic.drop is not None
    assert dynamic.drop.value == pytest.approx(100 * 6 / 300)
    assert report.best == "dynamic"
    assert report.climb is not None
    assert report.climb.ended == "top"
    told = {rung.name: rung.skipped for rung in report.climb.rungs}
    assert told["quantization-aware training"] == (
        "nothing is trained only to show a loss that is kept as measured; --time lets it"
    )
    assert report.steps == ()


def _answers(file: Path, x: np.ndarray) -> np.ndarray:
    part = edgeopt.load_data((x, np.zeros(len(x), int)), validation_share=1).validation
    with Predictor(file, part, RUNTIMES["litert"]) as predictor:
        (scores,) = predictor.values(predictor.part.arrays()).values()
    return scores.argmax(axis=1)


def test_what_stands_in_the_way_is_said_from_facts(finished: tuple[Report, Path]) -> None:
    """Nothing is small and right at once: what is nearest lacks, the largest weight, and what being small costs."""
    report, folder = finished
    int8 = report.variant("int8")
    assert int8 is not None
    size = int8.size_bytes or 0
    largest = max(formats.facts(folder / str(int8.file)).weights, key=lambda weight: weight.size_bytes)
    int8 = replace(int8, drop=Difference(0.2, 0.5, -0.3, 0.7))
    artifact = replace(int8.artifacts[0], size_bytes=20)
    int4 = replace(int8, name="round.int4", artifacts=(artifact,), drop=Difference(1.8, 0.001, 1.2, 2.4))
    limit = int(0.8 * size)
    budgets = Budgets(max_drop=1.0, max_size_bytes=limit)
    held = replace(report, variants=(report.variants[0], int8, int4), budgets=budgets, best=None)
    # A third too large is nearer than nearly twice the loss.
    assert recommendation.recommended(held).best == "int8"
    assert obstacles(held, int8, folder) == (
        f"int8 takes {size:,} bytes, {size - limit:,} too many: weights of {largest.name} are "
        f"{100 * largest.size_bytes / size:.0f} % of them",
        "round.int4 fits (20 bytes), losing 1.8 ± 0.6 points",
    )
    assert obstacles(held, int4, folder) == (
        "round.int4 loses 1.8 ± 0.6 points, where 1 point may be lost",
        f"float32 loses little enough, and takes {report.variants[0].size_bytes:,} bytes, more than {limit:,} bytes",
    )


def test_what_stands_in_the_way_of_ram_is_told_of_the_file_that_comes_nearest(finished: tuple[Report, Path]) -> None:
    """The one that takes least RAM loses far too much: it is not what `best.tflite` is."""
    report, folder = finished
    int8 = report.variant("int8")
    assert int8 is not None
    near = replace(int8, drop=Difference(0.2, 0.5), on_target=OnTarget(ram_bytes=5_000, memory_how="measured"))
    least = replace(
        near,
        name="least",
        drop=Difference(60.0, 0.0),
        on_target=OnTarget(ram_bytes=4_500, memory_how="measured"),
    )
    budgets = Budgets(max_drop=1.0, max_ram_bytes=4_000)
    held = replace(report, variants=(report.variants[0], near, least), budgets=budgets, target="cortex-m4", best=None)
    best = held.variant(recommendation.recommended(held).best)
    assert best is near
    taken, fitting = obstacles(held, near, folder)
    assert taken.startswith("int8 takes 5,000 bytes of RAM on cortex-m4 (measured), most of it at ")
    assert fitting == "nothing that was tried is smaller there by enough"


def test_a_variant_that_somebody_touched_is_made_anew(finished: tuple[Report, Path], digits_model: Path) -> None:
    report, folder = finished
    touched = report.variant("float16")
    assert touched is not None
    file = folder / str(touched.file)
    file.write_bytes(b"somebody's")
    again = edgeopt.optimize(digits_model, "digits", folder, schemes=["float16"])
    assert [variant.name for variant in again.variants] == ["float32", "float16"]
    assert again.variants[1].sha256 == files.sha256(file) == touched.sha256


# --- other models and data -------------------------------------------------------------------------------------------


def test_a_float_tflite_and_arrays(finished: tuple[Report, Path], tmp_path: Path) -> None:
    _, folder = finished
    rng = np.random.default_rng(0)
    arrays = rng.random((150, 8, 8, 1), np.float32), rng.integers(0, 10, 150)
    source = folder / "variants" / "digits.float32.tflite"
    report = edgeopt.optimize(source, arrays, tmp_path / "out", schemes=["int8", "dynamic"])
    assert report.model.format == "tflite"
    assert report.data is not None
    assert report.data.path == "arrays"
    assert [variant.name for variant in report.variants] == ["float32", "int8", "dynamic"]
    assert report.variants[0].sha256 == files.sha256(source)
    for variant in report.variants:
        assert variant.error is None
        litert = next(row for row in variant.runtimes if row.name == "litert-builtin")
        assert litert.matches_reference


def test_a_variant_that_the_main_runtime_refuses_is_a_row(
    finished: tuple[Report, Path], digits_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    _, folder = finished
    source = folder / "variants" / "digits.float32.tflite"
    report = edgeopt.optimize(source, "digits", tmp_path / "out", schemes=CHOSEN, runtime="tflm")
    refused, int8 = report.variants[1:]
    assert (refused.name, refused.metric, report.latency(refused)) == ("float16", None, None)
    assert any(note.startswith("not scored: tflm") for note in refused.notes)
    assert int8.metric is not None
    assert report.latency(int8) is not None
    assert report.best == "int8"


# --- what is refused before anything is written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"schemes": ["int7"]}, ConfigError, "as schemes, got 'int7'. Did you mean 'int8'"),
        ({"runtime": "litrt"}, ConfigError, "Did you mean 'litert'"),
        ({"budgets": Budgets(runtimes=("tflmm",))}, ConfigError, "Did you mean 'tflm'"),
        ({"metric": "acuracy"}, ConfigError, "acuracy"),
    ],
)
def test_settings_that_cannot_be_used(
    settings: Mapping[str, Any], error: type[Exception], said: str, finished: tuple[Report, Path], tmp_path: Path
) -> None:
    source = finished[1] / "variants" / "digits.float32.tflite"
    with pytest.raises(error, match=said):
        edgeopt.optimize(source, "digits", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_model_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nope\.keras, which does not exist"):
        edgeopt.optimize(tmp_path / "nope.keras", "digits", tmp_path / "out")
    with pytest.raises(DataError, match=r"nope\.npz, which does not exist"):
        edgeopt.optimize(tmp_path / "nope.keras", tmp_path / "nope.npz", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- the choice ------------------------------------------------------------------------------------------------------


def made(name: str, size: int, p50: float | None, drop: float | None = 0.0, **changes: Any) -> Variant:
    """Returns a variant of `size` bytes that takes `p50` ms on LiteRT and loses `drop` points."""
    latency = None if p50 is None else Latency(p50, p50, p50, 100, 1)
    metric = MetricValue("top1", 0.9 - (drop or 0.0) / 100, 0.8, 1.0, 500, is_share=True)
    row = RuntimeResult("litert", "2.3.0", latency_ms=latency, matches_reference=True)
    difference = None if drop is None else Difference(drop, 0.5)
    artifact = Artifact("tflite", f"variants/{name}.tflite", "0" * 64, size, size)
    variant = Variant(name, name, (artifact,), metric=metric, drop=difference, runtimes=(row,))
    return replace(variant, **changes)


def chosen(
    *variants: Variant,
    fastest: float | None = None,
    target: str | None = None,
    aim: str | None = None,
    **budgets: Any,
) -> tuple[str | None, str]:
    """Returns what is recommended beside a float32 of 1000 bytes and 1 ms, and why."""
    baseline = made("float32", 1000, 1.0, None)
    latency = Latency(1.0, 1.0, 1.0, 100, 1, min=fastest)
    baseline = replace(baseline, runtimes=(replace(baseline.runtimes[0], latency_ms=latency),))
    report = recommendation.recommended(
        Report(
            "0",
            "2026-01-01T00:00:00+00:00",
            ModelFacts("m.keras"),
            target=target,
            climb=None if aim is None else Climb(aim),
            budgets=Budgets(**budgets),
            variants=(baseline, *variants),
            baseline="float32",
        )
    )
    return report.best, report.best_reason


def test_the_smallest_product_of_size_and_latency() -> None:
    half_and_quarter = made("a", 500, 0.25)
    third_and_half = made("b", 333, 0.5)
    assert chosen(third_and_half, half_and_quarter, max_drop=1.0) == (
        "a",
        "of the 3 that keep every budget, the one with the least size times latency",
    )


def test_of_equal_ones_the_portable_then_the_simple_then_the_small() -> None:
    a, b = made("a", 500, 0.5), made("b", 260, 1.0)
    for order in ((a, b), (b, a)):
        best, why = chosen(*order, max_drop=1.0)
        assert best == "b"
        assert why.endswith("or its equal within the measurements' doubt (a): the one that is smaller")
    simple = replace(b, steps=("prune",))
    assert chosen(simple, a, max_drop=1.0)[0] == "a"
    portable = replace(simple, runtimes=(*simple.runtimes, RuntimeResult("tflm", matches_reference=True)))
    best, why = chosen(a, portable, max_drop=1.0)
    assert best == "b"
    assert "the one that runs in more places" in why


def test_a_noisy_machine_does_not_turn_the_choice() -> None:
    """Ten runs of one command: latencies vary by a tenth, the recommendation does not."""
    rng, found = np.random.default_rng(0), set()
    for _ in range(10):
        dynamic, int8 = 0.4 * rng.uniform(0.9, 1.1), 0.41 * rng.uniform(0.9, 1.1)
        portable = RuntimeResult("tflm", matches_reference=True)
        variants = made("dynamic", 300, dynamic), made("int8", 298, int8)
        found.add(chosen(variants[0], replace(variants[1], runtimes=(*variants[1].runtimes, portable)))[0])
    assert found == {"int8"}


def test_neighbours_at_the_edge_of_doubt_do_not_turn_the_choice_either() -> None:
    """Medians suffer from whatever else runs, the fastest runs hardly; costs lie all around the bound of doubt."""
    rng, found = np.random.default_rng(0), set()
    costs = {"a": 1.0, "b": 1.12, "c": 1.19, "d": 1.22, "e": 1.75}
    for _ in range(100):
        variants = []
        for number, (name, cost) in enumerate(costs.items()):
            fastest = 0.2 * cost * rng.uniform(1.0, 1.02)
            latency = Latency(fastest * rng.uniform(1.0, 1.6), 1.0, 1.0, 100, 1, min=fastest, noise=0.1)
            one = made(name, 300, 0.2, steps=("x",) * (9 - number))
            variants.append(replace(one, runtimes=(replace(one.runtimes[0], latency_ms=latency),)))
        found.add(chosen(*variants, fastest=1.0)[0])
    assert found == {"d"}


def test_where_the_clock_itself_doubts_more_is_equal() -> None:
    quick, small = made("quick", 500, 0.5), made("small", 400, 0.9)
    assert chosen(quick, small)[0] == "quick"
    latency = Latency(0.5, 0.5, 0.5, 100, 1, noise=0.5)
    noisy = replace(quick, runtimes=(replace(quick.runtimes[0], latency_ms=latency),))
    assert chosen(noisy, small)[0] == "small"


def test_budgets_come_before_size_and_speed() -> None:
    tiny = made("tiny", 100, 0.1, 1.5)
    assert chosen(tiny, made("a", 900, 0.9, 1.0), max_drop=1.0)[0] == "a"
    assert chosen(tiny, max_drop=2.0, max_size_bytes=100) == ("tiny", "the only one that keeps every budget")
    assert chosen(made("a", 900, 0.9), made("b", 500, 2.0), max_latency_ms=0.9)[0] == "a"


def test_a_budget_of_latency_is_the_target_s_where_that_is_known() -> None:
    """Both take 0.5 ms here, and only one of them 10 ms or less on the device."""
    slow = made("slow", 300, 0.5, on_target=OnTarget(latency_ms=22.3, latency_how="simulated"))
    fast = made("fast", 600, 0.5, on_target=OnTarget(latency_ms=9.1, latency_how="simulated"))
    unknown = made("unknown", 100, 0.5, on_target=OnTarget())
    assert chosen(slow, fast, unknown, max_latency_ms=10.0) == ("fast", "the only one that keeps every budget")
    report = Report(
        "0", "", ModelFacts("m.keras"), target="cortex-m4", budgets=Budgets(max_latency_ms=10.0), variants=(slow, fast)
    )
    assert broken_budgets(report, slow) == ("takes 22.3 ms on cortex-m4 (simulated), more than 10 ms",)
    assert broken_budgets(report, unknown) == ("latency on cortex-m4 not known (at most 10 ms allowed)",)
    assert "takes at most 10 ms on cortex-m4" in render_markdown(report)


def test_files_are_ranked_by_the_latency_of_the_target_where_that_is_known() -> None:
    """What is slow here is fast there; of a third one nobody knows."""
    slow = made("slow", 300, 0.1, on_target=OnTarget(latency_ms=40.0, latency_how="estimated"))
    fast = made("fast", 310, 0.9, on_target=OnTarget(latency_ms=10.0, latency_how="estimated"))
    unknown = made("unknown", 290, 0.1, on_target=OnTarget())
    how = "of the 2 that keep every budget and have a known latency on cortex-m4, the one with the least size times"
    assert chosen(slow, fast, unknown, target="cortex-m4", max_drop=1.0) == ("fast", f"{how} latency on cortex-m4")
    assert chosen(slow, fast, unknown, target="cortex-m4", aim="latency")[0] == "fast"
    # Bytes are known of all, and where nothing is known of a target there is this machine's clock.
    assert chosen(slow, fast, unknown, target="cortex-m4", aim="size")[0] == "unknown"
    assert chosen(fast, unknown, target="cortex-m4", max_size_bytes=300)[0] == "unknown"
    bare = [replace(one, on_target=OnTarget()) for one in (slow, fast)]
    assert chosen(*bare, target="cortex-m4", max_drop=1.0)[0] == "slow"


def test_what_is_just_allowed_may_be_lost() -> None:
    """Three answers of 300 are one point, of which a difference of floats makes a little more."""
    lost = 100 * (297 / 300 - 294 / 300)
    assert lost > 1.0
    assert chosen(made("a", 100, 0.1, lost), max_drop=1.0, max_size_bytes=200)[0] == "a"
    assert chosen(made("a", 100, 0.1, 1.01), max_drop=1.0)[0] == "float32"


def test_a_gain_is_no_loss() -> None:
    assert chosen(made("better", 900, 0.9, -0.5), max_drop=0.0)[0] == "better"


def test_when_none_keeps_the_budgets_the_one_that_comes_nearest() -> None:
    reason = "none keeps every budget; this one comes nearest"
    large, lossy = made("large", 800, 0.5), made("lossy", 700, 0.5, 5.0)
    assert chosen(large, lossy, max_drop=1.0, max_size_bytes=100) == ("large", reason)
    assert chosen(large, made("larger", 900, 0.1), max_size_bytes=100) == ("larger", reason)
    # Four times too large is farther than half a point too much of a file that is nearly small enough.
    near = made("near", 110, 0.9, 1.5)
    assert chosen(made("far", 400, 0.1), near, max_drop=1.0, max_size_bytes=100) == ("near", reason)


def lost(name: str, size: int, value: float, low: float, high: float, **changes: Any) -> Variant:
    """Returns a variant that loses `value` points, of which 95 % of the chance are between `low` and `high`."""
    return replace(made(name, size, 0.5, value), drop=Difference(value, 0.5, low, high), **changes)


def test_of_losses_that_the_samples_do_not_tell_apart_the_surest() -> None:
    """Two cuts of one network as 667 pictures saw them, which change 45 answers and 32; on 1,333 others the first lost
    1.5 points and the second 0.2."""
    cut, trained = lost("cut", 432, 1.05, -0.94, 3.03), lost("trained", 432, 1.20, -0.48, 2.88)
    worse = lost("worse", 432, 4.3, 1.9, 6.7)
    for order in ((cut, trained, worse), (worse, trained, cut)):
        assert chosen(*order, max_drop=1.0, max_size_bytes=450)[0] == "trained"
        # Where both are allowed they cost the same, and where nothing is bounded one point is allowed.
        best, why = chosen(*order, max_drop=1.5, max_size_bytes=450)
        assert (best, why.rpartition(": ")[2]) == ("trained", "the one whose loss is surer")
    # What is shown to lose more is farther, however well that is known; so is what is larger.
    known = lost("known", 432, 1.9, 1.6, 2.2)
    assert chosen(cut, known, max_drop=1.0, max_size_bytes=450)[0] == "cut"
    larger = replace(trained, artifacts=made("larger", 600, None).artifacts)
    assert chosen(cut, larger, max_drop=1.0, max_size_bytes=430)[0] == "cut"


def test_a_loss_is_as_sure_as_it_has_to_be() -> None:
    """Both are shown to be allowed, or open by nearly as much: then the simpler one, and of all the portable one."""
    simple, long = lost("simple", 500, 0.4, -0.1, 0.9), lost("long", 500, 0.0, -0.1, 0.1, steps=("repair",))
    assert chosen(long, simple, max_drop=1.0)[0] == "simple"
    nearly = replace(simple, drop=Difference(0.4, 0.5, -0.4, 1.15))
    assert chosen(long, nearly, max_drop=1.0)[0] == "simple"
    open_by_more = replace(simple, drop=Difference(0.4, 0.5, -0.9, 1.7))
    assert chosen(long, open_by_more, max_drop=1.0)[0] == "long"
    portable = replace(open_by_more, runtimes=(*simple.runtimes, RuntimeResult("tflm", matches_reference=True)))
    assert chosen(long, portable, max_drop=1.0)[0] == "simple"


def test_what_was_not_timed_counts_as_fast_as_the_baseline() -> None:
    assert chosen(made("untimed", 600, None), made("timed", 700, 0.5))[0] == "timed"
    assert chosen(made("untimed", 300, None), made("timed", 700, 0.5))[0] == "untimed"
    assert chosen(made("untimed", 300, None), made("timed", 700, 0.5), max_latency_ms=1.0)[0] == "timed"


def test_what_is_chosen_is_chosen_by_the_tuning_samples() -> None:
    def tuned(name: str, shown: float, hidden: float) -> Variant:
        other = made(name, 200, 0.5, hidden)
        return replace(made(name, 200, 0.5, shown), tuning_metric=other.metric, tuning_drop=other.drop)

    flattered, sound = tuned("a", shown=0.0, hidden=3.0), replace(tuned("b", shown=2.0, hidden=0.0), name="b")
    assert chosen(flattered, sound, max_drop=1.0)[0] == "b"
    assert chosen(replace(flattered, tuning_metric=None), replace(sound, tuning_metric=None), max_drop=1.0)[0] == "a"


def test_a_model_that_no_longer_works_is_not_recommended_without_a_budget_for_the_loss() -> None:
    collapsed, sound = made("collapsed", 250, 0.2, 60.0), made("sound", 260, 0.3, 0.4)
    assert chosen(collapsed, sound) == (
        "sound",
        "of the 2 that were made and lose at most 1 point, the one with the least size times latency",
    )
    assert chosen(collapsed) == ("float32", "the only one that was made and loses at most 1 point")
    assert chosen(collapsed, max_size_bytes=250) == (
        "collapsed",
        "the only one that keeps every budget; it loses more than 1 point",
    )


def test_what_has_lost_something_is_recommended_only_where_nothing_else_is_left_and_that_is_said() -> None:
    lost = Fidelity(300, "litert", problems=(Problem("component", "y", 1.5, cause="output", ways_out=("scale",)),))
    small, sound = made("small", 250, 0.2, fidelity=lost), made("sound", 500, 0.5, fidelity=Fidelity(300, "litert"))
    assert chosen(small, sound) == (
        "sound",
        "of the 2 that were made and are faithful to float32, the one with the least size times latency",
    )
    name, reason = chosen(small, sound, max_size_bytes=250)
    assert name == "small"
    assert reason.startswith(
        "the only one that keeps every budget; but the error of output 'y' is 1.5 times its spread: one step of its "
        "quantization is too wide. Try: let the model give targets scaled"
    )
    scored = replace(lost, problems=(Problem("score", "y", 12.0),))
    assert chosen(made("allowed", 250, 0.2, 12.0, fidelity=scored), max_drop=15.0)[0] == "allowed"


def test_what_fails_or_computes_something_else_on_the_runtime_is_not_recommended() -> None:
    good = made("good", 900, 0.9)
    wrong = RuntimeResult("litert", latency_ms=Latency(0.1, 0.1, 0.1, 9, 1), matches_reference=False)
    assert chosen(made("wrong", 100, 0.1, runtimes=(wrong,)), good)[0] == "good"
    failed = RuntimeResult("litert", status="failed", reason="it refuses")
    assert chosen(made("failed", 100, None, None, runtimes=(failed,)), good)[0] == "good"
    assert chosen(made("unmade", 1, 0.1, error="the converter refused", artifacts=()), good)[0] == "good"


# --- a delegate ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt-get install gcc")
def test_what_a_delegate_takes_nothing_of_is_said_and_the_run_goes_on(digits_model: Path, tmp_path: Path) -> None:
    """It takes float layers alone."""
    report = edgeopt.optimize(digits_model, "digits", tmp_path, schemes=("int8",), delegate=Delegate(built()))
    baseline, int8 = report.variants
    assert baseline.metric is not None
    assert int8.metric is None
    assert any(note.startswith("not scored: The delegate") for note in int8.notes)
    assert "took none of the" in next(row for row in int8.runtimes if row.name == "litert").reason
    with pytest.raises(UnavailableError, match="took none of the"):
        edgeopt.optimize(
            digits_model, "digits", tmp_path, schemes=("int8",), delegate=Delegate(built(), {"claim": "nothing"})
        )
